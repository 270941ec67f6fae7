import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from tqdm import tqdm

from detector import services
from detector.exceptions import DetectionGone
from detector.models import Detection

BATCH = 200


class Command(BaseCommand):
    help = (
        "Work out again what the reviews of each detection say together, by the REVIEWERS_NEEDED of now. Run it after "
        "that setting was changed: until then, what was settled before stays as it was. Lists every detection whose "
        "reviewed verdict becomes another or is open again; those that are open return to the queue, unless their "
        "picture is gone. Neither reviews nor anything that the machine wrote changes."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="list what would change and store nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        counts: Counter[str] = Counter()
        for before in self._reviewed():
            counts["reviewed"] += 1
            try:
                after = services.detection_resettle(detection=before, keep=not options["dry_run"])
            except DetectionGone:
                continue
            if after.review_verdict == before.review_verdict:
                continue
            counts["changed"] += 1
            counts["lost"] += after.review_verdict == "" and not after.has_picture
            with tqdm.external_write_mode(file=sys.stderr):
                self.stdout.write(f"{after.pk}: {before.review_verdict or 'open'} -> {after.review_verdict or 'open'}")
        self._summarise(counts, is_dry_run=options["dry_run"])

    def _summarise(self, counts: Counter[str], *, is_dry_run: bool) -> None:
        became = "would become" if is_dry_run else "became"
        self.stdout.write(
            f"{counts['reviewed']} reviewed detection{'' if counts['reviewed'] == 1 else 's'}: with REVIEWERS_NEEDED="
            f"{settings.REVIEWERS_NEEDED}, {counts['changed']} {became} another verdict or open."
        )
        if counts["lost"]:
            self.stdout.write(f"{counts['lost']} of the open ones cannot be reviewed: they have no picture any more.")
        if is_dry_run:
            self.stdout.write("Nothing was stored.")

    def _reviewed(self) -> Iterator[Detection]:
        reviewed = Detection.objects.filter(review_count__gt=0).for_list()
        with tqdm(total=reviewed.count(), disable=None, leave=False, unit="detection", file=sys.stderr) as progress:
            for batch in reviewed.batches(BATCH):
                for detection in batch:
                    yield detection
                    progress.update()
