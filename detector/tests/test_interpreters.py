from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from detector.interpreters import RunnerPool


def make_pool() -> RunnerPool[int]:
    numbers = count(1)
    return RunnerPool(lambda: next(numbers))


def test_as_many_are_made_as_are_needed_at_once() -> None:
    pool = make_pool()
    for _ in range(5):
        with pool.borrow() as one, pool.borrow() as other:
            assert {one, other} == {1, 2}


def test_the_one_used_last_goes_out_first() -> None:
    pool = make_pool()
    with pool.borrow() as first, pool.borrow():
        pass
    with pool.borrow() as next_one:
        assert next_one == first


def test_one_that_failed_does_not_come_back() -> None:
    pool = make_pool()
    with pytest.raises(RuntimeError), pool.borrow():
        raise RuntimeError("the network broke")
    with pool.borrow() as another:
        assert another == 2


def test_reserved_ones_are_those_that_go_out() -> None:
    made = count(1)
    pool = RunnerPool(lambda: next(made))
    pool.reserve(2)
    pool.reserve(2)
    with pool.borrow() as one, pool.borrow() as other:
        assert {one, other} == {1, 2}
    assert next(made) == 3


def test_whoever_finds_none_of_the_reserved_ones_waits_for_one() -> None:
    pool = make_pool()
    pool.reserve(1)

    def borrow() -> int:
        with pool.borrow() as one:
            return one

    with ThreadPoolExecutor(1) as threads:
        with pool.borrow() as first:
            waiting = threads.submit(borrow)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.2)
        assert waiting.result(timeout=60) == first


def test_a_reserved_one_that_failed_makes_room_for_another() -> None:
    pool = make_pool()
    pool.reserve(1)
    with pytest.raises(RuntimeError), pool.borrow():
        raise RuntimeError("the network broke")
    with pool.borrow() as another:
        assert another == 2
