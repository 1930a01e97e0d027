"""Who could serve a request, at the moment of the decision: options, their places, their loads."""

from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.scheduling.answer_length import AnswerLength
from gateway.scheduling.cost import CostFunction
from gateway.scheduling.features import DEFAULT_OUTPUT, OutputModel, TokenScale
from gateway.scheduling.length_words import LengthWords
from gateway.scheduling.prompt_accuracy import AccuracyEstimate


@dataclass(frozen=True, slots=True)
class DeploymentOption:
    """A deployment as the scheduler sees it: what it can do and what it would cost.

    `ratio` and `per_dense_char` turn tiktoken's count into the model's own tokens; `context` is in
    tokens.
    """

    model: str
    deployment: str
    accuracy: float
    seconds: CostFunction
    joules: CostFunction
    context: int
    capabilities: frozenset[str] = frozenset()
    output: OutputModel = DEFAULT_OUTPUT
    ratio: float = 1.0
    per_dense_char: float = 0.0
    words: LengthWords | None = None
    """Answer lengths by the prompt's words, where a model of them was trained."""
    profile: str = ""
    """Its key in the profile, by which its accuracy head is found."""
    name: tuple[str, str] = field(init=False, repr=False, compare=False)
    """(model, deployment)."""
    learnt_name: str = field(init=False, repr=False, compare=False)
    """By which what was learnt of its answers is kept."""
    scale: TokenScale = field(init=False, repr=False, compare=False)
    depends_on_load: bool = field(init=False, repr=False, compare=False)
    """Whether company changes what a request costs here, so that there is something to pack."""
    is_linear: bool = field(init=False, repr=False, compare=False)
    """Whether both costs are linear in tokens out."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", (self.model, self.deployment))
        both = f"{self.model}/{self.deployment}"
        learnt_name = self.model if self.model == self.deployment else both
        object.__setattr__(self, "learnt_name", learnt_name)
        object.__setattr__(self, "scale", TokenScale(self.ratio, self.per_dense_char))
        depends = any(
            cost.cost_per_output_token(1.0, 1) != cost.cost_per_output_token(1.0, 0)
            for cost in (self.seconds, self.joules)
        )
        object.__setattr__(self, "depends_on_load", depends)
        linear = self.seconds.is_linear and self.joules.is_linear
        object.__setattr__(self, "is_linear", linear)


class CandidatePlace(NamedTuple):
    """One backend that a deployment would send the request to, and why it is one to consider.

    `running` requests are served there now and `queued` wait.
    """

    backend: str
    why: str
    running: int
    queued: int = 0
    cached_tokens: int = 0


class LearntLength(NamedTuple):
    """What was learnt of a candidate's answers; `source` says of what: application, model, words.

    It stands in for the profile's own distribution.
    """

    length: AnswerLength
    source: str


class RoutingCandidate(NamedTuple):
    """An option at the moment of the decision.

    Without `places` there is one, with `running` and `queued`. `learnt` and `scale` are what this
    gateway has learnt of answer lengths and of the tokeniser; None: the profile's word.
    `judged` is its chance of being right on this prompt; None: the option's static share.
    """

    option: DeploymentOption
    running: int = 0
    up: bool = True
    queued: int = 0
    places: tuple[CandidatePlace, ...] = ()
    learnt: LearntLength | None = None
    scale: TokenScale | None = None
    judged: AccuracyEstimate | None = None
    full: bool = False
    """Whether it is not up for no other reason than that it has as many requests as it may."""
    tokens_in: int = 0
    """The prompts' tokens by `scale`, where they were worked out already; 0: they were not."""
    base: AnswerLength | None = None
    """The profile's word on the answer's length, where it was worked out already."""

    @property
    def accuracy(self) -> float:
        """The chance of being right that the policy sees."""
        return self.option.accuracy if self.judged is None else self.judged.value

    @property
    def accuracy_lower(self) -> float:
        """The chance that a bound is held against."""
        return self.option.accuracy if self.judged is None else self.judged.lower
