"""The headers that steer a request, as parameters of the OpenAPI document, with what each takes."""

from typing import Any, Final

from gateway.api.answer_schemas import TEXT
from gateway.scheduling.decide import POLICIES
from gateway.service.client import headers as names

_Json = dict[str, Any]
_AMOUNT: Final[_Json] = {"type": "number", "minimum": 0}
_SHARE: Final[_Json] = {"type": "number", "minimum": 0, "maximum": 1}
_SWITCH: Final[_Json] = {"enum": ["true", "false"]}
_SCHEMAS: Final[dict[str, _Json]] = {
    names.WEIGHT_ACCURACY: _AMOUNT,
    names.WEIGHT_ENERGY: _AMOUNT,
    names.WEIGHT_TIME: _AMOUNT,
    names.POLICY: {"enum": list(POLICIES)},
    names.MAX_LATENCY_MS: _AMOUNT,
    names.MAX_ENERGY_JOULES: _AMOUNT,
    names.MIN_ACCURACY: _SHARE,
    names.ACCURACY_WITHIN: _SHARE,
    names.BOUND_QUANTILE: {"type": "number", "minimum": 0.5, "maximum": 0.99},
    names.INFEASIBLE: {"enum": ["best-effort", "reject"]},
    names.EXPLAIN: _SWITCH,
    names.IMPACT: _SWITCH,
    names.AFFINITY: {"enum": ["on", "off"]},
}
"""Of the others any text is taken, and what is of no use is passed over."""


def describe_steering() -> list[_Json]:
    """Return the parameters."""
    return [
        {
            "name": name,
            "in": "header",
            "required": False,
            "description": text,
            "schema": _SCHEMAS.get(name, TEXT),
        }
        for name, text in names.REQUEST.items()
    ]
