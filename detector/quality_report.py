"""The quality page: what reviews say about the machine, per model version and by week."""

import csv
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from detector import quality, review_weeks, upload_weeks
from detector.exports import BYTE_ORDER_MARK, neutral
from detector.models import Detection, Review
from detector.quality import FAKE, REAL, STRATA, UNCERTAIN, UNCERTAIN_FAKE, UNCERTAIN_REAL, Share, Subject
from detector.reviews import CANT_TELL

PERIODS = {**{str(n): f"this week and {n} before it" for n in (4, 12, 52)}, "all": "all time"}
DEFAULT_PERIOD = "12"
WORDS = {REAL: "Real", FAKE: "Fake", UNCERTAIN_REAL: "Real, uncertain", UNCERTAIN_FAKE: "Fake, uncertain"}
CHART_WIDTH, CHART_HEIGHT = 300, 100
LEAST_BLIND = 5  # uploads; a mean of fewer tells, or nearly, what the machine says of each
DRIFT_NOTE = (
    "Drift compares the scores of a week with those of the weeks above it here, of one model or of all versions as "
    "chosen; over all versions a new model is drift, too. It is the population stability index less what chance makes "
    "of it: over 0.25 is much. Where uploads are few, one week in a hundred shows that without any drift; where they "
    "are too few to tell drift from chance, none is given."
)
SAMPLE_NOTE = (
    "Of the sample, what its uploader objects to is reviewed first; so that errors count for no more than they should, "
    "those with an objection and the others stand for as many as were drawn of each."
)
BLIND_NOTE = f" As reviewers look blind here, a week of fewer than {LEAST_BLIND} uploads has neither share nor mean."


@dataclass(frozen=True, slots=True)
class Report:
    totals: dict[str, int]
    subjects: list[Subject]
    cases: list[quality.Weighted]
    missing: set[str]
    agreed: quality.Pairs
    weeks: list[dict[str, Any]]
    not_kept: int

    @property
    def reviewed(self) -> int:
        return sum(each.count for each in self.subjects)

    def judged(self, truth: str) -> int:
        return sum(each.count for each in self.subjects if each.truth == truth)


def make_report(*, model_version: str, since: datetime | None) -> Report:
    """Of whole weeks, from the one on that has `since` in it."""
    since = since and upload_weeks.week_start(since)
    weeks = upload_weeks.weeks_since(since, model_version=model_version)
    not_kept = sum(week["not_kept"] for week in weeks)
    weeks = [week for week in weeks if week["n"]]
    totals = _totals(weeks)
    subjects, agreed = review_weeks.reviewed_since(since and timezone.localdate(since), model_version=model_version)
    waiting = review_weeks.sample_waiting(since, model_version=model_version)
    cases = quality.weighted(subjects, totals, waiting)
    missing = quality.unmeasured(cases, totals, waiting)
    return Report(totals, subjects, cases, missing, agreed, weeks, not_kept)


@never_cache
@require_safe
def page(request: HttpRequest) -> HttpResponse:
    if not request.user.has_perms(["detector.view_detection", "detector.view_review"]):
        raise PermissionDenied
    reviewed = Review.objects.exclude(model_version="").order_by()  # without an order: it would be part of "distinct"
    # Those whose uploads were all deleted have their reviews; one that was just put in use has uploads alone.
    known = {*reviewed.values_list("model_version", flat=True).distinct(), *Detection.objects.model_versions()}
    versions = sorted(known - {""})
    version = request.GET.get("model", "")
    version = version if version in versions else ""
    period = request.GET.get("period", DEFAULT_PERIOD)
    period = period if period in PERIODS else DEFAULT_PERIOD
    # In local time, or on the first Monday of summer time it would be an hour before one.
    since = None if period == "all" else timezone.localtime() - timedelta(weeks=int(period))
    report = make_report(model_version=version, since=since)
    tables = _tables(report)
    if request.GET.get("format") == "csv":
        return _as_csv(report, tables, version=version, period=period)
    context = {
        **admin.site.each_context(request),
        "title": "Quality",
        "opts": Review._meta,
        "versions": versions,
        "version": version,
        "periods": PERIODS,
        "period": period,
        "tables": tables,
        "reliability_points": _reliability_points(report),
        "week_points": _week_points(report),
        "meaning": _meaning(report),
        "notice": _notice(report),
    }
    return render(request, "admin/detector/review/quality.html", context)


def _totals(weeks: list[dict[str, Any]]) -> dict[str, int]:
    names = ("n", "real", UNCERTAIN_REAL, UNCERTAIN_FAKE)
    n, real, uncertain_real, uncertain_fake = (sum(week[name] for week in weeks) for name in names)
    return {
        REAL: real - uncertain_real,
        UNCERTAIN_REAL: uncertain_real,
        FAKE: n - real - uncertain_fake,
        UNCERTAIN_FAKE: uncertain_fake,
    }


# Words: what the page and the CSV say of the figures.


def _meaning(report: Report) -> str:
    words = (
        "The figures are estimates for the uploads whose photo was kept and of which reviewers can tell. What most of "
        "an upload’s reviewers say is taken for the truth, also before so many agree that it is settled. The figures "
        "rest on reviewed uncertain verdicts and on the random sample of the decided ones, each weighted with how many "
        "uploads it stands for"
    )
    if left_out := sum(each.count for each in report.subjects if each.weight is None):
        words += (
            f"; {left_out} of {_number(report.reviewed, 'reviewed upload')} came to review in another way (an "
            "objection, what the file says, a reviewer’s choice) and would distort them, so they only count for "
            "agreement"
        )
    return f"{words}. {_excluded(report)} {SAMPLE_NOTE}"


def _excluded(report: Report) -> str:
    parts = [
        f"{_number(report.not_kept, 'upload')} whose photo was not kept",
        f"{_number(report.judged(CANT_TELL), 'reviewed upload')} of which the reviewers can’t tell",
        f"{report.judged('')} of which as many say Real as Fake",
    ]
    return f"Not in them: {parts[0]}, {parts[1]}, and {parts[2]}."


def _notice(report: Report) -> str:
    """What is not measured; empty if all is."""
    if not report.missing:
        return ""
    *others, last = [f"“{WORDS[stratum]}”" for stratum in STRATA if stratum in report.missing]
    strata = f"{', '.join(others)} or {last}" if others else last
    return (
        f"Not enough is reviewed yet: there is no usable review of {strata} verdicts, or of objections to them alone. "
        "What rests on them is not measured."
    )


def _number(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


# Tables: what the page shows and the CSV holds.


def _tables(report: Report) -> list[dict[str, Any]]:
    cases = report.cases
    return [
        _summary(report),
        _confusion(cases, report.missing),
        _shares(cases, report.missing),
        _reliability(cases),
        _by_week(report.weeks),
    ]


def _table(title: str, note: str, columns: list[str], rows: list[list[str]]) -> dict[str, Any]:
    return {"title": title, "note": note, "columns": columns, "rows": rows}


def _summary(report: Report) -> dict[str, Any]:
    total = sum(report.totals.values())
    decided = total - sum(report.totals[each] for each in UNCERTAIN)
    agreement = quality.agreement(report.agreed)
    share_decided = _shown(decided / total, total) if total else "–"
    undecided = f"{report.judged(CANT_TELL)} can't tell, {report.judged('')} tied"
    return _table(
        "Summary",
        "",
        ["Figure", "Value", "95 % interval", "From"],
        [
            ["Uploads with a verdict", str(total), "", ""],
            ["Share decided (not uncertain)", share_decided, "", _number(total, "upload")],
            ["Reviewed uploads", str(report.reviewed), "", undecided],
            ["Two reviewers agree", *_share_cells(agreement, "compared")],
        ],
    )


def _confusion(cases: list[quality.Weighted], missing: set[str]) -> dict[str, Any]:
    counts = quality.confusion(cases)
    seen: Counter[tuple[str, str]] = Counter()
    for case in cases:
        seen[case.subject.verdict, case.subject.truth] += case.subject.count
    rows = []
    for said in (REAL, FAKE):
        if missing & set(quality.STRATA_OF[said]):
            cells = ["not measured", "not measured"]
        else:
            cells = [f"{counts[said, truth]:.0f} ({seen[said, truth]} reviewed)" for truth in (REAL, FAKE)]
        rows.append([f"{said.title()} said the machine", *cells])
    note = "Estimated numbers of uploads; in brackets the reviewed ones that they rest on."
    return _table("Confusion matrix", note, ["", "Real say reviewers", "Fake say reviewers"], rows)


def _shares(cases: list[quality.Weighted], missing: set[str]) -> dict[str, Any]:
    rows = []
    for verdict, words in ((FAKE, "Fake"), (REAL, "Real")):
        rows.append([f"Precision of {words}", *_share_cells(quality.precision(cases, verdict, missing), "reviewed")])
        rows.append([f"Recall of {words}", *_share_cells(quality.recall(cases, verdict, missing), "reviewed")])
    note = "Precision: how often a verdict is right. Recall: how much of what is fake (or real) is called so."
    return _table("Precision and recall", note, ["Figure", "Value", "95 % interval", "From"], rows)


def _reliability(cases: list[quality.Weighted]) -> dict[str, Any]:
    rows = [
        [
            f"{_percent(each.start)} to {_percent(each.start + 1 / quality.BINS)}",
            _percent(each.predicted),
            *_share_cells(each.share, "reviewed"),
        ]
        for each in quality.reliability(cases)
    ]
    columns = ["Fake probability", "Mean", "Fake say reviewers", "95 % interval", "From"]
    return _table("Reliability", "Where the probability is honest, the two shares are alike.", columns, rows)


def _by_week(weeks: list[dict[str, Any]]) -> dict[str, Any]:
    rows = []
    before = [0] * quality.BINS
    for week in weeks:
        histogram = week["bins"]
        rows.append(
            [
                f"{week['week']:%Y-%m-%d}",
                str(week["n"]),
                _shown(1 - (week[UNCERTAIN_REAL] + week[UNCERTAIN_FAKE]) / week["n"], week["n"]),
                _shown(week["mean"], week["n"]),
                _drift_cell(histogram, before),
            ]
        )
        before = [sum(pair) for pair in zip(before, histogram, strict=True)]
    note = DRIFT_NOTE + (BLIND_NOTE if settings.REVIEW_BLIND else "")
    columns = ["Week from", "Uploads", "Decided", "Mean fake probability", "Drift"]
    return _table("By week of upload", note, columns, rows)


def _is_telling(n: int) -> bool:
    """Whether a mean of so few uploads would spoil a blind look at one of them."""
    return bool(settings.REVIEW_BLIND) and n < LEAST_BLIND


def _shown(share: float, n: int) -> str:
    return "too few" if _is_telling(n) else _percent(share)


def _drift_cell(histogram: list[int], before: list[int]) -> str:
    if not sum(before):
        return "–"
    drift = quality.drift(histogram, before)
    return "too few" if drift is None else f"{drift:.2f}"


def _share_cells(share: Share | None, unit: str) -> list[str]:
    if share is None:
        return ["not measured", "", ""]
    return [_percent(share.value), f"{_percent(share.low)} to {_percent(share.high)}", f"{share.n} {unit}"]


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"


# Charts: places in a drawing of CHART_WIDTH x CHART_HEIGHT (or a square of that height), y downwards.


def _reliability_points(report: Report) -> list[dict[str, str]]:
    return [
        {
            "x": _place(each.predicted),
            "y": _place(1 - each.share.value),
            "low": _place(1 - each.share.low),
            "high": _place(1 - each.share.high),
        }
        for each in quality.reliability(report.cases)
    ]


def _week_points(report: Report) -> list[dict[str, str]]:
    if not report.weeks:
        return []
    first, last = report.weeks[0]["week"], report.weeks[-1]["week"]
    span = max(last - first, timedelta(weeks=1))
    return [
        {
            "x": f"{(week['week'] - first) / span * CHART_WIDTH:.2f}",
            "y": _place(1 - week["mean"]),
            "week": f"{week['week']:%Y-%m-%d}",
        }
        for week in report.weeks
        if not _is_telling(week["n"])
    ]


def _place(share: float) -> str:
    return f"{share * CHART_HEIGHT:.2f}"


def _as_csv(report: Report, tables: list[dict[str, Any]], *, version: str, period: str) -> HttpResponse:
    """All that the page says, its tables below each other; but for the model's name every cell is made here."""
    buffer = StringIO()
    writer = csv.writer(buffer)
    day = f"{timezone.localdate():%Y-%m-%d}"
    writer.writerows([["Quality", day], ["Model", neutral(version) or "all versions"], ["Uploads of", PERIODS[period]]])
    writer.writerows([[words] for words in (_meaning(report), _notice(report)) if words])
    for table in tables:
        writer.writerows([[], [table["title"]]])
        writer.writerows([[table["note"]]] if table["note"] else [])
        writer.writerows([table["columns"], *table["rows"]])
    response = HttpResponse(BYTE_ORDER_MARK + buffer.getvalue(), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="quality-{day}.csv"'
    return response
