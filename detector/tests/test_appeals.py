"""The uploader's "I think this is wrong"."""

from http import HTTPStatus
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.http import HttpRequest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings
from pytest_django.asserts import assertContains, assertNotContains, assertRedirects

from detector import ratelimits, services
from detector.exceptions import AppealRefused
from detector.models import Detection
from detector.tests.factories import make_detection, make_review, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("limiter")]

BUTTON = "I think this is wrong"


def appeal(client: Client, detection: Detection, sentence: str = "", **extra: Any) -> Any:
    address = reverse("detector:detection-appeal", args=[detection.pk])
    response = client.post(address, {"sentence": sentence}, **extra)
    detection.refresh_from_db()
    return response


@pytest.mark.parametrize("kind", [{}, {"no_face": True}])
@pytest.mark.parametrize("sentence", ["", "  It is me, at my sister's wedding. "])
def test_an_uploader_objects_with_or_without_a_sentence(visitor: Client, kind: dict[str, bool], sentence: str) -> None:
    detection = make_detection(**kind)
    assertContains(visitor.get(detection.get_absolute_url()), BUTTON)
    assertRedirects(appeal(visitor, detection, sentence), detection.get_absolute_url())
    assert detection.appealed_at is not None
    assert detection.appeal_text == sentence.strip()
    response = visitor.get(detection.get_absolute_url())
    assertContains(response, "You object to this result")
    assertNotContains(response, BUTTON)


def test_an_account_objects_too(limiter: Settings) -> None:
    ada, client = make_user("ada"), Client()
    client.force_login(ada)
    detection = make_detection(owner=ada)
    appeal(client, detection)
    assert detection.appealed_at is not None


def test_one_objects_once(visitor: Client) -> None:
    detection = make_detection()
    appeal(visitor, detection, "First.")
    response = appeal(visitor, detection, "Second.")
    assertRedirects(response, detection.get_absolute_url())
    assert detection.appeal_text == "First."
    with pytest.raises(AppealRefused):
        services.appeal_create(detection=detection, text="Third.")


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_what_is_deleted_meanwhile_cannot_be_objected_to(
    visitor: Client, monkeypatch: pytest.MonkeyPatch, accept: str
) -> None:
    detection = make_detection()
    take_appeal = ratelimits.take_appeal

    def delete_first(request: HttpRequest) -> ratelimits.Allowance:
        Detection.objects.all().delete()
        return take_appeal(request)

    monkeypatch.setattr(ratelimits, "take_appeal", delete_first)
    address = reverse("detector:detection-appeal", args=[detection.pk])
    response = visitor.post(address, headers={"accept": accept})
    assertContains(response, "were deleted in the meantime", status_code=HTTPStatus.NOT_FOUND)


def test_there_is_nothing_to_object_to_in_a_failure(visitor: Client) -> None:
    detection = make_detection(failed=True)
    assertNotContains(visitor.get(detection.get_absolute_url()), BUTTON)
    appeal(visitor, detection)
    assert detection.appealed_at is None


def test_a_review_answers_it(visitor: Client) -> None:
    detection = make_detection(0.9)
    make_review(detection, "fake")
    appeal(visitor, detection)
    assert detection.is_appeal_open  # the review was there before
    make_review(detection, "cant_tell")
    assert detection.is_appeal_answered
    assertContains(visitor.get(detection.get_absolute_url()), "This answers your objection.")


def test_a_review_that_settles_nothing_is_no_answer(visitor: Client, settings: Settings) -> None:
    settings.REVIEWERS_NEEDED = 2
    detection = make_detection(0.9)
    appeal(visitor, detection)
    make_review(detection, "real")
    assert detection.is_appeal_open
    make_review(detection, "real")
    assert detection.is_appeal_answered


def test_an_objection_whose_photo_was_removed_promises_no_look(visitor: Client) -> None:
    detection = make_detection()
    appeal(visitor, detection)
    services.picture_forget(detection=detection)
    response = visitor.get(detection.get_absolute_url())
    assertContains(response, "the photo was removed before that was answered")
    assertNotContains(response, "a person will look at it")


def test_the_sentence_is_short_and_not_markup(visitor: Client) -> None:
    detection = make_detection()
    response = appeal(visitor, detection, "x" * 501)
    assertContains(response, "At most 500 characters", status_code=HTTPStatus.BAD_REQUEST)
    assert detection.appealed_at is None
    appeal(visitor, detection, "<script>alert(1)</script>")
    assertNotContains(visitor.get(detection.get_absolute_url()), "<script>alert")


def test_a_script_is_told_in_a_sentence_too_why_not(visitor: Client, settings: Settings) -> None:
    settings.APPEAL_RATE = "1/h"
    json_wanted: dict[str, Any] = {"headers": {"accept": "application/json"}}
    too_long = appeal(visitor, make_detection(), "x" * 501, **json_wanted)
    assert (too_long.status_code, too_long.json()["error"][:22]) == (HTTPStatus.BAD_REQUEST, "At most 500 characters")
    appeal(visitor, make_detection(), **json_wanted)
    used_up = appeal(visitor, make_detection(), **json_wanted)
    assert used_up.status_code == HTTPStatus.TOO_MANY_REQUESTS
    assert "one objection too many" in used_up.json()["error"]
    assert used_up["Retry-After"]


@pytest.mark.parametrize("kind", [{"appealed_at": timezone.now()}, {"failed": True}])
def test_a_script_is_told_that_it_cannot_object(visitor: Client, kind: dict[str, Any]) -> None:
    response = appeal(visitor, make_detection(**kind), headers={"accept": "application/json"})
    assert response.status_code == HTTPStatus.CONFLICT
    assert response.json() == {"error": "You can object to a result once, and while its photo is there."}


def test_who_comes_back_when_they_are_told_is_not_too_early(visitor: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    used_up = ratelimits.Allowance(limit=10, period_s=86400, used=11, seconds_left=5403)
    monkeypatch.setattr(ratelimits, "take_appeal", lambda request: used_up)
    response = appeal(visitor, make_detection())
    assertContains(response, "possible in 1 h 31 min.", status_code=HTTPStatus.TOO_MANY_REQUESTS)


def test_someone_else_s_result_cannot_be_objected_to(visitor: Client) -> None:
    staff = Client()
    staff.force_login(make_user("root", is_staff=True, is_superuser=True))
    detection = make_detection(session_key="f" * 40)
    for who, status in (
        (Client(), HTTPStatus.FORBIDDEN),
        (visitor, HTTPStatus.NOT_FOUND),
        (staff, HTTPStatus.NOT_FOUND),
    ):
        assert appeal(who, detection).status_code == status
    assertNotContains(staff.get(detection.get_absolute_url()), BUTTON)
    assert detection.appealed_at is None


@pytest.mark.parametrize("method", ["get", "put", "delete"])
def test_objecting_needs_post(visitor: Client, method: str) -> None:
    address = reverse("detector:detection-appeal", args=[make_detection().pk])
    assert getattr(visitor, method)(address).status_code == HTTPStatus.METHOD_NOT_ALLOWED


def test_objecting_needs_the_csrf_token(limiter: Settings) -> None:
    ada, client = make_user("ada"), Client(enforce_csrf_checks=True)
    client.force_login(ada)
    assert appeal(client, make_detection(owner=ada)).status_code == HTTPStatus.FORBIDDEN


def test_objections_are_limited_apart_from_uploads(visitor: Client, settings: Settings) -> None:
    settings.APPEAL_RATE = "2/h"
    settings.UPLOAD_RATE = "1/h"
    statuses = []
    for _ in range(3):
        response = appeal(visitor, make_detection(), "Look again.")
        statuses.append(response.status_code)
    assert statuses == [HTTPStatus.FOUND, HTTPStatus.FOUND, HTTPStatus.TOO_MANY_REQUESTS]
    assert 0 < int(response["Retry-After"]) <= 3600
    assertContains(response, "one objection too many", status_code=HTTPStatus.TOO_MANY_REQUESTS)
    assertContains(response, "Look again.", status_code=HTTPStatus.TOO_MANY_REQUESTS)
    assert Detection.objects.exclude(appealed_at=None).count() == 2


def test_without_redis_no_objection_is_taken_in(client: Client, settings: Settings, logged: list[str]) -> None:
    settings.CACHES = {**settings.CACHES, "ratelimit": {"BACKEND": "detector.ratelimits.NoSharedCache"}}
    ada = make_user("ada")
    client.force_login(ada)
    detection = make_detection(owner=ada)
    response = appeal(client, detection)
    assertContains(response, "cannot be taken in right now", status_code=HTTPStatus.SERVICE_UNAVAILABLE)
    assert detection.appealed_at is None
    assert "Nobody can object: REDIS_URL is not set, so nothing can be counted." in logged


def test_the_reviewer_reads_the_objection(visitor: Client) -> None:
    detection = make_detection()
    appeal(visitor, detection, "It is me.")
    staff = Client()
    staff.force_login(make_user("root", is_staff=True, is_superuser=True))
    for page in ("change", "review"):
        assertContains(staff.get(reverse(f"admin:detector_detection_{page}", args=[detection.pk])), "It is me.")


def test_the_database_refuses_a_sentence_without_an_objection() -> None:
    detection = make_detection()
    with pytest.raises(IntegrityError, match="appeal_text_has_time"), transaction.atomic():
        Detection.objects.filter(pk=detection.pk).update(appeal_text="x")
