"""What the pages of a moderator's day cost with many detections: `make bench-review`.

Prints the server time, the CPU time and the number of queries of each page at 10^4, 10^5 and 10^6 made-up rows, asked
in this process by Django's test client: the median of several calls, after one that fills what is kept. CPU time is
that of this process and of the database's process that answers it (not of further ones that PostgreSQL may start to
help); on a busy machine it says more than the time that passed. PostgreSQL is a private cluster that goes again at the
end; SQLite a file in a temporary folder.
"""

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.private_postgres import private_postgres

SIZES = [10_000, 100_000, 1_000_000]


@dataclass(frozen=True, slots=True)
class Cost:
    first_ms: float
    median_ms: float
    cpu_ms: float
    queries: int


def set_up(url: str, media: str) -> None:
    """Points Django at that database, with the default settings of a server."""
    os.environ |= {"DATABASE_URL": url, "MEDIA_ROOT": media, "SECRET_KEY": "only-for-benchmarks", "DEBUG": "false"}
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "deepfake_site.settings")
    import django
    from django.conf import settings
    from django.core.management import call_command

    django.setup()
    # The pages link to static files by names that only a `collectstatic` would make.
    settings.STORAGES["staticfiles"]["BACKEND"] = "django.contrib.staticfiles.storage.StaticFilesStorage"
    settings.ALLOWED_HOSTS.append("testserver")
    logging.disable(logging.WARNING)
    call_command("migrate", verbosity=0)


def grow(rows: int) -> None:
    """Adds made-up detections until there are so many, and tells the database's planner about them."""
    from django.db import connection
    from tqdm import tqdm

    from detector import demo
    from detector.models import Detection

    missing = rows - Detection.objects.count()
    if missing > 0:
        with tqdm(total=missing, disable=None, leave=False, unit="detection", file=sys.stderr) as progress:
            demo.make(missing, seed=rows, progress=progress.update)
    with connection.cursor() as cursor:
        # What autovacuum does by itself, only not at a moment of our choice.
        cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")


def pages() -> dict[str, Callable[[], object]]:
    """Returns each page by its name, as a call that fails unless the page comes."""
    from django.contrib.auth.models import User
    from django.db.models import Count
    from django.test import Client
    from django.urls import reverse

    from detector.admin import DetectionAdmin
    from detector.models import Detection

    admin = Client()
    admin.force_login(User.objects.get_or_create(username="admin", is_staff=True, is_superuser=True)[0])
    uploader = Client()
    some_owner = User.objects.annotate(n=Count("detections")).order_by("-n")[0]
    uploader.force_login(some_owner)
    some = Detection.objects.order_by("pk")[500]
    listed = reverse("admin:detector_detection_changelist")
    quality = reverse("admin:detector_review_quality")
    number = "".join(filter(str.isdigit, some.original_name))
    deep_page = min(100, Detection.objects.count() // DetectionAdmin.list_per_page)

    def get(client: Client, address: str, **query: str) -> Callable[[], object]:
        def call() -> None:
            response = client.get(address, query)
            assert response.status_code == 200, response.status_code

        return call

    return {
        "admin list": get(admin, listed),
        "admin list, one verdict": get(admin, listed, verdict__exact="fake"),
        f"admin list, page {deep_page}": get(admin, listed, p=str(deep_page)),
        "admin list, one owner": get(admin, listed, owner=str(some_owner.pk)),
        "admin list, reviewed as fake": get(admin, listed, review_verdict__exact="fake"),
        "admin list, failed": get(admin, listed, status__exact="failed"),
        "reviews": get(admin, reverse("admin:detector_review_changelist")),
        "queue": get(admin, reverse("admin:detector_queueddetection_changelist")),
        "search by SHA-256": get(admin, listed, q=some.sha256),
        "search by part of a name": get(admin, listed, q=number),
        "search by a common part": get(admin, listed, q="photo"),
        "search by owner": get(admin, listed, q="demo-0001"),
        "search by perceptual hash": get(admin, listed, q=some.perceptual_hash_text),
        "history of the busiest account": get(uploader, reverse("detector:history")),
        "quality, 12 weeks": get(admin, quality),
        "quality, all time": get(admin, quality, period="all"),
    }


def cost(call: Callable[[], object], calls: int) -> Cost:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    times, cpu_times = [], []
    for _ in range(calls + 1):
        start, cpu_start = time.perf_counter(), cpu_time_ms()
        call()
        times.append((time.perf_counter() - start) * 1000)
        cpu_times.append(cpu_time_ms() - cpu_start)
    with CaptureQueriesContext(connection) as captured:
        call()
    return Cost(times[0], statistics.median(times[1:]), statistics.median(cpu_times[1:]), len(captured))


def cpu_time_ms() -> float:
    """CPU time of this process and of the database's process that answers it, where that one is on this machine."""
    from django.db import connection

    own = time.process_time() * 1000
    if connection.vendor != "postgresql":
        return own
    connection.ensure_connection()
    statistics_of_process = Path(f"/proc/{connection.connection.info.backend_pid}/schedstat")
    if not statistics_of_process.exists():
        return own
    return own + int(statistics_of_process.read_text().split()[0]) / 1e6


def print_table(title: str, costs: dict[str, Cost]) -> None:
    print(f"\n{title}\n{'':34}{'ms':>9}{'CPU ms':>9}{'first ms':>10}{'queries':>9}")
    for name, each in costs.items():
        print(f"{name:34}{each.median_ms:>9.0f}{each.cpu_ms:>9.0f}{each.first_ms:>10.0f}{each.queries:>9}", flush=True)


def bench(name: str, sizes: list[int], calls: int) -> None:
    from detector.models import Review

    for rows in sizes:
        grow(rows)
        costs = {page: cost(call, calls) for page, call in pages().items()}
        print_table(f"{name}, {rows:,} detections, {Review.objects.count():,} reviews", costs)


def main() -> None:
    """Runs one database; each needs a process of its own, since Django knows one per process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["postgres", "sqlite"], default="postgres")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--url", help="a database to use instead, which keeps the rows")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        url = options.url
        if url is None and options.database == "postgres":
            url = stack.enter_context(private_postgres())
        set_up(url or f"sqlite:///{folder}/db.sqlite3", folder)
        bench(options.database, sorted(options.sizes), options.calls)


if __name__ == "__main__":
    main()
