"""The schemas of what the gateway itself answers: decisions, records, models and errors."""

from collections.abc import Mapping
from typing import Any

_Json = dict[str, Any]
TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_WHOLE = {"type": "integer"}


def _make_object_schema(
    properties: Mapping[str, Any], optional: Mapping[str, Any] | None = None, *, more: bool = False
) -> _Json:
    return {
        "type": "object",
        "required": list(properties),
        "properties": {**properties, **(optional or {})},
        "additionalProperties": more,
    }


def _or_null(schema: _Json) -> _Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _make_list_schema(schema: _Json) -> _Json:
    return {"type": "array", "items": schema}


def make_reference(name: str) -> _Json:
    """Return a reference to one of the document's schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


def _make_boundary_schema() -> _Json:
    """Return the shape of `observed.boundary`: what a request costs beyond its accelerators."""
    known = ("host_joules", "overhead_joules", "facility_joules")
    others = ("co2e_grams", "co2e_grams_with_idle", "cost", "cost_with_idle")
    return _make_object_schema(
        {
            **dict.fromkeys(known, _NUMBER),
            **dict.fromkeys(("idle_joules", "facility_joules_with_idle"), _or_null(_NUMBER)),
            **dict.fromkeys(others, _or_null(_NUMBER)),
            **dict.fromkeys(("host_source", "currency"), _or_null(TEXT)),
        }
    )


def build_answer_schemas() -> _Json:
    """Return the schemas of what the gateway itself answers."""
    metrics = _make_object_schema(dict.fromkeys(("accuracy", "energy", "time"), _NUMBER))
    lengths = dict.fromkeys(("input", "output", "output_p90"), _or_null(_NUMBER))
    tokens = _make_object_schema({**lengths, "source": _or_null(TEXT)})
    costs = dict.fromkeys(("predicted_seconds", "predicted_joules"), _NUMBER)
    candidate = {
        "model": TEXT,
        "deployment": TEXT,
        **dict.fromkeys(("score", "accuracy", "reference_joules"), _NUMBER),
        **costs,
        "tokens": _make_object_schema(
            {
                **lengths,
                "source": _or_null(TEXT),
                **dict.fromkeys(("mu", "sigma"), _or_null(_NUMBER)),
            }
        ),
        "costs": metrics,
        "terms": metrics,
        "backend": _or_null(TEXT),
        "running": _NUMBER,
        "queued": _NUMBER,
        "places": _make_list_schema(
            _make_object_schema(
                {
                    "backend": TEXT,
                    "why": TEXT,
                    "running": _NUMBER,
                    **costs,
                },
                {"cached_tokens": _WHOLE},
            )
        ),
    }
    decision = {
        "id": TEXT,
        "model": _or_null(TEXT),
        "policy": TEXT,
        "weights": metrics,
        "tokens": tokens,
        "score": _or_null(_NUMBER),
        "profile_version": TEXT,
        "reference_load": _or_null(_NUMBER),
        "decision_us": _NUMBER,
        "candidates": _make_list_schema(
            _make_object_schema(candidate, {"accuracy_lower": _NUMBER})
        ),
        "excluded": _make_list_schema(
            _make_object_schema(dict.fromkeys(("model", "deployment", "reason"), TEXT))
        ),
        "feasible": {"type": "boolean"},
    }
    error = {"message": TEXT, "type": TEXT, "param": _or_null(TEXT), "code": _or_null(TEXT)}
    model = {"id": TEXT, "object": TEXT, "created": _WHOLE, "owned_by": TEXT}
    figures = {"seconds": _or_null(_NUMBER), "joules": _or_null(_NUMBER)}
    predicted = _make_object_schema(
        figures
        | dict.fromkeys(("ttft_seconds", "time_per_output_token_seconds"), _or_null(_NUMBER))
    )
    known = {"joules": _or_null(_NUMBER), "method": _or_null(TEXT)}
    explained = decision | {"predicted": predicted, "observed": _make_object_schema(known)}
    observed = {
        **figures,
        **dict.fromkeys(("serving_seconds", "ttft_seconds", "co2e_grams"), _or_null(_NUMBER)),
        "method": _or_null(TEXT),
        "boundary": _or_null(_make_boundary_schema()),
    }
    compared = dict.fromkeys(("live", "shadow"), _or_null({"type": "object"}))
    usage = ("prompt_tokens", "completion_tokens", "cached_tokens")
    attempt = {"model": TEXT, "backend": TEXT, "reason": _or_null(TEXT)}
    record = {
        "id": TEXT,
        "at": _NUMBER,
        **dict.fromkeys(("kind", "requested", "preset"), TEXT),
        **dict.fromkeys(("model", "deployment", "backend"), _or_null(TEXT)),
        "stream": {"type": "boolean"},
        "code": _WHOLE,
        "error": _or_null(TEXT),
        "usage": _make_object_schema(dict.fromkeys(usage, _or_null(_WHOLE))),
        "predicted": predicted,
        "observed": _make_object_schema(observed),
        "compared": _make_object_schema(compared),
        "running": _or_null(_NUMBER),
        "mean_running": _or_null(_NUMBER),
        "harmonic_running": _or_null(_NUMBER),
        "counted_tokens": _or_null(_WHOLE),
        "asked_tokens": _or_null(_WHOLE),
        "arm": _or_null(TEXT),
        "attempts": _make_list_schema(_make_object_schema(attempt)),
        "decision": _or_null(make_reference("Decision")),
    }
    return {
        "Answer": {
            "type": "object",
            "properties": {"model": TEXT, "joulegate": make_reference("Explanation")},
            "additionalProperties": True,
        },
        "Decision": _make_object_schema(decision),
        "Explanation": _make_object_schema(explained),
        "Error": _make_object_schema({"error": _make_object_schema(error)}),
        "MessagesError": _make_object_schema(
            {
                "type": {"const": "error"},
                "error": _make_object_schema({"type": TEXT, "message": TEXT}),
                "request_id": TEXT,
            }
        ),
        "Model": _make_object_schema(model, more=True),
        "ModelList": _make_object_schema(
            {"object": TEXT, "data": _make_list_schema(make_reference("Model"))}
        ),
        "Record": _make_object_schema(record, more=True),
        "Usage": _make_object_schema(
            {"key_id": TEXT, "tenant": TEXT, "month": TEXT, "requests": _WHOLE}, more=True
        ),
        "Status": _make_object_schema({"status": TEXT}, more=True),
    }
