import time
from http import HTTPStatus
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from pytest_django import Settings
from pytest_django.asserts import assertContains, assertNotContains, assertRedirects

from detector.models import Detection
from detector.predictor import Prediction
from detector.tests.factories import FakePredictor, make_detection, make_upload, make_user
from detector.visitors import CLAIMED_FIELD, LATE_FOR_S, RENEWED_FIELD, SESSION_FIELD

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("limiter")]

UPLOAD = reverse("detector:upload")
HISTORY = reverse("detector:history")
LOGIN = reverse("login")
LOGOUT = reverse("logout")
SIGNUP = reverse("signup")
PASSWORD = "correct horse battery"
NEW_ACCOUNT = {"username": "ada", "password1": PASSWORD, "password2": PASSWORD}


def upload(client: Client) -> Detection:
    assert client.post(UPLOAD, {"picture": make_upload()}).status_code == HTTPStatus.FOUND
    return Detection.objects.newest_first()[0]


def log_in(client: Client, username: str = "ada", password: str = PASSWORD, **extra: str) -> Any:
    return client.post(LOGIN, {"username": username, "password": password, **extra})


def test_signing_up_logs_in(client: Client) -> None:
    make_user("grace")  # who has another name, so it is not taken
    assertContains(client.get(SIGNUP), "Sign up")
    assertRedirects(client.post(SIGNUP, NEW_ACCOUNT), UPLOAD)
    assert client.session["_auth_user_id"] == str(User.objects.get(username="ada").pk)


def test_a_forgotten_password_and_one_to_change_lead_on(client: Client) -> None:
    assertContains(client.get(LOGIN), "Forgot your password? Ask whoever runs this site")
    change = f'<a href="{reverse("password_change")}">Change password</a>'
    assertNotContains(client.get(HISTORY), change)
    client.force_login(make_user())
    assertContains(client.get(HISTORY), change)


@pytest.mark.parametrize(
    "mistake",
    [
        {"username": ""},
        {"username": "grace"},
        {"username": "GRACE"},
        {"password2": "something else"},
        {"password1": "12345678", "password2": "12345678"},
        {"password1": "short", "password2": "short"},
    ],
)
def test_a_sign_up_with_a_mistake_makes_no_account(client: Client, mistake: dict[str, str]) -> None:
    make_user("grace")
    response = client.post(SIGNUP, NEW_ACCOUNT | mistake)
    assert response.status_code == HTTPStatus.OK
    assert response.context["form"].errors
    assert User.objects.count() == 1


def test_a_new_account_has_no_rights(client: Client) -> None:
    client.post(SIGNUP, NEW_ACCOUNT | {"is_staff": "on", "is_superuser": "on"})
    user = User.objects.get(username="ada")
    assert (user.is_staff, user.is_superuser) == (False, False)


def test_sign_up_can_be_switched_off(client: Client, settings: Settings) -> None:
    settings.SIGNUP_ENABLED = False
    assert client.get(SIGNUP).status_code == HTTPStatus.NOT_FOUND
    assert client.post(SIGNUP, NEW_ACCOUNT).status_code == HTTPStatus.NOT_FOUND
    assert not User.objects.exists()


@pytest.mark.parametrize("method", ["put", "delete"])
def test_sign_up_takes_get_and_post_only(client: Client, method: str) -> None:
    assert getattr(client, method)(SIGNUP).status_code == HTTPStatus.METHOD_NOT_ALLOWED


@pytest.mark.parametrize("faster", ["ada", "ADA"])
def test_of_two_who_sign_up_at_once_with_a_name_one_gets_it(
    client: Client, monkeypatch: pytest.MonkeyPatch, faster: str
) -> None:
    set_password = User.set_password

    def come_second(user: User, password: str) -> None:
        monkeypatch.setattr(User, "set_password", set_password)
        make_user(faster)
        user.set_password(password)

    monkeypatch.setattr(User, "set_password", come_second)
    assertContains(client.post(SIGNUP, NEW_ACCOUNT), "A user with that username already exists.")
    assert User.objects.count() == 1
    assert "_auth_user_id" not in client.session


@pytest.mark.parametrize("page", [LOGIN, SIGNUP, f"{LOGIN}?next={LOGIN}", f"{SIGNUP}?next={SIGNUP}"])
def test_who_is_logged_in_needs_neither_page(client: Client, page: str) -> None:
    client.force_login(make_user())
    assertRedirects(client.get(page), UPLOAD)


@pytest.mark.parametrize(
    ("wanted", "reached"),
    [
        (HISTORY, HISTORY),
        ("", UPLOAD),
        ("https://evil.example/", UPLOAD),
        ("//evil.example/", UPLOAD),
        ("javascript:alert(1)", UPLOAD),
    ],
)
def test_after_log_in_and_sign_up_one_stays_on_the_site(client: Client, wanted: str, reached: str) -> None:
    assertRedirects(client.post(SIGNUP, NEW_ACCOUNT | {"next": wanted}), reached)
    client.post(LOGOUT)
    assertRedirects(log_in(client, next=wanted), reached)


@pytest.mark.parametrize("wanted", ["somewhere", "logout", "detector:history"])
def test_a_place_to_go_to_is_an_address_and_no_name_of_ours(client: Client, wanted: str) -> None:
    signed_up = client.post(SIGNUP, NEW_ACCOUNT | {"next": wanted})
    client.post(LOGOUT)
    assert signed_up.headers["Location"] == log_in(client, next=wanted).headers["Location"]


def test_a_wrong_password_does_not_log_in(client: Client) -> None:
    make_user("ada")
    response = log_in(client, password="wrong")
    assert response.context["form"].errors
    assert "_auth_user_id" not in client.session


def test_logging_out_needs_post(client: Client) -> None:
    client.force_login(make_user())
    assert client.get(LOGOUT).status_code == HTTPStatus.METHOD_NOT_ALLOWED
    assertRedirects(client.post(LOGOUT), UPLOAD)
    assert "_auth_user_id" not in client.session


@pytest.mark.usefixtures("predictor")
class TestClaiming:
    """What somebody uploaded before they had an account, or before they said which, becomes the account's."""

    def test_by_logging_in(self, client: Client) -> None:
        ada = make_user("ada")
        detection = upload(client)
        key_before = client.session.session_key
        log_in(client)
        assert client.session.session_key != key_before
        detection.refresh_from_db()
        assert (detection.owner, detection.session_key) == (ada, "")
        assertContains(client.get(HISTORY), detection.get_absolute_url())
        assert SESSION_FIELD not in client.session

    def test_by_signing_up(self, client: Client) -> None:
        detection = upload(client)
        client.post(SIGNUP, NEW_ACCOUNT)
        detection.refresh_from_db()
        assert detection.owner == User.objects.get(username="ada")

    def test_by_logging_in_to_the_admin(self, client: Client) -> None:
        make_user("ada", is_staff=True)
        detection = upload(client)
        client.post(reverse("admin:login"), {"username": "ada", "password": PASSWORD})
        detection.refresh_from_db()
        assert detection.owner == User.objects.get(username="ada")

    def test_takes_only_the_session_s_own(self, client: Client) -> None:
        make_user("ada")
        others = [make_detection(session_key="f" * 40), make_detection(owner=make_user("grace"))]
        upload(client)
        log_in(client)
        for detection in others:
            owner, key = detection.owner, detection.session_key
            detection.refresh_from_db()
            assert (detection.owner, detection.session_key) == (owner, key)

    def test_needs_the_right_password(self, client: Client) -> None:
        make_user("ada")
        detection = upload(client)
        log_in(client, password="wrong")
        detection.refresh_from_db()
        assert detection.owner is None
        assert client.get(detection.get_absolute_url()).status_code == HTTPStatus.OK

    def test_leaves_nothing_for_whoever_uses_the_browser_next(self, client: Client) -> None:
        make_user("ada")
        detection = upload(client)
        log_in(client)
        client.post(LOGOUT)
        assert client.get(detection.get_absolute_url()).status_code == HTTPStatus.NOT_FOUND
        upload(client)
        make_user("grace")
        log_in(client, "grace")
        detection.refresh_from_db()
        assert detection.owner == User.objects.get(username="ada")
        assert Detection.objects.filter(owner__username="grace").count() == 1

    @pytest.mark.parametrize("page", ["result", "history"])
    @pytest.mark.parametrize("is_renewed", [False, True])
    def test_of_an_upload_that_is_under_way_meanwhile(
        self, client: Client, predictor: FakePredictor, monkeypatch: pytest.MonkeyPatch, page: str, is_renewed: bool
    ) -> None:
        ada = make_user("ada")
        upload(client)
        if is_renewed:  # the upload then writes to the session, which the log-in ends
            session = client.session
            session[RENEWED_FIELD] = 0
            session.save()
        other_tab = Client()
        other_tab.cookies.update(client.cookies)
        predict = predictor.predict

        def log_in_first(*args: Any, **kwargs: Any) -> Prediction:
            log_in(other_tab)
            return predict(*args, **kwargs)

        monkeypatch.setattr(predictor, "predict", log_in_first)
        detection = upload(client)
        assert detection.owner is None
        address = detection.get_absolute_url() if page == "result" else HISTORY
        assertContains(other_tab.get(address), detection.get_absolute_url())
        claimed = Detection.objects.get(pk=detection.pk)
        assert (claimed.owner, claimed.session_key) == (ada, "")

    def test_ends_some_minutes_after_the_log_in(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        make_user("ada")
        key = upload(client).session_key
        log_in(client)
        later = time.time() + LATE_FOR_S + 1
        monkeypatch.setattr(time, "time", lambda: later)
        late = make_detection(session_key=key)
        assert client.get(late.get_absolute_url()).status_code == HTTPStatus.NOT_FOUND
        assert CLAIMED_FIELD not in client.session
