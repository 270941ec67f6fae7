"""A few hundred mutated pictures, the same in each run; `make fuzz` runs many more."""

from detector.tests.hostile.fuzz import fuzz

INPUTS = 600


def test_whatever_the_bytes_they_are_a_picture_or_refused() -> None:
    outcomes = fuzz(INPUTS, seed=5)
    assert outcomes.total() >= INPUTS
    assert outcomes["picture"] > 0
    assert outcomes["picture decoded twice"] > 0
    assert {"format", "truncated"} <= set(outcomes)
