"""Texts that an engine reads to judge them: what reading costs, and a judgement drawn by chance.

A judgement is drawn from a hash of its text, so that it is the same each time and means nothing.
"""

import time
from collections.abc import Sequence
from random import Random
from typing import Any
from uuid import uuid4

import msgspec
from aiohttp import web

from backends.simulator import chunks
from backends.simulator.handlers import SimulatorHandlers, json_response
from backends.simulator.prompts import measure_prompts


async def read_texts(
    server: SimulatorHandlers, texts: Sequence[str], tokens_out: int
) -> tuple[list[int], dict[str, int]]:
    """Have the engine read texts; return their hashes, and the usage with `tokens_out`."""
    measured = measure_prompts(list(texts), server.spec)
    await server.read_prompts([tokens_in for tokens_in, _ in measured])
    usage = chunks.build_usage(sum(tokens_in for tokens_in, _ in measured), tokens_out)
    return [mark for _, mark in measured], usage


def seed_judgement(server: SimulatorHandlers, mark: int) -> Random:
    """Return what a judgement of the text with this hash is drawn from."""
    return Random(f"{server.spec.seed}:{mark}")  # noqa: S311 - to be repeatable


def answer_judged(server: SimulatorHandlers, kind: str, **told: Any) -> web.Response:
    """Return a body of this kind: its id, time and model, then what is told."""
    head = {"id": f"{kind}-{uuid4().hex}", "created": int(time.time())}
    return json_response(msgspec.json.encode({**head, "model": server.spec.model, **told}))
