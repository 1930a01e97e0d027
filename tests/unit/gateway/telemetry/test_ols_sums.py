"""The regression sums: every term exact, every block whole."""

from fractions import Fraction
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.scheduling import regression_terms
from gateway.scheduling.cost import CostFunction, CostQuantity, RegressionForm
from gateway.scheduling.regression_terms import WeighedPrediction
from gateway.telemetry.ols_sums import METRIC_NAME, OlsSums, SumsCollector
from gateway.telemetry.sums_row import SumsRow

NAMES = (("phi-3-mini", "phi-3-mini"), ("mistral-7b", "h100"), ("mistral-7b", "l4"))
SQUARES = (
    "w wu wo wio wo2 wz wu2 wuo wuio wuo2 wuz wio2 wo3 woz wi2o2 wio3 wioz wo4 wo2z wz2 "
    "wy wuy woy wioy wo2y wzy wy2 wt wut wot wiot wo2t wzt"
)
COST = f"n u o io o2 z y {SQUARES}".split()
ROWS = ["rows", "floored", "low", "high"]
TERMS = {
    ("costs", "seconds"): COST,
    ("costs", "joules"): COST,
    ("rows", "seconds"): ROWS,
    ("rows", "joules"): ROWS,
    ("metered", "joules"): ["n", "p", "s", "mn", "mp", "ms"],
    ("output", "tokens"): [
        "n", "l", "l2", *(f"cut{k}" for k in range(20)), *(f"cut{k}_l" for k in range(20))
    ],
    ("prompt", "tokens"): ["n", "e", "i", "ei", "e2", "i2", "d", "ed", "d2", "di"],
}  # fmt: skip

tokens = st.integers(0, 200_000)
predictions = st.builds(WeighedPrediction, st.floats(-10.0, 1e5), st.floats(1e-3, 100.0))
rows = st.lists(
    st.builds(
        SumsRow,
        tokens_in=tokens,
        tokens_out=tokens,
        cached_tokens=st.just(0) | st.integers(0, 100),
        running=st.integers(0, 300) | st.floats(0.0, 300.0),
        microseconds=st.integers(0, 600 * 10**6),
        microjoules=st.none() | st.integers(0, 10**11),
        estimated_tokens=st.none() | tokens,
        truncated=st.booleans(),
        seconds=predictions,
        joules=predictions,
        harmonic_running=st.integers(0, 300) | st.floats(0.0, 300.0),
        dense_chars=tokens,
    ).filter(lambda one: one.cached_tokens <= one.tokens_in),
    max_size=8,
)


def row(**fields):
    usual = SumsRow(
        tokens_in=512,
        tokens_out=301,
        cached_tokens=0,
        running=2,
        microseconds=7_123_457,
        microjoules=312_000_001,
        estimated_tokens=480,
        truncated=False,
        seconds=WeighedPrediction(7.0, 0.1),
        joules=WeighedPrediction(300.0, 10.0),
        harmonic_running=1.5,
        dense_chars=77,
    )
    return replace(usual, **fields)


def shown(total):
    """{(model, deployment): {(basis, quantity): {term: value}}} off the page, as text gives it."""
    registry = CollectorRegistry()
    registry.register(SumsCollector(total))
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        assert family.type == "counter"
        for sample in family.samples:
            assert sample.name == METRIC_NAME
            labels = dict(sample.labels)
            name = labels.pop("model"), labels.pop("deployment")
            block = labels.pop("basis"), labels.pop("quantity")
            term = labels.pop("term")
            assert not labels
            blocks = found.setdefault(name, {}).setdefault(block, {})
            assert term not in blocks
            blocks[term] = sample.value
    return found


def product(term, values):
    """What a term spells: `wi2o` is w*i*i*o."""
    result, last = Fraction(1), None
    for letter in term.removeprefix("n"):
        if letter.isdigit():
            result *= last ** (int(letter) - 1)
        else:
            last = values[letter]
            result *= last
    return result


def micro(value):
    return Fraction(round(value * 10**6), 10**6)


def weigh(expected):
    """A weight is 1/p², to 1e-15, at most 1e6."""
    p = max(expected.value, expected.least)
    return Fraction(min(10**21, round(10**15 / (p * p))), 10**15)


def letters(quantity, row):
    """A row's letters in base units; None where it does not enter the costs."""
    cost, expected = (
        (row.microseconds, row.seconds) if quantity == "seconds" else (row.microjoules, row.joules)
    )
    if cost is None or expected.value <= 1e-3:
        return None
    i, o = row.tokens_in, row.tokens_out
    load = round((row.running if quantity == "seconds" else row.harmonic_running) * 10**6)
    p = round(expected.value * 10**6)
    y = max(p // 5, min(5 * p, cost))
    t = max(-(p // 3), min(p // 3, y - p))
    z = Fraction(o * load, 10**6)
    if quantity == "joules":
        z = Fraction(round(Fraction(o * 10**15, 10**6 + load) + Fraction(1, 10**20)), 10**9)
    return {
        "w": weigh(expected), "u": i - row.cached_tokens, "i": i, "o": o, "z": z,
        "y": Fraction(y, 10**6), "t": Fraction(t, 10**6),
    }  # fmt: skip


def entered(block, row):
    """Each term of a row in a block."""
    basis, quantity = block
    of = dict.fromkeys(TERMS[block], Fraction())
    if basis == "costs":
        known = letters(quantity, row)
        return of if known is None else {term: product(term, known) for term in of}
    if basis == "rows":
        cost = row.microseconds if quantity == "seconds" else row.microjoules
        expected = row.seconds if quantity == "seconds" else row.joules
        if cost is None:
            return of
        p = round(expected.value * 10**6)
        floored = expected.value <= 1e-3
        return {
            "rows": 1, "floored": floored, "low": not floored and cost < p // 5,
            "high": not floored and cost > 5 * p,
        }  # fmt: skip
    if basis == "metered":
        one = [1, micro(max(row.joules.value, 1e-3)), Fraction(row.microseconds, 10**6)]
        return dict(zip(of, [*one, *(x * (row.microjoules is not None) for x in one)], strict=True))
    if basis == "prompt":
        known = {"e": row.estimated_tokens, "i": row.tokens_in, "d": row.dense_chars}
        return of if known["e"] is None else {term: product(term, known) for term in of}
    if row.tokens_out:
        length = Fraction(round(log(row.tokens_out) * 10**9), 10**9)
        if row.truncated:
            octave = row.tokens_out.bit_length() - 1
            of[f"cut{octave}"], of[f"cut{octave}_l"] = 1, length
        else:
            of |= {"n": 1, "l": length, "l2": length**2}
    return of


@given(rows)
def test_every_term_is_the_exact_sum_of_what_it_spells_rounded_once(given_rows):
    sums = OlsSums(NAMES)
    for one in given_rows:
        sums.add_row("mistral-7b", "l4", one)
    page = shown(sums.snapshot_sums)
    assert sums.rows == len(given_rows)
    for block, terms in TERMS.items():
        each = [entered(block, one) for one in given_rows]
        expected = {term: float(sum((one[term] for one in each), Fraction())) for term in terms}
        assert page["mistral-7b", "l4"][block] == expected
        assert page["mistral-7b", "h100"][block] == dict.fromkeys(terms, 0.0)


def test_the_terms_are_those_that_refits_read():
    assert {basis: tuple(terms) for (basis, _), terms in TERMS.items()} == regression_terms.TERMS


def test_every_deployment_shows_every_term_before_any_request():
    expected = {block: dict.fromkeys(terms, 0.0) for block, terms in TERMS.items()}
    assert shown(OlsSums(NAMES).snapshot_sums) == dict.fromkeys(NAMES, expected)


def test_the_blocks_count_the_rows_that_belong_there():
    sums = OlsSums(NAMES)
    low = WeighedPrediction(-1.0, 0.1)
    for fields in (
        {}, {"microjoules": None}, {"truncated": True}, {"estimated_tokens": None},
        {"seconds": low},
    ):  # fmt: skip
        sums.add_row(*NAMES[0], row(**fields))
    page = shown(sums.snapshot_sums)[NAMES[0]]
    counts = {block: next(iter(terms.values())) for block, terms in page.items()}
    assert counts == {
        ("costs", "seconds"): 4,
        ("costs", "joules"): 4,
        ("rows", "seconds"): 5,
        ("rows", "joules"): 4,
        ("metered", "joules"): 5,
        ("output", "tokens"): 4,
        ("prompt", "tokens"): 4,
    }
    assert page["rows", "seconds"]["floored"] == 1
    assert page["metered", "joules"]["mn"] == 4
    assert page["output", "tokens"]["cut8"] == 1


def test_a_cost_counts_within_a_fifth_and_five_times_its_prediction():
    sums = OlsSums(NAMES)
    for micros in (1, 10**9, 7 * 10**6):
        sums.add_row(*NAMES[0], row(microseconds=micros))
    page = shown(sums.snapshot_sums)[NAMES[0]]
    assert page["costs", "seconds"]["y"] == pytest.approx(7 / 5 + 7 * 5 + 7)
    assert (page["rows", "seconds"]["low"], page["rows", "seconds"]["high"]) == (1, 1)
    # What is odd counts as a third of the prediction, either way.
    assert page["costs", "seconds"]["wt"] == pytest.approx(0.0, abs=1e-12)


def test_no_row_weighs_more_than_that_of_a_tenth_of_a_usual_request():
    cost = CostFunction(CostQuantity.SECONDS, RegressionForm.ADDITIVE, (0.01, 0.0, 0.02))
    typical = cost.predict_cost(100, 100)
    small = WeighedPrediction.of(cost, 1, 1, 0.0, 0)
    assert small.value == pytest.approx(0.03)
    assert small.weighed == pytest.approx(typical / 10)
    assert WeighedPrediction.of(cost, 100, 100, 0.0, 0).weighed == typical


def test_a_shared_token_is_kept_to_the_nearest_billionth():
    sums = OlsSums(NAMES)
    sums.add_row(*NAMES[0], row(tokens_out=100, harmonic_running=2))
    assert shown(sums.snapshot_sums)[NAMES[0]]["costs", "joules"]["z"] == 33.333333333
    sums.add_row(*NAMES[0], row(tokens_out=200, harmonic_running=2))
    assert shown(sums.snapshot_sums)[NAMES[0]]["costs", "joules"]["z"] == 100.0
    sums.add_row(*NAMES[0], row(tokens_out=100, harmonic_running=1.5))
    assert shown(sums.snapshot_sums)[NAMES[0]]["costs", "joules"]["z"] == 140.0


@pytest.mark.parametrize(
    "fields",
    [
        {"tokens_in": -1},
        {"cached_tokens": 513},
        {"running": float("nan")},
        {"seconds": WeighedPrediction(float("inf"), 1.0)},
        {"tokens_out": -1},
        {"running": -1},
        {"microseconds": -1},
        {"microjoules": -1},
        {"estimated_tokens": -1},
        {"dense_chars": -1},
        {"harmonic_running": float("nan")},
        {"tokens_in": 10**18},
        {"tokens_out": 10**18},
        {"microseconds": 10**18},
        {"microjoules": 10**18},
    ],
)
def test_a_row_that_cannot_be_is_left_out_and_told_once(fields, caplog):
    sums = OlsSums(NAMES)
    before = sums.snapshot_sums()
    sums.add_row(*NAMES[0], row(**fields))
    sums.add_row(*NAMES[0], row(**fields))
    assert sums.snapshot_sums() == before
    assert sums.rows == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]
