"""Nobody is left to ask: the status that fits, once, and told not to try again."""

import openai
import pytest

from gateway.config import BackendConfig, RetryConfig
from tests.integration.harness import CHAT, HELLO, STREAM, model

pytestmark = pytest.mark.asyncio(loop_scope="module")

FLEET = {"retry": RetryConfig(budget_start=100_000)}

FAULTS = [
    ("refuse", {}, 503, openai.InternalServerError),
    ("reset_on_accept", {}, 503, openai.InternalServerError),
    ("status", {"status": 500}, 503, openai.InternalServerError),
    ("status", {"status": 502, "html": True}, 503, openai.InternalServerError),
    ("status", {"status": 503}, 503, openai.InternalServerError),
    ("status", {"status": 429}, 429, openai.RateLimitError),
    ("garbage", {}, 502, openai.InternalServerError),
    ("html_200", {}, 502, openai.InternalServerError),
    ("json_200_error", {}, 503, openai.InternalServerError),
    ("redirect", {}, 502, openai.InternalServerError),
]
CASES = [
    *((stream, *fault) for stream in (False, True) for fault in FAULTS),
    (False, "truncated_json", {}, 503, openai.InternalServerError),
    (False, "cut_json", {}, 502, openai.InternalServerError),
    (True, "die_before_content", {}, 503, openai.InternalServerError),
]


@pytest.mark.parametrize(("stream", "kind", "fields", "status", "kind_of_error"), CASES)
async def test_all_fail(fleet, gate, stream, kind, fields, status, kind_of_error):
    fleet.fail(fleet.all, kind, **fields)
    got = await gate.ask(STREAM if stream else CHAT)
    assert got.status == status, got.raw
    assert got.headers["content-type"] == "application/json"
    assert got.headers["x-should-retry"] == "false"
    assert 1 <= int(got.headers["retry-after"]) <= 60
    assert got.headers["x-joulegate-attempts"] == "4"
    error = got.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == ("rate_limit_error" if status == 429 else "server_error")
    assert isinstance(error["code"], str)
    record = await gate.record(got)
    assert (record["code"], len(record["attempts"])) == (status, 4)
    async with gate.sdk(max_retries=2) as sdk:
        before = await gate.metric("joulegate_requests_total")
        with pytest.raises(kind_of_error) as caught:
            await sdk.chat.completions.create(model="auto", messages=HELLO, stream=stream)
        assert (caught.value.status_code, caught.value.code) == (status, error["code"])
        assert await gate.metric("joulegate_requests_total") - before == 1


async def test_the_shortest_wait_that_was_named_is_passed_on(fleet, gate):
    for wait, server in zip(("30", "7", "nonsense", "20"), fleet.all, strict=True):
        server.faults.set_fault("status", status=429, retry_after=wait)
    got = await gate.ask()
    assert (got.status, got.headers["retry-after"]) == (429, "7")
    assert got.json["error"]["code"] == "rate_limited"


async def test_being_rate_limited_ejects_nobody(fleet, gate):
    fleet.fail(fleet.all, "status", status=429)
    failures = [backend._failures for backend in gate.gateway.backends]
    await gate.ask()
    assert [backend._failures for backend in gate.gateway.backends] == failures


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "sent", "message"),
    [
        (400, None, "Simulated 400."),
        (422, {"detail": [{"loc": ["body", "n"], "msg": "too many"}]}, "too many"),
        (400, {"object": "error", "message": "old vLLM", "code": 40303}, "old vLLM"),
        (413, {"error": {"message": "large", "code": 413, "param": "body.messages"}}, "large"),
    ],
)
async def test_the_backends_refusal_is_passed_on_and_not_retried(
    fleet, gate, status, sent, message, stream
):
    fields = {"body": sent} if sent is not None else {}
    fleet.fail(fleet.all, "status", status=status, **fields)
    served = sum(server.faults.served["status"] for server in fleet.all)
    got = await gate.ask(STREAM if stream else CHAT)
    assert got.status == status
    error = got.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert message in error["message"]
    assert error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["code"] is None
    assert error["param"] == ("messages" if status == 413 else None)
    assert got.headers["x-joulegate-attempts"] == "1"
    assert sum(server.faults.served["status"] for server in fleet.all) - served == 1
    record = await gate.record(got)
    assert (record["code"], record["error"]) == (status, error["message"])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "sent"),
    [(400, None), (413, None), (400, {"error": "in short"}), (400, [1, 2]), (400, "")],
)
async def test_a_4xx_that_is_not_vllms_is_believed_when_a_second_backend_gives_it(
    fleet, gate, status, sent, stream
):
    fields = {"html": True} if sent is None else {"body": sent}
    fleet.fail(fleet.all, "status", status=status, **fields)
    got = await gate.ask(STREAM if stream else CHAT)
    assert (got.status, got.headers["content-type"]) == (status, "application/json")
    assert got.json["error"]["message"]
    assert got.headers["x-joulegate-attempts"] == "2"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("sent", [None, {"detail": "Not Found"}])
@pytest.mark.parametrize("status", [402, 404, 405, 408, 409, 410, 425, 499])
async def test_a_4xx_that_cannot_be_the_requests_is_a_502(fleet, gate, status, sent, stream):
    fields = {"body": sent} if sent is not None else {}
    fleet.fail(fleet.all, "status", status=status, **fields)
    got = await gate.ask(STREAM if stream else CHAT)
    assert (got.status, got.json["error"]["code"]) == (502, "bad_gateway")
    assert got.headers["x-joulegate-attempts"] == "4"
    assert got.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_wrong_key_of_ours_is_a_502(fleet, gate, status, stream):
    fleet.fail(fleet.all, "status", status=status, body={"error": "Unauthorized"})
    got = await gate.ask(STREAM if stream else CHAT)
    error = got.json["error"]
    assert (got.status, error["type"], error["code"]) == (
        502,
        "server_error",
        "upstream_auth_failed",
    )
    assert got.headers["x-should-retry"] == "false"
    async with gate.sdk() as sdk:
        # Not AuthenticationError: the client's key is not what is wrong.
        with pytest.raises(openai.InternalServerError):
            await sdk.chat.completions.create(model="auto", messages=HELLO)


@pytest.mark.asyncio(loop_scope="function")
async def test_the_gateways_real_key_is_asked_for_by_a_real_guard(world):
    guarded = await world.simulator(api_key="s3cret")
    right = await world.gate(
        model("phi-3-mini", BackendConfig(f"{guarded.url}/v1/", api_key="s3cret"))
    )
    assert (await right.ask(headers={"authorization": "Bearer wrong"})).status == 200
    wrong = await world.gate(model("phi-3-mini", guarded))
    got = await wrong.ask(headers={"authorization": "Bearer s3cret"})
    assert (got.status, got.json["error"]["code"]) == (502, "upstream_auth_failed")
