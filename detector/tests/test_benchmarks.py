"""Every benchmark runs to its end at its smallest size; what its figures are is for quiet machines to say."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import soak
from detector.predictor import get_predictor

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]
NUMBER = r"-?\d+(?:\.\d+)?"


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def figures(output: str, heading: str) -> dict[str, list[float]]:
    """The rows of the table under that heading: their names and the numbers behind them."""
    table = output.partition(heading)[2].partition("\n\n")[0]
    rows = re.findall(rf"^(\S.*?)\s{{2,}}({NUMBER}(?:\s+{NUMBER})+)", table, flags=re.MULTILINE)
    return {name: [float(each) for each in numbers.split()] for name, numbers in rows}


@pytest.mark.model
@pytest.mark.training
def test_predictor_benchmark_prints_every_path_and_stage() -> None:
    output = run("benchmarks.predictor", "--rounds", "1", "--sizes", "1")

    paths = figures(output, "One face through the network")
    assert len(paths) == 6 + (get_predictor(ROOT / "models/mobilenet_v2").spec.second_opinion is not None)
    for file_format in ("JPEG", "PNG"):
        stages = figures(output, f"1 MP {file_format}")
        assert {"decode", "faces", "crop", "network", "detect"} <= set(stages)
        assert {"heat map", "database row", "stored files, with their note", "detect and store"} <= set(stages)
        for name, (wall_ms, _, *ratios) in stages.items():
            assert wall_ms > 0, name
            assert len(ratios) == 2, name
        assert stages["detect and store"][1] > stages["network"][1]


@pytest.mark.model
@pytest.mark.redis
@pytest.mark.training
def test_web_benchmark_compares_both_sites_and_prints_the_bars() -> None:
    output = run("benchmarks.web", "--quick")

    for clients in (1, 2):
        rows = figures(output, f"1 MP JPEG, 0.1 MB, {clients} client(s)")
        assert len(rows) == (5 if clients == 1 else 3), output
        for name, (n, failed, p50_ms, _, _, cpu_ms, *_) in rows.items():
            assert n >= 2, name
            assert failed == 0, output
            assert p50_ms > 0
            assert cpu_ms >= 0
    bars = output.partition("\nBars")[2]
    assert len(re.findall(rf"at (?:least|most) +{NUMBER} +{NUMBER}  (?:yes|NO)$", bars, flags=re.MULTILINE)) == 7


def test_review_benchmark_prints_every_page() -> None:
    output = run("benchmarks.review_scale", "--database", "sqlite", "--calls", "1", "--sizes", "1000")
    pages = figures(output, "1,000 detections")
    assert len(pages) == 16, output
    for name, (_, cpu_ms, first_ms, queries) in pages.items():
        assert cpu_ms > 0, name
        assert first_ms > 0, name
        assert queries > 0, name


@pytest.mark.model
@pytest.mark.redis
def test_a_short_soak_ends_without_growth() -> None:
    output = run("benchmarks.soak", "--short")
    assert re.search(r"PSS after the first minute [\d.]+ MB, at the end [\d.]+ MB: x [\d.]+", output), output


def test_a_soak_tells_a_leak_from_noise() -> None:
    answers = Counter({200: 60, 302: 40, 400: 5})
    noise = [250.0 + 8 * (number % 3) for number in range(20)]
    soak.report(noise, soak.SHORT_MINUTES, answers, soak.SHORT_GROWTH, Counter())

    leaking = [250 + 12.0 * number for number in range(20)]  # a 1-megapixel picture a second
    with pytest.raises(SystemExit, match="Not as wanted"):
        soak.report(leaking, soak.SHORT_MINUTES, answers, soak.SHORT_GROWTH, Counter())
    with pytest.raises(SystemExit, match="503"):
        soak.report(noise, soak.SHORT_MINUTES, answers + Counter({503: 1}), soak.SHORT_GROWTH, Counter())
