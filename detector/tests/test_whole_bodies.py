"""What a request's body is to the application when the client left before its end."""

import io
from typing import Any

import pytest

from detector.whole_bodies import CUT_SHORT, WholeBodies


def wrapped(length: str) -> dict[str, Any]:
    environ = {"CONTENT_LENGTH": length, "wsgi.input": io.BytesIO(b"123456789")}
    WholeBodies(lambda *_: [])(environ, lambda *_: None)
    return environ


@pytest.mark.parametrize(
    ("length", "reads"),
    [("9", [9]), ("9", [-1]), ("9", [4, 5]), ("9", [4, 100]), ("12", [4, 5]), ("", [3]), ("0", [3])],
)
def test_what_is_there_is_read(length: str, reads: list[int]) -> None:
    environ = wrapped(length)
    stream = environ["wsgi.input"]
    assert isinstance(stream, io.BytesIO) == (length in ("", "0"))
    body = io.BytesIO(b"123456789")
    assert [stream.read(size) for size in reads] == [body.read(size) for size in reads]
    assert CUT_SHORT not in environ


@pytest.mark.parametrize("reads", [[-1], [10], [100], [9, 1], [4, 5, 1]])
@pytest.mark.parametrize("way", ["read", "readline"])
def test_a_body_that_ends_too_early_is_an_error(way: str, reads: list[int]) -> None:
    environ = wrapped("10")

    def read_all() -> None:
        for size in reads:
            getattr(environ["wsgi.input"], way)(size)

    with pytest.raises(OSError, match="of the body are missing"):
        read_all()
    assert environ[CUT_SHORT] is True
