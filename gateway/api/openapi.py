"""`GET /schema/openapi.json`: the API as OpenAPI 3.1, built from the tables that serve it.

What OpenAI defines (messages, tools, choices …) is left open: it passes through, and vLLM knows it
better. What is the gateway's own is spelt out.
"""

from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec
from litestar import get

from gateway.api.answer_schemas import TEXT, build_answer_schemas, make_reference
from gateway.api.steering_parameters import describe_steering
from gateway.service.client import errors
from gateway.service.client import headers as names
from gateway.service.client.api_error import ApiError
from gateway.service.request import steering
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.named_endpoints import (
    CANCEL_RESPONSE,
    GET_RESPONSE,
    NAMED,
    NamedEndpoint,
)

_Json = dict[str, Any]
_ANTHROPICS = (EndpointKind.MESSAGES, EndpointKind.COUNT_TOKENS)


def make_handler() -> Any:
    """Make the route handler."""

    @get("/schema/openapi.json", name="openapi", sync_to_thread=False)
    def get_openapi() -> dict[str, Any]:
        """Return the OpenAPI document."""
        return build_document()

    return get_openapi


@cache
def build_document() -> _Json:
    """Return the OpenAPI document."""
    paths = {kind.url_path: {"post": _describe_inference(kind)} for kind in EndpointKind}
    for endpoint in (*NAMED, GET_RESPONSE, CANCEL_RESPONSE):
        path = endpoint.url_path.replace("{id}", "{response_id}")
        paths[path] = {endpoint.method.lower(): _describe_named(endpoint)}
    paths["/v1/route"] = {"post": _describe_route()}
    paths["/v1/feedback"] = {"post": _describe_feedback()}
    paths["/v1/models"] = {
        "get": _describe_get(
            "List the names a request may ask for", "ModelList", "", errors.InvalidApiKey
        )
    }
    paths["/v1/models/{model_id}"] = {
        "get": _describe_get(
            "Describe one of them",
            "Model",
            "model_id",
            errors.UnknownModel,
            errors.InvalidApiKey,
        )
    }
    paths["/v1/requests/{request_id}"] = {
        "get": _describe_get(
            "Tell what became of a recent request",
            "Record",
            "request_id",
            errors.NotFound,
            errors.InvalidApiKey,
        )
    }
    paths["/v1/usage"] = {
        "get": _describe_get(
            "What the caller's API key used in a month",
            "Usage",
            "",
            errors.BadRequest,
            errors.NotFound,
            errors.InvalidApiKey,
            errors.KeyStoreUnavailable,
        )
    }
    paths["/v1/usage"]["get"]["parameters"] = [
        {"name": "month", "in": "query", "schema": TEXT | {"description": "as 2026-11; now's"}}
    ]
    paths["/"] = {"get": _describe_root()}
    paths["/health"] = {"get": _describe_get("Liveness", "Status")}
    paths["/ready"] = {"get": _describe_get("Readiness", "Status")}
    paths["/ready"]["get"]["responses"]["503"] = _describe_response(
        "Not ready, or draining", "Status"
    )
    paths["/metrics"] = {"get": _describe_metrics()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Joulegate",
            "version": version("joulegate"),
            "summary": "OpenAI's API, with the model chosen by accuracy, energy and time",
            "license": {"name": "GPL-3.0-or-later", "identifier": "GPL-3.0-or-later"},
        },
        # Either, or none where the gateway has no keys.
        "security": [{"bearer": []}, {"x-api-key": []}, {}],
        "paths": paths,
        "components": {
            "schemas": {**build_answer_schemas(), **_build_member_schemas()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _build_member_schemas() -> _Json:
    """Return the schemas of the body's `joulegate` object."""
    template = "#/components/schemas/{name}"
    return msgspec.json.schema_components([steering.SteeringMember], ref_template=template)[1]


def _describe_inference(kind: EndpointKind) -> _Json:
    shown = {
        EndpointKind.CHAT: "Chat completion",
        EndpointKind.COMPLETIONS: "Text completion",
        EndpointKind.EMBEDDINGS: "Embeddings",
        EndpointKind.RESPONSES: "Response, as OpenAI's Responses API has it",
        EndpointKind.MESSAGES: "Message, as Anthropic's Messages API has it",
        EndpointKind.COUNT_TOKENS: "Tokens of a message, counted by the model it would go to",
    }
    ok = _describe_response("OpenAI's answer, from the model that was chosen", "Answer")
    ok["headers"] = {
        name: {"description": text, "schema": TEXT} for name, text in names.RESPONSE.items()
    }
    if kind.may_stream:
        ok["content"]["text/event-stream"] = {}  # each event's data is one of the API's chunks
    return {
        "operationId": kind.value,
        "summary": shown[kind],
        "parameters": describe_steering(),
        "requestBody": _describe_body(kind.prompt_member),
        "responses": {"200": ok, **_describe_failures(anthropic=kind in _ANTHROPICS)},
    }


def _describe_named(endpoint: NamedEndpoint) -> _Json:
    """Return one of vLLM's other endpoints, which is the model's to describe."""
    shown: _Json = {
        "summary": f"vLLM's own ({endpoint.value}): sent to the named model, not routed",
        "responses": {
            "200": {"description": "vLLM's answer"},
            **_describe_failures(anthropic=endpoint.url_path.startswith("/v1/messages")),
        },
    }
    if "{id}" in endpoint.url_path:
        shown["summary"] = "The response of this id, at the backend that made it"
        name = {"name": "response_id", "in": "path", "required": True, "schema": TEXT}
        shown["parameters"] = [name]
    elif endpoint.method == "GET":
        shown["parameters"] = [{"name": "model", "in": "query", "schema": TEXT}]
    elif endpoint.multipart:
        shown["requestBody"] = {"content": _make_content({"type": "object"}, "multipart/form-data")}
    else:
        shown["requestBody"] = {"content": _make_content({"type": "object"})}
    return shown


def _describe_route() -> _Json:
    return {
        "operationId": "route",
        "summary": "Dry run: the decision for a request, no backend is asked",
        "parameters": describe_steering(),
        "requestBody": _describe_body("messages"),
        "responses": {
            "200": _describe_response("The decision", "Decision"),
            **{code: answer for code, answer in _describe_failures().items() if int(code) < 500},  # noqa: PLR2004
        },
    }


def _describe_feedback() -> _Json:
    share = {"type": "number", "minimum": 0, "maximum": 1}
    properties = {
        "request_id": TEXT | {"minLength": 1, "maxLength": 128},
        "score": share,
        "correct": {"type": "boolean"},
        "source": TEXT | {"maxLength": 64},
    }
    schema = {"type": "object", "required": ["request_id"], "properties": properties}
    answer = {"type": "object", "properties": {"id": TEXT, "score": share}}
    failures = _describe_failures()
    return {
        "operationId": "feedback",
        "summary": "Say whether an answer was right: `score`, or `correct`",
        "requestBody": {"required": True, "content": _make_content(schema)},
        "responses": {
            "200": {"description": "Noted", "content": _make_content(answer)},
            **{code: failures[code] for code in ("400", "401", "404", "413")},
        },
    }


def _describe_get(summary: str, schema: str, parameter: str = "", *raised: type[ApiError]) -> _Json:
    """Return a GET that answers with one schema, or with these errors."""
    operation: _Json = {
        "summary": summary,
        "responses": {"200": _describe_response(summary, schema)},
    }
    if parameter:
        operation["parameters"] = [
            {"name": parameter, "in": "path", "required": True, "schema": TEXT}
        ]
    for error in raised:
        shown = _describe_response(_first_line(error), "Error")
        operation["responses"][str(error.status)] = shown
    return operation


def _describe_root() -> _Json:
    content: _Json = {kind: {"schema": {}} for kind in ("application/json", "text/html")}
    ok = {
        "description": "Name, version, models and paths; a page for a browser",
        "content": content,
    }
    return {"summary": "What this is", "responses": {"200": ok}}


def _describe_metrics() -> _Json:
    content = {kind: {"schema": TEXT} for kind in ("text/plain", "application/openmetrics-text")}
    ok = {"description": "Prometheus's text format, or OpenMetrics", "content": content}
    return {"summary": "Metrics", "responses": {"200": ok}}


def _describe_body(prompt: str) -> _Json:
    schema = {
        "type": "object",
        "required": ["model", prompt],
        "properties": {
            "model": TEXT | {"description": "auto, auto:PRESET, or a model's name"},
            prompt: {},
            "stream": {"type": ["boolean", "null"]},
            "max_tokens": {"type": ["integer", "null"], "minimum": 1},
            "joulegate": make_reference("SteeringMember"),
        },
        "additionalProperties": True,
    }
    return {"required": True, "content": _make_content(schema)}


def _describe_failures(*, anthropic: bool = False) -> _Json:
    """Return every status of the error tree with what it means, in the shape of an API's errors."""
    schema = "MessagesError" if anthropic else "Error"
    found: dict[int, list[str]] = {}
    pending: list[type[ApiError]] = [ApiError]
    while pending:
        error = pending.pop(0)
        pending.extend(error.__subclasses__())
        if error not in {errors.UpstreamRejection, errors.StreamInterrupted}:
            found.setdefault(error.status, []).append(_first_line(error))
    return {
        str(status): _describe_response(" ".join(texts), schema)
        for status, texts in sorted(found.items())
    }


def _first_line(error: type) -> str:
    return (error.__doc__ or "").strip().splitlines()[0]


def _describe_response(description: str, schema: str) -> _Json:
    return {"description": description, "content": _make_content(make_reference(schema))}


def _make_content(schema: _Json, media_type: str = "application/json") -> _Json:
    return {media_type: {"schema": schema}}
