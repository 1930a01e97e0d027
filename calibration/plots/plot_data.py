"""The figures' inputs: a profile, measured rows and their fits, prompts, lengths.

Everything is read and checked here, before the first picture; a model that cannot be fitted is
noted, a file that cannot be read is refused.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from calibration.arrays import Floats
from calibration.fit import model as fit
from calibration.fit.cost import CostFit
from calibration.plots import choices, style
from calibration.plots.accuracy_report import AccuracyReport, read_accuracy_report
from calibration.plots.options import PlotSources
from calibration.stats import design
from calibration.tables.columns import BadInput, ColumnMapping
from calibration.tables.prompts import count_prompt_tokens, read_prompts
from calibration.tables.rows import UNTRUSTED_METHODS, MeasuredRows, read_rows
from gateway import profile, tokens
from gateway.profile import CostProfile, ModelProfile
from gateway.scheduling.cost import COST_FLOOR, CostQuantity, RegressionForm
from gateway.scheduling.decide import DEFAULT_POLICY
from gateway.scheduling.decision import METRICS, MetricWeights

Told = Callable[[str], None]

BUILT_IN = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Tokens in of the prompts where no file of them is given."""
LENGTHS = ("32:45", "512:128", "2048:512")
WEIGHTS = ("0.5,0.3,0.2", "0.8,0.1,0.1", "1,1,1")
_LARGEST = 10_000_000
_MOST_PANELS = 4


@dataclass(frozen=True, slots=True)
class MeasuredCosts:
    """One cost of one model as measured (y) and as predicted, row by row."""

    model: str
    quantity: CostQuantity
    y: Floats
    predicted: Floats
    tokens_in: Floats
    tokens_out: Floats
    running: Floats
    """Other requests there meanwhile; NaN where the row does not say."""
    by: str
    """Source of the prediction: the profile, or a fit to the same rows."""


@dataclass(slots=True)
class PlotData:
    """All inputs of the figures."""

    profile: CostProfile
    origin: str
    running: int
    lengths: list[tuple[int, int]]
    weights: list[MetricWeights]
    prompts: dict[int, int]
    """Tokens in -> number of prompts of that length."""
    prompts_from: str
    rows: MeasuredRows | None = None
    fits: dict[str, fit.ModelFit] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    accuracy: AccuracyReport | None = None

    @property
    def model_names(self) -> list[str]:
        """Models of the profile, then those only in the rows."""
        more = self.rows.model_names if self.rows else []
        return list(dict.fromkeys([*self.profile.models, *more]))

    def get_model_style(self, name: str) -> style.ModelStyle:
        """Return a model's style, the same in all figures."""
        return style.get_model_style(self.model_names.index(name))

    def price_request(
        self, length: tuple[int, int | None], policy: str = DEFAULT_POLICY
    ) -> choices.PricedModels:
        """Return each model's cost of a request of (tokens in, tokens out), by the scheduler."""
        options = [choices.build_option(name, one) for name, one in self.profile.models.items()]
        return choices.price_models(options, *length, policy=policy, running=self.running)

    def collect_measured(self, quantity: CostQuantity) -> list[MeasuredCosts]:
        """Return the usable rows with their predictions, for each model that has any."""
        found: list[MeasuredCosts] = []
        if self.rows is None:
            return found
        for name in self.model_names:
            frame = select_measured_rows(self.rows.select_usable(name), quantity)
            how = self._find_predictor(name, quantity)
            if len(frame) and how is not None:
                form, coefficients, by = how
                running = frame["running"].to_numpy(dtype=float)
                frame = frame.assign(running=frame["running"].fillna(0.0))
                raw = design.build_design_matrix(form, quantity, frame) @ coefficients
                found.append(
                    MeasuredCosts(
                        name,
                        quantity,
                        frame[quantity.value].to_numpy(dtype=float),
                        np.maximum(raw, COST_FLOOR),
                        frame["tokens_in"].to_numpy(dtype=float),
                        frame["tokens_out"].to_numpy(dtype=float),
                        running,
                        by,
                    )
                )
        return found

    def find_fit(self, name: str, quantity: CostQuantity) -> CostFit | None:
        """Return the fit to the rows, where there is one."""
        one = self.fits.get(name)
        if one is None:
            return None
        return one.seconds if quantity is CostQuantity.SECONDS else one.joules

    def _find_predictor(
        self, name: str, quantity: CostQuantity
    ) -> tuple[RegressionForm, Floats, str] | None:
        if name in self.profile.models:
            cost = select_regression(self.profile.models[name], quantity)
            return cost.form, np.array(cost.coefficients), "the profile"
        own = self.find_fit(name, quantity)
        return (own.form, own.fitted.coefficients, "a fit to these rows") if own else None


def select_regression(model: ModelProfile, quantity: CostQuantity) -> profile.CostRegression:
    """Return one of the two costs of a profile's model."""
    return model.seconds if quantity is CostQuantity.SECONDS else model.joules


def select_measured_rows(frame: pd.DataFrame, quantity: CostQuantity) -> pd.DataFrame:
    """Return the rows whose cost was measured."""
    if quantity is CostQuantity.SECONDS:
        return frame
    return frame[frame["joules"].notna() & ~frame["method"].isin(list(UNTRUSTED_METHODS))]


def load_plot_data(sources: PlotSources, told: Told = lambda _: None) -> PlotData:
    """Read all inputs. Raises BadInput, ProfileError, PromptFileError and OSError."""
    lengths = [_parse_length(text) for text in sources.length or LENGTHS]
    weights = [_parse_weights(text) for text in sources.weights or WEIGHTS]
    for given, option in ((lengths, "--length"), (weights, "--weights")):
        if len(given) > _MOST_PANELS:
            raise BadInput(f"{option}: {len(given)} given, at most {_MOST_PANELS} fit a picture")
    loaded = profile.load_profile(sources.profile)
    told("counting prompts")
    counts, came = _count_prompt_lengths(sources)
    found = PlotData(
        profile=loaded,
        origin=str(sources.profile) if sources.profile else "the shipped profile",
        running=sources.running,
        lengths=lengths,
        weights=weights,
        prompts=counts,
        prompts_from=came,
        accuracy=None if sources.accuracy is None else read_accuracy_report(sources.accuracy),
    )
    if sources.rows:
        _add_rows(found, sources, told)
    if len(loaded.models) == 1:
        only = next(iter(loaded.models))
        found.notes.append(f"The profile has one model, {only}: it wins everywhere.")
    return found


def compute_sha256(path: Path) -> str:
    """Return a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _add_rows(found: PlotData, sources: PlotSources, told: Told) -> None:
    columns = ColumnMapping.from_options(
        sources.col,
        sources.scale,
        sources.where,
        sources.model,
        output_includes_prompt=sources.output_includes_prompt,
    )
    told("reading rows")
    read = read_rows(sources.rows, columns)
    bad = read.count_unusable()
    count, total = sum(one.count for one in bad), len(read.frame)
    reasons = "; ".join(f"{one.count}: {one.reason} (first: {one.first})" for one in bad)
    if count > sources.max_bad * total or count == total:
        raise BadInput(
            f"{count} of {total} rows cannot be used, more than {sources.max_bad:.1%}: {reasons}; "
            "are the columns right (--col)? else fix them, or raise --max-bad"
        )
    if bad:
        found.notes.append(f"Rows that were not used: {reasons}.")
    found.notes += [f"{note[0].upper()}{note[1:]}." for note in read.notes]
    found.rows = read
    for name in read.model_names:
        told(f"fitting {name}")
        try:
            found.fits[name] = fit.fit_model(read, name)
        except BadInput as error:
            found.notes.append(f"Not fitted: {error}.")
        if not len(select_measured_rows(read.select_usable(name), CostQuantity.JOULES)):
            found.notes.append(f"No measured joules in the rows of {name}.")
        if name not in found.profile.models:
            have = ", ".join(found.profile.models)
            found.notes.append(
                f"The rows' model {name} is not in the profile (it has: {have}): its predictions "
                f"are those of a fit to its own rows. If it is one of them: --model NAME={name}."
            )
    found.notes += [
        f"No rows of {name}: what is shown of it is what the profile says."
        for name in found.profile.models
        if name not in read.model_names
    ]


def _count_prompt_lengths(sources: PlotSources) -> tuple[dict[int, int], str]:
    if sources.prompts is None:
        return dict.fromkeys(BUILT_IN, 1), (
            f"{len(BUILT_IN)} built-in lengths, {BUILT_IN[0]} to {BUILT_IN[-1]} tokens in, one each"
        )
    texts = read_prompts(sources.prompts, sources.prompt_column)
    counter = tokens.load_token_counter()
    counts = Counter(count_prompt_tokens(counter, text) for text in texts)
    return dict(sorted(counts.items())), (
        f"{len(texts):,} prompts of {sources.prompts.name}, "
        f"{min(counts)} to {max(counts)} tokens in"
    )


def _parse_length(text: str) -> tuple[int, int]:
    left, _, right = text.partition(":")
    try:
        found = int(left), int(right)
    except ValueError:
        found = 0, 0
    if not all(1 <= one <= _LARGEST for one in found):
        raise BadInput(f"--length {text}: want IN:OUT, two numbers of tokens, as 512:128")
    return found


def _parse_weights(text: str) -> MetricWeights:
    try:
        accuracy, energy, time = map(float, _split_weights(text))
        return MetricWeights.from_values(accuracy, energy, time)
    except ValueError as error:
        why = str(error) if str(error).startswith("weights") else "want ACCURACY,ENERGY,TIME"
        raise BadInput(f"--weights {text}: {why}, as 0.5,0.3,0.2") from None


def _split_weights(text: str) -> Sequence[str]:
    parts = text.split(",")
    if len(parts) != len(METRICS):
        raise ValueError
    return parts
