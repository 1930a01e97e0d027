"""The regression sums: every term exact, every block whole, nothing lost between workers."""

import json
import sys
import threading
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.ols_sums import METRIC_NAME, OlsSums, SharedSums, SumsCollector

NAMES = (("phi-3-mini", "phi-3-mini"), ("mistral-7b", "h100"), ("mistral-7b", "l4"))
COST = "n i o io i2 o2 i2o io2 i2o2 y iy oy ioy y2"
TERMS = {
    ("tokens", "seconds"): COST.split(),
    ("tokens", "joules"): COST.split(),
    ("load", "seconds"): f"{COST} z iz oz ioz z2 zy".split(),
    ("load", "joules"): f"{COST} z iz oz ioz z2 zy".split(),
    ("output", "tokens"): ["n", "i", "o", "io", "i2", "o2"],
    ("prompt", "tokens"): ["n", "e", "i", "ei", "e2", "i2"],
}

tokens = st.integers(0, 200_000)
rows = st.lists(
    st.fixed_dictionaries(
        {
            "tokens_in": tokens,
            "tokens_out": tokens,
            "running": st.integers(0, 300),
            "microseconds": st.integers(0, 600 * 10**6),
            "microjoules": st.none() | st.integers(0, 10**11),
            "estimated_tokens": st.none() | tokens,
            "truncated": st.booleans(),
        }
    ),
    max_size=8,
)


def row(**fields):
    return {
        "tokens_in": 512,
        "tokens_out": 301,
        "running": 2,
        "microseconds": 7_123_457,
        "microjoules": 312_000_001,
        "estimated_tokens": 480,
        "truncated": False,
    } | fields


def shown(total):
    """{(model, deployment): {(basis, quantity): {term: value}}} off the page, as text gives it."""
    registry = CollectorRegistry()
    registry.register(SumsCollector(total))
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        assert family.type == "counter"
        for sample in family.samples:
            assert sample.name == METRIC_NAME
            labels = dict(sample.labels)
            name = labels.pop("model"), labels.pop("deployment")
            block = labels.pop("basis"), labels.pop("quantity")
            term = labels.pop("term")
            assert not labels
            blocks = found.setdefault(name, {}).setdefault(block, {})
            assert term not in blocks
            blocks[term] = sample.value
    return found


def product(term, values):
    """What a term spells: `i2o` is i*i*o."""
    result, last = Fraction(1), None
    for letter in term:
        factor = last if letter == "2" else values[letter]
        result *= factor
        last = factor
    return result


def variables(block, row):
    """A row's letters in base units, as a block means them; None where it has no place in it."""
    basis, quantity = block
    i, o, r = row["tokens_in"], row["tokens_out"], row["running"]
    letters = {"n": 1, "i": i, "o": o, "e": row["estimated_tokens"]}
    if basis == "output":
        return None if row["truncated"] else letters
    if basis == "prompt":
        return None if letters["e"] is None else letters
    if quantity == "seconds":
        return letters | {"y": Fraction(row["microseconds"], 10**6), "z": o * r}
    if row["microjoules"] is None:
        return None
    nano = round(Fraction(o, 1 + r) * 10**9 + Fraction(1, 10**20))
    return letters | {"y": Fraction(row["microjoules"], 10**6), "z": Fraction(nano, 10**9)}


@given(rows)
def test_every_term_is_the_exact_sum_of_what_it_spells_rounded_once(given_rows):
    sums = OlsSums(NAMES)
    for one in given_rows:
        sums.add_row("mistral-7b", "l4", **one)
    page = shown(sums.snapshot_sums)
    assert sums.rows == len(given_rows)
    for block, terms in TERMS.items():
        entered = [v for one in given_rows if (v := variables(block, one)) is not None]
        expected = {
            term: float(sum((product(term, v) for v in entered), Fraction())) for term in terms
        }
        assert page["mistral-7b", "l4"][block] == expected
        assert page["mistral-7b", "h100"][block] == dict.fromkeys(terms, 0.0)


def test_every_deployment_shows_every_term_before_any_request():
    expected = {block: dict.fromkeys(terms, 0.0) for block, terms in TERMS.items()}
    assert shown(OlsSums(NAMES).snapshot_sums) == dict.fromkeys(NAMES, expected)


def test_the_blocks_count_the_rows_that_belong_there():
    sums = OlsSums(NAMES)
    for fields in ({}, {"microjoules": None}, {"truncated": True}, {"estimated_tokens": None}):
        sums.add_row(*NAMES[0], **row(**fields))
    counts = {block: terms["n"] for block, terms in shown(sums.snapshot_sums)[NAMES[0]].items()}
    assert counts == {
        ("tokens", "seconds"): 4,
        ("load", "seconds"): 4,
        ("tokens", "joules"): 3,
        ("load", "joules"): 3,
        ("output", "tokens"): 3,
        ("prompt", "tokens"): 3,
    }


def test_a_shared_token_is_kept_to_the_nearest_billionth():
    sums = OlsSums(NAMES)
    sums.add_row(*NAMES[0], **row(tokens_out=100, running=2))
    assert shown(sums.snapshot_sums)[NAMES[0]]["load", "joules"]["z"] == 33.333333333
    sums.add_row(*NAMES[0], **row(tokens_out=200, running=2))
    assert shown(sums.snapshot_sums)[NAMES[0]]["load", "joules"]["z"] == 100.0


@pytest.mark.parametrize(
    "fields",
    [
        {"tokens_in": -1},
        {"tokens_out": -1},
        {"running": -1},
        {"microseconds": -1},
        {"microjoules": -1},
        {"estimated_tokens": -1},
        {"tokens_in": 10**18},
        {"tokens_out": 10**18},
        {"microseconds": 10**18},
        {"microjoules": 10**18},
    ],
)
def test_a_row_that_cannot_be_is_left_out_and_told_once(fields, caplog):
    sums = OlsSums(NAMES)
    before = sums.snapshot_sums()
    sums.add_row(*NAMES[0], **row(**fields))
    sums.add_row(*NAMES[0], **row(**fields))
    assert sums.snapshot_sums() == before
    assert sums.rows == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]


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
            sums.add_row(*NAMES[0], **row())

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        seconds, joules, output, prompt = sums.snapshot_sums()[NAMES[0]]
        assert seconds[0] == joules[0] == output[0] == prompt[0]
        assert (seconds[1], joules[13]) == (512 * seconds[0], 312_000_001**2 * joules[0])
    for worker in workers:
        worker.join()
    assert sums.snapshot_sums()[NAMES[0]][0][0] == 15_000


def test_workers_add_up_to_the_last_unit_whoever_is_asked(tmp_path):
    # The sum of the squared microjoules is far beyond what a float holds exactly.
    workers = [OlsSums(NAMES) for _ in range(3)]
    shared = [SharedSums(sums, tmp_path) for sums in workers]
    alone = OlsSums(NAMES)
    for k in range(300):
        one = row(microjoules=10**12 + k, tokens_in=1000 + k, running=k % 5)
        workers[k % 3].add_row(*NAMES[k % 2], **one)
        alone.add_row(*NAMES[k % 2], **one)
    for one in shared:
        one.write_sums()
    expected = alone.snapshot_sums()
    assert expected[NAMES[0]][1][13] > 2**60
    assert all(one.sum_workers() == expected for one in shared)
    # Nobody holds the files of the dead; a worker that comes after has to show them too.
    late = OlsSums(NAMES)
    assert SharedSums(late, tmp_path).sum_workers() == expected


def test_the_worker_that_is_asked_shows_what_it_has_not_written_yet(tmp_path):
    sums = OlsSums(NAMES)
    shared = SharedSums(sums, tmp_path)
    sums.add_row(*NAMES[0], **row())
    assert shared.sum_workers() == sums.snapshot_sums()
    assert SharedSums(OlsSums(NAMES), tmp_path).sum_workers() == sums.snapshot_sums()


def test_nothing_new_is_not_written(tmp_path):
    sums = OlsSums(NAMES)
    shared = SharedSums(sums, tmp_path)
    shared.write_sums()
    assert not list(tmp_path.iterdir())
    sums.add_row(*NAMES[0], **row())
    shared.write_sums()
    (path,) = tmp_path.iterdir()
    path.unlink()
    shared.write_sums()
    assert not list(tmp_path.iterdir())


def test_a_process_id_that_comes_again_takes_nothing_from_the_dead(tmp_path):
    first, second = OlsSums(NAMES), OlsSums(NAMES)
    for sums in (first, second):
        sums.add_row(*NAMES[0], **row())
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
    sums.add_row(*NAMES[0], **row())
    (tmp_path / "ols_1_0.json").write_bytes(text.encode("latin-1"))
    (tmp_path / "counter_1.db").write_bytes(b"\0" * 64)
    assert SharedSums(sums, tmp_path).sum_workers() == sums.snapshot_sums()


def test_a_model_of_an_earlier_configuration_is_not_shown(tmp_path):
    old = OlsSums([*NAMES, ("gone", "gone")])
    for name in (NAMES[0], ("gone", "gone")):
        old.add_row(*name, **row())
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
    sums.add_row(*NAMES[0], **row())
    written = shared.sum_workers()
    # A folder where the new file would go, as no permission stops a test that runs as root.
    (path,) = folder.iterdir()
    blocker = path.with_suffix(".tmp")
    blocker.mkdir()
    sums.add_row(*NAMES[0], **row())
    assert shared.sum_workers() == written
    assert shared.sum_workers() == written
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    blocker.rmdir()
    assert shared.sum_workers() == sums.snapshot_sums()


def test_a_file_that_cannot_be_read_now_makes_a_gap_and_not_a_restart(tmp_path, caplog):
    sums = OlsSums(NAMES)
    sums.add_row(*NAMES[0], **row())
    shared = SharedSums(sums, tmp_path)
    assert shown(shared.sum_workers)
    (tmp_path / "ols_2_0.json").mkdir()
    assert shown(shared.sum_workers) == {}
    assert "not shown" in caplog.text
