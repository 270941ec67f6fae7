"""What a client is told when something that the site needs is missing for a while: 503 and when to come back."""

import errno
import logging
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from django.conf import settings
from django.db import InterfaceError, InternalError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string

from detector.exceptions import Overloaded
from detector.responses import wants_json

logger = logging.getLogger(__name__)

OVERLOADED_SENTENCE = "Many pictures are being looked at right now. Please try again in a few seconds."
STORAGE_SENTENCE = "Pictures cannot be stored right now, so yours was not taken in. Please try again later."
READING_SENTENCE = "Pictures cannot be read right now. Please try again later."
DATABASE_SENTENCE = "The database cannot be reached right now. Please try again shortly."
# Seconds. A queue is worked off in one or two; a database restarts in some; a disk is emptied by somebody.
OVERLOADED_RETRY_AFTER_S = 2
DATABASE_RETRY_AFTER_S = 10
STORAGE_RETRY_AFTER_S = 300
# No space, quota used up, file too large for the process or file system, broken or read-only disk, or one whose server
# forgot the file.
STORAGE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE}
# Of a file: another user's, or one whose server is away. Of anything else they say nothing of the store.
FILE_ERRORS = {errno.EACCES, errno.EPERM, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH}

READ_ONLY_TRANSACTION = "25006"  # PostgreSQL's code


class OutageMiddleware:
    """Answers 503 with Retry-After where a view could not do its work for lack of room, disk or database."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        return outage_answer(request, exception)


def outage_answer(request: HttpRequest, exception: BaseException | None) -> HttpResponse | None:
    """503 for a fault that passes by itself, None for any other."""
    if isinstance(exception, Overloaded):
        logger.warning("Overloaded: refused %s %s", request.method, request.path)
        return unavailable(request, OVERLOADED_SENTENCE, OVERLOADED_RETRY_AFTER_S)
    if isinstance(exception, OSError) and _is_of_storage(exception):
        logger.error("Storage failed", exc_info=exception)
        sentence = STORAGE_SENTENCE if request.method == "POST" else READING_SENTENCE
        return unavailable(request, sentence, STORAGE_RETRY_AFTER_S)
    if isinstance(exception, OperationalError | InterfaceError) or _is_read_only(exception):
        logger.error("The database failed", exc_info=exception)
        # Perhaps behind an upload, which is there all the same.
        return unavailable(request, DATABASE_SENTENCE, DATABASE_RETRY_AFTER_S, is_certain=False)
    return None


def _is_read_only(error: BaseException | None) -> bool:
    """Whether PostgreSQL takes no changes: a standby, or one whose disk is full, as some providers have it."""
    return isinstance(error, InternalError) and getattr(error.__cause__, "sqlstate", None) == READ_ONLY_TRANSACTION


def _is_of_storage(error: OSError) -> bool:
    """Whether the store is full, broken, away or another user's; a file elsewhere that may not be read is our fault."""
    if error.errno in FILE_ERRORS:
        return isinstance(error.filename, str) and Path(error.filename).is_relative_to(settings.MEDIA_ROOT)
    return error.errno in STORAGE_ERRORS


def unavailable(request: HttpRequest, sentence: str, retry_after_s: int, *, is_certain: bool = True) -> HttpResponse:
    """503 as a page or as JSON. The page takes nothing for granted: neither session nor database may be there.

    `is_certain` says that no picture of this request was kept.
    """
    if wants_json(request):
        response: HttpResponse = JsonResponse({"error": sentence, "retry_after": retry_after_s})
    else:
        response = HttpResponse(render_to_string("503.html", {"sentence": sentence, "is_certain": is_certain}))
    response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    response["Retry-After"] = str(retry_after_s)
    response["Cache-Control"] = "no-store"
    return response
