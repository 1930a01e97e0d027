"""Questions to grade, and `joulegate accuracy` as a function."""

import json

from typer.testing import CliRunner

from calibration.cli import app


def write_questions(path):
    """Write 40 questions of three tasks; return the path."""
    lines = [
        {"prompt": f"Question {at}\nA. yes\nB. no", "answer": "AB"[at % 2], "kind": "choice",
         "task": f"t/{at % 3}"}
        for at in range(40)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run_accuracy(*arguments):
    """Run the command in this process; what it did not mean to raise is raised."""
    result = CliRunner().invoke(app, ["accuracy", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result
