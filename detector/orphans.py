"""Files of pictures that no row knows, though nobody left them half done: a restored backup may bring such along.

The database is backed up before the pictures, so that every row finds its files; what was uploaded in between comes
back as files alone, which neither its uploader nor `purge_uploads` would ever meet.
"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import PurePosixPath
from uuid import UUID

from django.core.files.storage import default_storage
from django.utils import timezone

from detector import pending
from detector.models import PICTURE_FOLDER, THUMBNAIL_FOLDER, Detection

BATCH = 500


def orphans(*, older_than: timedelta) -> Iterator[str]:
    """The names of all files in the storage that are older than that, belong to no detection and are in nobody's work.

    Raises:
        OSError: The storage cannot be read.
    """
    before = timezone.now() - older_than
    for folder in (PICTURE_FOLDER, THUMBNAIL_FOLDER):
        for names in _months(folder):
            for start in range(0, len(names), BATCH):
                for name in _unknown(names[start : start + BATCH]):
                    try:
                        is_old = default_storage.get_modified_time(name) < before
                    except FileNotFoundError:
                        continue  # deleted in the meantime
                    if is_old:
                        yield name


def _months(folder: str) -> Iterator[list[str]]:
    """The pictures of one month after the other; what has no detection's key for its name is none of ours."""
    for year in _listed(folder)[0]:
        for month in _listed(f"{folder}/{year}")[0]:
            place = f"{folder}/{year}/{month}"
            yield [f"{place}/{name}" for name in _listed(place)[1] if _key(name)]


def _listed(folder: str) -> tuple[list[str], list[str]]:
    try:
        folders, files = default_storage.listdir(folder)
    except FileNotFoundError:
        return [], []
    return sorted(folders), sorted(files)


def _unknown(names: list[str]) -> list[str]:
    # Asked before the rows: a note goes only after its row has come, so what is being stored is in one of the answers.
    noted = pending.noted()
    keys = [key for name in names if (key := _key(name))]
    rows = Detection.objects.filter(pk__in=keys).values_list("image", "thumbnail")
    known = {file for row in rows for file in row}
    return [name for name in names if name not in known and _key(name) not in noted]


def _key(name: str) -> UUID | None:
    try:
        return UUID(PurePosixPath(name).stem)
    except ValueError:
        return None
