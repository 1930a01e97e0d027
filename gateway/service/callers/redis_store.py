"""Budgets and usage in Redis or Valkey, shared by all gateways that use the same one.

Rules: reserving and settling are one Lua script each, so that no two gateways see half of either.
All additions are HINCRBY, whole numbers of 64 bits: Lua's own are doubles and only compared.
A settlement is told at most once, however often it is sent: the request's id is noted with it.
"""

from collections.abc import Sequence
from typing import Any, Final

from redis import asyncio as aioredis
from redis.exceptions import RedisError

from gateway.service.callers.budget_ledger import (
    BudgetBalance,
    BudgetCharge,
    BudgetSettlement,
    BudgetVerdict,
)
from gateway.service.callers.budget_store import StoreUnavailable, UsageEntry

_PREFIX: Final = "joulegate:"
_HELD: Final = ":held"
_KEPT_SECONDS: Final = 7 * 86_400
_USAGE_KEPT_SECONDS: Final = 400 * 86_400

_EXPIRE: Final = """
local function expire(account, held, now)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', held, '-inf', now)) do
    local amount = string.match(member, '^(%d+) ')
    redis.call('HINCRBY', account, 'reserved', '-' .. amount)
    redis.call('HINCRBY', account, 'settled', amount)
    redis.call('ZREM', held, member)
  end
end
"""
# KEYS: account, held of each charge. ARGV: request, expires_at, now; amount, limit, soft, until.
_RESERVE: Final = (
    _EXPIRE
    + """
local passed = {}
for i = 1, #KEYS / 2 do
  local account, held = KEYS[2 * i - 1], KEYS[2 * i]
  expire(account, held, ARGV[3])
  local stands = redis.call('HMGET', account, 'settled', 'reserved')
  local spent = tonumber(stands[1] or 0) + tonumber(stands[2] or 0)
  if spent + tonumber(ARGV[4 * i]) > tonumber(ARGV[4 * i + 1]) then
    if ARGV[4 * i + 2] == '0' then return {i - 1} end
    passed[#passed + 1] = i - 1
  end
end
for i = 1, #KEYS / 2 do
  local account, held = KEYS[2 * i - 1], KEYS[2 * i]
  redis.call('HINCRBY', account, 'reserved', ARGV[4 * i])
  redis.call('ZADD', held, ARGV[2], ARGV[4 * i] .. ' ' .. ARGV[1])
  redis.call('EXPIREAT', account, ARGV[4 * i + 3])
  redis.call('EXPIREAT', held, ARGV[4 * i + 3])
end
return {-1, unpack(passed)}
"""
)
# KEYS: told, usage; account, held of each. ARGV: request, reserved, until, usage's until, number of
# usage fields; these fields; held amount, amount of each account.
_SETTLE: Final = """
if not redis.call('SET', KEYS[1], '1', 'NX', 'EX', 3600) then return 0 end
local fields = tonumber(ARGV[5])
for i = 1, fields do
  redis.call('HINCRBY', KEYS[2], ARGV[4 + 2 * i], ARGV[5 + 2 * i])
end
if fields > 0 then redis.call('EXPIREAT', KEYS[2], ARGV[4]) end
for i = 2, #KEYS / 2 do
  local account, held = KEYS[2 * i - 1], KEYS[2 * i]
  local at = 5 + 2 * fields + 2 * (i - 2)
  local member = ARGV[at + 1] .. ' ' .. ARGV[1]
  local there = redis.call('ZREM', held, member) == 1
  if there then redis.call('HINCRBY', account, 'reserved', '-' .. ARGV[at + 1]) end
  if there or ARGV[2] == '0' then
    redis.call('HINCRBY', account, 'settled', ARGV[at + 2])
    redis.call('EXPIREAT', account, ARGV[3])
  end
end
return 1
"""


class RedisStore:
    """Keeps accounts at `url`; one that does not answer within `seconds` is unavailable."""

    def __init__(self, url: str, seconds: float) -> None:
        # By RESP3 redis-py 8 waits for news of maintenance, and so leaves out the look at a kept
        # connection which shows that the server has closed it.
        self.pool = aioredis.ConnectionPool.from_url(
            url, protocol=2, socket_timeout=seconds, socket_connect_timeout=seconds
        )
        self._client: Any = aioredis.Redis(connection_pool=self.pool)
        self._reserve = self._client.register_script(_RESERVE)
        self._settle = self._client.register_script(_SETTLE)

    async def reserve_amounts(
        self, request: str, charges: Sequence[BudgetCharge], expires_at: float, now: float
    ) -> BudgetVerdict:
        """Reserve every charge of a request, or none where a hard one does not fit."""
        keys: list[str] = []
        arguments: list[str | int | float] = [request, expires_at, now]
        for charge in charges:
            account = _PREFIX + charge.account
            keys += [account, account + _HELD]
            until = int(max(charge.ends_at, expires_at)) + _KEPT_SECONDS
            arguments += [charge.amount, charge.limit, int(charge.soft), until]
        refused, *passed = await self._call(self._reserve(keys, arguments))
        return BudgetVerdict(None if refused < 0 else refused, tuple(passed))

    async def settle_request(self, settlement: BudgetSettlement, usage: UsageEntry) -> None:
        """Replace a request's reservations by what it took, and count it, once."""
        fields = [item for pair in usage.fields.items() for item in pair]
        account = _PREFIX + usage.account
        keys = [f"{account}:told:{settlement.request}", account]
        until = int(settlement.ends_at) + _KEPT_SECONDS
        arguments: list[str | int | float] = [
            settlement.request,
            int(settlement.reserved),
            until,
            int(usage.ends_at) + _USAGE_KEPT_SECONDS,
            len(usage.fields),
            *fields,
        ]
        for name, held, amount in settlement.amounts:
            keys += [_PREFIX + name, _PREFIX + name + _HELD]
            arguments += [held, amount]
        await self._call(self._settle(keys, arguments))

    async def read_balances(
        self,
        accounts: Sequence[str],
        now: float,  # noqa: ARG002 - for others
    ) -> list[BudgetBalance]:
        """Return how accounts stand."""
        found = []
        for name in accounts:
            fields = await self._call(self._client.hmget(_PREFIX + name, "settled", "reserved"))
            found.append(BudgetBalance(*(int(value or 0) for value in fields)))
        return found

    async def read_usage(self, account: str) -> dict[str, int]:
        """Return the totals of a key's month."""
        found = await self._call(self._client.hgetall(_PREFIX + account))
        return {name.decode(): int(value) for name, value in found.items()}

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
        await self.pool.aclose()

    async def _call(self, asked: Any) -> Any:
        try:
            return await asked
        except (RedisError, OSError, TimeoutError) as error:
            # Never its text: that may hold the address with a password.
            raise StoreUnavailable(type(error).__name__) from None
