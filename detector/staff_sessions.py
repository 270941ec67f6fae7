"""Staff, who see everybody's pictures, log in anew after STAFF_SESSION_AGE_S.

A session's own expiry cannot see to that: it moves on whenever the session is saved, and was chosen by what the account
was at the log-in. So the session holds when that was, and whoever is staff by now is nobody once it is too long ago:
in the admin and wherever else somebody's rights are asked for, which all ask `request.user`.
"""

import time
from typing import cast

from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware, get_user
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

LOGGED_IN_AT = "logged_in_at"


class StaffSessionMiddleware(AuthenticationMiddleware):
    """Django's, but for staff whose log-in is too old."""

    def process_request(self, request: HttpRequest) -> None:
        super().process_request(request)
        # Asked only where a page asks who it is; until then it stands for the user, as Django's own does.
        request.user = cast(User | AnonymousUser, SimpleLazyObject(lambda: _user_of(request)))


def note_log_in(request: HttpRequest) -> None:
    request.session[LOGGED_IN_AT] = int(time.time())


def _user_of(request: HttpRequest) -> User | AnonymousUser:
    """Who is logged in; of staff whose log-in is too old the session stays for their next one."""
    user = get_user(request)
    # Sessions from before log-ins were noted have no time: theirs is too long ago.
    age_s = time.time() - request.session.get(LOGGED_IN_AT, 0)
    return AnonymousUser() if user.is_staff and age_s > settings.STAFF_SESSION_AGE_S else user
