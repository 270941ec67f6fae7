"""The reviews in figures: kept per week of upload, and never anything but what a fresh count says."""

import random
from collections import Counter, defaultdict
from datetime import datetime, time, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from detector import review_weeks, services
from detector.models import Detection, Review, ReviewWeek
from detector.quality import Pairs, Subject, tenth
from detector.tests.factories import make_detection, make_review, make_user

pytestmark = pytest.mark.django_db


def weeks_ago(weeks: float) -> Any:
    return timezone.now() - timedelta(weeks=weeks)


def reviewed(**options: Any) -> list[tuple[str, str, int]]:
    """Stratum, truth and number of what was reviewed."""
    subjects, _ = review_weeks.reviewed_since(options.pop("since", None), **options)
    counts: Counter[tuple[str, str]] = Counter()
    for subject in subjects:
        counts[subject.stratum, subject.truth] += subject.count
    return sorted((*key, count) for key, count in counts.items())


def one_by_one() -> dict[tuple[Any, ...], list[float]]:
    """What there is to find, worked out for each upload by itself."""
    by_upload: dict[Any, list[Review]] = defaultdict(list)
    for review in Review.objects.order_by("ordinal"):
        by_upload[review.detection_key].append(review)
    found: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for reviews in by_upload.values():
        newest = list({review.reviewer_key: review.verdict for review in reviews}.values())
        more_real = newest.count("real") - newest.count("fake")
        tied = "" if "real" in newest else "cant_tell"
        review, probability = reviews[0], reviews[0].fake_probability
        if probability is None:
            continue
        if review.machine_verdict == "fake":
            is_uncertain = 1 - probability > review.uncertain_above
        else:
            is_uncertain = review.uncertain_up_to is not None and 1 - probability <= review.uncertain_up_to
        found[
            f"uncertain_{review.machine_verdict}" if is_uncertain else review.machine_verdict,
            "real" if more_real > 0 else "fake" if more_real < 0 else tied,
            review.sample_percent if review.is_sampled else 0.0,
            tenth(probability),
        ].append(probability)
    return found


def in_figures(subjects: list[Subject]) -> dict[tuple[Any, ...], tuple[int, float]]:
    sums: dict[tuple[Any, ...], tuple[int, float]] = {}
    for each in subjects:
        key = (each.stratum, each.truth, each.sample_percent, tenth(each.fake_probability))
        count, total = sums.get(key, (0, 0.0))
        sums[key] = (count + each.count, total + each.count * each.fake_probability)
    return {key: (count, round(total, 9)) for key, (count, total) in sums.items()}


def test_whatever_happens_the_kept_figures_are_those_of_a_fresh_count(settings: Settings) -> None:
    dice = random.Random(7)
    staff = [make_user(f"reviewer{number}", is_staff=True) for number in range(3)]
    uploads = [
        make_detection(
            *([] if number % 9 == 0 else [dice.random()]),
            no_face=number % 9 == 0,
            created_at=weeks_ago(dice.random() * 4),
            is_sampled=(drawn := dice.random() < 0.5),
            sample_percent=dice.choice([1.0, 5.0]) if drawn else 5.0,
            model_version=f"test-{number % 2}",
            uncertain_up_to=dice.choice([None, 0.7, 0.9]),
        )
        for number in range(20)
    ]
    assert {"real", "uncertain_real", "uncertain_fake", "fake"} <= {detection.answer for detection in uploads}
    for step in range(40):
        detection = dice.choice(uploads)
        make_review(detection, dice.choice(["real", "fake", "cant_tell"]), reviewer=dice.choice(staff))
        if step % 10 == 4:
            services.picture_forget(detection=uploads.pop())
        if step % 10 == 9:
            services.detection_delete(detection=uploads.pop())
        if step == 20:
            settings.REVIEWERS_NEEDED = 2
        if step % 4 == 0:
            subjects, _ = review_weeks.reviewed_since(None)
            expected = one_by_one()
            assert in_figures(subjects) == {key: (len(found), round(sum(found), 9)) for key, found in expected.items()}


def test_past_weeks_are_kept_and_read_again_without_a_look_at_any_review() -> None:
    for weeks in (0, 3, 3):
        make_review(make_detection(0.5, created_at=weeks_ago(weeks)), "real")
    first = reviewed()
    assert ReviewWeek.objects.count() == 2
    with CaptureQueriesContext(connection) as captured:
        assert reviewed() == first == [("uncertain_fake", "real", 3)]
    assert len(captured) == 2
    assert "detection_key" not in str(captured.captured_queries)


def test_a_further_review_has_the_week_of_its_upload_counted_again_and_no_other() -> None:
    old, older = (make_detection(0.5, created_at=weeks_ago(weeks)) for weeks in (3, 6))
    for detection in (old, older):
        make_review(detection, "real")
    reviewed()
    ReviewWeek.objects.filter(start__lt=weeks_ago(4)).update(by_model={})  # would be mended if it were counted
    make_review(old, "fake")
    assert reviewed() == [("uncertain_fake", "", 1)]


def test_a_deleted_upload_stays_in_its_week(
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    detection = make_detection(0.5, created_at=weeks_ago(10))
    make_review(detection, "real")
    before = ReviewWeek.objects.values("start", "reviews", "by_model")
    for is_kept in (True, False):
        if not is_kept:
            ReviewWeek.objects.all().delete()
        assert reviewed() == [("uncertain_fake", "real", 1)]
        assert reviewed(since=timezone.localdate(weeks_ago(9))) == []
        if is_kept:
            kept = list(before)
            with django_capture_on_commit_callbacks(execute=True):
                services.detection_delete(detection=detection)
    assert list(before) == kept


def test_a_single_disagreement_counts_however_many_have_to_agree(settings: Settings) -> None:
    make_review(make_detection(0.9, created_at=weeks_ago(3)), "real")
    for settings.REVIEWERS_NEEDED in (1, 2):
        assert reviewed() == [("fake", "real", 1)]


def test_what_was_kept_when_the_setting_decided_is_counted_again() -> None:
    make_review(make_detection(0.9, created_at=weeks_ago(3)), "real")
    reviewed()
    ReviewWeek.objects.update(reviewers_needed=2, by_model={"test-1": {"subjects": [], "pairs": [0, 0]}})
    assert reviewed() == [("fake", "real", 1)]


def test_a_week_is_narrowed_to_a_model_and_begins_on_monday() -> None:
    monday = timezone.localdate(weeks_ago(2))
    monday -= timedelta(days=monday.weekday())
    for days, version in ((-1, "test-1"), (0, "test-1"), (0, "test-2")):
        noon = timezone.make_aware(datetime.combine(monday + timedelta(days=days), time(12)))
        make_review(make_detection(0.5, created_at=noon, model_version=version), "real")
    sunday = monday + timedelta(days=6)
    assert [sum(count for *_, count in reviewed(since=day)) for day in (None, monday, sunday)] == [3, 2, 2]
    assert reviewed(since=sunday, model_version="test-2") == [("uncertain_fake", "real", 1)]
    assert reviewed(model_version="unknown") == []


def test_pairs_of_reviewers_are_counted_over_all_weeks() -> None:
    for weeks, verdicts in ((1, ["real", "real"]), (5, ["real", "fake", "real"]), (9, ["real"])):
        detection = make_detection(0.5, created_at=weeks_ago(weeks))
        for verdict in verdicts:
            make_review(detection, verdict)
    for _ in ("counted", "kept"):
        _, agreed = review_weeks.reviewed_since(None)
        assert agreed == Pairs(same=2, different=2, squares=1 + 9)


def test_a_week_that_an_older_version_kept_without_squares_is_counted_again() -> None:
    detection = make_detection(0.5, created_at=weeks_ago(3))
    for verdict in ("real", "fake", "fake"):
        make_review(detection, verdict)
    reviewed()
    week = ReviewWeek.objects.get()
    week.by_model["test-1"]["pairs"].pop()
    week.save()
    _, agreed = review_weeks.reviewed_since(None)
    assert agreed == Pairs(same=1, different=2, squares=9)
    assert len(ReviewWeek.objects.get().by_model["test-1"]["pairs"]) == 3


def test_an_objection_counts_if_it_came_before_the_first_review() -> None:
    before, after, never = (make_detection(0.9, created_at=weeks_ago(3)) for _ in range(3))
    services.appeal_create(detection=before, text="It is me.")
    for detection, verdict in ((before, "real"), (after, "fake"), (never, "cant_tell")):
        make_review(detection, verdict)
    services.appeal_create(detection=after, text="It is me.")
    make_review(after, "fake")
    for _ in ("counted", "kept"):
        subjects, _ = review_weeks.reviewed_since(None)
        assert {each.truth: each.is_appealed for each in subjects} == {"real": True, "fake": False, "cant_tell": False}


def test_a_week_that_an_older_version_kept_without_objections_is_counted_again() -> None:
    detection = make_detection(0.9, created_at=weeks_ago(3))
    services.appeal_create(detection=detection, text="It is me.")
    make_review(detection, "real")
    reviewed()
    week = ReviewWeek.objects.get()
    week.by_model["test-1"].pop("appealed")
    week.save()
    (subject,), _ = review_weeks.reviewed_since(None)
    assert subject.is_appealed
    assert [len(each) for each in ReviewWeek.objects.get().by_model["test-1"]["subjects"]] == [5], "as older ones read"


def test_what_waits_of_the_sample_stands_for_what_was_not_drawn() -> None:
    drawn: dict[str, Any] = {"is_sampled": True, "sample_percent": 5.0}
    make_detection(0.1, **drawn, created_at=weeks_ago(3))
    make_detection(0.9, **drawn | {"sample_percent": 10.0}, model_version="test-2")
    make_detection(0.9, **drawn)
    objected, forgotten = make_detection(0.9, **drawn), make_detection(0.9, **drawn)
    services.appeal_create(detection=objected, text="It is me.")
    services.picture_forget(detection=forgotten)  # by hand or by age: nobody can review it any more, but it was drawn
    make_review(make_detection(0.9, **drawn), "fake")
    moment = timezone.now()
    make_detection(0.9, **drawn, created_at=moment, picture_removed_at=moment)  # never kept, so it could not come up
    make_detection(0.9, sample_percent=5.0)
    make_detection(0.9, is_sampled=True, sample_percent=0.0)
    for uncertain_or_nothing in (make_detection(0.5, **drawn), make_detection(no_face=True, **drawn)):
        assert uncertain_or_nothing.answer not in ("real", "fake")
    assert review_weeks.sample_waiting(None) == {
        ("real", False): pytest.approx(20),
        ("fake", False): pytest.approx(20 + 20 + 10),
        ("fake", True): pytest.approx(20),
    }
    assert set(review_weeks.sample_waiting(weeks_ago(1))) == {("fake", False), ("fake", True)}
    assert review_weeks.sample_waiting(None, model_version="test-2") == {("fake", False): pytest.approx(10)}


def test_what_waits_of_the_sample_is_read_from_its_index() -> None:
    with CaptureQueriesContext(connection) as captured:
        review_weeks.sample_waiting(weeks_ago(4))
    with connection.cursor() as cursor:
        plan = str(cursor.execute(f"EXPLAIN QUERY PLAN {captured[0]['sql']}").fetchall())
    assert "SEARCH detector_detection USING INDEX detection_unreviewed_sample" in plan


def test_every_review_has_its_upload_s_day() -> None:
    detection = make_detection(0.5, created_at=weeks_ago(3))
    make_review(detection, "real")
    assert Review.objects.get().uploaded_on == timezone.localdate(Detection.objects.get().created_at)
