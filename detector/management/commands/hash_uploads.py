import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand
from tqdm import tqdm

from detector import services
from detector.exceptions import InvalidImage
from detector.models import Detection

BATCH = 200


class Command(BaseCommand):
    help = (
        "Compute the SHA-256 and the perceptual hash of every stored picture that lacks one of them, so that uploads "
        "from before there were hashes are found as known pictures, too. What has its hashes is left alone, also where "
        "an earlier version made them a little differently (see detector/similarity.py), so an interrupted run goes on "
        "where it stopped. Pictures whose file is missing or broken are named and skipped."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="read the pictures and count, but store nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        counts: Counter[str] = Counter()
        for detection in self._waiting():
            try:
                services.hashes_fill(detection=detection, keep=not options["dry_run"])
            except FileNotFoundError:
                self._skip(detection, "its file is missing", counts)
            except (InvalidImage, OSError) as error:
                self._skip(detection, str(error), counts)
            else:
                counts["hashed"] += 1
        pictures = f"{counts['hashed']} picture{'' if counts['hashed'] == 1 else 's'}"
        done = f"Would hash {pictures}" if options["dry_run"] else f"Hashed {pictures}"
        nothing = " Nothing was stored." if options["dry_run"] else ""
        self.stdout.write(f"{done}, skipped {counts['skipped']}.{nothing}")

    def _skip(self, detection: Detection, reason: str, counts: Counter[str]) -> None:
        counts["skipped"] += 1
        with tqdm.external_write_mode(file=sys.stderr):
            self.stderr.write(f"{detection.pk}: {reason}")

    def _waiting(self) -> Iterator[Detection]:
        waiting = Detection.objects.without_hashes().for_list()
        with tqdm(total=waiting.count(), disable=None, leave=False, unit="picture", file=sys.stderr) as progress:
            for batch in waiting.batches(BATCH):
                for detection in batch:
                    yield detection
                    progress.update()
