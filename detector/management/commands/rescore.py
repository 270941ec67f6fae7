import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from detector import services
from detector.exceptions import AnalysisFailed, DetectionGone, InvalidImage, ModelUnavailable
from detector.models import Detection, ReviewVerdict, Score
from detector.predictor import DecisionRule, Predictor, Verdict
from detector.templatetags.display import percent

BATCH = 200


class Command(BaseCommand):
    help = (
        "Score the stored pictures with another model or another threshold, list which verdicts would be different, "
        "and count how those fare that people have reviewed. The scores are kept per model version, so an interrupted "
        "run goes on where it stopped; no detection changes. ACTIVE_MODEL chooses the model that judges new uploads."
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
        for batch in self._batches():
            known = _known_scores(batch, predictor.version)
            for detection in batch:
                try:
                    score = known.get(detection.pk) or services.score_create(
                        detection=detection, predictor=predictor, keep=not options["dry_run"]
                    )
                except (AnalysisFailed, DetectionGone, InvalidImage, OSError) as error:
                    counts["failed"] += 1
                    self.stderr.write(f"{detection.pk}: {error}")
                else:
                    counts["kept"] += detection.pk in known
                    self._compare(detection, score, rule.verdict(score.fake_probability), counts)
        self._summarise(predictor, rule, counts, is_dry_run=options["dry_run"])

    def _batches(self) -> Iterator[list[Detection]]:
        """All with a picture, by key: a million take no more memory than a few, and none is left open while writing."""
        waiting = Detection.objects.exclude(image="").defer("faces", "timings_ms").order_by("pk")
        with tqdm(total=waiting.count(), disable=None, leave=False, unit="picture", file=sys.stderr) as progress:
            batch = list(waiting[:BATCH])
            while batch:
                yield batch
                progress.update(len(batch))
                batch = list(waiting.filter(pk__gt=batch[-1].pk)[:BATCH])

    def _compare(self, detection: Detection, score: Score, verdict: Verdict, counts: Counter[str]) -> None:
        before = detection.verdict or "no verdict"
        counts["scored"] += 1
        if detection.review_verdict in (ReviewVerdict.REAL, ReviewVerdict.FAKE):
            was_right, is_right = (said == detection.review_verdict for said in (before, verdict.value))
            counts[f"reviewed {was_right} {is_right}"] += 1
        if verdict.value == before:
            return
        counts["different"] += 1
        reviewed = f", reviewed as {detection.review_verdict}" if detection.review_verdict else ""
        with tqdm.external_write_mode(file=sys.stderr):
            self.stdout.write(
                f"{detection.pk}: {before} ({percent(detection.fake_probability) or 'no probability'}) -> "
                f"{verdict.value} ({percent(score.fake_probability) or 'no probability'}){reviewed}"
            )

    def _summarise(self, predictor: Predictor, rule: DecisionRule, counts: Counter[str], *, is_dry_run: bool) -> None:
        scored = counts["scored"]
        pictures = f"{scored} picture{'' if scored == 1 else 's'}"
        self.stdout.write(
            f"{predictor.version} at {rule.real_threshold:g}: {pictures}, {counts['kept']} of them scored before, "
            f"{counts['failed']} failed; {counts['different']} verdicts would be different."
        )
        self.stdout.write(
            f"Of those reviewed: {counts['reviewed True True']} right before and now, "
            f"{counts['reviewed False True']} right only now, {counts['reviewed True False']} right only before, "
            f"{counts['reviewed False False']} wrong both times."
        )
        self.stdout.write("Nothing was stored." if is_dry_run else f"Stored {scored - counts['kept']} new scores.")


def _rule(threshold: float | None) -> DecisionRule:
    rule = services.active_rule()
    if threshold is None:
        return rule
    if not 0 < threshold < 1:
        raise CommandError(f"--threshold is {threshold}; it lies between 0 and 1.")
    return DecisionRule(threshold, min(rule.uncertain_above, threshold), max(rule.uncertain_up_to, threshold))


def _known_scores(batch: list[Detection], model_version: str) -> dict[Any, Score]:
    """What this model version has said already: kept scores, and the verdicts that it gave itself."""
    kept = Score.objects.filter(detection__in=batch, model_version=model_version)
    own = [
        Score(detection=each, model_version=model_version, fake_probability=each.fake_probability)
        for each in batch
        if each.model_version == model_version and each.status != Detection.Status.FAILED
    ]
    return {score.detection_id: score for score in [*own, *kept]}
