"""How often somebody may upload, look, appeal, log in or sign up, and who "somebody" is. One count for all processes.

django-ratelimit counts in windows that end when the clock says so: ten uploads could pass within seconds, five before
the end of a window and five behind it. So whoever is let through also takes one of as many slots as the limit allows,
and has it for a whole period: never more than the limit in any period, whenever that begins. What is refused takes
nothing, so trying again makes nobody wait longer.
"""

import ipaddress
import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.http import HttpRequest
from django.utils.crypto import salted_hmac
from django_ratelimit.core import get_usage
from redis.exceptions import RedisError

from detector.exceptions import DetectorError

UPLOAD_GROUP = "detector.upload"
APPEAL_GROUP = "detector.appeal"
COPY_GROUP = "detector.copy"
LOGIN_GROUP = "detector.login"
NAME_GROUP = "detector.login_name"
SIGNUP_GROUP = "detector.signup"
PERIODS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MOST_DAYS = 36_500  # a hundred years; neither Redis nor Python's dates, which begin with year 1, reckon with any number
# Each is a key to ask for, so a limit above this is counted in django-ratelimit's windows alone.
MOST_SLOTS = 500
# How some proxies write an address: 192.0.2.1:5711, [2001:db8::1] or [2001:db8::1]:5711.
WITH_PORT = re.compile(r"(?P<v4>[0-9.]+):[0-9]+|\[(?P<v6>[0-9A-Fa-f:.]+)\](:[0-9]+)?")
# Whoever has one IPv6 address has 2**64 of them.
IPV6_PREFIX = 64


class LimiterUnavailable(DetectorError):
    """Nothing can be counted now, so nothing that is counted may be let through."""


@dataclass(frozen=True, slots=True)
class Allowance:
    limit: int
    period_s: int
    used: int
    # Until one more may pass, where none may now.
    seconds_left: int

    @property
    def uploads_left(self) -> int:
        return max(0, self.limit - self.used)

    @property
    def is_exceeded(self) -> bool:
        return self.used > self.limit


class NoSharedCache(BaseCache):
    """Stands where the shared counter would be when no REDIS_URL is set: it never pretends to count."""

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)

    def refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise LimiterUnavailable("REDIS_URL is not set, so nothing can be counted.")

    add = get = set = refuse


def parse_rate(rate: str) -> tuple[int, int]:
    """A rate such as "5/m" or "20/30s" as the number of uploads and the seconds in which they may be made.

    Raises:
        ValueError: It is not written like that, allows nothing, or goes on for ever.
    """
    match = re.fullmatch(r"(\d+)/(\d*)([smhd])", rate)
    if match is None:
        raise ValueError(f"{rate!r} is not a number of uploads, a slash and a period.")
    limit, period_s = int(match[1]), int(match[2] or 1) * PERIODS_S[match[3]]
    if limit == 0 or period_s == 0:
        raise ValueError(f"{rate!r} allows no upload at all.")
    if period_s > MOST_DAYS * PERIODS_S["d"]:
        raise ValueError(f"The period of {rate!r} is too long.")
    return limit, period_s


def upload_limit() -> tuple[int, int]:
    return parse_rate(settings.UPLOAD_RATE)


def take_upload(request: HttpRequest) -> Allowance:
    """Counts one upload; it may go on unless the allowance is exceeded.

    Raises:
        LimiterUnavailable: Redis does not answer.
    """
    return _usage(request, UPLOAD_GROUP, upload_limit(), increment=True)


def upload_allowance(request: HttpRequest) -> Allowance:
    """The allowance as it stands; asking for it uses nothing up.

    Raises:
        LimiterUnavailable: Redis does not answer.
    """
    return _usage(request, UPLOAD_GROUP, upload_limit(), increment=False)


def take_appeal(request: HttpRequest) -> Allowance:
    """Counts one appeal; it may go on unless the allowance is exceeded.

    Raises:
        LimiterUnavailable: Redis does not answer.
    """
    return _usage(request, APPEAL_GROUP, parse_rate(settings.APPEAL_RATE), increment=True)


def take_copy(request: HttpRequest) -> Allowance:
    """Counts one picture that has to be decoded to be shown; it may be unless the allowance is exceeded.

    Raises:
        LimiterUnavailable: Redis does not answer.
    """
    return _usage(request, COPY_GROUP, parse_rate(settings.PICTURE_RATE), increment=True)


def take_login(request: HttpRequest) -> Allowance:
    """Counts one attempt to log in for the network it comes from; it may go on unless the allowance is exceeded.

    For the network even if somebody is logged in: an account of one's own would else be an allowance of its own.

    Raises:
        LimiterUnavailable: Redis does not answer.
    """
    return _usage(request, LOGIN_GROUP, parse_rate(settings.LOGIN_RATE), increment=True, key=_network_key(request))


def take_name(request: HttpRequest, name: str) -> Allowance:
    """Counts one attempt to log in with that name, wherever it is made; it may go on unless the allowance is exceeded.

    Raises:
        LimiterUnavailable: Redis does not answer.
    """
    return _usage(request, NAME_GROUP, parse_rate(settings.LOGIN_NAME_RATE), increment=True, key=f"name:{name}")


def take_signup(request: HttpRequest) -> Allowance:
    """Counts one attempt to sign up for the network it comes from; it may go on unless the allowance is exceeded.

    Raises:
        LimiterUnavailable: Redis does not answer.
    """
    return _usage(request, SIGNUP_GROUP, parse_rate(settings.SIGNUP_RATE), increment=True, key=_network_key(request))


def _usage(
    request: HttpRequest, group: str, rate: tuple[int, int], *, increment: bool, key: str | None = None
) -> Allowance:
    # Keyed, so that whoever reads Redis cannot find an address by trying all of them.
    key = salted_hmac("detector.ratelimits", f"{group} {rate} {key or client_key(request)}").hexdigest()
    if rate[0] > MOST_SLOTS:
        return _window(request, group, key, rate, increment=increment)
    allowance = _slots(key, rate, take=increment)
    if not increment or allowance.is_exceeded:
        return allowance
    window = _window(request, group, key, rate, increment=True)
    return window if window.is_exceeded else allowance


def _slots(key: str, rate: tuple[int, int], *, take: bool) -> Allowance:
    """What the slots leave, of which each empties itself a period after it was taken."""
    limit, period_s = rate
    slots = [f"slot:{key}:{number}" for number in range(limit)]
    with counting():
        cache = caches[settings.RATELIMIT_USE_CACHE]
        held: dict[str, float] = cache.get_many(slots)  # until when
        used = len(held)
        if take:
            used = limit + 1
            for slot in [slot for slot in slots if slot not in held]:
                # From now on, as Redis has it: reckoned from the question, a wait that was named would end too early.
                held[slot] = time.time() + period_s
                if cache.add(slot, held[slot], period_s):  # else somebody was faster: only one can add the key
                    used = len(held)
                    break
    wait_s = math.ceil(min(held.values()) - time.time()) if len(held) == limit else 0
    return Allowance(limit=limit, period_s=period_s, used=used, seconds_left=min(max(wait_s, 1), period_s))


def _window(request: HttpRequest, group: str, key: str, rate: tuple[int, int], *, increment: bool) -> Allowance:
    limit, period_s = rate
    with counting():
        usage = get_usage(request, group=group, key=lambda *_: key, rate=rate, increment=increment)
    if not usage["limit"]:
        # What django-ratelimit returns when the counter vanished between two commands.
        raise LimiterUnavailable("The counter could not be read.")
    # The window's last second belongs to it: whoever waits only `time_left` seconds is refused once more. That is
    # negative where the window ended between the question and the answer.
    seconds_left = max(usage["time_left"], 0) + 1
    return Allowance(limit=limit, period_s=period_s, used=usage["count"], seconds_left=seconds_left)


@contextmanager
def counting() -> Iterator[None]:
    """Turns what Redis raises into our own error, for which there is a page.

    Raises:
        LimiterUnavailable: Redis does not answer.
    """
    try:
        yield
    except (RedisError, OSError) as error:
        raise LimiterUnavailable(f"Redis does not answer, so nothing can be counted: {error}") from error


def client_key(request: HttpRequest) -> str:
    """Whom an upload or appeal is counted for: the account, else the client's address."""
    if request.user.is_authenticated:
        return f"account:{request.user.pk}"
    return _network_key(request)


def _network_key(request: HttpRequest) -> str:
    return f"address:{client_network(request)}"


def client_network(request: HttpRequest) -> str:
    """The client's IPv4 address, or the /64 network of its IPv6 address."""
    address = _parse_address(_client_address(request))
    if address is None:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((int(address), IPV6_PREFIX), strict=False))
        address = address.ipv4_mapped
    return str(address)


def _client_address(request: HttpRequest) -> str:
    """The address that the outermost trusted proxy saw, else that of the connection.

    Each proxy appends the address it was called from, so only the last TRUSTED_PROXY_COUNT entries of X-Forwarded-For
    were written by proxies of ours; everything before them is the client's own claim.
    """
    connection = str(request.META.get("REMOTE_ADDR", ""))
    trusted = settings.TRUSTED_PROXY_COUNT
    if trusted == 0:
        return connection
    entries = [entry.strip() for entry in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")]
    if len(entries) < trusted:
        return connection
    address = entries[-trusted]
    if match := WITH_PORT.fullmatch(address):
        address = match["v4"] or match["v6"]
    return connection if _parse_address(address) is None else address


def _parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
