"""The two sites that the benchmarks compare, as processes: the typical demo, and this project as it is deployed."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.browser import Browser
from detector.private_redis import dies_with_parent

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 30.0
# As under `make run`: otherwise a shell that sets it has every start compile all modules again, of both sites.
KEEPS_BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}


class RunningSite:
    """A server and all that it started.

    Attributes:
        port: Where it answers.
        first_answer_s: Seconds from its start to its first answer.
        process: The one that was started.
        services: Others that work for it, such as a database server.
    """

    def __init__(self, command: list[str], environment: dict[str, str], *, port: int, log: Path) -> None:
        self.port = port
        self.services: list[psutil.Process] = []
        self.log = log
        started = time.perf_counter()
        with log.open("ab") as output:
            self.process = psutil.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **environment, **KEEPS_BYTECODE, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=dies_with_parent(),
            )
        browser = Browser(port, timeout_s=10.0)
        while True:
            try:
                browser.open_page()
                break
            except OSError as error:
                if self.process.poll() is not None or time.perf_counter() - started > START_TIMEOUT_S:
                    raise SystemExit(f"{command} did not start:\n{log.read_text(errors='replace')}") from error
                time.sleep(0.02)
        self.first_answer_s = time.perf_counter() - started

    def tree(self) -> list[psutil.Process]:
        roots = [self.process, *self.services]
        return [each for root in roots for each in (root, *root.children(recursive=True))]

    def cpu_s(self) -> float:
        """User and system time of the whole tree so far, in seconds; of processes that ended as well."""
        total = 0.0
        for process in self.tree():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return total

    def pss_mb(self) -> float:
        """Memory of the whole tree in MB; what several processes share counts once."""
        total = 0
        for process in self.tree():
            try:
                total += process.memory_full_info().pss
            except psutil.NoSuchProcess:
                continue
        return total / 1e6

    def count_threads(self) -> int:
        return sum(process.num_threads() for process in self.tree() if process.is_running())

    def workers(self) -> list[psutil.Process]:
        """Gunicorn's processes that answer requests."""
        arbiters = [each for each in self.process.children() if "redis" not in each.name()]
        return [worker for arbiter in arbiters for worker in arbiter.children()]

    def stop(self) -> None:
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except psutil.TimeoutExpired:
            for process in reversed(self.tree()):
                process.kill()
            self.process.wait(STOP_TIMEOUT_S)


@contextmanager
def flask_demo(folder: Path) -> Iterator[RunningSite]:
    """The demo of benchmarks/flask_demo.py; its uploads go to the folder."""
    uploads = folder / "demo-uploads"
    uploads.mkdir(exist_ok=True)
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.flask_demo", str(uploads), "--port", str(port)]
    site = RunningSite(command, {"TF_CPP_MIN_LOG_LEVEL": "3"}, port=port, log=folder / "demo.log")
    try:
        yield site
    finally:
        site.stop()


@contextmanager
def this_project(
    folder: Path, *, database_url: str = "", settings: dict[str, str] | None = None
) -> Iterator[RunningSite]:
    """This project under `manage.py serve`, with a database and uploads in the folder."""
    environment = site_environment(folder, database_url) | (settings or {})
    prepare(environment)
    port = free_port()
    command = [sys.executable, "manage.py", "serve", "--port", str(port)]
    site = RunningSite(command, environment, port=port, log=folder / "serve.log")
    try:
        yield site
    finally:
        site.stop()


def site_environment(folder: Path, database_url: str = "") -> dict[str, str]:
    """Settings of a production server, except that nobody runs into the limit on uploads."""
    return {
        "SECRET_KEY": "only-for-benchmarks-" + "0123456789" * 4,
        "DEBUG": "false",
        "DATABASE_URL": database_url or f"sqlite:///{folder / 'db.sqlite3'}",
        "MEDIA_ROOT": str(folder / "media"),
        "REDIS_URL": "",
        "UPLOAD_RATE": "1000000/m",
        "PICTURE_RATE": "1000000/m",
        "LOG_LEVEL": "WARNING",
        # serve's private Redis listens on a Unix socket, whose path may have 107 characters.
        "TMPDIR": str(folder),
    }


def prepare(environment: dict[str, str]) -> None:
    """What `make run` does before it serves."""
    for command in (
        ["-m", "compileall", "-q", "deepfake_site", "detector"],
        ["manage.py", "migrate", "--no-input", "--verbosity", "0"],
        ["manage.py", "collectstatic", "--no-input", "--verbosity", "0"],
    ):
        subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env={**os.environ, **environment, **KEEPS_BYTECODE},
            check=True,
        )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def postgres_server(url: str) -> psutil.Process:
    """The server process behind an address that private_postgres() gave."""
    folder = Path(url.partition("host=")[2])
    return psutil.Process(int((folder / "data" / "postmaster.pid").read_text().splitlines()[0]))
