"""Ids of responses that carry the backend which made them: `resp_` PLACE TAG `-` NUMBER.

vLLM keeps what it made by the id that it is sent in `request_id`, so the gateway makes the id and
answers need no rewriting. PLACE is a keyed hash of (model, deployment, backend), TAG a keyed digest
of PLACE and NUMBER with 64 random bits in it: whoever has the key, any worker or gateway, finds the
backend again, and an id that none of them made is told from one whose backend has left. Without a
secret the key is known to all who read this: an id made with it finds no more than a backend of the
config, and there a response whose 64 random bits nobody else has. Where there are API keys TAG has
the tenant in it too: another tenant's response is found by nobody else.
"""

import hashlib
import re
import secrets
from collections.abc import Iterable
from typing import Final, NamedTuple

from backends.registry import Backend, Deployment
from gateway.service.client.errors import UnknownResponse

_SHAPE: Final = re.compile(r"resp_([0-9a-f]{16})([0-9a-f]{16})([0-9a-f]{16})-([0-9a-f]{1,9})")
_BYTES: Final = 8
_OPEN_KEY: Final = b"joulegate"
_LEFT: Final = "0" * 2 * _BYTES
"""Of a backend that has left the configuration since its request was planned."""


class ResponsePlace(NamedTuple):
    """The backend that holds a response."""

    deployment: Deployment
    backend: Backend


class ResponseIds:
    """Makes ids and finds their backends again; the same for all that have the key."""

    def __init__(self, deployments: Iterable[Deployment], secret: str | None) -> None:
        given = _OPEN_KEY if secret is None else secret.encode()
        self._key = hashlib.blake2b(given, person=b"response-ids").digest()
        self._places: dict[str, ResponsePlace] = {}
        self._names: dict[Backend, str] = {}
        self.change_deployments(deployments)

    def change_deployments(self, deployments: Iterable[Deployment]) -> None:
        """Find the backends of these, and no others, from now on."""
        self._places, self._names = {}, {}
        for deployment in deployments:
            for backend in deployment.backends:
                name = self._digest(f"{deployment.model}\0{deployment.label}\0{backend.root}")
                self._places[name] = ResponsePlace(deployment, backend)
                self._names[backend] = name

    def make_id(self, backend: Backend, number: int, tenant: str | None = None) -> str:
        """Return a new id for a response of this backend; no other tenant will find it."""
        name, nonce = self._names.get(backend, _LEFT), secrets.token_hex(_BYTES)
        return f"resp_{name}{nonce}{self._tag(name, nonce, f'{number:x}', tenant)}-{number:x}"

    def find_place(
        self, response_id: str, param: str | None = None, tenant: str | None = None
    ) -> ResponsePlace:
        """Return the backend that made a response for this tenant.

        Raises UnknownResponse that names `param`.
        """
        found = _SHAPE.fullmatch(response_id)
        if found is None:
            raise UnknownResponse(f"no response {response_id[:80]!r} was made here", param=param)
        name, nonce, tag, number = found.groups()
        # Digests of both, so that how long it takes tells nothing of the tag.
        if self._digest(tag) != self._digest(self._tag(name, nonce, number, tenant)):
            raise UnknownResponse(f"no response {response_id!r} was made here", param=param)
        place = self._places.get(name)
        if place is None:
            raise UnknownResponse(
                f"the backend that made {response_id!r} has left, and it with it", param=param
            )
        return place

    def _tag(self, name: str, nonce: str, number: str, tenant: str | None) -> str:
        owner = "" if tenant is None else f"\0{tenant}"
        return self._digest(f"{name}\0{nonce}\0{number}{owner}")

    def _digest(self, text: str) -> str:
        return hashlib.blake2b(text.encode(), digest_size=_BYTES, key=self._key).hexdigest()
