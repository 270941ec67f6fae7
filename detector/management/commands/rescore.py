import sys
from argparse import ArgumentParser
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from detector import quality, services
from detector.exceptions import AnalysisFailed, DetectionGone, InvalidImage, ModelUnavailable
from detector.models import Detection, Review, Score
from detector.predictor import DecisionRule, Predictor, Verdict
from detector.review_weeks import IS_APPEALED
from detector.reviews import FAKE, REAL, majority_verdict, opinions_of
from detector.templatetags.display import percent

BATCH = 200
OUTCOMES = {
    (True, True): "right before and now",
    (False, True): "right only now",
    (True, False): "right only before",
    (False, False): "wrong both times",
}


@dataclass(frozen=True, slots=True)
class Findings:
    """What the reviewers of one upload say together.

    Attributes:
        truth: What most of them say; anything but real and fake is no truth.
        is_appealed: Whether the uploader had objected before the first review.
    """

    truth: str
    is_appealed: bool


class Comparison:
    """How the reviewed pictures fare, and what that means for all of them.

    The earlier model chose most of what is reviewed, by its doubts: there any other one, be it no better, is right more
    often. So each of its strata is estimated and weighted as on the quality page.
    """

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self.counts: Counter[tuple[bool, bool]] = Counter()
        self._judged: Counter[tuple[quality.Subject, tuple[bool, bool]]] = Counter()
        self._waiting: dict[tuple[str, bool], float] = defaultdict(float)

    def add(self, detection: Detection, found: Findings | None, now: str) -> None:
        """Counts one scored picture.

        Args:
            found: What its reviewers found, if there are any.
            now: What would be said of it.
        """
        self.totals[detection.answer] += 1
        percent = detection.sample_percent if detection.is_sampled else 0.0
        if found is None:
            if percent and detection.answer in quality.DECIDED:
                self._waiting[detection.answer, detection.appealed_at is not None] += 100.0 / percent
            return
        outcome = (detection.verdict == found.truth, now == found.truth)
        if found.truth in (REAL, FAKE):
            self.counts[outcome] += 1
        if detection.answer in quality.STRATA:
            subject = quality.Subject(detection.answer, found.truth, 0.0, percent, is_appealed=found.is_appealed)
            self._judged[subject, outcome] += 1

    @property
    def all(self) -> int:
        """The number of pictures that had a verdict before."""
        return sum(self.totals[stratum] for stratum in quality.STRATA)

    @property
    def usable(self) -> int:
        """The number of reviewed ones that came to review without regard to what they turned out to be."""
        return sum(n for (subject, _), n in self._judged.items() if subject.is_usable)

    def estimate(self) -> dict[tuple[bool, bool], float] | None:
        """Returns the estimated number of all pictures per outcome; None where a stratum has no usable review."""
        judged = [(replace(subject, count=n), outcome) for (subject, outcome), n in self._judged.items()]
        cases = quality.weighted([subject for subject, _ in judged], self.totals, self._waiting)
        if not cases or quality.unmeasured(cases, self.totals, self._waiting):
            return None
        numbers = dict.fromkeys(OUTCOMES, 0.0)
        outcomes = [outcome for subject, outcome in judged if subject.is_usable]
        for case, outcome in zip(cases, outcomes, strict=True):
            numbers[outcome] += case.total
        return numbers


class Command(BaseCommand):
    help = (
        "Score the stored pictures with another model or another threshold, list which verdicts would be different, "
        "count how those fare that people have reviewed, and estimate from the random sample how all would. The scores "
        "are kept per model version, so an interrupted run goes on where it stopped; no detection changes. "
        "ACTIVE_MODEL chooses the model that judges new uploads."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--model", required=True, metavar="NAME", help="the name of a folder beside MODEL_DIR")
        parser.add_argument("--threshold", type=float, metavar="X", help="what to try instead of REAL_THRESHOLD")
        parser.add_argument("--dry-run", action="store_true", help="score and list, but keep no scores")

    def handle(self, *args: Any, **options: Any) -> None:
        rule = _rule(options["threshold"])
        try:
            predictor = services.named_predictor(options["model"])
        except ModelUnavailable as error:
            raise CommandError(f"The model {options['model']} cannot be used: {error}") from error
        counts: Counter[str] = Counter()
        comparison = Comparison()
        for batch in self._batches():
            known, findings = _known_scores(batch, predictor.version), _findings(batch)
            for detection in batch:
                try:
                    score = known.get(detection.pk) or services.score_create(
                        detection=detection, predictor=predictor, keep=not options["dry_run"]
                    )
                except (AnalysisFailed, DetectionGone, InvalidImage, OSError) as error:
                    counts["failed"] += 1
                    with tqdm.external_write_mode(file=sys.stderr):
                        self.stderr.write(f"{detection.pk}: {error}")
                else:
                    counts["kept"] += detection.pk in known
                    verdict = rule.verdict(score.fake_probability)
                    comparison.add(detection, findings.get(detection.pk), verdict.value)
                    self._compare(detection, score, verdict, counts)
        self._summarise(predictor, rule, counts, comparison)
        self.stdout.write(
            "Nothing was stored." if options["dry_run"] else f"Stored {counts['scored'] - counts['kept']} new scores."
        )

    def _batches(self) -> Iterator[list[Detection]]:
        waiting = Detection.objects.exclude(image="").for_list()
        with tqdm(total=waiting.count(), disable=None, leave=False, unit="picture", file=sys.stderr) as progress:
            for batch in waiting.batches(BATCH):
                yield batch
                progress.update(len(batch))

    def _compare(self, detection: Detection, score: Score, verdict: Verdict, counts: Counter[str]) -> None:
        before = detection.verdict or "no verdict"
        counts["scored"] += 1
        if verdict.value == before:
            return
        counts["different"] += 1
        reviewed = f", reviewed as {detection.review_verdict}" if detection.review_verdict else ""
        with tqdm.external_write_mode(file=sys.stderr):
            self.stdout.write(
                f"{detection.pk}: {before} ({percent(detection.fake_probability) or 'no probability'}) -> "
                f"{verdict.value} ({percent(score.fake_probability) or 'no probability'}){reviewed}"
            )

    def _summarise(
        self, predictor: Predictor, rule: DecisionRule, counts: Counter[str], comparison: Comparison
    ) -> None:
        scored = counts["scored"]
        pictures = f"{scored} picture{'' if scored == 1 else 's'}"
        self.stdout.write(
            f"{predictor.version} at {rule.real_threshold:g}: {pictures}, {counts['kept']} of them scored before, "
            f"{counts['failed']} failed; {counts['different']} verdicts would be different."
        )
        self.stdout.write(
            f"Of those reviewed, each counted once: {_in_words(comparison.counts)}. Most of them came to review by the "
            "doubts of the model before, so this favours any other."
        )
        numbers = comparison.estimate()
        self.stdout.write(
            f"Estimated for all {comparison.all} that had a verdict, from the {comparison.usable} reviewed ones that "
            f"were uncertain or in the random sample, weighted with how many each stands for: {_in_words(numbers)}."
            if numbers
            else "No estimate for all: it needs reviews of each kind of answer, of decided ones in the random sample."
        )


def _rule(threshold: float | None) -> DecisionRule:
    rule = services.active_rule()
    if threshold is None:
        return rule
    if not 0 < threshold < 1:
        raise CommandError(f"--threshold is {threshold}; it lies between 0 and 1.")
    return DecisionRule(threshold, min(rule.uncertain_above, threshold), max(rule.uncertain_up_to, threshold))


def _in_words(numbers: Mapping[tuple[bool, bool], float]) -> str:
    return ", ".join(f"{numbers[outcome]:.0f} {words}" for outcome, words in OUTCOMES.items())


def _findings(batch: list[Detection]) -> dict[UUID, Findings]:
    """Of each that was reviewed."""
    of_each: dict[UUID, list[tuple[int | None, int, str]]] = {}
    appealed: dict[UUID, bool] = {}
    reviews = Review.objects.filter(detection__in=batch).order_by("ordinal").annotate(is_appealed=IS_APPEALED)
    names = ("detection", "reviewer_key", "pk", "verdict", "is_appealed")
    for pk, reviewer, key, verdict, is_appealed in reviews.values_list(*names):
        of_each.setdefault(pk, []).append((reviewer, key, verdict))
        appealed.setdefault(pk, bool(is_appealed))
    return {pk: Findings(majority_verdict(opinions_of(given)), appealed[pk]) for pk, given in of_each.items()}


def _known_scores(batch: list[Detection], model_version: str) -> dict[Any, Score]:
    """What this model version has said already: kept scores, and the verdicts that it gave itself."""
    kept = Score.objects.filter(detection__in=batch, model_version=model_version)
    own = [
        Score(detection=each, model_version=model_version, fake_probability=each.fake_probability)
        for each in batch
        if each.model_version == model_version and each.status != Detection.Status.FAILED
    ]
    return {score.detection_id: score for score in [*own, *kept]}
