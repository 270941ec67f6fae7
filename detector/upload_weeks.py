"""The uploads of each week in figures: past weeks are counted once and kept, the current one on each call."""

from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from typing import Any

from django.db.models import Count, F, Min, Q, Sum
from django.db.models.functions import TruncWeek
from django.utils import timezone

from detector.models import Detection, UploadWeek, uncertain
from detector.quality import BINS, FAKE, REAL

IS_UNCERTAIN = uncertain("verdict")
# What was never kept could not come to review.
WAS_KEPT = ~Q(picture_removed_at=F("created_at"))
COUNTS = ("n", "real", "uncertain_real", "uncertain_fake", "score_sum", "not_kept")
# An upload carries the time of its arrival and is stored when it is analysed: a week is not final at its last second.
SETTLED_AFTER = timedelta(hours=1)
# One that ends with summer time, rounded up.
LONGEST_WEEK = timedelta(days=8)

Figures = dict[str, Any]


def week_start(moment: datetime) -> datetime:
    """Returns the midnight that began the week."""
    day = timezone.localtime(moment).date()
    return _midnight(day - timedelta(days=day.weekday()))


def weeks_since(since: datetime | None, *, model_version: str = "") -> list[Figures]:
    """Returns what was uploaded with a verdict and its picture, per week from that moment's on, without empty weeks.

    Under "not_kept" the number of those that came without their picture to keep, which are in no other figure.

    Args:
        since: None for all.
        model_version: Only what this one judged; empty for all.
    """
    starts = _starts(since)
    if not starts:
        return []
    kept = UploadWeek.objects.filter(start__gte=starts[0]).values_list("start", "by_model")
    # While a new version is being rolled out the old one may keep a week without what it did not count yet.
    by_start: dict[datetime, dict[str, Figures]] = {
        start: by_model
        for start, by_model in kept
        if all(figures.keys() >= set(COUNTS) for figures in by_model.values())
    }
    missing = [start for start in starts if start not in by_start]
    counted = _count(missing)
    settled = week_start(timezone.now() - SETTLED_AFTER)
    _keep({start: counted[start] for start in missing if start < settled})
    by_start |= counted
    weeks = [_summed(start, _chosen(by_start[start], model_version)) for start in starts]
    return [week for week in weeks if week["n"] or week["not_kept"]]


def _keep(counted: dict[datetime, dict[str, Figures]]) -> None:
    """What was deleted after the count and before it was kept would stay in it for good, so it is compared again."""
    weeks = [UploadWeek(start=start, by_model=by_model) for start, by_model in counted.items()]
    UploadWeek.objects.bulk_create(weeks, update_conflicts=True, unique_fields=["start"], update_fields=["by_model"])
    now = _count(list(counted))
    if wrong := [start for start in counted if _sizes(now[start]) != _sizes(counted[start])]:
        UploadWeek.objects.filter(start__in=wrong).delete()


def _sizes(by_model: dict[str, Figures]) -> dict[str, int]:
    """Numbers alone: a sum of scores is rounded differently when PostgreSQL adds them in another order."""
    return {version: figures["n"] + figures["not_kept"] for version, figures in by_model.items()}


def recount_week_of(moment: datetime) -> None:
    """Has the week counted again when it is next asked for, also as it was kept under another TIME_ZONE."""
    UploadWeek.objects.filter(start__lte=moment, start__gt=moment - LONGEST_WEEK).delete()


def _midnight(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))


def _next(start: datetime) -> datetime:
    """A week is seven days, which are not always 168 hours."""
    return _midnight(timezone.localtime(start).date() + timedelta(days=7))


def _starts(since: datetime | None) -> list[datetime]:
    first = since or Detection.objects.aggregate(first=Min("created_at"))["first"]
    if first is None:
        return []
    starts = [week_start(first)]
    while (following := _next(starts[-1])) <= timezone.now():
        starts.append(following)
    return starts


def _count(starts: list[datetime]) -> dict[datetime, dict[str, Figures]]:
    """Per week and model version; only the weeks asked for are read."""
    counted: dict[datetime, dict[str, Figures]] = {start: {} for start in starts}
    if not starts:
        return counted
    bins = {f"bin_{number}": Count("pk", filter=WAS_KEPT & _in_bin(number)) for number in range(BINS)}
    judged = Detection.objects.filter(_in_weeks(starts), status=Detection.Status.DONE)
    grouped = judged.annotate(week=TruncWeek("created_at"))
    rows: Any = (
        grouped.order_by()
        .values("week", "model_version")
        .annotate(
            n=Count("pk", filter=WAS_KEPT),
            real=Count("pk", filter=WAS_KEPT & Q(verdict=REAL)),
            uncertain_real=Count("pk", filter=WAS_KEPT & Q(verdict=REAL) & IS_UNCERTAIN),
            uncertain_fake=Count("pk", filter=WAS_KEPT & Q(verdict=FAKE) & IS_UNCERTAIN),
            score_sum=Sum("fake_probability", filter=WAS_KEPT, default=0.0),
            not_kept=Count("pk", filter=~WAS_KEPT),
            **bins,
        )
    )
    for row in rows:
        figures = {name: row[name] for name in COUNTS}
        counted[row["week"]][row["model_version"]] = {**figures, "bins": [row[name] for name in bins]}
    return counted


def _in_weeks(starts: list[datetime]) -> Q:
    """Neighbouring weeks make one range, so that the index on the time finds them."""
    ranges: list[tuple[datetime, datetime]] = []
    for start in starts:
        if ranges and ranges[-1][1] == start:
            ranges[-1] = (ranges[-1][0], _next(start))
        else:
            ranges.append((start, _next(start)))
    condition = Q()
    for start, end in ranges:
        condition |= Q(created_at__gte=start, created_at__lt=end)
    return condition


def _in_bin(number: int) -> Q:
    low, high = number / BINS, (number + 1) / BINS
    upper = Q() if number == BINS - 1 else Q(fake_probability__lt=high)
    return Q(fake_probability__gte=low) & upper


def _chosen(by_model: dict[str, Figures], model_version: str) -> list[Figures]:
    return [figures for version, figures in by_model.items() if model_version in ("", version)]


def _summed(start: datetime, parts: Iterable[Figures]) -> Figures:
    parts = list(parts)
    sums = {name: sum(part[name] for part in parts) for name in COUNTS}
    mean = sums["score_sum"] / sums["n"] if sums["n"] else 0.0
    bins = [sum(part["bins"][number] for part in parts) for number in range(BINS)]
    return {"week": start, **sums, "mean": mean, "bins": bins}
