"""Who somebody is that has not logged in: a random key inside their session.

Django's own session key will not do: it changes at log-in, which is exactly when the visitor's detections have to be
found again, and whoever reads it from the database could take over the session.
"""

import secrets

from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponse

SESSION_FIELD = "visitor_key"
VISITOR_KEY_BYTES = 20  # 40 hexadecimal digits, the length of Detection.session_key


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
