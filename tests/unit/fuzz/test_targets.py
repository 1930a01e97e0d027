"""Every reader of bytes from elsewhere, on its corpus and on what hypothesis makes of it.

More of it, and for longer: `make fuzz`.
"""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import list_seeds, mutate_seed
from tests.fuzz.targets import TARGETS

every_target = pytest.mark.parametrize("name", TARGETS)


@every_target
def test_what_stands_in_the_corpus(name):
    seeds = list_seeds(name)
    assert seeds
    for seed in seeds:
        TARGETS[name](seed)


@every_target
def test_what_no_seed_looks_like(name):
    @given(st.binary(max_size=300))
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    def feed(data):
        TARGETS[name](data)

    feed()


@every_target
def test_what_a_seed_becomes(name):
    seeds = list_seeds(name)

    @given(st.sampled_from(seeds), st.sampled_from(seeds), st.integers(0, 2**32))
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    def feed(seed, other, number):
        TARGETS[name](mutate_seed(seed, other, random.Random(number)))

    feed()
