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
    programs = postgres_programs()
    if programs is None:
        raise SystemExit("PostgreSQL's server programs are not installed.")
    directory = Path(tempfile.mkdtemp(prefix="postgres-"))
    # The server refuses to run as root, and its own user has to reach its files.
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(directory, user)

    def run(program: str, *arguments: str) -> None:
        with (directory / "output.log").open("ab") as output:  # a pipe would stay open in the server and never end
            subprocess.run(
                [programs / program, *arguments], check=True, cwd=directory, user=user, stdout=output, stderr=output
            )

    data = str(directory / "data")
    try:
        run(
            "initdb", "--pgdata", data, "--username", "postgres", "--auth", "trust", "--encoding", "UTF8", "--no-locale"
        )
        run("pg_ctl", "--pgdata", data, "--wait", "--options", f"-k {directory} -h '' -F", "start")
        yield f"postgres://postgres@/postgres?host={directory}"
    finally:
        if (directory / "data" / "postmaster.pid").exists():
            run("pg_ctl", "--pgdata", data, "--wait", "--mode", "immediate", "stop")
        shutil.rmtree(directory)
