"""The Makefile's preparations, tried in an empty folder without the network."""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Makefile and .env.example beside an environment in which the packages count as installed."""
    for name in ("Makefile", ".env.example", "requirements.txt", "requirements-web.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / ".venv" / ".web").touch()
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def test_env_file_gets_a_secret_of_its_own_and_is_private(checkout: Path) -> None:
    assert make(checkout, ".env").returncode == 0
    written, example = (checkout / ".env").read_text(), (checkout / ".env.example").read_text()
    (secret,) = (line.removeprefix("SECRET_KEY=") for line in written.splitlines() if line.startswith("SECRET_KEY="))
    assert len(secret) >= 50, "what `check --deploy` asks for"
    assert written.replace(secret, "") == example
    assert stat.S_IMODE((checkout / ".env").stat().st_mode) == 0o600


def test_an_existing_env_file_is_never_touched(checkout: Path) -> None:
    (checkout / ".env").write_text("SECRET_KEY=mine\n")
    (checkout / ".env.example").touch()
    assert make(checkout, ".env").returncode == 0
    assert (checkout / ".env").read_text() == "SECRET_KEY=mine\n"


def test_a_missing_python_is_named(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    done = make(checkout, "run", "PYTHON=python-that-is-missing")
    assert done.returncode != 0
    assert "There is no python-that-is-missing" in done.stderr


def test_an_old_python_is_refused_with_its_version(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    old = checkout / "old-python"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} "$1" "import sys; sys.version_info = (3, 9, 18); $2"\n')
    old.chmod(0o755)
    done = make(checkout, "run", f"PYTHON={old}")
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed" in done.stderr
    assert "is 3.9." in done.stderr
    assert not (checkout / ".venv").exists()


def test_run_compiles_what_it_serves_even_where_python_would_not(checkout: Path) -> None:
    for folder in ("deepfake_site", "detector"):
        (checkout / folder).mkdir()
        (checkout / folder / "module.py").write_text("")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(["make", "run"], cwd=checkout, env=environment, capture_output=True)  # ends: there is no manage.py
    compiled = {path.parent.parent.name for path in checkout.glob("*/__pycache__/module.*.pyc")}
    assert compiled == {"deepfake_site", "detector"}


def test_what_make_starts_keeps_what_it_compiles_of_the_packages(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / "manage.py").write_text("import os, sys\nprint(sys.argv[1], sys.dont_write_bytecode)\n")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert {"migrate False", "serve False"} <= set(make(checkout, "run").stdout.splitlines())


@pytest.mark.parametrize("target", ["run", "admin"])
def test_a_new_database_is_private(checkout: Path, target: str) -> None:
    (checkout / "manage.py").write_text("import sys\nif 'migrate' in sys.argv: open('db.sqlite3', 'w').close()\n")
    assert make(checkout, target).returncode == 0
    assert stat.S_IMODE((checkout / "db.sqlite3").stat().st_mode) == 0o600


def test_run_listens_elsewhere_only_when_make_is_told_so(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "this-machine")
    assert "serve --host 127.0.0.1 " in make(checkout, "--dry-run", "run").stdout
    assert "serve --host 0.0.0.0 " in make(checkout, "--dry-run", "run", "HOST=0.0.0.0").stdout


def test_image_and_benchmark_compile_the_same() -> None:
    (command,) = re.findall(r"^COMPILE := \S+/python (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert f"RUN python {command}\n" in (ROOT / "deploy" / "Dockerfile").read_text("utf-8")
    # The units may not write, so what make installs for them has to be compiled as well; pip does so for the image.
    assert (ROOT / "docs" / "operations.md").read_text("utf-8").count(f"python {command} .venv") == 2
    words = ", ".join(f'"{word}"' for word in command.split())
    assert f"[{words}]" in (ROOT / "benchmarks" / "sites.py").read_text("utf-8")


def test_help_lists_the_targets_that_the_project_is_used_by(checkout: Path) -> None:
    listed = make(checkout, "help").stdout
    for target in ("run", "test", "lint", "typecheck", "admin", "train", "evaluate", "clean", "lock", "audit"):
        assert f"make {target} " in listed


@pytest.mark.parametrize(
    ("program", "status", "out", "err"),
    [
        ("echo 'No known vulnerabilities found' >&2", 0, "", "No known vulnerabilities found"),
        ("echo 'django 1.0 PYSEC-2019-1'; exit 1", 2, "django 1.0 PYSEC-2019-1", ""),
        ("echo 'ERROR: no route to host' >&2; exit 1", 2, "", "nothing was audited: the advisories could not"),
    ],
    ids=["clean", "vulnerable", "unreachable"],
)
def test_an_audit_that_asked_nobody_does_not_look_like_one(
    checkout: Path, program: str, status: int, out: str, err: str
) -> None:
    tool = checkout / ".venv" / "bin" / "pip-audit"
    tool.write_text(f"#!/bin/sh\n{program}\n")
    tool.chmod(0o755)
    (checkout / ".venv" / ".full").touch()
    done = make(checkout, "audit")
    assert done.returncode == status
    assert done.stdout.strip() == out
    assert err in done.stderr
    assert ("nothing was audited" in done.stderr) == ("nothing" in err)


def test_ci_asks_no_advisory_service() -> None:
    assert "audit" not in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "audit" not in re.findall(r"^test:(.*?)##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[0]
