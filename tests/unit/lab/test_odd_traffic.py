"""What a ledger cannot see all of: how wrong it is, and that the label says so."""

from dataclasses import replace
from random import Random

from tests.lab import H100, Lab, LabBackend, Meter, poisson, twins
from tests.lab.scenarios import (
    CRAMPED,
    LENGTHS,
    SPECULATIVE,
    hides,
    leaves,
    odd,
    repeats,
    same,
    stalls,
    untold,
)


def by_method(run, *methods):
    return [one for one in run.requests if one.method in methods]


def test_speculative_decoding_costs_by_the_step_and_is_charged_by_the_token():
    run = odd(same, **SPECULATIVE)
    assert run.median_error() < 0.05
    assert abs(run.sum_error()) < 0.005
    assert run.counters["gpu"].other_share < 0.005


def test_who_was_there_during_a_preemption_is_coarse_and_the_others_are_right():
    run = odd(same, **CRAMPED)
    thrown_out = [one for one in run.requests if one.truth.preemptions]
    assert len(thrown_out) > 50
    assert {one.method for one in thrown_out} == {"coarse"}
    assert run.median_error(lambda one: one.method != "coarse") < 0.01
    assert run.p95_error(lambda one: one.method != "coarse") < 0.05
    assert abs(run.sum_error()) < 0.005


def test_a_stalled_clients_tokens_come_too_late_and_it_is_estimated():
    run = odd(stalls)
    stalled = [one for one in run.requests if one.arrival.reads_after_seconds]
    assert {one.method for one in stalled} == {"estimated"}
    assert {one.method for one in run.requests if one not in stalled} <= {"apportioned"}
    # What they had is other's, not their neighbours'.
    assert run.median_error(lambda one: one not in stalled) < 0.02
    books = run.counters["gpu"]
    missed = sum(one.truth.microjoules - one.charged_microjoules for one in stalled)
    assert 0 < missed < 1.5 * books.other_microjoules


def test_an_abandoned_unary_request_is_estimated_and_nearly_all_its_own():
    run = odd(leaves)
    left = [one for one in run.requests if one.truth.aborted]
    assert len(left) > 20
    assert {one.method for one in left} == {"estimated"}
    charged = sum(one.charged_microjoules for one in left)
    assert abs(charged / sum(one.truth.microjoules for one in left) - 1.0) < 0.25
    assert run.median_error() < 0.015


def test_what_passes_the_gateway_by_is_other():
    run = odd(hides)
    hidden = sum(one.truth.microjoules for one in run.requests if not one.arrival.reported)
    assert abs(run.counters["gpu"].other_microjoules / hidden - 1.0) < 0.03
    assert run.median_error() < 0.015


def test_cached_prompts_are_charged_for_what_was_computed_where_vllm_tells():
    run = odd(repeats)
    assert run.median_error() < 0.01
    assert run.p95_error() < 0.05


def test_a_cache_that_nobody_tells_of_makes_what_it_falsifies_coarse():
    run = untold()
    wrong = [one for one in run.measured() if abs(one.error) > 0.10]
    assert len(wrong) > 100
    coarse = [one for one in wrong if one.method == "coarse"]
    assert len(coarse) > 0.95 * len(wrong)


def test_a_noisy_counter_moves_charges_by_its_noise_only():
    arrivals = [one.arrival for one in odd(same).requests]
    run = Lab([LabBackend("one", H100)], meter=Meter(noise=0.05)).run(arrivals)
    assert run.counters["gpu"].conserved
    assert run.median_error() < 0.02
    assert abs(run.sum_error()) < 0.01


def without_three_tenths(rate, seconds):
    """The joules that counters have less of, over what those requests were charged."""
    rng = Random(2)
    arrivals = [
        replace(one, tag="x" if rng.random() < 0.3 else "")
        for one in poisson(rate=rate, seconds=seconds, seed=1, **LENGTHS)
    ]
    both = twins(lambda: Lab([LabBackend("a", H100)]), arrivals, lambda one: one.tag == "x")
    return both.saved_joules / both.charged_joules


def test_a_charge_is_an_equal_share_and_not_what_would_be_saved():
    """A busy GPU reads the weights all the same; one that would be idle saves nearly all."""
    assert 0.0 < without_three_tenths(4.0, 200.0) < 0.3
    assert 0.5 < without_three_tenths(0.2, 600.0) < 1.0
