"""Staff, and whoever becomes staff, log in again some hours after their log-in, whatever they do meanwhile."""

from http import HTTPStatus

import pytest
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries
from pytest_django.asserts import assertContains, assertNotContains, assertRedirects

from detector.models import Detection
from detector.staff_sessions import LOGGED_IN_AT
from detector.tests.factories import FakePredictor, make_detection, make_upload, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("limiter")]

INDEX, ADMIN_LOGIN, LOGIN = reverse("admin:index"), reverse("admin:login"), reverse("login")
UPLOAD, HISTORY, QUALITY = (
    reverse("detector:upload"),
    reverse("detector:history"),
    reverse("admin:detector_review_quality"),
)
FORM = {"username": "rita", "password": "correct horse battery"}
AGE_S = settings.STAFF_SESSION_AGE_S


def make_reviewer(user: User) -> None:
    user.is_staff = True
    user.save()
    user.groups.add(Group.objects.get(name="Reviewers"))


@pytest.fixture
def rita() -> User:
    return make_user("rita")


@pytest.fixture
def browser_of_rita(rita: User) -> Client:
    client = Client()
    client.post(LOGIN, FORM)
    return client


def pass_time(client: Client, seconds: int) -> None:
    """Has the log-in be so much longer ago. The session is saved, which moves its own expiry on."""
    session = client.session
    session[LOGGED_IN_AT] -= seconds
    session.save()


def is_asked_to_log_in(client: Client, detection: Detection) -> bool:
    """Whether nothing that only staff may is left, of the admin and of the pages for everybody."""
    pages = [INDEX, QUALITY, reverse("admin:detector_detection_review", args=[detection.pk])]
    own = [detection.get_absolute_url(), reverse("detector:detection-image", args=[detection.pk])]
    statuses = [client.get(page).status_code for page in (*pages, *own)]
    assert statuses in ([200] * 5, [302] * 3 + [404] * 2)
    return statuses[0] == HTTPStatus.FOUND


def test_staff_log_in_again_however_much_they_did_meanwhile(browser_of_rita: Client, rita: User) -> None:
    make_reviewer(rita)
    detection = make_detection()
    for _ in range(3):
        assert not is_asked_to_log_in(browser_of_rita, detection)
        pass_time(browser_of_rita, AGE_S // 3 + 1)
    assert is_asked_to_log_in(browser_of_rita, detection)
    assertRedirects(browser_of_rita.get(INDEX), f"{ADMIN_LOGIN}?next={INDEX}")
    assertNotContains(browser_of_rita.get(UPLOAD), INDEX)
    assertRedirects(browser_of_rita.post(ADMIN_LOGIN, {**FORM, "next": INDEX}), INDEX)
    assert not is_asked_to_log_in(browser_of_rita, detection)


@pytest.mark.parametrize(("age_s", "is_asked"), [(AGE_S + 1, True), (AGE_S - 60, False)])
def test_who_becomes_staff_while_logged_in_has_no_longer(
    browser_of_rita: Client, rita: User, age_s: int, is_asked: bool
) -> None:
    detection = make_detection()
    pass_time(browser_of_rita, age_s)
    assertContains(browser_of_rita.get(HISTORY), "rita")
    make_reviewer(rita)
    assert is_asked_to_log_in(browser_of_rita, detection) is is_asked


@pytest.mark.parametrize("is_staff", [False, True])
def test_of_sessions_without_a_time_only_those_of_staff_end(
    browser_of_rita: Client, rita: User, is_staff: bool
) -> None:
    """As all were that began before the time was kept."""
    if is_staff:
        make_reviewer(rita)
    session = browser_of_rita.session
    del session[LOGGED_IN_AT]
    session.save()
    page = browser_of_rita.get(HISTORY)
    assert page.status_code == HTTPStatus.OK
    assert page.context["user"].is_authenticated is not is_staff
    browser_of_rita.post(LOGIN, FORM)
    assert browser_of_rita.get(HISTORY).context["user"] == rita


def test_a_review_that_came_too_late_waits_behind_the_log_in(browser_of_rita: Client, rita: User) -> None:
    make_reviewer(rita)
    page = reverse("admin:detector_detection_review", args=[make_detection().pk])
    look = browser_of_rita.get(page).context["look"]
    pass_time(browser_of_rita, AGE_S + 1)
    refused = browser_of_rita.post(page, {"verdict": "fake", "note": "Two left ears.", "look": look})
    assertContains(refused, "What you sent was not saved", status_code=HTTPStatus.FORBIDDEN)
    browser_of_rita.post(ADMIN_LOGIN, {**FORM, "next": page, **refused.context["unsent"]})
    assert browser_of_rita.get(page).context["form"]["note"].value() == "Two left ears."


def test_what_they_upload_meanwhile_is_theirs_with_the_log_in(
    browser_of_rita: Client, rita: User, predictor: FakePredictor
) -> None:
    make_reviewer(rita)
    pass_time(browser_of_rita, AGE_S + 1)
    browser_of_rita.post(UPLOAD, {"picture": make_upload()})
    assert Detection.objects.get().owner is None
    browser_of_rita.post(LOGIN, FORM)
    assert Detection.objects.get().owner == rita


def test_a_page_that_asks_for_nobody_reads_no_session(
    browser_of_rita: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(0):
        assert browser_of_rita.get(reverse("detector:healthz")).status_code == HTTPStatus.OK
