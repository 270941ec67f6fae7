import sys
from argparse import ArgumentParser
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from detector import exports
from detector.models import Review


class Command(BaseCommand):
    help = (
        "Print every review as CSV or JSON. With --dataset DIR instead write the pictures that people have called real "
        "or fake to DIR/0_real and DIR/1_fake, with the manifest.csv that `make train` reads as its FACES_DIR. Nothing "
        "in the database changes."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--format", choices=list(exports.FORMATS), default="csv", help="of what is printed")
        parser.add_argument("--dataset", metavar="DIR", type=Path, help="a new or empty folder for pictures")

    def handle(self, *args: Any, **options: Any) -> None:
        folder: Path | None = options["dataset"]
        if folder is not None:
            self._write_dataset(folder)
            return
        write_lines, _ = exports.FORMATS[options["format"]]
        reviews = Review.objects.order_by("created_at", "pk")
        for line in write_lines(reviews):
            self.stdout.write(line, ending="")
        count = reviews.count()
        self.stderr.write(f"{count} review{'' if count == 1 else 's'}", style_func=str)

    def _write_dataset(self, folder: Path) -> None:
        try:
            is_taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        except OSError as error:
            raise CommandError(f"{folder} cannot be looked into: {error.strerror or error}.") from error
        if is_taken:
            # What an earlier export left behind would be in no manifest.
            raise CommandError(f"{folder} is not an empty folder; name one that is, or a new one.")
        try:
            counts = exports.dataset_write(folder, progress=_with_bar)
        except OSError as error:
            raise CommandError(f"The set in {folder} is incomplete: {error.strerror or error}.") from error
        self.stdout.write(
            f"Wrote {counts['0_real']} real and {counts['1_fake']} fake pictures to {folder}; "
            f"{counts['skipped']} had no readable file. Left out: {counts['several_faces']} reviewed as fake that have "
            "several faces, as no review says which one is meant."
        )
        self.stdout.write(
            f"{counts['uncertain']} of those written had an uncertain answer. All of these are queued for review, but "
            "only a sample of the others, and what is called Real against its own file: how common fakes are here is "
            "not how common they are among the uploads, so fit no prior to it. The manifest's queued_percent says how "
            "many of each stratum were queued."
        )


def _with_bar(rows: Iterable[Any]) -> Iterable[Any]:
    bar: Iterable[Any] = tqdm(rows, disable=None, leave=False, unit="picture", file=sys.stderr)
    return bar
