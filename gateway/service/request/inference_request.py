"""One decoded request, whichever API it speaks."""

from dataclasses import dataclass

from msgspec import Raw

from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.members import Members
from gateway.service.request.response_ids import ResponsePlace


@dataclass(slots=True)
class InferenceRequest:
    """One decoded request."""

    kind: EndpointKind
    members: Members
    model: str
    stream: bool
    wants_usage: bool
    application: str = ""
    """What tells its application from others; only its keyed hash may leave the process."""
    words: str = ""
    """What the user said last, for models of the text."""
    has_media: bool = False
    place: ResponsePlace | None = None
    """The only backend that can serve it: it holds what the request goes on from."""

    @property
    def is_single(self) -> bool:
        """Whether one prompt is to get one answer, as far as can be told at a glance."""
        members = self.members
        if self.kind not in _MAY_ASK_SEVERAL:
            return True
        return (
            bytes(members.get("n", _ONE)) in _ONES
            and bytes(members.get("best_of", _ONE)) in _ONES
            and not bytes(members.get("prompt", _ONE)).startswith(b"[")
        )


_ONE = Raw(b"1")
_ONES = (b"1", b"null")
_MAY_ASK_SEVERAL = (EndpointKind.CHAT, EndpointKind.COMPLETIONS, EndpointKind.EMBEDDINGS)
