"""Whether this server can take an upload now. Asked by a load balancer every few seconds, so cheap."""

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from django.conf import settings
from django.core.cache import caches
from django.core.files.storage import FileSystemStorage, default_storage
from django.db import connection
from django.utils import timezone

from detector import pending, services
from detector.exceptions import DetectorError
from detector.models import month_folders

logger = logging.getLogger(__name__)

KEPT_S = 1.0  # for which an answer holds, however many ask


def check_database() -> None:
    """Asks PostgreSQL whether it takes changes, which a standby, or one whose disk is full, may not.

    SQLite writes the file and others beside it, so both have to be this user's.
    """
    if connection.vendor == "sqlite" and (file := Path(connection.settings_dict["NAME"])).is_file():
        _require_writable(file)
        _require_writable(file.parent)
    with connection.cursor() as cursor:
        cursor.execute("SHOW transaction_read_only" if connection.vendor == "postgresql" else "SELECT 1")
        if cursor.fetchone() == ("on",):
            raise DetectorError("The database is read-only.")


def check_redis() -> None:
    """Writes, because that is what counting an upload does; a full or read-only Redis still answers a ping."""
    caches["ratelimit"].set("readiness", 1, timeout=10)


def check_model() -> None:
    services.active_predictor()


def check_storage() -> None:
    if not isinstance(default_storage, FileSystemStorage):
        default_storage.listdir("readiness")  # not exists(), which says no of a bucket that is not there as well
        return
    os.makedirs(settings.MEDIA_ROOT, mode=settings.FILE_UPLOAD_DIRECTORY_PERMISSIONS, exist_ok=True)
    free_bytes = shutil.disk_usage(settings.MEDIA_ROOT).free
    if free_bytes < settings.READY_MIN_FREE_BYTES:
        raise DetectorError(f"{free_bytes} bytes are free, READY_MIN_FREE_BYTES is {settings.READY_MIN_FREE_BYTES}.")
    # Permissions alone do not tell: the file system may be read-only, or its quota used up.
    with tempfile.TemporaryFile(dir=settings.MEDIA_ROOT) as file:
        file.write(b"ready?")
        file.flush()
    for name in (pending.FOLDER, *month_folders(timezone.now())):
        _require_writable(Path(settings.MEDIA_ROOT, name))


def _require_writable(path: Path) -> None:
    """Raises DetectorError where a file or folder, or the folder in which it would be made, is another user's."""
    while not path.exists():
        path = path.parent
    if not os.access(path, os.W_OK | os.X_OK if path.is_dir() else os.W_OK):
        raise DetectorError(f"{path} cannot be written to.")


PARTS: dict[str, Callable[[], None]] = {
    "database": check_database,
    "redis": check_redis,
    "model": check_model,
    "storage": check_storage,
}


class Readiness:
    """The state of every part, at most `KEPT_S` old; a change is logged with its reason, which no answer tells."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._state: dict[str, bool] = {}

    def state(self) -> dict[str, bool]:
        with self._lock:
            if time.monotonic() - self._asked_at > KEPT_S:
                self._state = {name: self._works(name, check) for name, check in PARTS.items()}
                self._asked_at = time.monotonic()
            return dict(self._state)

    def _works(self, name: str, check: Callable[[], None]) -> bool:
        was_working = self._state.get(name, True)
        try:
            check()
        except Exception as error:
            # Whatever a driver, a cache or a storage raises: this part does not work.
            if was_working:
                logger.error("Not ready, %s: %s", name, error or type(error).__name__)
            return False
        if not was_working:
            logger.warning("Ready again: %s", name)
        return True


readiness = Readiness()
