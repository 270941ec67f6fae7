from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.files.storage import default_storage
from django.core.management.base import BaseCommand, CommandError

from detector.orphans import orphans
from detector.ratelimits import MOST_DAYS

DEFAULT_HOURS = 24
MOST_HOURS = MOST_DAYS * 24


class Command(BaseCommand):
    help = (
        "Remove the files of pictures and thumbnails that belong to no detection, as a restored backup may bring them "
        "along. What is being stored or deleted at the time stays, and so do younger ones than --older-than-hours. "
        "Rows are not changed."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="name the files and remove nothing")
        parser.add_argument(
            "--older-than-hours", type=float, default=DEFAULT_HOURS, help="age by the storage (default: %(default)s)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not 0 <= options["older_than_hours"] <= MOST_HOURS:
            raise CommandError(
                f"--older-than-hours is {options['older_than_hours']:g}; it has to be 0 or more, at most {MOST_HOURS}."
            )
        removed = failed = 0
        for name in orphans(older_than=timedelta(hours=options["older_than_hours"])):
            try:
                if not options["dry_run"]:
                    default_storage.delete(name)
            except OSError as error:
                self.stderr.write(f"{name}: {error.strerror or error}")
                failed += 1
            else:
                self.stdout.write(name)
                removed += 1
        done = "Would remove" if options["dry_run"] else "Removed"
        self.stdout.write(f"{done} {removed} file{'' if removed == 1 else 's'} that no detection knows.")
        if failed:
            raise CommandError(f"{failed} could not be removed; the lines above say why.")
