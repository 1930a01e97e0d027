"""`joulegate check`: tell whether a config, of gateway or meter, or a profile is fit for use."""

from importlib import resources

import msgspec

from gateway import config as configs
from gateway import meter_config as meters
from gateway import profile as profiles
from gateway.commands.check_options import CheckOptions
from gateway.commands.serve import check_profiles
from gateway.console import OK, out, report_usage_error
from gateway.keys_file import load_keys

_FLAGS_NOTE = (
    "metered backends: start vLLM with --enable-per-request-metrics and "
    "--enable-prompt-tokens-details; without the first a unary request's wait in vLLM's queue "
    "is charged as work, without the second a cached prompt as a whole one"
)


def run(options: CheckOptions) -> int:
    """Check what is given; print what was found; return the exit code."""
    config, profile, meter = options.config, options.profile, options.meter
    if options.example:
        print(read_example_config(), end="")  # noqa: T201
        return OK
    if options.schema or options.meter_schema:
        shown = configs.build_json_schema() if options.schema else meters.build_json_schema()
        print(msgspec.json.format(msgspec.json.encode(shown)).decode())  # noqa: T201
        return OK
    if config is None and profile is None and meter is None:
        return report_usage_error("nothing to check: give --config, --profile or --meter")
    found: dict[str, object] = {}
    try:
        if config is not None:
            parsed = configs.load_config(config)
            found["config"] = str(config)
            found["models"] = {
                model.deployment_label: [backend.root_url for backend in model.backends]
                for model in parsed.models
            }
            checked = check_profiles(parsed)
            found["profile_version"] = checked.version
            if notes := _metering_notes(parsed, checked):
                found["notes"] = notes
            live = [entry for entry in load_keys(parsed) if entry.revoked is None]
            found |= {"keys": {entry.id: entry.tenant for entry in live}} if parsed.keys else {}
            found["policy"] = parsed.policy
            found["placement"] = parsed.placement.mode
        if profile is not None:
            loaded = profiles.load_profile(profile)
            found["profile"] = str(profile)
            found["profile_version"] = loaded.version
            found["profile_models"] = sorted(loaded.models)
        if meter is not None:
            found["meter"] = str(meter)
            found["ledgers"] = {
                ledger.name: [backend.root_url for backend in ledger.backends]
                for ledger in meters.load_meter_config(meter).ledgers
            }
    except (configs.ConfigError, profiles.ProfileError) as error:
        return report_usage_error(error)
    if options.as_json:
        print(msgspec.json.encode(found).decode())  # noqa: T201
        return OK
    _print(found)
    return OK


def read_example_config() -> str:
    """Return the text of the example that is shipped: gateway/examples/gateway.yaml."""
    return (resources.files("gateway") / "examples" / "gateway.yaml").read_text("utf-8")


def _print(found: dict[str, object]) -> None:
    for name, value in found.items():
        for line in value if isinstance(value, list) and name == "notes" else [value]:
            out.print(
                f"{name.removesuffix('s') if name == 'notes' else name}: {line}", markup=False
            )
    out.print("good")


def _metering_notes(config: configs.GatewayConfig, profile: profiles.CostProfile) -> list[str]:
    """Return what metering needs of a backend that no config shows."""
    metered = [model for model in config.models if any(b.meter for b in model.backends)]
    if not metered:
        return []
    notes = [_FLAGS_NOTE]
    by_meter: dict[str, set[str]] = {}
    for model in metered:
        for backend in model.backends:
            if backend.meter:
                by_meter.setdefault(backend.meter, set()).add(model.profile or model.name)
    unable = sorted(
        {
            name
            for names in by_meter.values()
            for name in names
            if len(names) > 1 and profile.get_model(name).decode_joules().joules_per_step is None
        }
    )
    if unable:
        notes.append(
            f"joules are coarse wherever models share a GPU: the profile of {', '.join(unable)} "
            "does not know what company does to its joules (profile it under load and fit it with "
            "the load form)"
        )
    return notes
