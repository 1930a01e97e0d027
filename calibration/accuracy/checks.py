"""What the options of `joulegate accuracy` must be to make sense, and what they amount to."""

import os
from math import isfinite
from pathlib import Path
from typing import Any, Final

import msgspec

from calibration.accuracy import graded_run as exam
from calibration.accuracy import labels
from calibration.accuracy.grading import QuestionKind
from calibration.accuracy.options import AccuracyOptions
from calibration.accuracy.scores import OVERALL_CHOICES
from calibration.endpoint.server import TargetError, TargetServer
from calibration.tables import records as table
from calibration.tables.columns import BadInput, check_choice
from gateway import profile
from gateway.profile import SHIPPED, CostProfile

SOURCES: Final = ("scores", "labels", "questions", "lm-eval")
_SAMPLED_TEMPERATURE: Final = 0.7
_MAX_COUNT: Final = 4096


def load_existing_profile(options: AccuracyOptions) -> CostProfile:
    """Return the profile to change. Raises ProfileError, BadInput."""
    check_choice(options.overall, "--overall", OVERALL_CHOICES)
    check_choice(options.score, "--score", (exam.MEAN, exam.MAJORITY))
    check_choice(options.api, "--api", tuple(exam.API_PATHS))
    if options.kind is not None:
        check_choice(options.kind, "--kind", tuple(QuestionKind))
    out = options.out
    if out is not None:
        if out.exists() and options.file.exists() and out.samefile(options.file):
            raise BadInput(f"--out {out}: is the file to read")
        if not out.parent.is_dir():
            raise BadInput(f"--out {out}: there is no directory {out.parent}")
        if out.is_dir():
            raise BadInput(f"--out {out}: is a directory")
    if options.profile == SHIPPED:
        old = profile.load_profile(None)
    elif options.profile is not None:
        old = profile.load_profile(Path(options.profile))
    else:
        old = profile.load_profile(out if out is not None and out.exists() else None)
    if out is not None and out.exists():
        profile.load_profile(out)  # whatever else it is, or a newer version's, is not overwritten
    return old


def detect_source(options: AccuracyOptions) -> str:
    """Return which kind of file it is: as said, or as its content tells. Raises BadInput."""
    if options.source is not None:
        return check_choice(options.source, "--from", SOURCES)
    if options.backend:
        return "questions"
    if options.label_columns is not None:
        return "labels"
    opening = table.read_first_character(options.file)
    if opening == "{" and b'"results"' in table.read_raw_bytes(options.file)[: 1 << 20]:
        try:
            whole = msgspec.json.decode(table.read_raw_bytes(options.file), type=dict[str, Any])
        except msgspec.MsgspecError:
            whole = {}
        if isinstance(whole.get("results"), dict):
            return "lm-eval"
    header = table.read_table(options.file).header
    for column, kind in (("accuracy", "scores"), ("correct", "labels"), ("answer", "questions")):
        if column in header:
            return kind
    raise BadInput(
        f"{options.file}: it has: {', '.join(header[:12])}; want accuracy (scores), correct "
        "(labels), columns of labels (--label-columns A,B), or answer (questions, with --backend)"
    )


def parse_targets(options: AccuracyOptions) -> list[tuple[TargetServer, str | None]]:
    """Return the backends to ask, with their key. Raises BadInput."""
    key = None
    if options.api_key_env is not None:
        key = os.environ.get(options.api_key_env)
        if not key:
            raise BadInput(f"--api-key-env: {options.api_key_env} is not set")
    found = []
    for text in options.backend:
        name, equals, url = text.partition("=")
        if not (name and equals and url):
            raise BadInput(f"--backend {text}: want MODEL=URL, as in phi-3-mini=http://host:8000")
        try:
            found.append((TargetServer(name, url, key), key))
        except TargetError as error:
            raise BadInput(f"--backend {text}: {error}") from None
    if not found:
        raise BadInput("questions need models to ask: --backend MODEL=URL, as often as needed")
    if len({target.name for target, _ in found}) < len(found):
        raise BadInput("--backend: a model can be named once only")
    return found


def build_settings(options: AccuracyOptions) -> exam.GradedRunSettings:
    """Return how to ask. Raises BadInput."""
    temperature = options.temperature
    if temperature is None:
        temperature = _SAMPLED_TEMPERATURE if options.samples > 1 else 0.0
    if not (isfinite(temperature) and temperature >= 0.0):
        raise BadInput(f"--temperature {temperature}: want a number of 0 or more")
    if options.samples > 1 and temperature == 0.0:
        raise BadInput("--samples: at temperature 0 all samples are the same; raise --temperature")
    for option, value in (("--samples", options.samples), ("--concurrency", options.concurrency)):
        if not 1 <= value <= _MAX_COUNT:
            raise BadInput(f"{option} {value}: want 1 to {_MAX_COUNT}")
    return exam.GradedRunSettings(
        samples=options.samples,
        temperature=temperature,
        max_tokens=options.max_tokens,
        seed=options.seed,
        api=options.api,
        suffix=options.suffix,
        system=options.system,
        body=_parse_body(options.body),
        concurrency=options.concurrency,
        score=options.score,
    )


def choose_results_path(options: AccuracyOptions) -> Path:
    """Return the results file: --results, else beside the questions. Raises BadInput."""
    path = options.results or Path(f"{options.file.name.split('.')[0]}.answers.jsonl")
    if path.exists() and options.file.exists() and path.samefile(options.file):
        raise BadInput(f"--results {path}: is the file of questions")
    return path


def read_label_columns(options: AccuracyOptions) -> dict[str, str] | None:
    """Return the columns of labels by model; None for a long file."""
    return (
        None if options.label_columns is None else labels.parse_label_columns(options.label_columns)
    )


def _parse_body(text: str | None) -> dict[str, Any]:
    try:
        return {} if text is None else msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise BadInput(f"--body {text}: not a JSON object: {error}") from None
