"""The monitored stack as the dashboards' tests look at it: what is asked of it and waited for."""

import math
import re
import time

import httpx
import pytest

from tests.e2e.monitored import FALCON, PHI, until
from tests.e2e.renderer import substituted, table_labels

INTERVAL = "10s"
FALLBACK = re.compile(r" or 0 \* sum(?: by \(\w+\))? ?\((?:[^()]|\([^()]*\))*\)")
"""What parts.or_zero puts behind a query: it is there whether or not the query finds anything."""
UNSEEN = {"Saved, measured"}
"""Panels of a switchback, whose blocks are longer than this test."""
CALM = {"Failed readings", "Events dropped", "Queue"}
"""Panels that may stay at 0 through all of this."""


class Watched:
    """The stack, and what Prometheus knows of it since it was started."""

    def __init__(self, stack, prometheus, began):
        self.stack, self.prometheus, self.began = stack, prometheus, began

    def over_time(self, expr):
        """Answer a panel's expression over all the time there has been."""
        now = time.time()
        asked = substituted(expr, interval=INTERVAL, span=f"{now - self.began:.0f}s")
        found = self.prometheus.api("query_range", query=asked, start=self.began, end=now, step=1)
        return [
            (one["metric"], [(at, float(value)) for at, value in one["values"]])
            for one in found["result"]
        ]

    def at(self, moment, expr, *, span):
        """Answer a panel's expression at one moment (Unix seconds), over a span before it."""
        asked = substituted(expr, interval=INTERVAL, span=span)
        found = self.prometheus.api("query", query=asked, time=moment)
        return [
            (one["metric"], [(one["value"][0], float(one["value"][1]))]) for one in found["result"]
        ]

    def has_data(self, expr):
        return bool(self.values(expr))

    def values(self, expr):
        series = self.over_time(expr)
        return {value for _, samples in series for _, value in samples if math.isfinite(value)}

    def wrong(self, panel, target):
        """What a query behind which nothing stands does not give, after all that was done."""
        if panel["title"] in UNSEEN:
            return ""
        expr = FALLBACK.sub("", target["expr"])
        needed = set(re.findall(r"{{(\w+)}}", target["legendFormat"])) | table_labels(panel)
        if any(not needed <= {name for name in of if of[name]} for of, _ in self.over_time(expr)):
            return "lacks a label of its legend"
        values = self.values(expr)
        if not values:
            return "nothing"
        return "only 0" if values == {0} and panel["title"] not in CALM else ""


def until_calm(prometheus, seconds=90):
    """Wait until no alert fires. Fails with those that do."""
    deadline = time.monotonic() + seconds
    while firing := prometheus.alerts():
        if time.monotonic() > deadline:
            pytest.fail(f"after {seconds:g} s there still fires: {firing}")
        time.sleep(0.5)


def until_all_fire(prometheus, expected, seconds=150):
    """Wait until all of these alerts fire at once. Fails with those that do not."""
    deadline = time.monotonic() + seconds
    while missing := expected - set(prometheus.alerts()):
        if time.monotonic() > deadline:
            pytest.fail(f"after {seconds:g} s there does not fire: {sorted(missing)}")
        time.sleep(0.5)


def bypassed(stack, prometheus):
    """Ask a backend behind the gateway's back, until the gateway is told that it used joules."""
    asked = {"model": PHI, "messages": [{"role": "user", "content": "And you?"}]}
    url = f"{stack.by_model[PHI][0].url}/v1/chat/completions"

    def told():
        httpx.post(url, json=asked, timeout=60).raise_for_status()
        return prometheus.value('rate(joulegate_energy_joules_total{method="other"}[10s])') > 0

    until(told, "joules that no request answers for are seen")


def recalibrated(stack, prometheus):
    """Multiply the profile by how far it has been off of late, so that at first nothing drifts.

    Before that a profile is in force for a moment that predicts joules below 0.
    """
    factors = {}
    for quantity in ("seconds", "joules", "output_tokens"):
        unit = quantity.removeprefix("output_")
        ratio = " / ".join(
            "sum by (model) "
            f'(increase(joulegate_prediction_{what}_{unit}_total{{profile="live"}}[15s]))'
            for what in ("observed", "predicted")
        )
        factors |= {(of["model"], quantity): at[-1][1] for of, at in prometheus.query(ratio)}
    stack.adopt(factors | {(FALCON, "joules"): -1.0})
    floored = "rate(joulegate_predictions_floored_total[10s])"
    until(lambda: prometheus.value(floored) > 0, "predictions are floored")
    stack.adopt(factors)
    adopted = 'max(joulegate_profile_reloads_total{result="adopted"})'
    until(lambda: prometheus.value(adopted) == 2, "the profile is adopted")
