"""How many texts a client may send: a token bucket for each.

A bucket holds `burst` texts and is filled by `per_minute` texts a minute. A request takes out what
it brings. One that is larger than the bucket passes when the bucket is full, and leaves a debt
behind: so every request can pass at some time, and the rate holds all the same.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from arrowembed.errors import InvalidArgumentError, MissingDependencyError
from arrowembed.server.errors import ServiceError
from arrowembed.server.observe.record import current

if TYPE_CHECKING:
    from collections.abc import Callable

    from arrowembed.server.security.principal import Principal

WhenStoreFails: TypeAlias = Literal["open", "closed"]

_logger = logging.getLogger(__name__)

_MOST_CLIENTS = 100_000
"""Buckets in memory, some 200 bytes each."""
_REDIS_TIMEOUT = 0.25
"""Seconds that a request waits for Redis at most."""
_REDIS_CONNECTIONS = 32
_REDIS_PAUSE = 1.0
"""Seconds for which Redis is left alone after it has failed, so that not every request waits."""
_LOG_INTERVAL = 60.0


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The limit for each client, in texts."""

    per_minute: int
    burst: int

    @property
    def per_second(self) -> float:
        """The rate at which buckets are filled."""
        return self.per_minute / 60


@dataclass(frozen=True, slots=True)
class Allowance:
    """How a client's bucket stands after a request.

    Attributes:
        level: Texts left; negative is a debt.
        wait: Seconds until the request would pass; 0 if it does.
    """

    level: float
    wait: float

    def headers(self, limit: RateLimit) -> dict[str, str]:
        """What is left and when the bucket is full again (draft-ietf-httpapi-ratelimit-headers)."""
        left = max(0, math.floor(self.level))
        full_in = math.ceil((limit.burst - self.level) / limit.per_second)
        window = math.ceil(limit.burst / limit.per_second)
        return {
            "ratelimit-policy": f'"texts";q={limit.burst};w={window}',
            "ratelimit": f'"texts";r={left};t={full_in}',
        }


class Buckets(Protocol):
    """Where buckets are kept."""

    async def take(self, client: str, texts: int) -> Allowance:
        """Takes texts out of a client's bucket, if it has them."""
        ...


class MemoryBuckets:
    """Buckets of one process.

    Of more clients than `most_clients`, those longest gone are forgotten: their buckets are full
    again, or soon would be.
    """

    def __init__(self, limit: RateLimit, *, most_clients: int = _MOST_CLIENTS) -> None:
        self._limit = limit
        self._most_clients = most_clients
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    async def take(self, client: str, texts: int) -> Allowance:
        """See `Buckets`."""
        now = time.monotonic()
        level, then = self._buckets.get(client, (self._limit.burst, now))
        level = min(self._limit.burst, level + (now - then) * self._limit.per_second)
        needed = min(texts, self._limit.burst)
        wait = 0.0
        if level >= needed:
            level -= texts
        else:
            wait = (needed - level) / self._limit.per_second
        self._buckets[client] = level, now
        self._buckets.move_to_end(client)
        if len(self._buckets) > self._most_clients:
            self._buckets.popitem(last=False)
        return Allowance(level, wait)


# The same in Redis, in one step for all replicas, by its own clock. Numbers are returned as text
# because Redis cuts them to integers. A bucket is forgotten once it would be full.
_TAKE = """
local rate, burst, texts = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local bucket = redis.call('HMGET', KEYS[1], 'level', 'time')
local level = burst
if bucket[1] then
  level = math.min(burst, tonumber(bucket[1]) + math.max(0, now - tonumber(bucket[2])) * rate)
end
local needed, wait = math.min(texts, burst), 0
if level >= needed then
  level = level - texts
else
  wait = (needed - level) / rate
end
redis.call('HSET', KEYS[1],
  'level', string.format('%.17g', level), 'time', string.format('%.17g', now))
redis.call('PEXPIRE', KEYS[1], math.ceil((burst - level) / rate * 1000) + 1000)
return {string.format('%.17g', level), string.format('%.17g', wait)}
"""


class RedisBuckets:
    """Buckets that all replicas share.

    Args:
        limit: Of each client.
        url: `redis://` or `rediss://` address of the server.

    Raises:
        MissingDependencyError: The package `redis` is not installed.
        InvalidArgumentError: The address is none.
    """

    def __init__(self, limit: RateLimit, url: str) -> None:
        try:
            from redis import asyncio as redis  # noqa: PLC0415 - an extra of its own
            from redis.asyncio.retry import Retry  # noqa: PLC0415
            from redis.backoff import NoBackoff  # noqa: PLC0415
            from redis.exceptions import RedisError  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise MissingDependencyError.of(
                "redis", purpose="rate_limit_redis", install='"arrowembed[redis]"'
            ) from error
        self.failures: tuple[type[Exception], ...] = (RedisError, OSError)
        self._limit = limit
        try:
            pool = redis.BlockingConnectionPool.from_url(
                url,
                max_connections=_REDIS_CONNECTIONS,
                timeout=_REDIS_TIMEOUT,
                socket_timeout=_REDIS_TIMEOUT,
                socket_connect_timeout=_REDIS_TIMEOUT,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError:
            # Not repeated, nor kept as the cause: it may hold a password.
            raise InvalidArgumentError(
                "rate_limit_redis: expected redis://HOST:PORT, rediss://HOST:PORT or unix://PATH"
            ) from None
        self._redis = redis.Redis.from_pool(pool)

    async def take(self, client: str, texts: int) -> Allowance:
        """See `Buckets`.

        Raises:
            Exception: One of `failures`: Redis cannot be reached, or refuses.
        """
        # A subject may be long, and is none of Redis' business.
        key = "arrowembed:rate:" + hashlib.sha256(client.encode()).hexdigest()[:32]
        rate, burst = self._limit.per_second, self._limit.burst
        level, wait = await self._redis.eval(_TAKE, 1, key, rate, burst, texts)
        return Allowance(float(level), float(wait))

    async def close(self) -> None:
        """Closes the connections."""
        await self._redis.aclose()


class RateLimiter:
    """Lets requests pass, or refuses them.

    Args:
        limit: Of each client.
        shared: Buckets for all replicas. Without, each process counts on its own.
        when_store_fails: What happens while those cannot be reached. "open": each process counts on
            its own meanwhile. "closed": requests are refused.
        on_store_failure: Called each time.
    """

    def __init__(
        self,
        limit: RateLimit,
        shared: RedisBuckets | None = None,
        *,
        when_store_fails: WhenStoreFails = "open",
        on_store_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.limit = limit
        self._own = MemoryBuckets(limit)
        self._shared = shared
        self._when_store_fails = when_store_fails
        self._on_store_failure = on_store_failure
        self._left_alone_until = float("-inf")
        self._logged_at = float("-inf")

    async def take(self, client: str, texts: int) -> Allowance:
        """Counts a request.

        Args:
            client: See `client_key`.
            texts: How many the request brings.

        Raises:
            ServiceError: The client has to wait (`rate_limited`), or the shared buckets cannot be
                reached and that is a reason to refuse (`rate_limit_unavailable`).
        """
        allowance = await self._take_shared(client, texts)
        if allowance is None:
            allowance = await self._own.take(client, texts)
        if allowance.wait > 0:
            wait = math.ceil(allowance.wait)
            raise ServiceError(
                "rate_limited",
                f"this client may send {self.limit.per_minute} texts a minute; try again in "
                f"{wait} s",
                headers={"retry-after": str(wait), **allowance.headers(self.limit)},
            )
        return allowance

    async def close(self) -> None:
        """Closes the connections to the shared buckets."""
        if self._shared is not None:
            await self._shared.close()

    async def _take_shared(self, client: str, texts: int) -> Allowance | None:
        if self._shared is None:
            return None
        if time.monotonic() >= self._left_alone_until:
            try:
                return await self._shared.take(client, texts)
            except self._shared.failures as error:
                self._left_alone_until = time.monotonic() + _REDIS_PAUSE
                self._log(error)
        self._on_store_failure()
        if self._when_store_fails == "closed":
            raise ServiceError(
                "rate_limit_unavailable", "requests cannot be counted now; try again later"
            )
        return None

    def _log(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._logged_at >= _LOG_INTERVAL:
            self._logged_at = now
            _logger.error(
                "the store of the rate limit failed (%s); requests are %s",
                type(error).__name__,
                "counted by each process" if self._when_store_fails == "open" else "refused",
            )


async def charge_client(
    limiter: RateLimiter | None, principal: Principal, address: str | None, texts: int
) -> None:
    """Counts the request that this task answers; its answer says how many texts are left.

    Raises:
        ServiceError: As `RateLimiter.take`.
    """
    if limiter is not None:
        allowance = await limiter.take(client_key(principal, address), texts)
        current().headers.update(allowance.headers(limiter.limit))


def client_key(principal: Principal, address: str | None) -> str:
    """Whose bucket a request is for: the client's if it is known, else the address's.

    Of IPv6, where one household has 2^64 addresses, it is the network's.
    """
    if principal.kind != "anonymous":
        return f"{principal.kind}:{principal.name}"
    try:
        parsed = ip_address(address or "")
    except ValueError:
        return f"address:{address}"
    if isinstance(parsed, IPv6Address):
        mapped = parsed.ipv4_mapped
        return f"address:{mapped or ip_network((parsed, 64), strict=False)}"
    return f"address:{parsed}"
