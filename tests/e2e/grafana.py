"""Grafana's own code for data (its npm package, Apache-2.0), run by Node.js: units and tables.

Grafana itself is no package that a test could install; what draws is not in this one.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cache import MODULE, install_node, once

PACKAGES = ("@grafana/data@12.1.1", "react@18.3.1", "react-dom@18.3.1", "jsdom@24.1.3")
SCRIPT = Path(__file__).with_name("grafana_tables.cjs")
Answers = list[tuple[dict[str, str], list[tuple[float, float]]]]


def _install(target: Path) -> None:
    install_node(target, "Grafana's data package", *PACKAGES, manifest=MODULE)


def show_tables(asked: list[tuple[dict[str, Any], dict[str, Answers]]]) -> dict[str, Any]:
    """Return what Grafana makes of panels: `units` that it knows, and `tables` with heads and rows.

    `asked` has each panel's JSON and the answers to its queries by their letter.
    """
    if shutil.which("npm") is None:
        pytest.skip("no `npm` on the PATH")
    folder = once("grafana-data", f"1 {PACKAGES}", _install)
    text = json.dumps(
        [
            {"panel": panel, "frames": [_frame(letter, answers) for letter in answers]}
            for panel, answers in asked
        ]
    )
    done = subprocess.run(
        ["node", SCRIPT],
        input=text,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "NODE_PATH": str(folder / "node_modules")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _frame(letter: str, answers: dict[str, Answers]) -> dict[str, Any]:
    """Return an answer as Grafana's Prometheus source hands it to a table."""
    answer = answers[letter]
    value = f"Value #{letter}" if len(answers) > 1 else "Value"
    labels = sorted({name for of, _ in answer for name in of})
    fields: list[dict[str, Any]] = [
        {"name": "Time", "type": "time", "values": [1000 * samples[-1][0] for _, samples in answer]}
    ]
    fields += [
        {"name": name, "type": "string", "values": [of.get(name, "") for of, _ in answer]}
        for name in labels
    ]
    values = [samples[-1][1] for _, samples in answer]
    fields.append({"name": value, "type": "number", "values": values})
    return {"refId": letter, "fields": fields}
