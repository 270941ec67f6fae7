import importlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import django.db.backends.sqlite3.base  # noqa: F401 - before its operations, which it imports in a circle
import pytest
from django.apps import apps
from django.db import connections
from django.db.backends.postgresql.operations import DatabaseOperations as PostgresqlOperations
from django.db.backends.sqlite3.operations import DatabaseOperations as SqliteOperations
from django.db.models.signals import post_migrate
from django.test import Client
from pytest_django import Settings

from detector import services
from detector.models import Review
from detector.tests.factories import VISITOR_KEY, FakePredictor
from detector.visitors import SESSION_FIELD

protection = importlib.import_module("detector.migrations.0005_protect_reviews")
reviewers = importlib.import_module("detector.migrations.0006_create_reviewers_group")
FLUSHES: list[tuple[Any, list[str], list[str]]] = [
    (
        SqliteOperations,
        protection.SQLITE_BACK,
        protection.sqlite_triggers([field.column for field in Review._meta.local_fields]),
    ),
    (
        PostgresqlOperations,
        [f"ALTER TABLE {protection.TABLE} DISABLE TRIGGER USER"],
        [f"ALTER TABLE {protection.TABLE} ENABLE TRIGGER USER"],
    ),
]


def around(sql_flush: Callable[..., list[str]], pause: list[str], resume: list[str]) -> Callable[..., list[str]]:
    def flush(*args: Any, **kwargs: Any) -> list[str]:
        statements = sql_flush(*args, **kwargs)
        return [*pause, *statements, *resume] if protection.TABLE in "".join(statements) else statements

    return flush


@pytest.fixture(autouse=True)
def media_root(tmp_path: Path, settings: Settings) -> Path:
    """No test writes into the folder of real uploads; each gets an empty one."""
    settings.MEDIA_ROOT = tmp_path / "media"
    return tmp_path / "media"


@pytest.fixture(autouse=True)
def quick_passwords(settings: Settings) -> None:
    """A real password hash is slow on purpose, which only costs time here."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True, scope="session")
def emptying_reviews_between_tests() -> Iterator[None]:
    """A test that commits ends in a flush, which the append-only table would refuse: its triggers pause for that."""
    with pytest.MonkeyPatch.context() as patch:
        for operations, pause, resume in FLUSHES:
            patch.setattr(operations, "sql_flush", around(operations.sql_flush, pause, resume))
        yield


@pytest.fixture(autouse=True, scope="session")
def reviewers_after_a_flush() -> Iterator[None]:
    """A flush takes the group along, which a migration made; Django brings back content types and permissions alone."""

    def create_group(using: str, **kwargs: Any) -> None:
        reviewers.create_group(apps, SimpleNamespace(connection=connections[using]))

    detector = apps.get_app_config("detector")
    post_migrate.connect(create_group, sender=detector)
    yield
    post_migrate.disconnect(create_group, sender=detector)


@pytest.fixture
def visitor(client: Client) -> Client:
    """Somebody without an account, who uploaded what make_detection() makes."""
    session = client.session
    session[SESSION_FIELD] = VISITOR_KEY
    session.save()
    return client


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch) -> FakePredictor:
    """The model's stand-in: one face, 90 % fake."""
    fake = FakePredictor(0.9)
    monkeypatch.setattr(services, "active_predictor", lambda: fake)
    return fake


@pytest.fixture
def limiter(settings: Settings) -> Settings:
    """Uploads are counted in this process, from zero; the tests of the counting itself use a real Redis."""
    settings.CACHES = {
        **settings.CACHES,
        "ratelimit": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": str(uuid4())},
    }
    return settings


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The messages of the application's own loggers, which do not propagate to where caplog listens."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    monkeypatch.setattr(logging.getLogger("detector"), "handlers", [Collector()])
    return messages
