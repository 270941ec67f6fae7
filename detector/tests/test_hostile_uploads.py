"""Hundreds of hostile uploads, sent through the application with the model that ships, in a process of their own."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
LEAST_CASES = 500
MOST_CPU_S = 2.0
# On a slow machine: so many times what Pillow takes there to read an ordinary picture of 50 megapixels.
MOST_ORDINARY_PICTURES = 10
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


def ordinary_picture_s() -> float:
    """CPU time, in s, that Pillow takes to read a plain PNG of 50 megapixels here; the least of three."""
    file, taken = io.BytesIO(), []
    Image.new("RGB", (8192, 6100), "beige").save(file, "PNG", compress_level=1)
    for _ in range(3):
        started = time.process_time()
        with Image.open(file) as image:
            image.load()
        taken.append(time.process_time() - started)
        file.seek(0)
    return min(taken)


def test_none_takes_much_time(results: list[dict[str, Any]]) -> None:
    most = max(MOST_CPU_S, MOST_ORDINARY_PICTURES * ordinary_picture_s())
    assert [(result["name"], result["cpu_s"]) for result in results if result["cpu_s"] > most] == []


def test_none_takes_much_memory(results: list[dict[str, Any]]) -> None:
    assert [(result["name"], result["peak_mb"]) for result in results if result["peak_mb"] > MOST_MEMORY_MB] == []
