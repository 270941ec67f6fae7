"""The site as it is deployed, broken on purpose: what is left, and is it back. `make faults` prints a table."""

from collections.abc import Iterator
from http import HTTPStatus

import pytest

from benchmarks import faults
from benchmarks.faults import BrokenSite, Outcome

pytestmark = [pytest.mark.alone, pytest.mark.model, pytest.mark.redis, pytest.mark.postgres]

MOST_MEMORY = 1.3


@pytest.fixture(scope="module")
def running() -> Iterator[BrokenSite]:
    with faults.broken_site() as site:
        yield site


@pytest.fixture
def site(running: BrokenSite) -> BrokenSite:
    running.empty()
    return running


def assert_answers(site: BrokenSite, outcome: Outcome, *statuses: int) -> None:
    assert set(outcome.answers) == set(statuses), f"{outcome.line()}\n{site.site.log.read_text()[-20_000:]}"
    for each in outcome.sent:
        assert (each.status == HTTPStatus.SERVICE_UNAVAILABLE) == bool(each.retry_after), each


def assert_recovered(outcome: Outcome) -> None:
    """No row without file, no file without row, none half-written, no wrong verdict, none that was told and is gone."""
    assert outcome.audit.rows
    assert outcome.audit.is_clean, outcome
    assert not outcome.forgotten


def test_a_killed_process_leaves_nothing_half_done(site: BrokenSite) -> None:
    detecting = faults.worker_killed_detecting(site)
    storing = faults.worker_killed_storing(site)
    assert storing.figures["left"] > 0, "it was killed between a file and its row"
    for outcome in (detecting, storing):
        assert_answers(site, outcome, 302)
        assert_recovered(outcome)


def test_more_uploads_than_fit_are_refused_at_once(site: BrokenSite) -> None:
    outcome = faults.overload(site)
    assert_answers(site, outcome, 302, 503)
    assert outcome.answers[302] >= faults.AT_ONCE + faults.WAITING
    assert not outcome.lost
    assert outcome.figures["slowest /healthz s"] < 5
    assert outcome.figures["slowest 503 s"] < 10
    assert outcome.figures["memory x"] < MOST_MEMORY
    assert_recovered(outcome)


def test_a_database_that_is_killed_comes_back(site: BrokenSite) -> None:
    outcome = faults.postgres_killed(site)
    assert_answers(site, outcome, 302, 503)
    assert not outcome.lost
    assert_recovered(outcome)


def test_a_redis_that_is_killed_comes_back(site: BrokenSite) -> None:
    outcome = faults.redis_killed(site)
    assert_answers(site, outcome, 302, 503)
    assert not outcome.lost
    assert_recovered(outcome)


def test_a_full_disk_refuses_uploads_until_there_is_room(site: BrokenSite) -> None:
    outcome = faults.disk_full(site)
    assert_answers(site, outcome, 503)
    assert not outcome.lost
    assert outcome.figures["pages"] == HTTPStatus.OK
    assert_recovered(outcome)


def test_slow_clients_are_cut_off_and_others_served(site: BrokenSite) -> None:
    outcome = faults.slow_clients(site)
    assert_answers(site, outcome, 302)
    assert not outcome.lost
    assert outcome.figures["cut off"] == faults.SLOW_CLIENTS
    assert outcome.figures["slowest normal s"] < 8, "they wait for none of the slow ones to be cut off"
    assert_recovered(outcome)


def test_clients_that_leave_leave_nothing_half_done(site: BrokenSite) -> None:
    outcome = faults.client_gone(site)
    assert_answers(site, outcome, 302)
    assert outcome.figures["stored of a part"] == 0
    assert_recovered(outcome)


def test_nothing_is_stored_of_a_form_that_is_cut_off_behind_its_picture(site: BrokenSite) -> None:
    outcome = faults.form_cut_short(site)
    assert_answers(site, outcome, 400)
    assert outcome.figures["stored of a part"] == 0
    assert_recovered(outcome)
