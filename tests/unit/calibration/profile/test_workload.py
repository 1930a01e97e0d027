"""The plan: which cells, in which order, how often; and the prompts that fill it."""

import gzip
import json
from functools import partial
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from calibration.profile.workload import (
    GRIDS,
    CellTally,
    CellVisit,
    PlanError,
    StopRule,
    WorkloadCell,
    build_grid_cells,
    compute_half_interval,
    compute_run_name,
    compute_t_quantile,
    estimate_visit_seconds,
    plan_visits,
)
from calibration.replay import requests as requests_file
from calibration.tables.prompts import (
    WORDS,
    PromptFileError,
    PromptGenerator,
    count_prompt_tokens,
    read_prompts,
)


@pytest.mark.parametrize("context", [2048, 4096, 32768])
def test_every_cell_fits_the_context(context):
    cells = build_grid_cells(GRIDS["full"], context, (4, 16, 64))
    assert len(set(cells)) == len(cells)
    assert all(cell.tokens_in + cell.tokens_out < context for cell in cells)
    outs = {cell.tokens_out for cell in cells if cell.concurrency == 1}
    assert outs == {16, 64, 128, 256, 512, 1024}
    if context > 5120:
        assert len([cell for cell in cells if cell.concurrency == 1]) == 36
    assert {cell.concurrency for cell in cells} == {1, 4, 16, 64}


def test_a_context_too_small_for_anything_is_refused():
    with pytest.raises(PlanError, match="context of 40"):
        build_grid_cells(GRIDS["full"], 40, ())


def test_blocks_are_reshuffled_then_load_then_prompts():
    cells = [*build_grid_cells(GRIDS["full"], 4096, (4,)), WorkloadCell(0, 0, 2)]
    planned = plan_visits(cells, StopRule(), 7, "phi-3-mini")
    assert planned == plan_visits(cells, StopRule(), 7, "phi-3-mini")
    assert planned != plan_visits(cells, StopRule(), 8, "phi-3-mini")
    alone = [visit for visit in planned if visit.cell.concurrency == 1]
    blocks = [[v.cell for v in alone if v.block == block] for block in range(3)]
    assert planned[: len(alone)] == alone
    assert len({tuple(block) for block in blocks}) == 3
    assert set(blocks[0]) == set(blocks[1]) == set(blocks[2])
    assert planned[-1] == CellVisit(WorkloadCell(0, 0, 2))
    assert planned[-1].cell.name == "prompts@2"


def simulate(rule, seconds, tally=None):
    """Run a cell's visits as the collector does; return requests per block."""
    tally = tally or CellTally()
    for block in range(rule.blocks):
        while tally.wants_more(block, rule):
            tally.add_row(block, tally.next_repeat(block), *seconds())
    return [len(tally.repeats.get(block, ())) for block in range(rule.blocks)], tally


def test_an_exact_cell_stops_at_five_repeats():
    counts, _ = simulate(StopRule(min_cell_seconds=0), lambda: (3.0, 50.0))
    assert counts == [2, 2, 1]


def test_short_requests_fill_the_least_time():
    counts, tally = simulate(StopRule(min_cell_seconds=9.0, max_repeats=100), lambda: (0.5, 1.0))
    assert counts == [6, 6, 6]
    assert sum(tally.seconds) == 9.0


def test_a_noisy_cell_goes_on_to_the_most_repeats_in_its_last_block():
    rng = Random(1)
    counts, _ = simulate(StopRule(min_cell_seconds=0), lambda: (rng.uniform(1, 9), None))
    assert counts == [2, 2, 21]


def test_joules_count_for_the_stop_rule_as_seconds_do():
    rng = Random(1)
    counts, _ = simulate(StopRule(min_cell_seconds=0), lambda: (1.0, rng.uniform(1, 9)))
    assert sum(counts) == 25


@given(
    blocks=st.integers(1, 5),
    least=st.floats(0, 20),
    most=st.integers(1, 30),
    seconds=st.floats(0.01, 50),
    spread=st.floats(0, 0.5),
)
def test_a_cell_always_ends_within_its_limits(blocks, least, most, seconds, spread):
    rng = Random(2)
    rule = StopRule(blocks, least, most)
    draw = lambda: (seconds * (1 + spread * rng.random()), None)  # noqa: E731
    counts, tally = simulate(rule, draw)
    assert sum(counts) <= most
    if sum(counts) < most:
        assert tally.is_precise
        assert all(counts)
    again, _ = simulate(rule, draw, tally)
    assert again == counts  # a finished cell is finished


def test_a_tally_refuses_the_same_repeat_twice():
    tally = CellTally()
    tally.add_row(0, 0, 1.0, None)
    with pytest.raises(PlanError, match="twice"):
        tally.add_row(0, 0, 1.0, None)
    assert tally.list_missing_repeats(3) == [1, 2]


@pytest.mark.parametrize("freedom", [4, 5, 7, 12, 30, 200])
def test_the_t_quantile_is_students(freedom):
    assert compute_t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=3e-3)


def test_half_width_is_that_of_the_textbook():
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    low, high = stats.t.interval(0.95, 4, loc=3.0, scale=stats.sem(values))
    assert compute_half_interval(values) == pytest.approx((high - low) / 2, rel=3e-3)
    assert compute_half_interval([1.0]) == float("inf")


@pytest.mark.parametrize(
    "wrong",
    [
        {"blocks": 0},
        {"max_repeats": 0},
        *({"min_cell_seconds": seconds} for seconds in (-1, float("inf"), float("nan"))),
    ],
)
def test_a_rule_without_sense_is_refused(wrong):
    with pytest.raises(PlanError):
        StopRule(**wrong)


def test_a_run_is_named_by_its_plan():
    cells = [WorkloadCell(32, 16), WorkloadCell(64, 16)]
    named = partial(compute_run_name, api="chat", max_tokens=64)
    name = named(cells, 3, 0, [])
    assert name == named(list(cells), 3, 0, [])
    others = {
        named(cells[:1], 3, 0, []),
        named(cells, 2, 0, []),
        named(cells, 3, 1, []),
        named(cells, 3, 0, ["a"]),
        named(cells, 3, 0, ["a"], api="completions"),
        named(cells, 3, 0, ["a"], max_tokens=65),
    }
    assert len(others | {name}) == 7
    assert name == named(cells, 3, 0, [], api="completions", max_tokens=1)


def test_the_estimate_counts_rounds():
    rule = StopRule(min_cell_seconds=9.0)
    assert estimate_visit_seconds(CellVisit(WorkloadCell(32, 16)), rule, 0, lambda _: 1.0) == 3.0
    assert estimate_visit_seconds(CellVisit(WorkloadCell(32, 16, 4)), rule, 0, lambda _: 1.0) == 3.0
    assert (
        estimate_visit_seconds(CellVisit(WorkloadCell(0, 0, 2)), rule, 100, lambda _: 1.0) == 51.0
    )


async def counted(text):
    # A tokeniser with a start token, and two tokens for a word of five letters.
    return 1 + sum(2 if len(word) > 4 else 1 for word in text.split())


@pytest.mark.parametrize("tokens", [1, 2, 3, 32, 128, 1024, 4096])
async def test_random_prompts_have_the_wanted_length(tokens):
    maker = PromptGenerator(counted, seed=1)
    text = await maker.generate_exact(tokens, "a")
    assert await counted(text) == max(tokens, 2)
    assert await maker.generate_exact(tokens, "a") == text


async def test_random_prompts_share_no_beginning():
    maker = PromptGenerator(counted, seed=1)
    starts = {tuple((await maker.generate_exact(64, f"key {k}")).split()[:3]) for k in range(200)}
    assert len(starts) == 200
    assert len(WORDS) == len(set(WORDS))


async def test_a_tokeniser_that_never_agrees_gives_the_nearest_below():
    async def by_seven(text):
        return 7 * len(text.split())

    assert await by_seven(await PromptGenerator(by_seven, seed=1).generate_exact(100, "a")) == 98


ALPACA = [
    {"instruction": "Add.", "input": "1 and 2", "output": "3"},
    {"instruction": "Sing.", "input": "", "output": "La"},
]
WANTED = ["Add.\n\n1 and 2", "Sing."]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ALPACA, indent=1).encode(),
        "\n".join(json.dumps(one) for one in ALPACA).encode() + b"\n\n",
        b'\xef\xbb\xbfinstruction,input,output\nAdd.,1 and 2,3\n"Sing.",,La\n',
        gzip.compress(json.dumps(ALPACA).encode(), mtime=0),
        b"instruction; input;output\r\nAdd.;1 and 2;3\r\nSing.;;La\r\n",
        b"instruction\tinput\nAdd.\t1 and 2\nSing.\t\n",
    ],
)
def test_an_alpaca_file_is_read_in_every_shape(tmp_path, content, counter):
    path = tmp_path / "prompts"
    path.write_bytes(content)
    assert read_prompts(path) == WANTED
    replayed = requests_file.read_requests(path, lambda: counter)
    assert [one.tokens_in for one in replayed.requests] == [
        count_prompt_tokens(counter, text) for text in WANTED
    ]
    assert count_prompt_tokens(counter, "a") == counter.count_tokens("a") + 7


def test_a_line_is_what_ends_with_a_newline(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "one\u2028two"}\n', encoding="utf-8")
    assert read_prompts(path) == ["one\u2028two"]


def test_a_column_can_be_named(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text('id,what\n1,"Hello,\nyou"\n')
    assert read_prompts(path, "what") == ["Hello,\nyou"]
    with pytest.raises(PromptFileError, match=r"prompts.csv:3: no column 'which'; .*id, what"):
        read_prompts(path, "which")
    with pytest.raises(PromptFileError, match="--prompt-column"):
        read_prompts(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no prompts"),
        (b"prompt\n", "no prompts"),
        (b'{"prompt": "a"}\n{"prompt": 1}\n', ":2: column 'prompt' holds no text"),
        (b'{"prompt": "a"}\n{"prompt"\n', ":2: not a JSON object: Input data was truncated"),
        (b'["a"]', ":1: not an object"),
        (b'prompt\n"a"b"\n', ":2: "),
        (b"prompt\nHello, you\n", ":2: more fields than the header has"),
        (b"prompt\n\xff\n", "not UTF-8"),
        (gzip.compress(b"prompt\na\n", mtime=0)[:-9], "Compressed file ended"),
    ],
)
def test_a_bad_prompts_file_says_where(tmp_path, content, words):
    path = tmp_path / "prompts"
    path.write_bytes(content)
    with pytest.raises(PromptFileError, match=words):
        read_prompts(path)
