"""Sums shared by threads and workers: whole, and nothing is lost, shown twice or shrinks."""

import json
import sys
import threading

import pytest

from gateway.scheduling.regression_terms import WeighedPrediction
from gateway.telemetry.ols_sums import OlsSums, SharedSums
from tests.unit.gateway.telemetry.test_ols_sums import NAMES, row, shown


@pytest.fixture
def hasty():
    """Threads that give way to each other as often as they can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("hasty")
def test_what_is_shown_is_of_the_same_rows_throughout():
    sums = OlsSums(NAMES[:1])

    def work():
        for _ in range(5_000):
            sums.add_row(*NAMES[0], row())

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        seconds, joules, rows_, _, metered, output, prompt = sums.snapshot_sums()[NAMES[0]]
        assert seconds[0] == joules[0] == rows_[0] == metered[0] == output[0] == prompt[0]
        assert (seconds[1], joules[6]) == (512 * seconds[0], 312_000_001 * joules[0])
    for worker in workers:
        worker.join()
    assert sums.snapshot_sums()[NAMES[0]][0][0] == 15_000


def test_workers_add_up_to_the_last_unit_whoever_is_asked(tmp_path):
    # Many of these are far beyond what a float holds exactly.
    workers = [OlsSums(NAMES) for _ in range(3)]
    shared = [SharedSums(sums, tmp_path) for sums in workers]
    alone = OlsSums(NAMES)
    for k in range(300):
        near = WeighedPrediction(10.0**6, 1.0)
        one = row(microjoules=10**12 + k, tokens_in=1000 + k, running=k % 5, joules=near)
        workers[k % 3].add_row(*NAMES[k % 2], one)
        alone.add_row(*NAMES[k % 2], one)
    for one in shared:
        one.write_sums()
    expected = alone.snapshot_sums()
    assert max(expected[NAMES[0]][1]) > 2**60
    assert all(one.sum_workers() == expected for one in shared)
    # Nobody holds the files of the dead; a worker that comes after has to show them too.
    late = OlsSums(NAMES)
    assert SharedSums(late, tmp_path).sum_workers() == expected


def test_the_worker_that_is_asked_shows_what_it_has_not_written_yet(tmp_path):
    sums = OlsSums(NAMES)
    shared = SharedSums(sums, tmp_path)
    sums.add_row(*NAMES[0], row())
    assert shared.sum_workers() == sums.snapshot_sums()
    assert SharedSums(OlsSums(NAMES), tmp_path).sum_workers() == sums.snapshot_sums()


def test_nothing_new_is_not_written(tmp_path):
    sums = OlsSums(NAMES)
    shared = SharedSums(sums, tmp_path)
    shared.write_sums()
    assert not list(tmp_path.iterdir())
    sums.add_row(*NAMES[0], row())
    shared.write_sums()
    (path,) = tmp_path.iterdir()
    path.unlink()
    shared.write_sums()
    assert not list(tmp_path.iterdir())


def test_a_process_id_that_comes_again_takes_nothing_from_the_dead(tmp_path):
    first, second = OlsSums(NAMES), OlsSums(NAMES)
    for sums in (first, second):
        sums.add_row(*NAMES[0], row())
        SharedSums(sums, tmp_path).write_sums()
    assert SharedSums(OlsSums(NAMES), tmp_path).sum_workers()[NAMES[0]][0][0] == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "\xff",
        "{}",
        '{"layout": "n i o", "sums": [["phi-3-mini", "phi-3-mini", [1, 2, 3]]]}',
    ],
)
def test_a_file_that_no_worker_of_ours_wrote_counts_for_nothing(tmp_path, text):
    sums = OlsSums(NAMES)
    sums.add_row(*NAMES[0], row())
    (tmp_path / "ols_1_0.json").write_bytes(text.encode("latin-1"))
    (tmp_path / "counter_1.db").write_bytes(b"\0" * 64)
    assert SharedSums(sums, tmp_path).sum_workers() == sums.snapshot_sums()


def test_a_model_of_an_earlier_configuration_is_not_shown(tmp_path):
    old = OlsSums([*NAMES, ("gone", "gone")])
    for name in (NAMES[0], ("gone", "gone")):
        old.add_row(*name, row())
    SharedSums(old, tmp_path).write_sums()
    (path,) = tmp_path.iterdir()
    assert "gone" in json.loads(path.read_text())["sums"][3]
    total = SharedSums(OlsSums(NAMES), tmp_path).sum_workers()
    assert total.keys() == set(NAMES)
    assert total[NAMES[0]] == old.snapshot_sums()[NAMES[0]]


def test_a_disk_that_is_lost_shows_no_sum_that_later_shrinks(tmp_path, caplog):
    folder = tmp_path / "shared"
    folder.mkdir()
    sums = OlsSums(NAMES)
    shared = SharedSums(sums, folder)
    sums.add_row(*NAMES[0], row())
    written = shared.sum_workers()
    # A folder where the new file would go, as no permission stops a test that runs as root.
    (path,) = folder.iterdir()
    blocker = path.with_suffix(".tmp")
    blocker.mkdir()
    sums.add_row(*NAMES[0], row())
    assert shared.sum_workers() == written
    assert shared.sum_workers() == written
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    blocker.rmdir()
    assert shared.sum_workers() == sums.snapshot_sums()


def test_a_file_that_cannot_be_read_now_makes_a_gap_and_not_a_restart(tmp_path, caplog):
    sums = OlsSums(NAMES)
    sums.add_row(*NAMES[0], row())
    shared = SharedSums(sums, tmp_path)
    assert shown(shared.sum_workers)
    (tmp_path / "ols_2_0.json").mkdir()
    assert shown(shared.sum_workers) == {}
    assert "not shown" in caplog.text
