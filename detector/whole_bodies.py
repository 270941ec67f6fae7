"""No request is acted upon of which a part is missing.

When a client leaves in the middle of a body, gunicorn hands on what came until then as if it were all. In a form that
was cut off behind its picture, the wish not to keep that picture would be missing, and so it would be kept.
"""

from collections.abc import Callable, Iterable
from typing import Any

CUT_SHORT = "detector.body_cut_short"


class WholeBodies:
    """A WSGI application whose requests can be read to the end that their Content-Length tells, or not at all."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self.application = application

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        length = environ.get("CONTENT_LENGTH") or "0"
        if length.isdecimal() and int(length):
            environ["wsgi.input"] = _WholeBody(environ, int(length))
        return self.application(environ, start_response)


class _WholeBody:
    """The body as a stream that raises OSError, which Django understands, where it ends too early."""

    def __init__(self, environ: dict[str, Any], length: int) -> None:
        self._environ = environ
        self._stream = environ["wsgi.input"]
        self._missing = length

    def read(self, size: int = -1) -> bytes:
        wanted = self._missing if size < 0 else min(size, self._missing)
        data: bytes = self._stream.read(wanted)
        self._count(data, is_short=len(data) < wanted)
        return data

    def readline(self, size: int = -1) -> bytes:
        wanted = self._missing if size < 0 else min(size, self._missing)
        line: bytes = self._stream.readline(wanted)
        self._count(line, is_short=len(line) < wanted and not line.endswith(b"\n"))
        return line

    def _count(self, data: bytes, *, is_short: bool) -> None:
        self._missing -= len(data)
        if is_short:
            self._environ[CUT_SHORT] = True
            raise OSError(f"{self._missing} bytes of the body are missing.")
