"""One id for each request: in every log record that it causes, and in its answer, so that both can be found together.

A few lines of our own: django-guid, the kept library for this, takes an id from anybody who sends one, knows no proxies
that may be trusted, and forgets the id before gunicorn has written its access line.
"""

import re
import secrets
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from django.conf import settings
from django.core.signals import request_finished
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse

HEADER = "X-Request-ID"
# What proxies send: 32 hexadecimal digits from nginx, a UUID, a ULID or the like. Nothing that could break a log line.
WELL_FORMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{15,63}")

_current: ContextVar[str] = ContextVar("request_id", default="")


def current_request_id() -> str:
    """The id of the request that this thread works on, or "" outside of one."""
    return _current.get()


class RequestIdMiddleware:
    """The first of all, so that whatever the others log or answer has the id."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = _given(request) or secrets.token_hex(16)
        _current.set(request_id)
        response = self.get_response(request)
        response[HEADER] = request_id
        return response


def _given(request: HttpRequest) -> str:
    """The id that a proxy of ours gave; nobody else's is believed."""
    text = str(request.headers.get(HEADER, "")) if settings.TRUSTED_PROXY_COUNT > 0 else ""
    return text if WELL_FORMED.fullmatch(text) else ""


# Not at the end of the middleware: Django logs a refusal, and gunicorn the access, only after it.
@receiver(request_finished, dispatch_uid="detector.request_ids.forget")
def forget(sender: Any, **kwargs: Any) -> None:
    _current.set("")
