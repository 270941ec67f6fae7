"""Log-ins and sign-ups are counted, sessions are hardened, and nothing of it keeps an address or a name."""

import logging
import os
import subprocess
import sys
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from axes.models import AccessAttempt, AccessFailureLog, AccessLog
from django.conf import settings as site_settings
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings
from pytest_django.asserts import assertContains, assertNotContains, assertRedirects, assertTemplateUsed

from deepfake_site.settings import redis_cache
from detector import throttling
from detector.private_redis import PrivateRedis
from detector.tests.factories import make_user

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).parents[2]
PASSWORD_CHANGE = reverse("password_change")
LOGIN, ADMIN_LOGIN, SIGNUP = reverse("login"), reverse("admin:login"), reverse("signup")
PASSWORD = "correct horse battery"
HERE, ELSEWHERE = "192.0.2.10", "198.51.100.20"
NAME_OF_NOBODY = "a-name-that-was-only-tried"


def attempt(password: str = "wrong", name: str = "ada", address: str = HERE, page: str = LOGIN, **extra: Any) -> Any:
    """The answer to one log-in from a new browser."""
    return Client(REMOTE_ADDR=address).post(page, {"username": name, "password": password}, **extra)


def succeeded(response: Any) -> bool:
    return response.status_code == HTTPStatus.FOUND and "_auth_user_id" in response.client.session


@pytest.fixture
def ada() -> User:
    return make_user("ada", is_staff=True)


@pytest.fixture
def redis_counter(settings: Settings, redis_server: PrivateRedis) -> PrivateRedis:
    settings.CACHES = {**settings.CACHES, "ratelimit": redis_cache(redis_server.url, ignore_exceptions=False)}
    return redis_server


@pytest.mark.usefixtures("limiter", "ada")
class TestGuessing:
    @pytest.mark.parametrize("page", [LOGIN, ADMIN_LOGIN])
    def test_after_five_wrong_passwords_even_the_right_one_is_refused(self, page: str) -> None:
        statuses = [attempt(page=page).status_code for _ in range(5)]
        assert statuses == [HTTPStatus.OK] * 4 + [HTTPStatus.TOO_MANY_REQUESTS]
        refused = attempt(PASSWORD, page=page)
        assert refused.status_code == HTTPStatus.TOO_MANY_REQUESTS
        assert "_auth_user_id" not in refused.client.session

    def test_the_two_log_in_pages_count_together(self) -> None:
        for number in range(5):
            attempt(page=(LOGIN, ADMIN_LOGIN)[number % 2])
        assert not succeeded(attempt(PASSWORD))
        assert not succeeded(attempt(PASSWORD, page=ADMIN_LOGIN))

    def test_the_refusal_is_a_page_that_says_how_long(self) -> None:
        for _ in range(5):
            response = attempt()
        assertTemplateUsed(response, "registration/limited.html")
        assertContains(response, "15 min", status_code=HTTPStatus.TOO_MANY_REQUESTS)
        assert response["Retry-After"] == "900"
        assert response["Cache-Control"] == "no-store"
        script = attempt(headers={"accept": "application/json"})
        assert script.json() == {
            "error": "Those were too many attempts. Try again in 15 min.",
            "retry_after": 900,
        }

    def test_nobody_is_locked_out_by_somebody_elsewhere(self) -> None:
        for _ in range(6):
            attempt(address=ELSEWHERE)
        assert succeeded(attempt(PASSWORD, address=HERE))

    def test_another_name_from_the_same_network_is_not_locked(self) -> None:
        make_user("grace")
        for _ in range(6):
            attempt()
        assert succeeded(attempt(PASSWORD, name="grace"))

    def test_one_network_is_one_however_its_addresses_are_written(self) -> None:
        for number in range(5):
            attempt(address=f"2001:db8:1:2::{number}")
        assert attempt(PASSWORD, address="2001:db8:1:2:ffff::1").status_code == HTTPStatus.TOO_MANY_REQUESTS
        assert succeeded(attempt(PASSWORD, address="2001:db8:1:3::1"))

    def test_a_forged_header_buys_no_attempts(self) -> None:
        for number in range(5):
            attempt(headers={"x-forwarded-for": f"203.0.113.{number}"})
        assert attempt(PASSWORD).status_code == HTTPStatus.TOO_MANY_REQUESTS

    def test_the_right_password_starts_the_count_again(self) -> None:
        for _ in range(3):
            assert [attempt().status_code for _ in range(4)] == [HTTPStatus.OK] * 4
            assert succeeded(attempt(PASSWORD))

    def test_trying_many_names_is_limited_too(self, settings: Settings) -> None:
        settings.LOGIN_RATE = "8/h"
        statuses = [attempt(name=f"name{number}").status_code for number in range(9)]
        assert statuses == [HTTPStatus.OK] * 8 + [HTTPStatus.TOO_MANY_REQUESTS]
        refused = attempt(PASSWORD)
        assert refused.status_code == HTTPStatus.TOO_MANY_REQUESTS
        assert 3500 < int(refused["Retry-After"]) <= 3600
        assert succeeded(attempt(PASSWORD, address=ELSEWHERE))

    def test_guessing_one_name_from_many_networks_is_limited_too(self, settings: Settings) -> None:
        settings.LOGIN_NAME_RATE = "8/h"
        statuses = [attempt(address=f"203.0.113.{number}").status_code for number in range(9)]
        assert statuses == [HTTPStatus.OK] * 8 + [HTTPStatus.TOO_MANY_REQUESTS]
        refused = attempt(PASSWORD, address=ELSEWHERE)
        assert refused.status_code == HTTPStatus.TOO_MANY_REQUESTS
        assert 3500 < int(refused["Retry-After"]) <= 3600
        make_user("grace")
        assert succeeded(attempt(PASSWORD, name="grace", address=ELSEWHERE))

    def test_who_is_attacked_from_everywhere_can_log_in_where_they_always_do(self, settings: Settings) -> None:
        settings.LOGIN_NAME_RATE = "3/h"
        assert succeeded(attempt(PASSWORD, address=HERE))
        for number in range(6):
            attempt(address=f"203.0.113.{number}")
        assert not succeeded(attempt(PASSWORD, address=ELSEWHERE))
        assert attempt("mistyped", address=HERE).status_code == HTTPStatus.OK
        assert succeeded(attempt(PASSWORD, address=HERE))

    def test_a_network_is_known_for_the_name_that_logged_in_there_alone(self, settings: Settings) -> None:
        settings.LOGIN_NAME_RATE = "3/h"
        make_user("mallory")
        assert succeeded(attempt(PASSWORD, name="mallory", address=ELSEWHERE))
        for number in range(3):
            attempt(address=f"203.0.113.{number}")
        assert attempt(PASSWORD, address=ELSEWHERE).status_code == HTTPStatus.TOO_MANY_REQUESTS

    def test_who_signed_up_somewhere_is_known_there(self, settings: Settings) -> None:
        settings.LOGIN_NAME_RATE = "3/h"
        form = {"username": "new", "password1": PASSWORD, "password2": PASSWORD}
        assert Client(REMOTE_ADDR=HERE).post(SIGNUP, form).status_code == HTTPStatus.FOUND
        for number in range(4):
            attempt(name="new", address=f"203.0.113.{number}")
        assert succeeded(attempt(PASSWORD, name="new", address=HERE))

    def test_how_long_a_network_is_known_is_told(self) -> None:
        days = throttling.KNOWN_NETWORK_S // (24 * 3600)
        assertContains(Client().get(reverse("detector:about")), f"for {days} days where you have logged in")

    def test_what_is_refused_for_its_network_does_not_use_up_the_name(self, settings: Settings) -> None:
        settings.LOGIN_NAME_RATE = "8/h"
        for _ in range(20):
            attempt(address=HERE)
        assert succeeded(attempt(PASSWORD, address=ELSEWHERE))

    def test_how_often_and_how_long_are_settings(self, settings: Settings) -> None:
        settings.LOGIN_FAILURE_RATE = "2/30s"
        assert [attempt().status_code for _ in range(2)] == [HTTPStatus.OK, HTTPStatus.TOO_MANY_REQUESTS]
        assert attempt(PASSWORD)["Retry-After"] == "30"


NEW_PASSWORD = "another horse battery"


def change_password(client: Client, old: str, **extra: Any) -> Any:
    form = {"old_password": old, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    return client.post(PASSWORD_CHANGE, form, REMOTE_ADDR=HERE, **extra)


@pytest.mark.usefixtures("limiter")
class TestChangingThePassword:
    """Whoever finds a browser in which somebody is logged in must not be able to try out passwords in it."""

    @pytest.fixture
    def inside(self, ada: User) -> Client:
        client = Client(REMOTE_ADDR=HERE)
        client.force_login(ada)
        return client

    def test_five_wrong_ones_are_too_many_even_for_the_right_one(self, inside: Client, ada: User) -> None:
        statuses = [change_password(inside, "wrong").status_code for _ in range(5)]
        assert statuses == [HTTPStatus.OK] * 4 + [HTTPStatus.TOO_MANY_REQUESTS]
        refused = change_password(inside, PASSWORD)
        assert refused.status_code == HTTPStatus.TOO_MANY_REQUESTS
        assert int(refused["Retry-After"]) > 0
        ada.refresh_from_db()
        assert ada.check_password(PASSWORD)

    def test_they_count_together_with_log_ins(self, inside: Client) -> None:
        for _ in range(4):
            attempt()
        assert change_password(inside, "wrong").status_code == HTTPStatus.TOO_MANY_REQUESTS
        assert not succeeded(attempt(PASSWORD))

    def test_the_right_one_changes_it_and_logs_other_browsers_out(self, inside: Client, ada: User) -> None:
        elsewhere = Client()
        elsewhere.force_login(ada)
        assertContains(change_password(inside, PASSWORD, follow=True), "Your password was changed")
        assert "_auth_user_id" in inside.session
        assert elsewhere.get(PASSWORD_CHANGE).status_code == HTTPStatus.FOUND
        assert not succeeded(attempt(PASSWORD))
        assert succeeded(attempt(NEW_PASSWORD))

    def test_the_admin_has_no_form_of_its_own(self, inside: Client) -> None:
        assertRedirects(inside.get(reverse("admin:password_change")), PASSWORD_CHANGE)
        before = User.objects.get(username="ada").password
        form = {"old_password": PASSWORD, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
        assertRedirects(inside.post(reverse("admin:password_change"), form), PASSWORD_CHANGE)
        assert User.objects.get(username="ada").password == before

    @pytest.mark.redis
    def test_without_redis_no_guess_is_taken(self, redis_counter: PrivateRedis, inside: Client, ada: User) -> None:
        redis_counter.kill()
        refused = change_password(inside, PASSWORD)
        assertContains(refused, "change a password just now", status_code=HTTPStatus.SERVICE_UNAVAILABLE)
        assertContains(refused, f'href="{PASSWORD_CHANGE}">Try again', status_code=HTTPStatus.SERVICE_UNAVAILABLE)
        ada.refresh_from_db()
        assert ada.check_password(PASSWORD)


@pytest.mark.usefixtures("limiter")
def test_sign_ups_are_counted_by_network_right_or_wrong(settings: Settings) -> None:
    settings.SIGNUP_RATE = "3/h"
    forms = [{"username": f"new{n}", "password1": PASSWORD, "password2": PASSWORD} for n in range(5)]
    answers = [Client(REMOTE_ADDR=HERE).post(SIGNUP, form if n else {}) for n, form in enumerate(forms)]
    assert [answer.status_code for answer in answers] == [200, 302, 302, 429, 429]
    assertContains(answers[3], "Too many attempts", status_code=HTTPStatus.TOO_MANY_REQUESTS)
    assertNotContains(answers[3], "password", status_code=HTTPStatus.TOO_MANY_REQUESTS)
    assert 1 <= int(answers[3]["Retry-After"]) <= 3600
    assert set(User.objects.values_list("username", flat=True)) == {"new1", "new2"}
    assert Client(REMOTE_ADDR=ELSEWHERE).post(SIGNUP, forms[4]).status_code == HTTPStatus.FOUND
    assert Client(REMOTE_ADDR=HERE).get(SIGNUP).status_code == HTTPStatus.OK


@pytest.mark.redis
class TestRedis:
    def test_counts_and_unlocks_by_itself(self, redis_counter: PrivateRedis, ada: User, settings: Settings) -> None:
        for _ in range(5):
            response = attempt()
        assert response.status_code == HTTPStatus.TOO_MANY_REQUESTS
        cache: Any = caches["ratelimit"]
        lock = [key for key in cache.keys("*") if key.startswith("axes-")]
        assert len(lock) == 1
        assert 0 < cache.ttl(lock[0]) <= timedelta(minutes=15).total_seconds()
        attempt(PASSWORD)
        cache.delete(lock[0])  # as time does
        assert succeeded(attempt(PASSWORD))

    @pytest.mark.parametrize("page", [LOGIN, ADMIN_LOGIN])
    def test_without_it_nobody_logs_in_and_the_page_says_so(
        self, redis_counter: PrivateRedis, ada: User, page: str, logged: list[str]
    ) -> None:
        inside = Client()
        inside.force_login(ada)
        redis_counter.kill()
        for password in ("wrong", PASSWORD):
            refused = attempt(password, page=page)
            assert refused.status_code == HTTPStatus.SERVICE_UNAVAILABLE
            assert refused["Retry-After"] == "30"
            assertTemplateUsed(refused, "registration/unavailable.html")
            assert "_auth_user_id" not in refused.client.session
        assert any("Nobody can log in" in message for message in logged)
        assert inside.get(reverse("admin:index")).status_code == HTTPStatus.OK
        form = {"username": "new", "password1": PASSWORD, "password2": PASSWORD}
        assert Client().post(SIGNUP, form).status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert not User.objects.filter(username="new").exists()
        assert inside.post(reverse("logout")).status_code == HTTPStatus.FOUND
        redis_counter.start()
        assert succeeded(attempt(PASSWORD, page=page))


@pytest.mark.redis
def test_no_address_and_no_tried_name_is_kept_or_logged(redis_counter: PrivateRedis, ada: User) -> None:
    records: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(self.format(record))

    collector = Collector()
    loggers = [logging.getLogger(name) for name in ("", "axes", "django", "detector")]
    for logger in loggers:
        logger.addHandler(collector)
    try:
        for _ in range(6):
            attempt(name=NAME_OF_NOBODY)
        attempt(PASSWORD)
    finally:
        for logger in loggers:
            logger.removeHandler(collector)
    assert any("AXES: Locking out" in record for record in records), "what is searched is not empty"
    cache: Any = caches["ratelimit"]
    kept = [f"{key}={cache.get(key)}" for key in cache.keys("*")]
    assert kept
    kept += [str(row) for row in Session.objects.values_list("session_data", flat=True)]
    kept += [str(session.get_decoded()) for session in Session.objects.all()]
    for text in (*records, *kept):
        assert HERE not in text
        assert NAME_OF_NOBODY not in text
    for table in (AccessAttempt, AccessFailureLog, AccessLog):
        assert not table.objects.exists()


@pytest.mark.usefixtures("limiter")
class TestSessions:
    def test_a_planted_session_does_not_become_the_account_s(self, ada: User) -> None:
        """Session fixation: whoever gave the victim its cookie must not be logged in by the victim."""
        attacker = Client()
        session = attacker.session
        session["mine"] = True
        session.save()
        assert session.session_key
        victim = Client()
        victim.cookies[site_settings.SESSION_COOKIE_NAME] = session.session_key
        assert victim.post(LOGIN, {"username": "ada", "password": PASSWORD}).status_code == HTTPStatus.FOUND
        assert victim.cookies[site_settings.SESSION_COOKIE_NAME].value != session.session_key
        attacker.cookies[site_settings.SESSION_COOKIE_NAME] = session.session_key
        assert "_auth_user_id" not in attacker.session
        assert attacker.get(reverse("admin:index")).status_code == HTTPStatus.FOUND

    def test_logging_out_ends_the_session_on_the_server(self, ada: User) -> None:
        client = Client()
        client.post(LOGIN, {"username": "ada", "password": PASSWORD})
        stolen = client.cookies[site_settings.SESSION_COOKIE_NAME].value
        client.post(reverse("logout"))
        thief = Client()
        thief.cookies[site_settings.SESSION_COOKIE_NAME] = stolen
        assert thief.get(reverse("admin:index")).status_code == HTTPStatus.FOUND
        assert not Session.objects.filter(session_key=stolen).exists()

    def test_a_new_password_ends_the_account_s_other_sessions(self, ada: User) -> None:
        elsewhere = Client()
        elsewhere.force_login(ada)
        ada.set_password("another horse battery")
        ada.save()
        assert elsewhere.get(reverse("admin:index")).status_code == HTTPStatus.FOUND

    @pytest.mark.parametrize(("is_staff", "lasts"), [(True, timedelta(hours=12)), (False, timedelta(days=14))])
    def test_a_session_ends_after_a_while_and_a_reviewer_s_the_same_day(self, is_staff: bool, lasts: timedelta) -> None:
        make_user("grace", is_staff=is_staff)
        client = Client()
        client.post(LOGIN, {"username": "grace", "password": PASSWORD})
        assert client.cookies[site_settings.SESSION_COOKIE_NAME]["max-age"] == lasts.total_seconds()
        expires = Session.objects.get().expire_date
        assert abs(expires - timezone.now() - lasts) < timedelta(minutes=5)
        Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
        assert "_auth_user_id" not in client.session

    def test_cookies_are_out_of_reach_of_scripts_and_other_sites(self, ada: User) -> None:
        client = Client()
        client.get(LOGIN)
        client.post(LOGIN, {"username": "ada", "password": PASSWORD})
        for name in (site_settings.SESSION_COOKIE_NAME, site_settings.CSRF_COOKIE_NAME):
            cookie = client.cookies[name]
            assert cookie["httponly"] is True
            assert cookie["samesite"] == "Lax"
            assert (cookie["path"], cookie["domain"]) == ("/", "")


def test_over_https_cookies_are_secure_and_of_this_host_alone() -> None:
    program = """
from deepfake_site import settings as s
print(s.SESSION_COOKIE_NAME, s.SESSION_COOKIE_SECURE)
print(s.CSRF_COOKIE_NAME, s.CSRF_COOKIE_SECURE)
print(s.OFFER_COOKIE_NAME)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "HTTPS": "true", "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == ["__Host-sessionid True", "__Host-csrftoken True", "__Host-visitor"]
