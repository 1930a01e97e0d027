"""Which backends hold the beginning of a conversation in their prefix cache, and how much of it.

Rules of this file:

- A prefix is known by a mark: a keyed hash, never the text. The longest known one counts.
- A backend holds what it answered: the prompt and the answer, as tokens that it reported itself.
- How much of that is still there is learnt from `cached_tokens`, as a share of what was held; a
  deployment that never reports them holds nothing.
- Bounded, and forgotten after half an hour: an engine drops what is not asked for again.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, NamedTuple

DeploymentName = tuple[str, str]

NOTHING_CACHED: Final[Mapping[str, int]] = {}
NOTHING_HELD: Final[Mapping[DeploymentName, Mapping[str, int]]] = {}

_MOST_MARKS: Final = 16_384
_MOST_HOLDERS: Final = 256
_KEPT_SECONDS: Final = 1800.0
_PRIOR_TOKENS: Final = 2000.0
_PRIOR_SHARE: Final = 0.5
_KEPT_PER_ANSWER: Final = 0.99


class PrefixMarks(NamedTuple):
    """The beginnings of one conversation: `turns` after each message, the longest last.

    `leading` is the one after what the application always sends, whose share of the prompt's text
    is `leading_share`; None where it sends nothing.
    """

    turns: tuple[bytes, ...]
    leading: bytes | None = None
    leading_share: float = 0.0


class _Holder(NamedTuple):
    tokens: int
    at_seconds: float


class _CachedShare:
    """Of the tokens that were held, the share that was found; decayed sums."""

    __slots__ = ("_found", "_held")

    def __init__(self) -> None:
        self._held = _PRIOR_TOKENS
        self._found = _PRIOR_TOKENS * _PRIOR_SHARE

    @property
    def value(self) -> float:
        return self._found / self._held

    def observe(self, held: int, found: int) -> None:
        self._held = self._held * _KEPT_PER_ANSWER + held
        self._found = self._found * _KEPT_PER_ANSWER + min(found, held)


class PrefixHolders:
    """The holders of the marks seen last, per deployment."""

    def __init__(self, most_marks: int = _MOST_MARKS) -> None:
        self._most_marks = most_marks
        self._marks: OrderedDict[bytes, dict[tuple[DeploymentName, str], _Holder]] = OrderedDict()
        self._shares: dict[DeploymentName, _CachedShare] = {}

    @property
    def is_active(self) -> bool:
        """Whether any deployment reports what its cache held; without it there is nothing to do."""
        return bool(self._shares)

    def note_report(self, deployment: DeploymentName) -> None:
        """Note that a deployment reports what its cache held."""
        if deployment not in self._shares:
            self._shares[deployment] = _CachedShare()

    def find_held_tokens(
        self, marks: PrefixMarks, at_seconds: float
    ) -> dict[DeploymentName, dict[str, int]]:
        """Return the tokens of the longest beginning that each backend answered, by deployment."""
        found: dict[DeploymentName, dict[str, int]] = {}
        oldest = at_seconds - _KEPT_SECONDS
        for mark in (*reversed(marks.turns), marks.leading):
            for (deployment, backend), holder in self._marks.get(mark or b"", _NOBODY).items():
                if holder.at_seconds >= oldest:
                    found.setdefault(deployment, {}).setdefault(backend, holder.tokens)
        return found

    def estimate_cached(
        self, deployment: DeploymentName, held: Mapping[DeploymentName, Mapping[str, int]]
    ) -> Mapping[str, int]:
        """Return the tokens to be expected in the cache of each of a deployment's backends."""
        share = self._shares.get(deployment)
        if share is None or deployment not in held:
            return NOTHING_CACHED
        return {name: round(tokens * share.value) for name, tokens in held[deployment].items()}

    def observe_answer(
        self,
        deployment: DeploymentName,
        backend: str,
        marks: PrefixMarks,
        *,
        prompt_tokens: int,
        completion_tokens: int,
        cached_tokens: int,
        held_tokens: int,
        at_seconds: float,
    ) -> None:
        """Take one whole answer; `held_tokens` is what was held there when it was decided."""
        self.note_report(deployment)
        if held_tokens:
            self._shares[deployment].observe(min(held_tokens, prompt_tokens), cached_tokens)
        if marks.turns:
            tokens = prompt_tokens + completion_tokens
            self._note(marks.turns[-1], (deployment, backend), _Holder(tokens, at_seconds))
        if marks.leading is not None:
            tokens = round(prompt_tokens * marks.leading_share)
            self._note(marks.leading, (deployment, backend), _Holder(tokens, at_seconds))

    def _note(self, mark: bytes, by: tuple[DeploymentName, str], holder: _Holder) -> None:
        holders = self._marks.get(mark)
        if holders is None:
            holders = self._marks[mark] = {}
            if len(self._marks) > self._most_marks:
                self._marks.popitem(last=False)
        else:
            self._marks.move_to_end(mark)
            holders.pop(by, None)
            if len(holders) >= _MOST_HOLDERS:
                del holders[next(iter(holders))]
        holders[by] = holder


_NOBODY: Final[Mapping[tuple[DeploymentName, str], _Holder]] = {}
