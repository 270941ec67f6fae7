"""Breaks a running site on purpose and looks at what is left: `make faults`. Each fault is a test as well.

The site is the one that is deployed: `manage.py serve` with two gunicorn processes, the model that ships, PostgreSQL
and Redis. After each fault every row is compared with every file, and every verdict with the others on that picture.
"""

import argparse
import contextlib
import http.client
import io
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import psycopg
from PIL import Image

from benchmarks.browser import BOUNDARY, Browser
from benchmarks.pictures import portrait
from benchmarks.private_postgres import kill_postgres, postgres_programs, private_postgres, start_postgres
from benchmarks.sites import RunningSite, this_project

T = TypeVar("T")
RECOVERY_S = 60.0
MEDIA_MB = 64
# Few, so that it is easy to have more requests than fit; in each of two processes.
AT_ONCE, WAITING = 2, 2
OVERLOAD = 40
SLOW_CLIENTS = 24
NO_SPACE_LEFT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one upload; status None: no answer came."""

    status: int | None
    seconds: float
    retry_after: str = ""
    location: str = ""


@dataclass(frozen=True, slots=True)
class Audit:
    """What the database and the folder say of each other."""

    rows: int = 0
    files_without_row: int = 0
    rows_without_file: int = 0
    half_written: int = 0
    wrong_verdicts: int = 0
    notes: int = 0

    @property
    def is_clean(self) -> bool:
        return not any(
            (self.files_without_row, self.rows_without_file, self.half_written, self.wrong_verdicts, self.notes)
        )


@dataclass
class Outcome:
    fault: str
    sent: list[Sent] = field(default_factory=list)
    audit: Audit = field(default_factory=Audit)
    back_s: float = 0.0
    # Answered with a verdict that the database does not have.
    forgotten: int = 0
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def answers(self) -> Counter[int]:
        return Counter(each.status for each in self.sent if each.status is not None)

    @property
    def lost(self) -> int:
        return sum(each.status is None for each in self.sent)

    def line(self) -> str:
        answers = ", ".join(f"{n} x {status}" for status, n in sorted(self.answers.items()))
        audit = self.audit
        return (
            f"{self.fault:<34}{len(self.sent):>5}  {answers:<30}{self.lost:>5}{audit.files_without_row:>6}"
            f"{audit.rows_without_file:>6}{audit.half_written:>6}{audit.wrong_verdicts:>6}{self.back_s:>8.1f}"
        )


COUNTS = f"{'lost':>5}{'files':>6}{'rows':>6}{'half':>6}{'wrong':>6}{'back s':>8}"
HEADING = f"{'fault':<34}{'sent':>5}  {'answered':<30}{COUNTS}"


class BrokenSite:
    """The running site with what is needed to break it, and to look at it afterwards."""

    def __init__(self, site: RunningSite, media: Path, url: str) -> None:
        self.site = site
        self.media = media
        self.url = url
        self.picture = portrait(1, "JPEG")
        self.large_picture = portrait(4, "JPEG")
        self.browser = Browser(site.port)
        self.browser.open_page()

    def upload(self, picture: bytes | None = None) -> Sent:
        browser = Browser(self.site.port)
        browser.cookies = dict(self.browser.cookies)
        started = time.monotonic()
        try:
            answer = browser.upload(picture or self.picture)
        except (OSError, http.client.HTTPException):
            return Sent(None, time.monotonic() - started)
        headers = answer.headers
        return Sent(
            answer.status, time.monotonic() - started, headers.get("Retry-After", ""), headers.get("Location", "")
        )

    def upload_together(self, count: int, picture: bytes | None = None) -> list[Sent]:
        barrier = threading.Barrier(count)

        def one(_: int) -> Sent:
            barrier.wait(RECOVERY_S)
            return self.upload(picture)

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(one, range(count)))

    @contextmanager
    def uploading(self, clients: int, picture: bytes | None = None) -> Iterator[list[Sent]]:
        """Keeps uploading for as long as the block lasts, and fills the list."""
        sent: list[Sent] = []
        is_over = threading.Event()

        def work() -> None:
            while not is_over.is_set():
                answer = self.upload(picture)
                sent.append(answer)
                if answer.status != 302:
                    is_over.wait(0.1)

        threads = [threading.Thread(target=work) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield sent
        finally:
            is_over.set()
            for thread in threads:
                thread.join()

    def connect(self) -> psycopg.Connection:
        """A connection to the site's database, which psycopg knows by another scheme than the settings do."""
        return psycopg.connect(self.url.replace("postgres://", "postgresql://"))

    def notes(self) -> list[Path]:
        with contextlib.suppress(FileNotFoundError):
            return list((self.media / "pending").iterdir())
        return []

    def audit(self) -> Audit:
        with self.connect() as connection:
            rows = connection.execute(
                "SELECT image, thumbnail, sha256, verdict, fake_probability, status FROM detector_detection"
            ).fetchall()
        known = {name for row in rows for name in row[:2] if name}
        files = {
            str(path.relative_to(self.media))
            for folder in ("detections", "thumbnails")
            for path in (self.media / folder).rglob("*")
            if path.is_file()
        }
        verdicts: dict[str, set[Any]] = {}
        for row in rows:
            verdicts.setdefault(row[2], set()).add(row[3:])
        return Audit(
            rows=len(rows),
            files_without_row=len(files - known),
            rows_without_file=sum(not {row[0], row[1]} <= files | {""} for row in rows),
            half_written=sum(not _is_whole(self.media / name) for name in files),
            # The same picture is judged in the same way, before a fault and after it, and never not at all.
            wrong_verdicts=sum(len(each) - 1 for each in verdicts.values()) + sum(row[5] == "failed" for row in rows),
            notes=len(self.notes()),
        )

    def empty(self) -> None:
        """Takes away what was stored, so that the small disk has room for the next fault whatever this one left."""
        with contextlib.suppress(TimeoutError):  # what is left of a failed one is none of the next one's business
            eventually(lambda: not self.notes(), "something was left half done")
        with self.connect() as connection:
            connection.execute("DELETE FROM detector_detection")
        for name in ("detections", "thumbnails", "pending"):
            shutil.rmtree(self.media / name, ignore_errors=True)

    def recover(self, outcome: Outcome, since: float) -> Outcome:
        """Waits until an upload goes through again and nothing is half done, and fills in the rest of the outcome."""
        eventually(lambda: self.upload().status == 302, "no upload went through again")
        outcome.back_s = time.monotonic() - since
        with contextlib.suppress(TimeoutError):  # the audit will tell
            eventually(lambda: self.audit().is_clean, "something was left half done")
        outcome.audit = self.audit()
        answered = [each.location.strip("/").rpartition("/")[2] for each in outcome.sent if each.status == 302]
        with self.connect() as connection:
            rows = connection.execute("SELECT id FROM detector_detection WHERE id = ANY(%s::uuid[])", [answered])
            outcome.forgotten = len(answered) - len(rows.fetchall())
        return outcome


# The faults


def worker_killed_detecting(site: BrokenSite) -> Outcome:
    """SIGKILL to a process while it looks at a picture."""
    outcome = Outcome("process killed, detecting")
    worker = site.site.workers()[0]
    with site.uploading(4, site.large_picture) as sent:
        used = _cpu_s(worker)
        eventually(lambda: _cpu_s(worker) > used + 0.2, "it had nothing to do")
        since = time.monotonic()
        worker.kill()
        eventually(lambda: len(site.site.workers()) == 2 and not worker.is_running(), "no other took its place")
        # All of the clients can have waited for the one that was killed.
        eventually(lambda: any(each.status == 302 for each in sent), "no upload went through")
    outcome.sent = sent
    return site.recover(outcome, since)


def worker_killed_storing(site: BrokenSite) -> Outcome:
    """SIGKILL to a process between the first file of an upload and its row."""
    outcome = Outcome("process killed, storing")
    with site.uploading(4) as sent:
        outcome.figures["left"] = eventually(lambda: _kill_one_that_stores(site), "none was caught", pause_s=0.0)
        since = time.monotonic()
        eventually(lambda: len(site.site.workers()) == 2, "no other took its place")
        eventually(lambda: any(each.status == 302 for each in sent), "no upload went through")
    outcome.sent = sent
    return site.recover(outcome, since)


def _kill_one_that_stores(site: BrokenSite) -> int:
    """How many files the killed process left that were not known yet; 0 where none was caught."""
    if not site.notes():
        return 0
    for worker in site.site.workers():
        worker.suspend()
        # What stands still now is as a kill at this moment would leave it.
        if left := site.audit().files_without_row:
            worker.kill()
            return left
        worker.resume()
    return 0


def overload(site: BrokenSite) -> Outcome:
    """Many more uploads at once than fit, twice; what the first round takes for good the second must not take again."""
    outcome = Outcome("overload")
    outcome.sent = site.upload_together(OVERLOAD)
    eventually(lambda: site.upload().status == 302, "no upload went through again")
    before_mb = site.site.pss_mb()
    waits: list[float] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.wait(0.1):
            started = time.monotonic()
            assert Browser(site.site.port).ask("GET", "/healthz").status == 200
            waits.append(time.monotonic() - started)

    with ThreadPoolExecutor(1) as pool:
        health = pool.submit(ask)
        try:
            outcome.sent = outcome.sent + site.upload_together(OVERLOAD)
        finally:
            is_over.set()
        health.result(RECOVERY_S)
    since = time.monotonic()
    site.recover(outcome, since)
    outcome.figures = {
        "slowest /healthz s": max(waits),
        "slowest 503 s": max((each.seconds for each in outcome.sent if each.status == 503), default=0.0),
        "memory x": site.site.pss_mb() / before_mb,
        "threads": site.site.count_threads(),
    }
    return outcome


def postgres_killed(site: BrokenSite) -> Outcome:
    """The database server ends at once, is away for a while and comes back."""
    outcome = Outcome("PostgreSQL killed")
    with site.uploading(4) as sent:
        eventually(lambda: any(each.status == 302 for each in sent), "none went through")
        kill_postgres(site.url)
        try:
            seen = len(sent)
            eventually(lambda: len(sent) >= seen + 12, "nobody was answered while it was away")
        finally:
            start_postgres(site.url)
        since = time.monotonic()
        eventually(lambda: sent[-1].status == 302, "no upload went through again")
    outcome.sent = sent
    return site.recover(outcome, since)


def redis_killed(site: BrokenSite) -> Outcome:
    """Redis ends, and so does each that `serve` starts, until an upload was refused for it."""
    outcome = Outcome("Redis killed")

    def is_noticed() -> bool:
        # One that is back before anybody asks for it is missed by nobody.
        for child in site.site.process.children():
            with contextlib.suppress(psutil.NoSuchProcess):  # serve has seen to it meanwhile
                if "redis" in child.name():
                    child.kill()
        return any(each.status == 503 for each in sent)

    with site.uploading(4) as sent:
        eventually(lambda: any(each.status == 302 for each in sent), "none went through")
        eventually(is_noticed, "nobody noticed")
        since = time.monotonic()
        eventually(lambda: sent[-1].status == 302, "no upload went through again")
    outcome.sent = sent
    return site.recover(outcome, since)


def disk_full(site: BrokenSite) -> Outcome:
    """The disk of the pictures fills up but for a corner, in which a thumbnail has room and a picture has not."""
    outcome = Outcome("disk full")
    filler = site.media / "filler"
    with _filled(site, filler), site.uploading(4, site.large_picture) as sent:
        eventually(lambda: len(sent) >= 8, "nobody was answered")
        outcome.figures["pages"] = Browser(site.site.port).ask("GET", "/about/").status
    outcome.sent = sent
    return site.recover(outcome, time.monotonic())


@contextmanager
def _filled(site: BrokenSite, filler: Path) -> Iterator[None]:
    if not site.media.is_mount():
        with _small_files(site):
            yield
        return
    space = os.statvfs(site.media)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - NO_SPACE_LEFT)
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def _small_files(site: BrokenSite) -> Iterator[None]:
    """Where no disk can be mounted: the kernel refuses to make files larger than that."""
    workers = site.site.workers()
    for worker in workers:
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (NO_SPACE_LEFT, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        for worker in workers:
            resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def slow_clients(site: BrokenSite) -> Outcome:
    """Many that send a byte now and then, some in the headers and some in the body, beside one that does not."""
    outcome = Outcome("slow clients")
    started = time.monotonic()
    slow = [
        site.browser.begin_upload(site.picture, sent_share=0.5) if number % 2 else _half_of_the_headers(site)
        for number in range(SLOW_CLIENTS)
    ]
    cut_off: set[int] = set()

    def dribble() -> bool:
        for number, connection in enumerate(slow):
            if number not in cut_off and not _takes_a_byte(connection):
                cut_off.add(number)
        return len(cut_off) == len(slow)

    try:
        dribble()
        with ThreadPoolExecutor(1) as pool:
            normal = pool.submit(lambda: [site.upload() for _ in range(4)])
            eventually(lambda: dribble() and normal.done(), "a slow client was never cut off", pause_s=0.25)
            outcome.sent = normal.result()
    finally:
        for connection in slow:
            connection.close()
    outcome.figures = {
        "slowest normal s": max(each.seconds for each in outcome.sent),
        "cut off": len(cut_off),
        "until all were s": time.monotonic() - started,
    }
    return site.recover(outcome, time.monotonic())


def _half_of_the_headers(site: BrokenSite) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", site.site.port), timeout=RECOVERY_S)
    connection.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
    return connection


def _takes_a_byte(connection: socket.socket) -> bool:
    """Sends one. False once the other side has hung up."""
    try:
        connection.sendall(b"x")
        connection.setblocking(False)
        try:
            return bool(connection.recv(64 * 1024))
        except BlockingIOError:
            return True
        finally:
            connection.setblocking(True)
    except OSError:
        return False


def client_gone(site: BrokenSite) -> Outcome:
    """Clients that leave in the middle of the body, and after it but before the answer."""
    outcome = Outcome("client gone")
    rows = site.audit().rows
    for share in (0.0, 0.1, 0.5, 0.9, 0.999):
        site.browser.begin_upload(site.picture, sent_share=share).close()
    started = time.monotonic()
    time.sleep(1.0)  # what was wrongly taken in would be stored by now
    outcome.figures["stored of a part"] = site.audit().rows - rows
    for _ in range(3):
        site.browser.begin_upload(site.picture, sent_share=1.0).close()
    outcome.sent = [Sent(None, 0.0)] * 8 + [site.upload()]
    return site.recover(outcome, started)


def form_cut_short(site: BrokenSite) -> Outcome:
    """A form that ends behind its picture: what else was wished for is not known, so nothing may be stored."""
    outcome = Outcome("form cut short")
    rows = site.audit().rows
    started = time.monotonic()
    for header in ("", f"X-CSRFToken: {site.browser.cookies['csrftoken']}\r\n"):
        outcome.sent.append(_cut_behind_the_picture(site, header))
    outcome.figures["stored of a part"] = site.audit().rows - rows
    return site.recover(outcome, started)


def _cut_behind_the_picture(site: BrokenSite, header: str) -> Sent:
    wish = f'\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; name="forget"\r\n\r\non\r\n--{BOUNDARY}--\r\n'
    body = site.browser.upload_body(site.picture).removesuffix(f"\r\n--{BOUNDARY}--\r\n".encode()) + wish.encode()
    head = (
        f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{site.site.port}\r\nContent-Type: {site.browser.content_type}\r\n"
        f"Content-Length: {len(body)}\r\nCookie: csrftoken={site.browser.cookies['csrftoken']}\r\n{header}\r\n"
    )
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", site.site.port), timeout=RECOVERY_S) as connection:
        connection.sendall(head.encode() + body[: body.index(b'name="forget"')])
        connection.shutdown(socket.SHUT_WR)
        answer = http.client.HTTPResponse(connection)
        try:
            answer.begin()
        except (OSError, http.client.HTTPException):
            return Sent(None, time.monotonic() - started)
        return Sent(answer.status, time.monotonic() - started, location=answer.getheader("Location", ""))


FAULTS: dict[str, Callable[[BrokenSite], Outcome]] = {
    "worker_killed_detecting": worker_killed_detecting,
    "worker_killed_storing": worker_killed_storing,
    "overload": overload,
    "postgres_killed": postgres_killed,
    "redis_killed": redis_killed,
    "disk_full": disk_full,
    "slow_clients": slow_clients,
    "client_gone": client_gone,
    "form_cut_short": form_cut_short,
}


# The site


@contextmanager
def broken_site() -> Iterator[BrokenSite]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
        media = stack.enter_context(small_disk(folder))
        url = stack.enter_context(private_postgres())
        settings = {
            "DETECTIONS_AT_ONCE": str(AT_ONCE),
            "DETECTIONS_WAITING": str(WAITING),
            "MEDIA_ROOT": str(media),
            "STATIC_ROOT": str(folder / "static"),
            "READY_MIN_FREE_BYTES": "1",
        }
        yield BrokenSite(stack.enter_context(this_project(folder, database_url=url, settings=settings)), media, url)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A folder that is a small disk of its own where that may be had, which needs root, else one like any other."""
    media = folder / "media"
    media.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEDIA_MB}m,mode=700", "tmpfs", str(media)]
    is_mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield media
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(media)], check=True)


def eventually(condition: Callable[[], T], otherwise: str, *, pause_s: float = 0.05) -> T:
    """What the condition gave as soon as it was true.

    Raises:
        TimeoutError: It never was.
    """
    deadline = time.monotonic() + RECOVERY_S
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(pause_s)
    return value


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _is_whole(path: Path) -> bool:
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            image.load()
    except FileNotFoundError:
        return True  # gone since it was listed
    except OSError:
        return False
    return True


def main() -> None:
    """Prints the table; fails where something was left behind or is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faults", nargs="*", choices=[*FAULTS, []], help="all, unless some are named")
    options = parser.parse_args()
    if postgres_programs() is None:
        sys.exit("PostgreSQL's server programs are not installed.")
    is_clean = True
    with broken_site() as site:
        kind = "a small disk" if site.media.is_mount() else "a limit on file size"
        print(f'"Disk full" is {kind} here. files: without a row; rows: without a file.\n\n{HEADING}', flush=True)
        for name in options.faults or FAULTS:
            site.empty()
            outcome = FAULTS[name](site)
            print(outcome.line(), flush=True)
            for figure, value in outcome.figures.items():
                print(f"{'':<34}  {figure}: {value:g}")
            is_clean = is_clean and outcome.audit.is_clean and not outcome.forgotten
    sys.exit(0 if is_clean else "Something was left behind, or is wrong.")


if __name__ == "__main__":
    main()
