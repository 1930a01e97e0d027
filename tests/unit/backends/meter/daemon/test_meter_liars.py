"""A flood and a liar: what they cost honest gateways, and how much they may fill."""

import pytest

from backends.exposition import sum_series
from backends.meter.daemon.ledger_runner import BackendSpec, LedgerSpec
from backends.meter.daemon.quotas import (
    MAX_GATEWAYS_PER_ADDRESS,
    MAX_KEPT_COUNTS,
    MAX_OPEN_REQUESTS,
)
from backends.meter.daemon.service import TooManyGatewaysError
from backends.meter.daemon.token_poller import TokenTotals
from backends.meter.protocol import RequestBegin, RequestEnd, RequestProgress
from tests.unit.backends.meter.meters import Silent, World

ROOT = "http://a:1"
HONEST = {"gateway": "honest", "address": "10.0.0.1"}
LIAR = {"gateway": "liar", "address": "10.0.0.2"}
PROMPT, TOKENS = 50, 30


def totals(prompt, generated, all_prompt=None):
    return TokenTotals(prompt, generated, 0, prompt if all_prompt is None else all_prompt)


def polled():
    return World(LedgerSpec("l", Silent(), (BackendSpec(ROOT, ("a",)),)))


class Traffic:
    """Two honest requests a second, each a second long, with a liar beside them if there is one."""

    def __init__(self, world, *, polls=True):
        self.world = world
        self.polls = polls
        self.done = 0
        self.observed = {}

    def run(self, seconds, lie=lambda _second: ()):
        """Serve, while `lie` says what the liar posts in each second."""
        for second in range(seconds):
            numbers = (2 * self.done + 1, 2 * self.done + 2)
            self.hear(*(RequestBegin(number, 0, 0, PROMPT, 2_000) for number in numbers))
            lies = list(lie(second))
            if lies:
                self.lie(*(one for one in lies if isinstance(one, RequestBegin)))
            self.world.pass_seconds(0.2)
            self.hear(*(RequestProgress(number, 0, 1) for number in numbers))
            self.world.pass_seconds(0.8, watts=3)
            if lies:
                self.lie(*(one for one in lies if not isinstance(one, RequestBegin)))
            self.hear(*(RequestEnd(number, 0, TOKENS) for number in numbers))
            self.done += 1
            self.tick()
        return self

    def tick(self):
        if self.polls:
            counted = 2 * PROMPT * self.done, 2 * TOKENS * self.done
            self.world.meter.record_token_counts(ROOT, self.world.now_us, totals(*counted))
        self.world.meter.expire_gateways(self.world.now_us)
        self.hear()

    def hear(self, *events):
        for one in self.world.post(*events, **HONEST).observations:
            self.observed[one.id] = one

    def lie(self, *events):
        self.world.post(*events, **LIAR)

    def settle(self, seconds=130, *, stays=False):
        for _ in range(seconds):
            self.world.pass_seconds(1)
            if stays:
                self.lie()
            self.tick()
        return self.observed


def joules_of(world, name, **labels):
    return sum_series(world.page(), name, **labels) or 0.0


def harm(observed, truth):
    """How many honest requests were moved by over 2% and not labelled; how many were labelled."""
    assert observed.keys() == truth.keys()
    moved = [
        number
        for number, one in observed.items()
        if one.method != "estimated" and abs(one.microjoules / truth[number].microjoules - 1) > 0.02
    ]
    return len(moved), sum(one.method == "estimated" for one in observed.values())


def many_begins(second):
    return [RequestBegin(second * 500 + n, 0, 0, 100_000, 10**9) for n in range(500)]


def invented_answers(second):
    numbers = [second * 10 + n for n in range(10)]
    return [
        *(RequestBegin(number, 0, 0, PROMPT, 2_000) for number in numbers),
        *(RequestProgress(number, 800_000, 1) for number in numbers),
        *(RequestEnd(number, 0, 5_000) for number in numbers),
    ]


def invented_prompts(second):
    numbers = [second * 10 + n for n in range(10)]
    return [
        *(RequestBegin(number, 0, 0, 100_000, 10**9) for number in numbers),
        *(RequestProgress(number, 500_000, 1) for number in numbers),
        *(RequestEnd(number, 0, 1, 100_000) for number in numbers),
    ]


@pytest.fixture(scope="module")
def truth():
    """What the honest requests get when nobody lies."""
    return Traffic(polled()).run(40).settle(6)


def test_honest_traffic_is_neither_clipped_nor_doubted(truth):
    assert len(truth) == 80
    assert {one.method for one in truth.values()} == {"apportioned"}
    world = polled()
    Traffic(world).run(40).settle(6)
    for name in ("refused_events", "clipped_tokens", "disputes", "suspensions"):
        assert joules_of(world, f"joulegate_meter_{name}_total") == 0


@pytest.mark.parametrize("stays", [False, True])
def test_a_flood_of_beginnings_moves_nobodys_joules(truth, stays):
    world = polled()
    flooded = Traffic(world).run(40, many_begins)
    assert world.meter.admission.quotas.open_requests <= MAX_OPEN_REQUESTS // 2
    assert harm(flooded.settle(stays=stays), truth) == (0, 0)
    assert joules_of(world, "joulegate_meter_refused_events_total", reason="open_requests") > 10_000


def test_nor_where_no_backend_tells_its_tokens(truth):
    flooded = Traffic(World(), polls=False).run(40, many_begins)
    moved, labelled = harm(flooded.settle(), truth)
    assert (moved, labelled) == (0, 0)


@pytest.mark.parametrize("lie", [invented_answers, invented_prompts])
def test_a_liar_moves_nobodys_joules_unsaid_and_is_shut_out(truth, lie):
    world = polled()
    lied_to = Traffic(world).run(40, lie)
    moved, labelled = harm(lied_to.settle(), truth)
    assert moved == 0
    assert labelled <= 10  # until it was found out
    assert joules_of(world, "joulegate_meter_disputes_total", ledger="l") >= 3
    assert joules_of(world, "joulegate_meter_suspensions_total") == 1
    assert joules_of(world, "joulegate_meter_refused_events_total", reason="suspended") > 0


def test_what_a_liar_is_told_feeds_no_refit():
    world = polled()
    world.post(**LIAR)
    world.meter.record_token_counts(ROOT, 0, totals(0, 0))
    world.post(RequestBegin(1, 0, 0, 10, 0), **LIAR)
    world.pass_seconds(1)
    world.post(RequestProgress(1, 500_000, 1), RequestEnd(1, 0, 1 << 40), **LIAR)
    assert joules_of(world, "joulegate_meter_clipped_tokens_total", type="generated") > 1e12
    world.pass_seconds(5)
    (observation,) = world.post(**LIAR).observations
    assert observation.method == "estimated"


def test_a_long_prompt_that_was_not_computed_is_clipped_at_its_end():
    world = polled()
    world.meter.record_token_counts(ROOT, world.now_us, totals(0, 0))
    world.post(RequestBegin(1, 0, 0, 100_000, 0), **LIAR)
    world.pass_seconds(1)
    world.post(RequestProgress(1, 0, 1), **LIAR)
    world.pass_seconds(1)
    world.meter.record_token_counts(ROOT, world.now_us, totals(100_000, 100))
    world.pass_seconds(1)
    world.post(RequestEnd(1, 0, 50, 500_000), **LIAR)
    clipped = joules_of(world, "joulegate_meter_clipped_tokens_total", type="prompt")
    assert 300_000 < clipped < 400_000


def test_a_gateway_that_is_told_late_of_what_was_counted_is_believed():
    """A unary answer's tokens are counted as they come and claimed at its end."""
    world = polled()
    for second in range(60):
        if second == 2:
            world.post(RequestBegin(1, 0, 0, PROMPT, 0), **HONEST)
        world.meter.record_token_counts(ROOT, world.now_us, totals(PROMPT, 100 * second))
        world.pass_seconds(1)
        world.post(**HONEST)
    world.post(RequestEnd(1, 0, 5_700), **HONEST)
    world.meter.record_token_counts(ROOT, world.now_us, totals(PROMPT, 6_000))
    assert joules_of(world, "joulegate_meter_disputes_total") == 0
    assert joules_of(world, "joulegate_meter_clipped_tokens_total") == 0


def test_one_gateway_of_an_address_leaves_room_for_another():
    world = World()
    for number in range(MAX_OPEN_REQUESTS):
        world.post(RequestBegin(number, 0, 0, 1, 0), gateway="flood")
    world.post(RequestBegin(1, 0, 0, 1, 0), gateway="beside")
    world.post(RequestBegin(1, 0, 0, 1, 0), gateway="elsewhere", address="10.0.0.9")
    opened = world.meter.runners["l"].ledger.open_requests
    assert opened == MAX_OPEN_REQUESTS // 3 + 2
    world.meter.expire_gateways(world.now_us)
    world.pass_seconds(400)
    world.meter.expire_gateways(world.now_us)
    world.meter.expire_gateways(world.now_us)
    quotas = world.meter.admission.quotas
    assert (quotas.open_requests, quotas._open_by_address) == (0, {})


def test_counts_behind_a_horizon_that_stands_are_bounded_and_freed():
    world = World()
    world.post(RequestBegin(0, 0, 0, 1, 0))  # no token: it holds up what is settled
    for number in range(1, 101):
        world.post(RequestBegin(number, 0, 0, 1, 0), RequestProgress(number, 0, 1))
    for _ in range(MAX_KEPT_COUNTS // 100 // 2):
        world.now_us += 1_000
        world.post(*(RequestProgress(number, 0, 2) for number in range(1, 101)))
    refused = joules_of(world, "joulegate_meter_refused_events_total", reason="token_counts")
    assert refused >= MAX_KEPT_COUNTS // 2 - MAX_KEPT_COUNTS // 3 - 200
    world.post(RequestEnd(0, 0, 1))
    world.pass_seconds(10)
    world.meter.expire_gateways(world.now_us)
    world.post(RequestProgress(1, 0, 3))
    after = joules_of(world, "joulegate_meter_refused_events_total", reason="token_counts")
    assert after == refused


def test_events_of_requests_that_never_began_are_bounded():
    world = World()
    world.post(*(RequestProgress(number, 0, 1) for number in range(500)))
    refused = joules_of(world, "joulegate_meter_refused_events_total", reason="unknown_request")
    assert refused == 400
    world.pass_seconds(11)
    world.post(RequestProgress(1, 0, 1))
    assert refused == 400


def test_an_address_has_so_many_gateways_and_the_one_gone_longest_makes_room():
    world = World()
    for number in range(MAX_GATEWAYS_PER_ADDRESS):
        world.post(gateway=str(number))
    with pytest.raises(TooManyGatewaysError, match="address"):
        world.post(gateway="one more")
    world.post(gateway="elsewhere", address="10.0.0.9")
    world.pass_seconds(11)
    for number in range(1, MAX_GATEWAYS_PER_ADDRESS):
        world.post(gateway=str(number))
    world.meter.expire_gateways(world.now_us)
    world.post(gateway="one more")
    with pytest.raises(TooManyGatewaysError):
        world.post(gateway="0")


@pytest.mark.parametrize("counts", [False, True])
def test_cached_prompts_and_counters_that_stand_still_make_nobody_a_liar(counts):
    world = polled()
    for second in range(20):
        tokens = 1_000 * second * counts
        cached = 100_000 * second * counts
        world.meter.record_token_counts(ROOT, world.now_us, totals(0, tokens, cached))
        world.post(RequestBegin(second, 0, 0, 100_000, 0), **HONEST)
        world.pass_seconds(1)
        world.post(RequestProgress(second, 100_000, 1), RequestEnd(second, 0, 1_000), **HONEST)
    world.pass_seconds(5)
    world.meter.expire_gateways(world.now_us)
    told = world.post(**HONEST).observations
    # A cache that nobody told of makes a request `coarse`, never a liar's `estimated`.
    assert {one.method for one in told[2:]} <= {"exclusive", "coarse"}
    assert joules_of(world, "joulegate_meter_disputes_total") == 0
    assert joules_of(world, "joulegate_meter_clipped_tokens_total") == 0
