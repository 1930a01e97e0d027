"""The glossary has the words that metrics, config and logs use, and old words do not come back."""

import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from backends.meter.method import MeteringMethod
from gateway.deciding_config import AccuracyLearningConfig, PlacementConfig
from gateway.scheduling.cost import RegressionForm
from gateway.scheduling.decide import NO_POLICY, POLICIES
from gateway.scheduling.placement import EMPTIEST, FULLEST, PREFIX
from gateway.scheduling.switchback import ARMS
from gateway.service import admission
from gateway.telemetry.baselines import BASELINES
from gateway.telemetry.metrics import EXCLUSIONS

ROOT = Path(__file__).resolve().parents[2]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
TERMS = [
    term.strip()
    for cell in re.findall(r"^\| (.*?) \| ", GLOSSARY, re.MULTILINE)
    for term in cell.split(",")
    if term not in {"term", "---"}
]
FIELD = """eject; half-open; circuit breaker; retry budget; attempt; upstream response; unary;
first token (TTFT); time per output token (TPOT); deadline; stall; drain; backpressure; acknowledge;
resend; expire; settle; attribute; apportion; aggregate; flush; refit; gate; drift; shadow;
candidate; deployment; backend; replica; prefill; decode; batch; API key; tenant; budget; admission;
affinity; explore; switchback; boundary; FOCUS"""
VALUES = {
    "policy": (*POLICIES, NO_POLICY),
    "exclusion": EXCLUSIONS,
    "refusal": (admission.QUEUE_FULL, admission.TOO_LATE, admission.TIMED_OUT),
    "method": get_args(MeteringMethod),
    "unattributed": ("idle", "other"),
    "form": [form.value for form in RegressionForm],
    "baseline": BASELINES,
    "placement": get_args(get_type_hints(PlacementConfig)["mode"]),
    "place": (FULLEST, EMPTIEST, PREFIX),
    "exploration": get_args(get_type_hints(AccuracyLearningConfig)["method"]),
}
TEXTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "helm").rglob("*.yaml"),
    *(
        path
        for room in ("gateway", "backends", "calibration", "helm")
        for path in (ROOT / room).rglob("*.py")
    ),
]


@pytest.mark.parametrize("term", [one.strip() for one in FIELD.split(";")])
def test_the_glossary_has_the_fields_terms(term):
    assert term in TERMS


def test_a_term_stands_in_the_glossary_once():
    assert len(TERMS) == len(set(TERMS))


@pytest.mark.parametrize(
    ("kind", "value"), [(kind, value) for kind, values in VALUES.items() for value in values]
)
def test_the_glossary_has_the_values_of_labels_and_keys(kind, value):
    assert f"`{value}`" in GLOSSARY, kind


def test_the_glossary_has_the_arms_of_an_experiment():
    assert all(arm in GLOSSARY for arm in ARMS)


@pytest.mark.parametrize(
    "old",
    [
        r"asks? to be left alone",
        r"(backend|it) (is|was) left alone",
        r"(joules|energy|they) were had",
        r"by how it was had",
        r"nobody had tokens",
        r"(gateway|meter) (is|was) heard",
        r"who is there, how busy",
        r"A form stands where",
    ],
)
def test_what_has_a_plain_word_is_said_with_it(old):
    found = [
        path.relative_to(ROOT).as_posix()
        for path in TEXTS
        if re.search(old, path.read_text(encoding="utf-8"))
    ]
    assert found == []
