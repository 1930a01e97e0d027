"""Asks backends for their own token counters, so that tokens nobody reported are seen.

Prompt tokens are those that were computed: a prefix cache's cost nothing. An old vLLM does not
tell them apart; then all are taken, and a cached prompt may count as somebody else's.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import NamedTuple

from backends import exposition
from backends.client import BackendClient
from backends.errors import BackendError
from backends.http.url import RequestUrl, parse_request_url
from backends.periodic import run_periodically
from backends.vllm import metric_names

_log = logging.getLogger("joulegate.meter")

_CONNECT_SECONDS = 1.0
_TIMEOUT_SECONDS = 2.0
_MAX_PAGE_BYTES = 8 << 20
PERIOD_SECONDS = 1.0


class TokenTotals(NamedTuple):
    """A backend's own counters so far."""

    prompt_tokens: int
    """Those that were computed."""
    generated_tokens: int
    preemptions: int = 0
    """Requests thrown out of a full cache, whose tokens were then computed anew."""
    all_prompt_tokens: int | None = None
    """Those that a cache spared too."""


TokenCountsHandler = Callable[[str, TokenTotals], None]
"""Takes a backend's root and its totals."""


async def poll_backends(roots: Sequence[str], counted: TokenCountsHandler) -> None:
    """Ask every backend once a second, until cancelled."""
    if not roots:
        return
    async with (
        BackendClient(connect_seconds=_CONNECT_SECONDS) as client,
        asyncio.TaskGroup() as tasks,
    ):
        for root in roots:
            tasks.create_task(_poll_backend(client, root, counted))


async def _poll_backend(client: BackendClient, root: str, counted: TokenCountsHandler) -> None:
    url = parse_request_url(root + "/metrics")
    answering = True

    async def poll_once() -> None:
        nonlocal answering
        found = await _fetch_token_counts(client, url)
        if (found is not None) != answering:
            answering = not answering
            _log.log(
                logging.INFO if answering else logging.WARNING,
                "%s %s",
                url,
                "answers" if answering else "has no token counters of vLLM's",
            )
        if found is not None:
            counted(root, found)

    await run_periodically(poll_once, PERIOD_SECONDS, f"counting tokens at {url}")


async def _fetch_token_counts(client: BackendClient, url: RequestUrl) -> TokenTotals | None:
    """Return prompt and generated tokens so far; None where they cannot be had now."""
    with contextlib.suppress(BackendError):
        status, page = await client.get(url, {}, seconds=_TIMEOUT_SECONDS, limit=_MAX_PAGE_BYTES)
        if status == HTTPStatus.OK:
            return parse_token_counts(page)
    return None


def parse_token_counts(page: bytes) -> TokenTotals | None:
    """Return prompt and generated tokens of vLLM's page, None where it has none."""
    prompt = exposition.sum_series(
        page, metric_names.PROMPT_TOKENS_BY_SOURCE, source=metric_names.COMPUTED_SOURCE
    )
    all_prompt = exposition.sum_series(page, metric_names.PROMPT_TOKENS)
    if prompt is None:
        prompt = all_prompt
    generated = exposition.sum_series(page, metric_names.GENERATION_TOKENS)
    if prompt is None or generated is None:
        return None
    preemptions = exposition.sum_series(page, metric_names.PREEMPTIONS) or 0.0
    every = round(prompt if all_prompt is None else all_prompt)
    return TokenTotals(round(prompt), round(generated), round(preemptions), every)
