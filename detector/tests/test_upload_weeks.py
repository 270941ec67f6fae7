"""The weekly figures of the quality page: kept once a week is over, counted again after a deletion."""

from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from detector import services, upload_weeks
from detector.models import Detection, UploadWeek
from detector.tests.factories import make_detection

pytestmark = pytest.mark.django_db


def sizes() -> list[int]:
    return [week["n"] for week in upload_weeks.weeks_since(None)]


def test_past_weeks_are_kept_and_the_current_one_is_counted_anew() -> None:
    old = make_detection(0.9, created_at=timezone.now() - timedelta(weeks=3))
    make_detection(0.9)
    assert sizes() == [1, 1]
    assert UploadWeek.objects.filter(start=upload_weeks.week_start(old.created_at)).exists()
    assert not UploadWeek.objects.filter(start=upload_weeks.week_start(timezone.now())).exists()
    make_detection(0.1)
    with CaptureQueriesContext(connection) as captured:
        assert sizes() == [1, 2]
    assert "INSERT" not in str(captured.captured_queries)


def test_what_is_kept_is_what_was_counted() -> None:
    for score in (0.05, 0.25, 0.5, 0.95, 1.0):
        make_detection(score, uncertain_up_to=0.9, created_at=timezone.now() - timedelta(weeks=2))
    make_detection(no_face=True, created_at=timezone.now() - timedelta(weeks=2))
    counted, kept = upload_weeks.weeks_since(None), upload_weeks.weeks_since(None)
    assert counted == kept
    counts = [(week["n"], week["real"], week["uncertain_real"], week["uncertain_fake"]) for week in kept]
    assert counts == [(5, 2, 1, 1)]
    assert kept[0]["mean"] == pytest.approx(0.55)
    assert kept[0]["bins"] == [1, 0, 1, 0, 0, 1, 0, 0, 0, 2]


@pytest.mark.parametrize("score", [0.05, 0.1, 0.15, 0.2, 0.25, 0.299, 0.3, 0.35, 0.5, 0.65, 0.699, 0.7, 0.701, 0.95])
@pytest.mark.parametrize("up_to", [None, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
def test_the_edges_of_the_band_are_where_the_rule_has_them(score: float, up_to: float | None) -> None:
    """In floating point 1 - 0.7 is more than 0.3, and 1 - 0.3 is not less than 0.7."""
    detection = make_detection(score, uncertain_up_to=up_to)
    (week,) = upload_weeks.weeks_since(None)
    assert week["uncertain_fake"] == (detection.answer == "uncertain_fake")
    assert week["uncertain_real"] == (detection.answer == "uncertain_real")


def test_a_deletion_has_its_week_counted_again(
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    old = [make_detection(0.9, created_at=timezone.now() - timedelta(weeks=2)) for _ in range(2)]
    assert sizes() == [2]
    with django_capture_on_commit_callbacks(execute=True):
        services.detection_delete(detection=old[0])
    assert sizes() == [1]


def test_a_deletion_is_noticed_by_weeks_of_another_time_zone(
    settings: Settings, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    old = [make_detection(0.9, created_at=timezone.now() - timedelta(weeks=2)) for _ in range(2)]
    assert sizes() == [2]
    settings.TIME_ZONE = "Asia/Tokyo"
    assert sizes() == [2]
    with django_capture_on_commit_callbacks(execute=True):
        services.detection_delete(detection=old[0])
    assert sizes() == [1]
    settings.TIME_ZONE = "UTC"
    assert sizes() == [1]


def test_a_week_that_an_older_version_kept_is_counted_again() -> None:
    """While a new version is being rolled out, the old one answers too."""
    old = make_detection(0.9, created_at=timezone.now() - timedelta(weeks=2))
    assert sizes() == [1]
    kept = UploadWeek.objects.get(start=upload_weeks.week_start(old.created_at))
    for figures in kept.by_model.values():
        del figures["not_kept"]
    kept.save()

    assert [(week["n"], week["not_kept"]) for week in upload_weeks.weeks_since(None)] == [(1, 0)]
    kept = UploadWeek.objects.get(start=kept.start)
    assert all("not_kept" in figures for figures in kept.by_model.values())


def test_a_deletion_between_counting_and_keeping_is_noticed(
    monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    old = [make_detection(0.9, created_at=timezone.now() - timedelta(weeks=weeks)) for weeks in (2, 2, 4)]
    count = upload_weeks._count

    def count_and_delete(starts: list[datetime]) -> dict[datetime, dict[str, upload_weeks.Figures]]:
        counted = count(starts)
        if starts and Detection.objects.count() == len(old):
            with django_capture_on_commit_callbacks(execute=True):
                services.detection_delete(detection=old[0])
        return counted

    monkeypatch.setattr(upload_weeks, "_count", count_and_delete)
    assert sizes() == [1, 2]  # as it was when it was asked for
    assert UploadWeek.objects.filter(start=upload_weeks.week_start(old[2].created_at)).exists()
    assert sizes() == [1, 1]


def test_a_week_is_narrowed_to_a_model() -> None:
    for version in ("test-1", "test-2", "test-2"):
        make_detection(0.9, model_version=version, created_at=timezone.now() - timedelta(weeks=2))
    for _ in ("counted", "kept"):
        assert [week["n"] for week in upload_weeks.weeks_since(None, model_version="test-2")] == [2]
    assert upload_weeks.weeks_since(None, model_version="unknown") == []


def test_what_came_without_its_picture_to_keep_is_counted_apart() -> None:
    moment = timezone.now() - timedelta(weeks=2)
    for removed_at in (None, moment, timezone.now()):
        make_detection(0.9, created_at=moment, picture_removed_at=removed_at)
    make_detection(0.9, created_at=moment - timedelta(weeks=2), picture_removed_at=moment - timedelta(weeks=2))
    for _ in ("counted", "kept"):
        weeks = upload_weeks.weeks_since(None)
        assert [(week["n"], week["not_kept"]) for week in weeks] == [(0, 1), (2, 1)]
        assert weeks[1]["score_sum"] == pytest.approx(1.8)
        assert weeks[1]["bins"] == [0] * 9 + [2]


def test_without_uploads_there_are_no_weeks() -> None:
    assert upload_weeks.weeks_since(None) == []
