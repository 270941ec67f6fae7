import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.cache import caches
from django.http import HttpRequest
from django.test import RequestFactory
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import Settings

from detector import ratelimits
from detector.private_redis import PrivateRedis
from detector.ratelimits import (
    Allowance,
    LimiterUnavailable,
    client_key,
    client_network,
    take_login,
    take_signup,
    take_upload,
    upload_allowance,
)

pytestmark = pytest.mark.alone


def make_request(address: str = "192.0.2.1", forwarded: str | None = None, user: User | None = None) -> HttpRequest:
    headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
    request = RequestFactory().post("/", REMOTE_ADDR=address, headers=headers)
    request.user = user or AnonymousUser()
    return request


@pytest.fixture
def redis_limiter(settings: Settings, redis_server: PrivateRedis) -> PrivateRedis:
    from deepfake_site.settings import redis_cache

    settings.CACHES = {**settings.CACHES, "ratelimit": redis_cache(redis_server.url, ignore_exceptions=False)}
    return redis_server


@pytest.mark.parametrize(
    ("trusted", "connection", "forwarded", "expected"),
    [
        # Nobody is believed: the header changes nothing.
        (0, "192.0.2.1", None, "192.0.2.1"),
        (0, "192.0.2.1", "203.0.113.9", "192.0.2.1"),
        (0, "192.0.2.1", "203.0.113.9, 198.51.100.2", "192.0.2.1"),
        # One proxy: the last entry is its own, what is before it is the client's claim.
        (1, "10.0.0.1", "203.0.113.9", "203.0.113.9"),
        (1, "10.0.0.1", "1.1.1.1, 203.0.113.9", "203.0.113.9"),
        (1, "10.0.0.1", "1.1.1.1, 2.2.2.2,203.0.113.9 ", "203.0.113.9"),
        (2, "10.0.0.1", "1.1.1.1, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        # With the port that it came from, as some proxies have it.
        (1, "10.0.0.1", "1.1.1.1:80, 203.0.113.9:5711", "203.0.113.9"),
        (1, "10.0.0.1", "[2001:db8:1:3::1]:5711", "2001:db8:1:3::/64"),
        (1, "10.0.0.1", "[2001:db8:1:3::1]", "2001:db8:1:3::/64"),
        # Fewer entries than proxies, or no address where one should be: the connection's own.
        (2, "10.0.0.1", "203.0.113.9", "10.0.0.1"),
        (1, "10.0.0.1", None, "10.0.0.1"),
        (1, "10.0.0.1", "", "10.0.0.1"),
        (1, "10.0.0.1", "unknown", "10.0.0.1"),
        (1, "10.0.0.1", "203.0.113.9, ", "10.0.0.1"),
        (1, "10.0.0.1", "203.0.113.9, <script>", "10.0.0.1"),
        # IPv6 by /64, whatever the way it is written.
        (0, "2001:db8:1:2:3:4:5:6", None, "2001:db8:1:2::/64"),
        (0, "2001:0DB8:0001:0002::ffff", None, "2001:db8:1:2::/64"),
        (1, "::1", "2001:db8:1:3::1", "2001:db8:1:3::/64"),
        (0, "fe80::1%eth0", None, "fe80::/64"),
        (0, "::ffff:192.0.2.1", None, "192.0.2.1"),
        # A Unix socket has no address.
        (0, "", None, "unknown"),
        (1, "", "203.0.113.9", "203.0.113.9"),
    ],
)
def test_a_client_is_known_by_what_cannot_be_forged(
    settings: Settings, trusted: int, connection: str, forwarded: str | None, expected: str
) -> None:
    settings.TRUSTED_PROXY_COUNT = trusted
    assert client_network(make_request(connection, forwarded)) == expected


MALFORMED = [
    *(",", ",,,,", " ", "\t", "-", "_hidden", "unknown", "null", "localhost", "example.org", "0", "2130706433"),
    *(
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "1.2.3.4:",
        "1.2.3.4:80:80",
        "1.2.3:80",
        "01.2.3.4",
        "0x7f.1",
        "1.2.3.4/24",
        "1.2.3.4 5.6.7.8",
        "-1.2.3.4",
    ),
    *("[2001:db8::1", "[2001:db8::1]:", "[1.2.3]:443"),
    *("2001:db8::1::2", "::g", ":::", "2001:db8::/64", "1:2:3:4:5:6:7:8:9"),
    *("for=1.2.3.4", "\u0661.2.3.4", "1.2.3.4\0", "<script>", "' OR 1=1 --", "%00", "a" * 10_000, "1.2.3.4," * 2_000),
]


@pytest.mark.parametrize("trusted", [0, 1, 2])
@pytest.mark.parametrize("forwarded", MALFORMED, ids=range(len(MALFORMED)))
def test_what_is_no_address_is_never_taken_for_one(settings: Settings, trusted: int, forwarded: str) -> None:
    """The connection counts instead: a client behind a proxy that writes rubbish shares its count."""
    settings.TRUSTED_PROXY_COUNT = trusted
    expected = "1.2.3.4" if trusted == 2 and forwarded.startswith("1.2.3.4,") else "192.0.2.1"
    assert client_network(make_request("192.0.2.1", forwarded)) == expected


def test_an_account_is_counted_wherever_it_comes_from() -> None:
    ada = User(pk=7, username="ada")
    assert client_key(make_request("192.0.2.1", user=ada)) == "account:7"
    assert client_key(make_request("198.51.100.7", user=ada)) == "account:7"
    assert client_key(make_request("192.0.2.1")) == "address:192.0.2.1"


@pytest.mark.parametrize(
    ("rate", "limit", "period_s"), [("5/m", 5, 60), ("100/h", 100, 3600), ("20/30s", 20, 30), ("1/d", 1, 86400)]
)
def test_the_rate_is_a_setting(settings: Settings, rate: str, limit: int, period_s: int) -> None:
    settings.UPLOAD_RATE = rate
    assert ratelimits.upload_limit() == (limit, period_s)


def test_asking_uses_nothing_up(limiter: Settings) -> None:
    request = make_request()
    assert [upload_allowance(request).uploads_left for _ in range(8)] == [5] * 8
    assert take_upload(request).uploads_left == 4
    assert upload_allowance(request).uploads_left == 4


def test_five_pass_and_the_sixth_does_not(limiter: Settings) -> None:
    request = make_request()
    assert [take_upload(request).is_exceeded for _ in range(7)] == [False] * 5 + [True] * 2
    assert upload_allowance(request).uploads_left == 0


def test_each_client_has_an_allowance_of_their_own(limiter: Settings) -> None:
    for _ in range(6):
        take_upload(make_request("192.0.2.1"))
    assert take_upload(make_request("192.0.2.1")).is_exceeded
    assert not take_upload(make_request("192.0.2.2")).is_exceeded
    assert not take_upload(make_request("192.0.2.1", user=User(pk=1))).is_exceeded


@pytest.mark.parametrize(("take", "setting"), [(take_login, "LOGIN_RATE"), (take_signup, "SIGNUP_RATE")])
def test_a_network_s_attempts_are_its_own_whoever_is_logged_in(
    limiter: Settings, take: Callable[[HttpRequest], Allowance], setting: str
) -> None:
    """Or each account that somebody makes would be further guesses at the passwords of others."""
    setattr(limiter, setting, "2/h")
    users = (None, User(pk=1), User(pk=2))
    assert [take(make_request("192.0.2.1", user=user)).is_exceeded for user in users] == [False, False, True]
    assert not take(make_request("192.0.2.2", user=User(pk=1))).is_exceeded


def test_what_redis_forgot_of_the_slots_is_no_new_allowance(limiter: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one does that is short of memory."""
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0)
    cache = caches["ratelimit"]
    add = type(cache).add
    monkeypatch.setattr(type(cache), "get_many", lambda *_: {})
    monkeypatch.setattr(type(cache), "add", lambda cache, key, *rest: key.startswith("slot:") or add(cache, key, *rest))
    assert [take_upload(make_request()).is_exceeded for _ in range(7)] == [False] * 5 + [True] * 2


def test_a_forged_header_buys_no_uploads(limiter: Settings) -> None:
    forged = [take_upload(make_request("192.0.2.1", f"203.0.113.{n}")).is_exceeded for n in range(6)]
    assert forged == [False] * 5 + [True]


@pytest.mark.parametrize(
    ("rate", "phase"), [*(("5/m", phase) for phase in range(0, 60, 7)), ("501/m", 0), ("501/m", 29), ("501/m", 59)]
)
def test_waiting_the_seconds_that_were_named_is_enough_and_one_less_is_not(
    limiter: Settings, monkeypatch: pytest.MonkeyPatch, rate: str, phase: int
) -> None:
    limiter.UPLOAD_RATE = rate
    request = make_request()
    now = 1_800_000_000.25 + phase

    def at(moment: float) -> ratelimits.Allowance:
        monkeypatch.setattr(time, "time", lambda: moment)
        return take_upload(request)

    for _ in range(ratelimits.upload_limit()[0]):
        assert not at(now).is_exceeded
    refused = at(now)
    assert refused.is_exceeded
    assert 1 <= refused.seconds_left <= 60
    assert at(now + refused.seconds_left - 1).is_exceeded
    assert not at(now + refused.seconds_left).is_exceeded


def accepted_at(
    monkeypatch: pytest.MonkeyPatch, attempts: Iterable[float], request: HttpRequest, rate: tuple[int, int] = (5, 60)
) -> list[float]:
    """When those of the attempts were made that went through. Checks what the others are told."""
    limit, period_s = rate
    accepted: list[float] = []
    for moment in attempts:
        monkeypatch.setattr(time, "time", lambda now=moment: now)
        allowance = take_upload(request)
        if not allowance.is_exceeded:
            accepted.append(moment)
            continue
        recently = [other for other in accepted if moment - other < period_s]
        assert len(recently) == limit, "nobody is refused who has not used up the limit in the last period"
        assert allowance.seconds_left == math.ceil(recently[0] + period_s - moment)
    return accepted


def most_within(seconds: float, moments: list[float]) -> int:
    return max(sum(begin <= moment < begin + seconds for moment in moments) for begin in moments)


@pytest.mark.parametrize("address", [f"192.0.2.{number}" for number in range(1, 8)])
def test_round_no_edge_of_a_window_more_than_five_get_through(
    limiter: Settings, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """Somebody who tries eight times in each second, for five minutes: wherever their windows end."""
    begin = 1_800_000_000.0
    attempts = [begin + number / 8 for number in range(8 * 300)]

    accepted = accepted_at(monkeypatch, attempts, make_request(address))

    assert most_within(60, accepted) == 5
    assert len(accepted) == 25, "and to go on trying costs nothing"


@given(
    rate=st.sampled_from([(5, 60), (1, 2), (3, 10), (7, 1), (2, 3600)]),
    gaps=st.lists(st.floats(0, 1.5), min_size=1, max_size=60),
    client=st.integers(0, 10_000),
)
@hypothesis_settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
def test_in_no_period_more_than_the_limit_get_through(
    limiter: Settings, monkeypatch: pytest.MonkeyPatch, rate: tuple[int, int], gaps: list[float], client: int
) -> None:
    """Whenever somebody comes; a gap of 1 is as long as a period divided by the limit."""
    caches["ratelimit"].clear()
    limit, period_s = rate
    limiter.UPLOAD_RATE = f"{limit}/{period_s}s"
    attempts = [1_800_000_000.0 + total * period_s / limit for total in itertools.accumulate(gaps)]

    accepted = accepted_at(monkeypatch, attempts, make_request(user=User(pk=client)), rate)

    assert most_within(period_s, accepted) <= limit


@given(gaps=st.lists(st.floats(0, 90), min_size=20, max_size=60), client=st.integers(0, 10_000))
@hypothesis_settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
def test_whoever_waits_as_told_gets_in(
    limiter: Settings, monkeypatch: pytest.MonkeyPatch, gaps: list[float], client: int
) -> None:
    caches["ratelimit"].clear()
    request = make_request(user=User(pk=client))
    now = 1_800_000_000.0
    for gap in gaps:
        now += gap / 6
        monkeypatch.setattr(time, "time", lambda now=now: now)
        allowance = take_upload(request)
        if allowance.is_exceeded:
            now += allowance.seconds_left
            monkeypatch.setattr(time, "time", lambda now=now: now)
            assert not take_upload(request).is_exceeded


def test_a_slot_that_was_taken_slowly_is_free_when_it_was_said_to_be(
    limiter: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of five waits 0.3 s for Redis; a second after it was asked for the sixth has to wait 59.3 s, so 60."""
    clock, delays = [1_800_000_000.0], [0.3]
    get_many = caches["ratelimit"].get_many

    def slowly(keys: list[str]) -> dict[str, float]:
        found = get_many(keys)
        clock[0] += delays.pop() if delays else 0.0
        return found

    monkeypatch.setattr(time, "time", lambda: clock[0])
    monkeypatch.setattr(caches["ratelimit"], "get_many", slowly)
    for _ in range(5):
        assert not take_upload(make_request()).is_exceeded
    clock[0] = 1_800_000_001.0

    refused = take_upload(make_request())
    assert (refused.is_exceeded, refused.seconds_left) == (True, 60)
    clock[0] += refused.seconds_left
    assert not take_upload(make_request()).is_exceeded


@pytest.mark.parametrize("rate", ["5/s", "1/2s", "5/10s", "5/m", "60/h", "10/d", "501/m"])
def test_at_any_rate_the_limit_gets_through_and_no_more(
    limiter: Settings, monkeypatch: pytest.MonkeyPatch, rate: str
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0)
    limiter.UPLOAD_RATE = rate
    limit = ratelimits.upload_limit()[0]
    for number in range(3):
        request = make_request(f"192.0.2.{number}")
        answers = [take_upload(request) for _ in range(2 * limit + 1)]
        assert [answer.uploads_left for answer in answers[:limit]] == list(range(limit - 1, -1, -1))
        assert all(answer.is_exceeded for answer in answers[limit:])


def test_a_window_may_end_while_it_is_counted_in(limiter: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    period_s = ratelimits.upload_limit()[1]
    for begin in range(1_800_000_000, 1_800_000_000 + period_s):
        clock = itertools.count(begin)  # a second passes between any two looks at it
        monkeypatch.setattr(time, "time", lambda clock=clock: float(next(clock)))
        allowance = take_upload(make_request())
        assert not allowance.is_exceeded
        assert allowance.seconds_left > 0
        caches["ratelimit"].clear()


def test_a_counter_that_vanished_is_no_count(limiter: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(caches["ratelimit"]), "add", lambda cache, key, *_: key.startswith("slot:"))
    with pytest.raises(LimiterUnavailable, match="could not be read"):
        take_upload(make_request())


def test_without_a_shared_counter_nothing_is_counted(settings: Settings) -> None:
    settings.CACHES = {**settings.CACHES, "ratelimit": {"BACKEND": "detector.ratelimits.NoSharedCache"}}
    for ask in (take_upload, upload_allowance):
        with pytest.raises(LimiterUnavailable, match="REDIS_URL"):
            ask(make_request())


@pytest.mark.redis
def test_redis_counts(redis_limiter: PrivateRedis) -> None:
    request = make_request()
    assert upload_allowance(request).uploads_left == 5
    assert [take_upload(request).is_exceeded for _ in range(6)] == [False] * 5 + [True]
    assert upload_allowance(request).uploads_left == 0


@pytest.mark.redis
def test_the_counter_goes_away_by_itself(redis_limiter: PrivateRedis) -> None:
    take_upload(make_request())
    cache = caches["ratelimit"]
    keys = cache.keys("*")  # type: ignore[attr-defined]
    assert len(keys) == 2  # a slot, and django-ratelimit's window
    assert all(0 < cache.ttl(key) <= 65 for key in keys)  # type: ignore[attr-defined]


@pytest.mark.redis
def test_who_was_counted_cannot_be_found_out_without_the_secret(
    redis_limiter: PrivateRedis, settings: Settings
) -> None:
    """Of all four thousand million addresses a plain hash could be tried."""
    keys: list[set[str]] = []
    for secret in ("one secret", "another secret"):
        settings.SECRET_KEY = secret
        caches["ratelimit"].clear()
        take_upload(make_request("192.0.2.1"))
        keys.append(set(caches["ratelimit"].keys("*")))  # type: ignore[attr-defined]
    assert [len(each) for each in keys] == [2, 2]
    assert not keys[0] & keys[1]


@pytest.mark.redis
def test_in_no_period_do_more_get_through_redis_however_many_try_at_once(
    redis_limiter: PrivateRedis, settings: Settings
) -> None:
    settings.UPLOAD_RATE = "3/2s"
    until = time.monotonic() + 5
    accepted: list[tuple[float, float]] = []  # when the answer came, when it was asked for

    def try_on() -> None:
        while (began := time.monotonic()) < until:
            if not take_upload(make_request()).is_exceeded:
                accepted.append((time.monotonic(), began))
            time.sleep(0.02)
        caches["ratelimit"].close()

    threads = [threading.Thread(target=try_on) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    accepted.sort()
    assert len(accepted) >= 6
    for place in range(len(accepted) - 3):
        four = accepted[place : place + 4]
        assert four[-1][0] - min(began for _, began in four) >= 2


@pytest.mark.redis
def test_a_redis_that_died_is_reported_and_one_that_came_back_is_used(redis_limiter: PrivateRedis) -> None:
    request = make_request()
    assert not take_upload(request).is_exceeded
    redis_limiter.kill()
    started = time.monotonic()
    for ask in (take_upload, upload_allowance):
        with pytest.raises(LimiterUnavailable, match="nothing can be counted: .*connect"):  # and why
            ask(request)
    assert time.monotonic() - started < 2
    redis_limiter.start()
    assert take_upload(request).used == 1
