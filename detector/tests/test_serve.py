"""`manage.py serve` as a user starts it: real processes, and nothing left of them afterwards."""

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import psutil
import pytest
from django.core.management import CommandError, call_command, load_command_class
from pytest_django import Settings

from detector import gunicorn_process, private_redis
from detector.private_redis import PrivateRedis, dies_with_parent

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]
T = TypeVar("T")
START_TIMEOUT_S = 40
STOP_TIMEOUT_S = 15


class Site:
    """One `manage.py serve` on a free port with a database of its own."""

    def __init__(self, directory: Path, environment: dict[str, str], *arguments: str) -> None:
        self.log = directory / "serve.log"
        with self.log.open("wb") as log:
            self.process = psutil.Popen(
                [sys.executable, str(ROOT / "manage.py"), "serve", "--port", "0", *arguments],
                cwd=directory,  # it works from any
                env={**os.environ, "DEBUG": "true", "PYTHONUNBUFFERED": "1", "TMPDIR": str(directory), **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                # Whoever runs the suite under nohup has closed terminals ignored, and serve rightly keeps that.
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
            )
        self.seen: list[psutil.Process] = []

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until_ready(self) -> str:
        """The address that it announced."""
        found = eventually(
            lambda: re.search(r"is at (http://\S+)", self.output()) or self.process.poll() is not None, START_TIMEOUT_S
        )
        assert isinstance(found, re.Match), self.output()
        self.seen = self.process.children(recursive=True)
        return found[1]

    def named(self, name: str) -> list[psutil.Process]:
        """Its children by a part of their command, as of now."""
        self.seen = list({*self.seen, *self.process.children(recursive=True)})
        return [child for child in self.seen if name in command_of(child)]

    def assert_nothing_runs(self) -> None:
        gone, alive = psutil.wait_procs([self.process, *self.seen], timeout=STOP_TIMEOUT_S)
        assert not alive, self.output()

    def end(self) -> None:
        for process in [*self.seen, self.process]:
            if process.is_running():
                process.kill()
        self.process.wait()


def command_of(process: psutil.Process) -> str:
    """Empty once the process has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def eventually(condition: Callable[[], T], timeout_s: float) -> T:
    """What the condition gave as soon as it was true, or at the end of the time."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return value


def status_of(url: str) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as response:
        return int(response.status)


@pytest.fixture(scope="module")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "db.sqlite3"
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--verbosity", "0"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": f"sqlite:///{path}"},
        check=True,
    )
    return path


@pytest.fixture
def serve(migrated_database: Path) -> Iterator[Callable[..., Site]]:
    started: list[Site] = []
    # Short, unlike pytest's own: a Unix socket's path may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="serve-") as name:
        directory = Path(name)
        shutil.copy(migrated_database, directory / "db.sqlite3")

        def start(*arguments: str, **environment: str) -> Site:
            site = Site(directory, {"DATABASE_URL": f"sqlite:///{directory / 'db.sqlite3'}", **environment}, *arguments)
            started.append(site)
            return site

        yield start
        for site in started:
            site.end()


@pytest.mark.model
@pytest.mark.redis
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_gunicorn_and_redis_and_leaves_nothing(
    serve: Callable[..., Site], number: signal.Signals
) -> None:
    site = serve()
    url = site.wait_until_ready()
    assert status_of(url) == 200
    assert len(site.named("manage.py serve")) == 3, "an arbiter and two workers"
    assert len(site.named("redis-server")) == 1
    assert "make admin" in site.output()

    site.process.send_signal(number)

    site.assert_nothing_runs()
    assert site.process.returncode == 0, site.output()
    assert not list(site.log.parent.glob("deepfake-*")), "the private folder is gone"


@pytest.mark.model
@pytest.mark.redis
def test_even_a_killed_serve_leaves_nothing_running(serve: Callable[..., Site]) -> None:
    if dies_with_parent() is None:  # only Linux tells children of their parent's death
        return
    site = serve()
    site.wait_until_ready()
    site.process.kill()
    site.assert_nothing_runs()


@pytest.mark.model
@pytest.mark.redis
def test_a_redis_that_dies_comes_back(serve: Callable[..., Site]) -> None:
    site = serve()
    url = site.wait_until_ready()
    (first,) = site.named("redis-server")
    first.kill()
    eventually(lambda: "starting it again" in site.output(), 10)
    assert eventually(lambda: [other for other in site.named("redis-server") if other != first], 10), site.output()
    assert status_of(url) == 200
    site.process.terminate()
    site.assert_nothing_runs()


@pytest.mark.model
def test_a_given_redis_is_used_and_none_is_started(serve: Callable[..., Site], redis_server: PrivateRedis) -> None:
    site = serve(REDIS_URL=redis_server.url)
    site.wait_until_ready()
    assert not site.named("redis-server")
    site.process.terminate()
    site.assert_nothing_runs()
    assert redis_server.answers(), "serve stops only what it started"


@pytest.mark.model
@pytest.mark.redis
def test_it_sees_itself_ready_under_any_host_name(serve: Callable[..., Site]) -> None:
    site = serve(ALLOWED_HOSTS=".example.org")
    site.wait_until_ready()
    assert "DisallowedHost" not in site.output()


@pytest.mark.model
@pytest.mark.redis
def test_a_head_request_gets_the_headers_of_the_page_and_no_warning(serve: Callable[..., Site]) -> None:
    site = serve(LOG_LEVEL="WARNING")
    port = urlsplit(site.wait_until_ready()).port or 0
    for path, status in [("/", 200), ("/about/", 200), ("/admin/", 302), ("/nothing/", 404), ("/healthz", 200)]:
        for method in ("GET", "HEAD"):
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
                connection.request(method, path)
                response = connection.getresponse()
                assert response.status == status
                assert bool(response.read()) == (method == "GET" and status != 302), (method, path)
                assert status == 302 or int(response.headers["Content-Length"]) > 0
    site.process.terminate()
    site.process.wait(30)
    assert "no-body response" not in site.output()


def test_a_taken_port_is_one_clear_message(serve: Callable[..., Site]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        site = serve("--port", str(port))
        assert site.process.wait(START_TIMEOUT_S) == 1
    assert f"Cannot listen on 127.0.0.1 port {port}: Address already in use" in site.output()
    assert f"PORT={port + 1}" in site.output()
    assert "Traceback" not in site.output()
    assert not list(site.log.parent.glob("deepfake-*"))


def test_a_missing_model_stops_the_start_with_its_name(serve: Callable[..., Site], tmp_path: Path) -> None:
    site = serve(MODEL_DIR=str(tmp_path / "no-model"))
    assert site.process.wait(START_TIMEOUT_S) == 1
    assert "no-model" in site.output()
    assert "is at http" not in site.output()
    assert "Traceback" not in site.output()


def test_a_database_without_migrations_stops_the_start(serve: Callable[..., Site], tmp_path: Path) -> None:
    site = serve(DATABASE_URL=f"sqlite:///{tmp_path / 'empty.sqlite3'}")
    assert site.process.wait(START_TIMEOUT_S) == 1
    assert "manage.py migrate" in site.output()


@pytest.mark.parametrize("folder", ["none", "empty"])
def test_static_files_that_are_not_collected_stop_the_start(
    serve: Callable[..., Site], tmp_path: Path, folder: str
) -> None:
    (tmp_path / "empty").mkdir()
    site = serve(DEBUG="false", STATIC_ROOT=str(tmp_path / folder))
    assert site.process.wait(START_TIMEOUT_S) == 1
    assert "manage.py collectstatic" in site.output()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("port", 65536, "ports go from 0 to 65535"),
        ("port", -1, "ports go from 0 to 65535"),
        ("workers", 0, "--workers is 0; it has to be 1 or more"),
        ("threads", 0, "--threads is 0; it has to be 1 or more"),
        ("timeout", 0, "--timeout is 0; it has to be 1 or more"),
    ],
)
def test_an_impossible_option_is_refused(option: str, value: int, said: str) -> None:
    with pytest.raises(CommandError, match=said):
        call_command("serve", **{option: value})


@pytest.mark.django_db
def test_without_any_redis_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setattr(private_redis, "redis_binary", lambda: None)
    monkeypatch.setattr("detector.management.commands.serve.require_sound_setup", lambda: None)
    settings.DEBUG = True
    with pytest.raises(CommandError, match=r"no redis-server .* apt install redis-server.* REDIS_URL") as caught:
        call_command("serve", port=0)
    assert caught.value.returncode == 1


LOADING = """
import sys, django
django.setup()
from django.core.cache import caches
from django.db import connection
from detector.gunicorn_process import load_application
load_application()
print(*[name in sys.modules for name in ("deepfake_site.wsgi", "detector.views", "gunicorn.arbiter")])
print(connection.connection, caches.all(initialized_only=True), "prometheus_client" in sys.modules)
"""


@pytest.mark.skipif(not gunicorn_process.FORKS, reason="processes are started anew")
def test_what_is_loaded_before_the_fork_is_all_but_what_processes_may_not_share() -> None:
    settings = {"DJANGO_SETTINGS_MODULE": "deepfake_site.settings", "DEBUG": "true", "REDIS_URL": ""}
    environment = {**os.environ, **settings}
    done = subprocess.run([sys.executable, "-c", LOADING], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["True True True", "None [] False"], done.stderr


RESERVING = """
import runpy, django
from types import SimpleNamespace
django.setup()
from detector import pending, predictor, services
services.predictor_reserve = lambda *, processes: print("for", processes, end="; ")
pending.settle_from_time_to_time = lambda: None
predictor.forget_predictors = lambda: print("forgotten", end="; ")
hooks, server = runpy.run_path("gunicorn.conf.py"), SimpleNamespace(cfg=SimpleNamespace(workers=3))
hooks["when_ready"](server)
for _ in range(2):
    hooks["pre_fork"](server, server)
    hooks["post_worker_init"](server)
"""


@pytest.mark.skipif(not gunicorn_process.FORKS, reason="processes are started anew")
@pytest.mark.parametrize(
    ("threads", "expected"),
    [("1", ["for 3"]), ("2", ["forgotten", "for 3", "forgotten", "for 3"])],
)
def test_networks_are_made_ready_for_as_many_processes_as_there_are(threads: str, expected: list[str]) -> None:
    """Whatever WEB_CONCURRENCY says; once for all of them if they can have them in common, else in each."""
    environment = {**os.environ, "PREDICTOR_THREADS": threads, "WEB_CONCURRENCY": "7"}
    done = subprocess.run([sys.executable, "-c", RESERVING], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.split("; ")[:-1] == expected, done.stderr


def test_there_are_as_many_processes_as_are_set(settings: Settings) -> None:
    settings.WEB_CONCURRENCY = 5
    parser = load_command_class("detector", "serve").create_parser("manage.py", "serve")

    assert parser.parse_args([]).workers == 5
    assert parser.parse_args(["--workers", "3"]).workers == 3
