"""`GET /schema/openapi.json`: the API as OpenAPI 3.1, built from the tables that serve it.

What OpenAI defines (messages, tools, choices …) is left open: it passes through, and vLLM knows it
better. What is the gateway's own is spelt out.
"""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec
from litestar import get

from gateway.service.client import errors
from gateway.service.client import headers as names
from gateway.service.request import steering
from gateway.service.request.body import Kind

_Json = dict[str, Any]
_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_WHOLE = {"type": "integer"}


def handler() -> Any:
    """Make the route handler."""

    @get("/schema/openapi.json", name="openapi", sync_to_thread=False)
    def openapi() -> dict[str, Any]:
        """Return the OpenAPI document."""
        return document()

    return openapi


@cache
def document() -> _Json:
    """Return the OpenAPI document."""
    paths = {kind.path: {"post": _inference(kind)} for kind in Kind}
    paths["/v1/route"] = {"post": _route()}
    paths["/v1/models"] = {"get": _read("List the names a request may ask for", "ModelList")}
    paths["/v1/models/{model_id}"] = {
        "get": _read("Describe one of them", "Model", "model_id", errors.UnknownModel)
    }
    paths["/v1/requests/{request_id}"] = {
        "get": _read(
            "Tell what became of a recent request", "Record", "request_id", errors.NotFound
        )
    }
    paths["/health"] = {"get": _read("Liveness", "Status")}
    paths["/ready"] = {"get": _read("Readiness", "Status")}
    paths["/ready"]["get"]["responses"]["503"] = _answer("Not ready, or draining", "Status")
    paths["/metrics"] = {"get": _metrics()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Joulegate",
            "version": version("joulegate"),
            "summary": "OpenAI's API, with the model chosen by accuracy, energy and time",
            "license": {"name": "GPL-3.0-or-later", "identifier": "GPL-3.0-or-later"},
        },
        "paths": paths,
        "components": {"schemas": {**_schemas(), **_member()}},
    }


def _member() -> _Json:
    """Return the schemas of the body's `joulegate` object."""
    template = "#/components/schemas/{name}"
    return msgspec.json.schema_components([steering.Member], ref_template=template)[1]


def _inference(kind: Kind) -> _Json:
    shown = {
        Kind.CHAT: "Chat completion",
        Kind.COMPLETIONS: "Text completion",
        Kind.EMBEDDINGS: "Embeddings",
    }
    ok = _answer("OpenAI's answer, from the model that was chosen", "Answer")
    ok["headers"] = {
        name: {"description": text, "schema": _TEXT} for name, text in names.RESPONSE.items()
    }
    if kind is not Kind.EMBEDDINGS:
        ok["content"]["text/event-stream"] = {"schema": _TEXT}
    return {
        "operationId": kind.value,
        "summary": shown[kind],
        "parameters": _steering_parameters(),
        "requestBody": _body(kind.prompt),
        "responses": {"200": ok, **_failures()},
    }


def _route() -> _Json:
    return {
        "operationId": "route",
        "summary": "Dry run: the decision for a request, no backend is asked",
        "parameters": _steering_parameters(),
        "requestBody": _body("messages"),
        "responses": {
            "200": _answer("The decision", "Decision"),
            **{code: answer for code, answer in _failures().items() if int(code) < 500},  # noqa: PLR2004
        },
    }


def _read(
    summary: str, schema: str, parameter: str = "", missing: type[errors.ApiError] | None = None
) -> _Json:
    """Return a GET that answers with one schema."""
    operation: _Json = {"summary": summary, "responses": {"200": _answer(summary, schema)}}
    if parameter:
        operation["parameters"] = [
            {"name": parameter, "in": "path", "required": True, "schema": _TEXT}
        ]
    if missing is not None:
        operation["responses"][str(missing.status)] = _answer(_first_line(missing), "Error")
    return operation


def _metrics() -> _Json:
    content = {"text/plain": {"schema": _TEXT}}
    ok = {"description": "Prometheus's text format", "content": content}
    return {"summary": "Metrics", "responses": {"200": ok}}


def _steering_parameters() -> list[_Json]:
    return [
        {"name": name, "in": "header", "required": False, "description": text, "schema": _TEXT}
        for name, text in names.REQUEST.items()
    ]


def _body(prompt: str) -> _Json:
    schema = {
        "type": "object",
        "required": ["model", prompt],
        "properties": {
            "model": {"type": "string", "description": "auto, auto:PRESET, or a model's name"},
            prompt: {},
            "stream": {"type": ["boolean", "null"]},
            "max_tokens": {"type": ["integer", "null"], "minimum": 1},
            "joulegate": {"$ref": "#/components/schemas/Member"},
        },
        "additionalProperties": True,
    }
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _failures() -> _Json:
    """Return every status of the error tree with what it means."""
    found: dict[int, list[str]] = {}
    pending: list[type[errors.ApiError]] = [errors.ApiError]
    while pending:
        error = pending.pop(0)
        pending.extend(error.__subclasses__())
        if error not in {errors.Rejected, errors.Interrupted}:
            found.setdefault(error.status, []).append(_first_line(error))
    return {
        str(status): _answer(" ".join(texts), "Error") for status, texts in sorted(found.items())
    }


def _first_line(error: type) -> str:
    return (error.__doc__ or "").strip().splitlines()[0]


def _answer(description: str, schema: str) -> _Json:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}


def _object(properties: Mapping[str, Any], *, more: bool = False) -> _Json:
    return {
        "type": "object",
        "required": list(properties),
        "properties": dict(properties),
        "additionalProperties": more,
    }


def _or_null(schema: _Json) -> _Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(schema: _Json) -> _Json:
    return {"type": "array", "items": schema}


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas() -> _Json:
    """Return the schemas of what the gateway itself answers."""
    metrics = _object(dict.fromkeys(("accuracy", "energy", "time"), _NUMBER))
    candidate = {
        "model": _TEXT,
        "deployment": _TEXT,
        **dict.fromkeys(("score", "accuracy", "predicted_seconds", "predicted_joules"), _NUMBER),
        "costs": metrics,
        "terms": metrics,
        "running": _WHOLE,
    }
    decision = {
        "id": _TEXT,
        "model": _or_null(_TEXT),
        "policy": _TEXT,
        "weights": metrics,
        "tokens": _object({"input": _or_null(_WHOLE), "output": _or_null(_WHOLE)}),
        "score": _or_null(_NUMBER),
        "profile_version": _TEXT,
        "decision_us": _NUMBER,
        "candidates": _list(_object(candidate)),
        "excluded": _list(_object(dict.fromkeys(("model", "deployment", "reason"), _TEXT))),
        "feasible": {"type": "boolean"},
    }
    error = {"message": _TEXT, "type": _TEXT, "param": _or_null(_TEXT), "code": _or_null(_TEXT)}
    model = {"id": _TEXT, "object": _TEXT, "created": _WHOLE, "owned_by": _TEXT}
    figures = {"seconds": _or_null(_NUMBER), "joules": _or_null(_NUMBER)}
    observed = {**figures, "ttft_seconds": _or_null(_NUMBER), "method": _or_null(_TEXT)}
    usage = ("prompt_tokens", "completion_tokens", "cached_tokens")
    attempt = {"model": _TEXT, "backend": _TEXT, "reason": _or_null(_TEXT)}
    record = {
        "id": _TEXT,
        "at": _NUMBER,
        **dict.fromkeys(("kind", "requested", "preset"), _TEXT),
        **dict.fromkeys(("model", "deployment", "backend"), _or_null(_TEXT)),
        "stream": {"type": "boolean"},
        "code": _WHOLE,
        "error": _or_null(_TEXT),
        "usage": _object(dict.fromkeys(usage, _or_null(_WHOLE))),
        "predicted": _object(figures),
        "observed": _object(observed),
        "attempts": _list(_object(attempt)),
        "decision": _or_null(_ref("Decision")),
    }
    return {
        "Answer": {
            "type": "object",
            "properties": {"model": _TEXT, "joulegate": _ref("Decision")},
            "additionalProperties": True,
        },
        "Decision": _object(decision),
        "Error": _object({"error": _object(error)}),
        "Model": _object(model, more=True),
        "ModelList": _object({"object": _TEXT, "data": _list(_ref("Model"))}),
        "Record": _object(record),
        "Status": _object({"status": _TEXT}, more=True),
    }
