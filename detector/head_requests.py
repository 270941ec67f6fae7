"""No body goes out to a HEAD request.

Django makes the whole page for one, and leaves it to the server to drop it; gunicorn does, with a warning each time.
"""

from collections.abc import Callable, Iterable
from typing import Any


class BodilessHeads:
    """A WSGI application that answers HEAD with the headers alone, those of the body that there would be included."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self.application = application

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = self.application(environ, start_response)
        if environ["REQUEST_METHOD"] != "HEAD":
            return body
        if hasattr(body, "close"):
            body.close()  # ends the request: without it files and connections stay open
        return []
