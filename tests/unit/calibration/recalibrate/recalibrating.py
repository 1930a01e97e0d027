"""What tests of `joulegate recalibrate` share: a stand-in for Prometheus, and calls."""

import json
import re
from urllib.parse import parse_qs

import httpx
import pytest
import respx
from typer.testing import CliRunner

from calibration.cli import app
from calibration.recalibrate.profile_keys import INFO_METRIC
from calibration.recalibrate.window_sums import INFO as VERSIONS
from gateway import profile
from gateway.profile import AccuracyProfile, CostRegression, ModelProfile
from gateway.scheduling.cost import RegressionForm
from gateway.scheduling.regression_terms import COSTS, METERED, OUTPUT, PROMPT, ROWS
from tests.unit.calibration.recalibrate.sums_of_rows import series, traffic

URL = "http://prom:9090"
QUERY = f"{URL}/api/v1/query"


def model(**other):
    return ModelProfile(
        accuracy=AccuracyProfile(0.7),
        seconds=CostRegression(form=RegressionForm.ADDITIVE, coefficients=[0.1, 0.0005, 0.03]),
        joules=CostRegression(form=RegressionForm.ADDITIVE, coefficients=[30.0, 0.06, 1.5]),
        provenance={"hardware": "H200", "accuracy": "given with --accuracy", "rows": {"read": 9}},
        **other,
    )


class Server:
    """A Prometheus that holds series by (basis, quantity), and says what it was asked."""

    def __init__(self):
        self.held = {}
        self.info = []
        """Series of INFO; None where such a query is not taken."""
        self.versions = []
        """Series of VERSIONS."""
        self.warnings = []
        self.asked = []

    def add(self, found):
        for one in found:
            key = one.metric["basis"], one.metric["quantity"]
            self.held.setdefault(key, []).append(one)

    def __call__(self, request):
        (query,) = parse_qs(request.content.decode())["query"]
        self.asked.append(query)
        if query == f"{INFO_METRIC}[6h]":
            found = self.info
        elif query.startswith(VERSIONS):
            found = self.versions
        else:
            asked = re.fullmatch(
                r'joulegate_ols_sum_total\{basis="(\w+)",quantity="(\w+)"\}\[6h\]', query
            )
            found = self.held.get(asked.groups(), [])
        if found is None:
            return httpx.Response(400, json={"status": "error", "error": "only sums are known"})
        result = [{"metric": one.metric, "values": one.values} for one in found]
        data = {"resultType": "matrix", "result": result}
        return httpx.Response(
            200, json={"status": "success", "data": data, "warnings": self.warnings}
        )


BASES = (COSTS, ROWS, METERED, OUTPUT, PROMPT)


def predicted(rows, quantity, live=None):
    """The live prediction of each row; by default that of `model()`."""
    b = getattr(live or model(), quantity).coefficients
    return b[0] + b[1] * rows["i"] + b[2] * rows["o"]


def served(size=3000, name="phi-3-mini", bases=BASES, joules=True, **how):
    """Return the series of a model that served `size` requests, and its rows."""
    factor, live = how.pop("factor", 1.0), how.pop("live", None)
    rows = {
        quantity: traffic(size, 1, quantity=quantity, factor=factor)[0]
        for quantity in ("seconds", "joules")
    }
    for quantity, one in rows.items():
        one["p"] = predicted(one, quantity, live)
    found = []
    for basis in bases:
        if basis in {OUTPUT, PROMPT}:
            found += series(rows["seconds"], basis, quantity="tokens", model=name, **how)
            continue
        if basis != METERED:
            found += series(rows["seconds"], basis, quantity="seconds", model=name, **how)
        if joules:
            found += series(rows["joules"], basis, quantity="joules", model=name, **how)
    return found, rows


def call(*arguments):
    """Run it; returns exit code, stdout, stderr."""
    result = CliRunner().invoke(app, ["recalibrate", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def recalibrate(live, *arguments):
    return call("--prometheus", URL, "--profile", live, *arguments)


def told(live, *arguments):
    code, text, _ = recalibrate(live, "--json", *arguments)
    return code, json.loads(text)


def part(report, name, key="phi-3-mini"):
    (found,) = [one for one in report["models"] if one["model"] == key]
    return next(one for one in found["parts"] if one["name"] == name)


@pytest.fixture
def live(tmp_path):
    path = tmp_path / "profile.json"
    profile.save_profile({"phi-3-mini": model(), "mistral-7b": model()}, path)
    return path


@pytest.fixture
def server():
    with respx.mock:
        held = Server()
        respx.post(QUERY).mock(side_effect=held)
        yield held
