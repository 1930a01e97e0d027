"""A month as FOCUS CSV: what is asked of Prometheus, and rows that add up to what was counted."""

import csv
import io
import json
import re
from datetime import UTC, datetime
from urllib.parse import parse_qs

import httpx
import pytest
import respx

from calibration.savings import command
from calibration.savings.focus import COLUMNS

URL = "http://prom:9090"
MANDATORY = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd",
    "ChargePeriodStart", "ContractedCost", "EffectiveCost", "HostProviderName",
    "InvoiceIssuerName", "ListCost", "PricingQuantity", "PricingUnit", "ServiceCategory",
    "ServiceName", "ServiceProviderName",
    # Of who measures usage, bills by resource, and splits costs.
    "ConsumedQuantity", "ConsumedUnit", "ResourceId", "ResourceName", "ResourceType",
    "AllocatedMethodId", "AllocatedResourceId", "AllocatedResourceName", "AllocatedTags",
)  # fmt: skip
"""What FOCUS 1.4 says that Cost and Usage MUST include, where its condition holds here."""
DIMENSIONS = (
    "AllocatedMethodId", "BillingAccountId", "BillingCurrency", "ChargeCategory", "ChargeClass",
    "ChargeDescription", "ChargePeriodStart", "ChargePeriodEnd", "ConsumedUnit", "ResourceId",
    "ResourceName", "ServiceName",
)  # fmt: skip
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
    by_owner = {row["AllocatedResourceId"]: row for row in rows}
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


@pytest.mark.usefixtures("asked")
def test_a_models_day_is_one_charge_split_by_tenant_and_preset(capsys):
    export()
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    split, alike = [], set()
    for row in rows:
        (element,) = json.loads(row["AllocatedMethodDetails"])["Elements"]
        assert element["AllocatedRatio"] == pytest.approx(float(row["BilledCost"]) / 13.0)
        assert element["UsageUnit"] == row["ConsumedUnit"]
        assert element["UsageQuantity"] == float(row["ConsumedQuantity"])
        assert row["AllocatedResourceName"] == row["AllocatedResourceId"]
        tags = json.loads(row["AllocatedTags"] or "{}")
        assert tags == ({"joulegate/preset": "eco"} if row["AllocatedResourceId"] else {})
        split.append(element["AllocatedRatio"])
        alike.add(tuple(row[name] for name in DIMENSIONS))
    assert sum(split) == pytest.approx(1.0)
    # FOCUS: the dimensions of what was split are those of the charge that it was split from.
    assert len(alike) == 1


def test_columns_are_those_of_focus_1_4():
    own = [name for name in COLUMNS if name.startswith("x_")]
    assert (*sorted(set(COLUMNS) - set(own)), *own) == COLUMNS
    assert set(MANDATORY) <= set(COLUMNS)
    assert not {"ProviderName", "PublisherName"} & set(COLUMNS)


@pytest.mark.usefixtures("asked")
def test_numbers_are_digits_alone(capsys, monkeypatch):
    tiny = {name: [(labels, value * 1e-12) for labels, value in of] for name, of in DAY.items()}
    monkeypatch.setitem(globals(), "DAY", tiny)
    export()
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 3
    for row in rows:
        for name in ("BilledCost", "ConsumedQuantity", "PricingQuantity", "x_Joules", "ListCost"):
            assert re.fullmatch(r"\d+(\.\d+)?", row[name]), row[name]
            assert float(row[name]) > 0.0


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
