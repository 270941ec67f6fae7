import errno
import io
import json
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from detector import services
from detector.exceptions import AnalysisFailed, ModelUnavailable
from detector.management.commands.detect import Command
from detector.tests.factories import FakePredictor, make_jpeg, make_picture

ROOT = Path(__file__).parents[2]


def detect(*paths: Path, json: bool = False) -> tuple[list[str], str, int]:
    """The lines on standard output, standard error, and the exit code."""
    stdout, stderr = io.StringIO(), io.StringIO()
    try:
        call_command("detect", *map(str, paths), json=json, stdout=stdout, stderr=stderr)
    except SystemExit as end:
        return stdout.getvalue().splitlines(), stderr.getvalue(), int(str(end.code))
    return stdout.getvalue().splitlines(), stderr.getvalue(), 0


def records(*paths: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in detect(*paths, json=True)[0]]


def write(path: Path, data: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(make_jpeg() if data is None else data)
    return path


@pytest.mark.parametrize(
    ("fake_probabilities", "line"),
    [
        ((0.1,), "Real, 90.0% real (1 face)"),
        ((0.9, 0.2), "Fake, 10.0% real (2 faces)"),
        ((0.5,), "Fake, uncertain, 50.0% real (1 face)"),
        ((0.0001,), "Real, over 99.9% real (1 face)"),
        ((0.29996,), "Real, 70.004% real (1 face)"),
        ((0.9,) * 23, "Fake, 10.0% real (20 of 23 faces)"),
        ((), "no face found, so no verdict"),
    ],
)
def test_each_picture_gets_a_line(
    predictor: FakePredictor, tmp_path: Path, fake_probabilities: tuple[float, ...], line: str
) -> None:
    predictor.fake_probabilities = fake_probabilities
    picture = write(tmp_path / "a.jpg")
    lines, summary, code = detect(picture)
    assert lines == [f"{picture}: {line}"]
    assert summary.startswith("1 picture: ")
    assert code == 0


@pytest.mark.parametrize("fake_probabilities", [(0.1,), ()])
@pytest.mark.parametrize("is_picture", [True, False])
def test_a_name_that_is_no_text_gets_its_line(
    predictor: FakePredictor, tmp_path: Path, fake_probabilities: tuple[float, ...], is_picture: bool
) -> None:
    predictor.fake_probabilities = fake_probabilities
    write(Path(os.fsdecode(bytes(tmp_path / "pictures") + b"/a\n\xff.jpg")), make_jpeg() if is_picture else b"none")
    lines, _, _ = detect(tmp_path / "pictures")
    assert [line.encode().decode().partition(": ")[0] for line in lines] == [f"{tmp_path}/pictures/a\\n\\udcff.jpg"]


@pytest.mark.parametrize(
    ("fake_probabilities", "start"), [((0.1,), "Real, 90.0% real (1 face)"), ((), "no face found, so no verdict")]
)
def test_what_a_file_says_of_itself_is_told(
    predictor: FakePredictor, tmp_path: Path, fake_probabilities: tuple[float, ...], start: str
) -> None:
    predictor.fake_probabilities = fake_probabilities
    picture = write(tmp_path / "a.jpg", make_jpeg(xmp=b'DigitalSourceType="trainedAlgorithmicMedia"'))
    lines, _, _ = detect(picture)
    assert lines == [f"{picture}: {start} (the file says that AI made it, or parts of it)"]
    assert records(picture)[0]["ai_declaration"] == "iptc"


def test_json_says_everything_about_a_judged_picture(predictor: FakePredictor, tmp_path: Path) -> None:
    predictor.fake_probabilities = (0.75, 0.25)
    picture = write(tmp_path / "a.png", make_picture(file_format="PNG"))
    assert records(picture) == [
        {
            "path": str(picture),
            "status": "done",
            "verdict": "fake",
            "is_uncertain": False,
            "fake_probability": 0.75,
            "real_probability": 0.25,
            "threshold": 0.7,
            "uncertain_above": 0.3,
            "uncertain_up_to": 0.7,
            "faces": [
                {"box": [100, 60, 80, 80], "fake_probability": 0.75, "is_uncertain": False},
                {"box": [140, 60, 80, 80], "fake_probability": 0.25, "is_uncertain": False},
            ],
            "unjudged_faces": 0,
            "ai_declaration": "none",
            "model_version": "test-1",
            "error": None,
        }
    ]


def test_json_says_of_each_face_whether_it_is_decided(predictor: FakePredictor, tmp_path: Path) -> None:
    predictor.fake_probabilities = (0.875, 0.5, 0.125)
    record = records(write(tmp_path / "a.jpg"))[0]
    assert record["is_uncertain"] is False
    assert [face["is_uncertain"] for face in record["faces"]] == [False, True, False]


def test_json_makes_nothing_up_without_a_face(predictor: FakePredictor, tmp_path: Path) -> None:
    predictor.fake_probabilities = ()
    picture = write(tmp_path / "a.jpg")
    assert records(picture) == [
        {
            "path": str(picture),
            "status": "no_face",
            "verdict": None,
            "is_uncertain": None,
            "fake_probability": None,
            "real_probability": None,
            "threshold": 0.7,
            "uncertain_above": 0.3,
            "uncertain_up_to": 0.7,
            "faces": [],
            "unjudged_faces": 0,
            "ai_declaration": "none",
            "model_version": "test-1",
            "error": None,
        }
    ]


@pytest.mark.parametrize(
    ("fake_probability", "verdict", "is_uncertain"),
    [(0.95, "fake", False), (0.5, "fake", True), (0.25, "real", True), (0.125, "real", False)],
)
def test_json_says_what_is_uncertain_and_by_which_rule(
    predictor: FakePredictor,
    tmp_path: Path,
    settings: Settings,
    fake_probability: float,
    verdict: str,
    is_uncertain: bool,
) -> None:
    settings.UNCERTAIN_ABOVE, settings.UNCERTAIN_UP_TO = 0.125, 0.8
    predictor.fake_probabilities = (fake_probability,)
    (record,) = records(write(tmp_path / "a.jpg"))
    assert (record["verdict"], record["is_uncertain"]) == (verdict, is_uncertain)
    assert (record["threshold"], record["uncertain_above"], record["uncertain_up_to"]) == (0.7, 0.125, 0.8)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "The file is empty."),
        (b"hello", "This is not a JPEG, PNG or WebP picture."),
        (make_jpeg()[:-300], "The picture is damaged or incomplete"),
    ],
)
def test_a_bad_file_is_one_line_and_the_rest_is_judged(
    predictor: FakePredictor, tmp_path: Path, data: bytes, sentence: str
) -> None:
    bad, good = write(tmp_path / "1.jpg", data), write(tmp_path / "2.jpg")
    first, second = records(bad, good)
    assert (first["status"], first["verdict"], first["fake_probability"]) == ("error", None, None)
    assert first["error"].startswith(sentence)
    assert second["status"] == "done"
    lines, summary, code = detect(bad, good)
    assert lines[0].startswith(f"{bad}: error: {sentence}")
    assert summary == "2 pictures: 1 judged, 0 without a face, 1 failed\n"
    assert code == 1


def test_a_path_that_does_not_exist_is_an_error(predictor: FakePredictor, tmp_path: Path) -> None:
    (record,) = records(tmp_path / "absent.jpg")
    assert record["error"] == "The file could not be read: No such file or directory."
    assert detect(tmp_path / "absent.jpg")[2] == 1


@pytest.mark.parametrize("closed", ["photos", "photos/inner"])
def test_a_folder_that_cannot_be_searched_is_an_error(
    predictor: FakePredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    """Patched, since whoever runs the suite may be root, to whom none is closed."""
    write(tmp_path / "photos" / "inner" / "a.jpg")
    scandir = os.scandir

    def refuse(path: Any = ".") -> Any:
        if Path(path) == tmp_path / closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        lines, summary, code = detect(tmp_path / "photos")
    (line,) = lines
    assert line.startswith(f"{tmp_path / closed}: error: The file could not be read: ")
    assert (summary, code) == ("1 picture: 0 judged, 0 without a face, 1 failed\n", 1)


def test_a_file_over_the_limit_is_not_read_to_its_end(
    predictor: FakePredictor, tmp_path: Path, settings: Settings
) -> None:
    settings.MAX_UPLOAD_BYTES = 1024**2
    huge = tmp_path / "huge.jpg"
    with huge.open("wb") as file:
        file.truncate(10**12)  # takes no space on the disk
    assert records(huge)[0]["error"] == "The file is too large; at most 1 MB are accepted."


def test_a_broken_analysis_is_an_error_of_that_picture(predictor: FakePredictor, tmp_path: Path) -> None:
    predictor.error = AnalysisFailed("The network returned something that is not a probability.")
    (record,) = records(write(tmp_path / "a.jpg"))
    assert (record["status"], record["fake_probability"]) == ("error", None)
    assert record["error"] == "The network returned something that is not a probability."


def test_folders_are_searched_in_order_and_hidden_files_left_out(predictor: FakePredictor, tmp_path: Path) -> None:
    for name in ("b.jpg", "a.jpg", "deep/er/c.jpg", ".hidden.jpg", ".thumbnails/d.jpg"):
        write(tmp_path / "photos" / name)
    write(tmp_path / "photos" / "notes.txt", b"not a picture")
    (tmp_path / "photos" / "round").symlink_to(tmp_path / "photos", target_is_directory=True)
    found = [(Path(record["path"]).name, record["status"]) for record in records(tmp_path / "photos")]
    assert found == [("a.jpg", "done"), ("b.jpg", "done"), ("notes.txt", "error"), ("c.jpg", "done")]


def test_an_empty_folder_is_said_to_be_empty(predictor: FakePredictor, tmp_path: Path) -> None:
    assert detect(tmp_path) == ([], "0 pictures: 0 judged, 0 without a face, 0 failed\n", 0)


def test_the_settings_threshold_decides(predictor: FakePredictor, tmp_path: Path, settings: Settings) -> None:
    predictor.fake_probabilities = (0.25,)
    picture = write(tmp_path / "a.jpg")
    assert records(picture)[0]["verdict"] == "real"
    settings.REAL_THRESHOLD = 0.8
    assert records(picture)[0]["verdict"] == "fake"


def test_without_a_model_nothing_is_judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent() -> None:
        raise ModelUnavailable("The model's spec can't be read.")

    monkeypatch.setattr(services, "active_predictor", absent)
    with pytest.raises(CommandError, match="No verdict can be given: The model's spec"):
        detect(write(tmp_path / "a.jpg"))


def test_its_help_says_that_nothing_is_stored() -> None:
    assert "Nothing is stored" in Command.help


@pytest.mark.model
def test_with_the_shipped_model_from_the_shell(tmp_path: Path) -> None:
    """No bar where there is no terminal, one JSON object a line, and an exit code for scripts."""
    good, bad = write(tmp_path / "1.jpg"), write(tmp_path / "2.jpg", b"no picture")
    ended = subprocess.run(
        [sys.executable, "manage.py", "detect", str(tmp_path), "--json"],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
    )
    first, second = (json.loads(line) for line in ended.stdout.splitlines())
    assert (first["path"], first["status"]) == (str(good), "no_face")
    assert (second["path"], second["status"]) == (str(bad), "error")
    assert ended.returncode == 1
    # LiteRT may put a line of its own before it.
    assert ended.stderr.endswith("2 pictures: 0 judged, 1 without a face, 1 failed\n")
    assert "%|" not in ended.stderr


@pytest.mark.model
def test_a_reader_that_has_seen_enough_is_no_fault(tmp_path: Path) -> None:
    """Such as `| head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "manage.py", "detect", str(write(tmp_path / "1.jpg"))]
    ended = subprocess.run(command, cwd=ROOT, env=dict(os.environ), stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert ended.returncode == 1
    assert b"Broken" not in ended.stderr


@pytest.mark.model
def test_a_terminal_shows_a_progress_bar_and_standard_output_stays_clean(tmp_path: Path) -> None:
    picture = write(tmp_path / "1.jpg")
    terminal, end = pty.openpty()
    try:
        termios.tcsetwinsize(end, (40, 100))
        ended = subprocess.run(
            [sys.executable, "manage.py", "detect", str(tmp_path)],
            cwd=ROOT,
            env=dict(os.environ),
            stdout=subprocess.PIPE,
            stderr=end,
            text=True,
            timeout=60,
        )
        shown = os.read(terminal, 100_000).decode(errors="replace")
    finally:
        os.close(terminal)
        os.close(end)
    assert ended.returncode == 0
    assert ended.stdout == f"{picture}: no face found, so no verdict\n"
    assert "0/1 [" in shown
    assert "1 picture: 0 judged, 1 without a face, 0 failed" in shown
