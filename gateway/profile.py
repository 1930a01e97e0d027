"""The profile artifact: fitted coefficients per model, loaded, validated and saved.

A file is taken whole or not at all.
"""

import copy
import hashlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from backends.sse import UNREADABLE
from gateway.accuracy_profile import AccuracyByPrompt
from gateway.atomic_file import write_atomically
from gateway.bounded_file import read_bounded_file
from gateway.scheduling.answer_length import DEFAULT_SIGMA
from gateway.scheduling.cost import LARGEST_COEFFICIENT, CostFunction, CostQuantity, RegressionForm
from gateway.scheduling.features import OutputModel
from gateway.scheduling.length_words import LengthWords
from gateway.scheduling.prompt_accuracy import PromptAccuracy

SCHEMA_VERSION = 1
SHIPPED = "shipped"
"""What options and config keys call the profile in the package."""
_SHIPPED_FILE = "published.json"
_MOST_BYTES = 32 * 1024 * 1024

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Sane = Annotated[float, Meta(ge=-LARGEST_COEFFICIENT, le=LARGEST_COEFFICIENT)]
Range = Annotated[list[float], Meta(min_length=2, max_length=2)]


class ProfileError(ValueError):
    """A profile that cannot be read, does not validate, or lacks a model that is needed."""


class AccuracyProfile(Struct, frozen=True, forbid_unknown_fields=True):
    """Share of right answers, overall and per task."""

    default: Share
    tasks: dict[str, Share] = {}


class TokenRatio(Struct, frozen=True, forbid_unknown_fields=True):
    """The model's own prompt tokens: per tiktoken token, and per digit or punctuation mark."""

    ratio: Annotated[float, Meta(gt=0.0, le=100.0)] = 1.0
    per_dense_char: Annotated[float, Meta(ge=-10.0, le=10.0)] = 0.0


class OutputCoefficients(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """New tokens of an answer: `linear` or `lognormal`.

    `linear`: their mean is slope x tokens in + intercept, the distribution log-normal.
    `lognormal`: ln(tokens) has mean `mu` and deviation `sigma`, from `n` answers of which
    `censored` were cut by their limit.
    """

    slope: Sane = 0.0
    intercept: Sane = 0.0
    form: Literal["linear", "lognormal"] = "linear"
    mu: Annotated[float, Meta(ge=-5.0, le=25.0)] | None = None
    sigma: Annotated[float, Meta(gt=0.0, le=5.0)] = DEFAULT_SIGMA
    n: Annotated[int, Meta(ge=0)] | None = None
    censored: Annotated[int, Meta(ge=0)] | None = None

    def __post_init__(self) -> None:
        if (self.form == "lognormal") != (self.mu is not None):
            raise ValueError(
                "output: form lognormal takes mu and sigma, linear slope and intercept"
            )
        if self.form == "linear" and self.slope == 0.0 and self.intercept == 0.0:
            raise ValueError("output: form linear takes slope and intercept")


class WordsRegression(Struct, frozen=True, forbid_unknown_fields=True):
    """ln(tokens of an answer) by the words of its prompt, as `joulegate lengths train` makes it.

    `words` has a weight per hashed word, `shape` [weight, mean, deviation] for length, lines,
    question marks and digits; `sigma` is the deviation that puts 90% of answers within the 90%
    quantile; `n` answers taught it.
    """

    bias: Sane
    sigma: Annotated[float, Meta(gt=0.0, le=5.0)]
    words: list[Sane]
    shape: list[tuple[Sane, Sane, Annotated[float, Meta(gt=0.0, le=LARGEST_COEFFICIENT)]]]
    n: Annotated[int, Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        self.model()

    def model(self) -> LengthWords:
        """Return the pure model that the scheduler evaluates."""
        return LengthWords(self.bias, self.sigma, tuple(self.words), tuple(self.shape))


class PrefillEnergy(Struct, frozen=True, forbid_unknown_fields=True):
    """Joules of a prompt by itself: base + per token x tokens in; from profiling alone.

    The meter shares measured energy by it, so it must not be refitted from what was so shared.
    """

    base_joules: Sane
    joules_per_token: Annotated[float, Meta(ge=0.0, le=LARGEST_COEFFICIENT)]


class Decode(Struct, frozen=True, forbid_unknown_fields=True):
    """Joules of a generated token, from profiling the model alone: what meters weigh tokens by.

    Own + per token of context x context + of a step / those that share it; without
    `joules_per_step` nothing is known of company.
    """

    joules_per_token: Annotated[float, Meta(ge=0.0, le=LARGEST_COEFFICIENT)]
    joules_per_context_token: Annotated[float, Meta(ge=0.0, le=LARGEST_COEFFICIENT)] = 0.0
    joules_per_step: Annotated[float, Meta(ge=0.0, le=LARGEST_COEFFICIENT)] | None = None


class CostRegression(Struct, frozen=True, forbid_unknown_fields=True):
    """One fitted cost: seconds, or joules, per request.

    `covariance` is of the coefficients (k x k); `rmse` is in the cost's unit; `fitted_range` has
    the lowest and highest value of each regressor in the fitted rows.
    """

    form: RegressionForm
    coefficients: list[float]
    covariance: list[list[float]] | None = None
    n: Annotated[int, Meta(ge=0)] | None = None
    r2: Annotated[float, Meta(le=1.0)] | None = None
    rmse: Annotated[float, Meta(ge=0.0)] | None = None
    fitted_range: dict[str, Range] = {}

    def __post_init__(self) -> None:
        size = self.form.term_count
        if len(self.coefficients) != size:
            msg = (
                f"coefficients: form {self.form.value!r} takes {size}, not {len(self.coefficients)}"
            )
            raise ValueError(msg)
        if self.covariance is not None and (
            len(self.covariance) != size or any(len(row) != size for row in self.covariance)
        ):
            raise ValueError(f"covariance: must be {size} x {size}, like the coefficients")
        if not all(abs(value) <= LARGEST_COEFFICIENT for value in self.coefficients):
            raise ValueError(f"coefficients: must be at most {LARGEST_COEFFICIENT:g} in size")

    def to_cost_function(self, quantity: CostQuantity) -> CostFunction:
        """Return the pure cost that the scheduler evaluates."""
        return CostFunction(quantity, self.form, tuple(self.coefficients))


class ModelProfile(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything known of one model on one kind of hardware."""

    accuracy: AccuracyProfile
    seconds: CostRegression
    joules: CostRegression
    tokens: TokenRatio = TokenRatio()
    output: OutputCoefficients | None = None
    prefill: PrefillEnergy | None = None
    idle_watts: Annotated[float, Meta(ge=0.0, le=LARGEST_COEFFICIENT)] | None = None
    """Watts of the backend's GPUs, all together, with the model loaded and no request."""
    decode: Decode | None = None
    provenance: dict[str, Any] = {}

    def to_output_model(self) -> OutputModel:
        """Return the profile's own distribution, or the published heuristic."""
        output = self.output
        if output is None:
            return OutputModel()
        return OutputModel(output.slope, output.intercept, output.mu, output.sigma)

    def get_prefill_coefficients(self) -> tuple[float, float]:
        """Return (base, per token) of a prompt's joules: as profiled, or b0 and b1 of the cost."""
        if self.prefill is not None:
            return self.prefill.base_joules, self.prefill.joules_per_token
        base, per_token, *_ = self.joules.coefficients
        return base, max(0.0, per_token)

    def decode_joules(self) -> Decode:
        """Return what a generated token costs: as profiled, or by the cost's other coefficients.

        Forms that read context say it as such; of i·o the prompt stands for the context.
        """
        if self.decode is not None:
            return self.decode
        _, _, own, context, shared = (*self.joules.coefficients, 0.0, 0.0)[:5]
        knows_load = self.joules.form.knows_load
        return Decode(
            joules_per_token=max(0.0, own),
            joules_per_context_token=max(0.0, context),
            joules_per_step=max(0.0, shared) if knows_load else None,
        )


class ProfileFile(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The file as it is written; the last two hold models of the prompt's text, where trained."""

    version: int
    models: Annotated[dict[str, ModelProfile], Meta(min_length=1)]
    lengths: dict[str, WordsRegression] = {}
    accuracy_by_prompt: AccuracyByPrompt | None = None


class CostProfile:
    """A validated profile; `version` names its content (the first 12 hex digits of its sha256)."""

    def __init__(
        self,
        models: Mapping[str, ModelProfile],
        version: str,
        lengths: Mapping[str, WordsRegression] | None = None,
        accuracy_by_prompt: AccuracyByPrompt | None = None,
    ) -> None:
        """Raises ValueError where accuracy by prompt does not fit together."""
        self.models = models
        self.version = version
        self.lengths = lengths or {}
        self.accuracy_by_prompt = accuracy_by_prompt
        self.prompt_accuracy: PromptAccuracy | None = None
        if accuracy_by_prompt is not None:
            self.prompt_accuracy = accuracy_by_prompt.make()

    def get_model(self, key: str) -> ModelProfile:
        """Return one model's profile. Raises ProfileError naming those there are."""
        try:
            return self.models[key]
        except KeyError:
            have = ", ".join(sorted(self.models))
            raise ProfileError(f"no model {key!r} in the profile (it has: {have})") from None


def parse_profile(raw: bytes, origin: str) -> CostProfile:
    """Validate a profile's bytes; `origin` names them in errors. Raises ProfileError."""
    try:
        # The version is read by itself first: a newer file may hold fields unknown here.
        version = msgspec.json.decode(raw, type=dict[str, msgspec.Raw]).get("version")
        number = msgspec.json.decode(version, type=int) if version is not None else None
    except UNREADABLE as error:
        raise ProfileError(f"{origin}: not a profile: {error}") from None
    if number is None:
        raise ProfileError(f'{origin}: no version: a profile starts with {{"version": 1, …}}')
    if number != SCHEMA_VERSION:
        msg = f"{origin}: version {number} is not known here (this is Joulegate's version 1)"
        raise ProfileError(msg)
    try:
        parsed = msgspec.json.decode(raw, type=ProfileFile)
    except UNREADABLE as error:
        raise ProfileError(f"{origin}: {error}") from None
    digest = hashlib.sha256(raw).hexdigest()[:12]
    try:
        return CostProfile(parsed.models, digest, parsed.lengths, parsed.accuracy_by_prompt)
    except ValueError as error:
        raise ProfileError(f"{origin}: accuracy_by_prompt: {error}") from None


def load_profile(path: Path | None, learnt: Path | None = None) -> CostProfile:
    """Read a profile file, or the shipped one where `path` is None. Raises ProfileError.

    `learnt` is a file of which the models replace those of the same name, where it is there.
    """
    base = _load_one(path)
    if learnt is None or not learnt.exists():
        return base
    over = _load_one(learnt)
    version = hashlib.sha256(f"{base.version} {over.version}".encode()).hexdigest()[:12]
    made = copy.copy(base)  # what was made of its models of the prompt's text is shared
    made.models, made.version = {**base.models, **over.models}, version
    return made


def _load_one(path: Path | None) -> CostProfile:
    if path is None:
        return parse_profile(
            (resources.files(__package__) / "profiles" / _SHIPPED_FILE).read_bytes(),
            "shipped profile",
        )
    try:
        raw = read_bounded_file(path, _MOST_BYTES)
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror}") from None
    return parse_profile(raw, str(path))


def save_profile(
    models: Mapping[str, ModelProfile],
    path: Path,
    lengths: Mapping[str, WordsRegression] | None = None,
    accuracy_by_prompt: AccuracyByPrompt | None = None,
) -> None:
    """Write a profile atomically: readers see the old file or the new one. Raises OSError."""
    whole = ProfileFile(SCHEMA_VERSION, dict(models), dict(lengths or {}), accuracy_by_prompt)
    encoded = msgspec.json.encode(whole)
    parse_profile(encoded, str(path))
    write_atomically(path, msgspec.json.format(encoded, indent=2) + b"\n")
