"""The page in the admin on which a reviewer decides."""

from http import HTTPStatus
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from pytest_django.asserts import assertContains, assertNotContains, assertRedirects

from detector.models import Detection, Review
from detector.reviews import Look
from detector.tests.factories import make_detection, make_review, make_user

pytestmark = pytest.mark.django_db


def page(detection: Detection) -> str:
    return reverse("admin:detector_detection_review", args=[detection.pk])


def staff_with(*permissions: str, username: str = "grace") -> Client:
    user = make_user(username, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def reviewer() -> Client:
    return staff_with("view_detection", "add_review")


def test_the_page_shows_the_picture_the_machine_s_answer_and_the_reviews(reviewer: Client) -> None:
    detection = make_detection(0.923)
    make_review(detection, "cant_tell", reviewer=make_user("vera"), note="Too blurred.")
    response = reviewer.get(page(detection))
    picture = reverse("detector:detection-image", args=[detection.pk])
    for text in (picture, "92.3", "vera", "Too blurred."):
        assertContains(response, text)
    assert "unsafe-inline" not in response["Content-Security-Policy"]
    for inline in (" style=", "<style", "<script>"):
        assertNotContains(response, inline)


@pytest.mark.parametrize("verdict", ["real", "fake", "cant_tell"])
def test_a_review_is_kept_with_who_and_when(reviewer: Client, verdict: str) -> None:
    detection = make_detection(0.9)
    look = reviewer.get(page(detection)).context["look"]
    response = reviewer.post(page(detection), {"verdict": verdict, "note": "Studio light.", "look": look})
    assertRedirects(response, reverse("admin:detector_detection_change", args=[detection.pk]))
    review = Review.objects.get()
    assert (review.verdict, review.note, review.is_blind) == (verdict, "Studio light.", False)
    assert review.reviewer is not None
    assert review.reviewer.username == "grace"
    detection.refresh_from_db()
    assert (detection.review_verdict, detection.verdict, detection.fake_probability) == (verdict, "fake", 0.9)


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        ({"verdict": ""}, "Choose a verdict."),
        ({"verdict": "invented"}, "invented is not one of the available choices"),
        ({"note": "x" * 2001}, "at most 2000 characters"),
        ({"look": "forged"}, "The page is too old."),
        ({"look": ""}, "This field is required."),
        ({"look": Look.begin(uuid4(), seen_count=0, is_blind=False).sign()}, "belongs to another detection"),
    ],
)
def test_a_form_with_a_mistake_is_shown_again(reviewer: Client, mistake: dict[str, str], sentence: str) -> None:
    detection = make_detection()
    look = Look.begin(detection.pk, seen_count=0, is_blind=False).sign()
    response = reviewer.post(page(detection), {"verdict": "real", "note": "Kept.", "look": look} | mistake)
    assertContains(response, sentence, status_code=HTTPStatus.BAD_REQUEST)
    assert not Review.objects.exists()


def test_a_stale_review_is_refused_with_what_changed_and_can_be_sent_again(reviewer: Client) -> None:
    detection = make_detection(0.9)
    look = reviewer.get(page(detection)).context["look"]
    make_review(detection, "fake", reviewer=make_user("vera"), note="Two left ears.")
    response = reviewer.post(page(detection), {"verdict": "real", "note": "Studio light.", "look": look})
    for text in ("was not saved", "vera said", "Two left ears.", "Studio light."):
        assertContains(response, text, status_code=HTTPStatus.CONFLICT)
    assert [review.verdict for review in detection.reviews_so_far()] == ["fake"]
    again = {"verdict": "real", "note": "Studio light.", "look": response.context["look"]}
    assert reviewer.post(page(detection), again).status_code == HTTPStatus.FOUND
    assert [review.verdict for review in detection.reviews_so_far()] == ["fake", "real"]


def test_sending_the_same_form_twice_adds_one_review(reviewer: Client) -> None:
    detection = make_detection()
    data = {"verdict": "real", "note": "", "look": reviewer.get(page(detection)).context["look"]}
    statuses = [reviewer.post(page(detection), data).status_code for _ in range(2)]
    assert statuses == [HTTPStatus.FOUND, HTTPStatus.CONFLICT]
    assert Review.objects.count() == 1


@pytest.mark.parametrize("permissions", [[], ["view_detection"], ["add_review"], ["change_detection"]])
def test_reviewing_needs_both_permissions(permissions: list[str]) -> None:
    detection = make_detection()
    client = staff_with(*permissions)
    look = Look.begin(detection.pk, seen_count=0, is_blind=False).sign()
    assert client.get(page(detection)).status_code == HTTPStatus.FORBIDDEN
    response = client.post(page(detection), {"verdict": "real", "note": "", "look": look})
    assert response.status_code == HTTPStatus.FORBIDDEN
    assert not Review.objects.exists()


@pytest.mark.parametrize("logged_in", [False, True])
def test_reviewing_is_for_staff(client: Client, logged_in: bool) -> None:
    if logged_in:
        client.force_login(make_user())
    response = client.get(page(make_detection()))
    assert response.status_code == HTTPStatus.FOUND
    assert response["Location"].startswith(reverse("admin:login"))


def test_what_does_not_exist_cannot_be_reviewed(reviewer: Client) -> None:
    assert reviewer.get(reverse("admin:detector_detection_review", args=[uuid4()])).status_code == HTTPStatus.NOT_FOUND


def test_reviewing_needs_the_csrf_token() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_user("root", is_staff=True, is_superuser=True))
    assert client.post(page(make_detection()), {"verdict": "real"}).status_code == HTTPStatus.FORBIDDEN
