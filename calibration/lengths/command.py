"""`joulegate lengths train | predict`: answer lengths from the words of a prompt."""

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from calibration.lengths.labelled_prompts import read_prompts
from calibration.lengths.options import TrainLengthsOptions
from calibration.lengths.train import WordsFit, train_lengths
from calibration.tables.columns import BadInput
from calibration.tables.labelled_rows import read_labels
from calibration.tables.predictions import PredictOptions, write_predictions
from gateway import console, profile
from gateway.profile import ModelProfile, OutputCoefficients, ProfileError
from gateway.scheduling.length_words import LengthWords
from gateway.scheduling.text_features import extract_text_features

_P90 = 0.9


def train(options: TrainLengthsOptions) -> int:
    """Train a model of the words per label, and write a profile that holds them."""
    try:
        loaded = profile.load_profile(options.merge)
        wanted = read_labels(options.label)
        fits = _train(options.files, options.prompt, wanted)
        models = {
            name: _with_output(model, fits.get(name)) for name, model in loaded.models.items()
        }
        lengths = {**loaded.lengths, **{name: fit.regression for name, fit in fits.items()}}
        profile.save_profile(models, options.out, lengths, loaded.accuracy_by_prompt)
    except (BadInput, ProfileError, ValueError) as error:
        return console.report_usage_error(error)
    except OSError as error:
        return console.report_usage_error(console.format_os_error(error))
    shown = {
        name: {
            "n": fit.regression.n,
            "r2": fit.r2,
            "absolute_error": fit.absolute_error,
            "absolute_error_of_the_median": fit.median_error,
            "median_tokens": math.exp(fit.regression.bias),
            "sigma": fit.regression.sigma,
            "has_costs": name in models,
        }
        for name, fit in fits.items()
    }
    if options.as_json:
        console.print_json({"out": str(options.out), "models": shown}, line=True)
        return console.OK
    for name, one in shown.items():
        console.out.print(
            f"{name}: {one['n']} answers, R2 of log {one['r2']:.3f}, absolute error of log "
            f"{one['absolute_error']:.3f}, each answer left out in turn (a constant median's: "
            f"{one['absolute_error_of_the_median']:.3f})",
            markup=False,
        )
        if not one["has_costs"]:
            console.out.print(f"{name}: the profile has no costs of it; only `predict` uses this")
    console.out.print(f"wrote {options.out}", markup=False)
    return console.OK


def predict(options: PredictOptions) -> int:
    """Write each prompt's predicted lengths, by the code that serves."""
    try:
        loaded = profile.load_profile(options.profile)
        if not loaded.lengths:
            raise BadInput(f"{options.profile}: no lengths were trained in it")  # noqa: TRY301
        prompts = read_prompts(options.file, options.prompt, {}).prompts
        models = {name: one.model() for name, one in loaded.lengths.items()}
        rows = [_row(text, models) for text in prompts]
        columns = [f"{name}_{part}" for name in models for part in ("p50", "p90")]
        write_predictions(options.out, columns, rows)
    except (BadInput, ProfileError) as error:
        return console.report_usage_error(error)
    except OSError as error:
        return console.report_usage_error(console.format_os_error(error))
    return console.OK


def _train(files: Sequence[Path], prompt: str, labels: dict[str, str]) -> dict[str, WordsFit]:
    if not labels:
        raise BadInput("nothing to train: give --label MODEL=COLUMN")
    read = [read_prompts(path, prompt, labels) for path in files]
    fits = {}
    for model, column in labels.items():
        pairs = [
            (text, count)
            for one in read
            for text, count in zip(one.prompts, one.tokens[model], strict=True)
            if count is not None
        ]
        try:
            fits[model] = train_lengths([text for text, _ in pairs], [count for _, count in pairs])
        except ValueError as error:
            raise BadInput(f"--label {model}={column}: {error}") from None
    return fits


def _with_output(model: ModelProfile, fit: WordsFit | None) -> ModelProfile:
    """Return a profile's model with the trained centre as its distribution without words."""
    if fit is None:
        return model
    learnt = fit.regression
    output = OutputCoefficients(
        form="lognormal", mu=learnt.bias, sigma=learnt.sigma, n=learnt.n, censored=0
    )
    return msgspec.structs.replace(model, output=output)


def _row(text: str, models: dict[str, LengthWords]) -> list[str]:
    features = extract_text_features(text)
    found: list[str] = []
    for model in models.values():
        length = model.predict(features)
        found += [f"{length.find_quantile(share, 1.0, math.inf):.1f}" for share in (0.5, _P90)]
    return found
