"""Who sends a request, for handlers of every kind; without keys everybody may ask for all."""

from collections.abc import Iterable

from litestar.types import HTTPScope

from gateway.api.incoming import RequestHead, read_head
from gateway.api.surfaces import OPERATOR
from gateway.service.callers.api_keys import ApiKeys
from gateway.service.client.errors import InvalidApiKey
from gateway.service.pipeline import RequestPipeline
from gateway.service.request.routing_table import ModelNames

_Headers = Iterable[tuple[bytes, bytes]]


def read_caller_head(
    scope: HTTPScope, keys: ApiKeys | None, *, method: str = "POST"
) -> RequestHead:
    """Read a head and, where there are keys, whose it is: what is wrong with that comes first.

    Who came to the operators' port has shown what that port asks for, and no key.
    """
    head = read_head(scope, method=method)
    if keys is not None and not scope.get(OPERATOR):
        try:
            head.caller = keys.identify_caller(scope["headers"])
        except InvalidApiKey as error:
            head.error = error
    return head


def find_names(gateway: RequestPipeline, headers: _Headers) -> ModelNames:
    """Return what who sends these headers may ask for. Raises InvalidApiKey."""
    keys = gateway.keys
    return gateway.planner.names if keys is None else keys.identify_caller(headers).names


def find_tenant(gateway: RequestPipeline, headers: _Headers) -> str | None:
    """Return whose key these headers carry; None where there are no keys. Raises InvalidApiKey."""
    keys = gateway.keys
    return None if keys is None else keys.identify_caller(headers).tenant
