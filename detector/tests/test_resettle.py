"""`manage.py resettle_reviews`: a changed REVIEWERS_NEEDED applied to what was reviewed before."""

from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from pytest_django import Settings
from pytest_django.asserts import assertContains, assertNotContains

from detector import services
from detector.management.commands import resettle_reviews
from detector.models import Detection, Review, ReviewNeed
from detector.tests.factories import make_detection, make_review, make_user

pytestmark = pytest.mark.django_db


def resettle(**options: Any) -> list[str]:
    output = StringIO()
    call_command("resettle_reviews", stdout=output, stderr=StringIO(), **options)
    return output.getvalue().splitlines()


def reviewed(score: float, *verdicts: str) -> Detection:
    detection = make_detection(score)
    for verdict in verdicts:
        make_review(detection, verdict)
    return detection


def state(detection: Detection) -> tuple[str, int]:
    detection.refresh_from_db()
    return detection.review_verdict, detection.review_need


def test_a_higher_number_opens_what_one_person_overruled_and_a_lower_one_settles_it_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resettle_reviews, "BATCH", 1)
    overruled, agreed = reviewed(0.9, "real"), reviewed(0.9, "real", "real")
    confirmed, doubted = reviewed(0.9, "fake"), reviewed(0.9, "cant_tell")
    settings.REVIEWERS_NEEDED = 2
    assert resettle() == [
        f"{overruled.pk}: real -> open",
        "4 reviewed detections: with REVIEWERS_NEEDED=2, 1 became another verdict or open.",
    ]
    assert state(overruled) == ("", ReviewNeed.SECOND_OPINION)
    assert [state(each) for each in (agreed, confirmed, doubted)] == [("real", 0), ("fake", 0), ("cant_tell", 0)]
    assert list(Detection.objects.to_review(make_user("vera"))) == [overruled]
    settings.REVIEWERS_NEEDED = 1
    assert resettle()[0] == f"{overruled.pk}: open -> real"
    assert state(overruled) == ("real", ReviewNeed.NONE)


def test_what_is_deleted_meanwhile_stops_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    overruled = [reviewed(0.9, "real") for _ in range(2)]
    detection_resettle = services.detection_resettle

    def delete_first(**arguments: Any) -> Detection:
        Detection.objects.filter(pk=overruled[0].pk).delete()
        return detection_resettle(**arguments)

    monkeypatch.setattr(services, "detection_resettle", delete_first)
    settings.REVIEWERS_NEEDED = 2
    assert resettle()[0] == f"{overruled[1].pk}: real -> open"


def test_nothing_but_the_settlement_changes(settings: Settings) -> None:
    overruled = reviewed(0.9, "real")
    settings.REVIEWERS_NEEDED = 2
    before: dict[str, Any] = dict(Detection.objects.values().get())
    reviews = list(Review.objects.values())
    resettle()
    after: dict[str, Any] = dict(Detection.objects.values().get())
    assert {name for name in before if before[name] != after[name]} == {"review_verdict", "review_need"}
    assert list(Review.objects.values()) == reviews
    assert state(overruled) == ("", ReviewNeed.SECOND_OPINION)


def test_a_dry_run_lists_and_stores_nothing(settings: Settings) -> None:
    overruled = reviewed(0.9, "real")
    settings.REVIEWERS_NEEDED = 2
    before = list(Detection.objects.values())
    assert resettle(dry_run=True) == [
        f"{overruled.pk}: real -> open",
        "1 reviewed detection: with REVIEWERS_NEEDED=2, 1 would become another verdict or open.",
        "Nothing was stored.",
    ]
    assert list(Detection.objects.values()) == before


def test_an_answered_objection_is_open_again_with_its_verdict(settings: Settings, client: Client) -> None:
    ada = make_user("ada")
    detection = make_detection(0.9, owner=ada)
    services.appeal_create(detection=detection, text="It is me.")
    make_review(detection, "real")
    assert detection.is_appeal_answered
    settings.REVIEWERS_NEEDED = 2
    resettle()
    assert state(detection) == ("", ReviewNeed.APPEALED)
    client.force_login(ada)
    response = client.get(reverse("detector:detection", args=[detection.pk]))
    assertContains(response, "a person will look at it")
    assertNotContains(response, "Human review")


def test_it_says_what_nobody_can_review_any_more(settings: Settings) -> None:
    overruled = reviewed(0.9, "real")
    services.picture_forget(detection=overruled)
    settings.REVIEWERS_NEEDED = 2
    assert resettle()[-1] == "1 of the open ones cannot be reviewed: they have no picture any more."
    assert state(overruled) == ("", ReviewNeed.NONE)
