"""The decision log: a line a request, and never a request lost to a full disk."""

import asyncio
import contextlib
import json

import pytest

from gateway.telemetry import decision_log
from gateway.telemetry.decision_log import DecisionLog
from tests.unit.gateway.telemetry.request_records import make_record


class Dropped:
    """Adds up what it is told of."""

    def __init__(self):
        self.lines = 0

    def __call__(self, lines):
        self.lines += lines


@pytest.fixture
def dropped():
    return Dropped()


def record(request_id):
    return make_record(
        id=request_id, at=1.0, kind="chat", requested="auto", preset="default", stream=False
    )


async def run_and_stop(log):
    task = asyncio.create_task(log.run())
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_what_is_pending_is_written_at_the_end(tmp_path, dropped):
    path = tmp_path / "decisions.jsonl"
    path.write_text("{}\n")
    log = DecisionLog(path, dropped)
    for name in ("a", "b\n", "c"):
        log.add_record(record(name))
    await run_and_stop(log)
    first, *lines = path.read_text().splitlines()
    assert first == "{}"
    assert [json.loads(line)["id"] for line in lines] == ["a", "b\n", "c"]
    assert json.loads(lines[0]) == record("a").to_dict()
    assert dropped.lines == 0


async def test_a_line_is_written_once(tmp_path, dropped):
    path = tmp_path / "decisions.jsonl"
    log = DecisionLog(path, dropped)
    log.add_record(record("a"))
    await log._flush_pending()
    await log._flush_pending()
    log.add_record(record("b"))
    await run_and_stop(log)
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["a", "b"]


async def test_a_missing_folder_costs_lines_which_are_counted_and_said_once(
    tmp_path, dropped, caplog
):
    log = DecisionLog(tmp_path / "gone" / "decisions.jsonl", dropped)
    for lines in (2, 3):
        for number in range(lines):
            log.add_record(record(str(number)))
        await log._flush_pending()
    assert dropped.lines == 5
    assert [entry.levelname for entry in caplog.records] == ["ERROR"]
    (tmp_path / "gone").mkdir()
    log.add_record(record("back"))
    await log._flush_pending()
    assert dropped.lines == 5
    assert (tmp_path / "gone" / "decisions.jsonl").read_text().count("\n") == 1


def test_what_waits_is_bounded(tmp_path, dropped):
    log = DecisionLog(tmp_path / "d", dropped)
    one = record("a")
    for _ in range(decision_log._MAX_PENDING + 7):
        log.add_record(one)
    assert dropped.lines == 7
