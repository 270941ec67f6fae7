"""What holds for the site as a whole."""

import json
from http import HTTPStatus

import pytest
from django.conf import settings as site_settings
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries, Settings

PAGES = [reverse(name) for name in ("detector:upload", "detector:history", "detector:about", "login", "signup")]


def test_healthz_answers_without_database_and_redis(client: Client) -> None:
    response = client.get(reverse("detector:healthz"))
    assert response.status_code == HTTPStatus.OK
    assert json.loads(response.content) == {"status": "ok"}
    assert "no-store" in response["Cache-Control"]
    refused = client.post(reverse("detector:healthz"))
    assert (refused.status_code, refused["Allow"]) == (HTTPStatus.METHOD_NOT_ALLOWED, "GET, HEAD")


def test_browsers_that_guess_find_the_icon(client: Client) -> None:
    response = client.get("/favicon.ico")
    assert (response.status_code, response["Location"]) == (HTTPStatus.FOUND, "/static/detector/icon.svg")
    assert client.post("/favicon.ico").status_code == HTTPStatus.METHOD_NOT_ALLOWED


@pytest.mark.django_db
@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_sent_with_the_headers_that_protect_it(client: Client, page: str) -> None:
    response = client.get(page)
    policy = response["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["X-Frame-Options"] == "DENY"
    assert response["Referrer-Policy"] == "same-origin"
    content = response.content.decode()
    assert " style=" not in content
    assert "<style" not in content
    assert " onclick=" not in content


@pytest.mark.django_db
@pytest.mark.parametrize("cookie", [r'"\000aaaaaaaaaaa"', r'"\377\376aaaaaaaa"', "A" * 32, "a" * 41, "short", '""'])
def test_a_cookie_that_is_no_session_s_key_is_not_looked_for(
    client: Client, django_assert_num_queries: DjangoAssertNumQueries, cookie: str
) -> None:
    """The first one says zero byte, for which PostgreSQL has an error instead of an answer."""
    with django_assert_num_queries(0):
        response = client.get(reverse("detector:about"), headers={"cookie": f"sessionid={cookie}"})
    assert response.status_code == HTTPStatus.OK


def test_behind_https_everything_else_is_redirected_but_the_health_check(client: Client, settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    assert client.get("/about/").status_code == HTTPStatus.MOVED_PERMANENTLY
    assert client.get("/healthz").status_code == HTTPStatus.OK


def test_without_a_proxy_nobody_can_claim_to_come_by_https(client: Client, settings: Settings) -> None:
    assert site_settings.SECURE_PROXY_SSL_HEADER is None
    settings.SECURE_SSL_REDIRECT = True
    assert client.get("/about/", headers={"x-forwarded-proto": "https"}).status_code == HTTPStatus.MOVED_PERMANENTLY


def test_a_foreign_host_name_is_refused(client: Client) -> None:
    assert client.get("/about/", headers={"host": "evil.example"}).status_code == HTTPStatus.BAD_REQUEST
