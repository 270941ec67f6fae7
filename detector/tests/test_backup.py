"""Backup and restore with the very lines of docs/operations.md: the same rows, files and protection afterwards."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from benchmarks.private_postgres import postgres_programs
from conftest import SYSTEM_PATH

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")

# Run as a process of its own, on the database and folder of its environment.
FILL = """
import django; django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from detector.tests.factories import make_detection, make_jpeg, make_review, make_user
ada = make_user()
for number in range(3):
    detection = make_detection(0.2 + number / 4, data=make_jpeg(seed=number), owner=ada if number else None)
make_review(detection, "fake", note="Äpfel, 'quoted'")
"""
TELL = """
import json, django; django.setup()
from django.core import serializers
from django.contrib.auth.models import User
from django.db import DatabaseError
from detector.models import Detection, Review
models = (User, Detection, Review)
rows = [json.loads(serializers.serialize("json", model._default_manager.order_by("pk"))) for model in models]
try:
    Review._base_manager.update(note="rewritten")
    protected = False
except DatabaseError:
    protected = True
print(json.dumps({"rows": rows, "protected": protected}))
"""
# A database that a killed process leaves: its last changes are in the write-ahead log beside it.
LEAVE = """
import os, sqlite3
rows = sqlite3.connect(os.environ["DATABASE"], isolation_level=None)
rows.execute("PRAGMA journal_mode=WAL")
rows.execute("CREATE TABLE auth_user (left_over)")
os._exit(0)
"""


def documented(number: int) -> str:
    """The commands of the n-th block in the section on backups: how to back up and restore, for each database."""
    section = OPERATIONS.partition("\n## Backup and restore\n")[2].partition("\n## ")[0]
    return str(re.findall(r"^```bash\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)[number])


def run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def place(folder: Path, database_url: str) -> dict[str, str]:
    """The environment of one installation; PostgreSQL's programs of the server's version come first."""
    programs = postgres_programs()
    path = f"{programs}:{SYSTEM_PATH}" if programs else SYSTEM_PATH
    return {
        **os.environ,
        "PATH": path,
        "DATABASE_URL": database_url,
        "DATABASE": database_url.removeprefix("sqlite:///"),
        "MEDIA_ROOT": str(folder / "media"),
    }


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """Hash and permissions of every file."""
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mode)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("vendor", "back_up", "restore"), [pytest.param("postgres", 0, 1, marks=pytest.mark.postgres), ("sqlite", 2, 3)]
)
def test_what_was_backed_up_is_restored_elsewhere(
    vendor: str, back_up: int, restore: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if vendor == "postgres":
        postgres_url = request.getfixturevalue("postgres_url")
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            for name in ("backed_up", "restored"):
                connection.execute(f"CREATE DATABASE {name}")
        urls = [postgres_url.replace("/postgres?", f"/{name}?") for name in ("backed_up", "restored")]
    else:
        urls = [f"sqlite:///{tmp_path / name / 'db.sqlite3'}" for name in ("here", "there")]
    for name in ("here", "there", "backup"):
        (tmp_path / name).mkdir()
    here, there = (
        place(tmp_path / name, url) | {"BACKUP": str(tmp_path / "backup")}
        for name, url in zip(("here", "there"), urls, strict=True)
    )

    run([sys.executable, "-c", FILL], here)
    before: dict[str, Any] = json.loads(run([sys.executable, "-c", TELL], here))
    files = contents(tmp_path / "here" / "media")
    assert [len(rows) for rows in before["rows"]] == [2, 3, 1]
    assert len(files) == 6
    assert before["protected"]

    commands = [documented(number).replace(".venv/bin/python", sys.executable) for number in (back_up, restore)]
    run(["bash", "-euo", "pipefail", "-c", commands[0]], here)
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700
    shutil.rmtree(tmp_path / "here")
    if vendor == "sqlite":
        run([sys.executable, "-c", LEAVE], there)
        assert (tmp_path / "there" / "db.sqlite3-wal").stat().st_size
    run(["bash", "-euo", "pipefail", "-c", commands[1]], there)

    assert json.loads(run([sys.executable, "-c", TELL], there)) == before
    assert contents(tmp_path / "there" / "media") == files


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (1, 0), (2, 1)])
def test_a_backup_fails_where_tar_does_and_not_where_it_met_an_upload(tmp_path: Path, code: int, expected: int) -> None:
    tar = tmp_path / "tar"
    tar.write_text(f"#!/bin/sh\nexit {code}\n")
    tar.chmod(0o755)
    (line,) = [line for line in documented(2).splitlines() if line.startswith("tar ")]
    environment = {"PATH": f"{tmp_path}:{SYSTEM_PATH}", "BACKUP": "", "MEDIA_ROOT": ""}
    assert line in documented(0)
    assert subprocess.run(["bash", "-euo", "pipefail", "-c", line], env=environment).returncode == expected
