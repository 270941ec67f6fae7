"""A review or an objection that is sent after the session has ended is not lost without a word."""

from http import HTTPStatus
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from pytest_django.asserts import assertContains, assertNotContains, assertRedirects

from detector.models import Detection, Review
from detector.tests.factories import VISITOR_KEY, make_detection, make_user
from detector.unsent import SESSION_FIELD

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("limiter")]

PASSWORD = "correct horse battery"
ADMIN_LOGIN, LOGIN, LOGOUT = reverse("admin:login"), reverse("login"), reverse("logout")
NOTE = 'Two left ears,\n </textarea> and a "halo".'


def review_page(detection: Detection) -> str:
    return reverse("admin:detector_detection_review", args=[detection.pk])


def appeal_address(detection: Detection) -> str:
    return reverse("detector:detection-appeal", args=[detection.pk])


def log_in(client: Client, page: Any, password: str = PASSWORD, name: str = "rita") -> Any:
    """Sends what the log-in form on that page holds, as a browser does, with name and password."""
    unsent = page.context.get("unsent") or page.wsgi_request.POST
    sent_along = {field: unsent[field] for field in ("unsent_page", "unsent_text", "unsent_verdict")}
    for field in sent_along:
        assertContains(page, f'form="login-form" name="{field}"', count=1, status_code=page.status_code)
    address = page.context.get("app_path", LOGIN)
    form = {"username": name, "password": password, "next": page.context["next"], **sent_along}
    return client.post(address, form)


@pytest.fixture
def reviewer() -> Client:
    rita = make_user("rita", is_staff=True)
    rita.groups.add(Group.objects.get(name="Reviewers"))
    client = Client()
    client.force_login(rita)
    return client


@pytest.mark.parametrize("query", ["", "?queue=1"])
def test_a_review_waits_on_its_page_behind_the_log_in(reviewer: Client, query: str) -> None:
    detection = make_detection(0.9)
    page = review_page(detection) + query
    look = reviewer.get(page).context["look"]
    reviewer.post(LOGOUT)
    refused = reviewer.post(page, {"verdict": "fake", "note": NOTE, "look": look})
    for words in ("What you sent was not saved", "Fake:", "Two left ears"):
        assertContains(refused, words, status_code=HTTPStatus.FORBIDDEN)
    assert "no-store" in refused["Cache-Control"]
    again = log_in(reviewer, refused, password="wrong")
    for words in ("Please enter the correct username", "What you sent was not saved", "Two left ears"):
        assertContains(again, words)
    assertRedirects(log_in(reviewer, again), page, fetch_redirect_response=False)
    waiting = reviewer.get(page)
    assertContains(waiting, "Your review was not saved: your session had ended.")
    assertContains(waiting, "It said: Fake.")
    assert waiting.context["form"]["note"].value() == NOTE
    assert not Review.objects.exists()
    assert SESSION_FIELD not in reviewer.session
    form = {"verdict": "fake", "note": NOTE, "look": waiting.context["look"]}
    assert reviewer.post(page, form).status_code == HTTPStatus.FOUND
    assert [review.note for review in Review.objects.all()] == [NOTE]
    assertNotContains(reviewer.get(page), "Your review was not saved")


def test_it_waits_for_its_own_page_alone(reviewer: Client) -> None:
    detection, other = make_detection(0.9), make_detection(0.8)
    reviewer.post(LOGOUT)
    log_in(reviewer, reviewer.post(review_page(detection), {"verdict": "fake", "note": NOTE}))
    for page in (review_page(other), other.get_absolute_url(), detection.get_absolute_url()):
        assertNotContains(reviewer.get(page), "not saved")
    reviewer.head(review_page(detection))
    assertContains(reviewer.get(review_page(detection)), "Your review was not saved")


def test_nothing_is_kept_for_whoever_does_not_log_in(client: Client) -> None:
    client.post(review_page(make_detection(0.9)), {"verdict": "fake", "note": NOTE})
    assert not Session.objects.exists()


def test_an_account_that_may_not_enter_is_told_so_beside_what_it_sent(client: Client) -> None:
    client.force_login(make_user("otto"))
    refused = client.post(review_page(make_detection(0.9)), {"verdict": "fake", "note": NOTE})
    for words in ("You are authenticated as otto, but are not authorized", "Two left ears"):
        assertContains(refused, words, status_code=HTTPStatus.FORBIDDEN)


def test_a_log_in_without_anything_unsent_says_nothing_of_it(client: Client) -> None:
    make_user("ada")
    for address in (LOGIN, ADMIN_LOGIN):
        assertNotContains(client.get(address), "unsent")
        assertNotContains(client.post(address, {"username": "ada", "password": "wrong"}), "unsent")
    client.post(LOGIN, {"username": "ada", "password": PASSWORD})
    assert SESSION_FIELD not in client.session


def test_an_objection_waits_on_its_page_behind_the_log_in(client: Client) -> None:
    ada = make_user("ada")
    detection = make_detection(0.9, owner=ada)
    refused = client.post(appeal_address(detection), {"sentence": "It is me."})
    for words in ("What you sent was not saved", "“<bdi>It is me.</bdi>”", "Without an account it can’t be sent"):
        assertContains(refused, words, status_code=HTTPStatus.FORBIDDEN)
    again = log_in(client, refused, password="wrong", name="ada")
    assertContains(again, "“<bdi>It is me.</bdi>”")
    assertRedirects(log_in(client, again, name="ada"), detection.get_absolute_url(), fetch_redirect_response=False)
    waiting = client.get(detection.get_absolute_url())
    assertContains(waiting, "This was not saved: your session had ended.")
    assertContains(waiting, 'value="It is me."')
    detection.refresh_from_db()
    assert detection.appealed_at is None
    client.post(appeal_address(detection), {"sentence": "It is me."})
    detection.refresh_from_db()
    assert detection.appeal_text == "It is me."


def test_a_script_is_told_in_a_sentence(client: Client) -> None:
    response = client.post(appeal_address(make_detection()), headers={"Accept": "application/json"})
    assert response.status_code == HTTPStatus.FORBIDDEN
    assert "the session has ended" in response.json()["error"]


def test_without_a_session_every_detection_looks_the_same(client: Client) -> None:
    theirs = make_detection(owner=make_user("ada"))
    gone = make_detection(session_key="f" * 40)
    key = gone.pk
    gone.delete()
    answers = [
        client.post(reverse("detector:detection-appeal", args=[pk]), {"sentence": "It is me."})
        for pk in (theirs.pk, key)
    ]
    assert [answer.status_code for answer in answers] == [HTTPStatus.FORBIDDEN] * 2
    first, second = (answer.context["unsent"]["unsent_text"] for answer in answers)
    assert first == second == "It is me."


def test_a_visitor_whose_photo_was_deleted_is_not_asked_to_log_in(visitor: Client) -> None:
    detection = make_detection(session_key=VISITOR_KEY)
    address = appeal_address(detection)
    detection.delete()
    assert visitor.post(address, {"sentence": "It is me."}).status_code == HTTPStatus.NOT_FOUND
