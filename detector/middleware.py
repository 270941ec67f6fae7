from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, UnreadablePostError

from detector.responses import picture_too_large

# What a form adds round its picture: boundaries, part headers, the CSRF token and the other fields.
FORM_OVERHEAD_BYTES = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
# A browser shows the answer only if it could send its body to the end; of a longer one the connection is cut.
MAX_DISCARDED_BYTES = 100 * 1024 * 1024
CHUNK_BYTES = 64 * 1024


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
