"""The decision log: a line a request, and never a request lost to a full disk."""

import asyncio
import contextlib
import json
import os
import threading

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


async def test_a_pipe_that_nobody_reads_costs_lines_and_no_time(tmp_path, dropped, caplog):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    log = DecisionLog(path, dropped)
    log.add_record(record("a"))
    await log._flush_pending()
    log.add_record(record("b"))
    await run_and_stop(log)
    assert dropped.lines == 2
    assert caplog.messages == [f"decision log {path}: nobody reads this pipe; lines are being lost"]


async def test_a_pipe_that_is_read_too_slowly_gets_whole_lines(tmp_path, dropped):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = DecisionLog(path, dropped)
    got = b""
    for start in range(0, 3000, 1000):
        for number in range(start, start + 1000):
            log.add_record(record(str(number)))
        await log._flush_pending()
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(reader, 1 << 20):
                got += piece
    log.add_record(record("last"))
    await log._flush_pending()
    got += os.read(reader, 1 << 20)
    os.close(reader)
    names = [json.loads(line)["id"] for line in got.decode().splitlines()]
    assert names[-1] == "last"
    assert dropped.lines == 3001 - len(names) > 0


async def test_what_was_cut_is_not_glued_to_the_next_file(tmp_path, dropped):
    path = tmp_path / "decisions.jsonl"
    log = DecisionLog(path, dropped)
    log._cut, log._cut_file = b"half a line}\n", (1, 1)
    log.add_record(record("a"))
    await log._flush_pending()
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["a"]


async def test_a_disk_that_hangs_does_not_hold_up_the_end(tmp_path, dropped, monkeypatch, caplog):
    hung = threading.Event()
    begun = threading.Event()

    def hang(*_):
        begun.set()
        hung.wait(60)
        raise OSError(None, "gone")

    monkeypatch.setattr(decision_log.os, "open", hang)
    monkeypatch.setattr(decision_log, "_LAST_SECONDS", 0.05)
    monkeypatch.setattr(decision_log, "_FLUSH_SECONDS", 0.0)
    log = DecisionLog(tmp_path / "d", dropped)
    log.add_record(record("a"))
    task = asyncio.create_task(log.run())
    try:
        assert await asyncio.to_thread(begun.wait, 30)
        log.add_record(record("b"))
        task.cancel()
        async with asyncio.timeout(30):
            await asyncio.gather(task, return_exceptions=True)
    finally:
        hung.set()
    assert "hangs; its last lines are lost" in caplog.text
