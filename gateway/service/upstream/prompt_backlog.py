"""Prompt tokens that a backend has been sent and is still to read: what a burst must not hide.

Rules: a stream's count until its first content; an answer in one piece shows no first token, so
that its prompt counts for as long as the profile gives for reading it. What a backend that is the
only one of its models is still to read is nobody's to weigh, and not counted.
"""

import asyncio

from backends.registry import Backend
from gateway.scheduling.candidate import DeploymentOption
from gateway.scheduling.cost import COST_FLOOR
from gateway.scheduling.decision import ScoredCandidate


class PromptBacklog:
    """One attempt's share of its backend's backlog."""

    __slots__ = ("_backend", "_timer", "_tokens")

    def __init__(
        self, backend: Backend, scored: ScoredCandidate, option: DeploymentOption, *, stream: bool
    ) -> None:
        self._backend = backend
        self._tokens = 0
        self._timer: asyncio.TimerHandle | None = None
        if not backend.has_peers:
            return
        self._tokens = scored.tokens_in
        backend.add_prompt_tokens(self._tokens)
        if not stream:
            seconds = max(COST_FLOOR, option.seconds.evaluate_form(scored.tokens_in, 0.0))
            self._timer = asyncio.get_running_loop().call_later(seconds, self.release)

    def release(self) -> None:
        """Count the prompt out; once."""
        if not self._tokens:
            return
        self._backend.add_prompt_tokens(-self._tokens)
        self._tokens = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
