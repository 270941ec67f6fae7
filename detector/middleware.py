import logging
from collections.abc import Callable
from http import HTTPStatus

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import DataError
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, UnreadablePostError

from detector.ratelimits import LimiterUnavailable
from detector.responses import picture_too_large, refuse, unreadable

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 30
# What a form adds round its picture: boundaries, part headers, the CSRF token and the other fields.
FORM_OVERHEAD_BYTES = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
# A browser shows the answer only if it could send its body to the end; of a longer one the connection is cut.
MAX_DISCARDED_BYTES = 100 * 1024 * 1024
CHUNK_BYTES = 64 * 1024


class LimiterMiddleware:
    """Answers 503 where an attempt to log in or sign up could not be counted; uploads and appeals do so themselves."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not isinstance(exception, LimiterUnavailable):
            return None
        logger.error("Nobody can log in or sign up: %s", exception)
        sentence = (
            "Nobody can log in, sign up, delete an account or change a password right now. Please try again shortly."
        )
        status = HTTPStatus.SERVICE_UNAVAILABLE
        return refuse(request, "registration/unavailable.html", status, sentence, retry_after=RETRY_AFTER_S)


class MethodMiddleware:
    """Gives a 405, which Django answers without a body, a page that says what it is about."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if not isinstance(response, HttpResponseNotAllowed) or response.content:
            return response
        sentence = "This address cannot be opened or asked for in this way."
        page = refuse(request, "405.html", HTTPStatus.METHOD_NOT_ALLOWED, sentence)
        page["Allow"] = response["Allow"]
        return page


class AdminValuesMiddleware:
    """Answers 400 where an address of the admin names a row that cannot be, which Django does not catch everywhere."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        is_admin = request.resolver_match is not None and request.resolver_match.app_name == "admin"
        if not is_admin or not isinstance(exception, DataError | ValidationError):
            return None
        logger.warning("No such row can be: %s", request.path, exc_info=exception)
        return unreadable(request)


class BodyLimitMiddleware:
    """Answers 413 to a request whose body is too large for any form here; nothing of the body is kept.

    The declared length is enough to judge by: Django never reads past it, and reads nothing where it is missing.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        byte_count = declared_byte_count(request)
        if byte_count > settings.MAX_UPLOAD_BYTES + FORM_OVERHEAD_BYTES:
            if byte_count <= MAX_DISCARDED_BYTES:
                discard_body(request)
            return picture_too_large(request)
        return self.get_response(request)


def declared_byte_count(request: HttpRequest) -> int:
    length = request.META.get("CONTENT_LENGTH") or "0"
    return int(length) if length.isdecimal() else 0


def discard_body(request: HttpRequest) -> None:
    try:
        while request.read(CHUNK_BYTES):
            pass
    except UnreadablePostError:
        # The client has gone; so much the better.
        return
