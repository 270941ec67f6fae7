"""Half an hour of load on this project as it is deployed: `make soak`. Its memory must not grow.

Several clients upload pictures of several sizes and formats, look at the result with its heat map and the picture, and
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
# In 20 seconds memory still settles: so much growth that a leak of one picture's pixels an upload is beyond it.
SHORT_MINUTES, SHORT_GROWTH = 1 / 3, 1.3
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
        for path in (address, f"{address}image/", "/history/"):
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
    parser.add_argument("--short", action="store_true", help="20 seconds on SQLite, which tell a large leak from noise")
    options = parser.parse_args()
    if options.short:
        options.minutes, options.growth = SHORT_MINUTES, SHORT_GROWTH
        options.per_second, options.database = 3.0, "sqlite"
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
            reasons = Counter(line.partition(" WARNING ")[2] or line.partition(" ERROR ")[2] for line in _logged(site))
        if database:
            site.services.append(database)
            print(f"With PostgreSQL: {site.pss_mb():.0f} MB")
    report(samples, options.minutes, clients.answers, options.growth, reasons)


def _logged(site: RunningSite) -> list[str]:
    """What the site's log says from warnings on, but for what the pictures that are none cause."""
    lines = site.log.read_text(errors="replace").splitlines()
    return [line for line in lines if (" WARNING " in line or " ERROR " in line) and "Bad Request" not in line]


def report(samples: list[float], minutes: float, answers: Counter[int], growth: float, reasons: Counter[str]) -> None:
    """Prints the comparison and ends the process with an error if a bar does not hold."""
    per_minute = len(samples) / minutes
    # Half a minute, after the first minute and at the end; in a short run a quarter of it, after the first third.
    window = max(1, min(len(samples) // 4, round(per_minute / 2)))
    first_minute = min(len(samples) // 3, round(per_minute))
    after_first = statistics.mean(samples[first_minute : first_minute + window])
    at_end = statistics.mean(samples[-window:])
    unexpected = {status: n for status, n in answers.items() if status not in (200, 302, 400)}
    print(f"\nAnswers: {dict(sorted(answers.items()))}")
    print(f"PSS after the first minute {after_first:.1f} MB, at the end {at_end:.1f} MB: x {at_end / after_first:.3f}")
    for reason, count in reasons.most_common(10):
        print(f"Logged {count} x {reason}")
    if unexpected or at_end > growth * after_first:
        sys.exit(f"Not as wanted: at most x {growth}, and no other answers than 200, 302 and 400; had {unexpected}.")


if __name__ == "__main__":
    main()
