"""What this process has learnt of answer lengths and tokenisers, and the small file that keeps it.

Rules: prediction is on a request's path and only looks things up; learning is done afterwards,
with the other accounting. The file holds decayed sums and keyed hashes, no text. One that cannot
be read is put aside as *.bad and learning begins anew. Workers that tell each other their lessons
know the same: they read one file, and one of them writes it. A process by itself keeps one of its
own.
"""

import fcntl
import logging
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import msgspec

from gateway.atomic_file import write_atomically
from gateway.bounded_file import read_bounded_file
from gateway.scheduling.answer_length import AnswerLength
from gateway.scheduling.candidate import DeploymentOption, LearntLength
from gateway.scheduling.features import TokenScale
from gateway.scheduling.length_learner import LengthLearner
from gateway.scheduling.prefix_holders import DeploymentName, PrefixHolders, PrefixMarks
from gateway.scheduling.token_learner import TokenLearner
from gateway.service.request.accuracy_learning import AccuracyLearning, AnswerJudged, FeedbackHeard
from gateway.service.request.application import hash_application
from gateway.service.request.conversation_prefix import ConversationTexts, mark_prefixes
from gateway.service.request.lessons import LengthSeen, Lesson, PrefixSeen, TokensSeen, Told

_log = logging.getLogger("joulegate")

_VERSION = 1
_MOST_WORKERS = 256
_USUAL_TOKENS_IN = 100.0
_KEY_BYTES = 32
_MOST_TOLD = 10_000


class Learnt:
    """Lengths and tokenisers, learnt by one process, or by the workers that share `shared_key`.

    `accuracy` is learnt, too, where it is given.
    """

    def __init__(
        self,
        state: Path | None = None,
        shared_key: bytes | None = None,
        accuracy: AccuracyLearning | None = None,
    ) -> None:
        self.accuracy = accuracy
        self.lengths = LengthLearner()
        self.tokens = TokenLearner()
        self.prefixes = PrefixHolders()
        """Not kept in the file: a cache seldom outlives what it was filled by."""
        self._key = shared_key or secrets.token_bytes(_KEY_BYTES)
        self._changed = False
        self._told: list[Told] | None = None
        self._lock: IO[bytes] | None = None
        self._files = _MOST_WORKERS if shared_key is None else 1
        self._state = state
        self._path = None if state is None else self._claim(state)
        readable = state if shared_key is not None else self._path
        if readable is not None:
            self._restore(readable)

    def adopt(self, options: Iterable[DeploymentOption]) -> None:
        """Note what the profile in force expects: what was learnt is kept in tokens."""
        for option in options:
            usual = option.output.describe(_USUAL_TOKENS_IN).mu
            base = usual if option.words is None else option.words.bias
            self.lengths.set_base(option.learnt_name, base)

    def hash_application(self, description: str) -> str:
        """Return the keyed hash by which an application is known here."""
        return hash_application(description, self._key)

    def predict_scale(self, option: DeploymentOption) -> TokenScale | None:
        """Return the scale learnt of an option's tokeniser; None: the profile's."""
        return self.tokens.predict(option.model)

    def predict_length(
        self, option: DeploymentOption, application: str, base: AnswerLength
    ) -> LearntLength | None:
        """Return what has been learnt of an answer's length; None: nothing."""
        return self.lengths.predict(option.learnt_name, application, base)

    def observe(
        self,
        option: DeploymentOption,
        lesson: Lesson,
        *,
        prompt_tokens: int,
        completion_tokens: int,
        cut: bool,
        at_seconds: float,
    ) -> None:
        """Take one whole answer to one prompt."""
        # What was seen is made only where there is a worker to tell: most processes are alone.
        if not lesson.has_media:
            self._changed = True
            prompt = (option.scale, lesson.counted_tokens, lesson.dense_chars, prompt_tokens)
            self.tokens.observe(option.model, *prompt)
            if self._told is not None:
                self._tell(TokensSeen(option.model, *prompt))
        base = lesson.bases.get(option.name)
        if base is None or not lesson.free or completion_tokens <= lesson.min_tokens:
            return
        self._changed = True
        name, application = option.learnt_name, lesson.application
        self.lengths.observe(
            name, application, base, completion_tokens, cut=cut, at_seconds=at_seconds
        )
        if self._told is not None:
            answer = (completion_tokens, cut, at_seconds)
            self._tell(LengthSeen(name, application, base.mu, base.sigma, *answer))

    def hear(self, heard: FeedbackHeard) -> bool:
        """Take a judgement from a client; tell whether its request waits for one here."""
        if self.accuracy is None:
            return False
        lesson = self.accuracy.take_judgement(heard)
        self._learn(lesson or heard)
        return lesson is not None

    def mark_prefixes(self, texts: ConversationTexts, application: str) -> PrefixMarks | None:
        """Return a conversation's beginnings; None where no backend reports its cache."""
        if not self.prefixes.is_active or not texts.ends:
            return None
        return mark_prefixes(texts, application, self._key)

    def observe_prefix(
        self,
        answered_by: tuple[DeploymentName, str],
        lesson: Lesson,
        *,
        prompt_tokens: int,
        completion_tokens: int,
        cached_tokens: int,
        at_seconds: float,
    ) -> None:
        """Take what an answer's backend had, and now has, of its conversation."""
        deployment, backend = answered_by
        if lesson.prefix is None:
            self.prefixes.note_report(deployment)
            return
        held = lesson.held.get(deployment, {}).get(backend, 0)
        self._learn(
            PrefixSeen(
                deployment,
                backend,
                lesson.prefix.turns[-1:],
                lesson.prefix.leading,
                lesson.prefix.leading_share,
                prompt_tokens,
                completion_tokens,
                cached_tokens,
                held,
                at_seconds,
            )
        )

    def apply(self, lesson: Told) -> None:
        """Take what this process or another has seen."""
        if isinstance(lesson, PrefixSeen):
            self.prefixes.observe_answer(
                lesson.deployment,
                lesson.backend,
                PrefixMarks(lesson.turns, lesson.leading, lesson.leading_share),
                prompt_tokens=lesson.prompt_tokens,
                completion_tokens=lesson.completion_tokens,
                cached_tokens=lesson.cached_tokens,
                held_tokens=lesson.held_tokens,
                at_seconds=lesson.at_seconds,
            )
            return
        if isinstance(lesson, FeedbackHeard):
            found = None if self.accuracy is None else self.accuracy.take_judgement(lesson)
            if found is not None:
                self._learn(found)
            return
        self._changed = True
        if isinstance(lesson, AnswerJudged):
            if self.accuracy is not None:
                self.accuracy.learn(lesson)
            return
        if isinstance(lesson, TokensSeen):
            self.tokens.observe(
                lesson.model, lesson.scale, lesson.counted, lesson.dense_chars, lesson.tokens
            )
            return
        self.lengths.observe(
            lesson.model,
            lesson.application,
            AnswerLength(lesson.base_mu, lesson.base_sigma),
            lesson.tokens,
            cut=lesson.cut,
            at_seconds=lesson.at_seconds,
        )

    def start_telling(self) -> None:
        """Keep what is learnt here for `take_told` from now on."""
        self._told = []

    def take_told(self) -> list[Told]:
        """Return what has been learnt here since the last call, not what was applied."""
        if not self._told:
            return []
        told, self._told = self._told, []
        return told

    def _learn(self, lesson: Told) -> None:
        self.apply(lesson)
        self._tell(lesson)

    def _tell(self, lesson: Told) -> None:
        if self._told is not None and len(self._told) < _MOST_TOLD:
            self._told.append(lesson)

    def save(self) -> None:
        """Write the file where there is one and something is new; trouble is logged."""
        state = self.snapshot_state()
        if state is not None:
            self.write_state(state)

    def snapshot_state(self) -> dict[str, Any] | None:
        """Return what is to be written now; None: nothing."""
        if self._path is None and self._files == 1 and self._state is not None:
            # Whoever wrote it may have gone.
            self._path = self._claim(self._state)
        if self._path is None or not self._changed:
            return None
        self._changed = False
        return {
            "version": _VERSION,
            "key": self._key.hex(),
            "lengths": self.lengths.to_state(),
            "tokens": self.tokens.to_state(),
            **({} if self.accuracy is None else {"accuracy": self.accuracy.to_state()}),
        }

    def write_state(self, state: dict[str, Any]) -> None:
        """Write what `snapshot_state` gave; for any thread."""
        path = self._path
        if path is None:
            return
        try:
            write_atomically(path, msgspec.json.encode(state))
            path.chmod(0o600)
        except OSError as error:
            _log.error("learning state %s: %s; a restart will lose it", path, error.strerror)

    def close(self) -> None:
        """Write the file a last time and let another process have it."""
        self.save()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _claim(self, state: Path) -> Path | None:
        """Return the first file of this name that no other worker has."""
        for number in range(self._files):
            path = state if number == 0 else state.with_name(f"{state.name}.{number}")
            try:
                lock = path.with_name(f".{path.name}.lock").open("wb")
            except OSError as error:
                _log.error("learning state %s: %s; a restart will lose it", path, error.strerror)
                return None
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                continue
            self._lock = lock
            return path
        return None

    def _restore(self, path: Path) -> None:
        if not path.exists():
            return
        try:
            state = msgspec.json.decode(read_bounded_file(path))
            if state["version"] != _VERSION:
                raise ValueError("another version")  # noqa: TRY301 - one way to refuse it
            key = bytes.fromhex(state["key"])
            self.lengths.restore(state["lengths"])
            self.tokens.restore(state["tokens"])
            if self.accuracy is not None and "accuracy" in state:
                self.accuracy.restore(state["accuracy"])
            self._key = key
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as why:
            _log.warning("learning state %s cannot be used, learning begins anew: %s", path, why)
            self.lengths, self.tokens = LengthLearner(), TokenLearner()
            kept = path.with_name(f"{path.name}.bad")
            try:
                path.replace(kept)
            except OSError:
                self._path = None
