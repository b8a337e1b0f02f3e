"""How often who may ask: by key and by address, in Redis and without it; and how many jobs may wait."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api import limiting
from app.core.queue import connect
from app.core.records import ApiKey
from app.core.settings import Settings

PICTURE = "/v1/models/tiny/image?seed=1"
RENDER = {"kind": "batch", "model": "tiny", "seeds": "1-2"}


@pytest.fixture
def http(public: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=public.url, timeout=30) as made:
        yield made


def bearer(key: str, **headers: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} | headers


def assert_told(answer: httpx.Response, limit: int, remaining: int) -> None:
    assert answer.headers["ratelimit-policy"] == f'"key";q={limit};w=60'
    assert answer.headers["ratelimit"].startswith(f'"key";r={remaining};t=')
    assert answer.headers["x-ratelimit-limit-requests"] == str(limit)
    assert answer.headers["x-ratelimit-remaining-requests"] == str(remaining)
    assert 0 <= int(answer.headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 60


def test_a_key_may_ask_as_often_as_it_says_and_then_429(app: Any, make_key: Callable[..., str]) -> None:
    """With a real Redis, where another replica would count on."""
    secret = make_key(app, "generate", rate="3/minute")
    with app.client(authorization=f"Bearer {secret}") as client:
        for remaining in (2, 1, 0):
            answer = client.get(PICTURE)
            assert answer.status_code == 200
            assert_told(answer, 3, remaining)
        refused = client.get(PICTURE)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limited"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert_told(refused, 3, 0)
    with connect(app.settings.redis) as redis, app.db.read() as session:
        (row,) = (row for row in session.query(ApiKey) if row.rate == "3/minute")
        assert any(row.id.encode() in name for name in redis.scan_iter(match=f"*{limiting.PREFIX}*"))


def test_without_redis_requests_are_counted_all_the_same(
    http: httpx.Client, public: Any, make_key: Callable[..., str]
) -> None:
    secret = make_key(public, "generate", rate="2/minute")
    statuses = [http.get(PICTURE, headers=bearer(secret)).status_code for _ in range(4)]
    assert statuses == [200, 200, 429, 429]
    assert http.get(PICTURE, headers=bearer(make_key(public, "generate"))).status_code == 200


def test_a_redis_that_does_not_answer_holds_up_one_request_for_a_moment(tmp_path: Path) -> None:
    async def count(url: str) -> tuple[float, float]:
        """Seconds that the first request takes, and the second; a third is refused."""
        limiter = limiting.Limiter(Settings(data=tmp_path, redis_url=url))
        moments = [time.monotonic()]
        for _ in range(2):
            await limiter.count("key_1", "2/minute")
            moments.append(time.monotonic())
        with pytest.raises(limiting.RateExceeded):
            await limiter.count("key_1", "2/minute")
        await limiter.close()
        return moments[1] - moments[0], moments[2] - moments[1]

    with socket.create_server(("127.0.0.1", 0)) as silent:
        first, second = asyncio.run(count(f"redis://127.0.0.1:{silent.getsockname()[1]}/0"))
    assert first < 5
    assert second < limiting.REDIS_SECONDS


def test_many_at_once_are_counted_once_each_and_those_over_the_rate_refused(app: Any) -> None:
    """Busy keys have some of their rate counted in advance: no more of it is lost than that."""

    async def count(key: str, rate: str, many: int) -> tuple[int, int]:
        limiter = limiting.Limiter(app.settings)
        each = await asyncio.gather(*(limiter.count(key, rate) for _ in range(many)), return_exceptions=True)
        await limiter.close()
        admitted = [one.remaining for one in each if isinstance(one, limiting.Allowance)]
        refused = [one for one in each if isinstance(one, limiting.RateExceeded)]
        assert len(admitted) + len(refused) == many
        return len(admitted), min(admitted)

    assert asyncio.run(count("key_few", "60/minute", 100)) == (60, 0)
    assert asyncio.run(count("key_many", "6000/minute", 500)) == (500, 5500)
    assert asyncio.run(count("key_over", "1200/minute", 1300)) == (1200, 0)


def test_requests_without_a_key_are_neither_counted_nor_told(client: httpx.Client) -> None:
    assert not [name for name in client.get(PICTURE).headers if "ratelimit" in name]


def test_an_address_may_not_ask_without_end_whatever_key_it_sends(
    start_app: Callable[[Settings], Any], tmp_path: Path
) -> None:
    """Before its keys are looked at, so that not many can be tried."""
    settings = Settings(host="0.0.0.0", data=tmp_path, threads=1, rate_per_address="3/minute")  # noqa: S104
    with start_app(settings) as running, running.client() as client:
        for address, count in {"203.0.113.7": 3, "203.0.113.8": 3, "127.0.0.1": 10}.items():
            statuses = [
                client.get("/v1/models", headers=bearer(f"gnv_{n}", **{"x-forwarded-for": address})).status_code
                for n in range(4 if count == 3 else count)
            ]
            assert statuses == [401] * count + [429] * (len(statuses) - count)
        refused = client.get("/readyz", headers={"x-forwarded-for": "203.0.113.7"})
        assert refused.headers["ratelimit-policy"] == '"address";q=3;w=60'
        assert int(refused.headers["retry-after"]) > 0


def test_the_addresses_of_one_ipv6_network_are_one() -> None:
    assert limiting._network("2001:db8:1:2:3::4") == limiting._network("2001:db8:1:2:ffff::1") == "2001:db8:1:2::"
    assert limiting._network("2001:db8:1:3::1") != limiting._network("2001:db8:1:2::1")
    assert limiting._network("203.0.113.7") == "203.0.113.7"
    assert limiting._network("unknown") == "unknown"


def test_a_key_may_have_so_many_jobs_waiting_and_no_more(
    http: httpx.Client, public: Any, make_key: Callable[..., str]
) -> None:
    one, other = make_key(public, "generate"), make_key(public, "generate")
    made = [http.post("/v1/renders", json=RENDER, headers=bearer(one)) for _ in range(3)]
    assert [answer.status_code for answer in made] == [202] * 3
    refused = http.post("/v1/renders", json=RENDER, headers=bearer(one))
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "queue_full"
    assert int(refused.headers["retry-after"]) > 0
    assert http.post("/v1/renders", json=RENDER, headers=bearer(other)).status_code == 202
    http.post(f"/v1/jobs/{made[0].json()['id']}/cancel", headers=bearer(one))
    assert http.post("/v1/renders", json=RENDER, headers=bearer(one)).status_code == 202


@pytest.mark.parametrize("rate", ["600/hour", "5000/day", "1200/minute"])
def test_who_asks_slowly_is_given_all_that_the_rate_says(tmp_path: Path, rate: str, monkeypatch: Any) -> None:
    """What is counted in advance and not used in time is lost, so it must be no more than the rate gives back."""
    monkeypatch.setattr(limiting, "FILL_SECONDS", 0.0)  # as if each request came long after the one before

    async def remaining() -> list[int]:
        limiter = limiting.Limiter(Settings(data=tmp_path, redis_url="unix:///nowhere.sock"))
        counted = [(await limiter.count("key_1", rate)).remaining for _ in range(20)]
        await limiter.close()
        return counted

    counted = asyncio.run(remaining())
    assert counted[0] - counted[-1] == 19
