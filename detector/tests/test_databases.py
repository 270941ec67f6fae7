"""Both databases that are supported: SQLite, which the suite runs on, and a real PostgreSQL."""

import os
import subprocess
import sys
from pathlib import Path

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


def test_every_test_that_uses_the_database_passes_on_postgres_too(postgres_url: str) -> None:
    services = "redis or postgres or browser or model or training"
    command = ["-m", "pytest", "detector", "-q", "-p", "no:cacheprovider", "-m", f"django_db and not ({services})"]
    command += [f"--deselect={test}" for test in SQLITE_ONLY]
    assert " passed" in run(command, TEST_DATABASE_URL=postgres_url)
