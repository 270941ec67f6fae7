"""Notes of what is half done: files that are about to be written before their row, or removed after it.

A process that is killed in between could otherwise leave a file that no row knows. The note stands in the storage
beside the pictures, so it needs no database. It is written first and removed last; one that stays behind is settled by
whoever finds it: the files go, unless a row has them.
"""

import contextlib
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from django.utils import timezone

from detector.models import Detection

logger = logging.getLogger(__name__)

FOLDER = "pending"
# Nothing that lives takes this long between its files and its row.
LONGEST_WORK = timedelta(minutes=15)
# Nor this long from the first to the last byte of a note.
LONGEST_WRITING = timedelta(seconds=10)
SETTLE_EVERY_S = 300
# After something was given up, or could not be settled yet: a database that was away is mostly back in seconds.
SETTLE_SOON_S = 5
# Told apart from other machines with the same storage, whose processes may have the same numbers. Processes that are
# forked from one that has loaded this share it.
INSTANCE = secrets.token_hex(8)

_has_to_come_back = threading.Event()
# What this process has given up and not settled yet: the notes on it may name this process, which lives, or be missing.
_given_up: dict[UUID, tuple[str, ...]] = {}


@dataclass(frozen=True, slots=True)
class Note:
    """What a note says: the files in question, and who was at it; nobody once it was given up."""

    files: tuple[str, ...] = ()
    instance: str = ""
    pid: int = 0
    is_whole: bool = True

    def is_abandoned(self, written_at: datetime) -> bool:
        age = timezone.now() - written_at
        if not self.is_whole:
            # Somebody may be writing it right now, on a storage that shows files before their end.
            return age > LONGEST_WRITING
        if not self.pid or age > LONGEST_WORK:
            return True
        return self.instance == INSTANCE and not _is_alive(self.pid)


def note(pk: UUID, files: Iterable[str], *, is_first: bool) -> None:
    """Notes that this process is about to write or remove the files; `is_first` unless there may be a note on them."""
    _write(pk, Note(tuple(files), INSTANCE, os.getpid()), is_first=is_first)


def give_up(pk: UUID, files: Iterable[str]) -> None:
    """Has this process settle it soon, or, once it has ended, whoever comes."""
    _given_up[pk] = tuple(files)
    try:
        _note_given_up(pk)
    except OSError:
        logger.exception("Could not write a note on %s", pk)
    _has_to_come_back.set()


def forget(pk: UUID) -> None:
    default_storage.delete(_path(pk))


def noted() -> set[UUID]:
    """What there is a note on: somebody is at it, or it is left to settle_abandoned()."""
    return {UUID(name) for name in _names()}


def settle_abandoned() -> int:
    """Settles what was left half done, and returns how many files that removed.

    Raises:
        DatabaseError: It cannot be said what is known; nothing was removed.
    """
    for pk in list(_given_up):
        with contextlib.suppress(OSError):
            _note_given_up(pk)
    removed = 0
    for name in _names():
        pk, path = UUID(name), f"{FOLDER}/{name}"
        try:
            found, written_at = _read(path), default_storage.get_modified_time(path)
        except FileNotFoundError:
            _given_up.pop(pk, None)
            continue  # done in the meantime
        except OSError:
            logger.exception("Could not read %s", path)
            continue
        if pk not in _given_up and not found.is_abandoned(written_at):
            if not found.is_whole:
                _has_to_come_back.set()
            continue
        # A note is complete before the first file is written, so one that cannot be read stands for no file at all.
        files = _given_up.get(pk, found.files)
        try:
            doomed = [file for file in files if not _is_known(name, file) and default_storage.exists(file)]
            for file in doomed:
                default_storage.delete(file)
                logger.warning("Removed %s, which a process that ended had left behind", file)
                removed += 1
            default_storage.delete(path)
            _given_up.pop(pk, None)
        except OSError:
            logger.exception("Could not settle %s", path)
    return removed


def settle_from_time_to_time() -> None:
    """Settles what was left half done, now and again, in a thread of this process that ends with it."""
    threading.Thread(target=_settle_for_ever, name="pending", daemon=True).start()


def _settle_for_ever() -> None:
    was_settled = True
    while True:
        was_settled = _settled(before=was_settled)
        pause_s = SETTLE_EVERY_S if was_settled else SETTLE_SOON_S
        if _has_to_come_back.wait(pause_s):
            time.sleep(SETTLE_SOON_S)
            _has_to_come_back.clear()


def _settled(*, before: bool) -> bool:
    """Settles once and returns whether that went well; a reason is told when it is new, not every few seconds."""
    try:
        settle_abandoned()
    except Exception:
        # The edge of a thread: whatever is out of order now, the next round tries again.
        if before:
            logger.exception("What was left half done could not be settled; it is tried again until it can")
        return False
    finally:
        connection.close()
    if not before:
        logger.warning("What was left half done could be settled again")
    return True


def _is_known(name: str, file: str) -> bool:
    row = Detection.objects.filter(pk=name).values("image", "thumbnail").first()
    return row is not None and file in row.values()


def _names() -> list[str]:
    try:
        return [name for name in default_storage.listdir(FOLDER)[1] if _is_uuid(name)]
    except FileNotFoundError:
        return []


def _is_uuid(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False


def _path(pk: UUID) -> str:
    return f"{FOLDER}/{pk}"


def _write(pk: UUID, content: Note, *, is_first: bool) -> None:
    if not is_first:
        with contextlib.suppress(OSError):  # a bucket that removes nothing may still take another in its place
            forget(pk)
    text = json.dumps({"files": content.files, "instance": content.instance, "pid": content.pid})
    default_storage.save(_path(pk), ContentFile(text.encode()))


def _note_given_up(pk: UUID) -> None:
    """Writes a note only where there is none: on a full disk the one that is there could not be replaced."""
    with contextlib.suppress(FileNotFoundError):
        if _read(_path(pk)).is_whole:
            return
    _write(pk, Note(_given_up[pk]), is_first=False)


def _read(path: str) -> Note:
    with default_storage.open(path) as file:
        text = file.read()
    try:
        values = json.loads(text)
        return Note(tuple(values["files"]), values["instance"], values["pid"])
    except (ValueError, KeyError, TypeError):
        return Note(is_whole=False)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
