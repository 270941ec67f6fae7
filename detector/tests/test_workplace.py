"""The page in the admin on which a reviewer decides."""

import importlib
import re
from datetime import timedelta
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings
from pytest_django.asserts import assertContains, assertNotContains, assertRedirects

from detector import services, workplace
from detector.admin import DetectionAdmin
from detector.exceptions import OwnUpload, StaleReview
from detector.models import Detection, Review, ReviewNeed, SeenAnswer, SeenUntil
from detector.reviews import Look
from detector.tests.factories import make_detection, make_jpeg, make_review, make_user

pytestmark = pytest.mark.django_db


def page(detection: Detection) -> str:
    return reverse("admin:detector_detection_review", args=[detection.pk])


def queued(detection: Detection) -> str:
    return f"{page(detection)}?queue=1"


def decide(client: Client, address: str, verdict: str = "real", note: str = "") -> Any:
    look = client.get(address).context["look"]
    return client.post(address, {"verdict": verdict, "note": note, "look": look})


def staff_with(*permissions: str, username: str = "grace") -> Client:
    user = make_user(username, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def reviewer() -> Client:
    return staff_with("view_detection", "add_review")


def test_the_page_shows_the_picture_the_machine_s_answer_and_the_reviews(reviewer: Client) -> None:
    detection = make_detection(0.923)
    make_review(detection, "cant_tell", reviewer=make_user("vera"), note="Too blurred.")
    response = reviewer.get(page(detection))
    picture = reverse("detector:detection-image", args=[detection.pk])
    for text in (picture, "92.3", "vera", "Too blurred."):
        assertContains(response, text)
    assert "unsafe-inline" not in response["Content-Security-Policy"]
    for inline in (" style=", "<style", "<script>"):
        assertNotContains(response, inline)


@pytest.mark.parametrize("verdict", ["real", "fake", "cant_tell"])
def test_a_review_is_kept_with_who_and_when(reviewer: Client, verdict: str) -> None:
    detection = make_detection(0.9)
    look = reviewer.get(page(detection)).context["look"]
    response = reviewer.post(page(detection), {"verdict": verdict, "note": "Studio light.", "look": look})
    assertRedirects(response, reverse("admin:detector_detection_change", args=[detection.pk]))
    review = Review.objects.get()
    assert (review.verdict, review.note, review.is_blind) == (verdict, "Studio light.", False)
    assert review.reviewer is not None
    assert review.reviewer.username == "grace"
    detection.refresh_from_db()
    assert (detection.review_verdict, detection.verdict, detection.fake_probability) == (verdict, "fake", 0.9)


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        ({"verdict": ""}, "Choose a verdict."),
        ({"verdict": "invented"}, "invented is not one of the available choices"),
        ({"note": "x" * 2001}, "at most 2000 characters"),
        ({"look": "forged"}, "The page is too old."),
        ({"look": ""}, "This field is required."),
        ({"look": Look.begin(uuid4(), seen_count=0, is_blind=False).sign()}, "belongs to another detection"),
    ],
)
def test_a_form_with_a_mistake_is_shown_again(reviewer: Client, mistake: dict[str, str], sentence: str) -> None:
    detection = make_detection()
    look = Look.begin(detection.pk, seen_count=0, is_blind=False).sign()
    response = reviewer.post(page(detection), {"verdict": "real", "note": "Kept.", "look": look} | mistake)
    assertContains(response, sentence, status_code=HTTPStatus.BAD_REQUEST)
    assert not Review.objects.exists()


def test_a_stale_review_is_refused_with_what_changed_and_can_be_sent_again(reviewer: Client) -> None:
    detection = make_detection(0.9)
    look = reviewer.get(page(detection)).context["look"]
    make_review(detection, "fake", reviewer=make_user("vera"), note="Two left ears.")
    response = reviewer.post(page(detection), {"verdict": "real", "note": "Studio light.", "look": look})
    for text in ("was not saved", "vera said", "“<bdi>Two left ears.</bdi>”", "Studio light."):
        assertContains(response, text, status_code=HTTPStatus.CONFLICT)
    assert [review.verdict for review in detection.reviews_so_far()] == ["fake"]
    again = {"verdict": "real", "note": "Studio light.", "look": response.context["look"]}
    assert reviewer.post(page(detection), again).status_code == HTTPStatus.FOUND
    assert [review.verdict for review in detection.reviews_so_far()] == ["fake", "real"]


def test_sending_the_same_form_twice_adds_one_review(reviewer: Client) -> None:
    detection = make_detection()
    data = {"verdict": "real", "note": "", "look": reviewer.get(page(detection)).context["look"]}
    assert reviewer.post(page(detection), data).status_code == HTTPStatus.FOUND
    again = reviewer.post(page(detection), data)
    for text in ("This review was not saved: you added one yourself", "You said"):
        assertContains(again, text, status_code=HTTPStatus.CONFLICT)
    assertNotContains(again, "others reviewed", status_code=HTTPStatus.CONFLICT)
    assert Review.objects.count() == 1


@pytest.mark.parametrize("permissions", [[], ["view_detection"], ["add_review"], ["change_detection"]])
def test_reviewing_needs_both_permissions(permissions: list[str]) -> None:
    detection = make_detection()
    client = staff_with(*permissions)
    look = Look.begin(detection.pk, seen_count=0, is_blind=False).sign()
    assert client.get(page(detection)).status_code == HTTPStatus.FORBIDDEN
    response = client.post(page(detection), {"verdict": "real", "note": "", "look": look})
    assert response.status_code == HTTPStatus.FORBIDDEN
    assert not Review.objects.exists()


@pytest.mark.parametrize("logged_in", [False, True])
def test_reviewing_is_for_staff(client: Client, logged_in: bool) -> None:
    if logged_in:
        client.force_login(make_user())
    response = client.get(page(make_detection()))
    assert response.status_code == HTTPStatus.FOUND
    assert response["Location"].startswith(reverse("admin:login"))


def test_what_does_not_exist_cannot_be_reviewed(reviewer: Client) -> None:
    assert reviewer.get(reverse("admin:detector_detection_review", args=[uuid4()])).status_code == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("moment", ["before", "within", "stale"])
def test_what_was_deleted_since_the_page_was_opened_leads_on(
    reviewer: Client, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    detection, waiting = make_detection(), make_detection(0.5)
    look = reviewer.get(page(detection)).context["look"]
    review_create = services.review_create
    if moment == "before":
        Detection.objects.filter(pk=detection.pk).delete()
    if moment == "stale":
        make_review(detection)

    def delete_first(**arguments: Any) -> Review:
        if moment == "within":
            Detection.objects.filter(pk=detection.pk).delete()
        try:
            return review_create(**arguments)
        except StaleReview:
            Detection.objects.filter(pk=detection.pk).delete()
            raise

    monkeypatch.setattr(services, "review_create", delete_first)
    response = reviewer.post(page(detection), {"verdict": "real", "note": "", "look": look})
    assertContains(response, "it was deleted in the meantime", status_code=HTTPStatus.NOT_FOUND)
    assertContains(response, f'href="{queued(waiting)}"', status_code=HTTPStatus.NOT_FOUND)
    assert not Review.objects.filter(reviewer__username="grace").exists()


def test_a_picture_that_goes_while_it_is_reviewed_is_said_to_be_gone(
    reviewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    detection = make_detection()
    look = reviewer.get(page(detection)).context["look"]
    review_create = services.review_create

    def forget_first(**arguments: Any) -> Review:
        services.picture_forget(detection=detection)
        return review_create(**arguments)

    monkeypatch.setattr(services, "review_create", forget_first)
    response = reviewer.post(page(detection), {"verdict": "real", "note": "", "look": look}, follow=True)
    assertContains(response, "no picture to review any more")
    assert not Review.objects.exists()


def test_reviewing_needs_the_csrf_token() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_user("root", is_staff=True, is_superuser=True))
    assert client.post(page(make_detection()), {"verdict": "real"}).status_code == HTTPStatus.FORBIDDEN


def export_all(client: Client) -> None:
    chosen = {"action": "export_csv", "_selected_action": [str(Detection.objects.newest_first()[0].pk)]}
    assert client.post("/admin/detector/detection/", chosen).status_code == HTTPStatus.OK


QUEUE = reverse("admin:detector_queueddetection_changelist")


def listed(client: Client) -> list[str]:
    return [detection.original_name for detection in client.get(QUEUE).context["cl"].result_list]


def test_the_queue_begins_with_what_needs_a_person_most(reviewer: Client) -> None:
    make_detection(0.9, original_name="decided")
    make_detection(0.9, original_name="sample", is_sampled=True)
    make_detection(failed=True, original_name="failed", is_sampled=True)
    make_detection(no_face=True, original_name="no face", is_sampled=True)
    make_detection(0.9, original_name="appealed", appealed_at=timezone.now())
    make_detection(0.1, original_name="Real, says AI", ai_declaration="c2pa")
    make_detection(0.9, original_name="Fake, says AI", ai_declaration="c2pa")
    make_detection(no_face=True, original_name="no face, says AI", ai_declaration="c2pa")
    make_detection(0.5, original_name="uncertain, newer", ai_declaration="c2pa")
    make_detection(0.5, original_name="uncertain, older", created_at=timezone.now() - timedelta(days=1))
    assert listed(reviewer) == ["uncertain, older", "uncertain, newer", "appealed", "sample", "Real, says AI"]


def test_what_is_settled_leaves_the_queue_and_what_is_not_waits_for_another(
    reviewer: Client, settings: Settings
) -> None:
    settings.REVIEWERS_NEEDED = 2
    confirmed, overruled = make_detection(0.5, original_name="a"), make_detection(0.9, original_name="b")
    decide(reviewer, queued(confirmed), "fake")
    decide(reviewer, page(overruled), "real")
    assert listed(reviewer) == []
    second = staff_with("view_detection", "add_review", username="vera")
    assert listed(second) == ["b"]
    decide(second, queued(overruled), "real")
    assert listed(second) == []
    overruled.refresh_from_db()
    assert overruled.review_verdict == "real"


def test_a_real_whose_file_says_ai_waits_until_it_is_settled(reviewer: Client, settings: Settings) -> None:
    settings.REVIEWERS_NEEDED = 2
    detection = make_detection(0.1, original_name="a", ai_declaration="iptc")
    decide(reviewer, queued(detection), "fake")
    second = staff_with("view_detection", "add_review", username="vera")
    assert (listed(reviewer), listed(second)) == ([], ["a"])
    decide(second, queued(detection), "real")
    assert listed(second) == []
    detection.refresh_from_db()
    assert detection.review_need == ReviewNeed.SECOND_OPINION  # one of each: a third has to say
    services.picture_forget(detection=detection)
    detection.refresh_from_db()
    assert detection.review_need == ReviewNeed.NONE


def test_of_the_sample_none_comes_sooner_for_what_its_file_says(reviewer: Client) -> None:
    """Or the quality page would take those for all of the sample that were reviewed first."""
    make_detection(0.1, original_name="newer, says AI", is_sampled=True, ai_declaration="c2pa")
    make_detection(0.1, original_name="older", is_sampled=True, created_at=timezone.now() - timedelta(days=1))
    make_detection(0.1, original_name="not drawn", ai_declaration="c2pa", created_at=timezone.now() - timedelta(days=2))
    assert listed(reviewer) == ["older", "newer, says AI", "not drawn"]


def test_the_migration_of_what_files_say_leaves_the_column_of_now_alone() -> None:
    """There an empty text is never asked, not asked and silent."""
    make_detection(ai_declaration="")
    importlib.import_module("detector.migrations.0024_tell_silent_files").tell(apps, connection.schema_editor())
    assert Detection.objects.get().ai_declaration == ""


def test_the_migration_queues_what_is_contradicted_and_nothing_else() -> None:
    migration = importlib.import_module("detector.migrations.0026_queue_contradicted")
    detections = {
        "sample": make_detection(0.1, is_sampled=True, ai_declaration="iptc"),
        "uncertain": make_detection(0.5, ai_declaration="c2pa"),
        "fake": make_detection(0.9, ai_declaration="c2pa"),
        "silent": make_detection(0.1),
        "contradicted": make_detection(0.1, ai_declaration="c2pa"),
        "settled": make_detection(0.1, ai_declaration="settings", review_verdict="fake"),
        "gone": make_detection(0.1, ai_declaration="settings"),
    }
    services.picture_forget(detection=detections["gone"])

    def needs() -> dict[str, int]:
        found = dict(Detection.objects.values_list("pk", "review_need"))
        return {name: found[detection.pk] for name, detection in detections.items()}

    as_stored = needs()
    migration.unqueue(apps, None)
    before = needs()
    assert before == as_stored | {"contradicted": ReviewNeed.NONE}
    migration.queue(apps, None)
    assert needs() == as_stored == before | {"contradicted": ReviewNeed.CONTRADICTED}


def test_an_objection_brings_a_reviewed_detection_back_to_its_reviewer(reviewer: Client) -> None:
    detection = make_detection(0.9, original_name="a")
    decide(reviewer, page(detection), "fake")
    assert listed(reviewer) == []
    services.appeal_create(detection=detection, text="It is me.")
    assert listed(reviewer) == ["a"]
    decide(reviewer, queued(detection), "real")
    assert listed(reviewer) == []


def test_deciding_leads_through_the_queue_to_its_end(reviewer: Client) -> None:
    detections = [make_detection(0.5, original_name=str(number)) for number in range(3)]
    address, order = queued(detections[1]), []
    while address != QUEUE:
        order.append(reviewer.get(address).context["detection"].original_name)
        address = decide(reviewer, address)["Location"]
    # After the last one it goes on with what was left out before.
    assert order == ["1", "2", "0"]
    assertContains(reviewer.get(QUEUE), "Nothing waits for you.")


@pytest.mark.parametrize(("need", "is_said"), [("2", True), ("3", True), ("1", False)])
def test_a_filter_that_nothing_matches_is_no_empty_queue(reviewer: Client, need: str, is_said: bool) -> None:
    make_detection(0.5)
    response = reviewer.get(QUEUE, {"review_need__exact": need})
    assertNotContains(response, "Nothing waits for you.")
    assert ("Nothing that waits for you matches the filter." in response.content.decode()) is is_said


def test_the_queue_s_filter_offers_what_can_wait_in_it(reviewer: Client) -> None:
    make_detection(0.5)
    (needs,) = reviewer.get(QUEUE).context["cl"].filter_specs
    offered = [choice["display"] for choice in needs.choices(reviewer.get(QUEUE).context["cl"])]
    assert offered == ["All", "Uncertain", "Objected to", "Second opinion", "Random sample", "File says AI"]


def test_next_and_previous_follow_the_queue(reviewer: Client) -> None:
    same_moment = timezone.now()
    detections = [make_detection(0.5, created_at=same_moment) for _ in range(3)]
    first, second, third = sorted(detections, key=lambda detection: detection.pk)
    links = [
        (response.context["previous_page"], response.context["next_page"])
        for response in map(reviewer.get, map(queued, (first, second, third)))
    ]
    assert links == [("", queued(second)), (queued(first), queued(third)), (queued(second), "")]


def test_what_was_decided_and_what_the_machine_says_is_told_afterwards(reviewer: Client) -> None:
    detection, following = make_detection(0.5, original_name="<b>.jpg"), make_detection(0.6)
    response = decide(reviewer, queued(detection))
    assertRedirects(response, queued(following), fetch_redirect_response=False)
    response = reviewer.get(response["Location"])
    assertContains(response, "Added for <bdi>&lt;b&gt;.jpg</bdi>: Real. The machine says Fake, uncertain (50.0")


SECRETS = [
    "Fake",
    "90.0",
    "objects",
    "It is me.",
    "heatmap",
    "evidence__boxes",
    "vera",
    "Second opinion",
    "Objected",
    "File says AI",
    "The file says",
]
HARMLESS = ["Fake</button>", "<kbd>F</kbd> Fake"]


def test_a_blind_look_shows_neither_the_machine_s_answer_nor_anybody_s(reviewer: Client, settings: Settings) -> None:
    settings.REVIEW_BLIND = True
    detection = make_detection(0.9, appealed_at=timezone.now(), appeal_text="It is me.")
    make_review(detection, "fake", reviewer=make_user("vera"), note="Two left ears.")
    services.appeal_create(detection=make_detection(0.8), text="")
    for address in (QUEUE, queued(detection)):
        content = re.sub(r"\s+", " ", reviewer.get(address).content.decode())
        for words in HARMLESS:
            content = content.replace(words, "")
        assert [secret for secret in SECRETS if secret in content] == []
    decide(reviewer, queued(detection))
    assert Review.objects.latest("pk").is_blind
    for secret in ("It is me.", "Two left ears.", "90.0"):
        assertContains(reviewer.get(page(detection)), secret)
    decide(reviewer, page(detection))
    assert not Review.objects.latest("pk").is_blind


@pytest.mark.parametrize("query", ["verdict=fake", "fake_probability__gt=0.4", "review_need__exact=1", "is_sampled=1"])
def test_a_blind_queue_cannot_be_narrowed_to_an_answer(reviewer: Client, settings: Settings, query: str) -> None:
    make_detection(0.5)
    assert reviewer.get(f"{QUEUE}?{query}").status_code == HTTPStatus.OK
    settings.REVIEW_BLIND = True
    assert reviewer.get(f"{QUEUE}?{query}").status_code == HTTPStatus.BAD_REQUEST
    assert reviewer.get(f"{QUEUE}?p=1").status_code == HTTPStatus.OK


ANSWERS_AT = [
    "/admin/detector/detection/",
    "/admin/detector/detection/{}/change/",
    "/admin/detector/detection/{}/history/",
    "/detections/{}/",
]


@pytest.mark.parametrize("seen_at", ANSWERS_AT)
def test_no_look_is_blind_after_the_answer_was_seen(reviewer: Client, settings: Settings, seen_at: str) -> None:
    settings.REVIEW_BLIND = True
    detection = make_detection(0.5)
    reviewer.get(seen_at.format(detection.pk))
    decide(reviewer, queued(detection))
    assert not Review.objects.get().is_blind


@pytest.mark.parametrize("seen_at", ANSWERS_AT)
def test_a_look_that_began_blind_is_none_once_the_answer_was_seen(
    reviewer: Client, settings: Settings, seen_at: str
) -> None:
    settings.REVIEW_BLIND = True
    detection = make_detection(0.5)
    look = reviewer.get(queued(detection)).context["look"]
    reviewer.get(seen_at.format(detection.pk))
    reviewer.post(queued(detection), {"verdict": "real", "note": "", "look": look})
    assert not Review.objects.get().is_blind


def test_who_was_asked_whether_to_delete_it_has_seen_the_answer(admin_client: Client, settings: Settings) -> None:
    settings.REVIEW_BLIND = True
    detection = make_detection(0.5)
    assertContains(admin_client.get(f"/admin/detector/detection/{detection.pk}/delete/"), "Fake, uncertain")
    decide(admin_client, page(detection))
    assert not Review.objects.get().is_blind


@pytest.mark.parametrize("seen_at", ["/admin/detector/review/", "/admin/detector/review/{}/change/"])
def test_a_review_of_somebody_else_shows_the_answer_too(settings: Settings, seen_at: str) -> None:
    settings.REVIEW_BLIND, settings.REVIEWERS_NEEDED = True, 2
    reviewer = staff_with("view_detection", "add_review", "view_review")
    detection = make_detection(0.5)
    first = make_review(detection, "real")
    reviewer.get(seen_at.format(first.pk))
    decide(reviewer, page(detection))
    assert not Review.objects.latest("pk").is_blind


def test_the_page_of_a_copy_shows_the_answer_to_it_too(reviewer: Client, settings: Settings) -> None:
    settings.REVIEW_BLIND = True
    data = make_jpeg()
    detection, copy = make_detection(0.5, data=data), make_detection(0.5, data=data)
    reviewer.get(f"/admin/detector/detection/{copy.pk}/change/")
    decide(reviewer, page(detection))
    assert not Review.objects.get().is_blind


@pytest.mark.parametrize("is_own", [False, True])
def test_the_result_of_a_copy_shows_the_answer_too(reviewer: Client, settings: Settings, is_own: bool) -> None:
    settings.REVIEW_BLIND = True
    data = make_jpeg()
    owner = User.objects.get(username="grace") if is_own else make_user("ada")
    detection, copy = make_detection(0.5, data=data), make_detection(0.5, data=data, owner=owner)
    reviewer.get(copy.get_absolute_url())
    decide(reviewer, page(detection))
    assert not Review.objects.get().is_blind


def test_what_the_machine_says_of_a_file_is_told_of_its_copies_too(reviewer: Client, settings: Settings) -> None:
    settings.REVIEW_BLIND = True
    data = make_jpeg()
    detections = [make_detection(0.5, data=data), make_detection(0.5, data=data)]
    for detection in detections:
        decide(reviewer, queued(detection))
    assert [detection.reviews.get().is_blind for detection in detections] == [True, False]


def test_who_downloaded_the_answers_has_seen_all_until_then(reviewer: Client, settings: Settings) -> None:
    settings.REVIEW_BLIND = True
    before = make_detection(0.5)
    export_all(reviewer)
    after = make_detection(0.5, data=make_jpeg(seed=1))  # no copy, whose answer the page of the first would show
    for detection, is_blind in ((before, False), (after, True)):
        decide(reviewer, page(detection))
        assert Review.objects.latest("pk").is_blind is is_blind


def test_what_was_seen_is_known_one_by_one(reviewer: Client, settings: Settings) -> None:
    settings.REVIEW_BLIND = True
    seen, unseen = ([make_detection(0.5, data=make_jpeg(seed=seed)) for seed in seeds] for seeds in ((0, 1), (2, 3)))
    for detection in seen:
        reviewer.get(f"/admin/detector/detection/{detection.pk}/change/")
    for detection in (*unseen, *seen):
        decide(reviewer, page(detection))
        assert Review.objects.latest("pk").is_blind is (detection in unseen)


@pytest.mark.parametrize("is_exported", [False, True])
@pytest.mark.parametrize("since", ["log-out", "session's end", "another browser"])
def test_what_was_seen_is_remembered_for_good(
    reviewer: Client, settings: Settings, is_exported: bool, since: str
) -> None:
    settings.REVIEW_BLIND = True
    detection = make_detection(0.5)
    if is_exported:
        export_all(reviewer)
    else:
        reviewer.get(f"/admin/detector/detection/{detection.pk}/change/")
    grace = User.objects.get(username="grace")
    if since == "log-out":
        reviewer.post(reverse("logout"))
    elif since == "session's end":
        Session.objects.all().delete()
    else:
        reviewer = Client()
    reviewer.force_login(grace)
    decide(reviewer, queued(detection))
    assert not Review.objects.get().is_blind


def test_what_one_has_seen_leaves_the_others_blind(reviewer: Client, settings: Settings) -> None:
    settings.REVIEW_BLIND = True
    detection = make_detection(0.5)
    reviewer.get(f"/admin/detector/detection/{detection.pk}/change/")
    export_all(reviewer)
    decide(staff_with("view_detection", "add_review", username="vera"), queued(detection))
    assert Review.objects.get().is_blind


@pytest.mark.parametrize("field", [workplace.SEEN_FIELD, workplace.ALL_SEEN_FIELD])
def test_what_a_session_remembered_before_accounts_did_counts(reviewer: Client, settings: Settings, field: str) -> None:
    settings.REVIEW_BLIND = True
    detection, other = make_detection(0.5), make_detection(0.5, data=make_jpeg(seed=1), created_at=timezone.now())
    session = reviewer.session
    by_field = {workplace.SEEN_FIELD: [str(detection.pk)], workplace.ALL_SEEN_FIELD: detection.created_at.isoformat()}
    session[field] = by_field[field]
    session.save()
    for each, is_blind in ((detection, False), (other, True)):
        decide(reviewer, page(each))
        assert Review.objects.latest("pk").is_blind is is_blind


def test_a_page_that_shows_nothing_new_writes_nothing(reviewer: Client, settings: Settings) -> None:
    settings.REVIEW_BLIND = True
    detection = make_detection(0.5)

    def written() -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            reviewer.get("/admin/detector/detection/")
            reviewer.get(f"/admin/detector/detection/{detection.pk}/change/")
            export_all(reviewer)
        statements = [query["sql"] for query in captured if not query["sql"].startswith(("SELECT", "SAVEPOINT"))]
        return [sql for sql in statements if not sql.startswith("RELEASE SAVEPOINT")]

    assert len(written()) == 2
    assert written() == []
    make_detection(0.5)
    assert len(written()) == 2


@pytest.mark.parametrize("is_blind", [False, True])
def test_only_where_looks_are_blind_it_is_noted_what_was_seen(
    reviewer: Client, settings: Settings, is_blind: bool
) -> None:
    settings.REVIEW_BLIND = is_blind
    detection = make_detection(0.5)
    reviewer.get(f"/admin/detector/detection/{detection.pk}/change/")
    export_all(reviewer)
    assert (SeenAnswer.objects.exists(), SeenUntil.objects.exists()) == (is_blind, is_blind)


@pytest.mark.parametrize("gone", ["detection", "account"])
def test_what_was_seen_goes_with_the_detection_and_with_the_account(
    reviewer: Client, admin_client: Client, settings: Settings, gone: str
) -> None:
    settings.REVIEW_BLIND = True
    detection, other = make_detection(0.5), make_detection(0.5)
    for client in (reviewer, admin_client):
        client.get("/admin/detector/detection/")
        export_all(client)
    grace = User.objects.get(username="grace")
    row = f"detector/detection/{detection.pk}" if gone == "detection" else f"auth/user/{grace.pk}"
    page = admin_client.get(f"/admin/{row}/delete/")
    assertContains(page, "Are you sure")
    assertContains(page, "<li>Seen answers:")  # how many
    for line in ("Seen answer: ", "Seen until: "):
        assertNotContains(page, line)
    assert admin_client.post(f"/admin/{row}/delete/", {"post": "yes"}).status_code == HTTPStatus.FOUND
    accounts = set(User.objects.values_list("username", flat=True))
    assert accounts == ({"grace", "admin"} if gone == "detection" else {"admin"})
    left = set(SeenAnswer.objects.values_list("account__username", "detection"))
    kept = {other.pk} if gone == "detection" else {detection.pk, other.pk}
    assert left == {(account, key) for account in accounts for key in kept}
    assert set(SeenUntil.objects.values_list("account__username", flat=True)) == accounts


def test_a_picture_that_goes_takes_nothing_of_what_was_seen_with_it(reviewer: Client, settings: Settings) -> None:
    settings.REVIEW_BLIND = True
    detection = make_detection(0.5)
    reviewer.get("/admin/detector/detection/")
    services.picture_forget(detection=detection)
    assert SeenAnswer.objects.get().detection == detection


DETECTIONS, REVIEWS = reverse("admin:detector_detection_changelist"), reverse("admin:detector_review_changelist")


@pytest.mark.parametrize(
    ("query", "is_blind"),
    [
        ("verdict__exact=real&q=holiday", False),
        ("verdict=real", False),
        ("status__exact=failed", False),
        ("review_need__exact=4", False),
        ("fake_probability__lt=0.2", False),
        ("uncertain_above__gt=0.4", False),
        ("reviewed=yes", False),
        ("review_verdict__exact=real", False),
        ("ai_declaration__exact=c2pa", False),
        ("model_version=another", False),
        ("o=3", False),
        ("o=-2.5", False),
        ("o=5", True),
        ("p=2", True),
        ("q=beach", True),
        ("created_at__year=2020", True),
    ],
)
def test_what_a_list_leaves_out_may_tell_its_answer(
    reviewer: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch, query: str, is_blind: bool
) -> None:
    settings.REVIEW_BLIND = True
    monkeypatch.setattr(DetectionAdmin, "list_per_page", 1)
    make_detection(0.1, data=make_jpeg(seed=1), created_at=timezone.now() - timedelta(hours=1))
    detection = make_detection(0.5)
    shown = reviewer.get(f"{DETECTIONS}?{query}").context["cl"].result_list
    assert detection not in shown
    decide(reviewer, page(detection))
    assert Review.objects.get().is_blind is is_blind


@pytest.mark.parametrize(
    ("query", "is_blind"),
    [
        ("machine_answer=real", False),
        ("verdict__exact=fake", False),
        ("fake_probability__gt=0.6", False),
        ("is_blind__exact=1", True),
        ("is_sampled__exact=1", True),
        ("q=beach", True),
    ],
)
def test_a_list_of_reviews_that_leaves_one_out_may_tell_the_answer_too(
    settings: Settings, query: str, is_blind: bool
) -> None:
    settings.REVIEW_BLIND, settings.REVIEWERS_NEEDED = True, 2
    reviewer = staff_with("view_detection", "add_review", "view_review")
    detection = make_detection(0.5)
    make_review(detection, "real")
    assert list(reviewer.get(f"{REVIEWS}?{query}").context["cl"].result_list) == []
    decide(reviewer, page(detection))
    assert Review.objects.latest("pk").is_blind is is_blind


@pytest.mark.parametrize("model_name", ["review", "score", "seenanswer"])
def test_nothing_completes_the_names_of_detections_with_their_answers(reviewer: Client, model_name: str) -> None:
    make_detection(0.5)
    query = {"app_label": "detector", "model_name": model_name, "field_name": "detection", "term": ""}
    response = reviewer.get(reverse("admin:autocomplete"), query)
    assertNotContains(response, "uncertain", status_code=HTTPStatus.NOT_FOUND)


@pytest.mark.parametrize("asked_about", ["detections", "account", "accounts"])
def test_who_was_asked_whether_to_delete_many_has_seen_their_answers(
    admin_client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch, asked_about: str
) -> None:
    settings.REVIEW_BLIND = True
    monkeypatch.setattr(DetectionAdmin, "list_per_page", 1)
    ada = make_user("ada")
    detection, newer = make_detection(0.5, owner=ada), make_detection(0.9, data=make_jpeg(seed=1), owner=ada)
    action = {"action": "delete_selected", "select_across": "1"}
    if asked_about == "detections":
        response = admin_client.post(DETECTIONS, {**action, "_selected_action": [str(newer.pk)]})
    elif asked_about == "account":
        response = admin_client.get(reverse("admin:auth_user_delete", args=[ada.pk]))
    else:
        users = reverse("admin:auth_user_changelist")
        response = admin_client.post(users, {**action, "select_across": "0", "_selected_action": [str(ada.pk)]})
    assertContains(response, "holiday.jpg (Fake, uncertain)")
    decide(admin_client, page(detection))
    assert not Review.objects.get().is_blind


def test_a_refused_blind_review_is_sent_again_with_open_eyes(reviewer: Client, settings: Settings) -> None:
    settings.REVIEW_BLIND = True
    detection = make_detection(0.5)
    look = reviewer.get(queued(detection)).context["look"]
    make_review(detection, "cant_tell", reviewer=make_user("vera"))
    response = reviewer.post(queued(detection), {"verdict": "real", "note": "", "look": look})
    reviewer.post(queued(detection), {"verdict": "real", "note": "", "look": response.context["look"]})
    assert [review.is_blind for review in detection.reviews_so_far()] == [False, False]


def test_a_longer_queue_takes_no_more_queries(
    reviewer: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    detections = [make_detection(0.5) for _ in range(6)]
    with django_assert_max_num_queries(8):
        reviewer.get(QUEUE)
    with django_assert_max_num_queries(10):
        reviewer.get(queued(detections[3]))


def test_a_blind_look_takes_no_more_queries(
    reviewer: Client, settings: Settings, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    settings.REVIEW_BLIND = True
    detections = [make_detection(0.5) for _ in range(6)]
    with django_assert_max_num_queries(8):
        reviewer.get(QUEUE)
    with django_assert_max_num_queries(10):
        reviewer.get(queued(detections[3]))


def test_the_queue_is_read_from_its_index() -> None:
    queue = Detection.objects.to_review(make_user())
    plan = queue.explain()
    assert "detection_review_queue" in plan
    assert "TEMP B-TREE FOR ORDER BY" not in plan


@pytest.mark.parametrize("permissions", [[], ["view_detection"], ["add_review"]])
def test_the_queue_is_for_those_who_may_review(permissions: list[str]) -> None:
    client = staff_with(*permissions)
    assert client.get(QUEUE).status_code == HTTPStatus.FORBIDDEN
    assertNotContains(client.get(reverse("admin:index")), "To review")


def test_the_queue_leads_to_no_other_page(reviewer: Client) -> None:
    detection = make_detection(0.5)
    assertContains(reviewer.get(reverse("admin:index")), QUEUE)
    for name in ("change", "delete", "history"):
        assert reviewer.get(f"{QUEUE}{detection.pk}/{name}/").status_code == HTTPStatus.NOT_FOUND


def test_nobody_reviews_what_they_uploaded(reviewer: Client) -> None:
    grace = User.objects.get(username="grace")
    own = make_detection(0.5, owner=grace)
    assert list(Detection.objects.to_review(grace)) == []
    response = reviewer.get(page(own), follow=True)
    assertRedirects(response, reverse("admin:detector_detection_change", args=[own.pk]))
    assertContains(response, "Somebody else has to review what you uploaded.")
    with pytest.raises(OwnUpload):
        make_review(own, reviewer=grace)
    assert not Review.objects.exists()
