"""The lock files are complete, exact and free of leftovers, on every Python that the project supports."""

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]

# What the human-written lists say: the packages wanted, and what those declare but never need here.
LISTS = ROOT / "requirements"


def listed(name: str) -> list[Requirement]:
    lines = [line.strip() for line in (LISTS / name).read_text(encoding="utf-8").splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-r"))]


def names(requirements: list[Requirement]) -> set[str]:
    return {canonicalize_name(each.name) for each in requirements}


NEVER_RUN = names(listed("web-excludes.in"))
WEB_DIRECT = names(listed("web.in")) | {"psycopg-binary"}  # the extra of psycopg
# 3.11.2 is Debian 12's; the asyncio of Pythons before 3.11.3 lacks what redis-py needs.
PYTHONS = ["3.11.2", "3.11.7", "3.12.0", "3.13.0", "3.14.0"]


def locked_files(name: str) -> dict[str, set[str]]:
    """The hashes of each locked requirement, keyed by its text without them."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    return {line.partition(" --hash=")[0].strip(): set(re.findall(r"--hash=(\S+)", line)) for line in lines}


def requirements_of(name: str) -> list[Requirement]:
    return [Requirement(text) for text in locked_files(name)]


WEB = requirements_of("requirements-web.txt")
S3 = WEB + requirements_of("requirements-s3.txt")
FULL = requirements_of("requirements.txt")


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
    """What the distribution declares that it needs, without extras; nothing if not installed."""
    try:
        declared = [Requirement(text) for text in metadata.requires(name) or []]
    except metadata.PackageNotFoundError:
        return []
    return [each for each in declared if applies(each, python)]


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
@pytest.mark.parametrize(
    ("requirements", "never_run"),
    [
        pytest.param(WEB, NEVER_RUN, id="web"),
        pytest.param(S3, NEVER_RUN, id="s3"),
        pytest.param(FULL, set(), id="full"),
    ],
)
def test_lock_holds_what_each_of_its_packages_needs(
    requirements: list[Requirement], never_run: set[str], python: str
) -> None:
    locked = locked_on(python, requirements)
    unmet = [
        f"{name} needs {need}, the lock has {locked.get(canonicalize_name(need.name))}"
        for name in locked
        for need in needs_of(name, python)
        if canonicalize_name(need.name) not in never_run
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
        waiting |= names(needs_of(name, python)) - reached - NEVER_RUN
    assert set(locked) == reached


def test_server_lock_has_no_tensorflow() -> None:
    assert not {"tensorflow", "keras", "torch", "scipy"} & names(S3)


@pytest.mark.parametrize("name", ["requirements-web.txt", "requirements-s3.txt", "requirements.txt"])
def test_every_file_that_may_be_installed_has_a_hash(name: str) -> None:
    for text, hashes in locked_files(name).items():
        assert hashes, text
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes), text


@pytest.mark.parametrize("name", ["requirements-web.txt", "requirements-s3.txt"])
def test_full_lock_holds_the_same_files_as_the_smaller_ones(name: str) -> None:
    def files(of: str) -> dict[tuple[str, str], set[str]]:
        return {
            (canonicalize_name(requirement.name), str(requirement.specifier)): hashes
            for requirement, hashes in ((Requirement(text), hashes) for text, hashes in locked_files(of).items())
        }

    full = files("requirements.txt")
    assert files(name) == {key: full.get(key, set()) for key in files(name)}


@pytest.mark.parametrize(
    ("lists", "lock"),
    [
        (["web.in"], "requirements-web.txt"),
        (["s3.in"], "requirements-s3.txt"),
        (["web.in", "s3.in", "full.in"], "requirements.txt"),
    ],
)
def test_locks_hold_what_the_lists_ask_for(lists: list[str], lock: str) -> None:
    """A package added to a list but not locked: `make lock` was forgotten."""
    locked = {canonicalize_name(each.name): next(iter(each.specifier)).version for each in requirements_of(lock)}
    for wanted in (requirement for name in lists for requirement in listed(name)):
        name = canonicalize_name(wanted.name)
        assert name in locked, wanted
        assert wanted.specifier.contains(locked[name]), wanted


def test_third_party_notices_name_every_package_of_a_server() -> None:
    notices = canonicalize_name((ROOT / "THIRD_PARTY_NOTICES.md").read_text(encoding="utf-8"))
    elsewhere = {"colorama", "tzdata"}  # Windows only, where this does not run
    assert [name for name in sorted(names(S3) - elsewhere) if name not in notices] == []


@pytest.mark.parametrize("name", ["requirements-web.txt", "requirements-s3.txt"])
def test_the_notices_name_every_package_that_a_server_may_get(name: str) -> None:
    words = re.findall(r"[A-Za-z][\w.-]*", (ROOT / "THIRD_PARTY_NOTICES.md").read_text(encoding="utf-8"))
    assert names(requirements_of(name)) <= {canonicalize_name(word.rstrip(".")) for word in words}
