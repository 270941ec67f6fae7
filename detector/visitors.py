"""Who somebody is that has not logged in: a random key inside their session.

Django's own session key will not do: it changes at log-in, which is exactly when the visitor's detections have to be
found again, and whoever reads it from the database could take over the session.

A session begins with the answer to the first upload. That answer may never arrive, and the picture is kept all the
same: so the page with the form offers a key in a cookie, which the first upload takes, and by which it is found again.
"""

import re
import secrets
import time

from django.conf import settings
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponse

SESSION_FIELD = "visitor_key"
RENEWED_FIELD = "visitor_renewed_at"
CLAIMED_FIELD = "claimed_visitor_key"
# An upload that was under way at log-in is stored by then, or never.
LATE_FOR_S = 600
RENEW_AFTER_S = 3600  # at most so often: it is a write to the database
# What Django's own look like. Of others a quoted cookie can hold a zero byte, which PostgreSQL refuses in a question.
SESSION_KEY = re.compile(r"[0-9a-z]{8,40}")
VISITOR_KEY_BYTES = 20  # 40 hexadecimal digits, the length of Detection.session_key
OFFER_SALT = "detector.visitors.offer"
OFFERED_FOR_S = 24 * 3600


class VisitorMiddleware(SessionMiddleware):
    """Django's sessions, for which a cookie that cannot be a session's is none."""

    def process_request(self, request: HttpRequest) -> None:
        name = settings.SESSION_COOKIE_NAME
        if not SESSION_KEY.fullmatch(request.COOKIES.get(name, "")):
            request.COOKIES.pop(name, None)
        super().process_request(request)

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Django's, but what was done is not answered 400 because a log-in in another tab ended the session."""
        try:
            return super().process_response(request, response)
        except SessionInterrupted:
            return response  # the browser has the new session's cookie already


def visitor_key(request: HttpRequest) -> str:
    """The visitor's key, or "" for one who has uploaded nothing yet and was offered none."""
    return str(request.session.get(SESSION_FIELD, "")) or _offered_key(request)


def has_visitor_key(request: HttpRequest) -> bool:
    """Whether the visitor's session has a key, which it gets with the first upload and loses only with its end."""
    return SESSION_FIELD in request.session


def offer_visitor_key(request: HttpRequest, response: HttpResponse) -> None:
    """Gives a visitor without a key one for a first upload; it needs no row in the database until then."""
    if request.user.is_authenticated or visitor_key(request):
        return
    response.set_signed_cookie(
        settings.OFFER_COOKIE_NAME,
        secrets.token_hex(VISITOR_KEY_BYTES),
        salt=OFFER_SALT,
        max_age=OFFERED_FOR_S,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )


def _offered_key(request: HttpRequest) -> str:
    key = request.get_signed_cookie(settings.OFFER_COOKIE_NAME, "", salt=OFFER_SALT, max_age=OFFERED_FOR_S)
    return str(key)


def ensure_visitor_key(request: HttpRequest) -> str:
    """The visitor's key for an upload, after which the session lasts as long as a new one."""
    if SESSION_FIELD not in request.session:
        request.session[SESSION_FIELD] = _offered_key(request) or secrets.token_hex(VISITOR_KEY_BYTES)
    now = int(time.time())
    if now - request.session.get(RENEWED_FIELD, 0) > RENEW_AFTER_S:
        request.session[RENEWED_FIELD] = now
    return visitor_key(request)


def retire_visitor_key(request: HttpRequest) -> None:
    """From now on the key is nobody's, but that `late_visitor_key` still tells it for a while."""
    request.session[CLAIMED_FIELD] = [visitor_key(request), int(time.time())]
    for field in (SESSION_FIELD, RENEWED_FIELD):
        request.session.pop(field, None)


def late_visitor_key(request: HttpRequest) -> str:
    """The key that somebody had who logged in just now, or ""."""
    key, retired_at = request.session.get(CLAIMED_FIELD, ("", 0))
    if key and time.time() - retired_at > LATE_FOR_S:
        del request.session[CLAIMED_FIELD]
        return ""
    return str(key)


def keep_session(request: HttpRequest, response: HttpResponse) -> None:
    """Saves the session and sets its cookie now, on an answer that is about to become a 5xx.

    With a 5xx Django does neither: a new visitor's picture would belong to nobody.
    """
    VisitorMiddleware(lambda _: response).process_response(request, response)
