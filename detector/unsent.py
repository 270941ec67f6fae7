"""What somebody typed into a form whose session had ended before they sent it.

It travels on in the log-in form that they get for an answer, and waits in the new session for the page it was typed on.
Nothing of it is kept for anybody who does not log in.
"""

from django.http import HttpRequest

SESSION_FIELD = "unsent"
PAGE, TEXT, VERDICT = "unsent_page", "unsent_text", "unsent_verdict"


def typed(*, page: str, text: str, verdict: str = "") -> dict[str, str]:
    """What templates/registration/_unsent.html shows and sends along: the page's path, and what was typed on it."""
    return {PAGE: page, TEXT: text, VERDICT: verdict}


def keep(request: HttpRequest) -> None:
    """Has what came with a log-in wait for its page."""
    if request.POST.get(PAGE):
        request.session[SESSION_FIELD] = {name: request.POST.get(name, "") for name in (PAGE, TEXT, VERDICT)}


def take(request: HttpRequest, page: str) -> dict[str, str] | None:
    """What waits for that page, once, for whoever looks at it."""
    waiting: dict[str, str] | None = request.session.get(SESSION_FIELD)
    if request.method != "GET" or waiting is None or waiting[PAGE] != page:
        return None
    del request.session[SESSION_FIELD]
    return waiting
