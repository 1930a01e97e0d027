"""The file of API keys, and the command that writes it."""

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from stat import S_IMODE

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.keys_file import KeysFile, make_key, read_keys, write_keys
from gateway.structured import ConfigError

runner = CliRunner()


def run(*arguments):
    return runner.invoke(app, ["keys", *map(str, arguments)])


def test_a_key_is_made_listed_and_revoked(tmp_path):
    file = tmp_path / "keys.yaml"
    made = [
        run("new", "--file", file, "--tenant", "search", "--model", "phi-3-mini"),
        run("new", "--file", file, "--tenant", "ads", "--preset", "auto", "--priority", 5),
    ]
    keys = [got.stdout.strip() for got in made]
    assert all(got.exit_code == 0 for got in made)
    assert keys[0] != keys[1]
    # 32 bytes are 43 letters.
    assert all(key.startswith("jg-") and len(key) == 46 for key in keys)
    first, second = read_keys(file).keys
    assert first.sha256 == hashlib.sha256(keys[0].encode()).hexdigest()
    assert (first.tenant, first.models, first.presets) == ("search", ("phi-3-mini",), None)
    assert (second.models, second.presets, second.priority) == (None, ("auto",), 5)
    assert run("revoke", first.id, "--file", file).exit_code == 0
    listed = json.loads(run("list", "--file", file, "--json").stdout)
    assert [(one["id"], "revoked" in one) for one in listed] == [
        (first.id, True),
        (second.id, False),
    ]
    shown = run("list", "--file", file).stdout
    assert first.id in shown
    assert second.id in shown
    for secret in (*keys, first.sha256):
        assert secret not in shown
        assert secret not in json.dumps(listed)
    assert all(key not in file.read_text() for key in keys)
    when = read_keys(file).keys[0].revoked
    assert run("revoke", first.id, "--file", file).exit_code == 0
    assert read_keys(file).keys[0].revoked == when


def test_who_changes_the_file_at_once_loses_nobodys_change(tmp_path):
    file = tmp_path / "keys.yaml"
    run("new", "--file", file, "--tenant", "search")
    [first] = read_keys(file).keys
    changes = [("new", "--file", file, "--tenant", f"t{number}") for number in range(7)]
    changes.append(("revoke", first.id, "--file", file))
    with ThreadPoolExecutor(len(changes)) as pool:
        assert all(code == 0 for code in pool.map(run_in_process, changes))
    entries = read_keys(file).keys
    assert {one.tenant for one in entries} == {"search", *(f"t{number}" for number in range(7))}
    assert [one.id for one in entries if one.revoked is not None] == [first.id]
    assert [found.name for found in tmp_path.iterdir()] == ["keys.yaml"]


def run_in_process(arguments):
    """The command as a process of its own: threads would share what the runner captures."""
    call = [sys.executable, "-m", "gateway", "keys", *map(str, arguments)]
    return subprocess.run(call, check=False, stdout=subprocess.DEVNULL).returncode


def test_the_file_keeps_its_mode_and_a_link_to_it_stays_one(tmp_path):
    file, link = tmp_path / "real" / "keys.yaml", tmp_path / "keys.yaml"
    file.parent.mkdir()
    link.symlink_to(file)
    run("new", "--file", file, "--tenant", "search")
    file.chmod(0o640)
    assert run("revoke", read_keys(file).keys[0].id, "--file", link).exit_code == 0
    assert link.is_symlink()
    assert read_keys(file).keys[0].revoked is not None
    assert S_IMODE(file.stat().st_mode) == 0o640


def test_what_cannot_be_done_changes_nothing(tmp_path):
    file = tmp_path / "keys.yaml"
    assert run("list", "--file", file).exit_code == 2
    assert run("new", "--file", file, "--tenant", "none").exit_code == 2
    assert run("new", "--file", file, "--tenant", "two words").exit_code == 2
    assert not file.exists()
    run("new", "--file", file, "--tenant", "search")
    before = file.read_text()
    assert run("revoke", "key_unknown", "--file", file).exit_code == 2
    assert file.read_text() == before
    assert run("new", "--file", tmp_path / "none" / "keys.yaml", "--tenant", "a").exit_code == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("keys: [{id: a, sha256: jg-the-key-itself, tenant: t}]", "sha256"),
        ("keys: [{id: a, key: jg-the-key-itself, tenant: t}]", "unknown key 'key'"),
        ("keys: {a: jg-the-key-itself}", "array"),
        ("kyes: []", "did you mean 'keys'"),
        ("- jg-the-key-itself", "must be a mapping"),
    ],
)
def test_a_bad_file_is_refused_and_what_stands_in_it_not_repeated(tmp_path, text, said):
    file = tmp_path / "keys.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_keys(file)
    assert said in str(refused.value)
    assert "jg-the-key-itself" not in str(refused.value)


@pytest.mark.parametrize("what", ["id", "sha256"])
def test_no_two_keys_are_the_same(tmp_path, what):
    file = tmp_path / "keys.yaml"
    entries = [make_key("a")[1], make_key("b")[1]]
    write_keys(file, KeysFile(tuple(entries)))
    text = file.read_text().replace(getattr(entries[1], what), getattr(entries[0], what))
    file.write_text(text)
    with pytest.raises(ConfigError, match=what):
        read_keys(file)


@pytest.mark.parametrize("lists", [{"models": []}, {"presets": []}])
def test_a_key_that_may_use_nothing_is_an_error(lists):
    with pytest.raises(ConfigError, match="may use no model"):
        make_key("a", **lists)
