"""The limit as users meet it: two real server processes, one Redis, requests at the same moment."""

import os
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

from benchmarks.browser import Answer, Browser
from detector.private_redis import PrivateRedis, dies_with_parent
from detector.templatetags.display import seconds
from detector.tests.factories import make_jpeg

pytestmark = [pytest.mark.alone, pytest.mark.redis]

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 40


@dataclass
class Site:
    ports: tuple[int, int]
    media: Path

    def visitors(self, count: int) -> list[Browser]:
        """New visitors, by turns at the one process and the other."""
        visitors = [Browser(self.ports[number % 2]) for number in range(count)]
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
            assert Browser(port).ask("GET", "/healthz").status == 200
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"The server on port {port} did not start.")


def upload_together(visitors: list[Browser], **headers: str) -> list[Answer]:
    barrier = threading.Barrier(len(visitors))

    def upload(number: int) -> Answer:
        barrier.wait(20)
        own = {name: value.format(number) for name, value in headers.items()}
        return visitors[number].upload(make_jpeg(), **own)

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
            assert f'<strong data-countdown="{wait}">{seconds(wait)}</strong>' in answer.text()


def test_forged_addresses_get_no_more_through(site: Site, redis_server: PrivateRedis) -> None:
    forged = {"X-Forwarded-For": "203.0.113.{}", "X-Real-IP": "203.0.113.{}", "Forwarded": "for=203.0.113.{}"}
    answers = upload_together(site.visitors(10), **forged)
    assert Counter(answer.status for answer in answers) == {302: 5, 429: 5}


def test_both_processes_tell_the_same_number_of_uploads_left(site: Site, redis_server: PrivateRedis) -> None:
    first, second = site.visitors(2)
    assert first.upload(make_jpeg()).status == 302
    assert second.upload(make_jpeg()).status == 302
    for visitor in (first, second):
        assert "<strong>3</strong> of 5 uploads left" in visitor.open_page().text()


@pytest.mark.parametrize("outage", ["killed", "frozen"])
def test_while_redis_is_down_only_uploads_are_refused(site: Site, redis_server: PrivateRedis, outage: str) -> None:
    visitor = site.visitors(1)[0]
    assert visitor.upload(make_jpeg()).status == 302
    before = site.stored_pictures()
    process = redis_server.process
    assert process is not None
    if outage == "killed":
        redis_server.kill()
    else:
        process.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        refused = visitor.upload(make_jpeg())
        script = visitor.upload(make_jpeg(), Accept="application/json")
        page = visitor.open_page()
        assert time.monotonic() - started < 10
        assert (refused.status, script.status, page.status) == (503, 503, 200)
        assert refused.headers["Retry-After"] == "30"
        assert "try again shortly" in refused.text()
        assert "try again shortly" in str(script.json()["error"])
        assert "Uploads are paused" in page.text()
        for path in ("/history/", "/about/", "/healthz", "/accounts/login/"):
            assert visitor.ask("GET", path).status == 200
        assert site.stored_pictures() == before
    finally:
        if outage == "killed":
            redis_server.start()
        else:
            process.send_signal(signal.SIGCONT)
    assert visitor.upload(make_jpeg()).status == 302


def test_a_body_that_is_too_large_is_answered_and_not_taken_in(site: Site, redis_server: PrivateRedis) -> None:
    visitor = site.visitors(1)[0]
    answer = visitor.upload(b"\xff" * (17 * 1024 * 1024), Accept="application/json")
    assert answer.status == 413
    assert "too large" in str(answer.json()["error"])
    assert "<strong>5</strong> of 5 uploads left" in visitor.open_page().text()
