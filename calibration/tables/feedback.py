"""Feedback in a decision log: whose request a line is, and what somebody said of an answer."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

LoggedRequestKey = tuple[str, str]
"""Tenant and id: a word on another tenant's request counts for nothing."""


def identify_request(told: Mapping[str, Any]) -> LoggedRequestKey:
    """Return whose request a line, or a judgement, is of."""
    return str(told.get("tenant") or ""), str(told.get("id"))


def parse_judgement(line: Mapping[str, Any]) -> tuple[LoggedRequestKey, float] | None:
    """Return the request judged and a score from 0 to 1; None where the line is no judgement."""
    told = line.get("feedback")
    if not isinstance(told, dict):
        return None
    score = told.get("score")
    if not isinstance(score, int | float) or not isfinite(score):
        return None
    return identify_request(told), min(1.0, max(0.0, float(score)))
