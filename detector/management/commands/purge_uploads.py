import sys
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from tqdm import tqdm

from detector import pending, services
from detector.exceptions import DetectionGone
from detector.models import Detection

BATCH = 500
WHAT_GOES = "With them go their thumbnails and file names; verdicts, figures, hashes, objections and reviews stay."


class Command(BaseCommand):
    help = (
        "Remove the picture, its thumbnail and its file name of every detection that was uploaded more than "
        "RETENTION_DAYS days ago. The rows stay, with verdict, figures, SHA-256 and perceptual hash, objection and "
        "reviews. With 0 days none of that is removed. Also removes files without a row, left half done by a process "
        "that was killed."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="say what would go and remove nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["dry_run"] and (left := pending.settle_abandoned()):
            self.stdout.write(f"Removed {left} file{'' if left == 1 else 's'} that no detection knows.")
        self._purge(options)

    def _purge(self, options: dict[str, Any]) -> None:
        days = settings.RETENTION_DAYS
        if days == 0:
            self.stdout.write("RETENTION_DAYS is 0: pictures are kept until somebody deletes them. Removed 0.")
            return
        before = timezone.now() - timedelta(days=days)
        old = Detection.objects.with_old_picture(before)
        when = f"uploaded before {timezone.localtime(before):%Y-%m-%d %H:%M %Z}"
        if options["dry_run"]:
            self.stdout.write(f"Would remove the pictures of {_detections(old.count())} {when}. {WHAT_GOES}")
            self.stdout.write("Nothing was changed.")
            return
        removed, failed = self._remove(old.count(), before)
        self.stdout.write(f"Removed the pictures of {_detections(removed)} {when}. {WHAT_GOES}")
        if failed:
            raise CommandError(f"The pictures of {_detections(failed)} could not be removed; the lines above say why.")

    def _remove(self, total: int, before: Any) -> tuple[int, int]:
        """How many went and how many could not; in batches, so that a million take no more memory than a few."""
        removed = 0
        failed: list[Any] = []
        with tqdm(total=total, disable=None, leave=False, unit="picture", file=sys.stderr) as progress:
            while True:
                waiting = Detection.objects.with_old_picture(before).exclude(pk__in=failed)
                batch = list(waiting.only("image", "thumbnail").order_by("created_at")[:BATCH])
                if not batch:
                    return removed, len(failed)
                for detection in batch:
                    try:
                        services.picture_forget(detection=detection)
                    except DetectionGone:
                        pass  # and its picture went with it
                    except OSError as error:
                        with tqdm.external_write_mode(file=sys.stderr):
                            self.stderr.write(f"{detection.image.name}: {error.strerror or error}")
                        failed.append(detection.pk)
                    else:
                        removed += 1
                    progress.update()


def _detections(count: int) -> str:
    return f"{count} detection{'' if count == 1 else 's'}"
