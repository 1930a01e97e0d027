"""The store of budgets in Redis: its kept connections, and numbers that it cannot add."""

import asyncio
import shutil

import pytest
from aiohttp import web

from gateway.keys_config import KeyStoreConfig
from gateway.service.callers.budget_ledger import BudgetSettlement
from gateway.service.callers.budget_store import UsageEntry
from gateway.service.callers.redis_store import RedisStore
from tests.integration.harness import CHAT, model, until
from tests.integration.keys import RunningRedis, known
from tests.integration.scripted import plain

pytestmark = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="redis-server is not installed"
)
ENTRY = UsageEntry("usage:key_1:2100-01", {"requests": 1}, 4_102_444_800.0)
MANY = 12


async def settle_many(store, first):
    """Tell the store of many requests at once, so that it opens or uses a connection for each."""
    told = (
        store.settle_request(BudgetSettlement(f"r{number}", (), False, ENTRY.ends_at), ENTRY)
        for number in range(first, first + MANY)
    )
    await asyncio.gather(*told)


async def close_from_the_server(url):
    """Have Redis close every connection, as its `timeout`, a failover or a restart does."""
    from redis import asyncio as aioredis

    async with aioredis.from_url(url) as operator:
        await operator.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        async def alone():
            return len(await operator.client_list()) == 1

        await until(alone, "the connections to be closed")


async def test_a_kept_connection_that_redis_has_closed_costs_no_request_its_count():
    redis = await RunningRedis.start()
    store = RedisStore(redis.url, 10.0)
    try:
        await settle_many(store, 0)
        await close_from_the_server(redis.url)
        await settle_many(store, MANY)
        assert await store.read_usage(ENTRY.account) == {"requests": 2 * MANY}
    finally:
        await store.close()
        await redis.stop()


async def refuse_many_choices(request, seen):
    """Answer, or refuse as vLLM does what none can serve."""
    if seen.json.get("n", 1) <= 128:
        return await plain(request, seen)
    refusal = {"message": "n: at most 128", "type": "BadRequestError", "code": 400}
    return web.json_response({"error": refusal}, status=400)


async def test_no_number_that_one_client_asks_for_keeps_the_store_from_the_others(world, ring):
    redis = await RunningRedis.start()
    try:
        store = KeyStoreConfig(redis.url, when_away="closed", timeout_seconds=10.0)
        backend = await world.recorder(refuse_many_choices)
        gate = await world.gate(model("phi-3-mini", backend), keys=ring.config(store=store))
        soft = [{"per": "hour", unit: 1000, "soft": True} for unit in ("joules", "tokens")]
        greedy = await known(gate, ring.add("search", budgets=soft))
        other = await known(gate, ring.add("ads", budgets=soft))
        for n in (10**12, 10**400):
            assert (await gate.ask(CHAT | {"n": n}, greedy)).status == 400
            assert (await gate.ask(CHAT, other)).status == 200
        told = (await gate.get("/v1/usage", greedy)).json
        assert [budget["reserved"] for budget in told["budgets"]] == [0, 0]
        assert await gate.metric("joulegate_key_store_errors_total") == 0
    finally:
        await redis.stop()
