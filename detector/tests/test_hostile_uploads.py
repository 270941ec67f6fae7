"""Hundreds of hostile uploads, sent through the application with the model that ships, in a process of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LEAST_CASES = 500
MOST_CPU_S = 2.0
MOST_MEMORY_MB = 300.0
TIMEOUT_S = 1200

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(sys.platform != "linux", reason="measures memory in /proc"),
]


@pytest.fixture(scope="module")
def results() -> list[dict[str, Any]]:
    """What became of each case, and what it cost."""
    done = subprocess.run(
        [sys.executable, "-m", "detector.tests.hostile.gauntlet"],
        cwd=ROOT,
        env={**os.environ, "DEBUG": "false", "DATABASE_URL": "sqlite://:memory:", "LOG_LEVEL": "CRITICAL"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"It ended after {lines[-1:]}: {done.stderr[-3000:]}"
    return [json.loads(line) for line in lines]


def test_there_are_as_many_cases_as_promised_and_each_has_a_name(results: list[dict[str, Any]]) -> None:
    assert len({result["name"] for result in results}) == len(results) >= LEAST_CASES


def test_none_breaks_the_server(results: list[dict[str, Any]]) -> None:
    assert [(result["name"], result["status"]) for result in results if result["status"] >= 500] == []


def test_what_is_broken_is_refused_and_leaves_nothing(results: list[dict[str, Any]]) -> None:
    refused = [result for result in results if result["outcome"] == "refused"]
    assert len(refused) > 300
    let_in = [
        (result["name"], result["status"], result["verdicts"], result["files"])
        for result in refused
        if result["status"] not in (400, 403, 413) or result["rows"] or result["files"]
    ]
    assert let_in == []


def test_what_is_odd_but_whole_is_judged(results: list[dict[str, Any]]) -> None:
    """So that nothing is refused merely because of what it carries."""
    accepted = [result for result in results if result["outcome"] == "accepted"]
    assert len(accepted) > 100
    turned_away = [(each["name"], each["status"]) for each in accepted if (each["status"], each["rows"]) != (302, 1)]
    assert turned_away == []


def test_a_refusal_and_a_row_exclude_each_other(results: list[dict[str, Any]]) -> None:
    for result in results:
        assert (result["status"] == 302) == (result["rows"] == 1), result
        assert len(result["files"]) == 2 * result["rows"], result


def test_what_is_shown_of_them_is_encoded_anew_and_inert(results: list[dict[str, Any]]) -> None:
    assert [(result["name"], result["faults"]) for result in results if result["faults"]] == []


def test_none_takes_much_time(results: list[dict[str, Any]]) -> None:
    assert [(result["name"], result["cpu_s"]) for result in results if result["cpu_s"] > MOST_CPU_S] == []


def test_none_takes_much_memory(results: list[dict[str, Any]]) -> None:
    assert [(result["name"], result["peak_mb"]) for result in results if result["peak_mb"] > MOST_MEMORY_MB] == []
