"""`joulegate keys`: make, list and revoke API keys in their file."""

from pathlib import Path

import msgspec
from rich.table import Table

from gateway.console import OK, out, print_json, report_failure, report_usage_error
from gateway.folder_lock import lock_folder
from gateway.keys_file import KeyEntry, KeysFile, read_keys, write_keys
from gateway.keys_file import make_key as draw_key
from gateway.structured import ConfigError
from gateway.utc_time import format_now


def make_key(
    file: Path,
    tenant: str,
    *,
    models: list[str] | None,
    presets: list[str] | None,
    priority: int,
) -> int:
    """Add a key to the file and print it, alone on its line."""
    given = {"models": models, "presets": presets, "priority": priority}
    try:
        with lock_folder(file):
            entries = read_keys(file).keys if file.exists() else ()
            key, entry = draw_key(tenant, **{what: of for what, of in given.items() if of})
            write_keys(file, KeysFile((*entries, entry)))
    except ConfigError as error:
        return report_usage_error(error)
    except OSError as error:
        return report_failure(f"{file}: {error.strerror}")
    print(key)  # noqa: T201 - for a pipe: `joulegate keys new … | pbcopy`
    return OK


def list_keys(file: Path, *, as_json: bool) -> int:
    """Print the keys of the file; nothing of a key itself is in it."""
    try:
        entries = read_keys(file).keys
    except ConfigError as error:
        return report_usage_error(error)
    if as_json:
        shown = [
            {name: of for name, of in msgspec.to_builtins(entry).items() if name != "sha256"}
            for entry in entries
        ]
        print_json(shown, line=True)
        return OK
    table = Table("key", "tenant", "models", "presets", "created", "revoked")
    for entry in entries:
        table.add_row(
            entry.id,
            entry.tenant,
            _show_names(entry.models),
            _show_names(entry.presets),
            entry.created or "",
            entry.revoked or "",
        )
    out.print(table)
    return OK


def revoke_key(file: Path, key_id: str) -> int:
    """Note in the file that a key is no longer good."""
    try:
        with lock_folder(file):
            entries = read_keys(file).keys
            if key_id not in {entry.id for entry in entries}:
                return report_usage_error(f"{file}: there is no key {key_id!r}")
            write_keys(file, KeysFile(tuple(_revoke_if_named(entry, key_id) for entry in entries)))
    except ConfigError as error:
        return report_usage_error(error)
    except OSError as error:
        return report_failure(f"{file}: {error.strerror}")
    return OK


def _revoke_if_named(entry: KeyEntry, key_id: str) -> KeyEntry:
    if entry.id != key_id or entry.revoked is not None:
        return entry
    return msgspec.structs.replace(entry, revoked=format_now())


def _show_names(names: tuple[str, ...] | None) -> str:
    return "all" if names is None else ", ".join(names)
