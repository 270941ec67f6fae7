"""Requests that lie about themselves, byte by byte over a socket to a server that `manage.py serve` started."""

import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from detector.private_redis import PrivateRedis
from detector.tests.factories import make_jpeg
from detector.tests.test_serve import ROOT, Site, status_of

pytestmark = [pytest.mark.alone, pytest.mark.model, pytest.mark.redis]

BODY = (
    b'--b\r\nContent-Disposition: form-data; name="picture"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    + make_jpeg()
    + b"\r\n--b--\r\n"
)
FORM_DATA = f"csrfmiddlewaretoken={'a' * 32}".encode()
MANY_PARTS = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n' * 10_000 + b"--b--\r\n"
# With a token in its cookie the form is read to find the one that has to match it.
FORM = f"Content-Type: multipart/form-data; boundary=b\r\nCookie: csrftoken={'a' * 32}\r\n"
ANSWER_TIMEOUT_S = 30


def post(*headers: str, body: bytes = BODY) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{FORM}{lines}\r\n".encode("latin-1") + body


def post_form(content_type: str) -> bytes:
    """A form with the token that its cookie asks for, of another type than the picture's."""
    lines = f"Content-Type: {content_type}\r\nCookie: csrftoken={'a' * 32}\r\nContent-Length: {len(FORM_DATA)}\r\n"
    return f"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n".encode() + FORM_DATA


def get(path: bytes, *headers: bytes) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + lines + b"\r\n"


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


# What may be answered: a refusal, or none where the request never ends. Never a 5xx, and nothing is stored, as none of
# these brings the form's own token along; what is tested is what happens until that is missed.
REQUESTS = {
    "honest, without a token": post(f"Content-Length: {len(BODY)}"),
    "says less than it sends": post("Content-Length: 200"),
    "says more than it sends": post(f"Content-Length: {len(BODY) + 10_000}"),
    "says nothing": post(),
    "length below zero": post("Content-Length: -1"),
    "length of letters": post("Content-Length: many"),
    "length of digits that are none": post("Content-Length: \xb2\xb3"),
    "length with a sign": post(f"Content-Length: +{len(BODY)}"),
    "length of a thousand digits": post("Content-Length: " + "9" * 1_000),
    "a terabyte": post("Content-Length: 1099511627776"),
    "two lengths": post(f"Content-Length: {len(BODY)}", "Content-Length: 10"),
    "chunked": post("Transfer-Encoding: chunked", body=chunked(BODY[:500], BODY[500:], b"")),
    "chunked and a length": post(f"Content-Length: {len(BODY)}", "Transfer-Encoding: chunked", body=chunked(BODY, b"")),
    "chunked twice": post("Transfer-Encoding: chunked, chunked", body=chunked(BODY, b"")),
    "chunks of no number": post("Transfer-Encoding: chunked", body=b"zz\r\nabc\r\n0\r\n\r\n"),
    "a chunk of 16 exabytes": post("Transfer-Encoding: chunked", body=b"ffffffffffffffff\r\nabc"),
    "chunks that stop": post("Transfer-Encoding: chunked", body=b"1000\r\nabc"),
    "compressed": post("Content-Encoding: gzip", f"Content-Length: {len(BODY)}"),
    "ten thousand parts": post(f"Content-Length: {len(MANY_PARTS)}", body=MANY_PARTS),
    "a header of 100 KB": post("X-Long: " + "a" * 100_000, "Content-Length: 0", body=b""),
    "a thousand headers": post(*(f"X-{n}: 1" for n in range(1_000)), "Content-Length: 0", body=b""),
    "a NUL in a header": post("X-Nul: a\0b", "Content-Length: 0", body=b""),
    "a folded header": post("X-Folded: a\r\n b", "Content-Length: 0", body=b""),
    "no protocol": b"POST /\r\n\r\n",
    "a form in UTF-8 by another name": post_form("application/x-www-form-urlencoded; charset=utf8"),
    "a form in Latin-1": post_form("application/x-www-form-urlencoded; charset=iso-8859-1"),
    "parts in a codec that is none for text": post_form("multipart/form-data; boundary=b; charset=hex"),
    "a charset that is none for text": get(b"/no?page=1", b"Content-Type: text/plain; charset=hex"),
    "a charset that nobody knows": get(b"/no", b"Content-Type: text/plain; charset*=none''%41"),
    "not HTTP": bytes(range(256)) * 4,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "another host": post("X-Forwarded-Host: evil.example", "Content-Length: 0", body=b""),
    "a path that climbs": get(b"/static/../../../../etc/passwd"),
    "a path with a NUL": get(b"/history/%00?page=%00&verdict=%00"),
    "a path that is no UTF-8": get(b"/%ff%fe/\xff"),
}


@pytest.fixture(scope="module")
def site(redis_process: PrivateRedis) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="http-") as name:
        directory = Path(name)
        environment = {
            "DATABASE_URL": f"sqlite:///{directory / 'db.sqlite3'}",
            "MEDIA_ROOT": str(directory / "media"),
            "REDIS_URL": redis_process.url,
            "UPLOAD_RATE": "1000/d",
        }
        migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
        subprocess.run(migrate, cwd=ROOT, env={**os.environ, **environment}, check=True)
        site = Site(directory, environment, "--workers", "1")
        try:
            yield site
        finally:
            site.process.terminate()
            site.process.wait(30)
            site.end()


@pytest.fixture(scope="module")
def port(site: Site) -> int:
    return int(site.wait_until_ready().rpartition(":")[2])


def first_status(port: int, request: bytes) -> int | None:
    """The status that the request is answered with, None where the connection is closed without a word."""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_TIMEOUT_S) as connection:
        answer = b""
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)  # nothing more will come
            while piece := connection.recv(65_536):
                answer += piece
        except (ConnectionError, BrokenPipeError):
            pass
    status = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
    return int(status[1]) if status else None


def test_no_lie_breaks_the_server(site: Site, port: int) -> None:
    statuses = {name: first_status(port, request) for name, request in REQUESTS.items()}
    assert {name: status for name, status in statuses.items() if status is not None and not 400 <= status < 500} == {}
    assert statuses["honest, without a token"] == 403
    assert statuses["a terabyte"] == 413
    assert statuses["ten thousand parts"] == 400
    assert status_of(f"http://127.0.0.1:{port}/healthz") == 200
    assert not list((site.log.parent / "media").rglob("*.*")), "something was stored"
    assert "Internal Server Error" not in site.output()


def test_no_header_names_another_path_or_scheme(site: Site, port: int) -> None:
    """As no proxy is trusted: by itself gunicorn believes this machine, and refuses what contradicts itself."""
    assert first_status(port, get(b"/no", b"PATH_INFO: /healthz")) == 404
    assert first_status(port, get(b"/about/", b"X-Forwarded-Proto: https", b"X-Forwarded-Ssl: off")) == 200
