import itertools
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from detector.models import Detection, Review, ReviewWeek, Score, SeenAnswer, SeenUntil, UploadWeek
from detector.tests.factories import make_detection, make_user

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("constraint", "values"),
    [
        ("probability_in_unit_range", {"fake_probability": 1.2}),
        ("probability_in_unit_range", {"fake_probability": -0.1}),
        ("thresholds_in_unit_range", {"threshold": 1.5}),
        ("thresholds_in_unit_range", {"uncertain_above": -0.5}),
        ("verdict_matches_status", {"fake_probability": None}),
        ("verdict_matches_status", {"verdict": ""}),
        ("verdict_matches_status", {"verdict": "not_applicable"}),
        ("verdict_matches_status", {"status": "failed"}),
        ("verdict_matches_status", {"status": "failed", "verdict": ""}),
        ("verdict_matches_status", {"status": "failed", "verdict": "fake", "fake_probability": None}),
        ("verdict_matches_status", {"status": "not_applicable", "verdict": "not_applicable"}),
        ("verdict_matches_status", {"status": "invented"}),
        ("has_owner_or_session", {"session_key": ""}),
        ("review_has_count_and_time", {"review_verdict": "real"}),
        ("review_has_count_and_time", {"review_count": 1}),
        ("sample_percent_in_range", {"sample_percent": 101.0}),
    ],
)
def test_the_database_refuses_a_row_that_contradicts_itself(constraint: str, values: dict[str, Any]) -> None:
    detection = make_detection()
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        Detection.objects.filter(pk=detection.pk).update(**values)


@pytest.mark.parametrize(
    ("fake_probability", "verdict", "is_uncertain"),
    [
        (0.0, "real", False),
        (0.29, "real", False),
        (0.3, "fake", True),  # exactly 0.7 is not above 0.7
        (0.5, "fake", True),
        (0.69, "fake", True),
        (0.71, "fake", False),
        (1.0, "fake", False),
    ],
)
def test_a_verdict_follows_the_rule(fake_probability: float, verdict: str, is_uncertain: bool) -> None:
    detection = make_detection(fake_probability)
    assert (detection.verdict, detection.is_uncertain) == (verdict, is_uncertain)
    assert detection.real_probability == pytest.approx(1 - fake_probability)


def test_an_old_verdict_keeps_the_rule_it_was_given_under() -> None:
    detection = make_detection(0.5, threshold=0.7, uncertain_above=0.6)
    assert detection.is_uncertain is False


@pytest.mark.parametrize("kind", [{"no_face": True}, {"failed": True}])
def test_without_a_probability_nothing_is_uncertain(kind: dict[str, bool]) -> None:
    detection = make_detection(**kind)
    assert detection.is_uncertain is False
    assert detection.real_probability is None


def test_no_index_begins_another() -> None:
    """It would be written with each row and never read: the other one answers the same."""
    for model in (Detection, Review, Score, SeenAnswer, SeenUntil, UploadWeek, ReviewWeek):
        partial = {index.name for index in model._meta.indexes if index.condition}
        with connection.cursor() as cursor:
            found = connection.introspection.get_constraints(cursor, model._meta.db_table)
        # Not those of an expression, without columns, nor PostgreSQL's for LIKE, which the others do not answer.
        columns = {
            name: each["columns"]
            for name, each in found.items()
            if (each["index"] or each["unique"]) and each["columns"] and not name.endswith("_like")
        }
        for one, other in itertools.permutations(columns.keys() - partial, 2):
            assert columns[one] != columns[other][: len(columns[one])], f"{other} begins with {one}"


def test_detections_are_counted_by_verdict() -> None:
    for probability in (0.1, 0.2, 0.9):
        make_detection(probability)
    make_detection(no_face=True)
    make_detection(failed=True)
    assert Detection.objects.counts_by_verdict() == {"total": 5, "real": 2, "fake": 1, "not_applicable": 1}


def test_the_newest_comes_first() -> None:
    first, second = make_detection(), make_detection()
    assert list(Detection.objects.newest_first()) == [second, first]


def test_a_queue_goes_on_and_back_from_each_of_its_rows() -> None:
    """By need first, then by time, then by key; here the most needed were uploaded last."""
    now = timezone.now()
    kinds: list[dict[str, Any]] = [{"fake_probability": 0.5}, {"appealed_at": now}, {"is_sampled": True}]
    queue = []
    for days, kind in zip((1, 2, 3), kinds, strict=True):
        created_at = now - timedelta(days=days)
        older = make_detection(**kind, created_at=created_at - timedelta(hours=1))
        same = [make_detection(**kind, created_at=created_at) for _ in range(2)]
        queue += [older, *sorted(same, key=lambda each: each.pk)]
    waiting = Detection.objects.to_review(make_user("rita"))
    assert list(waiting) == queue
    for place, detection in enumerate(queue):
        assert list(waiting.after(detection)) == queue[place + 1 :]
        assert list(waiting.before(detection)) == queue[:place][::-1]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "holiday.jpg (Fake)"),
        ({"fake_probability": 0.5}, "holiday.jpg (Fake, uncertain)"),
        ({"fake_probability": 0.1, "verdict": "real", "uncertain_up_to": 0.95}, "holiday.jpg (Real, uncertain)"),
        ({"fake_probability": 0.1, "verdict": "real", "uncertain_up_to": 0.85}, "holiday.jpg (Real)"),
        ({"failed": True}, "holiday.jpg (Failed)"),
        ({"no_face": True}, "holiday.jpg (Not applicable)"),
    ],
)
def test_a_detection_reads_as_its_name_and_verdict(values: dict[str, Any], text: str) -> None:
    assert str(make_detection(**values)) == text
