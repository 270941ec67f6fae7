"""Files that no row knows are found and removed, and nothing else is."""

import os
import time
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command

from detector import pending
from detector.models import Detection
from detector.tests.factories import make_detection

pytestmark = pytest.mark.django_db

DAY_S = 24 * 3600


def remove(**options: Any) -> list[str]:
    output = StringIO()
    call_command("remove_orphans", stdout=output, stderr=output, **options)
    return output.getvalue().splitlines()


def files(media_root: Path) -> set[str]:
    return {str(path.relative_to(media_root)) for path in media_root.rglob("*") if path.is_file()}


def forget_row(detection: Detection) -> set[str]:
    """Removes the row behind the application's back, as an older database would not know it; returns its files."""
    Detection.objects.filter(pk=detection.pk)._raw_delete("default")
    return {str(detection.image.name), str(detection.thumbnail.name)}


def age(media_root: Path, names: set[str], *, by_s: float = 2 * DAY_S) -> None:
    for name in names:
        then = time.time() - by_s
        os.utime(media_root / name, (then, then))


def test_files_without_a_row_go_and_those_of_rows_stay(media_root: Path) -> None:
    make_detection()
    lost = forget_row(make_detection())
    kept = files(media_root) - lost
    age(media_root, lost | kept)

    lines = remove()

    assert set(lines[:-1]) == lost
    assert lines[-1] == "Removed 2 files that no detection knows."
    assert files(media_root) == kept
    assert len(kept) == 2


def test_a_dry_run_names_them_and_removes_nothing(media_root: Path) -> None:
    lost = forget_row(make_detection())
    age(media_root, lost)

    lines = remove(dry_run=True)

    assert set(lines[:-1]) == lost
    assert lines[-1] == "Would remove 2 files that no detection knows."
    assert files(media_root) == lost


def test_young_files_stay_since_their_row_may_be_about_to_come(media_root: Path) -> None:
    lost = forget_row(make_detection())

    assert remove() == ["Removed 0 files that no detection knows."]
    assert files(media_root) == lost
    age(media_root, lost, by_s=3600)
    assert remove(older_than_hours=0.5)[-1] == "Removed 2 files that no detection knows."


def test_what_is_being_stored_stays_whatever_its_age(media_root: Path) -> None:
    detection = make_detection()
    lost = forget_row(detection)
    pending.note(detection.pk, lost, is_first=True)

    assert remove(older_than_hours=0) == ["Removed 0 files that no detection knows."]
    pending.forget(detection.pk)
    assert remove(older_than_hours=0)[-1] == "Removed 2 files that no detection knows."


def test_what_is_stored_between_the_questions_stays(media_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its note is gone when the notes are listed, which tells that its row is there."""
    detection = make_detection()
    stored = forget_row(detection)

    def no_notes() -> set[UUID]:
        if not Detection.objects.exists():
            detection.save(force_insert=True)
        return set()

    monkeypatch.setattr(pending, "noted", no_notes)
    assert remove(older_than_hours=0) == ["Removed 0 files that no detection knows."]
    assert files(media_root) == stored


def test_what_is_not_named_like_a_picture_of_ours_stays(media_root: Path) -> None:
    place = media_root / "detections/2026/01"
    place.mkdir(parents=True)
    (place / "holiday.jpg").write_bytes(b"not ours")
    age(media_root, {"detections/2026/01/holiday.jpg"})

    assert remove() == ["Removed 0 files that no detection knows."]
    assert (place / "holiday.jpg").is_file()


def test_an_empty_storage_is_fine(media_root: Path) -> None:
    assert remove() == ["Removed 0 files that no detection knows."]


@pytest.mark.parametrize("hours", [-1.0, 1e9, float("inf"), float("nan")])
def test_an_age_that_cannot_be_is_refused(hours: float) -> None:
    with pytest.raises(CommandError, match="0 or more"):
        remove(older_than_hours=hours)


def test_one_that_cannot_be_removed_keeps_no_other(media_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = sorted(forget_row(make_detection()))
    age(media_root, set(lost))
    unlink = os.remove

    def refuse(path: Any, *args: Any, **kwargs: Any) -> None:
        if str(path).endswith(lost[0]):
            raise PermissionError(13, "Permission denied")
        unlink(path, *args, **kwargs)

    monkeypatch.setattr(os, "remove", refuse)
    with pytest.raises(CommandError, match="1 could not be removed"):
        remove()

    assert files(media_root) == {lost[0]}
