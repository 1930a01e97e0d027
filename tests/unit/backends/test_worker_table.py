"""What workers share of the backends: counts add up, ejections travel, the dead leave nothing."""

import asyncio
import signal
import sys

import pytest

from backends.registry import Backend, EjectionPolicy
from backends.worker_table import WorkerTable
from tests.waiting import until


@pytest.fixture
def tables(tmp_path):
    made = []

    def make(workers=2, backends=2):
        made.append(WorkerTable(tmp_path / "fleet.table", backends, workers))
        return made[-1]

    yield make
    for table in made:
        table.close()


def backend_of(table, number=0, **options):
    made = Backend("http://a:8000", **options)
    made.record_probe(well=True)
    made.share(table.get_backend(number))
    return made


def test_what_one_worker_sends_the_others_see_at_once(tables):
    one, two = backend_of(tables()), backend_of(tables())
    one.begin_request()
    one.begin_request()
    two.begin_request()
    one.add_prompt_tokens(100)
    two.add_prompt_tokens(11)
    assert [one.inflight, two.inflight] == [2, 1]
    assert one.running_and_queued == two.running_and_queued == (3, 0)
    assert one.prompt_tokens == two.prompt_tokens == 111
    one.end_request()
    assert two.running_and_queued == (2, 0)


def test_gauges_are_compared_with_what_all_workers_have_sent(tables):
    one, two = backend_of(tables()), backend_of(tables())
    for _ in range(3):
        two.begin_request()
    one.record_gauges(3.0, 2.0, own=one.sent_requests)
    # Five there, three of them this gateway's.
    assert one.running_and_queued == (3, 2)
    two.begin_request()
    assert one.running_and_queued == (3, 3)


def test_backends_are_told_apart(tables):
    table, other = tables(), tables()
    first, second = backend_of(table, 0), backend_of(table, 1)
    first.begin_request()
    assert second.running_and_queued == (0, 0)
    assert backend_of(other, 0).running_and_queued == (1, 0)
    assert backend_of(other, 1).running_and_queued == (0, 0)


def test_an_ejection_is_everybodys_and_counted_once(tables):
    one, two = backend_of(tables()), backend_of(tables())
    for _ in range(5):
        one.record_failure("refused")
    assert two.is_available
    two.adopt_ejection()
    assert not two.is_available
    assert [one.ejections, two.ejections] == [1, 0]
    one.record_success()
    two.adopt_ejection()
    assert two.is_available
    assert not two.is_ejected


def test_a_worker_that_comes_later_knows_who_is_ejected(tables):
    one = backend_of(tables())
    for _ in range(5):
        one.record_failure()
    assert backend_of(tables()).is_ejected


def test_the_next_ejection_is_longer_whoever_finds_it(tables):
    now = [1000.0]
    policy = EjectionPolicy(1, 30.0, 300.0)
    one, two = (backend_of(tables(), clock=lambda: now[0], ejection=policy) for _ in range(2))
    one.record_failure()
    two.adopt_ejection()
    now[0] += 30.0
    assert two.is_available
    two.record_failure()
    one.adopt_ejection()
    now[0] += 59.0
    assert not one.is_available
    now[0] += 1.0
    assert one.is_available


@pytest.fixture
def half_open(tables):
    """A backend as two workers see it, its ejection just over, and the time that it is."""
    now = [1000.0]
    one, two = (backend_of(tables(), clock=lambda: now[0]) for _ in range(2))
    for _ in range(5):
        one.record_failure()
    two.adopt_ejection()
    now[0] += 30.0
    return one, two, now


def test_one_trial_at_a_time_among_all_workers(half_open):
    one, two, _ = half_open
    assert one.is_available
    assert two.is_available
    trial = one.begin_request()
    assert not two.is_available
    one.end_request(trial=trial)
    assert two.is_available


def test_a_trial_that_outlasts_its_ejection_does_not_end_the_next_ones(half_open):
    one, two, now = half_open
    old = two.begin_request()
    one.record_failure()  # a second ejection, of which the trial's worker hears
    two.adopt_ejection()
    now[0] += 60.0
    two.begin_request()
    two.end_request(trial=old)
    assert not two.is_available


def test_who_leaves_takes_everything_along(tables):
    one, two = tables(), tables()
    backend_of(one).begin_request()
    one.close()
    assert backend_of(two).running_and_queued == (0, 0)


def test_places_are_used_again_and_run_out(tables):
    first = tables(workers=1)
    for _ in range(2):
        tables(workers=1)
    with pytest.raises(OSError, match="places are taken"):
        tables(workers=1)
    first.close()
    tables(workers=1)


def test_an_earlier_runs_ejections_are_forgotten(tables):
    table = tables()
    for _ in range(5):
        backend_of(table).record_failure()
    table.close()
    assert not backend_of(tables()).is_ejected


DYING = """
import sys, time
from pathlib import Path
from backends.registry import Backend
from backends.worker_table import WorkerTable
table = WorkerTable(Path(sys.argv[1]), 2, 2)
backend = Backend("http://a:8000")
backend.share(table.get_backend(0))
table.get_bytes_held().set(1000)
for _ in range(7):
    backend.begin_request()
print("ready", flush=True)
time.sleep(600)
"""


async def test_a_killed_worker_leaves_nothing_behind(tables, tmp_path):
    table = tables()
    mine = backend_of(table)
    mine.begin_request()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DYING, tmp_path / "fleet.table", stdout=asyncio.subprocess.PIPE
    )
    assert await process.stdout.readline() == b"ready\n"
    table.sweep()  # it lives
    assert mine.running_and_queued == (8, 0)
    assert table.get_bytes_held().total == 1000
    process.send_signal(signal.SIGKILL)
    await process.wait()

    def swept():
        table.sweep()
        return mine.running_and_queued == (1, 0)

    await until(swept, "its place is free")
    assert table.get_bytes_held().total == 0
