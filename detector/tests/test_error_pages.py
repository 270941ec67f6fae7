import json
from http import HTTPStatus
from uuid import UUID

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import BadRequest, PermissionDenied
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from pytest_django import Settings
from pytest_django.asserts import assertTemplateUsed

from deepfake_site import urls as site

JSON = {"accept": "application/json"}


def break_down(request: HttpRequest, fault: str) -> HttpResponse:
    raise {
        "bad": BadRequest("secret detail"),
        "denied": PermissionDenied("secret detail"),
        "broken": RuntimeError("secret detail"),
    }[fault]


def remember(request: HttpRequest) -> HttpResponse:
    request.session["seen"] = True
    return HttpResponse("remembered")


urlpatterns = [*site.urlpatterns, path("break/<str:fault>/", break_down), path("remember/", remember)]
handler400, handler403, handler404, handler500 = site.handler400, site.handler403, site.handler404, site.handler500

FAULTS = [
    ("/break/bad/", HTTPStatus.BAD_REQUEST, "400.html"),
    ("/break/denied/", HTTPStatus.FORBIDDEN, "403.html"),
    ("/nowhere/", HTTPStatus.NOT_FOUND, "404.html"),
    ("/detections/not-a-uuid/", HTTPStatus.NOT_FOUND, "404.html"),
    (f"/detections/{UUID(int=0)}/delete/", HTTPStatus.METHOD_NOT_ALLOWED, "405.html"),
    ("/break/broken/", HTTPStatus.INTERNAL_SERVER_ERROR, "500.html"),
]


@pytest.fixture
def calm_client(settings: Settings) -> Client:
    """A client that shows the error page instead of raising the error."""
    settings.ROOT_URLCONF = __name__
    return Client(raise_request_exception=False)


@pytest.mark.django_db
@pytest.mark.parametrize(("address", "status", "template"), FAULTS)
def test_an_error_has_a_page_that_gives_nothing_away(
    calm_client: Client, address: str, status: int, template: str
) -> None:
    response = calm_client.get(address)
    assert response.status_code == status
    assertTemplateUsed(response, template)
    assert response["Content-Type"].startswith("text/html")
    assert "secret detail" not in response.content.decode()
    assert "Content-Security-Policy" in response


@pytest.mark.django_db
@pytest.mark.parametrize(("address", "status", "template"), FAULTS)
def test_a_script_gets_a_sentence(calm_client: Client, address: str, status: int, template: str) -> None:
    response = calm_client.get(address, headers=JSON)
    assert response.status_code == status
    error = json.loads(response.content)["error"]
    assert error.endswith(".")
    assert "secret detail" not in error


def test_an_address_that_is_not_set_up_says_so_and_not_which(calm_client: Client) -> None:
    for accept in ("text/html", "application/json"):
        response = calm_client.get("/", headers={"host": "faces.example.org", "accept": accept})
        assert response.status_code == HTTPStatus.BAD_REQUEST
        content = response.content.decode()
        assert "not set up for this address" in content
        assert "ALLOWED_HOSTS" in content
        assert "malformed" not in content
        assert "faces.example" not in content


def test_the_page_for_a_fault_needs_no_database(calm_client: Client) -> None:
    assert calm_client.get("/break/broken/").status_code == HTTPStatus.INTERNAL_SERVER_ERROR


def test_the_page_for_a_fault_claims_nothing_of_a_photo(calm_client: Client) -> None:
    """It may have come behind an upload that is stored."""
    page = calm_client.get("/break/broken/").content.decode()
    assert "No verdict" not in page
    assert "look first whether it is in your history" in page


@pytest.mark.django_db
def test_the_page_for_a_missing_page_says_who_sees_a_result(calm_client: Client) -> None:
    page = calm_client.get("/nowhere/").content.decode()
    assert "only to the person who uploaded it, and to this site’s reviewers" in page


@pytest.mark.django_db
def test_the_page_for_a_missing_page_knows_who_is_logged_in(calm_client: Client, admin_user: object) -> None:
    calm_client.force_login(admin_user)  # type: ignore[arg-type]
    assert "admin" in calm_client.get("/nowhere/").content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (OperationalError("server closed the connection"), HTTPStatus.SERVICE_UNAVAILABLE),
        (RuntimeError("anything else"), HTTPStatus.INTERNAL_SERVER_ERROR),
    ],
)
def test_a_session_that_cannot_be_saved_is_an_outage_too(
    calm_client: Client, monkeypatch: pytest.MonkeyPatch, fault: Exception, status: HTTPStatus
) -> None:
    assert calm_client.get("/remember/").content == b"remembered"

    def fail(*_args: object, **_kwargs: object) -> None:
        raise fault

    monkeypatch.setattr(SessionStore, "save", fail)
    response = calm_client.get("/remember/")

    assert response.status_code == status
    assert ("Retry-After" in response) == (status == HTTPStatus.SERVICE_UNAVAILABLE)
