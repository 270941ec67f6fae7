"""Pictures in S3-compatible storage: private objects that only this application reads, never a link to one."""

import errno
import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http import HTTPStatus
from typing import Any, NoReturn

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.core.files import File
from storages.backends.s3 import S3Storage

# Seconds. Somebody waits for the answer, and a worker's thread with them.
CONNECT_TIMEOUT_S = 2
READ_TIMEOUT_S = 10


class PictureStorage(S3Storage):  # type: ignore[misc]
    """django-storages' S3, with the errors of a disk: whoever stores pictures need not know where they lie."""

    def get_default_settings(self) -> dict[str, Any]:
        return {
            **super().get_default_settings(),
            "client_config": Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                retries={"mode": "standard", "total_max_attempts": 2},
            ),
            # No ACL at all: an object is as private as its bucket, which has to be private.
            "default_acl": None,
            # Names are random, so none is taken; asking first would cost a request per file.
            "file_overwrite": True,
        }

    def _open(self, name: str, mode: str = "rb") -> "File[Any]":
        with _as_disk_errors(), super()._open(name, mode) as file:
            return File(io.BytesIO(file.read()), name)

    def _save(self, name: str, content: "File[Any]") -> str:
        with _as_disk_errors():
            return str(super()._save(name, content))

    def delete(self, name: str) -> None:
        with _as_disk_errors():
            super().delete(name)

    def exists(self, name: str) -> bool:
        with _as_disk_errors():
            return bool(super().exists(name))

    def listdir(self, name: str) -> tuple[list[str], list[str]]:
        with _as_disk_errors():
            folders, files = super().listdir(name)
            return folders, files

    def get_modified_time(self, name: str) -> datetime:
        with _as_disk_errors():
            modified: datetime = super().get_modified_time(name)
            return modified

    def url(self, name: str, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("Pictures have no address of their own; a view sends them to whoever may see them.")


@contextmanager
def _as_disk_errors() -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        if isinstance(error, ClientError) and _is_about_no_object(error):
            raise FileNotFoundError(errno.ENOENT, "There is no such object.") from error
        raise OSError(errno.EIO, f"The storage of pictures failed: {error}") from error


def _is_about_no_object(error: ClientError) -> bool:
    """Whether the object is missing, and not the whole bucket."""
    is_not_found = error.response["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.NOT_FOUND
    return bool(is_not_found and error.response["Error"]["Code"] != "NoSuchBucket")
