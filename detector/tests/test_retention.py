"""How long pictures are kept: analyse and forget, purging, and what deleting leaves behind."""

import errno
import sys
from datetime import timedelta
from http import HTTPStatus
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import FileSystemStorage
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings
from pytest_django.asserts import assertContains, assertNotContains

from detector import services
from detector.exceptions import PictureGone
from detector.images import decode_image
from detector.models import Detection, Review, ReviewNeed
from detector.reviews import Look
from detector.tests.factories import (
    FakePredictor,
    Terminal,
    make_detection,
    make_jpeg,
    make_review,
    make_upload,
    make_user,
)
from detector.tests.test_services import stored

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("limiter")]


def purge(**options: Any) -> str:
    output = StringIO()
    call_command("purge_uploads", stdout=output, stderr=output, **options)
    return output.getvalue()


def days_ago(days: float) -> Any:
    return timezone.now() - timedelta(days=days)


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_a_photo_that_is_not_to_be_kept_is_judged_and_never_written(
    visitor: Client, predictor: FakePredictor, settings: Settings, media_root: Path, accept: str
) -> None:
    settings.REVIEW_SAMPLE_PERCENT = 100.0
    data = make_jpeg()
    upload = {"picture": make_upload(data, "ada.jpg"), "forget": "on"}
    visitor.post(reverse("detector:upload"), upload, headers={"accept": accept})
    detection = Detection.objects.get()
    assert (detection.status, detection.verdict, detection.fake_probability) == ("done", "fake", 0.9)
    assert (detection.original_name, detection.sha256) == ("", decode_image(data).sha256)
    assert (detection.is_sampled, detection.sample_percent, detection.review_need) == (False, 0.0, ReviewNeed.NONE)
    assert stored(media_root) == []
    response = visitor.get(detection.get_absolute_url())
    assertContains(response, "was not kept, as its uploader chose")
    assertNotContains(response, "evidence__heatmap")
    for absent in ("detection-image", "detection-thumbnail"):
        address = reverse(f"detector:{absent}", args=[detection.pk])
        assertNotContains(response, address)
        assert visitor.get(address).status_code == HTTPStatus.NOT_FOUND
    assertNotContains(response, "I think this is wrong")
    history = visitor.get(reverse("detector:history"))
    assertContains(history, "Photo not kept")
    for page in (response, history):
        assertContains(page, "name not kept")
        assertNotContains(page, "unnamed")


DELETES_PHOTO = "The photo and its result are removed for good."
DELETES_RESULT = "The result is removed for good"
REVIEWS_STAY = "What reviewers wrote of it stays"


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("is_reviewed", [True, False])
def test_deleting_promises_what_it_does(visitor: Client, is_kept: bool, is_reviewed: bool) -> None:
    detection = make_detection()
    if is_reviewed:
        make_review(detection)
    if not is_kept:
        services.picture_forget(detection=detection)
    content = visitor.get(detection.get_absolute_url()).content.decode()
    promised = [words in content for words in ("Delete this photo", DELETES_PHOTO)]
    assert promised == [is_kept, is_kept]
    promised = [words in content for words in ("Delete this result", DELETES_RESULT)]
    assert promised == [not is_kept, not is_kept]
    assert (REVIEWS_STAY in content) is is_reviewed
    answer = visitor.post(reverse("detector:detection-delete", args=[detection.pk]), follow=True)
    assertContains(answer, "The picture and its result were deleted." if is_kept else "The result was deleted.")
    assert Review.objects.count() == is_reviewed


def test_about_says_what_stays_and_what_goes(client: Client) -> None:
    about = client.get(reverse("detector:about"))
    assertContains(about, "If people reviewed it, their reviews stay")
    assertContains(about, 'An account you delete <a href="/accounts/delete/">yourself</a>')


def test_a_failed_analysis_of_such_a_photo_leaves_none_either(
    visitor: Client, predictor: FakePredictor, media_root: Path
) -> None:
    predictor.error = RuntimeError("broken")
    visitor.post(reverse("detector:upload"), {"picture": make_upload(), "forget": "on"})
    assert Detection.objects.get().status == "failed"
    assert stored(media_root) == []


def test_photos_are_kept_unless_told_otherwise(visitor: Client, predictor: FakePredictor, media_root: Path) -> None:
    assertNotContains(visitor.get(reverse("detector:upload")), " checked")
    visitor.post(reverse("detector:upload"), {"picture": make_upload()})
    assert len(stored(media_root)) == 2


@pytest.mark.parametrize(("days", "sentence"), [(0, "It is kept unless"), (1, "for 1 day unless"), (30, "for 30 days")])
def test_the_upload_page_says_how_long(visitor: Client, settings: Settings, days: int, sentence: str) -> None:
    settings.RETENTION_DAYS = days
    assertContains(visitor.get(reverse("detector:upload")), sentence)


def test_purging_removes_old_pictures_and_nothing_else(settings: Settings, media_root: Path) -> None:
    settings.RETENTION_DAYS = 30
    old = make_detection(0.5, created_at=days_ago(31), appealed_at=days_ago(30), appeal_text="It is me.")
    make_review(old, "cant_tell")
    young = make_detection(0.5, created_at=days_ago(29))
    before: dict[str, Any] = dict(Detection.objects.filter(pk=old.pk).values().get())
    output = purge()
    assert "Removed the pictures of 1 detection uploaded before" in output
    assert "thumbnails and file names; verdicts, figures, hashes, objections and reviews stay" in output
    after: dict[str, Any] = dict(Detection.objects.filter(pk=old.pk).values().get())
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"image", "thumbnail", "original_name", "picture_removed_at"}
    assert Review.objects.get().fake_probability == 0.5
    assert {path.stem for path in stored(media_root)} == {str(young.pk)}
    assert purge().startswith("Removed the pictures of 0 detections")


def test_a_dry_run_counts_and_changes_nothing(settings: Settings, media_root: Path) -> None:
    settings.RETENTION_DAYS = 30
    for _ in range(3):
        make_detection(created_at=days_ago(31))
    before = list(Detection.objects.order_by("pk").values())
    output = purge(dry_run=True)
    assert "Would remove the pictures of 3 detections uploaded before" in output
    assert "thumbnails and file names" in output
    assert output.endswith("Nothing was changed.\n")
    assert list(Detection.objects.order_by("pk").values()) == before
    assert len(stored(media_root)) == 6


def test_without_a_limit_nothing_is_purged(media_root: Path) -> None:
    make_detection(created_at=days_ago(5000))
    assert "RETENTION_DAYS is 0" in purge()
    assert len(stored(media_root)) == 2


def test_purging_again_ends_what_was_interrupted(settings: Settings, media_root: Path) -> None:
    settings.RETENTION_DAYS = 30
    detection = make_detection(created_at=days_ago(31))
    Path(detection.image.path).unlink()
    purge()
    detection.refresh_from_db()
    assert not detection.has_picture
    assert stored(media_root) == []


def test_a_file_that_cannot_be_removed_is_named_and_does_not_stop_the_rest(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.RETENTION_DAYS = 30
    stuck, other = (make_detection(created_at=days_ago(40 - number)) for number in range(2))
    delete = FileSystemStorage.delete

    def refuse(storage: FileSystemStorage, name: str) -> None:
        if name == stuck.image.name:
            raise PermissionError(errno.EACCES, "Permission denied")
        delete(storage, name)

    monkeypatch.setattr(FileSystemStorage, "delete", refuse)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with pytest.raises(CommandError, match="1 detection could not be removed"):
        call_command("purge_uploads", stdout=StringIO(), stderr=terminal, no_color=True)
    assert f"{stuck.image.name}: Permission denied" in terminal.getvalue().splitlines(), "not behind the progress bar"
    other.refresh_from_db()
    stuck.refresh_from_db()
    assert (stuck.has_picture, other.has_picture) == (True, False)


def test_a_picture_that_is_deleted_meanwhile_does_not_stop_the_rest(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.RETENTION_DAYS = 30
    deleted, other = (make_detection(created_at=days_ago(40 - number)) for number in range(2))
    picture_forget = services.picture_forget

    def delete_first(*, detection: Detection) -> None:
        Detection.objects.filter(pk=deleted.pk).delete()
        picture_forget(detection=detection)

    monkeypatch.setattr(services, "picture_forget", delete_first)
    assert "Removed the pictures of 1 detection uploaded before" in purge()
    other.refresh_from_db()
    assert not other.has_picture


def test_what_has_no_picture_leaves_the_queue_and_cannot_be_reviewed() -> None:
    detection, reviewer = make_detection(0.5), make_user("grace", is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(reviewer)
    address = reverse("admin:detector_detection_review", args=[detection.pk])
    look = client.get(address).context["look"]
    services.picture_forget(detection=detection)
    detection.refresh_from_db()
    assert detection.review_need == ReviewNeed.NONE
    response = client.post(address, {"verdict": "real", "look": look}, follow=True)
    assertContains(response, "no picture to review any more")
    assertContains(response, "was removed on")
    with pytest.raises(PictureGone):
        services.review_create(
            detection=detection,
            reviewer=reviewer,
            verdict="real",
            note="",
            look=Look.begin(detection.pk, seen_count=0, is_blind=False),
        )
    assertContains(client.get(reverse("admin:detector_detection_changelist")), "not kept")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("way", ["account", "detection"])
def test_deleting_leaves_no_file_and_the_reviews_figures(media_root: Path, way: str) -> None:
    owner = make_user("ada")
    detection = make_detection(0.9, owner=owner)
    make_review(detection, "real")
    admin = Client()
    admin.force_login(make_user("root", is_staff=True, is_superuser=True))
    path = f"auth/user/{owner.pk}" if way == "account" else f"detector/detection/{detection.pk}"
    response = admin.post(f"/admin/{path}/delete/", {"post": "yes"})
    assert response.status_code == HTTPStatus.FOUND
    assert not Detection.objects.exists()
    assert stored(media_root) == []
    review = Review.objects.get()
    assert (review.detection, review.verdict, review.fake_probability) == (None, "real", 0.9)
