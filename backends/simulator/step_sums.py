"""The sums of one step over those in it: what is paid once, and how long it takes.

PURE: plain numbers in, plain numbers out.
"""

from collections.abc import Sequence

from backends.simulator.decode_batch import DecodeBatch
from backends.simulator.engine_request import EngineRequest

Chunks = list[tuple[EngineRequest, int]]
"""Whose prompt, and how many of its tokens are computed in this step."""


def sum_fixed_joules(
    batch: DecodeBatch, chunks: Chunks, first: Sequence[EngineRequest]
) -> tuple[float, float]:
    """What is paid once: each one's share of it, and the further share of those with a token.

    The latter is the part that a step has only where it yields a token.
    """
    everyone, yielding = len(batch) + len(chunks), len(batch) + len(first)
    shared = max((r.joules.begin for r, _ in chunks if _begins(r)), default=0.0) / everyone
    if not yielding:
        return shared + sum(r.joules.chunk_fixed for r, _ in chunks) / everyone**2, 0.0
    total, chunk = batch.joules.fixed, batch.joules.chunk_fixed
    for request in first:
        total += request.joules.fixed
        chunk += request.joules.chunk_fixed
    chunk = min(chunk, total) / yielding
    return shared + chunk / everyone, (total / yielding - chunk) / yielding


def sum_seconds(
    batch: DecodeBatch, chunks: Chunks, first: Sequence[EngineRequest], drafts: int
) -> float:
    """How long a step takes; each decoding sequence has `drafts` tokens computed."""
    sums = batch.seconds
    fixed = sums.fixed
    seconds = sums.own * drafts + sums.context
    if not chunks:
        return seconds + fixed / len(batch)
    for request in first:
        price = request.seconds
        fixed += price.fixed
        seconds += price.per_sequence
        seconds += price.per_context_token * (request.prompt_tokens + 0.5)
    yielding = len(batch) + len(first)
    if yielding:
        seconds += fixed / yielding
    else:
        seconds += sum(r.seconds.chunk_fixed for r, _ in chunks) / len(chunks)
    if len(first) < len(chunks):
        seconds += sum(
            r.seconds.per_chunk_context_token * r.context
            for r, count in chunks
            if r.prompt_done + count < r.prompt_tokens
        )
    prompts = [r.seconds.per_prompt_token * count for r, count in chunks]
    begins = [r.seconds.begin if _begins(r) else 0.0 for r, _ in chunks]
    if all(r.seconds.parallel for r, _ in chunks):
        return seconds + max(map(sum, zip(prompts, begins, strict=True)))
    return seconds + sum(prompts) + max(begins)


def _begins(request: EngineRequest) -> bool:
    return request.prompt_done == request.cached_tokens and not request.preemptions
