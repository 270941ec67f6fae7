"""How often somebody may try to log in: django-axes, counting in Redis, and no address or name as it was sent.

Three counts: wrong passwords for one name from one network, which lock that name for that network alone, so that nobody
can lock somebody else out from elsewhere; all attempts of one network, whatever the names, against trying one password
with many of them; and the attempts on one name from all networks together, against guessing from many. The last one
leaves out the networks from which that name has logged in lately: whoever is attacked can log in where they always do.

While Redis does not answer nobody can log in, as nobody can upload: to take Redis down must not be a way to guess
without limit. Who is logged in stays so.
"""

import logging
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from axes.handlers.cache import AxesCacheHandler
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import salted_hmac

from detector import ratelimits
from detector.ratelimits import LimiterUnavailable, client_network, counting, parse_rate
from detector.responses import refuse
from detector.templatetags.display import seconds

logger = logging.getLogger(__name__)

# How long a network is remembered from which somebody logged in.
KNOWN_NETWORK_S = 90 * 24 * 3600
# Digits of a pseudonym: enough to tell people apart in a log, keyed, so that nobody can try all addresses.
PSEUDONYM_LENGTH = 20


def pseudonym(text: str) -> str:
    """A stand-in for an address or a name, the same each time on this installation and of no use anywhere else."""
    return salted_hmac("detector.throttling", text).hexdigest()[:PSEUDONYM_LENGTH]


def network_pseudonym(request: HttpRequest) -> str:
    return pseudonym(f"network {client_network(request)}")


def name_pseudonym(request: HttpRequest, credentials: dict[str, Any] | None = None) -> str:
    name = (credentials or {}).get("username") or request.POST.get("username", "")
    return pseudonym(f"name {name}")


def failure_limit(request: HttpRequest | None = None, credentials: dict[str, Any] | None = None) -> int:
    return parse_rate(settings.LOGIN_FAILURE_RATE)[0]


def cool_off(request: HttpRequest | None = None) -> timedelta:
    return timedelta(seconds=parse_rate(settings.LOGIN_FAILURE_RATE)[1])


class LoginLimiter(AxesCacheHandler):  # type: ignore[misc]
    @property
    def cache(self) -> BaseCache:
        """Asked for anew each time: this object lives as long as the process, a connection may not."""
        return caches[settings.RATELIMIT_USE_CACHE]

    @cache.setter
    def cache(self, value: BaseCache) -> None:
        """The parent sets what it found at the start."""

    def is_allowed(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> bool:
        allowance = ratelimits.take_login(request)
        if allowance.is_exceeded:
            request.login_retry_after = allowance.seconds_left  # type: ignore[attr-defined]
            return False
        with counting():
            if not super().is_allowed(request, credentials):
                return False
            if self.cache.get(_known_key(request, credentials)):
                return True
        allowance = ratelimits.take_name(request, name_pseudonym(request, credentials))
        if allowance.is_exceeded:
            request.login_retry_after = allowance.seconds_left  # type: ignore[attr-defined]
        return not allowance.is_exceeded

    def user_login_failed(self, *args: Any, **kwargs: Any) -> None:
        with counting():
            super().user_login_failed(*args, **kwargs)

    def user_logged_in(self, sender: Any, request: HttpRequest, user: Any, **kwargs: Any) -> None:
        """Forgets the failures and knows the network. If that cannot be done it costs attempts, no reason to fail."""
        try:
            with counting():
                super().user_logged_in(sender, request, user, **kwargs)
                self.cache.set(_known_key(request, {"username": user.get_username()}), 1, KNOWN_NETWORK_S)
        except LimiterUnavailable:
            logger.info("The failed log-ins of an account could not be forgotten.")


def _known_key(request: HttpRequest, credentials: dict[str, Any] | None) -> str:
    """Where it is noted that somebody with that name has logged in from that network."""
    return f"known-{pseudonym(f'{name_pseudonym(request, credentials)} {network_pseudonym(request)}')}"


def locked_out(request: HttpRequest, response: HttpResponse | None = None, credentials: Any = None) -> HttpResponse:
    # The moment at which the count began is not kept, so this is the longest that it can take.
    retry_after = getattr(request, "login_retry_after", int(cool_off().total_seconds()))
    return too_many(request, retry_after)


def too_many(request: HttpRequest, retry_after: int) -> HttpResponse:
    sentence = f"Those were too many attempts. Try again in {seconds(retry_after)}."
    status = HTTPStatus.TOO_MANY_REQUESTS
    return refuse(request, "registration/limited.html", status, sentence, retry_after=retry_after)
