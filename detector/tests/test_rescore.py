"""Scoring what is stored with another model or another threshold."""

import sys
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse
from pytest_django import Settings
from pytest_django.asserts import assertContains

from detector import services
from detector.exceptions import AnalysisFailed
from detector.management.commands.rescore import Comparison, Findings
from detector.models import Detection, Score
from detector.predictor import DecisionRule
from detector.tests.factories import FakePredictor, Terminal, make_detection, make_jpeg, make_review

pytestmark = pytest.mark.django_db


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> FakePredictor:
    """Another model, which calls everything 20 % fake."""
    fake = FakePredictor(0.2)
    fake.version = "other-1"
    monkeypatch.setattr(services, "named_predictor", lambda name: fake)
    return fake


def rescore(**options: Any) -> tuple[list[str], str]:
    """The lines on standard output, and standard error."""
    output, errors = StringIO(), StringIO()
    call_command("rescore", model="other", stdout=output, stderr=errors, **options)
    return output.getvalue().replace("\N{NO-BREAK SPACE}", " ").splitlines(), errors.getvalue()


def test_it_lists_what_would_be_different_and_how_the_reviewed_ones_fare(other: FakePredictor) -> None:
    wrong, right, same = make_detection(0.9), make_detection(0.95), make_detection(0.1)
    make_review(wrong, "real")
    make_review(right, "fake")
    make_review(same, "fake")
    lines, _ = rescore()
    assert set(lines[:2]) == {
        f"{wrong.pk}: fake (90.0 %) -> real (20.0 %), reviewed as real",
        f"{right.pk}: fake (95.0 %) -> real (20.0 %), reviewed as fake",
    }
    assert lines[2:] == [
        "other-1 at 0.7: 3 pictures, 0 of them scored before, 0 failed; 2 verdicts would be different.",
        "Of those reviewed, each counted once: 0 right before and now, 1 right only now, 1 right only before, 1 wrong "
        "both times. Most of them came to review by the doubts of the model before, so this favours any other.",
        "No estimate for all: it needs reviews of each kind of answer, of decided ones in the random sample.",
        "Stored 3 new scores.",
    ]


def test_what_was_drawn_at_random_stands_for_what_was_not(other: FakePredictor) -> None:
    drawn: dict[str, Any] = {"is_sampled": True, "sample_percent": 50.0}
    for probability, truth in ((0.9, "fake"), (0.1, "real")):
        make_review(make_detection(probability, **drawn), truth)
        for _ in range(2):
            make_detection(probability)
    make_review(make_detection(0.5), "real")
    make_review(make_detection(0.9), "real")  # by choice: it stands for none
    make_detection(no_face=True)
    lines, _ = rescore()
    assert "each counted once: 1 right before and now, 2 right only now, 1 right only before, 0 wrong" in lines[-3]
    assert lines[-2] == (
        "Estimated for all 8 that had a verdict, from the 3 reviewed ones that were uncertain or in the random sample, "
        "weighted with how many each stands for: 3 right before and now, 1 right only now, 4 right only before, 0 "
        "wrong both times."
    )


def test_while_most_of_the_sample_waits_objections_count_for_no_more(other: FakePredictor) -> None:
    drawn: dict[str, Any] = {"is_sampled": True, "sample_percent": 100.0}
    objected = make_detection(0.9, **drawn)
    services.appeal_create(detection=objected, text="It is me.")
    make_review(objected, "real")
    for _ in range(9):
        make_detection(0.9, **drawn)
    assert "No estimate for all" in rescore()[0][-2], "of what nobody objected to nothing is reviewed"
    reviewed, doubtful = make_detection(0.9, **drawn), make_detection(0.9, **drawn)
    make_review(reviewed, "fake")
    make_review(doubtful, "cant_tell")
    # 1 was objected to, 11 were not, of which reviewers can tell half
    assert "from the 2 reviewed ones that were" in rescore()[0][-2]
    assert "0 right before and now, 2 right only now, 10 right only before, 0 wrong" in rescore()[0][-2]


def test_an_error_that_one_reviewer_found_counts(other: FakePredictor, settings: Settings) -> None:
    settings.REVIEWERS_NEEDED = 2
    make_review(make_detection(0.9), "real")
    assert "1 right only now" in rescore()[0][-3]


def test_of_two_equally_good_models_neither_is_favoured() -> None:
    random = np.random.default_rng(0)
    n = 20_000
    is_fake = random.random(n) < 0.3
    before, now = (1 / (1 + np.exp(-random.normal(np.where(is_fake, 2.0, -2.0), 2.0))) for _ in range(2))
    rule, comparison = DecisionRule(0.5, uncertain_above=0.2, uncertain_up_to=0.8), Comparison()
    for truth, was, new in zip(np.where(is_fake, "fake", "real"), before, now, strict=True):
        detection = Detection(
            status="done",
            verdict=rule.verdict(was).value,
            fake_probability=was,
            threshold=rule.real_threshold,
            uncertain_above=rule.uncertain_above,
            uncertain_up_to=rule.uncertain_up_to,
            is_sampled=random.random() < 0.25,
            sample_percent=25.0,
        )
        is_reviewed = detection.is_uncertain or detection.is_sampled
        comparison.add(detection, Findings(str(truth), False) if is_reviewed else None, rule.verdict(new).value)
    estimate = comparison.estimate()
    assert estimate is not None
    assert comparison.counts[False, True] > 1.5 * comparison.counts[True, False]
    assert estimate[False, True] == pytest.approx(estimate[True, False], rel=0.1)


def test_scores_are_kept_and_no_detection_changes(other: FakePredictor) -> None:
    for kind in ({}, {"no_face": True}, {"failed": True}):
        make_detection(**kind)
    before = list(Detection.objects.order_by("pk").values())
    lines, _ = rescore()
    assert sorted(line.split(": ")[1] for line in lines[:3]) == [
        "fake (90.0 %) -> real (20.0 %)",
        "no verdict (no probability) -> real (20.0 %)",
        "not_applicable (no probability) -> real (20.0 %)",
    ]
    assert list(Detection.objects.order_by("pk").values()) == before
    assert list(Score.objects.values_list("model_version", "fake_probability")) == [("other-1", 0.2)] * 3


def test_as_many_faces_are_scored_as_of_an_upload(other: FakePredictor, settings: Settings) -> None:
    settings.MAX_FACES = 2
    other.fake_probabilities = (0.2, 0.4, 0.9)
    make_detection(0.9)
    rescore()
    assert Score.objects.get().fake_probability == 0.4


def test_an_interrupted_run_goes_on_where_it_stopped(other: FakePredictor) -> None:
    for seed in range(3):
        make_detection(0.9, data=make_jpeg(seed=seed))
    first = Detection.objects.order_by("pk")[0]
    services.score_create(detection=first, predictor=other, keep=True)  # type: ignore[arg-type]
    other.images.clear()
    lines, _ = rescore()
    assert len(other.images) == 2
    assert lines[-4].startswith("other-1 at 0.7: 3 pictures, 1 of them scored before")
    assert lines[-1] == "Stored 2 new scores."
    rescore()
    assert len(other.images) == 2
    assert Score.objects.count() == 3


def test_a_dry_run_keeps_nothing(other: FakePredictor) -> None:
    make_detection(0.9)
    lines, _ = rescore(dry_run=True)
    assert lines[-1] == "Nothing was stored."
    assert not Score.objects.exists()


def test_another_threshold_needs_no_new_score(other: FakePredictor) -> None:
    detection = make_detection(0.25, model_version="other-1")
    assert rescore()[0][0].startswith("other-1 at 0.7: 1 picture, 1 of them scored before")
    lines, _ = rescore(threshold=0.8)
    assert lines[0] == f"{detection.pk}: real (25.0 %) -> fake (25.0 %)"
    assert other.images == []


@pytest.mark.parametrize("threshold", [0.0, 1.0, 7.0])
def test_an_impossible_threshold_is_refused(other: FakePredictor, threshold: float) -> None:
    with pytest.raises(CommandError, match="--threshold is"):
        rescore(threshold=threshold)


def test_a_picture_that_cannot_be_scored_is_named_and_stops_nothing(
    other: FakePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing, present = make_detection(0.9), make_detection(0.9)
    Path(missing.image.path).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal := Terminal())
        call_command("rescore", model="other", stdout=StringIO(), stderr=terminal, no_color=True, dry_run=True)
    shown = terminal.getvalue().splitlines()
    assert any(line.startswith(f"{missing.pk}: ") for line in shown), "not behind the progress bar"
    lines, errors = rescore()
    assert str(missing.pk) in errors
    assert Score.objects.get().detection == present
    assert "1 failed" in lines[-4]
    other.error = AnalysisFailed("The network broke.")
    Score.objects.all().delete()
    assert "2 failed" in rescore()[0][-4]


@pytest.mark.django_db(transaction=True)
def test_what_is_deleted_while_it_is_scored_is_named_and_stops_nothing(
    other: FakePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted, present = make_detection(0.9), make_detection(0.9)
    predict = other.predict

    def delete_first(*args: Any, **kwargs: Any) -> Any:
        Detection.objects.filter(pk=deleted.pk).delete()
        return predict(*args, **kwargs)

    monkeypatch.setattr(other, "predict", delete_first)
    lines, errors = rescore()
    assert str(deleted.pk) in errors
    assert Score.objects.get().detection == present
    assert "1 failed" in lines[-4]


def test_a_run_that_another_one_overtakes_goes_on(other: FakePredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    detection, following = make_detection(0.9), make_detection(0.9)
    predict = other.predict

    def overtaken(*args: Any, **options: Any) -> Any:
        Score.objects.get_or_create(detection=detection, model_version=other.version, fake_probability=0.25)
        return predict(*args, **options)

    monkeypatch.setattr(other, "predict", overtaken)
    rescore()
    scores = dict(Score.objects.values_list("detection", "fake_probability"))
    assert scores.keys() == {detection.pk, following.pk}
    assert scores[detection.pk] == 0.25


def test_a_model_that_is_not_there_is_an_error(settings: Settings, tmp_path: Path) -> None:
    settings.MODEL_DIR = tmp_path / "mobilenet_v2"
    for name in ("absent", "../absent", "/etc"):
        with pytest.raises(CommandError, match="cannot be used"):
            call_command("rescore", model=name)


def test_pictures_that_were_not_kept_are_left_out(other: FakePredictor) -> None:
    services.picture_forget(detection=make_detection(0.9))
    assert rescore()[0][0].startswith("other-1 at 0.7: 0 pictures")


@pytest.mark.parametrize(
    ("fake_probability", "words"),
    [
        (0.2, "other-1: 20.0\N{NO-BREAK SPACE}% fake"),
        (0.99996, "other-1: over 99.9\N{NO-BREAK SPACE}% fake"),  # no model can promise 100 %
        (None, "other-1: no face"),
    ],
)
def test_the_admin_shows_what_other_models_said(
    admin_client: Client, fake_probability: float | None, words: str
) -> None:
    detection = make_detection(0.9)
    Score.objects.create(detection=detection, model_version="other-1", fake_probability=fake_probability)
    page = admin_client.get(reverse("admin:detector_detection_change", args=[detection.pk]))
    assertContains(page, words)


def test_a_score_goes_with_its_detection(other: FakePredictor) -> None:
    detection = make_detection(0.9)
    rescore()
    services.detection_delete(detection=detection)
    assert not Score.objects.exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_version": "other-2", "fake_probability": 1.5}, "score_probability_in_unit_range"),
        # SQLite names the columns, PostgreSQL the constraint.
        ({}, "model_version|score_once_per_model"),
    ],
)
def test_the_database_refuses_impossible_scores(values: dict[str, Any], message: str) -> None:
    detection = make_detection()
    Score.objects.create(detection=detection, model_version="other-1", fake_probability=0.5)
    values = {"detection": detection, "model_version": "other-1", "fake_probability": 0.5} | values
    with pytest.raises(IntegrityError, match=message), transaction.atomic():
        Score.objects.create(**values)
