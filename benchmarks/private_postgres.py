"""A PostgreSQL cluster of one's own, for tests and benchmarks, that goes again at the end."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def postgres_programs() -> Path | None:
    """Folder of initdb and pg_ctl, which Debian keeps off the PATH."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).parent] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "pg_ctl").exists()), None)


@contextmanager
def private_postgres() -> Iterator[str]:
    """Address of an empty database in a private PostgreSQL cluster, understood by psycopg and by DATABASE_URL."""
    if postgres_programs() is None:
        raise SystemExit("PostgreSQL's server programs are not installed.")
    directory = Path(tempfile.mkdtemp(prefix="postgres-"))
    url = f"postgres://postgres@/postgres?host={directory}"
    # The server refuses to run as root, and its own user has to reach its files.
    if user := _user():
        shutil.chown(directory, user)
    try:
        _run(directory, "initdb", "--username", "postgres", "--auth", "trust", "--encoding", "UTF8", "--no-locale")
        start_postgres(url)
        yield url
    finally:
        if (directory / "data" / "postmaster.pid").exists():
            kill_postgres(url)
        shutil.rmtree(directory)


def start_postgres(url: str) -> None:
    """Starts the cluster that private_postgres() gave this address, and waits for it."""
    directory = _directory(url)
    _run(directory, "pg_ctl", "--wait", "--options", f"-k {directory} -h '' -F", "start")


def kill_postgres(url: str) -> None:
    """Ends the cluster at once, as if it had crashed: whatever was under way is lost."""
    _run(_directory(url), "pg_ctl", "--wait", "--mode", "immediate", "stop")


def _directory(url: str) -> Path:
    return Path(url.partition("host=")[2])


def _user() -> str | None:
    return "postgres" if os.geteuid() == 0 else None


def _run(directory: Path, program: str, *arguments: str) -> None:
    programs = postgres_programs()
    assert programs is not None
    command: list[str | Path] = [programs / program, "--pgdata", str(directory / "data"), *arguments]
    with (directory / "output.log").open("ab") as output:  # a pipe would stay open in the server and never end
        subprocess.run(command, check=True, cwd=directory, user=_user(), stdout=output, stderr=output)
