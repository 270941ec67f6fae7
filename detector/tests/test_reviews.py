"""Reviews: what they mean together, and that the database keeps them as they were written."""

import time
from collections.abc import Callable
from datetime import date
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone
from pytest_django import Settings

from detector import services
from detector.exceptions import StaleReview
from detector.images import decode_image
from detector.models import Detection, Review, ReviewNeed
from detector.reviews import Look, UnreadableLook, agreed_verdict, is_drawn, opinions_of
from detector.tests.factories import VISITOR_KEY, FakePredictor, make_detection, make_jpeg, make_review, make_user


@pytest.mark.parametrize(
    ("machine", "opinions", "needed", "expected"),
    [
        ("fake", [], 1, ""),
        ("fake", ["fake"], 1, "fake"),
        ("fake", ["real"], 1, "real"),
        ("fake", ["cant_tell"], 1, "cant_tell"),
        ("fake", ["real", "fake"], 1, ""),  # they disagree
        ("fake", ["real", "fake", "real"], 1, "real"),
        ("fake", ["real", "cant_tell"], 1, "real"),
        ("fake", ["fake"], 2, "fake"),  # confirming needs one
        ("fake", ["real"], 2, ""),
        ("fake", ["real", "cant_tell"], 2, ""),
        ("fake", ["real", "real"], 2, "real"),
        ("fake", ["real", "real", "fake"], 2, "real"),
        ("fake", ["real", "real", "fake", "fake"], 2, ""),
        ("real", ["fake"], 2, ""),
        ("real", ["fake", "fake"], 2, "fake"),
        ("real", ["real"], 2, "real"),
        ("real", ["fake", "cant_tell"], 2, ""),
        ("not_applicable", ["fake"], 2, "fake"),  # there is nothing to overrule
        ("", ["real"], 2, "real"),
    ],
)
def test_reviewers_agree_or_leave_it_open(machine: str, opinions: list[str], needed: int, expected: str) -> None:
    for order in (opinions, opinions[::-1]):
        assert agreed_verdict(machine, order, reviewers_needed=needed) == expected


def test_each_reviewer_counts_once_and_of_unknown_ones_each_review() -> None:
    reviews = [(7, 1, "real"), (8, 2, "fake"), (7, 3, "cant_tell"), (None, 4, "real"), (None, 5, "real")]
    assert sorted(opinions_of(reviews)) == ["cant_tell", "fake", "real", "real"]


@pytest.mark.django_db
def test_a_review_keeps_who_what_how_and_the_machine_s_figures() -> None:
    detection = make_detection(0.9, uncertain_up_to=0.95, is_sampled=True, sample_percent=5.0)
    grace = make_user("grace")
    look = Look.begin(detection.pk, seen_count=0, is_blind=True)
    look = Look(look.detection_key, 0, True, look.opened_at - 12)
    services.review_create(detection=detection, reviewer=grace, verdict="real", note="Studio light.", look=look)
    review = Review.objects.get()
    assert (review.reviewer, review.verdict, review.note, review.is_blind) == (grace, "real", "Studio light.", True)
    assert review.seconds_spent in (12, 13)
    assert (review.detection, review.detection_key, review.ordinal) == (detection, detection.pk, 1)
    copied = ["fake_probability", "threshold", "uncertain_above", "uncertain_up_to"]
    copied += ["model_version", "is_sampled", "sample_percent"]
    assert [getattr(review, name) for name in copied] == [getattr(detection, name) for name in copied]
    assert review.machine_verdict == "fake"


@pytest.mark.django_db
def test_reviewing_leaves_what_the_machine_wrote_alone() -> None:
    detection = make_detection(0.5)
    before: dict[str, Any] = dict(Detection.objects.values().get())
    make_review(detection, "real")
    after: dict[str, Any] = dict(Detection.objects.values().get())
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"review_verdict", "review_count", "reviewed_at", "review_need"}


@pytest.mark.django_db
def test_a_change_of_mind_is_a_further_review_and_counts_once(settings: Settings) -> None:
    settings.REVIEWERS_NEEDED = 2
    detection, grace = make_detection(0.9), make_user("grace")
    for verdict, agreed in (("real", ""), ("real", ""), ("fake", "fake")):
        make_review(detection, verdict, reviewer=grace)
        assert detection.review_verdict == agreed
    assert [review.verdict for review in detection.reviews_so_far()] == ["real", "real", "fake"]
    assert detection.review_count == 3


@pytest.mark.django_db
def test_overruling_the_machine_takes_as_many_reviewers_as_the_setting_says(settings: Settings) -> None:
    settings.REVIEWERS_NEEDED = 2
    detection = make_detection(0.9)
    make_review(detection, "real")
    assert detection.review_verdict == ""
    make_review(detection, "real")
    assert detection.review_verdict == "real"


@pytest.mark.django_db
def test_a_review_of_an_old_page_is_refused() -> None:
    detection = make_detection(0.9)
    look = Look.begin(detection.pk, seen_count=0, is_blind=False)
    make_review(detection, "fake")
    with pytest.raises(StaleReview):
        services.review_create(detection=detection, reviewer=make_user(), verdict="real", note="", look=look)
    assert [review.verdict for review in detection.reviews_so_far()] == ["fake"]
    detection.refresh_from_db()
    assert detection.review_verdict == "fake"


def test_a_look_comes_back_as_it_was_signed_and_only_so() -> None:
    look = Look.begin(uuid4(), seen_count=2, is_blind=True)
    text = look.sign()
    assert Look.read(text) == look
    for forged in ("", "nonsense", text[:-1], "A" + text):
        with pytest.raises(UnreadableLook):
            Look.read(forged)


@pytest.mark.parametrize(("ago_s", "seconds"), [(0, 0), (90, 90), (-90, 0)])
def test_a_clock_that_was_put_back_makes_no_time_of_less_than_nothing(
    monkeypatch: pytest.MonkeyPatch, ago_s: int, seconds: int
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.5)
    look = Look(uuid4(), seen_count=0, is_blind=False, opened_at=1_800_000_000 - ago_s)
    assert look.seconds_spent == seconds


def test_the_sample_is_drawn_by_the_id_alone_and_has_its_size() -> None:
    keys = [UUID(int=number) for number in range(4000)]
    drawn = {key for key in keys if is_drawn(key, 5.0)}
    assert 150 < len(drawn) < 250
    assert drawn == {key for key in keys if is_drawn(key, 5.0)}
    assert drawn < {key for key in keys if is_drawn(key, 20.0)}
    assert not any(is_drawn(key, 0.0) for key in keys)
    assert all(is_drawn(key, 100.0) for key in keys)


@pytest.mark.django_db
@pytest.mark.parametrize("percent", [0.0, 100.0])
def test_an_upload_keeps_whether_and_from_how_many_it_was_drawn(
    predictor: FakePredictor, settings: Settings, percent: float
) -> None:
    settings.REVIEW_SAMPLE_PERCENT = percent
    data = make_jpeg()
    created = services.detection_create(
        owner=None, session_key=VISITOR_KEY, data=data, image=decode_image(data), original_name=""
    )
    stored = Detection.objects.get(pk=created.pk)
    assert (stored.is_sampled, stored.sample_percent) == (percent == 100.0, percent)


def sql(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def sql_for_all(change: str, review: Review) -> None:
    sql(f"UPDATE detector_review SET {change}")


CHANGES = ["verdict = 'fake'", "note = 'x'", "is_blind = NOT is_blind", "created_at = NULL", "reviewer_key = NULL"]
ORDERS: dict[str, Callable[[Review], Any]] = {
    **{change: partial(sql_for_all, change) for change in CHANGES},
    "save": lambda review: review.save(),
    "save as another": lambda review: Review.objects.filter(pk=review.pk).update(verdict="fake"),
    "delete": lambda review: review.delete(),
    "delete all": lambda review: Review.objects.all().delete(),
    "raw delete": lambda review: sql("DELETE FROM detector_review"),
    "another reviewer": lambda review: Review.objects.update(reviewer=make_user("mallory")),
    "another detection": lambda review: Review.objects.update(detection=make_detection()),
}


@pytest.mark.django_db
@pytest.mark.parametrize("order", ORDERS)
def test_the_database_refuses_to_change_or_delete_a_review(order: str) -> None:
    review = make_review(make_detection(0.9), "real", note="As written.")
    review.note = "Rewritten."
    before = Review.objects.values().get()
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        ORDERS[order](review)
    assert Review.objects.values().get() == before


@pytest.mark.django_db
def test_the_database_refuses_what_empties_or_replaces_rows_past_a_delete() -> None:
    make_review(make_detection(0.9), "real")
    connection.check_constraints()  # PostgreSQL refuses to truncate as long as any is pending, trigger or not
    before = Review.objects.values().get()
    columns = ", ".join(
        str(field.column) for field in Review._meta.local_fields if field.column not in ("id", "verdict")
    )
    statements = {
        "postgresql": ["TRUNCATE detector_review"],
        "sqlite": [
            f"INSERT OR REPLACE INTO detector_review (id, verdict, {columns}) "
            f"SELECT id, 'fake', {columns} FROM detector_review",
            f"INSERT OR REPLACE INTO detector_review (verdict, {columns}) "
            f"SELECT 'fake', {columns} FROM detector_review",
        ],
    }[connection.vendor]
    for statement in statements:
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            sql(statement)
    assert Review.objects.values().get() == before


@pytest.mark.django_db
def test_a_review_outlives_its_detection_and_its_reviewer() -> None:
    detection, grace = make_detection(0.9), make_user("grace")
    review = make_review(detection, "real", reviewer=grace)
    key, number = detection.pk, grace.pk
    services.detection_delete(detection=detection)
    grace.delete()
    review.refresh_from_db()
    assert (review.detection, review.reviewer) == (None, None)
    assert (review.detection_key, review.reviewer_key) == (key, number)
    assert (review.verdict, review.machine_verdict, review.fake_probability) == ("real", "fake", 0.9)


@pytest.mark.django_db
def test_the_reviews_of_a_deleted_account_still_count(settings: Settings) -> None:
    settings.REVIEWERS_NEEDED = 2
    detection, grace = make_detection(0.9), make_user("grace")
    make_review(detection, "real", reviewer=grace)
    grace.delete()
    make_review(detection, "real")
    assert detection.review_verdict == "real"


@pytest.mark.django_db(transaction=True)
def test_reviews_from_before_there_were_any_are_moved_there_and_back() -> None:
    try:
        old = migrate_to("0001_create_detection").get_model("detector", "Detection")
        common = {"format": "JPEG", "width": 1, "height": 1, "byte_count": 1, "session_key": VISITOR_KEY}
        judged = {
            "status": "done",
            "verdict": "fake",
            "fake_probability": 0.9,
            "threshold": 0.7,
            "uncertain_above": 0.3,
        }
        written = {"review_verdict": "real", "review_note": "Studio light.", "reviewed_at": "2026-11-01T12:00Z"}
        reviewed = old.objects.create(**common, **judged, **written)
        old.objects.create(**common, **judged)
        old.objects.create(**common, **judged | {"fake_probability": 0.5})
        current = migrate_to("0005_protect_reviews")
        review = current.get_model("detector", "Review").objects.get()
        assert (review.detection_id, review.ordinal, review.verdict) == (reviewed.pk, 1, "real")
        assert (review.note, review.reviewer_key, review.seconds_spent) == ("Studio light.", None, None)
        queued = migrate_to("0009_fill_review_queue").get_model("detector", "Detection").objects
        needs = sorted(queued.values_list("fake_probability", "review_need"))
        assert needs == [(0.5, ReviewNeed.UNCERTAIN), (0.9, ReviewNeed.NONE), (0.9, ReviewNeed.NONE)]
        of_a_deleted_one = {name: getattr(review, name) for name in ("machine_verdict", "threshold", "uncertain_above")}
        current.get_model("detector", "Review").objects.create(
            **of_a_deleted_one,
            **{"detection_key": uuid4(), "ordinal": 1, "verdict": "fake", "created_at": "2025-01-02T12:00Z"},
            **{"is_blind": False, "is_sampled": False, "sample_percent": 0.0},
        )
        reviews = migrate_to("0017_require_review_upload_day").get_model("detector", "Review").objects
        days = list(reviews.order_by("pk").values_list("uploaded_on", flat=True))
        assert days == [timezone.localdate(reviewed.created_at), date(2025, 1, 2)]
        counts = current.get_model("detector", "Detection").objects.values_list("review_count", "review_verdict")
        assert sorted(counts) == [(0, ""), (0, ""), (1, "real")]
        back = migrate_to("0001_create_detection").get_model("detector", "Detection")
        restored = back.objects.exclude(review_verdict="").get()
        assert (restored.pk, restored.review_note) == (reviewed.pk, "Studio light.")
    finally:
        migrate_to(None)


def migrate_to(name: str | None) -> Any:
    """The models as they were after that migration of the detector; None is the newest."""
    executor = MigrationExecutor(connection)
    targets = [("detector", name)] if name else executor.loader.graph.leaf_nodes("detector")
    executor.migrate(targets)
    return executor.loader.project_state(targets).apps
