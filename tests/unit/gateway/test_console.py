"""What every command prints with."""

import errno
import json

import pytest

from gateway import console


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.csv"),
         "a.csv: No such file or directory"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("odd"), "odd"),
    ],
)  # fmt: skip
def test_an_os_error_names_its_file(error, said):
    assert console.format_os_error(error) == said


def test_complaints_go_to_stderr_with_their_exit_code(capsys):
    assert console.report_usage_error("no [bold] file") == 2
    assert console.report_failure("stopped") == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", "joulegate: no [bold] file\njoulegate: stopped\n")


def test_json_is_for_machines(capsys):
    report = {"a": [1, 2.5], "b": "x" * 300}
    console.print_json(report)
    console.print_json(report, line=True)
    out = capsys.readouterr().out
    assert json.loads("".join(out.splitlines()[:-1])) == report
    assert json.loads(out.splitlines()[-1]) == report
