"""The limit as users meet it: two real server processes, one Redis, requests at the same moment."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from detector.private_redis import PrivateRedis, dies_with_parent
from detector.tests.factories import make_jpeg

pytestmark = pytest.mark.redis

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 40
BOUNDARY = "two-processes"


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: str


class Visitor:
    """A browser without a screen: keeps its cookies, sends the form's token."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookies: dict[str, str] = {}

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            for cookie in response.headers.get_all("Set-Cookie") or []:
                name, _, value = cookie.partition(";")[0].partition("=")
                self.cookies[name] = value
            return Answer(response.status, response.headers, response.read().decode(errors="replace"))
        finally:
            connection.close()

    def open_page(self) -> Answer:
        return self.ask("GET", "/")

    def upload(self, data: bytes | None = None, **headers: str) -> Answer:
        parts = [
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="csrfmiddlewaretoken"\r\n\r\n'
            f"{self.cookies['csrftoken']}\r\n".encode(),
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="picture"; filename="a.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n".encode(),
            make_jpeg() if data is None else data,
            f"\r\n--{BOUNDARY}--\r\n".encode(),
        ]
        content_type = f"multipart/form-data; boundary={BOUNDARY}"
        return self.ask("POST", "/", b"".join(parts), **{"Content-Type": content_type}, **headers)


@dataclass
class Site:
    ports: tuple[int, int]
    media: Path

    def visitors(self, count: int) -> list[Visitor]:
        """New visitors, by turns at the one process and the other."""
        visitors = [Visitor(self.ports[number % 2]) for number in range(count)]
        for visitor in visitors:
            assert visitor.open_page().status == 200
        return visitors

    def stored_pictures(self) -> int:
        return len(list(self.media.glob("detections/*/*/*")))


@pytest.fixture(scope="module")
def site(redis_process: PrivateRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    environment = {
        **os.environ,
        "DEBUG": "true",
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "MEDIA_ROOT": str(folder / "media"),
        "REDIS_URL": redis_process.url,
        # A day, so that no window ends during the test.
        "UPLOAD_RATE": "5/d",
        "LOG_LEVEL": "ERROR",
    }
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True)
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    servers = []
    try:
        for listener in listeners:
            descriptor = listener.fileno()
            command = [sys.executable, "-m", "gunicorn", "detector.tests.wsgi_with_fake_model:application"]
            options = ["--workers=1", "--worker-class=gthread", "--threads=4", f"--bind=fd://{descriptor}"]
            servers.append(
                subprocess.Popen(
                    [*command, *options, "--log-level=error", "--no-control-socket"],
                    cwd=ROOT,
                    env=environment,
                    pass_fds=[descriptor],
                    preexec_fn=dies_with_parent(),
                )
            )
        ports = (listeners[0].getsockname()[1], listeners[1].getsockname()[1])
        for port in ports:
            wait_for(port)
        yield Site(ports, folder / "media")
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait(20)
        for listener in listeners:
            listener.close()


def wait_for(port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            assert Visitor(port).ask("GET", "/healthz").status == 200
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"The server on port {port} did not start.")


def upload_together(visitors: list[Visitor], **headers: str) -> list[Answer]:
    barrier = threading.Barrier(len(visitors))

    def upload(number: int) -> Answer:
        barrier.wait(20)
        own = {name: value.format(number) for name, value in headers.items()}
        return visitors[number].upload(None, **own)

    with ThreadPoolExecutor(len(visitors)) as pool:
        return list(pool.map(upload, range(len(visitors))))


def test_of_ten_uploads_at_once_exactly_five_get_through(site: Site, redis_server: PrivateRedis) -> None:
    before = site.stored_pictures()
    answers = upload_together(site.visitors(10))
    assert Counter(answer.status for answer in answers) == {302: 5, 429: 5}
    assert site.stored_pictures() - before == 5
    for answer in answers:
        if answer.status == 429:
            wait = int(answer.headers["Retry-After"])
            assert 1 <= wait <= 24 * 3600
            assert re.search(rf"\b{wait} seconds", answer.body)


def test_forged_addresses_get_no_more_through(site: Site, redis_server: PrivateRedis) -> None:
    forged = {"X-Forwarded-For": "203.0.113.{}", "X-Real-IP": "203.0.113.{}", "Forwarded": "for=203.0.113.{}"}
    answers = upload_together(site.visitors(10), **forged)
    assert Counter(answer.status for answer in answers) == {302: 5, 429: 5}


def test_both_processes_tell_the_same_number_of_uploads_left(site: Site, redis_server: PrivateRedis) -> None:
    first, second = site.visitors(2)
    assert first.upload().status == 302
    assert second.upload().status == 302
    for visitor in (first, second):
        assert "<strong>3</strong> of 5 uploads left" in visitor.open_page().body


@pytest.mark.parametrize("outage", ["killed", "frozen"])
def test_while_redis_is_down_only_uploads_are_refused(site: Site, redis_server: PrivateRedis, outage: str) -> None:
    visitor = site.visitors(1)[0]
    assert visitor.upload().status == 302
    before = site.stored_pictures()
    process = redis_server.process
    assert process is not None
    if outage == "killed":
        redis_server.kill()
    else:
        process.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        refused = visitor.upload()
        script = visitor.upload(Accept="application/json")
        page = visitor.open_page()
        assert time.monotonic() - started < 10
        assert (refused.status, script.status, page.status) == (503, 503, 200)
        assert refused.headers["Retry-After"] == "30"
        assert "try again shortly" in refused.body
        assert "try again shortly" in json.loads(script.body)["error"]
        assert "Uploads are paused" in page.body
        for path in ("/history/", "/about/", "/healthz", "/accounts/login/"):
            assert visitor.ask("GET", path).status == 200
        assert site.stored_pictures() == before
    finally:
        if outage == "killed":
            redis_server.start()
        else:
            process.send_signal(signal.SIGCONT)
    assert visitor.upload().status == 302


def test_a_body_that_is_too_large_is_answered_and_not_taken_in(site: Site, redis_server: PrivateRedis) -> None:
    visitor = site.visitors(1)[0]
    answer = visitor.upload(b"\xff" * (17 * 1024 * 1024), Accept="application/json")
    assert answer.status == 413
    assert "too large" in json.loads(answer.body)["error"]
    assert "<strong>5</strong> of 5 uploads left" in visitor.open_page().body
