"""Every reader of bytes from elsewhere, on its corpus and on what hypothesis makes of it.

More of it, and for longer: `make fuzz`.
"""

import json
import random

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.meter.protocol import EventBatch
from tests.fuzz.mutations import CORPUS, list_seeds, mutate_bytes, mutate_json
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
        TARGETS[name](mutate_bytes(seed, other, random.Random(number)))

    feed()


@pytest.mark.parametrize("name", ["batch.json", "two_batches.json"])
def test_a_meter_takes_what_its_seeds_say(name):
    """Else nothing behind the decoder would be tried."""
    for line in (CORPUS / "meter" / name).read_bytes().splitlines():
        assert msgspec.json.decode(line, type=EventBatch).gateway


def test_json_stays_json():
    seeds = [seed for seed in list_seeds("meter") if mutate_json(seed, random.Random(0))]
    assert len(seeds) >= 3
    made = {mutate_json(seed, random.Random(at)) for seed in seeds for at in range(50)}
    assert len(made) > 100
    for one in made:
        for line in one.splitlines():
            json.loads(line)
    assert mutate_json(b"data: {", random.Random(0)) is None
