"""What is left half done when a process is killed, and who cleans up after it."""

import errno
import os
import subprocess
import sys
import threading
import time
import uuid
from datetime import timedelta
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.files import locks
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, default_storage
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.db.models import QuerySet
from django.utils import timezone

from detector import pending, services
from detector.models import Detection
from detector.tests.factories import FakePredictor, make_detection, make_jpeg
from detector.tests.test_services import create, stored

pytestmark = pytest.mark.django_db


class Killed(BaseException):
    """Stands for SIGKILL: nothing that the program wrote for its end is run."""


def dead_pid() -> int:
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    return int(done.stdout)


def leave_behind(monkeypatch: pytest.MonkeyPatch, *, pid: int) -> uuid.UUID:
    """Two files and their note, of an upload whose process was killed before the row."""
    pk = uuid.uuid4()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: pid)
        pending.note(pk, [f"detections/{pk}.jpg", f"thumbnails/{pk}.jpg"], is_first=True)
    for folder in ("detections", "thumbnails"):
        default_storage.save(f"{folder}/{pk}.jpg", ContentFile(make_jpeg()))
    return pk


def test_a_second_note_takes_the_place_of_the_first() -> None:
    pk = uuid.uuid4()
    pending.note(pk, ["a.jpg"], is_first=True)
    pending.note(pk, ["b.jpg"], is_first=False)
    assert default_storage.listdir("pending")[1] == [str(pk)]
    assert pending._read(f"pending/{pk}").files == ("b.jpg",)


def test_a_note_is_there_before_the_files_and_gone_after_the_row(
    predictor: FakePredictor, media_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Detection.save
    seen = []

    def watch(detection: Detection, **options: Any) -> None:
        seen.append(pending._read(f"pending/{detection.pk}"))
        save(detection, **options)

    monkeypatch.setattr(Detection, "save", watch)
    detection = create()
    assert seen == [
        pending.Note((str(detection.image.name), str(detection.thumbnail.name)), pending.INSTANCE, os.getpid())
    ]
    assert {path.parts[-4] for path in stored(media_root)} == {"detections", "thumbnails"}


def test_what_a_dead_process_left_goes(media_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_behind(monkeypatch, pid=dead_pid())
    kept = make_detection()
    assert pending.settle_abandoned() == 2
    assert {path.stem for path in stored(media_root)} == {str(kept.pk)}
    assert pending.settle_abandoned() == 0


def test_what_a_living_process_is_at_stays_for_a_while(media_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_behind(monkeypatch, pid=os.getpid())
    assert pending.settle_abandoned() == 0
    assert len(stored(media_root)) == 3
    later = timezone.now() + pending.LONGEST_WORK + timedelta(seconds=1)
    monkeypatch.setattr(timezone, "now", lambda: later)
    assert pending.settle_abandoned() == 2
    assert stored(media_root) == []


def test_another_machine_s_process_counts_as_living(media_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_behind(monkeypatch, pid=dead_pid())
    monkeypatch.setattr(pending, "INSTANCE", "another")
    assert pending.settle_abandoned() == 0
    assert len(stored(media_root)) == 3


def test_files_that_a_row_knows_stay(media_root: Path) -> None:
    detection = make_detection()
    pending.give_up(detection.pk, [str(detection.image.name), str(detection.thumbnail.name)])
    assert pending.settle_abandoned() == 0
    assert len(stored(media_root)) == 2


@pytest.mark.parametrize("text", [b"", b'{"files": ["detections/', b"[]"])
def test_a_note_without_an_end_goes_once_nobody_can_be_writing_it(
    media_root: Path, monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    make_detection()
    default_storage.save(f"pending/{uuid.uuid4()}", ContentFile(text))
    pending._has_to_come_back.clear()
    assert pending.settle_abandoned() == 0
    assert len(stored(media_root)) == 3
    assert pending._has_to_come_back.is_set(), "it is looked at again in seconds, not in minutes"
    later = timezone.now() + pending.LONGEST_WRITING + timedelta(seconds=1)
    monkeypatch.setattr(timezone, "now", lambda: later)
    assert pending.settle_abandoned() == 0
    assert len(stored(media_root)) == 2


def test_an_upload_goes_through_while_another_process_settles(
    predictor: FakePredictor, media_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one comes between the first and the last byte of the note."""
    locks_lock = locks.lock
    seen: list[list[int]] = []

    def settle_first(file: Any, flags: int) -> bool:
        if not seen:
            seen.append([path.stat().st_size for path in (media_root / pending.FOLDER).iterdir()])
            pending.settle_abandoned()
        return locks_lock(file, flags)

    monkeypatch.setattr(locks, "lock", settle_first)
    create()
    assert seen == [[0]]
    assert len(stored(media_root)) == 2


def test_what_is_not_a_note_is_left_alone(media_root: Path) -> None:
    default_storage.save("pending/README", ContentFile(b"mine"))
    assert pending.settle_abandoned() == 0
    assert len(stored(media_root)) == 1


def test_files_stay_while_the_database_cannot_say_and_go_when_it_says_no(
    predictor: FakePredictor, media_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("server closed the connection unexpectedly")

    with monkeypatch.context() as patch:
        patch.setattr(Detection, "save", fail)
        patch.setattr(QuerySet, "exists", fail)
        with pytest.raises(DatabaseError):
            create()
    assert len(stored(media_root)) == 3
    assert pending.settle_abandoned() == 2
    assert stored(media_root) == []


def test_a_database_that_stays_away_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> int:
        raise DatabaseError("connection refused")

    monkeypatch.setattr(pending, "connection", SimpleNamespace(close=lambda: None))
    with monkeypatch.context() as patch:
        patch.setattr(pending, "settle_abandoned", fail)
        assert [pending._settled(before=True), pending._settled(before=False)] == [False, False]
    assert [record.exc_info is not None for record in caplog.records] == [True]
    assert pending._settled(before=False)
    assert pending._settled(before=True)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_what_a_process_gave_up_goes_at_once_when_it_has_ended(media_root: Path) -> None:
    """Not only after the time that somebody who lives may take; nor is there a note yet whose first one failed."""
    pk, path = uuid.uuid4(), default_storage.save("detections/a.jpg", ContentFile(make_jpeg()))
    pending._has_to_come_back.clear()
    pending.give_up(pk, [path])
    assert pending._has_to_come_back.is_set(), "and it comes back to it itself in seconds, not in minutes"
    pending._given_up.clear()  # with the process
    assert pending.settle_abandoned() == 1
    assert stored(media_root) == []


def test_what_cannot_even_be_noted_goes_when_there_is_room_again(
    media_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pk, path = uuid.uuid4(), default_storage.save("detections/a.jpg", ContentFile(make_jpeg()))

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(FileSystemStorage, "_save", refuse)
        pending.give_up(pk, [path])
        assert pending.settle_abandoned() == 0
        assert pending.settle_abandoned() == 0
    assert len(stored(media_root)) == 1
    assert pending.settle_abandoned() == 1
    assert stored(media_root) == []
    assert pending._given_up == {}


def test_what_another_process_settles_first_is_passed_over(media_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = leave_behind(monkeypatch, pid=dead_pid())
    detection = make_detection()
    pending.note(detection.pk, [str(detection.image.name)], is_first=True)
    monkeypatch.setattr(pending, "_names", lambda: [str(detection.pk), str(uuid.uuid4()), str(left)])
    assert pending.settle_abandoned() == 2
    assert {path.stem for path in stored(media_root)} == {str(detection.pk)}


def test_a_thread_settles_from_time_to_time_and_soon_where_it_has_to(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, before, done = iter([True, False, True]), list[bool](), list[object]()

    def settled(**options: bool) -> bool:
        before.append(options["before"])
        for answer in answers:
            return answer
        raise Killed

    def wait(pause_s: float) -> bool:
        done.append(pause_s)
        return len(done) == 3

    monkeypatch.setattr(pending, "_settled", settled)
    monkeypatch.setattr(pending, "_has_to_come_back", SimpleNamespace(wait=wait, clear=lambda: done.append("clear")))
    monkeypatch.setattr(time, "sleep", lambda pause_s: done.append(("sleep", pause_s)))
    with pytest.raises(Killed):
        pending._settle_for_ever()
    assert before == [True, True, False, True]
    # Every five minutes; five seconds after a failure, and after something was given up.
    assert done == [300, 5, 300, ("sleep", 5), "clear"]


def test_the_thread_begins_and_keeps_no_process_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    begun = threading.Event()

    def begin() -> None:
        threads.append(threading.current_thread())
        begun.set()

    monkeypatch.setattr(pending, "_settle_for_ever", begin)
    pending.settle_from_time_to_time()
    assert begun.wait(10)
    assert threads[0].daemon


def test_what_was_given_up_on_a_full_disk_goes_after_a_restart(
    predictor: FakePredictor, media_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save: Any = vars(FileSystemStorage)["_save"]

    def fill_up(*args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(FileSystemStorage, "_save", leave_empty)
        raise DatabaseError("could not extend file: No space left on device")

    def leave_empty(storage: FileSystemStorage, name: str, content: Any) -> None:
        save(storage, name, ContentFile(b""))
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Detection, "save", fill_up)
        patch.setattr(QuerySet, "exists", fill_up)
        with pytest.raises(DatabaseError):
            create()
    assert len(stored(media_root)) == 3
    monkeypatch.setattr(FileSystemStorage, "_save", save)
    pending._given_up.clear()
    monkeypatch.setattr(pending, "INSTANCE", "the one after")
    later = timezone.now() + pending.LONGEST_WORK + timedelta(seconds=1)
    monkeypatch.setattr(timezone, "now", lambda: later)
    assert pending.settle_abandoned() == 2
    assert stored(media_root) == []


@pytest.mark.django_db(transaction=True)
def test_a_commit_that_was_never_confirmed_keeps_its_files(
    predictor: FakePredictor, media_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exit_block = transaction.Atomic.__exit__

    def break_after_commit(block: Any, *error: Any) -> None:
        exit_block(block, *error)
        if not connection.in_atomic_block:
            raise DatabaseError("server closed the connection unexpectedly")

    with monkeypatch.context() as patch:
        patch.setattr(transaction.Atomic, "__exit__", break_after_commit)
        with pytest.raises(DatabaseError):
            create()
    detection = Detection.objects.get()
    assert [path.stem for path in stored(media_root)] == [str(detection.pk)] * 2


@pytest.mark.django_db(transaction=True)
def test_files_whose_removal_was_interrupted_go_later(media_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detection = make_detection()

    def killed(**options: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(services, "files_remove", killed)
        with pytest.raises(Killed):
            services.detection_delete(detection=detection)
    assert not Detection.objects.exists()
    assert len(stored(media_root)) == 3
    monkeypatch.setattr(pending, "_is_alive", lambda pid: False)
    assert pending.settle_abandoned() == 2
    assert stored(media_root) == []


@pytest.mark.parametrize("method", ["exists", "open", "delete"])
def test_a_storage_that_fails_for_one_file_holds_up_no_other(
    media_root: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    left = [leave_behind(monkeypatch, pid=dead_pid()) for _ in range(2)]
    works = getattr(FileSystemStorage, method)

    def fail(storage: FileSystemStorage, name: str, *rest: Any) -> Any:
        if str(left[0]) in name:
            raise OSError(errno.EIO, "Input/output error")
        return works(storage, name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(FileSystemStorage, method, fail)
        assert pending.settle_abandoned() == 2
    assert pending.settle_abandoned() == 2
    assert stored(media_root) == []


@pytest.mark.parametrize("days", [0, 30])
def test_purging_settles_what_was_left(
    media_root: Path, monkeypatch: pytest.MonkeyPatch, settings: Any, days: int
) -> None:
    settings.RETENTION_DAYS = days
    leave_behind(monkeypatch, pid=dead_pid())
    output = StringIO()
    call_command("purge_uploads", dry_run=True, stdout=output)
    assert len(stored(media_root)) == 3
    call_command("purge_uploads", stdout=output)
    assert "Removed 2 files that no detection knows." in output.getvalue()
    assert stored(media_root) == []
