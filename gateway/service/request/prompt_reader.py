"""A request's text, read once for every model of the text: answer lengths and accuracy.

Rules: the user's last message is read; what the user said before, its latest part, and a system
prompt count a quarter beside it. A system prompt's features are kept, because every request of an
application has the same. Nothing read here is logged, unless `log.features` says so.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from gateway.scheduling.answer_length import find_normal_quantile
from gateway.scheduling.candidate import DeploymentOption
from gateway.scheduling.decision import PromptSummary
from gateway.scheduling.prompt_accuracy import (
    AccuracyEstimate,
    PromptAccuracy,
    PromptReading,
    list_effects,
)
from gateway.scheduling.text_features import (
    TextFeatures,
    cut_middle,
    extract_text_features,
    list_word_buckets,
    split_words,
)

_MOST_CONTEXTS = 256
_EARLIER_CHARS = 1_024
"""How much is read of what the user said before."""
_NO_SHAPE = (0.0, 0.0, 0.0, 0.0)


class ReadPrompt(NamedTuple):
    """One prompt's features, and what the accuracy model in force reads in them (None: none is)."""

    text: TextFeatures
    context: TextFeatures | None = None
    model: PromptAccuracy | None = None
    reading: PromptReading | None = None

    def predict_accuracy(
        self, option: DeploymentOption, quantile: float
    ) -> AccuracyEstimate | None:
        """Return an option's chance of being right; None: its static share."""
        if self.model is None or self.reading is None or option.profile not in self.model.heads:
            return None
        z = find_normal_quantile(quantile)
        return self.model.predict(option.profile, self.reading, option.accuracy, z)

    def summarise(self) -> PromptSummary | None:
        """Return what the decision says of the prompt; no word of it."""
        if self.model is None or self.reading is None:
            return None
        kind, share = None, None
        if self.model.kinds is not None:
            share = max(self.reading.kinds)
            kind = self.model.kinds.names[self.reading.kinds.index(share)]
        return PromptSummary(
            self.model.form, self.reading.distance, self.reading.known, kind, share
        )

    def explain(self, prompt: str) -> list[dict[str, Any]]:
        """Return the features that mattered most; these are words of the prompt: never log them."""
        if self.model is None or self.reading is None:
            return []
        found = list_effects(self.model, self.reading, split_words(prompt))
        return [one._asdict() for one in found]


class PromptReader:
    """Reads prompts for one process; keeps the features of system prompts seen lately."""

    def __init__(self) -> None:
        self._contexts: dict[str, TextFeatures] = {}

    def read(
        self,
        prompt: str,
        system: str,
        model: PromptAccuracy | None,
        earlier: Sequence[str] = (),
    ) -> ReadPrompt:
        """Return a prompt's features and the model's reading of them.

        `earlier` is what the user said before, oldest first.
        """
        if model is None:
            return ReadPrompt(extract_text_features(prompt, with_form=False))
        text = extract_text_features(prompt)
        context = self._read_context(system) if system else None
        if earlier:
            context = _add_words(context, list_word_buckets(_join_latest(earlier)))
        return ReadPrompt(text, context, model, model.read(text, context))

    def _read_context(self, system: str) -> TextFeatures:
        key = cut_middle(system)
        found = self._contexts.get(key)
        if found is None:
            if len(self._contexts) >= _MOST_CONTEXTS:
                self._contexts.clear()
            found = self._contexts[key] = extract_text_features(key)
        return found


def _add_words(context: TextFeatures | None, words: tuple[int, ...]) -> TextFeatures:
    """Return a context with more words, each once."""
    if context is None:
        return TextFeatures((), _NO_SHAPE, words)
    return context._replace(words=tuple(dict.fromkeys(context.words + words)))


def _join_latest(texts: Sequence[str]) -> str:
    """Return the latest of these texts, the last whole ones and the end of the one before."""
    found: list[str] = []
    left = _EARLIER_CHARS
    for text in reversed(texts):
        found.append(text if len(text) <= left else text[-left:].partition(" ")[2])
        left -= len(text)
        if left <= 0:
            break
    return "\n".join(found)
