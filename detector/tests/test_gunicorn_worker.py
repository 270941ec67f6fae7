"""What slow clients can take from the others: real gunicorn processes with few threads, and no Django."""

import ctypes
import errno
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from detector import gunicorn_worker
from detector.private_redis import dies_with_parent
from detector.tests.test_serve import eventually

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 60
THREADS = 2
# The processor may be busy with other things; without what is tested here it takes ten seconds and more.
SOON_S = gunicorn_worker.HEADERS_TIMEOUT_S[0] - 1

APPLICATION = """
def application(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


PICTURES = """
import ctypes, resource, runpy
from detector import gunicorn_worker
runpy.run_path("gunicorn.conf.py")

def anonymous_bytes():
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("RssAnon:"))

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
gunicorn_worker._give_back_memory()  # what was imported leaves free pages, more of them where it had to be compiled
before, size = anonymous_bytes(), 12_000_000
for _ in range(2):
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    picture = libc.malloc(size)
    libc.memset(picture, 1, size)
    assert anonymous_bytes() > before + size * 0.9
    libc.free(picture)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
gunicorn_worker._give_back_memory()
print(anonymous_bytes() - before)
"""


def start(folder: Path, workers: int, bind: str, **options: Any) -> "subprocess.Popen[bytes]":
    (folder / "small.py").write_text(APPLICATION)
    (folder / "conf.py").write_text("")
    command = [sys.executable, "-m", "gunicorn", "small:application", f"--chdir={folder}", "--config=conf.py"]
    flags = ["--worker-class=detector.gunicorn_worker.Worker", f"--workers={workers}", f"--threads={THREADS}"]
    return subprocess.Popen(
        [*command, *flags, f"--bind={bind}", "--log-level=error", "--no-control-socket"],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        preexec_fn=dies_with_parent(),
        **options,
    )


@contextmanager
def serving(folder: Path, workers: int) -> Iterator[int]:
    """The port of a server with so many processes, each with two threads."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        process = start(folder, workers, f"fd://{listener.fileno()}", pass_fds=[listener.fileno()])
        port = listener.getsockname()[1]
        try:
            ask(port, START_TIMEOUT_S)
            yield port
        finally:
            process.terminate()
            process.wait(30)


def ask(port: int, timeout_s: float = 60) -> float:
    """The seconds until the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    started = time.monotonic()
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        assert connection.getresponse().read() == b"ok"
    finally:
        connection.close()
    return time.monotonic() - started


def begin(port: int, part: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(part)
    return connection


HALF_OF_THE_HEADERS = b"POST / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
WHOLE_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF_OF_THE_BODY = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf"


@pytest.mark.parametrize("part", [b"", HALF_OF_THE_HEADERS, HALF_OF_THE_BODY], ids=["nothing", "headers", "body"])
def test_whoever_keeps_the_last_threads_waiting_is_cut_off_early(tmp_path: Path, part: bytes) -> None:
    with serving(tmp_path, workers=1) as port, ExitStack() as stack:
        for _ in range(THREADS):
            stack.enter_context(begin(port, part))
        assert ask(port) < SOON_S


def test_whoever_was_here_before_is_waited_for_too(tmp_path: Path) -> None:
    """A connection that was kept open is not among those that the server has yet to accept."""
    with serving(tmp_path, workers=1) as port, ExitStack() as stack:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        stack.callback(connection.close)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"ok"
        same_one = connection.sock
        for _ in range(THREADS):
            stack.enter_context(begin(port, HALF_OF_THE_BODY))
        started = time.monotonic()
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"ok"
        assert time.monotonic() - started < SOON_S
        assert connection.sock is same_one


def test_while_a_thread_is_free_slow_clients_have_their_time(tmp_path: Path) -> None:
    with serving(tmp_path, workers=1) as port, begin(port, HALF_OF_THE_HEADERS) as slow:
        started = time.monotonic()
        while time.monotonic() - started < 2 * gunicorn_worker.HEADERS_TIMEOUT_S[1]:
            ask(port)
            time.sleep(0.1)
        slow.sendall(b"no more\r\nConnection: close\r\n\r\n")
        assert slow.recv(1024).startswith(b"HTTP/1.1 200 OK")


def test_who_finds_no_thread_in_one_process_gets_one_in_another(tmp_path: Path) -> None:
    """Three of four threads are taken, so two of them in one process, which must not accept more."""
    with serving(tmp_path, workers=2) as port, ExitStack() as stack:
        for _ in range(2 * THREADS - 1):
            stack.enter_context(begin(port, HALF_OF_THE_BODY))
            time.sleep(0.2)
        started = time.monotonic()
        asked = 0
        while time.monotonic() - started < gunicorn_worker.BODY_TIMEOUT_S[1] - 2 or asked < 5:
            assert ask(port) < gunicorn_worker.BODY_TIMEOUT_S[1] - 1
            asked += 1


@pytest.mark.parametrize("workers", [1, 2])
def test_who_is_in_the_queue_of_a_server_that_stops_is_served_and_nobody_joins_it(tmp_path: Path, workers: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    process = start(tmp_path, workers, f"127.0.0.1:{port}")
    try:
        assert eventually(lambda: not is_refused(port), START_TIMEOUT_S)
        ask(port)
        with ExitStack() as stack:
            in_work = [stack.enter_context(begin(port, HALF_OF_THE_BODY)) for _ in range(workers * THREADS)]
            time.sleep(0.5)
            in_queue = [stack.enter_context(begin(port, WHOLE_REQUEST)) for _ in range(2)]
            process.terminate()
            assert eventually(lambda: is_refused(port), SOON_S)
            for connection in in_work:
                connection.sendall(b"." * 96)
            for connection in (*in_work, *in_queue):
                assert connection.recv(1024).startswith(b"HTTP/1.1 200 OK")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def is_refused(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def test_holes_in_the_heap_are_given_back() -> None:
    # Below the size from which glibc gives each block pages of its own, and every tenth stays.
    blocks = [bytearray(b"\1") * 60_000 for _ in range(2_000)]
    kept = blocks[::10]
    del blocks
    before = resident_mb()

    gunicorn_worker._give_back_memory()

    assert resident_mb() < before - 60, len(kept)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="sets up glibc's memory")
def test_a_freed_picture_s_pages_serve_the_next_one_until_they_are_given_back() -> None:
    environment = {**os.environ, "SECRET_KEY": "x", "DATABASE_URL": "sqlite://:memory:"}
    done = subprocess.run([sys.executable, "-c", PICTURES], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    new_pages, bytes_left = (int(line) for line in done.stdout.split())
    assert new_pages < 500  # of 2,930
    assert bytes_left < 5_000_000
