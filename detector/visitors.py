"""Who somebody is that has not logged in: a random key inside their session.

Django's own session key will not do: it changes at log-in, which is exactly when the visitor's detections have to be
found again, and whoever reads it from the database could take over the session.
"""

import re
import secrets

from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponse

SESSION_FIELD = "visitor_key"
# What Django's own look like. Of others a quoted cookie can hold a zero byte, which PostgreSQL refuses in a question.
SESSION_KEY = re.compile(r"[0-9a-z]{8,40}")
VISITOR_KEY_BYTES = 20  # 40 hexadecimal digits, the length of Detection.session_key


class VisitorMiddleware(SessionMiddleware):
    """Django's sessions, for which a cookie that cannot be a session's is none."""

    def process_request(self, request: HttpRequest) -> None:
        name = settings.SESSION_COOKIE_NAME
        if not SESSION_KEY.fullmatch(request.COOKIES.get(name, "")):
            request.COOKIES.pop(name, None)
        super().process_request(request)


def visitor_key(request: HttpRequest) -> str:
    """The visitor's key, or "" for one who has uploaded nothing yet."""
    return str(request.session.get(SESSION_FIELD, ""))


def ensure_visitor_key(request: HttpRequest) -> str:
    if SESSION_FIELD not in request.session:
        request.session[SESSION_FIELD] = secrets.token_hex(VISITOR_KEY_BYTES)
    return visitor_key(request)


def forget_visitor_key(request: HttpRequest) -> None:
    request.session.pop(SESSION_FIELD, None)


def keep_session(request: HttpRequest, response: HttpResponse) -> None:
    """Saves the session and sets its cookie now, on an answer that is about to become a 5xx.

    With a 5xx Django does neither: a new visitor's picture would belong to nobody.
    """
    SessionMiddleware(lambda _: response).process_response(request, response)
