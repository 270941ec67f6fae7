"""Runs training's modules and small scripts in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_module(*arguments: str, **environment: str) -> str:
    """Runs `python -m ...` in its own process: TensorFlow stays out of the suite's, and its warnings too."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"} | environment
    result = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def run_script(folder: Path, text: str, *arguments: str) -> list[str]:
    """The lines that such a script prints, in its own process likewise."""
    script = folder / "script.py"
    script.write_text(text)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
