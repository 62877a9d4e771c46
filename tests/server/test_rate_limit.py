"""How much each client may send: counted in memory, or in Redis over a real socket."""

import asyncio
import logging
import re
import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest
import redis
from fakeredis import TcpFakeServer
from running import running

from arrowembed.errors import InvalidArgumentError
from arrowembed.server import rate_limit
from arrowembed.server.errors import ServiceError
from arrowembed.server.rate_limit import (
    MemoryBuckets,
    RateLimit,
    RateLimiter,
    RedisBuckets,
    client_key,
)
from arrowembed.server.security.principal import Principal

ANONYMOUS = Principal("", "anonymous", frozenset())
SLOW = RateLimit(per_minute=6, burst=10)
"""In a test's time nothing flows back."""
FAST = RateLimit(per_minute=60_000, burst=10)


class FakeRedis(TcpFakeServer):
    """A server in Python that runs the same Lua."""

    request_queue_size = 64


@contextmanager
def redis_running(folder):
    """A Redis server: the real one if it is installed, as Debian's package redis-server."""
    if shutil.which("redis-server") is None:
        server = FakeRedis(("127.0.0.1", 0), server_type="redis")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"redis://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        server.server_close()
        thread.join()
        return
    path = folder / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", folder]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    try:
        while not path.exists():
            assert process.poll() is None
            time.sleep(0.01)
        yield f"unix://{path}"
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module", autouse=True)
def _patient():
    """What is tested is what Redis counts, not how soon a busy machine answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rate_limit, "_REDIS_TIMEOUT", 60.0)
        yield


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    with redis_running(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(params=["memory", "redis"])
def buckets(request, redis_url):
    """Makes empty buckets of either kind."""
    made = []

    def make(limit):
        if request.param == "memory":
            return MemoryBuckets(limit)
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
        made.append(RedisBuckets(limit, redis_url))
        return made[-1]

    return make


async def closing(buckets, work):
    """What `work` gives; the connections belong to this event loop and end with it."""
    try:
        return await work
    finally:
        if isinstance(buckets, RedisBuckets):
            await buckets.close()


def take(buckets, *requests):
    """What a bucket says to requests, one after the other: (client, texts)."""

    async def all_of_them():
        return [await buckets.take(client, texts) for client, texts in requests]

    return asyncio.run(closing(buckets, all_of_them()))


def test_a_bucket_is_emptied_and_refuses(buckets):
    a, b, c = take(buckets(SLOW), ("one", 4), ("one", 6), ("one", 3))
    assert (round(a.level), a.wait) == (6, 0)
    assert (round(b.level), b.wait) == (0, 0)
    # Three texts at six a minute.
    assert c.wait == pytest.approx(30, abs=1)
    assert round(c.level) == 0


def test_clients_do_not_share_a_bucket(buckets):
    allowances = take(buckets(SLOW), ("one", 10), ("two", 10), ("one", 1))
    assert [allowance.wait > 0 for allowance in allowances] == [False, False, True]


def test_a_bucket_is_filled_again(buckets):
    made = buckets(FAST)

    async def empty_and_wait():
        await made.take("one", 10)
        allowance = await made.take("one", 10)
        while allowance.wait > 0:
            allowance = await made.take("one", 10)
        return allowance

    allowance = asyncio.run(asyncio.wait_for(closing(made, empty_and_wait()), 60))
    assert 0 <= allowance.level <= 10


def test_a_request_larger_than_the_bucket_passes_when_it_is_full_and_leaves_a_debt(buckets):
    a, b = take(buckets(SLOW), ("one", 25), ("one", 1))
    assert (round(a.level), a.wait) == (-15, 0)
    assert b.wait == pytest.approx(160, abs=1)
    first, second = take(buckets(SLOW), ("two", 1), ("two", 25))
    assert first.wait == 0
    assert second.wait == pytest.approx(10, abs=1)


def test_requests_at_the_same_time_get_no_more_than_there_is(buckets):
    made = buckets(SLOW)

    async def at_once():
        return await asyncio.gather(*(made.take("one", 1) for _ in range(40)))

    allowances = asyncio.run(closing(made, at_once()))
    assert sum(allowance.wait == 0 for allowance in allowances) == 10


def test_replicas_share_what_is_in_redis(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        assert take(RedisBuckets(SLOW, redis_url), ("one", 10))[0].wait == 0
        assert take(RedisBuckets(SLOW, redis_url), ("one", 10))[0].wait > 0
        # Nobody reads there who the clients are, and what is full again is forgotten.
        (key,) = client.keys()
        assert re.fullmatch(rb"arrowembed:rate:[0-9a-f]{32}", key)
        assert 90_000 < client.pttl(key) <= 101_000


def test_only_so_many_clients_are_remembered():
    made = MemoryBuckets(SLOW, most_clients=3)
    take(made, *((f"client-{i}", 10) for i in range(10)))
    assert len(made) == 3
    last, first = take(made, ("client-9", 1), ("client-0", 1))
    assert last.wait > 0
    assert first.wait == 0
    assert len(made) == 3


@pytest.mark.parametrize(
    ("principal", "address", "expected"),
    [
        (Principal("web", "key", frozenset()), "10.0.0.1", "key:web"),
        (Principal("web", "token", frozenset()), None, "token:web"),
        (ANONYMOUS, "10.0.0.1", "address:10.0.0.1"),
        (ANONYMOUS, "2001:db8:1:2:3:4:5:6", "address:2001:db8:1:2::/64"),
        (ANONYMOUS, "2001:db8:1:2::1", "address:2001:db8:1:2::/64"),
        (ANONYMOUS, "2001:db8:1:3::1", "address:2001:db8:1:3::/64"),
        (ANONYMOUS, "fe80::1%eth0", "address:fe80::/64"),
        (ANONYMOUS, "::ffff:10.0.0.1", "address:10.0.0.1"),
        (ANONYMOUS, "no address", "address:no address"),
        (ANONYMOUS, None, "address:None"),
    ],
)
def test_whose_bucket_it_is(principal, address, expected):
    assert client_key(principal, address) == expected


class Unreachable:
    """A store that fails, and counts how often it is asked."""

    failures = (OSError,)

    def __init__(self):
        self.asked = 0

    async def take(self, client, texts):
        self.asked += 1
        raise ConnectionError("who asked for what")


def test_while_redis_fails_each_process_counts_on_its_own(caplog):
    store, failures = Unreachable(), []
    limiter = RateLimiter(SLOW, store, on_store_failure=lambda: failures.append(None))

    async def ask():
        answers = (limiter.take("key:one", 1) for _ in range(20))
        return await asyncio.gather(*answers, return_exceptions=True)

    refusals = [a for a in asyncio.run(ask()) if isinstance(a, ServiceError)]
    assert [error.code for error in refusals] == ["rate_limited"] * 10
    assert len(failures) == 20
    # It is asked again only after a pause, and it is said once.
    assert store.asked == 1
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (
        logging.ERROR,
        (
            "the store of the rate limit failed (ConnectionError); "
            "requests are counted by each process"
        ),
    )


def test_while_redis_fails_requests_can_be_refused(caplog):
    limiter = RateLimiter(SLOW, Unreachable(), when_store_fails="closed")
    for _ in range(2):
        with pytest.raises(ServiceError) as error:
            asyncio.run(limiter.take("key:one", 1))
        assert error.value.code == "rate_limit_unavailable"
    assert len(caplog.records) == 1


def test_it_is_said_again_after_a_minute(caplog, monkeypatch):
    limiter = RateLimiter(SLOW, Unreachable())
    for now, times_said in ((0.0, 1), (30.0, 1), (59.0, 1), (61.0, 2)):
        clock = type("time", (), {"monotonic": staticmethod(lambda now=now: now)})
        monkeypatch.setattr(rate_limit, "time", clock)
        asyncio.run(limiter.take("key:one", 0))
        assert len(caplog.records) == times_said


def test_redis_that_goes_and_comes_back(tmp_path):
    limit = RateLimit(per_minute=60, burst=5)
    with redis_running(tmp_path) as url:
        store = RedisBuckets(limit, url)
        limiter = RateLimiter(limit, store)
        asyncio.run(closing(store, limiter.take("key:one", 5)))
    store = RedisBuckets(limit, url)
    failures = []
    limiter = RateLimiter(limit, store, on_store_failure=lambda: failures.append(None))
    asyncio.run(closing(store, limiter.take("key:one", 5)))
    assert len(failures) == 1
    asyncio.run(limiter.close())


def test_redis_that_does_not_answer_holds_no_request_up(monkeypatch):
    monkeypatch.setattr(rate_limit, "_REDIS_TIMEOUT", 0.25)
    limit = RateLimit(per_minute=60, burst=100)
    failures = []

    async def ask(url):
        store = RedisBuckets(limit, url)
        limiter = RateLimiter(limit, store, on_store_failure=lambda: failures.append(None))
        # More than there are connections: the last wait for one.
        requests = (limiter.take("key:one", 1) for _ in range(2 * rate_limit._REDIS_CONNECTIONS))
        return await asyncio.wait_for(closing(store, asyncio.gather(*requests)), 60)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        allowances = asyncio.run(ask(f"redis://127.0.0.1:{silent.getsockname()[1]}"))
    assert [allowance.wait for allowance in allowances] == [0] * len(allowances)
    assert len(failures) == len(allowances)


@pytest.fixture(scope="module")
def limited(bert_mean_folder, redis_url):
    with running(
        models=[{"name": "tiny", "source": str(bert_mean_folder)}],
        rate_limit=6,
        rate_limit_burst=10,
        rate_limit_redis=redis_url,
    ) as service:
        yield service


def test_the_service_says_what_is_left_and_when_to_come_again(limited):
    for texts, left in ((4, 6), (6, 0)):
        answer = limited.post("/embed", {"texts": ["a"] * texts})
        assert answer.status_code == 200
        assert answer.headers["ratelimit-policy"] == '"texts";q=10;w=100'
        assert answer.headers["ratelimit"].startswith(f'"texts";r={left};t=')
    for path in ("/embed", "/tokenize"):
        refused = limited.post(path, {"texts": ["a"] * 3})
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "rate_limited"
        assert refused.json()["error"]["message"].startswith("this client may send 6 texts a min")
        assert 20 <= int(refused.headers["retry-after"]) <= 30
        assert refused.headers["ratelimit"].startswith('"texts";r=0;t=')
    # What is no text costs nothing.
    assert limited.client.get("/info").status_code == 200
    text = limited.client.get("/metrics").text
    assert "embedding_rate_limited_total 2.0" in text
    assert 'embedding_errors_total{code="rate_limited"} 2.0' in text
    assert "embedding_rate_limit_store_failures_total 0.0" in text


def test_an_address_that_is_none_is_not_repeated():
    with pytest.raises(InvalidArgumentError, match="rate_limit_redis: expected redis://") as error:
        RedisBuckets(SLOW, "http://user:secret@localhost")
    assert "secret" not in str(error.value)
    assert error.value.__suppress_context__


def test_without_a_limit_nothing_is_said(service):
    answer = service.post("/embed", {"texts": "a"})
    assert "ratelimit" not in answer.headers
    assert "ratelimit-policy" not in answer.headers


def test_each_key_has_its_own_bucket(bert_mean_folder):
    from arrowembed.server.security.keys import new_key

    made = [new_key(name, ["embed"]) for name in ("one", "two")]
    with running(
        models=[{"name": "tiny", "source": str(bert_mean_folder)}],
        api_keys=" ".join(kept.entry() for _, kept in made),
        rate_limit=5,
    ) as service:
        for key, _ in made:
            headers = {"x-api-key": key}
            statuses = [
                service.post("/embed", {"texts": ["a"] * 5}, headers=headers).status_code
                for _ in range(2)
            ]
            assert statuses == [200, 429]
