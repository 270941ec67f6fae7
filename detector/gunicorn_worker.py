"""Gunicorn's threaded worker, with an end to what a slow client can take from the others.

Gunicorn lets a client that has sent its first byte take for ever over the rest, and each such client holds a thread;
and after an answer its main loop waits up to two seconds for that client to hang up, and accepts nobody meanwhile; and
it accepts clients for whom it has no thread, although another process may have one. A proxy in front (nginx) hides all
that. `manage.py serve` has none, so here the time is limited, and more so while others wait for a thread; the waiting
is moved into the thread; and whoever finds no thread here is left to another process.

And gunicorn, told to stop, has clients go on queueing for as long as its last requests take, only to hang up on all of
them; a proxy turns to another instance once it is refused. So here whoever is in the queue is served, and nobody joins.
"""

import ctypes
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

# Seconds for the headers. The second figure is for when others wait for a thread, here and in BODY_TIMEOUT_S.
HEADERS_TIMEOUT_S = (10.0, 2.0)
# A body may take this long, and longer as long as it comes at the rate of a very slow line, in bytes a second.
BODY_TIMEOUT_S = (20.0, 5.0)
BODY_MIN_RATE = 8 * 1024
# Without progress in sending the answer, in seconds.
SEND_TIMEOUT_S = 30
LINGER_TIMEOUT_S = 1.0
# Pictures leave holes in the heap, of which glibc gives back to the system only those at its end.
TRIM_EVERY_S = 5.0
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None


@dataclass(slots=True)
class _Exchange:
    """One request on its way."""

    began_at: float
    body_began_at: float | None = None
    body_length: int = 0
    request: Any = None

    def is_too_slow(self, conn: TConn, now: float, *, others_wait: bool) -> bool:
        if self.body_began_at is None:
            return now - self.began_at > HEADERS_TIMEOUT_S[others_wait]
        missing = getattr(self.request.body.reader, "length", 0)
        if not missing:
            return False
        received = self.body_length - missing + conn.parser.unreader.buf.tell()
        return bool(now - self.body_began_at > BODY_TIMEOUT_S[others_wait] + received / BODY_MIN_RATE)


class Worker(ThreadWorker):  # type: ignore[misc]
    """`gthread` that cuts off clients which send or take too slowly."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._exchanges: dict[TConn, _Exchange] = {}
        self._trimmed_nr = 0
        self._trimmed_at = 0.0

    def free_threads(self) -> int:
        """How many have nothing to do; below zero where clients that were accepted already wait for one."""
        idle = len(self.keepalived_conns) + len(self.pending_conns)
        return int(self.cfg.threads - (self.nr_conns - idle))

    def set_accept_enabled(self, enabled: bool) -> None:
        """Called by the main loop when it may accept, or may no longer."""
        super().set_accept_enabled(enabled and self.free_threads() > 0)
        if not self.alive:
            self._close_queue()

    def _close_queue(self) -> None:
        """Takes in all that wait to be accepted; once each process has done so, as gunicorn has, others are refused."""
        for listener in self.sockets:
            before = None
            while before != self.nr_conns:
                before = self.nr_conns
                self.accept(listener)
            listener.close()
        self.sockets.clear()

    def notify(self) -> None:
        """Called by the main loop before it waits for events, so about once a second or more often."""
        super().notify()
        others_wait = self.free_threads() < 0
        if self.free_threads() <= 0:
            super().set_accept_enabled(False)
            others_wait = others_wait or bool(select.select(self.sockets, [], [], 0)[0])
        now = time.monotonic()
        for conn, exchange in list(self._exchanges.items()):
            if exchange.is_too_slow(conn, now, others_wait=others_wait):
                self.log.warning("Cut off a client that sent too slowly.")
                _shut(conn.sock, socket.SHUT_RD)  # the thread that waits for more reads the end

        if self.nr > self._trimmed_nr and now - self._trimmed_at > TRIM_EVERY_S:
            self._trimmed_nr, self._trimmed_at = self.nr, now
            _give_back_memory()

    def handle(self, conn: TConn) -> Any:
        """Serves one request in a thread."""
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_TIMEOUT_S, 0))
        self._exchanges[conn] = _Exchange(time.monotonic())
        try:
            keep = super().handle(conn)
        finally:
            del self._exchanges[conn]
        if keep is False:
            _linger(conn.sock)
        return keep

    def handle_request(self, req: Any, conn: TConn) -> Any:
        """Called when the headers are complete."""
        exchange = self._exchanges[conn]
        exchange.request = req
        exchange.body_length = getattr(req.body.reader, "length", 0)
        exchange.body_began_at = time.monotonic()
        return super().handle_request(req, conn)


def _give_back_memory() -> None:
    if _malloc_trim:
        _malloc_trim(0)


def _shut(sock: socket.socket, how: int) -> None:
    try:
        sock.shutdown(how)
    except OSError:
        return  # the client was faster


def _linger(sock: socket.socket) -> None:
    """Gives the client time to take the answer and hang up, so that the main loop does not have to."""
    _shut(sock, socket.SHUT_WR)
    deadline = time.monotonic() + LINGER_TIMEOUT_S
    try:
        while (remaining := deadline - time.monotonic()) > 0:
            sock.settimeout(remaining)
            if not sock.recv(64 * 1024):
                break
    except OSError:
        pass
    _shut(sock, socket.SHUT_RD)
