from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from detector.responses import picture_too_large

# What a form adds round its picture: boundaries, part headers, the CSRF token and the other fields.
FORM_OVERHEAD_BYTES = settings.DATA_UPLOAD_MAX_MEMORY_SIZE


class BodyLimitMiddleware:
    """Answers 413 to a request whose body is too large for any form here, before a byte of the body is read.

    The declared length is enough to judge by: Django never reads past it, and reads nothing where it is missing.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if declared_byte_count(request) > settings.MAX_UPLOAD_BYTES + FORM_OVERHEAD_BYTES:
            return picture_too_large(request)
        return self.get_response(request)


def declared_byte_count(request: HttpRequest) -> int:
    length = request.META.get("CONTENT_LENGTH") or "0"
    return int(length) if length.isdecimal() else 0
