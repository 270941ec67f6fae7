from pathlib import Path

import pytest
from pytest_django.fixtures import SettingsWrapper


@pytest.fixture(autouse=True)
def media_root(tmp_path: Path, settings: SettingsWrapper) -> Path:
    """No test writes into the folder of real uploads; each gets an empty one."""
    settings.MEDIA_ROOT = tmp_path / "media"
    return tmp_path / "media"
