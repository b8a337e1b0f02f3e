"""How often who may ask: counted in Redis for all replicas, and in this process alone while Redis is away."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

import structlog
from redis.exceptions import RedisError

from app.core.errors import Busy
from app.core.settings import Settings

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.aio.strategies import SlidingWindowCounterRateLimiter
    from redis.asyncio import BlockingConnectionPool

log = structlog.get_logger(__name__)

PREFIX: Final = "ganvas:rate"  # of Redis keys
REDIS_SECONDS: Final = 0.5  # that a request waits for Redis, once, before it is counted here
AWAY_SECONDS: Final = 5.0  # until Redis is asked again
CONNECTIONS: Final = 16
FILLS: Final = 600  # of a rate, at most: a key with 6000/minute has ten requests counted at once
FILL_SECONDS: Final = 1.0  # in which they may be spent; after that they are lost
REFUSED_SECONDS: Final = 0.25  # in which a key that asked too often is refused unasked
REMEMBERED_PURSES: Final = 4096
IPV6_NETWORK_BITS: Final = 64  # what one household or machine has, all of it

HeaderPairs = Sequence[tuple[bytes, bytes]]


class RateExceeded(Busy):
    """Too many requests; carries the headers that say how many there may be."""

    code = "rate_limited"

    def __init__(self, allowance: "Allowance", whose: str) -> None:
        message = f"More than {allowance.limit:,} requests in {allowance.window} s came {whose}; slow down."
        super().__init__(message, retry_after=allowance.reset, code=type(self).code)
        self.allowance = allowance


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a rate."""

    policy: str
    limit: int  # requests
    window: int  # seconds
    remaining: int
    reset: float  # seconds until some are given back

    def headers(self) -> HeaderPairs:
        """As draft-ietf-httpapi-ratelimit-headers says it, and as OpenAI's clients read it."""
        seconds = max(0, math.ceil(self.reset))
        said = {
            "ratelimit-policy": f'"{self.policy}";q={self.limit};w={self.window}',
            "ratelimit": f'"{self.policy}";r={self.remaining};t={seconds}',
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.remaining),
            "x-ratelimit-reset-requests": f"{seconds}s",
        }
        return [(name.encode(), value.encode()) for name, value in said.items()]


class Purse:
    """Requests of one key or address that are counted already, so that not each asks Redis; or that there are none."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.left = 0
        self.refuses = False  # there were none to be had
        self.until = 0.0  # monotonic seconds: so long they may be spent, or are refused unasked
        self.allowance = Allowance("", 0, 0, 0, 0.0)  # behind them

    def holds(self) -> bool:
        """Whether it says what becomes of a request."""
        return (self.left > 0 or self.refuses) and time.monotonic() < self.until


class Limiter:
    """Counts requests by API key and by address. It belongs to one event loop, and opens nothing until it counts."""

    def __init__(self, settings: Settings) -> None:
        self._rate_per_key = settings.rate_per_key
        self._rate_per_address = settings.rate_per_address
        self._url = settings.redis
        self._pool: BlockingConnectionPool | None = None
        self._shared: SlidingWindowCounterRateLimiter | None = None
        self._own: SlidingWindowCounterRateLimiter | None = None
        self._away_until = 0.0
        self._purses: dict[tuple[str, str], Purse] = {}

    async def count_address(self, address: str) -> None:
        """Count a request from this address, whatever key it has; RateExceeded where there were too many."""
        await self._count("address", _network(address), self._rate_per_address, "from this address")

    async def count(self, key_id: str, rate: str | None) -> Allowance:
        """Count a request with this key, and say what is left; RateExceeded where there were too many. rate: the key's
        own, None for the setting's."""
        return await self._count("key", key_id, rate or self._rate_per_key, "with this key")

    async def close(self) -> None:
        """Let go of Redis."""
        if self._pool is not None:
            await self._pool.aclose()

    async def _count(self, policy: str, whose: str, rate: str, said: str) -> Allowance:
        if len(self._purses) >= REMEMBERED_PURSES:
            self._purses.clear()
        purse = self._purses.setdefault((policy, whose), Purse())
        if not purse.holds():
            async with purse.lock:  # one of many that come at once fills it for all
                if not purse.holds():
                    await self._fill(purse, policy, whose, rate)
        if purse.left == 0:
            raise RateExceeded(purse.allowance, said)
        purse.left -= 1
        return replace(purse.allowance, remaining=purse.allowance.remaining + purse.left)

    async def _fill(self, purse: Purse, policy: str, whose: str, rate: str) -> None:
        from limits import parse

        item = parse(rate)
        if time.monotonic() >= self._away_until:
            try:
                await _fill_from(self._in_redis(), purse, item, (policy, whose))
                return
            except (RedisError, OSError) as error:
                log.warning("rates_counted_here", reason=str(error))
                self._away_until = time.monotonic() + AWAY_SECONDS
        await _fill_from(self._here(), purse, item, (policy, whose))

    def _in_redis(self) -> "SlidingWindowCounterRateLimiter":
        if self._shared is None:
            from limits.aio.storage import RedisStorage
            from limits.aio.strategies import SlidingWindowCounterRateLimiter
            from redis.asyncio import BlockingConnectionPool

            self._pool = BlockingConnectionPool.from_url(
                self._url,
                max_connections=CONNECTIONS,
                timeout=REDIS_SECONDS,
                socket_timeout=REDIS_SECONDS,
                socket_connect_timeout=REDIS_SECONDS,
            )
            url = f"async+redis+{self._url}" if self._url.startswith("unix") else f"async+{self._url}"
            storage = RedisStorage(
                url,
                implementation="redispy",
                key_prefix=PREFIX,
                connection_pool=self._pool,  # type: ignore[arg-type]
            )
            self._shared = SlidingWindowCounterRateLimiter(storage)
        return self._shared

    def _here(self) -> "SlidingWindowCounterRateLimiter":
        if self._own is None:
            from limits.aio.storage import MemoryStorage
            from limits.aio.strategies import SlidingWindowCounterRateLimiter

            self._own = SlidingWindowCounterRateLimiter(MemoryStorage())
        return self._own


async def _fill_from(
    limiter: "SlidingWindowCounterRateLimiter", purse: Purse, item: "RateLimitItem", whose: tuple[str, str]
) -> None:
    """Take some of what the rate has left, one request at least; nothing where it has nothing."""
    given_back = int(
        item.amount * FILL_SECONDS / item.get_expiry()
    )  # while they can be spent: what is lost is nobody's
    some = max(1, min(item.amount // FILLS, given_back))
    if not await limiter.hit(item, *whose, cost=some):
        some = int(some > 1 and await limiter.hit(item, *whose))
    stats = await limiter.get_window_stats(item, *whose)
    reset = stats.reset_time - time.time()
    purse.allowance = Allowance(whose[0], item.amount, item.get_expiry(), stats.remaining if some else 0, reset)
    purse.left, purse.refuses = some, not some
    purse.until = time.monotonic() + (FILL_SECONDS if some else min(max(reset, 0.0), REFUSED_SECONDS))


def _network(address: str) -> str:
    """Whom an address stands for: a neighbour of IPv6 has more addresses than can be counted."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:  # a proxy's word for it
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(IPv6Address(int(parsed) >> (128 - IPV6_NETWORK_BITS) << (128 - IPV6_NETWORK_BITS)))
    return str(parsed)
