import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import IntegrityError
from tqdm import tqdm

from detector import demo

SHARED = (
    f"{demo.PICTURES} small generated pictures that all of them share, up to {demo.MOST_OWNERS} accounts demo-... and "
    f"{demo.REVIEWERS} accounts demo-reviewer-... that nobody can log in to"
)


class Command(BaseCommand):
    help = (
        "Add made-up detections of the last two years with reviews and objections, to try the admin with: "
        f"{SHARED}. Reviews can never be deleted again, so use a database of its own. Runs only with DEBUG=true."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--rows", type=int, required=True, metavar="N", help="how many detections to add")
        parser.add_argument("--seed", type=int, metavar="X", help="the same number makes the same detections")

    def handle(self, *args: Any, **options: Any) -> None:
        rows = options["rows"]
        if not settings.DEBUG:
            raise CommandError("Made-up reviews would stay in a real database for good: this needs DEBUG=true.")
        if rows < 1:
            raise CommandError(f"--rows is {rows}; it has to be 1 or more.")
        self.stdout.write(f"Adds {rows} detections with reviews, {SHARED}.")
        with tqdm(total=rows, disable=None, leave=False, unit="detection", file=sys.stderr) as progress:
            try:
                added = demo.make(rows, seed=options["seed"], progress=progress.update)
            except IntegrityError as error:
                raise CommandError(f"What --seed {options['seed']} makes is there already; take another.") from error
        self.stdout.write(
            f"Added {added.detections} detections, {added.appeals} of them objected to, and {added.reviews} reviews."
        )
