"""Facts that stood in several places stand in one."""

import re
from pathlib import Path

import pytest

from backends.bearer import build_bearer, is_bearer_of
from backends.meter.method import ESTIMATED, MEASURED_METHODS, MeteringMethod

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [path for room in ("gateway", "backends") for path in (ROOT / room).rglob("*.py")]


@pytest.mark.parametrize(
    ("fact", "home"),
    [
        (r"[\"']vllm:", {"backends/vllm/metric_names.py"}),
        (r"\bConsole\(", {"gateway/console.py"}),
        (r"compare_digest\(", {"backends/bearer.py"}),
        (r"f\"Bearer ", {"backends/bearer.py"}),
        (r"\bRecursionError, UnicodeDecodeError\b", {"backends/sse.py"}),
        (r"environ.*\bWORKERS\b.*\"1\"", {"gateway/telemetry/__init__.py"}),
        (r"POLICY\w*( *:[^=]*)? = \"none\"", {"gateway/scheduling/decide.py"}),
        (r"monotonic_ns\(\) // 1000", {"backends/meter/clock.py"}),
        (r"Literal\[\"exclusive\"", {"backends/meter/method.py"}),
        (r"^_?(OK|REDIRECT|[A-Z]+_ERROR|RATE_LIMITED)(: \w+)? = \d{3}$", set()),
    ],
)
def test_it_stands_in_one_file(fact, home):
    found = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        if re.search(fact, path.read_text("utf-8"), re.MULTILINE)
    }
    assert found == home


def test_the_methods_are_the_literals():
    assert {ESTIMATED, *MEASURED_METHODS} < set(MeteringMethod.__args__)


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer ", "bearer s", "Bearer s ", "s", "é"]
)
def test_only_the_very_secret_is_let_in(given):
    assert not is_bearer_of(given, "s")
    assert is_bearer_of(build_bearer("s"), "s")
