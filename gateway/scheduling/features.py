"""What a request asks for, in numbers: tokens in, tokens out, and the capabilities it needs."""

from dataclasses import dataclass
from typing import NamedTuple

from gateway.scheduling.answer_length import DEFAULT_SIGMA, AnswerLength
from gateway.scheduling.sequences import SequenceCounts


@dataclass(frozen=True, slots=True)
class OutputModel:
    """A profile's word on answer lengths: a line over tokens in, or a log-normal.

    The line's value is the mean of a log-normal with `sigma`; where `mu` is given it is the
    log-normal's own, and the line is not looked at. The default is the published heuristic (pooled
    OLS over 148,826 Alpaca prompts; R2 0.126).
    """

    slope: float = 1.028
    intercept: float = 44.12
    mu: float | None = None
    sigma: float = DEFAULT_SIGMA

    def describe(self, tokens_in: float) -> AnswerLength:
        """Return the distribution of one answer's tokens to a prompt of `tokens_in`."""
        if self.mu is not None:
            return AnswerLength(self.mu, self.sigma)
        return AnswerLength.of_mean(self.slope * tokens_in + self.intercept, self.sigma)

    def write_formula(self) -> str:
        """Return it in words, as pages and reports show it; i are the tokens in."""
        if self.mu is not None:
            return f"log-normal: mu {self.mu:.4g}, sigma {self.sigma:.4g}"
        return f"{self.slope:.4g} i {self.intercept:+.4g}"

    def predict_output_tokens(self, tokens_in: int, limit: int) -> int:
        """Return the expected new tokens, from 1 to `limit` (a limit below 1 counts as 1)."""
        return max(1, round(self.describe(tokens_in).compute_mean(1.0, float(max(1, limit)))))


DEFAULT_OUTPUT = OutputModel()
_TO_CONTEXT = -1


class TokenScale(NamedTuple):
    """A model's own prompt tokens from what was counted: base + ratio x count + dense x term.

    `per_dense_char` is per digit and punctuation mark, which real tokenisers split more finely.
    """

    ratio: float = 1.0
    per_dense_char: float = 0.0
    base: float = 0.0

    def estimate(self, counted: float, dense_chars: float = 0.0) -> int:
        """Return the model's tokens, at least 1."""
        return max(1, round(self.base + self.ratio * counted + self.per_dense_char * dense_chars))


@dataclass(slots=True)
class RequestFeatures:
    """One request as the scheduler sees it; made anew for each, so not frozen: that costs 2 us.

    `tokens_in` is tiktoken's count, of all prompts where it has several, before any model's
    scale, and `dense_chars` the digits and punctuation marks in it; `asked_tokens_out` is the
    client's own limit (max_tokens or max_completion_tokens) or None; `needs` names capabilities.
    With `lenient` the context is not checked: the caller named the model, and its server counts
    better than an estimate does. `prompts` prompts get `answers` answers each; the longest prompt
    has the share `longest` of the tokens. `truncate_tokens` is what vLLM keeps of a prompt, and -1
    what its context holds. With `ignore_eos` answers run to their limit.
    """

    tokens_in: int
    asked_tokens_out: int | None = None
    needs: frozenset[str] = frozenset()
    lenient: bool = False
    dense_chars: int = 0
    min_tokens: int = 0
    ignore_eos: bool = False
    answers: int = 1
    prompts: int = 1
    longest: float = 1.0
    truncate_tokens: int | None = None
    exact: bool = False
    """Whether the prompt came as the model's own tokens, so that no scale applies."""

    @property
    def always_fits(self) -> bool:
        """Whether no context is too small: the prompt is cut to it, or its server is to judge."""
        return self.lenient or self.truncate_tokens == _TO_CONTEXT

    def scale(self, scale: TokenScale) -> int:
        """Return the prompts' tokens by a model's own tokeniser."""
        if self.exact:
            return max(1, self.tokens_in)
        return scale.estimate(self.tokens_in, self.dense_chars)

    @property
    def sequences(self) -> int:
        """How many answers it is to get in all."""
        return self.answers * self.prompts

    @property
    def sequence_counts(self) -> SequenceCounts:
        """How many prompts get how many answers."""
        return SequenceCounts(self.prompts, self.answers)
