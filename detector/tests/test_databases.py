"""Both databases that are supported: SQLite, which the suite runs on, and a real PostgreSQL."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# PostgreSQL plans by statistics, and a table of a few rows has none that would make it use an index.
SQLITE_ONLY = [
    "detector/tests/test_known.py::test_near_ones_are_found_by_index",
    "detector/tests/test_workplace.py::test_the_queue_is_read_from_its_index",
]
MIGRATE_THERE_AND_BACK = """
import django
from django.core.management import call_command
django.setup()
call_command("migrate", verbosity=0)
call_command("migrate", "detector", "zero", verbosity=0)
call_command("migrate", verbosity=0)
call_command("migrate", check_unapplied=True, verbosity=0)
"""

# Four reviewers send what they decided on the same page at the same moment.
REVIEW_AT_ONCE = """
import threading
import django
from django.core.management import call_command
django.setup()
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
from django.db import connection
from detector import services
from detector.exceptions import StaleReview
from detector.models import Detection, Review
from detector.reviews import Look
detection = Detection.objects.create(
    session_key="k" * 40, image="x", format="JPEG", width=1, height=1, byte_count=1, status="done", verdict="fake",
    fake_probability=0.9, threshold=0.7, uncertain_above=0.3,
)
reviewers = [User.objects.create(username=f"reviewer-{number}") for number in range(4)]
look = Look.begin(detection.pk, seen_count=0, is_blind=False)
start, outcomes = threading.Barrier(len(reviewers)), []

def send(reviewer):
    start.wait()
    try:
        services.review_create(detection=detection, reviewer=reviewer, verdict="real", note="", look=look)
        outcomes.append("kept")
    except StaleReview:
        outcomes.append("refused")
    finally:
        connection.close()

threads = [threading.Thread(target=send, args=[reviewer]) for reviewer in reviewers]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*sorted(outcomes), Review.objects.count(), Detection.objects.get(pk=detection.pk).review_count)
"""


def run(command: list[str], **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_migrations_go_forward_and_back_on_sqlite(tmp_path: Path) -> None:
    run(["-c", MIGRATE_THERE_AND_BACK], DATABASE_URL=f"sqlite:///{tmp_path / 'db.sqlite3'}")


def test_migrations_go_forward_and_back_on_postgres(postgres_url: str) -> None:
    run(["-c", MIGRATE_THERE_AND_BACK], DATABASE_URL=postgres_url)


@pytest.mark.parametrize("vendor", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_of_reviews_sent_at_once_one_is_kept(vendor: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = f"sqlite:///{tmp_path / 'db.sqlite3'}" if vendor == "sqlite" else request.getfixturevalue("postgres_url")
    assert run(["-c", REVIEW_AT_ONCE], DATABASE_URL=url).split() == ["kept", *["refused"] * 3, "1", "1"]


def test_every_test_that_uses_the_database_passes_on_postgres_too(postgres_url: str) -> None:
    services = "redis or postgres or browser or model or training"
    command = ["-m", "pytest", "detector", "-q", "-p", "no:cacheprovider", "-m", f"django_db and not ({services})"]
    command += [f"--deselect={test}" for test in SQLITE_ONLY]
    assert " passed" in run(command, TEST_DATABASE_URL=postgres_url)
