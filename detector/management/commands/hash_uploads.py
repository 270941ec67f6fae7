import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand
from tqdm import tqdm

from detector import services
from detector.exceptions import DetectionGone, InvalidImage
from detector.models import Detection

BATCH = 200


class Command(BaseCommand):
    help = (
        "Read every stored picture again that lacks its SHA-256, its perceptual hash or what its file says of AI, so "
        "that uploads from before there were hashes are found as known pictures, too, and those that are called Real "
        "while their file says that AI made them wait for a review. What is there is left alone, also where an earlier "
        "version made hashes a little differently (see detector/similarity.py), so an interrupted run goes on where it "
        "stopped. Pictures whose file is missing or broken are named and skipped."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="read the pictures and count, but store nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        counts: Counter[str] = Counter()
        for detection in self._waiting():
            try:
                services.file_facts_fill(detection=detection, keep=not options["dry_run"])
            except DetectionGone:
                continue
            except FileNotFoundError:
                self._skip(detection, "its file is missing", counts)
            except (InvalidImage, OSError) as error:
                self._skip(detection, str(error), counts)
            else:
                counts["read"] += 1
        pictures = f"{counts['read']} picture{'' if counts['read'] == 1 else 's'}"
        nothing = " Nothing was stored." if options["dry_run"] else ""
        self.stdout.write(f"Read {pictures}, skipped {counts['skipped']}.{nothing}")

    def _skip(self, detection: Detection, reason: str, counts: Counter[str]) -> None:
        counts["skipped"] += 1
        with tqdm.external_write_mode(file=sys.stderr):
            self.stderr.write(f"{detection.pk}: {reason}")

    def _waiting(self) -> Iterator[Detection]:
        waiting = Detection.objects.lacking_file_facts().for_list()
        with tqdm(total=waiting.count(), disable=None, leave=False, unit="picture", file=sys.stderr) as progress:
            for batch in waiting.batches(BATCH):
                for detection in batch:
                    yield detection
                    progress.update()
