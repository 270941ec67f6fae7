"""What reviewers and superusers may do in the admin, and what they may not find out. Every address: test_access.py."""

from http import HTTPStatus

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import reverse
from pytest_django.asserts import assertContains, assertNotContains

from detector.models import Detection, Review
from detector.reviews import Look
from detector.tests.factories import make_detection, make_review, make_user

pytestmark = pytest.mark.django_db

LIST = reverse("admin:detector_detection_changelist")
QUEUE = reverse("admin:detector_queueddetection_changelist")
REVIEWS = reverse("admin:detector_review_changelist")


@pytest.fixture
def clients() -> dict[str, Client]:
    reviewer = make_user("rita", is_staff=True)
    reviewer.groups.add(Group.objects.get(name="Reviewers"))
    users = {
        "user": make_user("uma"),
        "reviewer": reviewer,
        "superuser": make_user("sam", is_staff=True, is_superuser=True),
    }
    clients = {"anonymous": Client(), **{role: Client() for role in users}}
    for role, user in users.items():
        clients[role].force_login(user)
    return clients


def test_the_group_may_exactly_look_and_review() -> None:
    (group,) = Group.objects.filter(name="Reviewers")
    names = {f"{app}.{name}" for app, name in group.permissions.values_list("content_type__app_label", "codename")}
    assert names == {"detector.view_detection", "detector.view_review", "detector.add_review"}


def test_only_reviewers_and_superusers_add_reviews(clients: dict[str, Client]) -> None:
    statuses = {}
    for role, client in clients.items():
        detection = make_detection(owner=None)
        look = Look.begin(detection.pk, seen_count=0, is_blind=False).sign()
        client.post(f"/admin/detector/detection/{detection.pk}/review/", {"verdict": "real", "look": look})
        detection.refresh_from_db()
        statuses[role] = detection.review_count
    assert statuses == {"anonymous": 0, "user": 0, "reviewer": 1, "superuser": 1}


def test_only_superusers_delete_in_the_admin(clients: dict[str, Client]) -> None:
    left = {}
    for role, client in clients.items():
        detection = make_detection()
        client.post(f"/admin/detector/detection/{detection.pk}/delete/", {"post": "yes"})
        action = {"action": "delete_selected", "_selected_action": [str(detection.pk)], "post": "yes"}
        client.post(LIST, action)
        left[role] = Detection.objects.filter(pk=detection.pk).exists()
    assert left == {"anonymous": True, "user": True, "reviewer": True, "superuser": False}


def test_a_reviewer_does_not_see_whose_an_upload_is(clients: dict[str, Client]) -> None:
    detection = make_detection(owner=make_user("ada-lovelace", email="ada@example.org"))
    pages = [
        LIST,
        f"/admin/detector/detection/{detection.pk}/change/",
        f"/admin/detector/detection/{detection.pk}/review/",
    ]
    for page in (*pages, detection.get_absolute_url(), "/admin/"):
        for name in ("ada-lovelace", "ada@example.org"):
            assertNotContains(clients["reviewer"].get(page), name)
    for page in pages[:2]:
        assertContains(clients["superuser"].get(page), "ada-lovelace")


@pytest.mark.parametrize("query", ["q=ada-lovelace", "q=example.org"])
def test_a_reviewer_does_not_find_detections_by_their_owner(clients: dict[str, Client], query: str) -> None:
    make_detection(owner=make_user("ada-lovelace", email="ada@example.org"))
    found = [clients[role].get(f"{LIST}?{query}").context["cl"].result_count for role in ("reviewer", "superuser")]
    assert found == [0, 1]


@pytest.mark.parametrize(
    "query",
    [
        "owner={}",
        "owner_id={}",
        "owner__id__exact={}",
        "owner__isnull=False",
        "session_key__startswith=0",
        "owner__gt=0",
    ],
)
def test_a_reviewer_cannot_gather_the_uploads_of_one_person(clients: dict[str, Client], query: str) -> None:
    ada = make_user("ada-lovelace")
    detection = make_detection(0.5, owner=ada)
    make_review(detection, "cant_tell")
    for page in (LIST, QUEUE, f"{REVIEWS}?detection__"):
        address = f"{page}{'' if '?' in page else '?'}{query.format(ada.pk)}"
        assert clients["reviewer"].get(address).status_code == HTTPStatus.BAD_REQUEST
    assert clients["superuser"].get(f"{LIST}?{query.format(ada.pk)}").status_code == HTTPStatus.OK


@pytest.mark.parametrize("lookup", ["owner__username__startswith=a", "owner__email=ada@example.org"])
def test_no_filter_gives_an_owner_away(clients: dict[str, Client], lookup: str) -> None:
    make_detection(owner=make_user("ada-lovelace", email="ada@example.org"))
    assert clients["reviewer"].get(f"{LIST}?{lookup}").status_code == HTTPStatus.BAD_REQUEST


def test_no_sorting_gives_an_owner_away(clients: dict[str, Client]) -> None:
    """Nor by the number of a column that others see."""
    make_detection(owner=make_user("ada-lovelace"))
    sorted_by: dict[str, str] = {}
    for role in ("reviewer", "superuser"):
        pages = [clients[role].get(f"{LIST}?o={number}") for number in range(1, 15)]
        sorted_by[role] = str([page.context["cl"].queryset.query.order_by for page in pages])
    assert "owner" in sorted_by["superuser"]
    assert "owner" not in sorted_by["reviewer"]


def test_reviews_are_only_ever_added_by_their_reviewer(clients: dict[str, Client]) -> None:
    detection, other = make_detection(), make_user("mallory")
    look = Look.begin(detection.pk, seen_count=0, is_blind=False).sign()
    forged = {"verdict": "real", "look": look, "reviewer": other.pk, "is_blind": "on", "seconds_spent": "1"}
    clients["reviewer"].post(f"/admin/detector/detection/{detection.pk}/review/", forged)
    review = Review.objects.get()
    assert review.reviewer is not None
    assert (review.reviewer.username, review.is_blind) == ("rita", False)
