import json
import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from detector import services
from detector.exceptions import AnalysisFailed, InvalidImage, ModelUnavailable
from detector.images import decode_image
from detector.logs import in_one_line
from detector.predictor import DecisionRule, Prediction, Predictor, Verdict, is_face_uncertain
from detector.provenance import Declaration, ai_declaration
from detector.templatetags.display import PERCENT, megabytes, percent_by

WORDS = {"real": "Real", "fake": "Fake"}


class Command(BaseCommand):
    help = (
        "Judge pictures and print one line for each. Folders are searched through, hidden files left out; everything "
        "else in them counts as a picture. Nothing is stored. Exits with 1 if any picture could not be judged; a "
        "picture without a face is not a failure."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("paths", nargs="+", metavar="PATH", type=Path, help="a picture, or a folder of pictures")
        parser.add_argument("--json", action="store_true", help="print one JSON object a line")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            predictor = services.active_predictor()
        except ModelUnavailable as error:
            raise CommandError(f"No verdict can be given: {error}") from error
        rule = services.active_rule()
        counts = {"done": 0, "no_face": 0, "error": 0}
        paths = [path for given in options["paths"] for path in _pictures(given)]
        # Shown on a terminal only (disable=None), on standard error.
        for path in tqdm(paths, disable=None, leave=False, unit="picture", file=sys.stderr):
            record = judge(path, predictor, rule)
            counts[record["status"]] += 1
            with tqdm.external_write_mode(file=sys.stderr):
                self.stdout.write(json.dumps(record) if options["json"] else describe(record))
        self.stderr.write(
            f"{len(paths)} picture{'' if len(paths) == 1 else 's'}: {counts['done']} judged, "
            f"{counts['no_face']} without a face, {counts['error']} failed",
            # Not in the red of an error.
            style_func=str,
        )
        if counts["error"]:
            sys.exit(1)


def judge(path: Path, predictor: Predictor, rule: DecisionRule) -> dict[str, Any]:
    """What there is to say about one file, an error included."""
    record: dict[str, Any] = {
        "path": str(path),
        "status": "error",
        "verdict": None,
        "is_uncertain": None,
        "fake_probability": None,
        "real_probability": None,
        "threshold": rule.real_threshold,
        "uncertain_above": rule.uncertain_above,
        "uncertain_up_to": rule.uncertain_up_to,
        "faces": [],
        "unjudged_faces": 0,
        "ai_declaration": None,
        "model_version": predictor.version,
        "error": None,
    }
    try:
        image = decode_image(_read(path), max_bytes=settings.MAX_UPLOAD_BYTES, max_pixels=settings.MAX_UPLOAD_PIXELS)
        record["ai_declaration"] = ai_declaration(image.data, image.format)
        prediction = predictor.predict(image, rule=rule, max_faces=settings.MAX_FACES)
    except (InvalidImage, AnalysisFailed) as error:
        return record | {"error": str(error)}
    except OSError as error:
        return record | {"error": f"The file could not be read: {error.strerror or error}."}
    return record | _result(prediction, rule)


def _result(prediction: Prediction, rule: DecisionRule) -> dict[str, Any]:
    if prediction.verdict is Verdict.NOT_APPLICABLE:
        return {"status": "no_face", "model_version": prediction.model_version}
    return {
        "status": "done",
        "verdict": prediction.verdict.value,
        "is_uncertain": prediction.is_uncertain,
        "uncertain_above": prediction.rule.uncertain_above,
        "uncertain_up_to": prediction.rule.uncertain_up_to,
        "fake_probability": prediction.fake_probability,
        "real_probability": prediction.real_probability,
        "faces": [
            {
                "box": list(face.bbox),
                "fake_probability": face.fake_probability,
                "is_uncertain": is_face_uncertain(face, rule),
            }
            for face in prediction.faces
        ],
        "unjudged_faces": prediction.unjudged_faces,
        "model_version": prediction.model_version,
    }


def describe(record: dict[str, Any]) -> str:
    # A file name may hold line breaks, or bytes that are no text and that no terminal takes.
    path = in_one_line(record["path"])
    if record["status"] == "error":
        return f"{path}: error: {record['error']}"
    says_nothing = record["ai_declaration"] == Declaration.NONE
    said = "" if says_nothing else " (the file says that AI made it, or parts of it)"
    if record["status"] == "no_face":
        return f"{path}: no face found, so no verdict{said}"
    found = len(record["faces"]) + record["unjudged_faces"]
    judged = f"{len(record['faces'])} of " if record["unjudged_faces"] else ""
    verdict = WORDS[record["verdict"]] + (", uncertain" if record["is_uncertain"] else "")
    rule = DecisionRule(record["threshold"], record["uncertain_above"], record["uncertain_up_to"])
    real = percent_by(record["real_probability"], rule).replace(PERCENT, "%")
    faces = f"{judged}{found} face{'' if found == 1 else 's'}"
    return f"{path}: {verdict}, {real} real ({faces}){said}"


def _read(path: Path) -> bytes:
    limit = settings.MAX_UPLOAD_BYTES
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        # Said here, because decode_image() would take the part that was read for the whole file.
        raise InvalidImage(f"The file is too large; at most {megabytes(limit)} are accepted.", code="too_large")
    return data


def _pictures(given: Path) -> Iterator[Path]:
    """The path itself, or every file below it in a steady order. Links to folders are not followed into circles.

    A folder that cannot be searched is one of them: to read it fails for the same reason, which is then told.
    """
    if not given.is_dir():
        yield given
        return
    closed: list[OSError] = []
    for folder, subfolders, names in os.walk(given, onerror=closed.append):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        files = (Path(folder) / name for name in sorted(names) if not name.startswith("."))
        yield from (file for file in files if file.is_file())
    yield from (Path(error.filename) for error in closed)
