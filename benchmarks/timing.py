"""Interleaved timing: every path takes its turn in every round, so that a noisy machine is noisy for all of them."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Medians over the rounds of one path.

    Attributes:
        wall_ms: Wall time of one call in ms.
        cpu_ms: CPU time of one call in ms, over all threads of this process.
    """

    wall_ms: float
    cpu_ms: float


def interleaved(paths: dict[str, Callable[[], object]], *, rounds: int, calls: int = 3) -> dict[str, Timing]:
    """Returns the timing of each path.

    Args:
        paths: Name and what to call.
        rounds: How often every path takes its turn.
        calls: Calls in a turn; their mean is one measurement.
    """
    walls: dict[str, list[float]] = {name: [] for name in paths}
    cpus: dict[str, list[float]] = {name: [] for name in paths}
    for call in paths.values():
        call()
    for _ in range(rounds):
        for name, call in paths.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(calls):
                call()
            walls[name].append((time.perf_counter() - wall) * 1000 / calls)
            cpus[name].append((time.process_time() - cpu) * 1000 / calls)
    return {name: Timing(statistics.median(walls[name]), statistics.median(cpus[name])) for name in paths}


def print_table(title: str, timings: dict[str, Timing], *, baseline: str) -> None:
    """Prints one line a path, with its ratios to the baseline; above 1 is slower than it."""
    reference = timings[baseline]
    print(f"\n{title}\n{'':44}{'wall ms':>9}{'CPU ms':>9}{'wall x':>9}{'CPU x':>9}")
    for name, timing in timings.items():
        ratios = f"{timing.wall_ms / reference.wall_ms:>9.3f}{timing.cpu_ms / reference.cpu_ms:>9.3f}"
        mark = "  (baseline)" if name == baseline else ""
        print(f"{name:44}{timing.wall_ms:>9.2f}{timing.cpu_ms:>9.2f}{ratios}{mark}")
