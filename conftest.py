"""What the whole suite shares: its settings, the real services that some tests need, and what happens without them.

A test that needs a service says so with a marker (or by using the service's fixture, which adds the marker). Where the
service is missing such a test is skipped visibly; with REQUIRE_SERVICES=1, as in `.ci/run`, it fails instead.
"""

import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import django
import environ
import pytest
import redis
from django.conf import settings

from benchmarks.private_postgres import postgres_programs, private_postgres
from detector.private_redis import PrivateRedis

ROOT = Path(__file__).parent
# Debian keeps nginx where only root's PATH leads.
SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
REQUIRE_SERVICES = os.environ.get("REQUIRE_SERVICES", "") not in ("", "0")


def documented_defaults() -> dict[str, str]:
    """Every key of .env.example with the default that it shows."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    return dict(re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", text, flags=re.MULTILINE))


# The suite runs on the documented defaults: neither a developer's .env nor the caller's environment changes a result.
os.environ.update(documented_defaults(), SECRET_KEY="only-for-tests", DJANGO_SETTINGS_MODULE="deepfake_site.settings")
if "TEST_DATABASE_URL" in os.environ:  # the tests of the database, run again on another one by test_databases.py
    os.environ["DATABASE_URL"] = os.environ["TEST_DATABASE_URL"]
django.setup()
if environ.Env().db_url("DATABASE_URL")["ENGINE"] != settings.DATABASES["default"]["ENGINE"]:
    # pytest-django reads the settings before this file where DJANGO_SETTINGS_MODULE is in the environment already.
    raise pytest.UsageError("The settings were read before DATABASE_URL was set: give it in the environment, too.")


def shared_path(variable: str, default: str) -> Path:
    """Where training data lies; relative paths start at the repository's root."""
    return ROOT / os.environ.get(variable, default)


def missing_redis() -> str | None:
    return None if shutil.which("redis-server") else "redis-server is not installed"


def missing_postgres() -> str | None:
    return None if postgres_programs() else "PostgreSQL's server programs are not installed"


def missing_nginx() -> str | None:
    missing = [name for name in ("nginx", "envsubst", "openssl", "curl") if not shutil.which(name, path=SYSTEM_PATH)]
    return f"{' and '.join(missing)} not installed" if missing else None


def missing_systemd() -> str | None:
    return None if shutil.which("systemd-analyze") else "systemd-analyze is not installed"


def missing_browser() -> str | None:
    missing = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    return f"{' and '.join(missing)} not installed" if missing else None


def missing_model() -> str | None:
    spec = ROOT / os.environ["MODEL_DIR"] / "spec.json"
    return None if spec.exists() else f"there is no model: {spec.relative_to(ROOT)} is missing"


def missing_training() -> str | None:
    if importlib.util.find_spec("tensorflow") is None:
        return "TensorFlow is not installed"
    needed = [
        shared_path("FACES_DIR", "../shared/faces") / "manifest.csv",
        shared_path("BACKBONE_WEIGHTS", "../shared/weights/mobilenet_v2_imagenet_no_top.weights.h5"),
    ]
    absent = [path.name for path in needed if not path.exists()]
    return f"{' and '.join(absent)} not found; see FACES_DIR and BACKBONE_WEIGHTS" if absent else None


SERVICES: dict[str, Callable[[], str | None]] = {
    "redis": missing_redis,
    "postgres": missing_postgres,
    "browser": missing_browser,
    "nginx": missing_nginx,
    "systemd": missing_systemd,
    "model": missing_model,
    "training": missing_training,
}
FIXTURE_MARKERS = {"redis_process": "redis", "postgres_url": "postgres", "browser": "browser"}


def pytest_itemcollected(item: pytest.Item) -> None:
    for fixture, marker in FIXTURE_MARKERS.items():
        if fixture in getattr(item, "fixturenames", ()):
            item.add_marker(marker)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that no process is left with it in the end."""
    items.sort(key=lambda item: item.get_closest_marker("training") is None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, missing in SERVICES.items():
        reason = missing() if item.get_closest_marker(marker) else None
        if reason:
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    refuse_skip(report, item.nodeid)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    refuse_skip(report, collector.nodeid)
    return report


def refuse_skip(report: pytest.TestReport | pytest.CollectReport, nodeid: str) -> None:
    """Turns a report that says "skipped" into a failure when nothing may be skipped."""
    if REQUIRE_SERVICES and report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{nodeid} may not be skipped with REQUIRE_SERVICES=1: {reason}"


@pytest.fixture(scope="session")
def redis_process() -> Iterator[PrivateRedis]:
    with tempfile.TemporaryDirectory(prefix="redis-") as directory:
        server = PrivateRedis(Path(directory))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def redis_server(redis_process: PrivateRedis) -> PrivateRedis:
    """A real, empty Redis with `.url`, `.kill()` and `.start()`; one process per session, brought back if killed."""
    if not redis_process.answers():
        redis_process.kill()
        redis_process.start()
    with redis.Redis.from_url(redis_process.url) as client:
        client.flushall()
    return redis_process


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Address of an empty database in a private PostgreSQL cluster, understood by psycopg and by DATABASE_URL."""
    with private_postgres() as url:
        yield url
