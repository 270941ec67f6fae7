"""Half an hour of load on this project as it is deployed: `make soak`. Its memory must not grow.

Several clients upload pictures of several sizes and formats, look at the result, the heat map and the picture, and
delete most of it again; some send what is no picture. Memory is the proportional set size of all processes, Redis
included; the end (mean of the last samples) is compared with the end of the first minute.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from benchmarks.browser import Browser
from benchmarks.pictures import portrait
from benchmarks.private_postgres import private_postgres
from benchmarks.sites import RunningSite, postgres_server, this_project

SAMPLE_S = 5.0
LARGEST_GROWTH = 1.05
KEEP_EVERY = 20  # of the uploads of a client; the others are deleted again, so that the disk does not fill up


class Clients:
    """Threads that use the site until they are stopped, at a steady rate."""

    def __init__(self, port: int, pictures: list[bytes], *, count: int, per_second: float) -> None:
        self.answers: Counter[int] = Counter()
        self._stop = threading.Event()
        self._pause_s = count / per_second
        self._threads = [threading.Thread(target=self._work, args=(port, pictures, n)) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self, port: int, pictures: list[bytes], first: int) -> None:
        browser = Browser(port)
        browser.open_page()
        for number in itertools.count(first):
            started = time.monotonic()
            self._visit(browser, pictures[number % len(pictures)], keep=number % KEEP_EVERY == 0)
            if self._stop.wait(max(0.0, self._pause_s - (time.monotonic() - started))):
                return

    def _visit(self, browser: Browser, picture: bytes, *, keep: bool) -> None:
        answer = browser.upload(picture)
        self.answers[answer.status] += 1
        if answer.status != 302:
            return
        address = answer.headers["Location"]
        for path in (address, f"{address}heatmap/", f"{address}image/", "/history/"):
            self.answers[browser.ask("GET", path).status] += 1
        if not keep:
            self.answers[browser.delete(address).status] += 1


def watch(site: RunningSite, clients: Clients, seconds: float) -> list[float]:
    """Prints a line a minute, or ten in a short run, and returns the samples of the memory in MB."""
    started = time.monotonic()
    every = 60.0 if seconds > 600 else seconds / 10
    samples: list[float] = []
    printed = 0
    print(f"{'minutes':>8}{'PSS MB':>9}{'threads':>9}{'CPU s':>9}{'answers':>9}", flush=True)
    while (now := time.monotonic() - started) < seconds:
        samples.append(site.pss_mb())
        if now >= printed * every:
            printed += 1
            figures = f"{site.count_threads():>9}{site.cpu_s():>9.1f}{sum(clients.answers.values()):>9}"
            print(f"{now / 60:>8.1f}{samples[-1]:>9.1f}{figures}", flush=True)
        time.sleep(min(SAMPLE_S, seconds / 20))
    return samples


def main() -> None:
    """Runs it; fails when the memory grew or something was not answered."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--per-second", type=float, default=4.0, help="uploads of all clients together")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="postgres")
    parser.add_argument("--growth", type=float, default=LARGEST_GROWTH, help="memory at the end, at most x")
    options = parser.parse_args()
    pictures = [portrait(1, "JPEG"), portrait(4, "JPEG"), portrait(1, "PNG"), portrait(12, "JPEG"), b"no picture"]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        url = stack.enter_context(private_postgres()) if options.database == "postgres" else ""
        site = stack.enter_context(this_project(folder, database_url=url))
        database = postgres_server(url) if url else None
        clients = Clients(site.port, pictures, count=options.clients, per_second=options.per_second)
        try:
            samples = watch(site, clients, options.minutes * 60)
        finally:
            clients.stop()
        if database:
            site.services.append(database)
            print(f"With PostgreSQL: {site.pss_mb():.0f} MB")
    report(samples, options.minutes, clients.answers, options.growth)


def report(samples: list[float], minutes: float, answers: Counter[int], growth: float) -> None:
    """Prints the comparison and ends the process with an error if a bar does not hold."""
    per_minute = len(samples) / minutes
    window = max(1, round(per_minute / 2))  # half a minute
    first_minute = min(len(samples) // 2, round(per_minute))
    after_first = statistics.mean(samples[first_minute : first_minute + window])
    at_end = statistics.mean(samples[-window:])
    unexpected = {status: n for status, n in answers.items() if status not in (200, 302, 400)}
    print(f"\nAnswers: {dict(sorted(answers.items()))}")
    print(f"PSS after the first minute {after_first:.1f} MB, at the end {at_end:.1f} MB: x {at_end / after_first:.3f}")
    if unexpected or at_end > growth * after_first:
        sys.exit(f"Not as wanted: at most x {growth}, and no other answers than 200, 302 and 400; had {unexpected}.")


if __name__ == "__main__":
    main()
