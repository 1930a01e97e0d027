"""Finished requests as data: sums for the next refit, and the drift of both profiles.

A cost is compared at the tokens that there really were, so that an answer of another length than
expected counts against the expected length alone. The shadow profile predicts here and decides
nothing.
"""

from typing import NamedTuple

from gateway.scheduling.decide import DeploymentOption
from gateway.scheduling.regression_terms import WeighedPrediction
from gateway.service.request.profiles import ActiveProfiles
from gateway.telemetry.drift import JOULES, LIVE, OUTPUT_TOKENS, SECONDS, SHADOW, DriftMetrics
from gateway.telemetry.ols_sums import OlsSums
from gateway.telemetry.record import ProfilePrediction, RequestRecord
from gateway.telemetry.sums_row import SumsRow

_OK = 200
_MICRO = 1_000_000
_LEARNT_FROM = ("exclusive", "apportioned")


class ResponseRow(NamedTuple):
    """A complete response as a row of a regression."""

    tokens_in: int
    tokens_out: int
    seconds: float
    joules: float | None
    """Only what was measured for it alone."""


class TrafficLearner:
    """Adds each final request to the sums and the drift metrics."""

    def __init__(self, sums: OlsSums, drift: DriftMetrics, profiles: ActiveProfiles) -> None:
        self.drift = drift
        self._sums = sums
        self._profiles = profiles

    def learn_from(self, record: RequestRecord) -> None:
        """Add one request, its joules final; one without a complete response is skipped."""
        row = _extract_row(record)
        if row is None or record.option is None:
            return
        option = record.option
        asked = record.asked_tokens
        truncated = row.tokens_in + row.tokens_out >= option.context or (
            asked is not None and row.tokens_out >= asked
        )
        running = record.running if record.mean_running is None else record.mean_running
        cached = min(row.tokens_in, record.cached_tokens or 0)
        lengths = (row.tokens_in, row.tokens_out, running, cached)
        self._sums.add_row(
            record.model,
            record.deployment,
            SumsRow(
                tokens_in=row.tokens_in,
                tokens_out=row.tokens_out,
                cached_tokens=cached,
                running=running,
                microseconds=round(row.seconds * _MICRO),
                microjoules=None if row.joules is None else round(row.joules * _MICRO),
                estimated_tokens=record.counted_tokens,
                truncated=truncated,
                seconds=WeighedPrediction.of(option.seconds, *lengths),
                joules=WeighedPrediction.of(option.joules, *lengths),
            ),
        )
        if record.decision is not None:
            version = record.decision.profile_version
            record.live = self._compare_prediction(
                record, row, option, LIVE, version, truncated=truncated
            )
        shadow = self._profiles.shadow
        if shadow is not None:
            option = shadow.by_name[record.model, record.deployment].option
            version = shadow.profile.version
            record.shadow = self._compare_prediction(
                record, row, option, SHADOW, version, truncated=truncated
            )

    def _compare_prediction(
        self,
        record: RequestRecord,
        row: ResponseRow,
        option: DeploymentOption,
        profile: str,
        version: str,
        *,
        truncated: bool,
    ) -> ProfilePrediction:
        counted = record.counted_tokens
        tokens_in = row.tokens_in if counted is None else max(1, round(counted * option.ratio))
        asked, room = record.asked_tokens, option.context - tokens_in
        expected = ProfilePrediction(
            version,
            option.seconds.predict_cost(row.tokens_in, row.tokens_out, record.running),
            option.joules.predict_cost(row.tokens_in, row.tokens_out, record.running),
            option.output.predict_output_tokens(
                tokens_in, room if asked is None else min(asked, room)
            ),
        )
        if version != self._get_version_in_force(profile):
            return expected  # decided by one that has been replaced; its bias is not the new one's
        add = self.drift.add_comparison
        add(record.model, profile, SECONDS, expected.seconds, row.seconds)
        if row.joules is not None:
            add(record.model, profile, JOULES, expected.joules, row.joules)
        if not truncated:
            add(record.model, profile, OUTPUT_TOKENS, expected.output_tokens, row.tokens_out)
        return expected

    def _get_version_in_force(self, profile: str) -> str | None:
        snapshot = self._profiles.shadow if profile == SHADOW else self._profiles.live
        return None if snapshot is None else snapshot.profile.version


def _extract_row(record: RequestRecord) -> ResponseRow | None:
    """Return the row of a complete response, or None."""
    if record.code != _OK or not record.single:
        return None
    if not record.prompt_tokens or not record.completion_tokens:
        return None
    if record.serving_seconds is None:
        return None
    measured = record.method in _LEARNT_FROM
    return ResponseRow(
        record.prompt_tokens,
        record.completion_tokens,
        record.serving_seconds,
        record.joules if measured else None,
    )
