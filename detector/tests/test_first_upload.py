"""A visitor's first upload is theirs even if its answer, and the session's cookie with it, never reached them."""

import copy
import time
from datetime import timedelta
from http import HTTPStatus

import pytest
from django.conf import settings as site_settings
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from detector.models import Detection
from detector.tests.factories import make_upload, make_user
from detector.visitors import OFFERED_FOR_S, RENEW_AFTER_S

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("limiter", "predictor")]

URL = reverse("detector:upload")
OFFER = site_settings.OFFER_COOKIE_NAME


def upload_unanswered(client: Client) -> Detection:
    """Sends a picture and loses the answer: the browser keeps the cookies that it had before."""
    before = copy.deepcopy(client.cookies)
    known = set(Detection.objects.values_list("pk", flat=True))
    assert client.post(URL, {"picture": make_upload()}).status_code == HTTPStatus.FOUND
    client.cookies = before
    return Detection.objects.exclude(pk__in=known).get()


def test_a_first_upload_without_an_answer_can_be_found_and_deleted() -> None:
    client = Client()
    client.get(URL)
    detection = upload_unanswered(client)

    assert client.get(detection.get_absolute_url()).status_code == HTTPStatus.OK
    assert list(client.get(reverse("detector:history")).context["page_obj"]) == [detection]
    client.post(reverse("detector:detection-delete", args=[detection.pk]))
    assert not Detection.objects.exists()


def test_two_first_uploads_at_once_are_one_visitor_s() -> None:
    client = Client()
    client.get(URL)
    for _ in range(2):
        upload_unanswered(client)
    client.post(URL, {"picture": make_upload()})  # answered: from now on there is a session

    assert len(client.get(reverse("detector:history")).context["page_obj"]) == 3


def test_a_session_lasts_from_the_last_upload_on(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    client.post(URL, {"picture": make_upload()})
    soon = timezone.now() + timedelta(minutes=5)
    Session.objects.update(expire_date=soon)
    client.post(URL, {"picture": make_upload()})
    assert Session.objects.get().expire_date == soon, "a write to the database is saved within the hour"
    later = time.time() + RENEW_AFTER_S + 1
    monkeypatch.setattr("detector.visitors.time.time", lambda: later)
    client.post(URL, {"picture": make_upload()})
    assert Session.objects.get().expire_date > soon + timedelta(days=13)


def test_what_was_uploaded_without_an_answer_moves_to_the_account() -> None:
    client = Client()
    client.get(URL)
    detection = upload_unanswered(client)
    user = make_user("ada")
    client.post(reverse("login"), {"username": "ada", "password": "correct horse battery"})
    detection.refresh_from_db()

    assert (detection.owner, detection.session_key) == (user, "")


def test_the_key_is_offered_once_and_only_to_who_needs_one() -> None:
    client = Client()
    assert OFFER in client.get(URL).cookies
    assert OFFER not in client.get(URL).cookies
    client.post(URL, {"picture": make_upload()})
    del client.cookies[OFFER]
    assert OFFER not in client.get(URL).cookies, "the session has a key"
    account = Client()
    account.force_login(make_user())
    assert OFFER not in account.get(URL).cookies


def test_a_key_that_was_not_offered_or_long_ago_is_none(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.get(URL)
    detection = upload_unanswered(client)
    forged = Client()
    forged.cookies[OFFER] = detection.session_key
    assert forged.get(detection.get_absolute_url()).status_code == HTTPStatus.NOT_FOUND
    later = time.time() + OFFERED_FOR_S + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert client.get(detection.get_absolute_url()).status_code == HTTPStatus.NOT_FOUND


def test_the_offer_is_out_of_reach_of_scripts_and_other_sites() -> None:
    cookie = Client().get(URL).cookies[OFFER]
    assert cookie["httponly"] is True
    assert cookie["samesite"] == "Lax"
    assert (cookie["path"], cookie["domain"]) == ("/", "")
