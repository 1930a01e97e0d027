"""What Prometheus answers to an instant query: the samples, or why there are none."""

from http import HTTPStatus

import msgspec

from backends.sse import UNREADABLE


class PrometheusReplyError(Exception):
    """No samples came; the message says what came instead."""


class PrometheusSample(msgspec.Struct):
    """One series at the moment asked for: its labels; Unix time and the value as text."""

    metric: dict[str, str]
    value: tuple[float, str]


class _QueryData(msgspec.Struct):
    result: list[PrometheusSample]


class _QueryReply(msgspec.Struct):
    status: str
    data: _QueryData | None = None
    error: str = ""


def parse_samples(status: int, page: bytes) -> list[PrometheusSample]:
    """Return the samples of a reply by its HTTP status and body. Raises PrometheusReplyError."""
    try:
        reply = msgspec.json.decode(page, type=_QueryReply)
    except UNREADABLE:
        reply = _QueryReply("error", error="no answer of Prometheus's API")
    if status != HTTPStatus.OK or reply.status != "success" or reply.data is None:
        raise PrometheusReplyError(f"Prometheus says {status}: {reply.error}")
    return reply.data.result
