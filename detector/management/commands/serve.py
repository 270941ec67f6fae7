"""`manage.py serve`: the whole application on one machine, with one command."""

import http.client
import os
import signal
import socket
import tempfile
from argparse import ArgumentParser
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.staticfiles.storage import ManifestStaticFilesStorage
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from detector.checks import require_sound_setup
from detector.gunicorn_process import load_application, start_gunicorn
from detector.private_redis import PrivateRedis, RedisNotStarted

# A request in work gets this long to finish after the first Ctrl-C.
GRACEFUL_TIMEOUT_S = 10
NO_REDIS_HINT = (
    "Redis counts the uploads of each user. Install it (Debian, Ubuntu: apt install redis-server; macOS: brew install "
    "redis), or set REDIS_URL to one that runs, such as redis://127.0.0.1:6379/0."
)


class Command(BaseCommand):
    help = (
        "Serve the detector with gunicorn, and with a private Redis when REDIS_URL is empty; both end with this "
        "command. Changes nothing in the database and no files: `make run` applies migrations and collects static "
        "files first."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
        parser.add_argument("--port", type=int, default=8000, help="port; 0 takes a free one (default: %(default)s)")
        parser.add_argument(
            "--workers",
            type=int,
            default=settings.WEB_CONCURRENCY,
            help="processes (default: WEB_CONCURRENCY, here %(default)s)",
        )
        parser.add_argument(
            "--threads",
            type=int,
            default=settings.SERVER_THREADS,
            help="threads in each process; they have to be more than the pictures in work and waiting, or nothing else "
            "is answered (default: DETECTIONS_AT_ONCE + DETECTIONS_WAITING + 2, at least 18, here %(default)s)",
        )
        parser.add_argument(
            "--timeout", type=int, default=60, help="seconds until a stuck process is replaced (default: %(default)s)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        for name in ("workers", "threads", "timeout"):
            if options[name] < 1:
                raise CommandError(f"--{name} is {options[name]}; it has to be 1 or more.")
        listener = _listen(options["host"], options["port"])
        with listener, tempfile.TemporaryDirectory(prefix="deepfake-") as directory:
            self._require_prepared_site()
            private_redis = None if settings.REDIS_URL else PrivateRedis(Path(directory))
            server = _Server(self, listener, private_redis, Path(directory), options)
            try:
                exit_code = server.run()
            except RedisNotStarted as error:
                raise CommandError(f"{error}. {NO_REDIS_HINT}") from error
        if exit_code:
            raise CommandError("The server stopped by itself; its messages above say why.", returncode=exit_code)
        self.stdout.write("Stopped.")

    def announce(self, url: str) -> None:
        self.stdout.write(self.style.SUCCESS(f"Deepfake Detector is at {url} (Ctrl-C stops it)"))
        if not get_user_model()._default_manager.filter(is_superuser=True).exists():
            self.stdout.write(f"There is no admin yet. To review detections: `make admin`, then open {url}/admin/")
        connection.close()

    def _require_prepared_site(self) -> None:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            raise CommandError("The database lacks migrations: run `manage.py migrate` (`make run` does it).")
        connection.close()
        # The manifest is written last, and without it every page is a 500.
        manifest = Path(settings.STATIC_ROOT, ManifestStaticFilesStorage.manifest_name)
        if settings.HASHED_STATIC_FILES and not manifest.is_file():
            raise CommandError(
                "The static files are not collected: run `manage.py collectstatic` (`make run` does it)."
            )
        # Gunicorn asks again; asked here first, the answer is one message and not a traceback.
        try:
            require_sound_setup()
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error


class _Server:
    """Gunicorn, and where asked a Redis, as children of this process: started, watched and stopped together."""

    def __init__(
        self,
        command: Command,
        listener: socket.socket,
        private_redis: PrivateRedis | None,
        directory: Path,
        options: dict[str, Any],
    ) -> None:
        self.command = command
        self.listener = listener
        self.redis = private_redis
        self.directory = directory
        self.options = options
        self.gunicorn: BaseProcess | None = None
        self.stopping = False

    def run(self) -> int:
        """Gunicorn's exit code, 0 when it was stopped by a signal to this process."""
        previous = {number: signal.signal(number, self._stop) for number in _stop_signals()}
        try:
            if self.redis:
                self.redis.launch()
            load_application()  # while Redis starts
            if self.redis:
                self.redis.wait_until_it_answers()
            if not self.stopping:
                self.gunicorn = self._start_gunicorn()
                if self.stopping:  # the signal came before
                    self.gunicorn.terminate()
                self._watch(self.gunicorn)
        finally:
            self._end_gunicorn()
            if self.redis:
                self.redis.stop()
            for number, handler in previous.items():
                signal.signal(number, handler)
        return 0 if self.stopping or self.gunicorn is None else self.gunicorn.exitcode or 0

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """The first signal lets requests finish, a second one does not wait for them."""
        if self.gunicorn and self.gunicorn.pid and self.gunicorn.exitcode is None:
            os.kill(self.gunicorn.pid, signal.SIGQUIT if self.stopping else signal.SIGTERM)
        self.stopping = True

    def _start_gunicorn(self) -> BaseProcess:
        environment = {"PROMETHEUS_MULTIPROC_DIR": str(self.directory / "metrics")}
        if self.redis:
            environment["REDIS_URL"] = self.redis.url
        flags = {
            "--config": settings.BASE_DIR / "gunicorn.conf.py",
            "--workers": self.options["workers"],
            "--threads": self.options["threads"],
            "--timeout": self.options["timeout"],
            "--graceful-timeout": GRACEFUL_TIMEOUT_S,
            # Heartbeats: in memory where possible, because a slow disk would make a healthy worker look stuck.
            "--worker-tmp-dir": _memory_directory() or self.directory,
        }
        return start_gunicorn(
            [f"{flag}={value}" for flag, value in flags.items()],
            listener=self.listener,  # bound here, so a taken port is one clear message and not five attempts
            environment=environment,
            stop_signals=_stop_signals(),
        )

    def _watch(self, gunicorn: BaseProcess) -> None:
        """Returns when gunicorn has ended. Announces the site once it answers; brings back a Redis that died."""
        announced = False
        while True:
            gunicorn.join(1.0 if announced else 0.1)
            if gunicorn.exitcode is not None:
                return
            if not announced and not self.stopping and _answers(self.listener):
                self.command.announce(_url(self.listener))
                announced = True
            if self.redis and self.redis.ended() and not self.stopping:
                self.command.stderr.write("The private Redis ended; starting it again. Uploads are counted from zero.")
                try:
                    self.redis.launch()  # not waited for: should it end at once, it is started again in a second
                except (RedisNotStarted, OSError) as error:  # no program, or no room for a process
                    self.command.stderr.write(f"The private Redis could not be started: {error}")

    def _end_gunicorn(self) -> None:
        if self.gunicorn is None or self.gunicorn.exitcode is not None:
            return
        self.gunicorn.terminate()
        self.gunicorn.join(GRACEFUL_TIMEOUT_S + 5)
        if self.gunicorn.exitcode is None:
            self.gunicorn.kill()
            self.gunicorn.join()


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises CommandError with what to do when the address cannot be had."""
    if not 0 <= port <= 65535:  # getaddrinfo would take it modulo 65536
        raise CommandError(f"--port is {port}; ports go from 0 to 65535.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise CommandError(f"Cannot listen on {host}: {error.strerror}.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(settings.SERVER_BACKLOG)  # gunicorn leaves the queue of a socket that listens as it is
    except OSError as error:
        listener.close()
        raise CommandError(
            f"Cannot listen on {host} port {port}: {error.strerror}. Stop what uses it, or take another port: "
            f"`make run PORT={port + 1}` or `manage.py serve --port {port + 1}`."
        ) from error
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _answers(listener: socket.socket) -> bool:
    """True as soon as a worker answers, whatever its answer."""
    host, port = listener.getsockname()[:2]
    client = http.client.HTTPConnection({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port, timeout=1.0)
    try:
        client.request("GET", "/healthz", headers={"Host": _allowed_host()})
        client.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        client.close()
    return True


def _allowed_host() -> str:
    """A host name that the site answers to, so that asking whether it is ready is not logged as an attack."""
    # One that begins with a dot stands for itself and all below it.
    names = [name.removeprefix(".") for name in settings.ALLOWED_HOSTS if name != "*"]
    return names[0] if names else "localhost"


def _memory_directory() -> str | None:
    directory = "/dev/shm"
    return directory if os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK) else None


def _stop_signals() -> list[signal.Signals]:
    """SIGHUP is what a closed terminal sends; under nohup it is ignored and stays so."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return [signal.SIGINT, signal.SIGTERM]
    return [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
