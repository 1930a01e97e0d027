"""vLLM's own timings: taken where they are sane, and where the first token is without them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.scheduling.cost import CostQuantity
from gateway.scheduling.decide import Option
from gateway.service.upstream.metering import _parse_timings, _predict_prompt_share

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
NAMES = st.sampled_from(["time_to_first_token_ms", "generation_time_ms", "queue_time_ms"])


def test_they_come_out_in_seconds():
    raw = Raw(b'{"time_to_first_token_ms":300,"queue_time_ms":40.0,"tokens_per_second":null}')
    assert _parse_timings(raw) == {"time_to_first_token": 0.3, "queue_time": 0.04}


@pytest.mark.parametrize("raw", [b"", b"null", b"[1]", b"{", b'"x"', b'{"queue_time_ms":1e400}'])
def test_what_is_no_object_is_nothing(raw):
    assert _parse_timings(Raw(raw)) == {}


@given(st.dictionaries(NAMES, JSON) | JSON)
def test_whatever_is_there_comes_out_sane(value):
    for number in _parse_timings(Raw(msgspec.json.encode(value))).values():
        assert 0.0 <= number <= 1e9


@given(st.integers(0, 100_000), st.integers(0, 100_000))
def test_the_first_token_lies_within_the_answer(shipped, tokens_in, tokens_out):
    for model in shipped.models.values():
        option = Option(
            model="m",
            deployment="m",
            accuracy=model.accuracy.default,
            seconds=model.seconds.cost(CostQuantity.SECONDS),
            joules=model.joules.cost(CostQuantity.JOULES),
            context=4096,
            capabilities=frozenset(),
            output=model.output_model(),
            ratio=1.0,
        )
        assert 0.0 <= _predict_prompt_share(option, tokens_in, tokens_out) <= 1.0
