"""Who may open, send and change what: every address of the project, five kinds of people, five methods."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from detector.models import Detection, Review
from detector.reviews import Look
from detector.tests.factories import make_detection, make_review, make_upload, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("limiter", "predictor")]

ROLES = ("anonymous", "owner", "other", "reviewer", "superuser")
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")

# One line for each address: the status for anonymous, the upload's owner, another user, a reviewer and a superuser.
# 405 is a method that the page does not take. The admin sends who may not enter to its log-in (302), says 403 to staff
# who may not do this, and shows a page to whatever is not POST; that it changes nothing is tested beside the status.
EVERYBODY = "200 200 200 200 200"
NOBODY = "405 405 405 405 405"
LOG_IN = "302 302 302"
STAFF = f"{LOG_IN} 200 200"
SUPERUSER = f"{LOG_IN} 403 200"
REFUSED = f"{LOG_IN} 403 403"

Row = dict[str, str]


def reading(seen_by: str) -> Row:
    """A page that is only ever looked at."""
    return {"GET": seen_by, "HEAD": seen_by, "POST": NOBODY, "PUT": NOBODY, "DELETE": NOBODY}


def sending(sent_by: str) -> Row:
    """An address that only ever takes a form."""
    return {method: sent_by if method == "POST" else NOBODY for method in METHODS}


def admin_reading(seen_by: str) -> Row:
    """A page of the admin that says 405 to whoever may enter and sends it something."""
    return {method: seen_by if method in ("GET", "HEAD") else f"{LOG_IN} 405 405" for method in METHODS}


def admin_page(seen_by: str, *, sent_by: str = "") -> Row:
    return {method: sent_by if sent_by and method == "POST" else seen_by for method in METHODS}


TABLE: dict[str, Row] = {
    "": {"GET": EVERYBODY, "HEAD": EVERYBODY, "POST": "302 302 302 302 302", "PUT": NOBODY, "DELETE": NOBODY},
    "detections/<uuid:pk>/": reading("404 200 404 200 200"),
    "detections/<uuid:pk>/image/": reading("404 200 404 200 200"),
    "detections/<uuid:pk>/thumbnail/": reading("404 200 404 200 200"),
    "detections/<uuid:pk>/appeal/": sending("403 302 404 404 404"),
    "detections/<uuid:pk>/delete/": sending("404 302 404 404 404"),
    "history/": reading(EVERYBODY),
    "about/": reading(EVERYBODY),
    "favicon.ico": reading("302 302 302 302 302"),
    "healthz": reading(EVERYBODY),
    "accounts/login/": {
        "GET": "200 302 302 302 302",
        "HEAD": "200 302 302 302 302",
        "POST": "200 302 302 302 302",
        "PUT": "200 302 302 302 302",
        "DELETE": "405 302 302 302 302",
    },
    "accounts/logout/": sending("302 302 302 302 302"),
    "accounts/signup/": {
        "GET": "200 302 302 302 302",
        "HEAD": "200 302 302 302 302",
        "POST": "302 302 302 302 302",
        "PUT": NOBODY,
        "DELETE": NOBODY,
    },
    "accounts/password/": {
        "GET": "302 200 200 200 200",
        "HEAD": "302 200 200 200 200",
        "POST": "302 302 302 302 302",
        "PUT": "302 200 200 200 200",
        "DELETE": "302 405 405 405 405",
    },
    # The only superuser has to stay.
    "accounts/delete/": {
        "GET": "302 200 200 200 200",
        "HEAD": "302 200 200 200 200",
        "POST": "302 302 302 302 409",
        "PUT": "302 405 405 405 405",
        "DELETE": "302 405 405 405 405",
    },
    "admin/": admin_page(STAFF),
    "admin/login/": {
        "GET": "200 200 200 302 302",
        "HEAD": EVERYBODY,
        "POST": EVERYBODY,
        "PUT": EVERYBODY,
        "DELETE": NOBODY,
    },
    "admin/logout/": admin_page("302 302 302 405 405", sent_by="302 302 302 302 302"),
    "admin/password_change/": admin_page("302 302 302 302 302"),
    "admin/password_change/done/": admin_reading(STAFF),
    "admin/autocomplete/": admin_reading(REFUSED),
    "admin/jsi18n/": admin_reading(STAFF),
    "admin/r/<path:content_type_id>/<path:object_id>/": admin_page("302 302 302 302 302"),
    "admin/detector/detection/<uuid:pk>/review/": {
        "GET": STAFF,
        "HEAD": STAFF,
        "POST": "403 403 403 302 302",
        "PUT": "302 302 302 405 405",
        "DELETE": "302 302 302 405 405",
    },
    "admin/detector/detection/": admin_page(STAFF),
    "admin/detector/detection/add/": admin_page(REFUSED),
    "admin/detector/detection/<path:object_id>/history/": admin_page(STAFF),
    "admin/detector/detection/<path:object_id>/delete/": admin_page(SUPERUSER, sent_by="302 302 302 403 302"),
    "admin/detector/detection/<path:object_id>/change/": admin_page(STAFF, sent_by=REFUSED),
    "admin/detector/detection/<path:object_id>/": admin_page("302 302 302 302 302"),
    "admin/detector/queueddetection/": admin_page(STAFF),
    "admin/detector/review/quality/": admin_reading(STAFF),
    "admin/detector/review/": admin_page(STAFF),
    "admin/detector/review/add/": admin_page(REFUSED),
    "admin/detector/review/<path:object_id>/history/": admin_page(STAFF),
    "admin/detector/review/<path:object_id>/delete/": admin_page(REFUSED),
    "admin/detector/review/<path:object_id>/change/": admin_page(STAFF, sent_by=REFUSED),
    "admin/detector/review/<path:object_id>/": admin_page("302 302 302 302 302"),
    "admin/auth/group/": admin_page(SUPERUSER),
    "admin/auth/group/add/": admin_page(SUPERUSER, sent_by="302 302 302 403 302"),
    "admin/auth/group/<path:object_id>/history/": admin_page(SUPERUSER),
    "admin/auth/group/<path:object_id>/delete/": admin_page(SUPERUSER, sent_by="302 302 302 403 302"),
    "admin/auth/group/<path:object_id>/change/": admin_page(SUPERUSER),
    "admin/auth/group/<path:object_id>/": admin_page("302 302 302 302 302"),
    "admin/auth/user/<id>/password/": admin_page(SUPERUSER),
    "admin/auth/user/": admin_page(SUPERUSER),
    "admin/auth/user/add/": admin_page(SUPERUSER, sent_by="302 302 302 403 302"),
    "admin/auth/user/<path:object_id>/history/": admin_page(SUPERUSER),
    "admin/auth/user/<path:object_id>/delete/": admin_page(SUPERUSER, sent_by="302 302 302 403 302"),
    "admin/auth/user/<path:object_id>/change/": admin_page(SUPERUSER),
    "admin/auth/user/<path:object_id>/": admin_page("302 302 302 302 302"),
    "admin/^(?P<app_label>detector|auth)/$": admin_page(STAFF),
    "admin/(?P<url>.*)$": admin_page("302 302 302 404 404"),
    "readyz": reading(EVERYBODY),
    # Without METRICS_TOKEN there is no such page.
    "metrics": reading("404 404 404 404 404"),
}


def every_pattern(resolver: URLResolver | None = None, before: str = "") -> Iterator[tuple[str, URLPattern]]:
    for pattern in (resolver or get_resolver()).url_patterns:
        route = f"{before}{pattern.pattern}"
        if isinstance(pattern, URLPattern):
            yield route, pattern
        else:
            yield from every_pattern(pattern, route)


ROUTES = [route for route, _ in every_pattern()]


class World:
    """Some rows of everything, and for each role a client that is logged in."""

    def __init__(self) -> None:
        reviewer = make_user("rita", is_staff=True)
        reviewer.groups.add(Group.objects.get(name="Reviewers"))
        self.users = {
            "owner": make_user("ada"),
            "other": make_user("otto"),
            "reviewer": reviewer,
            "superuser": make_user("sam", is_staff=True, is_superuser=True),
        }
        self.detection = make_detection(owner=self.users["owner"])
        self.reviewed = make_detection(owner=self.users["owner"])
        self.review = make_review(self.reviewed, "fake", reviewer=make_user("rex", is_staff=True))
        self.cookies = {"anonymous": Client().cookies}
        for role, user in self.users.items():
            client = Client()
            client.force_login(user)
            self.cookies[role] = client.cookies

    def client(self, role: str) -> Client:
        """A new one each time: an answer that logs out must not log out the next request."""
        client = Client(raise_request_exception=False)
        client.cookies = copy.deepcopy(self.cookies[role])
        return client

    def address(self, route: str) -> str:
        object_id: Any = self.detection.pk
        if "/review/<path" in route:
            object_id = self.review.pk
        elif "/user/" in route:
            object_id = self.users["other"].pk
        elif "/group/" in route:
            object_id = Group.objects.get().pk
        filled = {
            "<uuid:pk>": self.detection.pk,
            "<path:content_type_id>/": f"{ContentType.objects.get_for_model(Detection).pk}/",
            "<path:object_id>": object_id,
            "<id>": object_id,
            "^(?P<app_label>detector|auth)/$": "detector/",
            "(?P<url>.*)$": "no-such-page/",
        }
        for placeholder, value in filled.items():
            route = route.replace(placeholder, str(value))
        assert "<" not in route, f"How is {route} filled in? Say so in World.address()."
        return f"/{route}"

    def body(self, route: str) -> dict[str, Any]:
        """What makes a POST to that page do its work."""
        look = Look.begin(self.detection.pk, seen_count=0, is_blind=False).sign()
        account = {"username": "nora", "password1": "correct horse battery", "password2": "correct horse battery"}
        bodies: dict[str, dict[str, Any]] = {
            "": {"picture": make_upload()},
            "detections/<uuid:pk>/appeal/": {"sentence": "That is me."},
            "accounts/signup/": account,
            "accounts/password/": {
                "old_password": "correct horse battery",
                "new_password1": "another horse battery",
                "new_password2": "another horse battery",
            },
            "accounts/delete/": {"password": "correct horse battery"},
            "admin/detector/detection/<uuid:pk>/review/": {"verdict": "real", "look": look},
            "admin/auth/user/add/": {**account, "usable_password": "true"},
            "admin/auth/group/add/": {"name": "Editors"},
        }
        # Confirms a deletion; for everything else it means nothing.
        return bodies.get(route, {"post": "yes"})

    def ask(self, role: str, method: str, route: str) -> tuple[int, bool]:
        """The status, and whether anything was written; what was written is undone."""
        with transaction.atomic():
            before = fingerprint()
            data = self.body(route) if method == "POST" else None
            response = getattr(self.client(role), method.lower())(self.address(route), data)
            changed = fingerprint() != before
            transaction.set_rollback(True)
        return response.status_code, changed


def fingerprint() -> list[Any]:
    """All that people can change. Not sessions, nor when somebody was last here."""
    tables = (Detection, Review, Group, LogEntry)
    people = User.objects.order_by("pk").values_list("pk", "username", "password", "is_staff", "is_superuser")
    return [*(list(table._default_manager.order_by("pk").values_list()) for table in tables), list(people)]


@pytest.fixture
def world() -> World:
    return World()


# Who may write where, and only by POST. Whoever is not named here changes nothing, whatever they send.
WRITERS: dict[str, set[str]] = {
    "": set(ROLES),
    "detections/<uuid:pk>/appeal/": {"owner"},
    "detections/<uuid:pk>/delete/": {"owner"},
    "accounts/signup/": {"anonymous"},
    "accounts/password/": {"owner", "other", "reviewer", "superuser"},
    "accounts/delete/": {"owner", "other", "reviewer"},
    "admin/detector/detection/<uuid:pk>/review/": {"reviewer", "superuser"},
    "admin/detector/detection/<path:object_id>/delete/": {"superuser"},
    "admin/auth/user/add/": {"superuser"},
    "admin/auth/user/<path:object_id>/delete/": {"superuser"},
    "admin/auth/group/add/": {"superuser"},
    "admin/auth/group/<path:object_id>/delete/": {"superuser"},
}


def test_every_address_is_in_the_table_and_no_other() -> None:
    missing = [(route, pattern.lookup_str) for route, pattern in every_pattern() if route not in TABLE]
    assert not missing, (
        f"No line in TABLE of test_access.py says who may use {missing}. Add one: reading(EVERYBODY) for a page that "
        "all may look at, reading(...) with a status for each of ROLES, or a status for each of METHODS; and a line in "
        "WRITERS if a POST to it changes anything."
    )
    assert not set(TABLE) - set(ROUTES), f"These addresses are gone; remove them from TABLE: {set(TABLE) - set(ROUTES)}"
    assert set(WRITERS) <= set(TABLE)
    assert all(set(row) == set(METHODS) for row in TABLE.values())


@pytest.mark.parametrize("route", ROUTES)
def test_each_role_gets_what_the_table_says_and_nothing_else(world: World, route: str) -> None:
    expected, found, written = {}, {}, {}
    for method in METHODS:
        answers = {role: world.ask(role, method, route) for role in ROLES}
        found[method] = " ".join(str(status) for status, _ in answers.values())
        written[method] = {role for role, (_, changed) in answers.items() if changed}
        expected[method] = TABLE[route][method]
    assert found == expected
    assert written == {method: WRITERS.get(route, set()) if method == "POST" else set() for method in METHODS}
