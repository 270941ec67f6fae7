"""What reviews say about the machine: the estimates, worked out by hand, and the page that shows them."""

import codecs
import csv
import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import Group, Permission
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings
from pytest_django.asserts import assertContains, assertNotContains

from detector import services, upload_weeks
from detector.quality import (
    FAKE,
    REAL,
    STRATA,
    UNCERTAIN_FAKE,
    UNCERTAIN_REAL,
    Pairs,
    Subject,
    agreement,
    confusion,
    drift,
    pairs,
    population_stability,
    precision,
    recall,
    reliability,
    unmeasured,
    weighted,
    wilson,
)
from detector.quality_report import make_report
from detector.tests.factories import make_detection, make_review, make_user

PAGE = reverse("admin:detector_review_quality")


@pytest.mark.parametrize(
    ("share", "n", "expected"),
    [(0.5, 10, (0.2366, 0.7634)), (0.0, 10, (0.0, 0.2775)), (1.0, 10, (0.7225, 1.0)), (0.9, 100, (0.8256, 0.9448))],
)
def test_wilson_s_interval(share: float, n: float, expected: tuple[float, float]) -> None:
    assert wilson(share, n) == pytest.approx(expected, abs=5e-5)


def test_a_share_of_nothing_has_no_interval() -> None:
    with pytest.raises(ValueError, match="nothing"):
        wilson(0.5, 0)


def subjects(stratum: str, real: int, fake: int, percent: float = 5.0, score: float = 0.5) -> list[Subject]:
    return [Subject(stratum, truth, score, percent) for truth in [REAL] * real + [FAKE] * fake]


TOTALS = {REAL: 1000, UNCERTAIN_REAL: 0, UNCERTAIN_FAKE: 10, FAKE: 100}
REVIEWED = [
    *subjects(REAL, real=9, fake=1, score=0.1),
    *subjects(FAKE, real=1, fake=4, score=0.9),
    *subjects(UNCERTAIN_FAKE, real=2, fake=2, percent=0.0, score=0.5),
]


def test_reviews_are_scaled_to_what_they_stand_for() -> None:
    cases = weighted(REVIEWED, TOTALS)
    assert confusion(cases) == pytest.approx(
        {(REAL, REAL): 900, (REAL, FAKE): 100, (FAKE, REAL): 20 + 5, (FAKE, FAKE): 80 + 5}
    )
    estimates = {
        "precision of fake": precision(cases, FAKE, set()),
        "recall of fake": recall(cases, FAKE, set()),
        "precision of real": precision(cases, REAL, set()),
        "recall of real": recall(cases, REAL, set()),
    }
    values = {name: share.value for name, share in estimates.items() if share}
    assert values == pytest.approx(
        {
            "precision of fake": 85 / 110,
            "recall of fake": 85 / 185,
            "precision of real": 0.9,
            "recall of real": 900 / 925,
        }
    )
    assert all(share and share.low < share.value < share.high for share in estimates.values())


def test_weights_that_differ_widen_the_interval() -> None:
    even = precision(weighted(subjects(REAL, 9, 1), TOTALS), REAL, set())
    mixed = [*subjects(REAL, 5, 0, percent=50.0), *subjects(REAL, 4, 1, percent=1.0)]
    uneven = precision(weighted(mixed, TOTALS), REAL, set())
    assert even is not None
    assert uneven is not None
    assert even.low == pytest.approx(wilson(0.9, 10)[0])
    assert uneven.value == pytest.approx((5 * 2 + 4 * 100) / (5 * 2 + 5 * 100))
    assert uneven.high - uneven.low > even.high - even.low


def test_what_came_to_review_by_its_answer_distorts_nothing() -> None:
    chosen = subjects(REAL, real=0, fake=50, percent=0.0)
    assert confusion(weighted([*REVIEWED, *chosen], TOTALS)) == confusion(weighted(REVIEWED, TOTALS))


def test_doubts_and_ties_are_no_truth() -> None:
    undecided = [Subject(REAL, truth, 0.1, 5.0) for truth in ("cant_tell", "")]
    assert weighted([*REVIEWED, *undecided], TOTALS) == weighted(REVIEWED, TOTALS)


def test_what_rests_on_verdicts_that_nobody_reviewed_is_not_said() -> None:
    cases = weighted(subjects(FAKE, 1, 4), TOTALS)
    missing = unmeasured(cases, TOTALS)
    assert missing == {REAL, UNCERTAIN_FAKE}
    assert precision(cases, FAKE, missing) is None
    assert recall(cases, FAKE, missing) is None
    assert precision(cases, FAKE, {REAL}) is not None
    none = dict.fromkeys(STRATA, 0)
    assert unmeasured(cases, {**none, FAKE: 100}) == set()
    assert unmeasured([], none) == set()


def test_objections_that_were_reviewed_first_count_for_no_more_than_they_are() -> None:
    """Of the sample 3 are objected to and 17 are not; of those 5 are reviewed, of one of which nobody can tell."""
    objections = [replace(each, is_appealed=True) for each in subjects(FAKE, real=2, fake=1, score=0.9)]
    others = [*subjects(FAKE, real=1, fake=3, score=0.9), Subject(FAKE, "cant_tell", 0.9, 5.0)]
    waiting = {(FAKE, False): 12 * 20.0}
    cases = weighted([*objections, *others], TOTALS, waiting)
    assert sum(case.total for case in cases) == pytest.approx(100)
    share = precision(cases, FAKE, set())
    assert share is not None
    assert share.value == pytest.approx((1 + 17 / 5 * 3) / (3 + 17 / 5 * 4))
    assert share.n == 7
    assert precision(weighted([*objections, *others], TOTALS), FAKE, set()) != share


def test_objections_alone_are_no_measure_while_the_rest_of_the_sample_waits() -> None:
    totals = {**dict.fromkeys(STRATA, 0), FAKE: 100}
    objections = weighted([replace(each, is_appealed=True) for each in subjects(FAKE, 2, 1)], totals)
    assert unmeasured(objections, totals, {(FAKE, False): 20.0}) == {FAKE}
    assert unmeasured(objections, totals, {(FAKE, True): 20.0}) == set()
    assert unmeasured(objections, totals) == set()
    assert unmeasured(weighted(subjects(FAKE, 2, 1), totals), totals, {(FAKE, True): 20.0}) == set()


@pytest.mark.parametrize("reviewed", [0.1, 0.5, 1.0])
def test_the_interval_of_a_share_holds_the_truth_while_the_sample_is_reviewed(reviewed: float) -> None:
    """20 % are objected to where the machine is wrong, 1 % where it is right, and those are reviewed first."""
    rng = np.random.default_rng(2)
    held, found, trials, n = 0, [], 200, 20_000
    for _ in range(trials):
        is_right = rng.random(n) < 0.8
        is_appealed = rng.random(n) < np.where(is_right, 0.01, 0.2)
        drawn = rng.random(n) < 0.05
        order = [*np.flatnonzero(drawn & is_appealed), *np.flatnonzero(drawn & ~is_appealed)]
        done, rest = np.split(order, [int(reviewed * len(order))])
        totals = {**dict.fromkeys(STRATA, 0), FAKE: n}
        sample = [Subject(FAKE, FAKE if is_right[i] else REAL, 0.9, 5.0, 1, bool(is_appealed[i])) for i in done]
        waiting = {(FAKE, False): 20.0 * np.sum(~is_appealed[rest]), (FAKE, True): 20.0 * np.sum(is_appealed[rest])}
        share = precision(weighted(sample, totals, waiting), FAKE, set())
        assert share is not None
        found.append(share.value)
        held += share.low <= is_right.mean() <= share.high
    assert held / trials > 0.9
    assert np.mean(found) == pytest.approx(0.8, abs=0.015)


def test_an_uncertain_real_is_a_real_of_which_all_are_queued() -> None:
    (subject,) = subjects(UNCERTAIN_REAL, real=0, fake=1, percent=0.0)
    assert (subject.verdict, subject.weight) == (REAL, 1.0)
    cases = weighted([*subjects(REAL, 9, 1), subject], {**TOTALS, UNCERTAIN_REAL: 100})
    assert confusion(cases)[REAL, FAKE] == pytest.approx(100 + 100)
    share = precision(cases, REAL, set())
    assert share is not None
    assert share.value == pytest.approx(900 / 1100)
    assert precision(cases, REAL, {UNCERTAIN_REAL}) is None


def test_reliability_compares_prediction_and_truth_by_tenths() -> None:
    bins = reliability(weighted([*REVIEWED, *subjects(FAKE, 0, 1, score=1.0)], TOTALS))
    assert [(each.start, round(each.predicted, 3)) for each in bins] == [(0.1, 0.1), (0.5, 0.5), (0.9, 0.917)]
    assert [round(each.share.value, 3) for each in bins] == [0.1, 0.5, 0.833]


def test_agreement_counts_pairs_of_reviewers() -> None:
    assert agreement(pairs(["real"])) is None
    share = agreement(pairs(["real", "real"]) + pairs(["real", "fake", "real"]))
    assert share is not None
    assert (share.value, share.n) == (0.5, 4)


def test_the_pairs_of_one_upload_are_no_independent_evidence() -> None:
    """Ten uploads with three reviewers each, of whom all agree on five: 20 of 30 pairs, known as well as by ten."""
    found = sum([*[pairs(["real"] * 3)] * 5, *[pairs(["real", "real", "fake"])] * 5], Pairs())
    share = agreement(found)
    assert share is not None
    assert (share.value, share.n) == (20 / 30, 30)
    assert (share.low, share.high) == wilson(20 / 30, 10)
    # A hundred uploads with one pair, and one with a hundred reviewers: (100 + 4950)^2 / (100 + 4950^2) are worth one.
    found = sum([pairs(["real", "fake"])] * 100, pairs(["real"] * 100))
    share = agreement(found)
    assert found == Pairs(same=4950, different=100, squares=100 + 4950**2)
    assert share is not None
    assert share.low == pytest.approx(wilson(4950 / 5050, 1.0408)[0], abs=1e-5)


def test_the_interval_of_agreement_holds_the_truth() -> None:
    """Of 60 uploads with five reviewers each, who are right nine times in ten: they agree with 0.82."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        answers = np.where(rng.random((60, 5)) < 0.9, "real", "fake")
        share = agreement(sum((pairs(row) for row in answers.tolist()), Pairs()))
        held += share is not None and share.low <= 0.82 <= share.high
    assert held / 400 > 0.95


@pytest.mark.parametrize(
    ("counts", "reference", "expected"),
    [([5, 5], [50, 50], 0.0), ([10, 0], [0, 10], 5.5355), ([1, 1], [0, 0], None), ([0, 0], [1, 1], None)],
)
def test_the_population_stability_index(counts: list[int], reference: list[int], expected: float | None) -> None:
    found = population_stability(counts, reference)
    assert found == (expected if expected is None else pytest.approx(expected, abs=1e-3))


@pytest.mark.parametrize(
    ("counts", "reference", "expected"),
    [
        ([50, 50], [500, 500], 0.0),
        ([100, 0], [500, 500], 2.6144),  # 2.6254 less (2 - 1) (1/100 + 1/1000)
        ([0, 5], [900, 100], None),
        ([5, 0], [0, 0], None),
    ],
)
def test_drift_is_what_chance_does_not_explain(counts: list[int], reference: list[int], expected: float | None) -> None:
    found = drift(counts, reference)
    assert found == (expected if expected is None else pytest.approx(expected, abs=1e-3))


@pytest.mark.parametrize(("n", "before"), [(20, 100), (30, 150), (50, 50), (60, 300), (100, 100), (1000, 10_000)])
def test_without_drift_hardly_any_week_shows_much(n: int, before: int) -> None:
    random = np.random.default_rng(0)
    shape = [0.42, 0.13, 0.05, 0.03, 0.03, 0.03, 0.04, 0.06, 0.1, 0.11]
    trials = 500
    weeks, past = (random.multinomial(cases, shape, trials).tolist() for cases in (n, before))
    much = [1 for week, weeks_before in zip(weeks, past, strict=True) if (drift(week, weeks_before) or 0.0) > 0.25]
    assert len(much) <= 0.02 * trials


@pytest.fixture
def reviewer() -> Client:
    user = make_user("rita", is_staff=True)
    user.groups.add(Group.objects.get(name="Reviewers"))
    client = Client()
    client.force_login(user)
    return client


def cells(client: Client, title: str, **query: str) -> dict[str, list[str]]:
    """The rows of a table by their first cell."""
    tables = {table["title"]: table["rows"] for table in client.get(PAGE, query).context["tables"]}
    return {row[0]: row[1:] for row in tables[title]}


@pytest.mark.django_db
def test_without_anything_the_page_says_so(reviewer: Client) -> None:
    response = reviewer.get(PAGE)
    assertContains(response, "Nothing yet.")
    assertContains(response, "not measured")
    for inline in (" style=", "<style", "<script>"):
        assertNotContains(response, inline)


@pytest.mark.django_db
def test_the_page_counts_uploads_and_what_reviewers_said(reviewer: Client) -> None:
    drawn: dict[str, Any] = {"is_sampled": True, "sample_percent": 5.0}
    for truth in ("real", "real", "real", "fake"):
        make_review(make_detection(0.1, **drawn), truth)
    make_review(make_detection(0.9, **drawn), "fake")
    make_review(make_detection(0.5), "real")
    make_review(make_detection(0.2), "fake")  # not drawn
    make_review(make_detection(0.15, **drawn), "cant_tell")
    for _ in range(4):
        make_detection(0.1)
    make_detection(failed=True)
    make_detection(no_face=True)
    services.picture_forget(detection=make_detection(0.9))
    # real: 4 + 1 + 1 + 4 = 10, fake: 1 + 1 purged = 2, uncertain: 1
    summary = cells(reviewer, "Summary")
    assert summary["Uploads with a verdict"][0] == "13"
    assert summary["Share decided (not uncertain)"][0] == "92.3 %"
    assert summary["Reviewed uploads"] == ["8", "", "1 can't tell, 0 tied"]
    shares = cells(reviewer, "Precision and recall")
    assert shares["Precision of Real"][0] == "75.0 %"
    assert shares["Precision of Fake"][0] == "66.7 %"
    assert shares["Recall of Fake"][0] == f"{100 * 2 / 4.5:.1f} %"
    matrix = cells(reviewer, "Confusion matrix")
    assert matrix["Real said the machine"] == ["8 (3 reviewed)", "2 (1 reviewed)"]
    assertContains(reviewer.get(PAGE), "1 of 8 reviewed uploads came to review in another way")


@pytest.mark.django_db
@pytest.mark.parametrize("reviewers_needed", [1, 2])
def test_errors_that_one_reviewer_found_count(reviewer: Client, settings: Settings, reviewers_needed: int) -> None:
    settings.REVIEWERS_NEEDED = reviewers_needed
    for truth in ["fake"] * 7 + ["real"] * 3:
        make_review(make_detection(0.9, is_sampled=True, sample_percent=100.0), truth)
    assert cells(reviewer, "Precision and recall")["Precision of Fake"] == ["70.0 %", "39.7 % to 89.2 %", "10 reviewed"]
    assert cells(reviewer, "Summary")["Reviewed uploads"] == ["10", "", "0 can't tell, 0 tied"]


@pytest.mark.django_db
def test_while_the_sample_waits_objections_count_for_no_more_than_they_are(reviewer: Client) -> None:
    drawn: dict[str, Any] = {"is_sampled": True, "sample_percent": 50.0}
    objected = [make_detection(0.9, **drawn) for _ in range(2)]
    for detection in objected:
        services.appeal_create(detection=detection, text="It is me.")
    rest = [make_detection(0.9, **drawn) for _ in range(8)]
    for detection in objected:
        make_review(detection, "real")
    assert cells(reviewer, "Precision and recall")["Precision of Fake"] == ["not measured", "", ""]
    assertContains(reviewer.get(PAGE), "there is no usable review of “Fake” verdicts, or of objections to them alone.")
    for detection in rest[:2]:
        make_review(detection, "fake")
    services.appeal_create(detection=rest[0], text="It is me.")  # after its review: that came by chance
    services.picture_forget(detection=rest[7])  # nobody can review it any more, but it was drawn
    assert cells(reviewer, "Precision and recall")["Precision of Fake"][0] == "80.0 %"
    assert cells(reviewer, "Precision and recall")["Precision of Fake"][2] == "4 reviewed"


@pytest.mark.django_db
def test_the_page_says_what_its_figures_leave_out(reviewer: Client) -> None:
    disputed = make_detection(0.5)
    for verdict in ("real", "fake"):
        make_review(disputed, verdict)
    for _ in range(2):
        make_review(make_detection(0.5), "cant_tell")
    for weeks in (0, 0, 5):
        moment = timezone.now() - timedelta(weeks=weeks)
        make_detection(0.9, created_at=moment, picture_removed_at=moment)
    words = (
        "Not in them: 3 uploads whose photo was not kept, 2 reviewed uploads of which the reviewers can’t tell, "
        "and 1 of which as many say Real as Fake."
    )
    assertContains(reviewer.get(PAGE), words)
    assertContains(reviewer.get(PAGE), "stand for as many as were drawn of each.")
    assert any(words in row[0] for row in download(reviewer) if row)
    assert cells(reviewer, "Summary")["Uploads with a verdict"][0] == "3"
    assert len(cells(reviewer, "By week of upload")) == 1


@pytest.mark.django_db
def test_a_deleted_detection_still_counts_as_reviewed() -> None:
    detection = make_detection(0.5)
    make_review(detection, "real")
    services.detection_delete(detection=detection)
    (subject,) = make_report(model_version="", since=timezone.now() - timedelta(days=1)).subjects
    assert (subject.stratum, subject.truth) == (UNCERTAIN_FAKE, "real")


@pytest.mark.django_db
def test_of_each_reviewer_the_newest_opinion_counts() -> None:
    detection = make_detection(0.5)
    grace = make_user("grace")
    for verdict in ("real", "fake"):
        make_review(detection, verdict, reviewer=grace)
    make_review(detection, "cant_tell")
    report = make_report(model_version="", since=None)
    (subject,) = report.subjects
    assert (subject.truth, subject.count) == ("fake", 1)
    assert report.agreed == Pairs(same=0, different=1, squares=1)


@pytest.mark.django_db
def test_it_is_narrowed_to_a_model_and_a_period(reviewer: Client) -> None:
    make_review(make_detection(0.5, model_version="test-1"), "real")
    make_review(make_detection(0.5, model_version="test-2"), "real")
    old = make_detection(0.5, model_version="test-2", created_at=timezone.now() - timedelta(weeks=20))
    make_review(old, "real")
    counts = [
        cells(reviewer, "Summary", **query)["Reviewed uploads"][0]
        for query in ({}, {"model": "test-2"}, {"model": "test-2", "period": "52"}, {"model": "none", "period": "all"})
    ]
    assert counts == ["2", "1", "2", "3"]


@pytest.mark.django_db
@pytest.mark.parametrize("now", ["2026-03-29T22:30Z", "2026-04-05T21:59Z", "2026-10-25T23:30Z"])
def test_a_period_is_this_week_and_so_many_whole_ones_before_it(
    reviewer: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch, now: str
) -> None:
    """Also in the first and last minutes of a week, and where one of them has an hour less or more."""
    settings.TIME_ZONE = "Europe/Berlin"
    moment = datetime.fromisoformat(now)
    monkeypatch.setattr("django.utils.timezone.now", lambda: moment)
    for days in range(50):
        make_detection(0.9, created_at=moment - timedelta(days=days))
    assertContains(reviewer.get(PAGE), "this week and 4 before it")
    assert len(cells(reviewer, "By week of upload", period="4")) == 1 + 4


@pytest.mark.django_db
def test_a_model_can_be_chosen_before_anything_of_it_is_reviewed(reviewer: Client) -> None:
    gone = make_detection(0.5, model_version="test-1")
    make_review(gone, "real")
    services.detection_delete(detection=gone)
    make_detection(0.9, model_version="test-2")
    make_detection(failed=True)
    assert reviewer.get(PAGE).context["versions"] == ["test-1", "test-2"]
    assert cells(reviewer, "Summary", model="test-2")["Uploads with a verdict"][0] == "1"


@pytest.mark.django_db
def test_weeks_show_how_scores_drift(reviewer: Client) -> None:
    monday = datetime(2026, 6, 1, 12, tzinfo=UTC)
    for score, week in [(0.1, 0), (0.2, 0), (0.15, 1), (0.95, 2), (0.5, 2)]:
        make_detection(score, created_at=monday + timedelta(weeks=week))
    weeks = cells(reviewer, "By week of upload", period="all")
    assert list(weeks) == ["2026-06-01", "2026-06-08", "2026-06-15"]
    assert weeks["2026-06-01"] == ["2", "100.0 %", "15.0 %", "–"]
    assert weeks["2026-06-15"] == ["2", "50.0 %", "72.5 %", "too few"]


@pytest.mark.django_db
def test_weeks_without_uploads_have_their_place_in_the_chart(reviewer: Client) -> None:
    for week in (0, 1, 10):
        make_detection(created_at=datetime(2026, 6, 1, 12, tzinfo=UTC) + timedelta(weeks=week))
    points = reviewer.get(PAGE, {"period": "all"}).context["week_points"]
    assert [point["x"] for point in points] == ["0.00", "30.00", "300.00"]


@pytest.mark.django_db
def test_a_week_of_other_scores_shows_drift(reviewer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monday = datetime(2026, 6, 1, 12, tzinfo=UTC)
    figures = {"n": 200, "uncertain_real": 0, "uncertain_fake": 0, "mean": 0.5, "not_kept": 0}
    histograms = [[100, 100, *[0] * 8], [95, 105, *[0] * 8], [0, 100, *[0] * 7, 100]]
    weeks = [
        {**figures, "real": 200, "week": monday + timedelta(weeks=week), "bins": bins}
        for week, bins in enumerate(histograms)
    ]
    monkeypatch.setattr(upload_weeks, "weeks_since", lambda since, *, model_version: weeks)
    found = [row[-1] for row in cells(reviewer, "By week of upload").values()]
    assert found[:2] == ["–", "0.00"]
    assert float(found[2]) > 1


@pytest.mark.django_db
@pytest.mark.parametrize("is_blind", [False, True])
def test_a_blind_reviewer_reads_no_answer_from_a_week_of_few(
    reviewer: Client, settings: Settings, is_blind: bool
) -> None:
    settings.REVIEW_BLIND = is_blind
    for uploads, week in ((4, 0), (5, 1)):
        for _ in range(uploads):
            make_detection(0.9, created_at=datetime(2026, 6, 1, 12, tzinfo=UTC) + timedelta(weeks=week))
    weeks = cells(reviewer, "By week of upload", period="all")
    assert weeks["2026-06-01"][:3] == (["4", "too few", "too few"] if is_blind else ["4", "100.0 %", "90.0 %"])
    assert weeks["2026-06-08"][:3] == ["5", "100.0 %", "90.0 %"]
    response = reviewer.get(PAGE, {"period": "all"})
    assert len(response.context["week_points"]) == (1 if is_blind else 2)
    assert ("As reviewers look blind here" in response.content.decode()) is is_blind


@pytest.mark.django_db
def test_a_blind_reviewer_is_told_of_no_single_upload_whether_it_is_uncertain(
    reviewer: Client, settings: Settings
) -> None:
    make_detection(0.5)
    assert cells(reviewer, "Summary")["Share decided (not uncertain)"] == ["0.0 %", "", "1 upload"]
    settings.REVIEW_BLIND = True
    assert cells(reviewer, "Summary")["Share decided (not uncertain)"] == ["too few", "", "1 upload"]


@pytest.mark.django_db
def test_what_nobody_reviewed_is_not_nought(reviewer: Client) -> None:
    make_detection(0.1)
    make_review(make_detection(0.5), "real")
    matrix = cells(reviewer, "Confusion matrix")
    assert matrix["Real said the machine"] == ["not measured", "not measured"]
    assert matrix["Fake said the machine"] == ["1 (1 reviewed)", "0 (0 reviewed)"]
    make_detection(0.9)
    assert cells(reviewer, "Confusion matrix")["Fake said the machine"] == ["not measured", "not measured"]
    assertContains(reviewer.get(PAGE), "no usable review of “Real” or “Fake” verdicts")


def download(client: Client, **query: str) -> list[list[str]]:
    response = client.get(PAGE, {"format": "csv", **query})
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response.content.startswith(codecs.BOM_UTF8)
    return list(csv.reader(io.StringIO(response.content.decode("utf-8-sig"))))


@pytest.mark.django_db
def test_it_is_downloaded_as_csv_with_all_that_the_page_says(reviewer: Client) -> None:
    make_review(make_detection(0.5), "real")
    make_detection(0.9)
    rows = download(reviewer)
    assert rows[1:3] == [["Model", "all versions"], ["Uploads of", "this week and 12 before it"]]
    assert ["Uploads with a verdict", "2", "", ""] in rows
    context = reviewer.get(PAGE).context
    words = [context["meaning"], context["notice"], *(table["note"] for table in context["tables"])]
    assert "not measured" in context["notice"]
    assert [[each] in rows for each in words if each] == [True] * 6


@pytest.mark.django_db
def test_the_csv_names_the_model_and_runs_none(reviewer: Client) -> None:
    for version in ("test-1", "=1"):
        make_review(make_detection(0.5, model_version=version), "real")
    assert ["Model", "test-1"] in download(reviewer, model="test-1", period="all")
    assert download(reviewer, model="=1", period="all")[1:3] == [["Model", "'=1"], ["Uploads of", "all time"]]


@pytest.mark.django_db
def test_more_reviews_take_no_more_queries(
    reviewer: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(6):
        make_review(make_detection(0.5, model_version=f"test-{number % 3}"), "real")
    versions = 3 + 1  # one question for each, and one that finds no more
    with django_assert_max_num_queries(14 + versions):  # the first time, when the week is counted and kept
        reviewer.get(PAGE)
    with django_assert_max_num_queries(10 + versions):
        reviewer.get(PAGE)


@pytest.mark.django_db
def test_the_page_is_for_those_who_see_reviews() -> None:
    client = Client()
    client.force_login(make_user("staff", is_staff=True))
    assert client.get(PAGE).status_code == HTTPStatus.FORBIDDEN


@pytest.mark.django_db
def test_the_list_of_reviews_leads_to_the_page_whoever_may_see_it(reviewer: Client) -> None:
    reviews = reverse("admin:detector_review_changelist")
    assertContains(reviewer.get(reviews), PAGE)
    user = make_user("staff", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_review"))
    client = Client()
    client.force_login(user)
    assertNotContains(client.get(reviews), PAGE)
