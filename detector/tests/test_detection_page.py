from http import HTTPStatus
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries, Settings
from pytest_django.asserts import assertContains, assertNotContains, assertRedirects

from detector import services
from detector.models import Detection
from detector.tests.factories import VISITOR_KEY, make_detection, make_face, make_review, make_user
from detector.visitors import SESSION_FIELD

pytestmark = pytest.mark.django_db

UNDECIDED: dict[str, Any] = {"uncertain_above": 0.0, "uncertain_up_to": 1.0}


def address(detection: Detection, name: str = "detection") -> str:
    return reverse(f"detector:{name}", args=[detection.pk])


@pytest.fixture
def reviewer() -> Client:
    client = Client()
    user = make_user("grace", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_detection"))
    client.force_login(user)
    return client


@pytest.mark.parametrize("is_blind", [False, True])
def test_the_picture_can_be_opened_alone(
    visitor: Client, admin_client: Client, settings: Settings, is_blind: bool
) -> None:
    """A face in a long screenshot is some pixels wide on the page, where all of it fits the window."""
    settings.REVIEW_BLIND = is_blind
    detection = make_detection()
    link = f'<a href="{address(detection, "detection-image")}">'
    assertContains(visitor.get(address(detection)), link)
    review = reverse("admin:detector_detection_review", args=[detection.pk])
    assertContains(admin_client.get(review), link)


@pytest.mark.parametrize(
    ("probabilities", "values", "alternative"),
    [
        ([0.9], {}, "The uploaded photo; 1 face found"),
        ([0.1, 0.2], {"unjudged_faces": 3}, "The uploaded photo; 5 faces found"),
        ([], {"no_face": True}, "The uploaded photo; no face found"),
        ([], {"failed": True}, "The uploaded photo"),  # nobody knows whether there is one
    ],
)
def test_the_picture_in_words_is_what_was_found(
    visitor: Client, admin_client: Client, probabilities: list[float], values: dict[str, Any], alternative: str
) -> None:
    detection = make_detection(*probabilities, **values)
    for client, page in ((visitor, "detector:detection"), (admin_client, "admin:detector_detection_review")):
        assertContains(client.get(reverse(page, args=[detection.pk])), f' alt="{alternative}">')


def test_nothing_is_70_percent_real_and_above_70_percent(visitor: Client) -> None:
    detection = make_detection(0.29996, 0.29)
    page = visitor.get(address(detection))
    assertContains(
        page, "<strong>70.004\N{NO-BREAK SPACE}%</strong> of being real, which is above the 70\N{NO-BREAK SPACE}%"
    )
    assertContains(page, "71.0\N{NO-BREAK SPACE}%")
    assertNotContains(page, "70.0\N{NO-BREAK SPACE}%")
    assertContains(visitor.get(reverse("detector:history")), "70.004\N{NO-BREAK SPACE}% real")


@pytest.mark.parametrize(
    ("kind", "what"),
    [({}, "Its verdict, figures"), ({"no_face": True}, "Its figures"), ({"failed": True}, "Its figures")],
)
def test_no_verdict_remains_where_there_was_none(visitor: Client, kind: dict[str, bool], what: str) -> None:
    detection = make_detection(**kind)
    services.picture_forget(detection=detection)
    assertContains(visitor.get(address(detection)), f"{what} and fingerprints remain.")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"fake_probability": 0.1}, "Real"),
        ({"fake_probability": 0.95}, "Fake"),
        ({"fake_probability": 0.5}, "This result is uncertain."),
        ({"no_face": True}, "No face found"),
        ({"failed": True}, "The analysis failed"),
    ],
)
def test_a_visitor_sees_their_result(visitor: Client, values: dict[str, Any], sentence: str) -> None:
    probabilities = [values.pop("fake_probability")] if "fake_probability" in values else []
    response = visitor.get(address(make_detection(*probabilities, **values)))
    assertContains(response, sentence)
    assert response.context["can_delete"] is True
    assert response.context["review"] is None
    assert response["Cache-Control"] == "private, no-store"


def test_faces_that_were_not_judged_are_named(visitor: Client) -> None:
    detection = make_detection(0.1, 0.2, unjudged_faces=4)
    assertContains(visitor.get(address(detection)), "Only the 2 largest of the 6 faces found were judged")
    assertContains(visitor.get(address(detection)), "4 smaller faces were not judged")
    alone = visitor.get(address(make_detection(0.1, unjudged_faces=2)))
    assertContains(alone, "Only the largest of the 3 faces found was judged.")


def test_a_result_with_its_heat_map_takes_few_queries(
    visitor: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    detection = make_detection()
    with django_assert_num_queries(3):  # the session, the detection, and whether the picture is known
        visitor.get(address(detection))


def test_a_face_that_is_too_small_is_why(visitor: Client) -> None:
    detection = make_detection(0.01, **UNDECIDED)
    assertContains(visitor.get(address(detection)), "The probability of being real lies between 0\xa0% and 100\xa0%")
    detection.faces[0]["bbox"] = [100, 60, 28, 31]
    detection.save()
    page = visitor.get(address(detection))
    sentence = "The longer side of the face is only 31 pixels; of faces under 40, too many answers turned out wrong."
    assertContains(page, sentence)
    assertContains(page, "It leans to real.")
    assertNotContains(page, "The probability of being real lies between")


@pytest.mark.parametrize(
    ("faces", "values", "answers", "too_small"),
    [
        # Of Real, which rests on all: one face alone is too small.
        ([(0.05, 80, False), (0.01, 31, True)], UNDECIDED, ["real", "uncertain_real"], [False, True]),
        # Of Fake, which rests on one: the other may be too small without a word in the headline.
        ([(0.95, 80, False), (0.01, 31, True)], {}, ["fake", "uncertain_real"], [False, True]),
        ([(0.95, 31, True), (0.01, 80, False)], UNDECIDED, ["uncertain_fake", "real"], [True, False]),
        # From before each face kept its answer: what the row's rule says, which is all that is known.
        ([(0.05, 80, None), (0.01, 31, None)], UNDECIDED, ["uncertain_real", "uncertain_real"], [False, True]),
        # And from before there was a limit: a small one was decided.
        ([(0.95, 80, None), (0.01, 31, None)], {}, ["fake", "real"], [False, False]),
    ],
)
def test_the_face_that_is_too_small_is_marked_and_no_other(
    visitor: Client,
    admin_client: Client,
    faces: list[tuple[float, int, bool | None]],
    values: dict[str, Any],
    answers: list[str],
    too_small: list[bool],
) -> None:
    kept = [
        make_face(probability, side=side).as_dict() | ({} if own is None else {"is_uncertain": own})
        for probability, side, own in faces
    ]
    detection = make_detection(*(probability for probability, _, _ in faces), faces=kept, **values)
    page = visitor.get(address(detection))
    assert [face["answer"] for face in page.context["faces"]] == answers
    assert [face["is_too_small"] for face in page.context["faces"]] == too_small
    marks = sum(too_small)
    assertContains(page, "too small: 31 pixels", count=marks)
    review = reverse("admin:detector_detection_review", args=[detection.pk])
    assertContains(admin_client.get(review), "too small: 31 pixels", count=marks)


def test_the_face_that_leaves_the_answer_open_is_named(visitor: Client) -> None:
    faces = [make_face(0.05, side=80).as_dict(), make_face(0.02, side=39).as_dict(), make_face(0.01, side=31).as_dict()]
    detection = make_detection(0.05, 0.02, 0.01, faces=faces, **UNDECIDED)
    assertContains(visitor.get(address(detection)), "The longer side of face 3, on which it rests, is only 31 pixels;")


def test_every_face_is_shown_and_the_most_fake_one_decides(visitor: Client) -> None:
    response = visitor.get(address(make_detection(0.2, 0.9, 0.5)))
    faces = response.context["faces"]
    shown = [(face["number"], face["fake_probability"], face["verdict"], face["is_uncertain"]) for face in faces]
    assert shown == [(1, 0.9, "fake", False), (2, 0.5, "fake", True), (3, 0.2, "real", False)]
    assert [face["is_deciding"] for face in faces] == [True, False, False]
    assert faces[0]["bbox"] == {"x": 100, "y": 60, "width": 80, "height": 80}


def test_a_box_ends_at_the_picture_s_edge(visitor: Client) -> None:
    detection = make_detection()
    detection.faces[0]["bbox"] = [-10, 200, 60, 100]
    detection.save()
    face = visitor.get(address(detection)).context["faces"][0]
    assert face["bbox"] == {"x": 0, "y": 200, "width": 50, "height": 40}


def test_the_name_of_a_file_is_not_markup(visitor: Client) -> None:
    response = visitor.get(address(make_detection(original_name="<script>alert(1)</script>.jpg")))
    assertNotContains(response, "<script>alert")


@pytest.mark.parametrize("network_ms", [0.0, 0.0004])
def test_a_stage_that_was_not_reached_has_no_time(visitor: Client, admin_client: Client, network_ms: float) -> None:
    stages = {"decode": 1.0, "faces": 2.0, "network": network_ms, "total": 3.0}
    detection = make_detection(no_face=True, timings_ms=stages)
    response = visitor.get(detection.get_absolute_url())
    assertContains(response, "finding faces 2.0")
    assertNotContains(response, "network 0.0")
    page = admin_client.get(reverse("admin:detector_detection_change", args=[detection.pk]))
    assertContains(page, "decode 1.0 ms, faces 2.0 ms, total 3.0 ms")


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [("real", "It disagrees with the model"), ("fake", "It agrees with the model"), ("cant_tell", "tell</span>")],
)
def test_a_person_s_review_is_shown_beside_the_machine_s_verdict(visitor: Client, verdict: str, sentence: str) -> None:
    detection = make_detection(0.9)
    make_review(detection, verdict, reviewer=make_user("grace"), note="Internal remark.")
    response = visitor.get(address(detection))
    assert response.context["review"]["verdict"] == verdict
    assertContains(response, "Human review:")
    assertContains(response, sentence)
    assertContains(response, "verdict--fake")
    for secret in ("Internal remark.", "grace"):
        assertNotContains(response, secret)


def test_a_review_that_settles_nothing_is_not_shown(visitor: Client, settings: Settings) -> None:
    settings.REVIEWERS_NEEDED = 2
    detection = make_detection(0.9)
    make_review(detection, "real")
    response = visitor.get(address(detection))
    assert response.context["review"] is None
    assertNotContains(response, "Human review")
    make_review(detection, "real")
    assertContains(visitor.get(address(detection)), "Human review:")


def test_a_second_thought_of_one_reviewer_does_not_make_two_people(visitor: Client) -> None:
    detection = make_detection(0.9)
    grace = make_user("grace")
    for verdict in ("fake", "real"):
        make_review(detection, verdict, reviewer=grace)
    response = visitor.get(address(detection))
    assertContains(response, "It disagrees with the model")
    for many in ("people", "They"):
        assertNotContains(response, many)


@pytest.mark.usefixtures("limiter")
def test_an_owner_whose_session_ended_is_led_back_through_the_log_in(client: Client) -> None:
    page = make_detection(owner=make_user("ada")).get_absolute_url()
    log_in = f"{reverse('login')}?next={page}"
    assertContains(client.get(page), f'href="{log_in}"', status_code=HTTPStatus.NOT_FOUND)
    assertNotContains(client.post(page + "delete/"), "next=", status_code=HTTPStatus.NOT_FOUND)
    assertRedirects(client.post(log_in, {"username": "ada", "password": "correct horse battery", "next": page}), page)
    other = reverse("detector:detection", args=[uuid4()])
    assertNotContains(client.get(other), "next=", status_code=HTTPStatus.NOT_FOUND)


def test_an_account_sees_its_own_from_anywhere() -> None:
    ada = make_user()
    detection = make_detection(owner=ada)
    for _ in range(2):
        client = Client()
        client.force_login(ada)
        assert client.get(address(detection)).status_code == HTTPStatus.OK


PAGES = ["detection", "detection-image", "detection-thumbnail"]


@pytest.mark.parametrize("page", PAGES)
def test_someone_else_s_detection_is_not_there(client: Client, visitor: Client, page: str) -> None:
    owned_by_account = make_detection(owner=make_user("ada"))
    owned_by_session = make_detection(session_key="f" * 40)
    stranger = Client()
    stranger.force_login(make_user("mallory"))
    for who in (Client(), visitor, stranger):
        for detection in (owned_by_account, owned_by_session):
            assert who.get(address(detection, page)).status_code == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("page", PAGES)
def test_what_does_not_exist_looks_the_same_as_what_is_not_yours(visitor: Client, page: str) -> None:
    nowhere, elsewhere = uuid4(), make_detection(session_key="f" * 40).pk
    answers = {key: visitor.get(reverse(f"detector:{page}", args=[key])) for key in (nowhere, elsewhere)}
    assert [answer.status_code for answer in answers.values()] == [HTTPStatus.NOT_FOUND] * 2
    missing, foreign = (answer.content.decode().replace(str(key), "KEY") for key, answer in answers.items())
    assert missing == foreign


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("logged_in", [False, True])
def test_a_session_s_key_opens_nothing_that_an_account_owns(visitor: Client, page: str, logged_in: bool) -> None:
    if logged_in:
        visitor.force_login(make_user())
    detection = make_detection(owner=make_user("grace"), session_key=VISITOR_KEY)
    assert visitor.get(address(detection, page)).status_code == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("page", PAGES)
def test_staff_who_may_view_detections_see_every_one(reviewer: Client, page: str) -> None:
    response = reviewer.get(address(make_detection(), page))
    assert response.status_code == HTTPStatus.OK
    if page == "detection":
        assert response.context["can_delete"] is False


@pytest.mark.parametrize("fields", [{"is_staff": True}, {"is_staff": False, "permitted": True}])
def test_neither_staff_without_the_permission_nor_the_permission_without_staff_is_enough(
    fields: dict[str, bool],
) -> None:
    user = make_user(is_staff=fields["is_staff"])
    if fields.get("permitted"):
        user.user_permissions.add(Permission.objects.get(codename="view_detection"))
    client = Client()
    client.force_login(user)
    assert client.get(address(make_detection())).status_code == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_looking_needs_get(visitor: Client, page: str, method: str) -> None:
    response = getattr(visitor, method)(address(make_detection(), page))
    assert response.status_code == HTTPStatus.METHOD_NOT_ALLOWED


@pytest.mark.django_db(transaction=True)
def test_a_visitor_deletes_their_detection_with_its_files(visitor: Client, media_root: Any) -> None:
    response = visitor.post(address(make_detection(), "detection-delete"), follow=True)
    assertRedirects(response, reverse("detector:history"))
    assertContains(response, "deleted")
    assert not Detection.objects.exists()
    assert [path for path in media_root.rglob("*") if path.is_file()] == []


def test_someone_else_s_detection_is_not_deleted(visitor: Client, reviewer: Client) -> None:
    foreign = make_detection(session_key="f" * 40)
    # Reviewers delete in the admin, if they may; not with a button that is meant for the owner.
    for who in (Client(), visitor, reviewer):
        assert who.post(address(foreign, "detection-delete")).status_code == HTTPStatus.NOT_FOUND
    assert Detection.objects.get() == foreign


@pytest.mark.parametrize("whose", ["theirs, whose session has ended", "somebody else's", "gone"])
def test_who_deletes_nothing_is_not_left_to_think_they_did(client: Client, whose: str) -> None:
    detection = make_detection(owner=make_user("ada"))
    if whose != "theirs, whose session has ended":
        client.force_login(make_user("grace"))
    path = reverse("detector:detection-delete", args=[uuid4() if whose == "gone" else detection.pk])
    said = "Nothing was deleted just now"
    response = client.post(path)
    assertContains(response, said, status_code=HTTPStatus.NOT_FOUND)
    assertNotContains(response, "There is no such page, it was deleted", status_code=HTTPStatus.NOT_FOUND)
    script = client.post(path, headers={"accept": "application/json"})
    assert script.json()["error"].startswith(said)
    assert Detection.objects.get() == detection


@pytest.mark.parametrize("method", ["get", "put", "delete"])
def test_deleting_needs_post(visitor: Client, method: str) -> None:
    response = getattr(visitor, method)(address(make_detection(), "detection-delete"))
    assert response.status_code == HTTPStatus.METHOD_NOT_ALLOWED
    assert Detection.objects.count() == 1


def test_deleting_needs_the_csrf_token() -> None:
    client = Client(enforce_csrf_checks=True)
    session = client.session
    session[SESSION_FIELD] = VISITOR_KEY
    session.save()
    assert client.post(address(make_detection(), "detection-delete")).status_code == HTTPStatus.FORBIDDEN
    assert Detection.objects.count() == 1
