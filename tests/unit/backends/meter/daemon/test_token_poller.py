"""Asking backends for their token counters: what goes wrong in one turn ends nothing."""

import asyncio

import pytest

from backends.client import BackendClient
from backends.errors import ConnectionLost
from backends.meter.daemon import token_poller as tokens

PAGE = b"vllm:prompt_tokens_total 5\nvllm:generation_tokens_total 6\n"


@pytest.mark.parametrize(
    "trouble", [RuntimeError("a bug"), ConnectionLost("reset"), KeyError("x"), ValueError("y")]
)
@pytest.mark.parametrize("where", ["asking", "counting"])
async def test_the_next_turn_comes_whatever_happened_in_one(monkeypatch, trouble, where):
    monkeypatch.setattr(tokens, "PERIOD_SECONDS", 0.0)
    done = asyncio.Event()
    troubles = {"asking": [], "counting": []}
    troubles[where] = [trouble, trouble]

    async def get(*_arguments, **_more):
        await asyncio.sleep(0)
        if troubles["asking"]:
            raise troubles["asking"].pop()
        return 200, PAGE

    def counted(root, totals):
        if troubles["counting"]:
            raise troubles["counting"].pop()
        assert (root, totals) == ("http://a:1", (5, 6, 0, 5))
        done.set()

    monkeypatch.setattr(BackendClient, "get", get)
    polling = asyncio.create_task(tokens.poll_backends(["http://a:1"], counted))
    counting = asyncio.create_task(done.wait())
    await asyncio.wait({polling, counting}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    assert counting.done()
    assert not polling.done()
    polling.cancel()
