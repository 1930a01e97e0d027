"""The fault matrix in small: each kind, unary and streaming, at every attempt or the first."""

import asyncio

import pytest

from gateway.config import BackendConfig, ModelConfig, RetryConfig, TimeoutsConfig
from tests.faults.cells import MAX_ATTEMPTS, Fate, model_name, run_cell
from tests.faults.clients import connect
from tests.faults.kinds import KINDS
from tests.faults.server import SCOPES, FaultServer

PATIENCE = 60.0
"""What is slow is not hung: a machine may be busy."""
MODES = {False: "unary", True: "stream"}

# What a client gets where only the first attempt meets the fault, if that is not an answer.
AFTER_CONTENT = {
    *(f"{'reset' if n % 2 else 'close'} at {n * 10 + 5}% of body" for n in range(3, 10)),
    "stall in body", "no [DONE], closed", "error in the middle", "no finish_reason",
    "nothing after the text", "comments after content", "half events after content",
    "JSON cut in an event", "a frame of 20 MB", "endless stream", "unframed, cut off",
    "too short a length", "bad UTF-8", "event: error", "an error object", "null choices",
    "JSON broken within", "given up",
}  # fmt: skip
"""It breaks in the middle of a stream, which is never answered by another backend."""
CHATS_OWN_MERCY = {"no [DONE]"}
"""What holds a response whole is its last event; nobody else can make it."""
REFUSALS = {"status 499", "404 of a router", "400 of vLLM", "400 in HTML"}
"""Passed on as vLLM's own word."""
OWN_DOING = {"endless body", "a frame of 20 MB first", "a timeout's 408 on the idle connection"}
"""Too large for anyone; and a late 408 may meet the next request."""
OBEYED = {"status 429", "status 503"}
"""Each server in turn asks the first that it hears to wait a second, and all are left in peace."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_a_fault(world, kind, api):
    async with FaultServer((kind, "proper")) as server:
        models = [
            ModelConfig(
                name=model_name(kind, scope),
                profile="phi-3-mini",
                context=4096,
                backends=tuple(map(BackendConfig, server.roots(kind, scope, 3))),
            )
            for scope in SCOPES
        ]
        gate = await world.gate(
            *models,
            timeouts=TimeoutsConfig(
                connect_seconds=5.0, first_token_seconds=0.5, unary_seconds=3.0,
                stall_seconds=0.5, stream_seconds=2.0,
            ),
            retry=RetryConfig(max_attempts=MAX_ATTEMPTS, budget_start=100),
        )  # fmt: skip
        cells = [(scope, stream) for scope in SCOPES for stream in MODES]
        async with connect(api, gate.url) as client:
            results = await asyncio.gather(
                *(
                    run_cell(
                        client,
                        server,
                        kind,
                        scope,
                        stream=stream,
                        requests=2,
                        together=2,
                        patience=PATIENCE,
                    )
                    for scope, stream in cells
                )
            )
        for (scope, stream), result in zip(cells, results, strict=True):
            shown = f"{kind}, {scope}, {MODES[stream]}: {result.examples}"
            assert set(result.fates) <= {Fate.ANSWERED, Fate.REFUSED}, shown
            broken = AFTER_CONTENT | (CHATS_OWN_MERCY if api == "responses" else set())
            excused = (stream and kind in broken) or kind in REFUSALS | OWN_DOING | OBEYED
            if scope == "first" and not excused:
                assert result.fates[Fate.ANSWERED] == 2, shown
        assert gate.gateway.inflight_requests == 0
        assert gate.runtime._client.busy == 0
