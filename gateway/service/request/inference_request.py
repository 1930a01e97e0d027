"""One decoded request, whichever API it speaks."""

from dataclasses import dataclass

from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.members import Members
from gateway.service.request.response_ids import ResponsePlace


@dataclass(slots=True)
class InferenceRequest:
    """One decoded request; `model` is "" where it names none."""

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
    choices: int = 1
    """How many answers the client is to be sent, once the prompt is read; 0: not known."""
