"""LiteRT interpreters that threads share by turns. No Django."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ai_edge_litert.interpreter import Interpreter


class InterpreterPool:
    """Interpreters of one network, each used by one thread at a time, since they are not thread-safe.

    There are as many as were ever needed at once, not one for each thread that came by: a set for one detection takes
    30 MB. The one that was used last goes out first, so that its memory is still in the processor's cache.
    """

    def __init__(self, make: Callable[[], Interpreter]) -> None:
        self._make = make
        self._idle: deque[Interpreter] = deque()  # its append and pop are atomic

    @contextmanager
    def borrow(self) -> Iterator[Interpreter]:
        """Yields an interpreter for this thread alone; one that failed does not come back."""
        try:
            interpreter = self._idle.pop()
        except IndexError:
            interpreter = self._make()
        yield interpreter
        self._idle.append(interpreter)

    def reserve(self, count: int) -> None:
        """Makes interpreters until that many are idle."""
        while len(self._idle) < count:
            self._idle.append(self._make())
