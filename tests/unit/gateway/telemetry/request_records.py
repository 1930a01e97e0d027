"""Records for tests, from plain values: each goes into the stage that holds it."""

from gateway.scheduling.sequences import SINGLE
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_stages import (
    AnsweredRequest,
    ClientOutcome,
    ParsedRequest,
    PlannedRequest,
    ReceivedRequest,
    RequestedName,
    RequestEnergy,
    ServedRequest,
)

_ANSWERED = {
    "deployment", "option", "running", "predicted_seconds", "predicted_joules",
    "predicted_ttft_seconds", "predicted_tpot_seconds",
}  # fmt: skip
_SERVED = {
    "prompt_tokens", "completion_tokens", "cached_tokens", "ttft_seconds", "serving_seconds",
    "mean_running", "harmonic_running",
}  # fmt: skip


def make_record(
    id="r",  # noqa: A002
    at=1.0,
    kind="chat",
    requested="auto",
    preset="default",
    stream=False,
    **given,
):
    """A record at its end: `joules` and `method` are settled, `estimated` joules are not yet."""
    record = RequestRecord(
        ReceivedRequest(id, at, kind),
        RequestedName(requested, preset, given.pop("arm", None)),
        given.pop("trace", None),
    )

    def take(names):
        return {name: given.pop(name) for name in names & given.keys()}

    record.parsed = ParsedRequest(stream)
    decision, seconds = given.pop("decision", None), given.pop("decision_seconds", 0.0)
    counted, asked = given.pop("counted_tokens", None), given.pop("asked_tokens", None)
    sequences, lesson = given.pop("sequences", SINGLE), given.pop("lesson", None)
    if decision is not None:
        record.planned = PlannedRequest(decision, seconds, counted, asked, lesson, sequences)
    answered = take(_ANSWERED)
    model, backend = given.pop("model", ""), given.pop("backend", "")
    if model or backend:
        record.answered = AnsweredRequest(
            model, answered.pop("deployment", ""), backend, **answered
        )
    record.served = ServedRequest(**take(_SERVED), estimated_joules=given.pop("estimated", None))
    record.outcome = ClientOutcome(given.pop("code", 0), given.pop("error", None))
    if "joules" in given:
        record.settled = RequestEnergy(
            given.pop("joules"), given.pop("method"), co2e_grams=given.pop("co2e_grams", None)
        )
    for name in ("seconds", "attempts", "wasted"):
        if name in given:
            setattr(record, name, given.pop(name))
    assert not given, f"no stage holds {sorted(given)}"
    return record
