"""Somebody deletes their own account."""

from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Group, User
from django.test import Client, RequestFactory
from django.urls import reverse
from pytest_django import Settings
from pytest_django.asserts import assertContains, assertNotContains, assertRedirects

from deepfake_site.settings import redis_cache
from detector import services
from detector.exceptions import LastAdministrator
from detector.models import Detection, Review
from detector.private_redis import PrivateRedis
from detector.tests.factories import VISITOR_KEY, make_detection, make_review, make_user
from detector.visitors import retire_visitor_key

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("limiter")]

PAGE = reverse("account_delete")
LOGIN, UPLOAD = reverse("login"), reverse("detector:upload")
PASSWORD = "correct horse battery"


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def inside(ada: User) -> Client:
    client = Client()
    client.force_login(ada)
    return client


def stored(media_root: Path) -> list[Path]:
    return [path for path in media_root.rglob("*") if path.is_file()]


def delete(client: Client, password: str = PASSWORD, **extra: Any) -> Any:
    return client.post(PAGE, {"password": password}, **extra)


@pytest.mark.django_db(transaction=True)
def test_it_goes_with_its_uploads_and_their_files_and_nothing_else_does(
    inside: Client, ada: User, media_root: Path
) -> None:
    for _ in range(2):
        make_detection(0.9, 0.2, owner=ada)
    others = [make_detection(owner=make_user("grace")), make_detection(session_key="f" * 40)]
    elsewhere = Client()
    elsewhere.force_login(ada)
    response = delete(inside, follow=True)
    assertRedirects(response, UPLOAD)
    assertContains(response, "Your account was deleted, and all that was checked with it.")
    assertContains(response, "Log in")
    assert set(User.objects.values_list("username", flat=True)) == {"grace"}
    assert set(Detection.objects.all()) == set(others)
    kept = {Path(file.path) for detection in others for file in (detection.image, detection.thumbnail)}
    assert set(stored(media_root)) == kept
    assertRedirects(elsewhere.get(PAGE), f"{LOGIN}?next={PAGE}")
    assert inside.post(LOGIN, {"username": "ada", "password": PASSWORD}).status_code == HTTPStatus.OK


@pytest.mark.django_db(transaction=True)
def test_what_people_wrote_of_its_pictures_stays_without_picture_and_name(inside: Client, ada: User) -> None:
    detection = make_detection(0.9, owner=ada, original_name="ada-at-home.jpg")
    make_review(detection, "real", note="Studio light.")
    delete(inside)
    (review,) = Review.objects.all()
    assert (review.detection, review.verdict, review.fake_probability) == (None, "real", 0.9)
    assert (review.note, review.detection_key) == ("Studio light.", detection.pk)


def test_no_name_of_a_deleted_account_stays_in_the_admin_s_log() -> None:
    administrator, jane = make_user("ada", is_superuser=True, is_staff=True), make_user("jane.doe")
    editors = Group.objects.create(pk=jane.pk, name="editors")  # of another kind, with the same number
    LogEntry.objects.log_actions(administrator.pk, [jane, administrator], CHANGE)
    LogEntry.objects.log_actions(administrator.pk, [editors], CHANGE)
    client = Client()
    client.force_login(jane)
    assertRedirects(delete(client), UPLOAD)
    assert sorted(LogEntry.objects.values_list("object_repr", flat=True)) == ["a deleted account", "ada", "editors"]


@pytest.mark.django_db(transaction=True)
def test_a_reviewer_s_reviews_stay_without_the_name() -> None:
    rita = make_user("rita", is_staff=True)
    detections = [make_detection(0.9, session_key=VISITOR_KEY) for _ in range(2)]
    for detection in detections:
        make_review(detection, "real", reviewer=rita, note="Studio light.")
    LogEntry.objects.log_actions(rita.pk, [detections[0]], CHANGE, single_object=True)
    client = Client()
    client.force_login(rita)
    page = client.get(PAGE)
    for words in ("2 reviews that you wrote, with their notes", "the record of what it changed in the admin"):
        assertContains(page, words)
    assertRedirects(delete(client), UPLOAD)
    assert not LogEntry.objects.exists()
    for detection in detections:
        detection.refresh_from_db()
        assert (detection.review_verdict, detection.review_count) == ("real", 1)
        (review,) = detection.reviews.all()
        assert (review.reviewer, review.reviewer_key, review.note) == (None, rita.pk, "Studio light.")
        assert str(review) == "Real by a deleted account"


def test_an_upload_that_became_its_own_late_goes_too(ada: User, rf: RequestFactory) -> None:
    """It was under way when its visitor logged in, and no page has claimed it since."""
    client = Client()
    client.force_login(ada)
    session = client.session
    session["visitor_key"] = VISITOR_KEY
    request = rf.get("/")
    request.session = session
    retire_visitor_key(request)
    session.save()
    make_detection(session_key=VISITOR_KEY)
    assertRedirects(delete(client), UPLOAD)
    assert not Detection.objects.exists()


def test_the_page_says_what_goes_and_what_stays(inside: Client, ada: User) -> None:
    page = inside.get(PAGE)
    assertNotContains(page, "Nobody can bring")  # whoever has a backup can
    assertContains(page, "no check is kept with it")
    for words in ("What reviewers wrote", "review that you wrote", "in the admin"):
        assertNotContains(page, words)
    for _ in range(3):
        make_detection(owner=ada)
    page = inside.get(PAGE)
    for words in ("Everything that was checked with it, 3 in all", "What reviewers wrote", "up to 90 days", "backups"):
        assertContains(page, words)
    assert page["Cache-Control"] == "max-age=0, no-cache, no-store, must-revalidate, private"


@pytest.mark.parametrize("page", [reverse("detector:history"), reverse("password_change"), reverse("detector:about")])
def test_pages_lead_there(inside: Client, page: str) -> None:
    assertContains(inside.get(page), f'href="{PAGE}"')


@pytest.mark.parametrize(
    ("password", "sentence"), [("wrong", "That is not the password of this account."), ("", "This field is required.")]
)
def test_without_its_password_nothing_is_deleted(inside: Client, ada: User, password: str, sentence: str) -> None:
    make_detection(owner=ada)
    assertContains(delete(inside, password), sentence, status_code=HTTPStatus.BAD_REQUEST)
    assert (User.objects.count(), Detection.objects.count()) == (1, 1)
    assert inside.get(PAGE).status_code == HTTPStatus.OK


def test_five_wrong_passwords_are_too_many_even_for_the_right_one(inside: Client) -> None:
    statuses = [delete(inside, "wrong").status_code for _ in range(5)]
    assert statuses == [HTTPStatus.BAD_REQUEST] * 4 + [HTTPStatus.TOO_MANY_REQUESTS]
    assert delete(inside).status_code == HTTPStatus.TOO_MANY_REQUESTS
    assert User.objects.count() == 1


@pytest.mark.redis
def test_without_redis_no_password_is_tried(
    inside: Client, redis_server: PrivateRedis, settings: Settings, logged: list[str]
) -> None:
    settings.CACHES = {**settings.CACHES, "ratelimit": redis_cache(redis_server.url, ignore_exceptions=False)}
    redis_server.kill()
    assertContains(delete(inside), "delete an account", status_code=HTTPStatus.SERVICE_UNAVAILABLE)
    assert User.objects.count() == 1
    assert any("Nobody can log in" in message for message in logged)


def test_who_is_not_logged_in_is_asked_to(client: Client) -> None:
    for response in (client.get(PAGE), delete(client)):
        assertRedirects(response, f"{LOGIN}?next={PAGE}")


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_only_a_form_deletes(inside: Client, method: str) -> None:
    assert getattr(inside, method)(PAGE).status_code == HTTPStatus.METHOD_NOT_ALLOWED
    assert inside.get(f"{PAGE}?password={PASSWORD}").status_code == HTTPStatus.OK
    assert User.objects.count() == 1


def test_it_needs_the_csrf_token(ada: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(ada)
    assert delete(client).status_code == HTTPStatus.FORBIDDEN
    assert User.objects.count() == 1


def test_the_last_administrator_stays(logged: list[str]) -> None:
    root = make_user("root", is_staff=True, is_superuser=True)
    make_user("sam", is_staff=True, is_superuser=True, is_active=False)
    make_user("tess", is_staff=True)  # who may enter the admin, and manages nobody there
    client = Client()
    client.force_login(root)
    assertContains(delete(client), "Make another one first.", status_code=HTTPStatus.CONFLICT)
    with pytest.raises(LastAdministrator):
        services.account_delete(account=root)
    assert User.objects.filter(username="root").exists()
    User.objects.filter(username="sam").update(is_active=True)
    assertRedirects(delete(client), UPLOAD)
    assert logged == [f"Account {root.pk} was deleted by whoever it belonged to"]
