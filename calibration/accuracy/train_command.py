"""`joulegate accuracy train | predict`: accuracy by prompt from labels, and tried out."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from calibration.accuracy.feedback_log import read_feedback
from calibration.accuracy.joint_calibration import CALIBRATIONS
from calibration.accuracy.judged import judge_predictions
from calibration.accuracy.labelled_scores import LabelledScores, read_scores, read_texts
from calibration.accuracy.options import TrainOptions
from calibration.accuracy.train import FORMS, TrainedAccuracy, train_accuracy
from calibration.arrays import Floats
from calibration.progress_bar import create_progress_bar
from calibration.tables.columns import BadInput, check_choice
from calibration.tables.labelled_rows import read_labels
from calibration.tables.predictions import PredictOptions, write_predictions
from gateway import console, profile
from gateway.profile import AccuracyProfile, CostProfile, ModelProfile, ProfileError
from gateway.scheduling.cost import CostQuantity
from gateway.scheduling.text_features import extract_text_features

AUTO = "auto"
_USUAL_TOKENS = (150.0, 200.0)
_UNKNOWN_RATIO = 4.0


def train(options: TrainOptions) -> int:
    """Train heads and write a profile that holds them; return the exit code."""
    try:
        check_choice(options.form, "--form", (AUTO, *FORMS))
        check_choice(options.calibration, "--calibration", (AUTO, *CALIBRATIONS))
        loaded = profile.load_profile(options.merge)
        labels = read_labels(options.label)
        if options.from_log:
            rows = read_feedback(options.files)
        else:
            rows = read_scores(options.files, options.prompt, labels, options.task)
        costs = _read_costs(options.cost, rows.models, loaded, rows.scores)
        trained = _train(rows, options)
        report = judge_predictions(trained, rows.scores, rows.models, costs, rows.tasks)
        heads = {
            name: msgspec.structs.replace(head, ece=report["models"][name]["ece"])
            for name, head in trained.model.heads.items()
        }
        model = msgspec.structs.replace(trained.model, heads=heads)
        models = {name: _with_share(one, name, rows) for name, one in loaded.models.items()}
        profile.save_profile(models, options.out, loaded.lengths, model)
    except (BadInput, ProfileError, ValueError) as error:
        return console.report_usage_error(error)
    except OSError as error:
        return console.report_usage_error(console.format_os_error(error))
    shown = {
        "out": str(options.out),
        "rows": len(rows.prompts),
        "form": model.make().form,
        "mix": model.mix,
        "penalty": trained.penalty,
        "sharpness": trained.sharpness,
        "calibration": trained.calibrations,
        "kinds": None if model.kinds is None else len(model.kinds.names),
        **report,
    }
    if options.report is not None:
        options.report.write_bytes(msgspec.json.format(msgspec.json.encode(shown), indent=2))
    if options.as_json:
        console.print_json(shown, line=True)
    else:
        _print_report(shown, loaded)
    return console.OK


def predict(options: PredictOptions) -> int:
    """Write each prompt's chance per model, by the code that serves; return the exit code."""
    try:
        loaded = profile.load_profile(options.profile)
        model, given = loaded.prompt_accuracy, loaded.accuracy_by_prompt
        if model is None or given is None:
            raise BadInput(f"{options.profile}: no accuracy by prompt was trained in it")  # noqa: TRY301
        names = list(model.heads)
        statics = {
            name: loaded.models[name].accuracy.default
            if name in loaded.models
            else given.heads[name].static
            for name in names
        }
        rows = []
        for text in read_texts(options.file, options.prompt):
            reading = model.read(extract_text_features(text))
            rows.append(
                [f"{model.predict(name, reading, statics[name]).value:.6f}" for name in names]
            )
        write_predictions(options.out, names, rows)
    except (BadInput, ProfileError) as error:
        return console.report_usage_error(error)
    except OSError as error:
        return console.report_usage_error(console.format_os_error(error))
    return console.OK


def _train(rows: LabelledScores, options: TrainOptions) -> TrainedAccuracy:
    bar = create_progress_bar("{task.description}")
    with bar:
        task = bar.add_task("reading", total=None)

        def tell(what: str, at: int, of: int) -> None:
            bar.update(task, description=what, completed=at, total=of)

        return train_accuracy(
            rows.prompts,
            rows.scores,
            rows.models,
            rows.tasks,
            form=options.form,
            calibration=options.calibration,
            seed=options.seed,
            progress=tell,
        )


def _read_costs(
    texts: Sequence[str], models: Sequence[str], loaded: CostProfile, scores: Floats
) -> Floats:
    """Return a cost per model: as given, else the profile's joules, else 1 to 4 by accuracy."""
    given: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            given[name] = float(number)
        except ValueError:
            given[name] = 0.0
        if name not in models or not given[name] > 0.0:
            raise BadInput(f"--cost {text}: want MODEL=NUMBER, of a labelled model, above 0")
    if given:
        missing = [name for name in models if name not in given]
        if missing:
            raise BadInput(f"--cost: nothing is said of {', '.join(missing)}")
        return np.array([given[name] for name in models])
    if all(name in loaded.models for name in models):
        costs = [
            loaded.models[name].joules.to_cost_function(CostQuantity.JOULES) for name in models
        ]
        return np.array([cost.predict_cost(*_USUAL_TOKENS, 0) for cost in costs])
    rank = np.argsort(np.argsort(np.nanmean(scores, axis=0)))
    found: Floats = _UNKNOWN_RATIO ** (rank / max(1, len(models) - 1))
    return found


def _with_share(model: ModelProfile, name: str, rows: LabelledScores) -> ModelProfile:
    """Return a labelled model with its labels' share as its static one: heads fade into it."""
    if name not in rows.models:
        return model
    scores = rows.scores[:, rows.models.index(name)]
    asked = np.isfinite(scores)
    share = float(scores[asked].mean())
    told = f"joulegate accuracy train: {int(asked.sum())} labels, {share:.4f}"
    return msgspec.structs.replace(
        model,
        accuracy=AccuracyProfile(share, model.accuracy.tasks),
        provenance={**model.provenance, "accuracy": told},
    )


def _print_report(shown: dict[str, Any], loaded: CostProfile) -> None:
    say = console.out.print
    say(
        f"{shown['rows']} prompts, form {shown['form']}, penalty {shown['penalty']:g}", markup=False
    )
    for name, one in shown["models"].items():
        say(
            f"{name}: {one['n']} labels, share right {one['share']:.4f}, ECE {one['ece']:.4f}, "
            f"Brier {one['brier']:.4f} (the share's alone {one['brier_of_the_share']:.4f})",
            markup=False,
        )
        if name not in loaded.models:
            say(f"{name}: the profile has no costs of it; only `predict` uses this", markup=False)
    for group, one in shown["routing"].items():
        say(f"\n{group}: {one['n']} prompts, held out", markup=False)
        for name in ("trained", "task_table", "shuffled_mean_of_20", "random", "oracle"):
            found = one.get(name)
            if found is not None:
                rest = [f"{key} {found[key]:.3f}" for key in found if key not in ("apgr", "curve")]
                say(f"  {name}: APGR {found['apgr']:.4f}  {', '.join(rest)}", markup=False)
    say(f"\nwrote {shown['out']}", markup=False)
