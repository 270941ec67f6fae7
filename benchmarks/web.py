"""What an upload costs over HTTP: this project as it is deployed against the typical demo, part of `make bench`.

The baseline is benchmarks/flask_demo.py: the upload is saved and `model.predict` called, no more. A visit to this
project is all of: the upload (checked, faces found and judged, picture, thumbnail and row stored) and the result page
with its heat map. A browser also fetches the picture that it shows, once; the demo shows none, so that is a row of its
own. Both run at the same time and take turns, so that a noisy machine is noisy for both; CPU is user and system time of
all processes of a site. The demo's network has random weights, which cost the same.
"""

import argparse
import http.client
import math
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.browser import Answer, Browser
from benchmarks.pictures import portrait
from benchmarks.private_postgres import private_postgres
from benchmarks.sites import RunningSite, flask_demo, postgres_server, this_project
from detector.faces import FaceDetector
from detector.images import decode_image
from detector.predictor import load_classifier, load_predictor
from detector.preprocessing import face_input, square_crop

MODEL_DIR = Path(__file__).resolve().parent.parent / "models/mobilenet_v2"
DEMO = "Flask demo"
VISIT = "this project: upload, result page with heat map"
SHOWN = "this project: that and the displayed picture"
UPLOAD = "this project: upload alone"
PARTS = "decode + faces + network, in one process"
AT_REST_S = 10  # each worker gives back what pictures left in its heap every five seconds


@dataclass
class Load:
    """What a site did in its turns."""

    seconds: list[float] = field(default_factory=list)  # of each visit that had its answers
    failures: Counter[str] = field(default_factory=Counter)
    wall_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def p50_ms(self) -> float:
        return statistics.median(self.seconds) * 1000 if self.seconds else math.nan

    @property
    def p95_ms(self) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * 0.95)] * 1000 if self.seconds else math.nan

    @property
    def per_second(self) -> float:
        return len(self.seconds) / self.wall_s if self.wall_s else math.nan

    @property
    def cpu_ms(self) -> float:
        return self.cpu_s / len(self.seconds) * 1000 if self.seconds else math.nan


class Refused(Exception):
    """A site answered something else than what a visit needs."""


Visit = Callable[[Browser, bytes], object]


def visit_demo(browser: Browser, picture: bytes) -> None:
    answer = browser.upload(picture)
    require(answer.status == 200 and b" %" in answer.body, answer)


def visit_project(browser: Browser, picture: bytes) -> str:
    address = upload_alone(browser, picture)
    page = browser.ask("GET", address)
    require(page.status == 200 and b'src="data:image/png;base64,' in page.body, page)
    return address


def visit_and_look(browser: Browser, picture: bytes) -> None:
    address = visit_project(browser, picture)
    shown = browser.ask("GET", f"{address}image/")
    require(shown.status == 200 and shown.body.startswith(b"\xff\xd8"), shown)


def upload_only(browser: Browser, picture: bytes) -> None:
    upload_alone(browser, picture)


def upload_alone(browser: Browser, picture: bytes) -> str:
    answer = browser.upload(picture)
    require(answer.status == 302, answer)
    return answer.headers["Location"]


def require(holds: bool, answer: Answer) -> None:
    if not holds:
        raise Refused(f"status {answer.status}")


def take_turn(site: RunningSite, visit: Visit, picture: bytes, *, clients: int, visits: int, load: Load) -> None:
    """Lets so many clients make so many visits, together, and adds what it took; visits that failed only count."""
    browsers = [Browser(site.port) for _ in range(clients)]
    for browser in browsers:
        browser.open_page()

    def work(number: int) -> list[float]:
        times = []
        for _ in range(number, visits, clients):
            started = time.perf_counter()
            try:
                visit(browsers[number], picture)
            except (Refused, OSError, http.client.HTTPException) as error:
                load.failures[str(error) or type(error).__name__] += 1
            else:
                times.append(time.perf_counter() - started)
        return times

    cpu, started = site.cpu_s(), time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        for times in pool.map(work, range(clients)):
            load.seconds += times
    load.wall_s += time.perf_counter() - started
    load.cpu_s += site.cpu_s() - cpu


def parts_of(picture: bytes) -> Callable[[], object]:
    """Returns the least that a verdict on this picture takes, as a call."""
    spec = load_predictor(MODEL_DIR).spec
    classifier = load_classifier(MODEL_DIR, spec)
    detector = FaceDetector()

    def parts() -> None:
        image = decode_image(picture)
        width, height = image.picture.size
        for face in detector.detect(image.picture):
            crop = square_crop(face.to_pixels(width, height), width=width, height=height, margin=spec.face_margin)
            classifier(face_input(image.picture, crop, size=spec.input_size, max_source_side=spec.max_source_side))

    parts()
    return parts


def measure_parts(parts: Callable[[], object], calls: int, load: Load) -> None:
    for _ in range(calls):
        cpu, started = time.process_time(), time.perf_counter()
        parts()
        load.seconds.append(time.perf_counter() - started)
        load.wall_s += load.seconds[-1]
        load.cpu_s += time.process_time() - cpu


def print_table(title: str, loads: dict[str, Load]) -> None:
    reference = loads[DEMO]
    figures = f"{'p50 ms':>9}{'p95 ms':>9}{'1/s':>8}{'CPU ms':>9}{'p50 x':>8}{'CPU x':>8}"
    print(f"\n{title}\n{'':46}{'n':>5}{'failed':>7}{figures}")
    for name, load in loads.items():
        ratios = f"{load.p50_ms / reference.p50_ms:>8.3f}{load.cpu_ms / reference.cpu_ms:>8.3f}"
        mark = "  (baseline)" if name == DEMO else ""
        print(
            f"{name:46}{len(load.seconds):>5}{load.failures.total():>7}"
            f"{load.p50_ms:>9.1f}{load.p95_ms:>9.1f}{load.per_second:>8.1f}"
            f"{load.cpu_ms:>9.1f}{ratios}{mark}",
            flush=True,
        )
    for name, load in loads.items():
        for reason, count in load.failures.most_common(3):
            print(f"{name}: {count} x {reason}", flush=True)


@dataclass(frozen=True, slots=True)
class Bar:
    name: str
    wanted: float
    found: float
    at_most: bool = False

    def line(self) -> str:
        holds = self.found <= self.wanted if self.at_most else self.found >= self.wanted
        kind = "at most" if self.at_most else "at least"
        return f"{self.name:62}{kind:>9}{self.wanted:>7.2f}{self.found:>8.2f}  {'yes' if holds else 'NO'}"


def bench_start(folder: Path, database_url: str, starts: int) -> tuple[list[float], list[float]]:
    """Seconds from start to first answer of the demo and of this project, started by turns and stopped again."""
    demo_s, own_s = [], []
    for _ in range(starts):
        with flask_demo(folder) as demo:
            demo_s.append(demo.first_answer_s)
        with this_project(folder, database_url=database_url) as own:
            own_s.append(own.first_answer_s)
    return demo_s, own_s


def bench_visits(
    demo: RunningSite, own: RunningSite, *, sizes: list[int], clients: list[int], rounds: int, visits: int
) -> list[Bar]:
    """Prints one table for each size and number of clients, and returns how they compare with the bars."""
    bars = []
    for megapixels in sizes:
        picture = portrait(megapixels, "JPEG")
        parts = parts_of(picture)
        for count in clients:
            turns: dict[str, tuple[RunningSite, Visit]] = {DEMO: (demo, visit_demo), VISIT: (own, visit_project)}
            if count == 1:
                turns[SHOWN] = (own, visit_and_look)
                turns[UPLOAD] = (own, upload_only)
            loads = {name: Load() for name in (*turns, PARTS)}
            for number in range(rounds + 1):
                for name, (site, visit) in turns.items():
                    # The first round warms up.
                    load, amount = (loads[name], visits * min(count, 3)) if number else (Load(), count)
                    take_turn(site, visit, picture, clients=count, visits=amount, load=load)
                measure_parts(parts, visits if number else 1, loads[PARTS] if number else Load())
            print_table(f"{megapixels} MP JPEG, {len(picture) / 1e6:.1f} MB, {count} client(s)", loads)
            bars += bars_of(megapixels, count, loads)
    return bars


def bars_of(megapixels: int, clients: int, loads: dict[str, Load]) -> list[Bar]:
    """Returns what issue 5 wants of this size and number of clients, with what was found."""
    where = f"{megapixels} MP, {clients} client(s)"
    demo, visit, parts = loads[DEMO], loads[VISIT], loads[PARTS]
    bars = []
    if clients == 1:
        wanted = 5.0 if megapixels == 1 else 3.0
        bars.append(Bar(f"CPU of a visit, demo / ours, {where}", wanted, demo.cpu_ms / visit.cpu_ms))
        found = loads[UPLOAD].cpu_ms / parts.cpu_ms
        bars.append(Bar(f"CPU of an upload / its decode, faces, network, {where}", 1.4, found, at_most=True))
    if clients <= 4:
        bars.append(Bar(f"p50 of a visit, demo / ours, {where}", 4.0, demo.p50_ms / visit.p50_ms))
    return bars


def main() -> None:
    """Runs all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smallest sizes, to see that it works")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--visits", type=int, default=10, help="in a turn of one client; more clients make up to 3 x")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        url = stack.enter_context(private_postgres()) if options.database == "postgres" else ""
        demo_s, own_s = bench_start(folder, url, 0 if options.quick else 2)
        demo = stack.enter_context(flask_demo(folder))
        own = stack.enter_context(this_project(folder, database_url=url))
        if url:
            own.services.append(postgres_server(url))
        bars = bench_visits(
            demo,
            own,
            sizes=[1] if options.quick else [1, 12],
            clients=[1, 2] if options.quick else [1, 4, 16],
            rounds=1 if options.quick else options.rounds,
            visits=2 if options.quick else options.visits,
        )
        demo_s.append(demo.first_answer_s)
        own_s.append(own.first_answer_s)
        bars += bench_resources(demo, own, statistics.median(demo_s), statistics.median(own_s))
        print(f"\n{'Bars':62}{'':>9}{'wanted':>7}{'found':>8}  holds")
        print("\n".join(bar.line() for bar in bars))


def bench_resources(demo: RunningSite, own: RunningSite, demo_s: float, own_s: float) -> list[Bar]:
    """Prints start and memory."""
    demo_mb, own_mb = demo.pss_mb(), own.pss_mb()
    print(f"\nStart, and memory after all that\n{'':46}{'ready s':>9}{'PSS MB':>9}{'ready x':>9}{'PSS x':>9}")
    print(f"{DEMO:46}{demo_s:>9.2f}{demo_mb:>9.0f}{1:>9.3f}{1:>9.3f}  (baseline)")
    ratios = f"{own_s / demo_s:>9.3f}{own_mb / demo_mb:>9.3f}"
    print(f"{'this project, Redis included':46}{own_s:>9.2f}{own_mb:>9.0f}{ratios}")
    time.sleep(AT_REST_S)
    demo_rest_mb, own_rest_mb = demo.pss_mb(), own.pss_mb()
    print(f"{AT_REST_S} s without requests later: {demo_rest_mb:.0f} MB, {own_rest_mb:.0f} MB", flush=True)
    return [
        Bar("seconds to the first answer, demo / ours", 6.0, demo_s / own_s),
        Bar("memory after the load, demo / ours", 4.0, demo_mb / own_mb),
        Bar(f"memory {AT_REST_S} s later, demo / ours", 4.0, demo_rest_mb / own_rest_mb),
    ]


if __name__ == "__main__":
    main()
