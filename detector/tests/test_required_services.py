"""A missing service is a visible skip on a developer's machine and a failure in CI."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("require_services", "exit_code", "said"),
    [
        ("", 0, "SKIPPED [1] conftest.py"),
        ("1", 1, "may not be skipped with REQUIRE_SERVICES=1: Skipped: redis-server is not installed"),
    ],
)
def test_a_missing_redis(tmp_path: Path, require_services: str, exit_code: int, said: str) -> None:
    test = "detector/tests/test_private_redis.py::test_redis_listens_on_a_private_socket_only_and_keeps_nothing"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", test, "-p", "no:cacheprovider"],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path), "REQUIRE_SERVICES": require_services},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, said in done.stdout) == (exit_code, True), done.stdout + done.stderr
