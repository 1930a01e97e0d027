"""A backend that accepts and says nothing: the deadline, then somebody else, else a 504."""

import openai
import pytest

from gateway.config import RetryConfig, TimeoutsConfig
from tests.integration.harness import CHAT, DONE, ENERGY, HELLO, STREAM

pytestmark = pytest.mark.asyncio(loop_scope="module")
FLEET = {
    "timeouts": TimeoutsConfig(first_token_seconds=1, unary_seconds=1, stall_seconds=30),
    "retry": RetryConfig(budget_start=1000),
}
CASES = [(False, "silent"), (True, "silent"), (True, "silent_after_headers")]


@pytest.mark.parametrize(("stream", "kind"), CASES)
async def test_somebody_else_answers(fleet, gate, stream, kind):
    fleet.fail(fleet.phi, kind)
    got = await gate.ask(STREAM if stream else CHAT, ENERGY)
    assert (got.status, got.error) == (200, None)
    assert got.headers["x-joulegate-model"] == "mistral-7b"
    assert got.headers["x-joulegate-attempts"] == "3"
    assert got.events[-1] == DONE if stream else got.json["model"] == "mistral-7b"
    record = await gate.record(got)
    assert [attempt["reason"] for attempt in record["attempts"]] == ["silent", "silent", None]
    # The client waited for all three; what it saw is what is measured.
    assert record["observed"]["seconds"] > 2
    assert await gate.metric("joulegate_retries_total", model="phi-3-mini", reason="silent") > 0


@pytest.mark.parametrize(("stream", "kind"), CASES)
async def test_alone_it_is_a_504(fleet, gate, stream, kind):
    fleet.fail([fleet.falcon], kind)
    got = await gate.ask((STREAM if stream else CHAT) | {"model": "falcon-7b"})
    error = got.json["error"]
    assert (got.status, error["type"], error["code"]) == (504, "server_error", "upstream_timeout")
    assert got.headers["x-should-retry"] == "false"
    assert int(got.headers["retry-after"]) >= 1
    assert got.headers["x-joulegate-attempts"] == "1"
    async with gate.sdk(max_retries=2) as sdk:
        with pytest.raises(openai.InternalServerError) as caught:
            await sdk.chat.completions.create(model="falcon-7b", messages=HELLO, stream=stream)
    assert caught.value.status_code == 504
    assert fleet.falcon.faults.served[kind] >= 2


async def test_the_deadline_for_a_first_token_does_not_end_a_stream_that_has_begun(fleet, gate):
    # A stream of some three seconds, three times the deadline.
    slow = fleet.falcon.spec.truth.scale_costs(seconds=3 * 200 / 6)
    fleet.falcon.set_cost_model(slow)
    try:
        got = await gate.ask(STREAM | {"model": "falcon-7b"})
    finally:
        fleet.falcon.set_cost_model(fleet.falcon.spec.truth)
    assert (got.status, got.error, got.events[-1]) == (200, None, DONE)
    assert (await gate.record(got))["observed"]["seconds"] > 1
