from http import HTTPStatus

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries, Settings
from pytest_django.asserts import assertContains, assertNotContains

from detector.tests.factories import make_detection, make_user

pytestmark = pytest.mark.django_db

URL = reverse("detector:history")


def names(client: Client, query: str = "") -> list[str]:
    response = client.get(URL + query)
    assert response.status_code == HTTPStatus.OK
    return [detection.original_name for detection in response.context["page_obj"]]


def test_without_uploads_it_says_so(client: Client) -> None:
    response = client.get(URL)
    assertContains(response, "No photos yet")
    assert response.context["counts"]["total"] == 0
    assert response["Cache-Control"] == "private, no-store"


def test_a_visitor_sees_their_own_newest_first(visitor: Client) -> None:
    for name in ("first.jpg", "second.jpg"):
        make_detection(original_name=name)
    make_detection(original_name="stranger.jpg", session_key="f" * 40)
    make_detection(original_name="account.jpg", owner=make_user())
    assert names(visitor) == ["second.jpg", "first.jpg"]
    assert names(Client()) == []


def test_an_account_sees_its_own(client: Client) -> None:
    ada = make_user("ada")
    make_detection(original_name="mine.jpg", owner=ada)
    make_detection(original_name="grace's.jpg", owner=make_user("grace"))
    make_detection(original_name="session.jpg")
    client.force_login(ada)
    assert names(client) == ["mine.jpg"]


def test_staff_see_their_own_here_and_everybody_s_in_the_admin(client: Client) -> None:
    client.force_login(make_user(is_staff=True, is_superuser=True))
    make_detection()
    assert names(client) == []


@pytest.mark.parametrize(
    ("count", "sentence"),
    [(1, "Your one checked photo does not match."), (2, "None of your 2 checked photos matches.")],
)
def test_a_verdict_that_no_photo_has_says_so_of_one_and_of_more(visitor: Client, count: int, sentence: str) -> None:
    for _ in range(count):
        make_detection(0.9)
    assertContains(visitor.get(URL + "?verdict=real"), sentence)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["failed", "no face", "fake", "real"]),
        ("?verdict=real", ["real"]),
        ("?verdict=fake", ["fake"]),
        ("?verdict=not_applicable", ["no face"]),
        ("?verdict=invented", ["failed", "no face", "fake", "real"]),
    ],
)
def test_it_is_filtered_by_verdict(visitor: Client, query: str, expected: list[str]) -> None:
    make_detection(0.1, original_name="real")
    make_detection(0.9, original_name="fake")
    make_detection(no_face=True, original_name="no face")
    make_detection(failed=True, original_name="failed")
    assert names(visitor, query) == expected


def test_each_filter_says_how_many_it_finds(visitor: Client) -> None:
    for probability in (0.1, 0.2, 0.9):
        make_detection(probability)
    make_detection(failed=True)
    context = visitor.get(URL + "?verdict=fake").context
    assert context["counts"]["total"] == 4
    assert [(choice["value"], choice["label"], choice["count"]) for choice in context["verdict_choices"]] == [
        ("real", "Real", 2),
        ("fake", "Fake", 1),
        ("not_applicable", "Not applicable", 0),
    ]


def test_a_filter_that_finds_nothing_says_so(visitor: Client) -> None:
    make_detection(0.1)
    assertContains(visitor.get(URL + "?verdict=fake"), "Nothing with this verdict")


@pytest.mark.parametrize(
    ("query", "page", "expected"),
    [
        ("", 1, ["4", "3"]),
        ("?page=2", 2, ["2", "1"]),
        ("?page=3", 3, ["0"]),
        ("?page=99", 3, ["0"]),
        ("?page=-1", 3, ["0"]),
        ("?page=x", 1, ["4", "3"]),
        ("?page=2&verdict=fake", 2, ["2", "1"]),
    ],
)
def test_it_is_paged(visitor: Client, settings: Settings, query: str, page: int, expected: list[str]) -> None:
    settings.HISTORY_PAGE_SIZE = 2
    for number in range(5):
        make_detection(original_name=str(number))
    assert names(visitor, query) == expected
    assert visitor.get(URL + query).context["page_obj"].number == page


def test_a_page_s_links_keep_the_filter(visitor: Client, settings: Settings) -> None:
    settings.HISTORY_PAGE_SIZE = 1
    for _ in range(3):
        make_detection()
    assertContains(visitor.get(URL + "?verdict=fake&page=2"), "?verdict=fake&amp;page=3")
    assertNotContains(visitor.get(URL + "?page=2"), "verdict=&amp;")


def test_more_detections_take_no_more_queries(
    visitor: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(6):
        make_detection()
    # Session, counts per verdict, count for the pages, the page.
    with django_assert_num_queries(4):
        visitor.get(URL)


@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_other_methods_are_not_allowed(visitor: Client, method: str) -> None:
    assert getattr(visitor, method)(URL).status_code == HTTPStatus.METHOD_NOT_ALLOWED
