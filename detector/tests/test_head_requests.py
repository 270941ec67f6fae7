"""A HEAD request is answered with the headers alone."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from detector.head_requests import BodilessHeads


class Body:
    def __init__(self) -> None:
        self.is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"page"])

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(("method", "sent"), [("GET", [b"page"]), ("POST", [b"page"]), ("HEAD", [])])
def test_only_a_head_request_gets_no_body_and_what_was_opened_is_closed(method: str, sent: list[bytes]) -> None:
    body = Body()
    started: list[Any] = []

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Body:
        start_response("200 OK", [("Content-Length", "4")])
        return body

    answer = BodilessHeads(application)({"REQUEST_METHOD": method}, lambda *given: started.append(given))

    assert list(answer) == sent
    assert started == [("200 OK", [("Content-Length", "4")])]
    assert body.is_closed == (method == "HEAD"), "of all others the server closes it"
