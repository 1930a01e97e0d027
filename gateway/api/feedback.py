"""`POST /v1/feedback`: somebody's word on whether an answer was right."""

import time
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from gateway.api.incoming import RequestHead
from gateway.api.json_endpoint import make_json_handler
from gateway.config import TimeoutsConfig
from gateway.service.client.errors import BadRequest, NotFound
from gateway.service.pipeline import RequestPipeline
from gateway.service.request.body import encode_members
from gateway.service.request.members import Members
from gateway.telemetry.request_stages import RequestFeedback


class FeedbackBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Which request, and `score` from 0 to 1 or `correct`; `source` says who judged."""

    request_id: Annotated[str, Meta(min_length=1, max_length=128)]
    score: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    correct: bool | None = None
    source: Annotated[str, Meta(max_length=64)] = "user"

    def __post_init__(self) -> None:
        if (self.score is None) == (self.correct is None):
            raise ValueError("give one of `score` and `correct`")


def make_handler(gateway: RequestPipeline, timeouts: TimeoutsConfig) -> Any:
    """Make the route handler."""

    def note_feedback(head: RequestHead, members: Members) -> bytes:
        tenant = None if head.caller is None else head.caller.tenant
        found = _read_feedback(members, tenant)
        known = gateway.accounting.add_feedback(found)
        if not known and not gateway.accounting.keeps_log:
            raise NotFound(
                f"no recent request {found.id!r}, and no decision log to note it in",
                code="request_not_found",
            )
        return msgspec.json.encode({"id": found.id, "score": found.score, "known": known})

    return make_json_handler("/v1/feedback", "feedback", note_feedback, gateway, timeouts)


def _read_feedback(members: Members, tenant: str | None) -> RequestFeedback:
    """Return what was sent. Raises BadRequest."""
    try:
        body = msgspec.json.decode(encode_members(members), type=FeedbackBody)
    except msgspec.MsgspecError as error:
        raise BadRequest(str(error)) from None
    score = body.score if body.score is not None else float(bool(body.correct))
    return RequestFeedback(body.request_id, score, body.source, time.time(), tenant)
