"""The runner against a backend that is plain Python: steady load, retries, resuming."""

import asyncio
import itertools

import pytest

from backends.errors import BackendStatusError, BackendUnreachable, ConnectionLost, InvalidResponse
from calibration.endpoint.retry import CollectError
from calibration.endpoint.server import ServerInfo, TargetError, TargetServer
from calibration.endpoint.stream import TimedResponse
from calibration.profile.collector import MeasurementCollector
from calibration.profile.energy import NoMeter
from calibration.profile.load import LoadGauges
from calibration.profile.measurement_job import MeasurementJob
from calibration.profile.rows_file import MeasurementLog, read_measurements
from calibration.profile.workload import StopRule, WorkloadCell, plan_visits
from gateway import tokens

COUNTER = tokens.TokenCounter(None, "estimate")
RULE = StopRule(blocks=2, min_cell_seconds=0, max_repeats=4)


class Backend:
    """Answers after one turn of the event loop per new token; `failures` are raised first."""

    name, url = "tiny", "http://tiny"

    def __init__(self, failures=(), *, alive=True):
        self.failures = iter(failures)
        self.is_alive = alive
        self.asked = []
        self.in_flight = 0
        self.ids = itertools.count()

    async def stream_request(self, path, asked, on_tokens, *, counting):
        del counting
        failure = next(self.failures, None)
        if failure is not None:
            raise failure
        self.asked.append((path, asked, self.in_flight))
        out = asked.get("min_tokens", 3)
        text = asked.get("prompt") or asked["messages"][0]["content"]
        self.in_flight += 1
        try:
            for _ in range(out):
                await asyncio.sleep(0)
                on_tokens(1)
        finally:
            self.in_flight -= 1
        size = len(text.split())
        return TimedResponse(f"r{next(self.ids)}", 0.0, 1.0, 1.0, 0.5, size, out, None, None)

    async def count_tokens(self, text):
        return len(text.split())

    async def fetch_load(self):
        return None

    async def is_reachable(self):
        return self.is_alive


def job_of(backend, cells, *, prompts=(), rule=RULE, context=4096):
    return MeasurementJob(
        target=backend,
        info=ServerInfo("tiny", context, "vllm 1", None, tokenizes=True),
        meter=NoMeter(),
        run="run",
        rule=rule,
        visits=plan_visits(cells, rule, 0, "tiny"),
        prompts=list(prompts),
        hardware="a card",
    )


async def collect(path, job, backend):
    with MeasurementLog.open(path) as log:
        for row in read_measurements(path):
            job.count_earlier_row(row)
        collector = MeasurementCollector(job, log, COUNTER, lambda *_: None, retry_seconds=0.0)
        await collector.run()
    del backend
    return list(read_measurements(path)), collector.failures


async def test_alone_every_row_is_of_its_cell(tmp_path):
    backend = Backend()
    cells = [WorkloadCell(32, 4), WorkloadCell(64, 2)]
    rows, trouble = await collect(tmp_path / "rows.csv", job_of(backend, cells), backend)
    assert len(rows) == 8
    assert {(r.cell, r.tokens_in, r.tokens_out) for r in rows} == {
        ("32x4@1", 32, 4),
        ("64x2@1", 64, 2),
    }
    assert len({(r.cell, r.block, r.repeat) for r in rows}) == 8
    assert {(r.running, r.waiting, r.joules, r.method) for r in rows} == {(0, None, None, "")}
    assert {(r.hardware, r.engine, r.model) for r in rows} == {("a card", "vllm 1", "tiny")}
    assert not trouble.retries
    sent = [asked for _, asked, _ in backend.asked]
    assert len({asked["prompt"] for asked in sent}) == len(sent)
    assert all(asked["min_tokens"] == asked["max_tokens"] for asked in sent)
    assert all(asked["ignore_eos"] for asked in sent)


async def test_under_load_every_measured_request_has_full_company(tmp_path):
    backend = Backend()
    rows, _ = await collect(tmp_path / "r.csv", job_of(backend, [WorkloadCell(32, 40, 8)]), backend)
    assert sorted(r.repeat for r in rows) == list(range(16))
    assert {r.running for r in rows} == {7}
    assert backend.in_flight == 0  # those that only kept it busy were ended


async def test_prompts_go_as_chats_once_each(tmp_path):
    backend = Backend()
    prompts = [f"prompt number {k}" for k in range(5)]
    job = job_of(backend, [WorkloadCell(0, 0, 2)], prompts=prompts)
    rows, _ = await collect(tmp_path / "r.csv", job, backend)
    assert sorted(r.repeat for r in rows) == list(range(5))
    chats = [asked for path, asked, _ in backend.asked if path.endswith("chat/completions")]
    assert sorted(asked["messages"][0]["content"] for asked in chats) == prompts
    assert "ignore_eos" not in chats[0]
    assert {r.tiktoken_in for r in rows} == {COUNTER.count_tokens(prompts[0]) + 7}


async def test_what_fails_now_and_then_is_tried_again_and_counted(tmp_path):
    failures = [
        *(None, None),  # the warm-up
        *(ConnectionLost("x"), InvalidResponse("x"), BackendStatusError(503, b""), None),
        *(BackendUnreachable("x"), BackendStatusError(429, b""), None),
    ]
    backend = Backend(failures)
    rows, trouble = await collect(
        tmp_path / "r.csv", job_of(backend, [WorkloadCell(32, 4)]), backend
    )
    assert len(rows) == 4
    assert sum(trouble.retries.values()) == 5
    assert trouble.given_up == 0


async def test_a_dead_backend_ends_the_run_and_keeps_the_rows(tmp_path):
    path = tmp_path / "r.csv"
    backend = Backend([None] * 4 + [BackendUnreachable("refused")] * 100, alive=False)
    with pytest.raises(CollectError, match="tiny: the backend at http://tiny is gone: refused"):
        await collect(path, job_of(backend, [WorkloadCell(32, 4)]), backend)
    assert len(list(read_measurements(path))) == 2
    whole = Backend()
    rows, _ = await collect(path, job_of(whole, [WorkloadCell(32, 4)]), whole)
    assert sorted((r.block, r.repeat) for r in rows) == [(0, 0), (0, 1), (1, 0), (1, 1)]


async def test_a_dead_backend_ends_the_run_under_load_too(tmp_path):
    backend = Backend([None] * 20 + [BackendUnreachable("refused")] * 10_000, alive=False)
    with pytest.raises(CollectError, match="is gone"):
        await collect(tmp_path / "r.csv", job_of(backend, [WorkloadCell(32, 4, 8)]), backend)


async def test_a_backend_that_lives_and_only_fails_ends_the_run_as_well(tmp_path):
    backend = Backend([None, None] + [InvalidResponse("HTML")] * 1000)
    cells = [WorkloadCell(32, 4), WorkloadCell(64, 4), WorkloadCell(96, 4), WorkloadCell(128, 4)]
    with pytest.raises(CollectError, match="5 requests in a row failed: HTML"):
        await collect(tmp_path / "r.csv", job_of(backend, cells), backend)


async def test_a_refused_prompt_is_counted_and_left_out(tmp_path):
    backend = Backend([None, None, None, BackendStatusError(400, b"too long"), None])
    job = job_of(backend, [WorkloadCell(0, 0, 1)], prompts=["a", "b", "c"])
    rows, trouble = await collect(tmp_path / "r.csv", job, backend)
    assert [r.repeat for r in rows] == [0, 2]
    assert (trouble.given_up, trouble.refusals) == (1, ["400: too long"])


async def test_a_wrong_key_ends_the_run_at_once(tmp_path):
    backend = Backend([BackendStatusError(401, b"no")])
    with pytest.raises(CollectError, match="--api-key-env"):
        await collect(tmp_path / "r.csv", job_of(backend, [WorkloadCell(32, 4)]), backend)


async def test_long_prompts_leave_room_for_an_answer(tmp_path):
    backend = Backend()
    job = job_of(backend, [WorkloadCell(0, 0, 1)], prompts=["word " * 300], context=512)
    await collect(tmp_path / "r.csv", job, backend)
    path, asked, _ = backend.asked[-1]
    assert path == "/v1/chat/completions"
    assert 1 <= asked["max_tokens"] < 512 - 300


async def test_gauges_count_our_own_and_see_others():
    now, seen = 0.0, (3, 1)

    async def scrape():
        return seen

    gauges = LoadGauges(scrape, clock=lambda: now)
    assert gauges.count_other_requests() == (0, None)
    await gauges.refresh_load()
    assert gauges.count_other_requests() == (4, 1)  # nothing of it is ours
    with gauges.track_request(), gauges.track_request():
        assert gauges.count_other_requests() == (6, 1)
        now, seen = 10.0, (2, 0)
        await gauges.refresh_load()
        assert gauges.count_other_requests() == (2, 0)
    now = 20.0
    await gauges.refresh_load()  # it still shows our two: gauges lag
    assert gauges.count_other_requests() == (0, 0)
    now = 30.0
    await gauges.refresh_load()
    now = 40.0
    await gauges.refresh_load()
    assert gauges.count_other_requests() == (2, 0)  # by now they are somebody else's
    seen = None
    now = 50.0
    await gauges.refresh_load()
    assert gauges.count_other_requests() == (0, None)


@pytest.mark.parametrize("url", ["ftp://x", "http://", "nothing", "http://[x"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(TargetError):
        TargetServer("tiny", url)


def test_the_sdks_base_url_is_taken_too():
    assert str(TargetServer("tiny", "http://host:8000/v1/").url) == "http://host:8000"
    assert (
        str(TargetServer("tiny", "http://host:8000/models/tiny").url)
        == "http://host:8000/models/tiny"
    )
    assert TargetServer("tiny", "http://localhost:8000").is_local
    assert not TargetServer("tiny", "http://gpu-3:8000").is_local
