"""How often somebody may upload, appeal, log in or sign up, and who "somebody" is. One count for all processes.

django-ratelimit counts in windows that end when the clock says so. One alone would let twice the limit through within a
second, half before the end of a window and half behind it. So everything is counted in two, one of which begins near
the middle of the other: no more than the limit in either, thus never more than that within about half a period. Nobody
is refused who has not used up the limit within the last period.
"""

import ipaddress
import itertools
import re
import zlib
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings
from django.core.cache.backends.base import BaseCache
from django.http import HttpRequest
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
# Share of a period by which a second window may begin off the middle of the first.
TOLERANCE = 0.05
# Whoever has one IPv6 address has 2**64 of them.
IPV6_PREFIX = 64


class LimiterUnavailable(DetectorError):
    """Nothing can be counted now, so nothing that is counted may be let through."""


@dataclass(frozen=True, slots=True)
class Allowance:
    limit: int
    period_s: int
    used: int
    # Until the count starts again from nothing.
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

    def add(self, *args: Any, **kwargs: Any) -> bool:
        raise LimiterUnavailable("REDIS_URL is not set, so nothing can be counted.")

    def get(self, *args: Any, **kwargs: Any) -> Any:
        raise LimiterUnavailable("REDIS_URL is not set, so nothing can be counted.")


def parse_rate(rate: str) -> tuple[int, int]:
    """A rate such as "5/m" or "20/30s" as the number of uploads and the seconds in which they may be made.

    Raises:
        ValueError: It is not written like that, or allows nothing.
    """
    match = re.fullmatch(r"(\d+)/(\d*)([smhd])", rate)
    if match is None:
        raise ValueError(f"{rate!r} is not a number of uploads, a slash and a period.")
    limit, period_s = int(match[1]), int(match[2] or 1) * PERIODS_S[match[3]]
    if limit == 0 or period_s == 0:
        raise ValueError(f"{rate!r} allows no upload at all.")
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
    """Counts one attempt to log in; it may go on unless the allowance is exceeded.

    Raises:
        LimiterUnavailable: Redis does not answer.
    """
    return _usage(request, LOGIN_GROUP, parse_rate(settings.LOGIN_RATE), increment=True)


def take_name(request: HttpRequest, name: str) -> Allowance:
    """Counts one attempt to log in with that name, wherever it is made; it may go on unless the allowance is exceeded.

    Raises:
        LimiterUnavailable: Redis does not answer.
    """
    return _usage(request, NAME_GROUP, parse_rate(settings.LOGIN_NAME_RATE), increment=True, key=f"name:{name}")


def take_signup(request: HttpRequest) -> Allowance:
    """Counts one attempt to sign up; it may go on unless the allowance is exceeded.

    Raises:
        LimiterUnavailable: Redis does not answer.
    """
    return _usage(request, SIGNUP_GROUP, parse_rate(settings.SIGNUP_RATE), increment=True)


def _usage(
    request: HttpRequest, group: str, rate: tuple[int, int], *, increment: bool, key: str | None = None
) -> Allowance:
    key = key or client_key(request)
    shifted_key = _half_a_period_away(key, rate[1])
    second = _window(request, group, shifted_key, rate, increment=False)
    if not increment or not second.uploads_left:
        # What the second window refuses is not counted in the first, which would then refuse for longer than need be.
        state = _together(_window(request, group, key, rate, increment=False), second)
        return replace(state, used=max(state.used, state.limit + 1)) if increment else state
    first = _window(request, group, key, rate, increment=True)
    if first.is_exceeded:
        return first
    return _together(first, _window(request, group, shifted_key, rate, increment=True))


def _window(request: HttpRequest, group: str, key: str, rate: tuple[int, int], *, increment: bool) -> Allowance:
    limit, period_s = rate
    try:
        usage = get_usage(request, group=group, key=lambda *_: key, rate=rate, increment=increment)
    except (RedisError, OSError) as error:
        raise LimiterUnavailable("Redis does not answer, so nothing can be counted.") from error
    if not usage["limit"]:
        # What django-ratelimit returns when the counter vanished between two commands.
        raise LimiterUnavailable("The counter could not be read.")
    # The window's last second belongs to it: whoever waits only `time_left` seconds is refused once more. That is
    # negative where the window ended between the question and the answer.
    seconds_left = max(usage["time_left"], 0) + 1
    return Allowance(limit=limit, period_s=period_s, used=usage["count"], seconds_left=seconds_left)


def _together(one: Allowance, other: Allowance) -> Allowance:
    """What two windows leave: as much as the fuller one, until the last of those that are full ends."""
    fuller = max(one, other, key=lambda window: window.used)
    full = [window for window in (one, other) if not window.uploads_left]
    return replace(fuller, seconds_left=max(window.seconds_left for window in full or [fuller]))


def _half_a_period_away(key: str, period_s: int) -> str:
    """A key whose windows begin near the middle of those of `key`; about the tenth one tried does.

    django-ratelimit takes the place of a key's windows from its checksum.
    """
    begin, middle = zlib.crc32(key.encode()) % period_s, period_s // 2
    names = (f"{key} {number}" for number in itertools.count())
    return next(
        name for name in names if abs((zlib.crc32(name.encode()) - begin) % period_s - middle) <= period_s * TOLERANCE
    )


def client_key(request: HttpRequest) -> str:
    """Whom an upload or appeal is counted for: the account, else the client's address."""
    if request.user.is_authenticated:
        return f"account:{request.user.pk}"
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
    if len(entries) < trusted or _parse_address(entries[-trusted]) is None:
        return connection
    return str(entries[-trusted])


def _parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
