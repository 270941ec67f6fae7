import logging
from pathlib import Path
from uuid import uuid4

import pytest
from pytest_django import Settings

from detector import services
from detector.tests.factories import FakePredictor


@pytest.fixture(autouse=True)
def media_root(tmp_path: Path, settings: Settings) -> Path:
    """No test writes into the folder of real uploads; each gets an empty one."""
    settings.MEDIA_ROOT = tmp_path / "media"
    return tmp_path / "media"


@pytest.fixture(autouse=True)
def quick_passwords(settings: Settings) -> None:
    """A real password hash is slow on purpose, which only costs time here."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


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
