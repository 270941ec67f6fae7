"""Detections and reviews as CSV and JSON, and reviewed pictures as a folder to train from."""

import csv
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db.models import Model, QuerySet
from PIL import Image

from detector.exceptions import InvalidImage
from detector.images import DISPLAY_SIDE, decode_again, encode_jpeg
from detector.models import HASH_BANDS, Detection, DetectionQuerySet, Review, ReviewVerdict
from detector.preprocessing import scaled_sides
from detector.similarity import NEAR_DISTANCE, distance, from_bands, is_telling

# Nothing about whose an upload is: an export leaves the house.
DETECTION_COLUMNS = [
    "id",
    "created_at",
    "original_name",
    "sha256",
    "perceptual_hash_text",
    "format",
    "width",
    "height",
    "byte_count",
    "ai_declaration",
    "status",
    "verdict",
    "is_uncertain",
    "fake_probability",
    "real_probability",  # what the threshold and the band are about
    "threshold",
    "uncertain_above",
    "uncertain_up_to",
    "unjudged_faces",
    "model_version",
    "error_code",
    "is_sampled",
    "sample_percent",
    "appealed_at",
    "appeal_text",
    "review_verdict",
    "review_count",
    "reviewed_at",
    "picture_removed_at",
]
REVIEW_COLUMNS = [
    "detection_key",
    "ordinal",
    "reviewer_key",
    "verdict",
    "note",
    "is_blind",
    "seconds_spent",
    "created_at",
    "machine_verdict",
    "is_uncertain",
    "fake_probability",
    "real_probability",
    "threshold",
    "uncertain_above",
    "uncertain_up_to",
    "model_version",
    "is_sampled",
    "sample_percent",
]
COLUMNS: dict[type[Model], list[str]] = {Detection: DETECTION_COLUMNS, Review: REVIEW_COLUMNS}
CHUNK_ROWS = 1000
# Before a CSV that a person downloads: without it Excel takes UTF-8 for the code page of the country. What commands
# print goes to programs, most of which would take it for part of the first heading.
BYTE_ORDER_MARK = "\ufeff"

# With one of these in front a spreadsheet takes a text for a formula, full-width ones included (OWASP, CSV injection).
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
# Where the list separator is a semicolon, as in many countries, a spreadsheet ends a cell at each, and at a line's end,
# whatever commas and quotation marks say.
CELL_STARTS = re.compile(r"""(?<=[;\t\r\n])(?=[ "]*[=+\-@＝＋－＠])""")

MANIFEST_COLUMNS = [
    *("path", "split", "label", "source", "generator", "group", "width", "height"),
    *("face_x", "face_y", "face_w", "face_h", "face_score", "stratum", "queued_percent"),
]
LABELS = {ReviewVerdict.REAL: "0_real", ReviewVerdict.FAKE: "1_fake"}
JPEG_QUALITY = 92
GROUP_FIELDS = ["created_at", "pk", "status", "sha256", *HASH_BANDS]


def neutral(text: str) -> str:
    """The text as a spreadsheet may open it: an apostrophe is before whatever would be a formula there."""
    text = CELL_STARTS.sub("'", text)
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA_STARTS) else text


class _Echo:
    """A file that hands every line straight back to its writer."""

    def write(self, text: str) -> str:
        return text


def csv_lines(queryset: "QuerySet[Any]") -> Iterator[str]:
    """The heading and one line per row; text that came from people is neutralised, figures are left alone."""
    columns = COLUMNS[queryset.model]
    writer = csv.writer(_Echo())
    yield str(writer.writerow(columns))
    for row in queryset.iterator(CHUNK_ROWS):
        yield str(writer.writerow([_cell(getattr(row, column)) for column in columns]))


def json_lines(queryset: "QuerySet[Any]") -> Iterator[str]:
    """One array of objects, a row per line."""
    columns = COLUMNS[queryset.model]
    separator = "[\n"
    for row in queryset.iterator(CHUNK_ROWS):
        yield separator + json.dumps({column: _value(getattr(row, column)) for column in columns}, ensure_ascii=False)
        separator = ",\n"
    yield "\n]\n" if separator.startswith(",") else "[]\n"


FORMATS: dict[str, tuple[Callable[["QuerySet[Any]"], Iterator[str]], str]] = {
    "csv": (csv_lines, "text/csv; charset=utf-8"),
    "json": (json_lines, "application/json"),
}


def _cell(value: Any) -> Any:
    value = _value(value)
    return neutral(value) if isinstance(value, str) else value


def _value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


def dataset_write(folder: Path, *, progress: Callable[[Iterable[Any]], Iterable[Any]] = iter) -> dict[str, int]:
    """The number of pictures written per label, and of them under "uncertain" that of uncertain answers.

    Not written are, counted under "skipped", those whose file is missing or broken, and under "several_faces" those
    called fake with more than one face: no review says which one is meant, and a real face would be taught as fake.

    Writes what people have called real or fake as `0_real/` and `1_fake/` with the manifest.csv that training reads.
    Pictures are encoded anew, so nothing but pixels leaves, for this user's eyes alone; those that look alike share a
    group and hence a split. `_split` says how far a later export keeps to it. What is reviewed is no fair sample of
    the uploads, so the manifest has the answer's stratum, and how many in a hundred of it were queued for review
    whatever they show; 0 where the picture came to review in another way.

    Raises:
        OSError: The folder cannot be written to, or no more.
    """
    reviewed = _reviewed_pictures()
    groups = _groups(reviewed)
    counts = dict.fromkeys([*LABELS.values(), "uncertain", "skipped", "several_faces"], 0)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for label in LABELS.values():
        (folder / label).mkdir(mode=0o700, exist_ok=True)
    with open(folder / "manifest.csv", "w", newline="", encoding="utf-8", opener=_private) as file:
        manifest = csv.DictWriter(file, MANIFEST_COLUMNS)
        manifest.writeheader()
        for detection in progress(reviewed.iterator(CHUNK_ROWS)):
            if detection.pk not in groups:
                continue  # reviewed since the groups were made
            if detection.review_verdict == ReviewVerdict.FAKE and len(detection.faces) + detection.unjudged_faces > 1:
                counts["several_faces"] += 1
                continue
            try:
                picture = _read_picture(detection)
            except (OSError, InvalidImage):
                counts["skipped"] += 1
            else:
                row = _write_picture(folder, detection, picture, groups[detection.pk])
                manifest.writerow(row)
                counts[row["label"]] += 1
                counts["uncertain"] += detection.is_uncertain
    return counts


def _private(path: str, flags: int) -> int:
    """Opens for this user alone, as the uploads themselves are."""
    return os.open(path, flags, 0o600)


def _reviewed_pictures() -> DetectionQuerySet:
    """Those with a face to learn from; where people disagree or doubt there is nothing to teach."""
    judged = Detection.objects.filter(status=Detection.Status.DONE, review_verdict__in=list(LABELS))
    return judged.exclude(image="").order_by("created_at", "pk")


def _read_picture(detection: Detection) -> Image.Image:
    with detection.image.open("rb") as file:
        data = file.read()
    return decode_again(data, pixel_count=detection.width * detection.height, least_side=DISPLAY_SIDE).picture


def _write_picture(folder: Path, detection: Detection, picture: Image.Image, group: str) -> dict[str, Any]:
    label = LABELS[ReviewVerdict(detection.review_verdict)]
    path = f"{label}/{detection.pk}.jpg"
    with open(folder / path, "wb", opener=_private) as file:
        file.write(encode_jpeg(picture, quality=JPEG_QUALITY))
    width, height = picture.size
    face = detection.faces[0]
    sides = scaled_sides(face["bbox"], width / detection.width, height / detection.height)
    x, y, face_width, face_height = (round(side, 1) for side in sides)
    return {
        "path": path,
        "split": _split(group),
        "label": label,
        "source": "reviewed",
        "generator": "photo" if label == "0_real" else "unknown",
        "group": group,
        "width": width,
        "height": height,
        "face_x": x,
        "face_y": y,
        "face_w": face_width,
        "face_h": face_height,
        "face_score": face["detection_score"],
        "stratum": detection.answer,
        "queued_percent": _queued_percent(detection),
    }


def _queued_percent(detection: Detection) -> float:
    if detection.is_uncertain:
        return 100.0
    return detection.sample_percent if detection.is_sampled else 0.0


def _split(group: str) -> str:
    """By the group alone, 80, 10 and 10 percent, so a picture stays in its split for as long as its group has its name.

    That is so whatever is reviewed or purged between two exports. It may change when the oldest of the group is
    deleted, when `hash_uploads` fills in a hash, and when a new upload is near to two groups: then both are named after
    the older one.
    """
    place = int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) % 10
    return {8: "val", 9: "test"}.get(place, "train")


def _groups(reviewed: DetectionQuerySet) -> dict[UUID, str]:
    """A group name for each key; the same file and near pictures, also over several steps, have one name.

    It is that of the oldest of all such uploads with a face, reviewed or not: were it that of the oldest reviewed one,
    a review of an older one would change it.
    """
    rows = list(reviewed.values_list("pk", "sha256", *HASH_BANDS))
    names: dict[UUID, str] = {}
    for pk, sha256, *bands in rows:
        if pk not in names:
            alike = _alike(sha256, _hash_value(bands))
            _, oldest, file = min(alike, default=(None, pk, sha256))
            name = (file or oldest.hex)[:12]
            names |= {pk: name, **{member: name for _, member, _ in alike}}
    return {pk: names[pk] for pk, *_ in rows}


def _alike(sha256: str, value: int | None) -> set[tuple[datetime, UUID, str]]:
    """Time, key and SHA-256 of the uploads of that file and those near it, and near those, and so on.

    Each hash is asked for once, and each file: a picture that is here a thousand times, saved anew each time, has few
    hashes.
    """
    found: set[tuple[datetime, UUID, str]] = set()
    files, hashes = {sha256} - {""}, set() if value is None else {value}
    new_files, new_hashes = set(files), set(hashes)
    while new_files or new_hashes:
        rows = _rows_of(sorted(new_files))
        for near in new_hashes:
            maybe = Detection.objects.order_by().near_hash(near).values_list(*GROUP_FIELDS)
            rows += [row for row in maybe.iterator(CHUNK_ROWS) if _is_near(near, _hash_value(row[4:]))]
        # The status is not asked for: SQLite would read all of the same status by its index.
        judged = [row for row in rows if row[2] == Detection.Status.DONE]
        found |= {(row[0], row[1], row[3]) for row in judged}
        new_files = {row[3] for row in judged} - {""} - files
        new_hashes = {other for row in judged if (other := _hash_value(row[4:])) is not None} - hashes
        files |= new_files
        hashes |= new_hashes
    return found


def _rows_of(files: list[str]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for start in range(0, len(files), CHUNK_ROWS):
        some = Detection.objects.order_by().filter(sha256__in=files[start : start + CHUNK_ROWS])
        rows += some.values_list(*GROUP_FIELDS)
    return rows


def _is_near(one: int, other: int | None) -> bool:
    return other is not None and distance(one, other) <= NEAR_DISTANCE


def _hash_value(bands: Sequence[int | None]) -> int | None:
    """The hash, or None where it says too little for two pictures to be taken for alike."""
    first, second, third, fourth = bands
    if first is None or second is None or third is None or fourth is None:
        return None
    value = from_bands((first, second, third, fourth))
    return value if is_telling(value) else None
