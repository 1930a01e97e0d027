"""The rooms: tests/unit has the packages' folders, and import contracts name every module."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("gateway", "backends", "calibration")
# The demo is run as a process, by integration tests and `make demo`.
UNTESTED = {"gateway/commands/demo"}
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
    "contracts"
]


def list_rooms(root):
    """Return the folders below the packages that hold modules."""
    found = {path.parent for package in PACKAGES for path in (root / package).rglob("*.py")}
    return {path.relative_to(root).as_posix() for path in found}


def test_every_room_has_its_tests_in_a_folder_of_its_name():
    without = {
        room
        for room in list_rooms(ROOT)
        if any(path.name != "__init__.py" for path in (ROOT / room).glob("*.py"))
        and not any((ROOT / "tests" / "unit" / room).rglob("test_*.py"))
    }
    assert without == UNTESTED


def test_every_folder_of_tests_is_a_rooms():
    assert list_rooms(ROOT / "tests" / "unit") <= list_rooms(ROOT)


@pytest.mark.parametrize(
    "contract",
    [one for one in CONTRACTS if one["type"] == "layers" and "containers" in one],
    ids=lambda one: one["id"],
)
def test_the_layers_of_a_room_leave_no_module_out(contract):
    assert contract["exhaustive"]


@pytest.mark.parametrize(
    "room", ["gateway.scheduling", "backends.meter.ledger", "backends.simulator.engine"]
)
def test_what_is_pure_may_import_no_clock_socket_or_event_loop(room):
    (contract,) = (
        one
        for one in CONTRACTS
        if one["type"] == "forbidden" and room in one["source_modules"] and "pure" in one["id"]
    )
    assert {"asyncio", "time", "os", "logging"} <= set(contract["forbidden_modules"])
