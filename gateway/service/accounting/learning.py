"""Finished requests as data: sums for the next refit, and the drift of both profiles.

A cost is compared at the tokens that there really were, so that an answer of another length than
expected counts against the expected length alone. The shadow profile predicts here and decides
nothing.
"""

import time
from http import HTTPStatus

from msgspec import Struct

from backends.meter.method import MEASURED_METHODS
from gateway.scheduling.decide import DeploymentOption
from gateway.scheduling.regression_terms import WeighedPrediction
from gateway.service.request.learnt import Learnt
from gateway.service.request.profiles import ActiveProfiles
from gateway.telemetry.drift import JOULES, LIVE, OUTPUT_TOKENS, SECONDS, SHADOW, DriftMetrics
from gateway.telemetry.ols_sums import OlsSums
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_stages import (
    AnsweredRequest,
    ComparedPredictions,
    PlannedRequest,
    ProfilePrediction,
)
from gateway.telemetry.sums_row import SumsRow

_MICRO = 1_000_000
_OK = HTTPStatus.OK.value


class ResponseRow(Struct, frozen=True):
    """A complete response as a row of a regression."""

    tokens_in: int
    cached_tokens: int
    tokens_out: int
    seconds: float
    joules: float | None
    """Only what was measured for it alone."""
    running: float
    """Mean number of other requests there meanwhile."""
    harmonic_running: float
    """Harmonic mean of all that were there, less 1."""


class TrafficLearner:
    """Adds each final request to the sums and the drift metrics."""

    def __init__(
        self,
        sums: OlsSums,
        drift: DriftMetrics,
        profiles: ActiveProfiles,
        learnt: Learnt | None = None,
    ) -> None:
        self.learnt = learnt
        self.drift = drift
        self._sums = sums
        self._profiles = profiles

    def note_prefix(self, record: RequestRecord) -> None:
        """Note what the backend of a whole answer had, and has now, in its prefix cache."""
        served, answered, planned = record.served, record.answered, record.planned
        if self.learnt is None or answered is None or planned is None or planned.lesson is None:
            return
        if record.outcome.code != _OK or not served.prompt_tokens:
            return
        single = planned.sequences.total == 1
        self.learnt.observe_prefix(
            ((answered.model, answered.deployment), answered.backend),
            planned.lesson,
            prompt_tokens=served.prompt_tokens,
            completion_tokens=(served.completion_tokens or 0) if single else 0,
            cached_tokens=served.cached_tokens or 0,
            at_seconds=time.monotonic(),
        )

    def learn_from(self, record: RequestRecord) -> None:
        """Add one request, its joules final; one without a complete response is skipped."""
        row = _extract_row(record)
        answered, planned = record.answered, record.planned
        if row is None or answered is None or answered.option is None:
            return
        option = answered.option
        asked = None if planned is None else planned.asked_tokens
        truncated = row.tokens_in + row.tokens_out >= option.context or (
            asked is not None and row.tokens_out >= asked
        )
        lengths = (row.tokens_in, row.tokens_out)
        lesson = None if planned is None else planned.lesson
        media = lesson is not None and lesson.has_media
        self._sums.add_row(
            answered.model,
            answered.deployment,
            SumsRow(
                tokens_in=row.tokens_in,
                tokens_out=row.tokens_out,
                cached_tokens=row.cached_tokens,
                running=row.running,
                microseconds=round(row.seconds * _MICRO),
                microjoules=None if row.joules is None else round(row.joules * _MICRO),
                estimated_tokens=None if planned is None or media else planned.counted_tokens,
                truncated=truncated,
                seconds=WeighedPrediction.of(
                    option.seconds, *lengths, row.running, row.cached_tokens
                ),
                joules=WeighedPrediction.of(
                    option.joules, *lengths, row.harmonic_running, row.cached_tokens
                ),
                harmonic_running=row.harmonic_running,
                dense_chars=0 if lesson is None else lesson.dense_chars,
            ),
        )
        if self.learnt is not None and planned is not None and planned.lesson is not None:
            self.learnt.observe(
                option,
                planned.lesson,
                prompt_tokens=row.tokens_in,
                completion_tokens=row.tokens_out,
                cut=truncated,
                at_seconds=record.received.at,
            )
        live = shadowed = None
        if planned is not None:
            version = planned.decision.profile_version
            live = self._compare_prediction(
                answered, planned, row, option, LIVE, version, truncated=truncated
            )
        shadow = self._profiles.shadow
        # One that has left the configuration meanwhile has no place there.
        if shadow is not None and (answered.model, answered.deployment) in shadow.by_name:
            option = shadow.by_name[answered.model, answered.deployment].option
            version = shadow.profile.version
            shadowed = self._compare_prediction(
                answered, planned, row, option, SHADOW, version, truncated=truncated
            )
        record.compared = ComparedPredictions(live, shadowed)

    def _compare_prediction(
        self,
        answered: AnsweredRequest,
        planned: PlannedRequest | None,
        row: ResponseRow,
        option: DeploymentOption,
        profile: str,
        version: str,
        *,
        truncated: bool,
    ) -> ProfilePrediction:
        tokens_in, asked = row.tokens_in, None
        if planned is not None:
            asked = planned.asked_tokens
            if planned.counted_tokens is not None:
                dense_chars = 0 if planned.lesson is None else planned.lesson.dense_chars
                tokens_in = option.scale.estimate(planned.counted_tokens, dense_chars)
        room = option.context - tokens_in
        lengths = (row.tokens_in, row.tokens_out, answered.running, row.cached_tokens)
        expected = ProfilePrediction(
            version,
            option.seconds.predict_cost(*lengths),
            option.joules.predict_cost(*lengths),
            option.output.predict_output_tokens(
                tokens_in, room if asked is None else min(asked, room)
            ),
        )
        if version != self._get_version_in_force(profile):
            return expected  # decided by one that has been replaced; its bias is not the new one's
        add = self.drift.add_comparison
        add(answered.model, profile, SECONDS, expected.seconds, row.seconds, row.running)
        if row.joules is not None:
            add(answered.model, profile, JOULES, expected.joules, row.joules, row.running)
        if not truncated:
            add(answered.model, profile, OUTPUT_TOKENS, expected.output_tokens, row.tokens_out)
        return expected

    def _get_version_in_force(self, profile: str) -> str | None:
        snapshot = self._profiles.shadow if profile == SHADOW else self._profiles.live
        return None if snapshot is None else snapshot.profile.version


def _extract_row(record: RequestRecord) -> ResponseRow | None:
    """Return the row of a complete response, or None."""
    served, settled = record.served, record.settled
    planned = record.planned
    if record.outcome.code != _OK or (planned is not None and planned.sequences.total > 1):
        return None
    if not served.prompt_tokens or not served.completion_tokens:
        return None
    if served.serving_seconds is None or record.answered is None:
        return None
    return ResponseRow(
        served.prompt_tokens,
        min(served.prompt_tokens, served.cached_tokens or 0),
        served.completion_tokens,
        served.serving_seconds,
        settled.joules if settled is not None and settled.method in MEASURED_METHODS else None,
        record.answered.running if served.mean_running is None else served.mean_running,
        record.answered.running if served.harmonic_running is None else served.harmonic_running,
    )
