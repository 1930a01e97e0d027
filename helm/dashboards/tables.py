"""Tables: one row for each value of a label, or a matrix of two labels.

Grafana joins the answers to a table's queries by the label that they have in common and calls their
columns `Value #A`, `Value #B` and so on.
"""

# ruff: noqa: INP001 - a script's helper

from typing import Any

from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models import dashboard as models

LETTERS = "ABCDEFGHIJ"


def build_table(panel: Any) -> table.Panel:
    """Return a table with a column for each query, headed by its legend, in its own unit."""
    (label,) = panel.by
    heads = {label: label.capitalize()}
    made = table.Panel().align(look.FieldTextAlignment.AUTO)
    for letter, query in zip(LETTERS, panel.queries, strict=False):
        heads[f"Value #{letter}"] = query.legend
        if query.unit:
            looks = {"unit": query.unit, "decimals": query.decimals}
            values = [models.DynamicConfigValue(name, value) for name, value in looks.items()]
            made.override_by_name(query.legend, values)
    order = {name: place for place, name in enumerate(heads)}
    made.with_transformation(models.DataTransformerConfig("merge", options={}))
    made.with_transformation(
        models.DataTransformerConfig(
            "organize",
            options={"excludeByName": {"Time": True}, "indexByName": order, "renameByName": heads},
        )
    )
    return made


def build_matrix(panel: Any) -> table.Panel:
    """Return a table of the first label's values down and the second's across, as bars."""
    row, column = panel.by
    made = table.Panel().cell_options(look.TableBarGaugeCellOptions())
    return made.with_transformation(
        models.DataTransformerConfig(
            "groupingToMatrix",
            options={"rowField": row, "columnField": column, "valueField": "Value"},
        )
    )
