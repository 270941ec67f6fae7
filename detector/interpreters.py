"""LiteRT interpreters that threads share by turns. No Django."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Generic, TypeVar

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

T = TypeVar("T")


class Runner:
    """An interpreter with the places of its tensors, which it takes as long to tell as a small network to run."""

    def __init__(self, interpreter: Interpreter) -> None:
        interpreter.allocate_tensors()
        self._interpreter = interpreter
        self._input = interpreter.get_input_details()[0]["index"]
        outputs = sorted(interpreter.get_output_details(), key=lambda each: (len(each["shape"]), each["shape"][-1]))
        self._outputs = [each["index"] for each in outputs]
        # In the order of what `run` returns: fewer dimensions first, then the shorter last one.
        self.output_shapes: list[tuple[int, ...]] = [tuple(each["shape"]) for each in outputs]

    def run(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Returns copies of the outputs for the batch's first picture.

        Raises:
            RuntimeError, ValueError: LiteRT failed.
        """
        self._interpreter.set_tensor(self._input, batch)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index)[0] for index in self._outputs]


class RunnerPool(Generic[T]):
    """Runners of one network, each used by one thread at a time, since they are not thread-safe.

    There are as many as were ever needed at once, not one for each thread that came by, and no more than were reserved:
    a set for one detection takes 50 MB. The one that was used last goes out first, so that its memory is still in the
    processor's cache.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._idle: deque[T] = deque()  # its append and pop are atomic
        self._turns: AbstractContextManager[Any] = nullcontext()

    @contextmanager
    def borrow(self) -> Iterator[T]:
        """Yields one for this thread alone; one that failed does not come back, another is made in its place."""
        with self._turns:
            try:
                one = self._idle.pop()
            except IndexError:
                one = self._make()
            yield one
            self._idle.append(one)

    def reserve(self, count: int) -> None:
        """Makes more until that many are idle. From then on whoever finds none waits for one: there are never more."""
        while len(self._idle) < count:
            self._idle.append(self._make())
        self._turns = threading.BoundedSemaphore(count)
