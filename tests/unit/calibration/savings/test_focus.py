"""A month as FOCUS CSV: what is asked of Prometheus, and rows that add up to what was counted."""

import csv
import io
from datetime import UTC, datetime
from urllib.parse import parse_qs

import httpx
import pytest
import respx

from calibration.savings import command
from calibration.savings.focus import COLUMNS

URL = "http://prom:9090"
NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC).timestamp()


def owned(tenant, preset="eco", **more):
    return {"model": "m", "tenant": tenant, "preset": preset} | more


DAY = {
    "energy_joules_total": [
        (owned("search", method="apportioned"), 3e6),
        (owned("search", method="estimated"), 1e6),
        (owned("ads", method="apportioned"), 1e6),
        (owned("none", "none", method="idle"), 2e6),
    ],
    "co2e_grams_total": [(owned("search"), 380.0)],
    "tokens_total": [(owned("search", type="completion"), 5000.0)],
    "cost_total": [
        ({"model": "m", "kind": "requests", "currency": "EUR"}, 10.0),
        ({"model": "m", "kind": "idle", "currency": "EUR"}, 3.0),
    ],
}


@pytest.fixture
def asked():
    """A Prometheus where the first of November has figures and the second none yet."""
    queries = []

    def answer(request):
        form = parse_qs(request.content.decode())
        query, at = form["query"][0], float(form["time"][0])
        queries.append((query, at))
        (name,) = [name for name in DAY if f"joulegate_{name}" in query]
        first = at == datetime(2026, 11, 2, tzinfo=UTC).timestamp()
        result = [
            {"metric": labels, "values": [(at, str(value))]}
            for labels, value in (DAY[name] if first else ())
        ]
        data = {"resultType": "matrix", "result": result}
        return httpx.Response(200, json={"status": "success", "data": data})

    with respx.mock:
        respx.post(f"{URL}/api/v1/query").mock(side_effect=answer)
        yield queries


def export(month="2026-11"):
    return command.run(command.SavingsOptions(URL, focus=month), clock=lambda: NOW)


@pytest.mark.usefixtures("asked")
def test_rows_add_up_to_what_was_counted(capsys):
    assert export() == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert tuple(rows[0]) == COLUMNS
    by_owner = {row["SubAccountName"]: row for row in rows}
    assert set(by_owner) == {"search", "ads", ""}
    assert sum(float(row["BilledCost"]) for row in rows) == pytest.approx(13.0)
    assert sum(float(row["x_Joules"]) for row in rows) == pytest.approx(7e6)
    search = by_owner["search"]
    assert float(search["EffectiveCost"]) == pytest.approx(8.0)
    assert float(search["ConsumedQuantity"]) == pytest.approx(4e6 / 3.6e6)
    assert float(search["x_SciGramsPer1000Tokens"]) == pytest.approx(76.0)
    assert (search["BillingCurrency"], search["x_Preset"]) == ("EUR", "eco")
    assert float(by_owner[""]["BilledCost"]) == 3.0
    assert (search["BillingPeriodStart"], search["BillingPeriodEnd"]) == (
        "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z",
    )  # fmt: skip
    assert search["ChargePeriodEnd"] == "2026-11-02T00:00:00Z"


def test_each_day_is_asked_for_its_own_seconds(asked, capsys):
    export()
    capsys.readouterr()
    first = [query for query, at in asked if at == NOW - 12 * 3600]
    assert len(first) == len(DAY)
    assert all("[86400s]" in query and query.endswith("[1m:1m]") for query in first)
    # Of a day that is not over what there is of it.
    assert all("[43200s]" in query for query, at in asked if at == NOW)


@pytest.mark.parametrize("month", ["2026-13", "November", "2027-01"])
def test_what_is_no_month_is_said(month, capsys):
    assert export(month) == 2
    assert month in capsys.readouterr().err
