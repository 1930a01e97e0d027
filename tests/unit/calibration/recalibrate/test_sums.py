"""Raw samples of the gateways' sums, differenced: restarts, gaps, and sums that cannot be."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from calibration.recalibrate.faults import format_term, parse_powers
from calibration.recalibrate.prometheus import Series
from calibration.recalibrate.sums import SUMS_METRIC, read_blocks
from gateway.scheduling.cost import CostFunction, CostQuantity, RegressionForm
from gateway.scheduling.regression_terms import (
    COSTS,
    METERED,
    OUTPUT,
    PROMPT,
    ROWS,
    TERMS,
    WeighedPrediction,
)
from gateway.telemetry.ols_sums import OlsSums, SumsCollector
from gateway.telemetry.sums_row import SumsRow
from tests.unit.calibration.recalibrate.sums_of_rows import (
    ONE,
    clusters,
    labels,
    series,
    terms,
    traffic,
)

SIZE = 300


@pytest.fixture(scope="module")
def rows():
    return traffic(SIZE)[0]


def changed(found, term, change):
    """Return the series with one term's values passed through `change(place, value)`."""
    return [
        Series(
            one.metric,
            [(at, repr(change(k, float(value)))) for k, (at, value) in enumerate(one.values)],
        )
        if one.metric["term"] == term
        else one
        for one in found
    ]


@pytest.mark.parametrize("basis", [COSTS, PROMPT])
def test_a_term_and_its_powers_are_two_ways_to_say_one_thing(basis):
    for term in TERMS[basis]:
        assert format_term(parse_powers(term)) == term


def test_powers():
    assert parse_powers("n") == {}
    assert parse_powers("i2o") == {"i": 2, "o": 1}
    assert parse_powers("ioz") == {"i": 1, "o": 1, "z": 1}


@pytest.mark.parametrize("basis", list(TERMS))
def test_what_a_window_added_is_the_sum_of_its_rows(rows, basis):
    block = read_blocks(basis, series(rows, basis))[ONE]
    assert block.clusters.sum(axis=0) == pytest.approx(terms(rows, basis).sum(axis=0), rel=1e-12)
    assert block.n == SIZE
    assert len(block.clusters) == clusters(SIZE).max() + 1
    assert block.scrapes == len(block.clusters) + 1
    assert (block.resets, block.incomplete, block.faults) == (0, 0, ())


@given(
    every=st.integers(1, 40),
    restarts=st.sets(st.integers(1, SIZE - 1), max_size=6),
    served=st.integers(0, 200),
)
def test_restarts_lose_nothing_wherever_they_fall(every, restarts, served):
    rows = traffic(SIZE, 3)[0]
    rows = {key: rows[key].astype(int).astype(float) for key in ("i", "o", "y", "z", "e")}
    start = {key: value[:served] for key, value in rows.items()} if served else None
    found = series(rows, COSTS, every=every, restarts=sorted(restarts), start=start)
    shown = np.array([[float(value) for _, value in one.values] for one in found]).T
    # A process that outruns its forerunner in every term within one scrape cannot be told.
    assume((np.diff(shown, axis=0) < 0).any(axis=1).sum() == len(restarts))
    block = read_blocks(COSTS, found)[ONE]
    assert block.clusters.sum(axis=0).tolist() == terms(rows, COSTS).sum(axis=0).tolist()
    assert block.resets == len(restarts)
    assert block.faults == ()


def test_what_an_instance_showed_first_came_before_the_window(rows):
    block = read_blocks(COSTS, series(rows, COSTS, start=traffic(1000, 9)[0]))[ONE]
    assert block.n == SIZE


def test_instances_are_added_and_told_apart_by_all_other_labels(rows):
    halves = [{key: rows[key][part] for key in rows} for part in (slice(0, 100), slice(100, None))]
    found = series(halves[0], COSTS, instance="a") + series(halves[1], COSTS, instance="b")
    block = read_blocks(COSTS, found)[ONE]
    assert block.instances == 2
    assert block.n == SIZE
    apart = read_blocks(COSTS, series(rows, COSTS) + series(rows, COSTS, deployment="other"))
    assert set(apart) == {ONE, ("phi-3-mini", "other")}


def test_a_scrape_without_all_terms_is_left_out_and_counted(rows):
    whole = series(rows, COSTS)
    holed = [
        Series(one.metric, one.values[:4] + one.values[6:]) if one.metric["term"] == "wzy" else one
        for one in whole
    ]
    block = read_blocks(COSTS, holed)[ONE]
    assert block.incomplete == 2
    assert block.n == SIZE
    assert len(block.clusters) == len(read_blocks(COSTS, whole)[ONE].clusters) - 2


def test_an_instance_of_one_scrape_says_nothing(rows):
    found = [Series(one.metric, one.values[:1]) for one in series(rows, COSTS)]
    block = read_blocks(COSTS, found)[ONE]
    assert block.n == 0
    assert block.faults == ()


def test_a_term_that_nobody_knows_is_passed_over(rows):
    found = [*series(rows, COSTS), Series(labels("q7", COSTS), [(1000.0, "1")])]
    assert read_blocks(COSTS, found)[ONE].n == SIZE


@pytest.mark.parametrize(
    ("term", "change", "gate", "said"),
    [
        ("y", lambda _, v: -v, "negative", "term y is -"),
        ("wuy", lambda k, v: float("nan") if k == 5 else v, "negative", "term wuy is nan"),
        ("wu", lambda _, __: 77.0, "stuck", "term wu stood still over 300 requests"),
        ("n", lambda _, __: 77.0, "stuck", "term n stood still"),
        ("wy2", lambda _, v: min(v, 50.0), "stuck", "term wy2 stood still"),
        ("wy2", lambda _, v: v / 50, "impossible", "(wy)² is"),
        ("woy", lambda _, v: v * 50, "impossible", "(woy)² is"),
        ("y", lambda k, v: v - 200 * (k > 30), "fell", "term y fell at 1970-01-01T00:47:40Z"),
    ],
)  # fmt: skip
def test_sums_that_no_requests_can_give_are_faults(rows, term, change, gate, said):
    block = read_blocks(COSTS, changed(series(rows, COSTS), term, change))[ONE]
    assert gate in {fault.gate for fault in block.faults}
    (fault, *_) = [fault for fault in block.faults if fault.gate == gate]
    assert said in str(fault)
    assert "instance=a" in fault.instance


def test_one_poisoned_instance_is_named_among_others(rows):
    bad = changed(series(rows, COSTS, instance="b"), "y", lambda _, v: -v)
    block = read_blocks(COSTS, series(traffic(SIZE, 8)[0], COSTS) + bad)[ONE]
    assert [fault.instance for fault in block.faults] == ["instance=b, job=gw"]


def test_a_long_life_with_large_counters_is_no_fault():
    long = {key: value * 1.0 for key, value in traffic(200_000, 5)[0].items()}
    block = read_blocks(COSTS, series(traffic(500, 6)[0], COSTS, every=1, start=long))[ONE]
    assert block.faults == ()
    assert block.n == 500


def test_what_the_gateways_own_collector_shows_is_understood(rows):
    sums = OlsSums([ONE])
    registry = CollectorRegistry()
    registry.register(SumsCollector(sums.snapshot_sums))
    shown = {}
    for scrape in range(11):
        if scrape:
            for k in range(30 * (scrape - 1), 30 * scrape):
                add(sums, rows, k)
        for family in text_string_to_metric_families(generate_latest(registry).decode()):
            for one in family.samples:
                at = (1000.0 + 15.0 * scrape, repr(one.value))
                shown.setdefault((one.name, *sorted(one.labels.items())), []).append(at)
    for basis, quantity in (
        (COSTS, "seconds"), (COSTS, "joules"), (OUTPUT, "tokens"), (ROWS, "seconds"),
        (METERED, "joules"),
    ):  # fmt: skip
        found = [
            Series({"__name__": key, **dict(labels)}, values)
            for (key, *labels), values in shown.items()
            if key == SUMS_METRIC and {("basis", basis), ("quantity", quantity)} <= set(labels)
        ]
        block = read_blocks(basis, found)[ONE]
        known = expected(rows, basis, quantity).sum(axis=0)
        assert block.clusters.sum(axis=0) == pytest.approx(known, rel=1e-5, abs=1e-6)
        assert (block.n, len(block.clusters), block.faults) == (SIZE, 10, ())


LIVE = CostFunction(CostQuantity.SECONDS, RegressionForm.ADDITIVE, (0.1, 0.0005, 0.03))


def expected(rows, basis, quantity):
    z = rows["o"] * rows["r"] if quantity == "seconds" else rows["o"] / (1 + rows["r"])
    p = 0.1 + 0.0005 * rows["i"] + 0.03 * rows["o"]
    each = terms({**rows, "z": z, "p": p}, basis)
    if basis == METERED:
        each = np.column_stack([np.ones(SIZE), p, rows["y"], np.ones(SIZE), p, rows["y"]])
    elif basis == ROWS:
        each[:, 2], each[:, 3] = rows["y"] < p / 5, rows["y"] > 5 * p
    return each


def add(sums, rows, k):
    micro = round(rows["y"][k] * 1e6)
    i, o, r = (int(rows[name][k]) for name in "ior")
    said = WeighedPrediction.of(LIVE, i, o, r, 0)._replace(least=0.0)
    estimated = int(rows["e"][k])
    sums.add_row(*ONE, SumsRow(i, o, 0, r, micro, micro, estimated, False, said, said, r))


def test_two_servers_that_scrape_one_gateway_count_once(rows):
    found = series(rows, COSTS, instance="a")
    replica = [
        Series(
            {**one.metric, "prometheus_replica": "b"},
            [(at + 17.0, value) for at, value in one.values],
        )
        for one in found
    ]
    block = read_blocks(COSTS, found + replica)[ONE]
    assert block.n == SIZE
    assert block.instances == 1
    assert block.duplicates == ("instance=a, job=gw, prometheus_replica=b",)


@given(shift=st.floats(0.5, 59.5), restarts=st.sets(st.integers(1, SIZE - 1), max_size=4))
@settings(max_examples=25, deadline=None)
def test_a_replica_that_scrapes_between_is_noticed_through_restarts(shift, restarts):
    """The second server sees other moments of the same counters."""
    rows = traffic(SIZE, 3)[0]
    found = series(rows, COSTS, every=4, restarts=sorted(restarts))
    later = [
        Series(
            {**one.metric, "replica": "1"},
            [(at - 60.0 + shift, value) for at, value in one.values[1:]],
        )
        for one in found
    ]
    read_ = read_blocks(COSTS, found + later)[ONE]
    assert len(read_.duplicates) == 1


def test_two_gateways_are_no_duplicates(rows):
    halves = [{key: rows[key][part] for key in rows} for part in (slice(0, 150), slice(150, None))]
    found = series(halves[0], COSTS, instance="a") + series(halves[1], COSTS, instance="b")
    assert read_blocks(COSTS, found)[ONE].duplicates == ()
    # Nor is a pod that came after another, with counters from 0.
    later = series(halves[1], COSTS, instance="c", begin=100_000.0)
    assert read_blocks(COSTS, series(halves[0], COSTS) + later)[ONE].duplicates == ()


def test_what_came_before_an_instance_took_the_profile_does_not_count(rows):
    found = series(rows, COSTS, instance="a")
    where = "instance=a, job=gw"
    block = read_blocks(COSTS, found, {where: 1000.0 + 60.0 * 20})[ONE]
    assert block.n == SIZE - 20 * 7


def test_a_small_load_that_is_lost_beside_a_large_sum_is_no_fault():
    rows = traffic(200, 3)[0]
    start = traffic(5000, 9)[0]
    start["z"] = start["z"] * 1e3
    rows["z"][70:105] = 1e-9 * rows["o"][70:105]
    block = read_blocks(COSTS, series(rows, COSTS, start=start))[ONE]
    assert not block.get_term("wz2")[10:15].any()
    assert block.get_term("n")[10:15].sum() == 35
    assert block.faults == ()
