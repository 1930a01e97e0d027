"""The store of budgets in Redis: what a real server does to connections that are kept to it."""

import asyncio
import shutil

import pytest

from gateway.service.callers.budget_ledger import BudgetSettlement
from gateway.service.callers.budget_store import UsageEntry
from gateway.service.callers.redis_store import RedisStore
from tests.integration.harness import until
from tests.integration.keys import RunningRedis

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
