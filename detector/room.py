"""How much is in work at once in this process. What finds no place is refused at once, instead of queueing unseen.

A detection keeps a processor busy, so a few at once are as fast as many, and many at once only take memory. A few more
wait for their turn; whoever comes then is told to come back. Threads that are left over answer that, and all the pages.
"""

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings

from detector import metrics
from detector.exceptions import Overloaded


class Room:
    """Places for pieces of work, of which `at_once` are done at the same time while `waiting` more wait."""

    def __init__(self, *, at_once: int, waiting: int) -> None:
        self._places = threading.BoundedSemaphore(at_once + waiting)
        self._turns = threading.BoundedSemaphore(at_once)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Takes a place until the end of the block.

        Raises:
            Overloaded: All are taken.
        """
        if not self._places.acquire(blocking=False):
            raise Overloaded("More pictures came in than can be looked at.")
        try:
            yield
        finally:
            self._places.release()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits for one of the turns, for whoever has a place; their number is what bounds the wait."""
        if not self._turns.acquire(blocking=False):
            with metrics.waiting():
                self._turns.acquire()
        try:
            yield
        finally:
            self._turns.release()


_making = threading.Lock()


@functools.cache
def _made() -> Room:
    return Room(at_once=settings.DETECTIONS_AT_ONCE, waiting=settings.DETECTIONS_WAITING)


def get_room() -> Room:
    """This process's room, as large as the settings say; `cache` alone would let two threads make one each."""
    with _making:
        return _made()
