"""The reviews in figures, by the week of what was reviewed: counted once and kept for as long as none is added."""

from collections import Counter
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any

from django.db.models import Count, F, Q, Sum

from detector.models import Detection, Review, ReviewWeek
from detector.predictor import DecisionRule
from detector.quality import FAKE, REAL, Pairs, Subject, Waiting, pairs, tenth
from detector.reviews import majority_verdict, opinions_of

REVIEW_FIELDS = [
    *("uploaded_on", "detection_key", "reviewer_key", "pk", "verdict", "machine_verdict", "fake_probability"),
    *("threshold", "uncertain_above", "uncertain_up_to", "model_version"),
    *("is_sampled", "sample_percent", "is_appealed"),
]
# Before this review. Of a deleted detection nobody knows any more: it counts as not objected to.
IS_APPEALED = Q(detection__appealed_at__lte=F("created_at"))

# Figures used to depend on the setting; those that were kept while it was 1 are what they are now.
REVIEWERS_NEEDED = 1

Figures = dict[str, Any]


def reviewed_since(since: date | None, *, model_version: str = "") -> tuple[list[Subject], Pairs]:
    """Returns what was reviewed of the uploads since the Monday before that day, and how often two reviewers agree.

    Args:
        since: None for all.
        model_version: Only what this one judged; empty for all.
    """
    start = since and _monday(since)
    numbers = _numbers(start)
    kept = _kept(start)
    stale = [week for week, number in numbers.items() if week not in kept or kept[week].reviews != number]
    counted = _count(stale)
    ReviewWeek.objects.bulk_create(
        counted,
        update_conflicts=True,
        unique_fields=["start"],
        update_fields=["reviews", "reviewers_needed", "by_model"],
    )
    kept |= {week.start: week for week in counted}
    chosen = [figures for week in numbers for figures in _chosen(kept[week].by_model, model_version)]
    agreed = sum((_pairs(figures) for figures in chosen), Pairs())
    return [subject for figures in chosen for subject in _subjects(figures)], agreed


def sample_waiting(since: datetime | None, *, model_version: str = "") -> Waiting:
    """Returns how many uploads those of the random sample stand for that nobody reviewed.

    Also those whose picture is gone by now: they were drawn, and what of the sample was reviewed in time is no sample.

    Args:
        since: None for all.
        model_version: Only what this one judged; empty for all.
    """
    rows = Detection.objects.unreviewed_sample()
    rows = rows.filter(created_at__gte=since) if since else rows
    rows = rows.filter(model_version=model_version) if model_version else rows
    parts = rows.annotate(is_appealed=Q(appealed_at__isnull=False)).values_list("verdict", "is_appealed")
    sums = parts.annotate(stand_for=Sum(100.0 / F("sample_percent"))).order_by()
    return {(verdict, bool(is_appealed)): stand_for for verdict, is_appealed, stand_for in sums}


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _numbers(start: date | None) -> dict[date, int]:
    """The number of reviews per week, read from the index on the day; weeks without any are left out."""
    reviews = Review.objects.filter(uploaded_on__gte=start) if start else Review.objects.all()
    numbers: Counter[date] = Counter()
    for day, number in reviews.order_by("uploaded_on").values_list("uploaded_on").annotate(n=Count("*")):
        numbers[_monday(day)] += number
    return dict(numbers)


def _kept(start: date | None) -> dict[date, ReviewWeek]:
    weeks = ReviewWeek.objects.filter(reviewers_needed=REVIEWERS_NEEDED)
    found = weeks.filter(start__gte=start) if start else weeks
    return {week.start: week for week in found if all(_is_whole(each) for each in week.by_model.values())}


def _is_whole(figures: Figures) -> bool:
    """Older versions kept no squares, and not whether an uploader objected."""
    return len(figures["pairs"]) == 3 and "appealed" in figures


def _count(starts: list[date]) -> list[ReviewWeek]:
    """The weeks with what is in the database now; number and figures come from one query, so that they fit."""
    if not starts:
        return []
    in_weeks = Q()
    for start in starts:
        in_weeks |= Q(uploaded_on__range=(start, start + timedelta(days=6)))
    reviews = Review.objects.filter(in_weeks).annotate(is_appealed=IS_APPEALED)
    rows = reviews.order_by("detection_key", "ordinal").values_list(*REVIEW_FIELDS)
    found: dict[date, list[tuple[Any, ...]]] = {start: [] for start in starts}
    for row in rows:
        found[_monday(row[0])].append(row)
    return [
        ReviewWeek(
            start=start,
            reviews=len(reviews),
            reviewers_needed=REVIEWERS_NEEDED,
            by_model=_by_model(reviews),
        )
        for start, reviews in found.items()
    ]


def _by_model(rows: Iterable[tuple[Any, ...]]) -> dict[str, Figures]:
    """Subjects and pairs per model version, of reviews that are ordered by what was reviewed."""
    subjects: dict[str, dict[tuple[Any, ...], list[float]]] = {}
    agreed: dict[str, Pairs] = {}
    for _, of_one in groupby(rows, key=itemgetter(1)):
        reviews = list(of_one)
        opinions = opinions_of(review[2:5] for review in reviews)
        *_, machine, probability, threshold, above, up_to, version, is_sampled, percent, _ = reviews[-1]
        is_appealed = bool(reviews[0][-1])  # before the first of them: what came to review otherwise was no objection
        if machine not in (REAL, FAKE):
            continue
        stratum = f"uncertain_{machine}" if _rule(threshold, above, up_to).is_uncertain(probability) else machine
        truth = _truth(opinions)
        alike = (stratum, truth, tenth(probability), percent if is_sampled else 0.0, is_appealed)
        subjects.setdefault(version, {}).setdefault(alike, []).append(probability)
        agreed[version] = agreed.get(version, Pairs()) + pairs(opinions)
    return {
        version: {
            "subjects": [
                (stratum, truth, sum(probabilities) / len(probabilities), percent, len(probabilities))
                for (stratum, truth, _, percent, _), probabilities in groups.items()
            ],
            # One for each of the subjects, beside them, since an older version reads those as they are.
            "appealed": [is_appealed for *_, is_appealed in groups],
            # In the order in which an older version, which knows the first two alone, reads them.
            "pairs": [agreed[version].different, agreed[version].same, agreed[version].squares],
        }
        for version, groups in subjects.items()
    }


def _subjects(figures: Figures) -> list[Subject]:
    both = zip(figures["subjects"], figures["appealed"], strict=True)
    return [
        Subject(stratum, truth, probability, percent, count, is_appealed)
        for (stratum, truth, probability, percent, count), is_appealed in both
    ]


def _pairs(figures: Figures) -> Pairs:
    different, same, squares = figures["pairs"]
    return Pairs(same, different, squares)


def _chosen(by_model: dict[str, Figures], model_version: str) -> list[Figures]:
    return [figures for version, figures in by_model.items() if model_version in ("", version)]


# Of twenty thousand uploads there are only a few different ones.


@lru_cache(maxsize=256)
def _rule(threshold: float, above: float, up_to: float | None) -> DecisionRule:
    return DecisionRule(threshold, uncertain_above=above, uncertain_up_to=threshold if up_to is None else up_to)


_truth = lru_cache(maxsize=1024)(majority_verdict)
