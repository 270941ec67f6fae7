"""Made-up detections, and what the pages of a moderator's day cost with more of them."""

from http import HTTPStatus
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import Count
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pytest_django import Settings

from detector import demo
from detector.models import Detection, Review
from detector.tests.factories import make_user

pytestmark = pytest.mark.django_db


def run(**options: Any) -> str:
    output = StringIO()
    call_command("make_demo_data", stdout=output, stderr=StringIO(), **options)
    return output.getvalue()


def test_it_says_what_it_adds_and_how_much_it_added(settings: Settings) -> None:
    settings.DEBUG = True
    said = run(rows=900, seed=1)
    assert "Adds 900 detections with reviews, 8 small generated pictures" in said
    appeals, reviews = Detection.objects.exclude(appealed_at=None).count(), Review.objects.count()
    assert f"Added 900 detections, {appeals} of them objected to, and {reviews} reviews." in said
    assert Detection.objects.count() == 900
    assert appeals
    assert reviews


def test_a_real_database_is_refused(settings: Settings) -> None:
    settings.DEBUG = False
    with pytest.raises(CommandError, match="DEBUG=true"):
        run(rows=1)
    assert not Detection.objects.exists()
    assert not User.objects.exists()


def test_no_rows_are_refused(settings: Settings) -> None:
    settings.DEBUG = True
    with pytest.raises(CommandError, match="--rows is 0"):
        run(rows=0)


def test_the_same_seed_cannot_be_used_twice(settings: Settings) -> None:
    settings.DEBUG = True
    run(rows=20, seed=1)
    reviews = Review.objects.count()
    with pytest.raises(CommandError, match="--seed 1 makes is there already"):
        run(rows=30, seed=1)
    assert (Detection.objects.count(), Review.objects.count()) == (20, reviews)


def test_made_up_rows_are_as_uploads_and_reviewers_would_leave_them() -> None:
    demo.make(400, seed=2)
    detections = list(Detection.objects.all())
    assert {detection.status for detection in detections} == set(Detection.Status.values)
    assert {detection.verdict for detection in detections} == {"", *Detection.Verdict.values}
    assert {detection.owner is None for detection in detections} == {True, False}
    assert all(detection.review_need == detection.need_now() for detection in detections)
    assert all(detection.reviews.count() == detection.review_count for detection in detections)
    assert all(detection.image.storage.exists(str(detection.image.name)) for detection in detections)
    assert len({detection.image.name for detection in detections}) == demo.PICTURES


def test_nobody_can_log_in_to_a_made_up_account() -> None:
    demo.make(1, seed=3)
    assert not any(user.has_usable_password() for user in User.objects.all())


def test_a_second_call_adds_to_the_first() -> None:
    demo.make(10)
    demo.make(10)
    assert Detection.objects.count() == 20
    assert User.objects.filter(username__startswith="demo-reviewer").count() == demo.REVIEWERS


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("admin:detector_detection_changelist", {}),
        ("admin:detector_detection_changelist", {"q": "ab" * 32}),
        ("admin:detector_detection_changelist", {"q": "photo"}),
        ("admin:detector_detection_changelist", {"q": "demo-0001"}),
        ("admin:detector_detection_changelist", {"q": "0f" * 8}),
        ("admin:detector_queueddetection_changelist", {}),
        ("admin:detector_review_quality", {}),
        ("admin:detector_review_quality", {"period": "all"}),
        ("detector:history", {}),
    ],
)
def test_more_rows_take_no_more_queries(path: str, query: dict[str, str]) -> None:
    admin = make_user("admin", is_staff=True, is_superuser=True)
    counts = []
    for rows in (60, 600):
        demo.make(rows, seed=rows)
        client = Client()
        busiest = User.objects.annotate(n=Count("detections")).order_by("-n")[0]
        client.force_login(busiest if path == "detector:history" else admin)
        client.get(reverse(path), query)
        with CaptureQueriesContext(connection) as captured:
            assert client.get(reverse(path), query).status_code == HTTPStatus.OK
        counts.append(len(captured))
    assert counts[0] == counts[1]
