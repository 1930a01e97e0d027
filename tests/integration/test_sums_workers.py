"""The regression sums of several processes: nothing lost, nothing twice, whoever is asked.

Run as a script this file is a worker, told by lines what to do.
"""

import contextlib
import json
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.scheduling.regression_terms import WeighedPrediction
from gateway.telemetry.ols_sums import METRIC_LABELS, OlsSums, SharedSums, SumsCollector
from gateway.telemetry.sums_row import SumsRow

NAMES = (("phi-3-mini", "phi-3-mini"), ("mistral-7b", "h100"))


def add(sums, k):
    """Enter the k-th row; its square in microjoules is far beyond what a float holds."""
    expected = WeighedPrediction(10.0**6, 1.0)
    sums.add_row(
        *NAMES[k % 2],
        SumsRow(
            tokens_in=1 + k % 3001,
            tokens_out=1 + k % 997,
            cached_tokens=0,
            running=k % 33,
            microseconds=10**7 + k,
            microjoules=None if k % 5 == 0 else 10**12 + k,
            estimated_tokens=1 + k % 2999,
            truncated=k % 7 == 0,
            seconds=WeighedPrediction(10.0, 1.0),
            joules=expected,
            harmonic_running=k % 31,
            dense_chars=k % 501,
        ),
    )


def text_of(total):
    registry = CollectorRegistry()
    registry.register(SumsCollector(total))
    return generate_latest(registry).decode()


def work(folder):
    """Be a worker until there is nothing more to do, as at the end of a serving process."""
    sums = OlsSums(NAMES)
    shared = SharedSums(sums, folder)
    for line in sys.stdin:
        order, *numbers = line.split()
        if order == "show":
            answer = text_of(shared.sum_workers)
        else:
            first, count, every = map(int, numbers)
            for k in range(first, first + count):
                add(sums, k)
                if every and k % every == 0:
                    shared.write_sums()
            answer = "done"
        print(json.dumps(answer), flush=True)
    shared.write_sums()


class Worker:
    def __init__(self, folder):
        self.process = subprocess.Popen(
            [sys.executable, __file__, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def tell(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")

    def answer(self):
        return json.loads(self.process.stdout.readline())

    def show(self):
        self.tell("show")
        return self.answer()

    def add(self, first, count):
        self.tell("add", first, count, 0)
        assert self.answer() == "done"

    def close(self):
        self.process.communicate(timeout=60)
        return self.process.returncode

    def kill(self):
        self.process.kill()
        self.process.communicate(timeout=60)


@pytest.fixture
def start(tmp_path):
    with contextlib.ExitStack() as stack:

        def one():
            worker = Worker(tmp_path)
            stack.callback(worker.kill)
            return worker

        yield one


def expected(count):
    """The page of one process that did it all."""
    sums = OlsSums(NAMES)
    for k in range(count):
        add(sums, k)
    return text_of(sums.snapshot_sums)


def series(page):
    (family,) = text_string_to_metric_families(page)
    return {tuple(map(one.labels.get, METRIC_LABELS)): one.value for one in family.samples}


def test_rows_that_come_in_everywhere_at_once_add_up_exactly(start):
    workers = [start() for _ in range(4)]
    asked = start()
    shares = 5_000
    for index, worker in enumerate(workers):
        worker.tell("add", index * shares, shares, 50)
    pages = [series(asked.show()) for _ in range(20)]
    assert [worker.answer() for worker in workers] == ["done"] * 4
    pages += [series(worker.show()) for worker in (*workers, asked)]
    for earlier, later in pairwise(pages):
        assert all(
            later[name] >= value for name, value in earlier.items() if not name[-1].endswith("t")
        )
    for page in pages:
        for model, deployment in NAMES:
            seconds = page[model, deployment, "costs", "seconds", "n"]
            assert page[model, deployment, "rows", "seconds", "rows"] == seconds
            assert page[model, deployment, "prompt", "tokens", "n"] == seconds
            joules = page[model, deployment, "costs", "joules", "n"]
            # The rows of a model come in a fixed order: one in five has no joules, to within one
            # a worker.
            assert abs(joules - seconds * 4 / 5) <= len(workers)
    # Those that were asked first may not have seen the last rows of the others; now all have.
    assert {worker.show() for worker in (*workers, asked)} == {expected(4 * shares)}


def test_the_rows_of_workers_that_ended_or_died_stay(start):
    ends, dies, stays = start(), start(), start()
    for index, worker in enumerate((ends, dies, stays)):
        worker.add(index * 100, 100)
    assert ends.close() == 0
    assert series(dies.show()).keys() == series(stays.show()).keys()
    dies.kill()
    assert dies.process.returncode == -signal.SIGKILL
    assert stays.show() == expected(300)
    instead = start()
    instead.add(300, 50)
    assert instead.show() == expected(350)
    assert stays.show() == expected(350)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
