"""One decoded request, whichever API it speaks."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from gateway.scheduling.exploration import ExplorationCharge
from gateway.service.client.api_error import Header
from gateway.service.request.caller import Caller
from gateway.service.request.client_body import MultipartForm
from gateway.service.request.conversation_prefix import NO_TEXTS, ConversationTexts
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.members import Members
from gateway.service.request.named_endpoints import NamedEndpoint
from gateway.service.request.response_ids import ResponsePlace


class InferenceRequest(Struct):
    """One decoded request; `model` is "" where it names none."""

    kind: EndpointKind | NamedEndpoint
    members: Members
    model: str
    stream: bool
    wants_usage: bool
    application: str = ""
    """What tells its application from others; only its keyed hash may leave the process."""
    words: str = ""
    """What the user said last, for models of the text."""
    earlier: Sequence[str] = ()
    """What the user said before that, oldest first, until it is planned."""
    system: str = ""
    """The application's own words, for the same."""
    texts: ConversationTexts = NO_TEXTS
    """All of the conversation, until it is planned."""
    has_media: bool = False
    form: MultipartForm | None = None
    """The body, where it is no JSON."""
    path: str | None = None
    """Where it goes, if not to its endpoint's own path."""
    place: ResponsePlace | None = None
    """The only backend that can serve it: it holds what the request goes on from."""
    caller: Caller | None = None
    """Whose key it carries, where there are keys."""
    headers: Iterable[Header] = ()
    """As its client sent them; few of them may leave the process."""
    charge: ExplorationCharge | None = None
    """What its draw was charged to exploration's budget, where accuracy is learnt online."""
    choices: int = 1
    """How many answers the client is to be sent, once the prompt is read; 0: not known."""

    def forget_body(self, *, keeps_words: bool) -> None:
        """Let go of what was to be sent, once an answer has begun that nobody else can give."""
        self.members = {}
        self.form = None
        self.headers = ()
        self.system = ""
        if not keeps_words:
            self.words = ""

    @property
    def url_path(self) -> str:
        """The path at vLLM."""
        return self.path or self.kind.url_path
