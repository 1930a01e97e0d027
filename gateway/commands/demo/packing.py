"""The demo's second part: the same requests at once, packed by energy and spread by time."""

import asyncio
import statistics
from collections import Counter
from typing import Any, NamedTuple

from gateway.commands.demo.fleet import REPLICATED
from gateway.service.client import headers as names

AT_ONCE = 8
_TOKENS = 45
_PROMPT = "Name a city that begins with the letter"


class PackedTurn(NamedTuple):
    """So many requests at once: how many each backend had, and means of a request."""

    weight: str
    shares: tuple[int, ...]
    joules: float
    seconds: float


async def show_packing(base: str) -> list[str]:
    """Send them by energy, then by time; return what to print."""
    import openai  # noqa: PLC0415 - an extra

    async with openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="unused") as client:
        turns = [await _send_at_once(client, weight) for weight in ("energy", "time")]
    lines = [f"\n{AT_ONCE} requests at once, for the two backends of {REPLICATED}:"]
    for turn in turns:
        shares = " and ".join(map(str, turn.shares))
        each = f"{turn.joules:.0f} J and {turn.seconds:.3f} s a request"
        lines.append(f"  {turn.weight} first: {shares}, {each}")
    return lines


async def _send_at_once(client: Any, weight: str) -> PackedTurn:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:AT_ONCE]
    found = await asyncio.gather(*(_send_request(client, weight, letter) for letter in letters))
    shares = Counter(backend for backend, _, _ in found)
    counts = sorted(shares.values(), reverse=True)
    return PackedTurn(
        weight,
        (*counts, 0) if len(counts) == 1 else tuple(counts),
        statistics.fmean(joules for _, joules, _ in found),
        statistics.fmean(seconds for _, _, seconds in found),
    )


async def _send_request(client: Any, weight: str, letter: str) -> tuple[str, float, float]:
    raw = await client.chat.completions.with_raw_response.create(
        model="auto",
        messages=[{"role": "user", "content": f"{_PROMPT} {letter}."}],
        extra_headers={f"x-joulegate-weight-{weight}": "1"},
        max_tokens=_TOKENS,
        extra_body={"min_tokens": _TOKENS},
    )
    record = await client.get(f"/requests/{raw.headers[names.REQUEST_ID]}", cast_to=object)
    truth = raw.parse().model_extra["simulated"]
    return raw.headers[names.BACKEND], truth["energy_joules"], record["observed"]["seconds"]
