"""Request ids, log records, readiness and metrics: what an operator sees of a running server."""

import errno
import functools
import inspect
import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import gunicorn.workers.base
import psutil
import pytest
from django.core.cache import caches
from django.db import OperationalError, connection
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.utils.module_loading import import_string
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import Settings

from benchmarks.browser import Browser
from detector import metrics, services
from detector import readiness as readiness_module
from detector.exceptions import ModelUnavailable, Overloaded
from detector.logs import (
    BROKEN_ANSWER,
    LineFormatter,
    OneObjectFormatter,
    RefusalFilter,
    RequestIdFilter,
    without_addresses,
)
from detector.predictor import Prediction
from detector.private_redis import PrivateRedis, dies_with_parent
from detector.ratelimits import LimiterUnavailable
from detector.readiness import Readiness
from detector.request_ids import HEADER, RequestIdMiddleware, current_request_id
from detector.room import Room
from detector.tests.factories import FakePredictor, make_jpeg, make_prediction, make_upload
from detector.tests.test_serve import eventually
from detector.tests.test_two_processes import wait_for

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-more-than-16-characters"

# Request ids


def request_id_of(settings: Settings, proxies: int, *sent: str) -> str:
    settings.TRUSTED_PROXY_COUNT = proxies
    headers = {HEADER: sent[0]} if sent else {}
    return str(Client().get("/healthz", headers=headers)[HEADER])


GOOD = ["0123456789abcdef0123456789abcdef", "5f0c7f6e-5b0a-4b52-9d1c-0d9b3b1d6a4e", "01ARZ3NDEKTSV4RRFFQ69G5FAV"]
BAD = ["", "short", "a" * 65, "0123456789abcdef\t0123", "0123456789abcdef;x=1", "<script>alert(1)</script>", "é" * 20]


def test_every_answer_has_an_id_of_its_own(settings: Settings) -> None:
    first, second = (request_id_of(settings, 0) for _ in range(2))
    assert first != second
    for request_id in (first, second):
        assert re.fullmatch(r"[0-9a-f]{32}", request_id)


@pytest.mark.parametrize("sent", GOOD)
def test_an_id_is_taken_from_a_trusted_proxy_alone(settings: Settings, sent: str) -> None:
    assert request_id_of(settings, 1, sent) == sent
    assert request_id_of(settings, 0, sent) != sent


@pytest.mark.parametrize("sent", BAD)
def test_a_malformed_id_is_replaced(settings: Settings, sent: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", request_id_of(settings, 1, sent))


@pytest.mark.django_db
def test_an_id_ends_with_its_request() -> None:
    seen: list[str] = []

    def view(request: HttpRequest) -> HttpResponse:
        seen.append(current_request_id())
        return HttpResponse()

    response = RequestIdMiddleware(view)(RequestFactory().get("/"))
    assert seen == [response[HEADER]] == [current_request_id()]
    response.close()
    assert current_request_id() == ""


# Log records


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Invalid request from ip=203.0.113.9: bad", "Invalid request from ip=[address]: bad"),
        ("from 2001:db8::17.", "from [address]."),
        ("from [2001:db8:0:1:2:3:4:5]:443", "from [[address]]:443"),
        ("::ffff:203.0.113.9", "::ffff:[address]"),
        ("Listening at: http://127.0.0.1:8000 (1) and ::1", "Listening at: http://127.0.0.1:8000 (1) and ::1"),
        ("at 12:34:56 in 1.2.3, 999.1.1.1, a.urls:12", "at 12:34:56 in 1.2.3, 999.1.1.1, a.urls:12"),
    ],
)
def test_addresses_are_taken_out_of_log_lines(text: str, expected: str) -> None:
    assert without_addresses(text) == expected


@pytest.fixture
def written(settings: Settings) -> Iterator[io.StringIO]:
    """What the application's loggers write as JSON."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(OneObjectFormatter())
    for name in settings.LOGGING["handlers"]["console"]["filters"]:
        handler.addFilter(import_string(settings.LOGGING["filters"][name]["()"])())
    loggers = [logging.getLogger(name) for name in ("django", "detector", "gunicorn.access")]
    for logger in loggers:
        logger.addHandler(handler)
    level, loggers[2].level = loggers[2].level, logging.INFO
    yield stream
    loggers[2].setLevel(level)
    for logger in loggers:
        logger.removeHandler(handler)


def objects(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_refusal_is_logged_with_the_id_of_its_answer(written: io.StringIO) -> None:
    response = Client().get("/no-such-page?secret=in-the-query")
    (record,) = objects(written)
    assert record["request_id"] == response[HEADER]
    assert record["level"] == "WARNING"
    assert record["logger"] == "django.request"
    assert record["message"] == "Not Found: /no-such-page"
    assert record["status_code"] == 404
    assert "in-the-query" not in written.getvalue()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("host", "fields", "logger"),
    [("elsewhere.example", 1, "DisallowedHost"), ("testserver", 2000, "TooManyFieldsSent")],
)
def test_what_anybody_can_send_is_no_error(
    written: io.StringIO, limiter: Settings, host: str, fields: int, logger: str
) -> None:
    response = Client().post("/", {f"f{n}": "" for n in range(fields)}, headers={"host": host})
    assert response.status_code == 400
    levels = {record["logger"]: record["level"] for record in objects(written)}
    assert levels[f"django.security.{logger}"] == "WARNING"
    assert "ERROR" not in levels.values()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("error", "logger", "level"),
    [
        (Overloaded("full"), "detector.outages", "WARNING"),
        (OSError(errno.ENOSPC, "No space left on device"), "detector.outages", "ERROR"),
        (OperationalError("server closed the connection unexpectedly"), "detector.outages", "ERROR"),
        (LimiterUnavailable("refused"), "detector.views", "ERROR"),
        (RuntimeError("broke"), "django.request", "ERROR"),
    ],
)
def test_of_a_503_its_cause_alone_may_be_an_error(
    written: io.StringIO, monkeypatch: pytest.MonkeyPatch, error: Exception, logger: str, level: str
) -> None:
    monkeypatch.setattr("detector.views.ratelimits.take_upload", Mock(side_effect=error))
    Client(raise_request_exception=False).post("/", {"picture": make_upload()})
    levels = {record["logger"]: record["level"] for record in objects(written)}
    assert levels == {"django.request": "WARNING"} | {logger: level}


@pytest.mark.django_db
def test_no_warning_is_written_where_only_errors_are_wanted(
    written: io.StringIO, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "django")
    monkeypatch.setattr("detector.views.ratelimits.take_upload", Mock(side_effect=Overloaded("full")))
    Client().post("/", {"picture": make_upload()})
    Client().get("/", headers={"host": "elsewhere.example"})
    assert [record["logger"] for record in objects(written)] == ["detector.outages"]


@pytest.mark.django_db
def test_a_broken_analysis_is_logged_with_its_traceback_and_id_but_no_name(
    written: io.StringIO, predictor: FakePredictor, limiter: Settings
) -> None:
    predictor.error = RuntimeError("broke for 203.0.113.9")
    response = Client(REMOTE_ADDR="198.51.100.7").post("/", {"picture": make_upload(name="ada-at-home.jpg")})
    assert response.status_code == 500
    assert {record["request_id"] for record in objects(written)} == {response[HEADER]}
    assert "RuntimeError: broke for [address]" in objects(written)[0]["exc_info"]
    for private in ("ada-at-home", "198.51.100.7", "203.0.113.9"):
        assert private not in written.getvalue()


def line_of(record: logging.LogRecord) -> str:
    handler = logging.StreamHandler(stream := io.StringIO())
    handler.setFormatter(LineFormatter("{levelname} {request_id} {message}", style="{"))
    handler.addFilter(RequestIdFilter())
    handler.addFilter(RefusalFilter())
    handler.handle(record)
    return stream.getvalue()


def test_a_line_holds_the_id_as_well() -> None:
    assert line_of(logging.LogRecord("x", logging.INFO, "", 0, "at %s", ("10.1.2.3",), None)) == "INFO - at [address]\n"


def test_nobody_makes_up_a_line_with_what_they_ask_for() -> None:
    """An access line tells the path as it was meant, %0A included."""
    asked = {"U": "/é\r\nERROR - made up\x1b[31m\u2028\u202e"}
    line = line_of(logging.LogRecord("gunicorn.access", logging.INFO, "", 0, "GET %(U)s", (asked,), None))
    assert line == "INFO - GET /é\\r\\nERROR - made up\\x1b[31m\\u2028\\u202e\n"


def test_where_an_answer_broke_is_told_without_the_query() -> None:
    assert BROKEN_ANSWER in inspect.getsource(gunicorn.workers.base)
    arguments = ("GET", "/admin/?q=secret")
    line = line_of(logging.LogRecord("gunicorn.error", logging.ERROR, "", 0, BROKEN_ANSWER, arguments, None))
    assert line == "ERROR - Error handling request GET /admin/\n"


def test_a_traceback_keeps_its_lines() -> None:
    try:
        raise ValueError("broke")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "It broke", (), sys.exc_info())
    first, *others = line_of(record).splitlines()
    assert (first, others[-1]) == ("ERROR - It broke", "ValueError: broke")


@pytest.mark.parametrize(("name", "value"), [("LOG_FORMAT", "xml"), ("LOG_LEVEL", "LOUD"), ("ACCESS_LOG", "maybe")])
def test_an_unknown_way_of_logging_stops_the_start(name: str, value: str) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=ROOT,
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert f"{name} is '{value}'" in done.stderr


# Readiness


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch, predictor: FakePredictor, limiter: Settings) -> Settings:
    """A server with all its parts, asked anew."""
    monkeypatch.setattr("detector.views.readiness", Readiness())
    return limiter


def parts(client: Client, status: int) -> dict[str, bool]:
    response = client.get("/readyz")
    assert response.status_code == status, response.content
    body = response.json()
    assert set(body) == {"status", "parts"}
    assert body["status"] == ("ok" if status == 200 else "unavailable")
    return dict(body["parts"])


ALL = {"database": True, "redis": True, "model": True, "storage": True}


@pytest.mark.django_db
def test_a_server_with_all_its_parts_is_ready(client: Client, ready: Settings, media_root: Path) -> None:
    assert parts(client, 200) == ALL
    assert list(media_root.iterdir()) == []


@pytest.mark.django_db
def test_each_part_that_fails_is_named_and_nothing_more_is_told(
    client: Client, ready: Settings, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    faults: dict[str, tuple[Any, str, Exception]] = {
        "database": (connection, "cursor", OperationalError("connection to 10.0.0.5 as detector refused")),
        "redis": (caches["ratelimit"], "set", OSError("redis.internal:6379 refused")),
        "model": (services, "active_predictor", ModelUnavailable("models/x/spec.json is missing")),
        "storage": (tempfile, "TemporaryFile", OSError(28, "No space left on device")),
    }
    for part, (owner, name, error) in faults.items():
        with monkeypatch.context() as patch:
            patch.setattr("detector.views.readiness", Readiness())
            patch.setattr(owner, name, Mock(side_effect=error))
            assert parts(client, 503) == {**ALL, part: False}
        assert any(message.startswith(f"Not ready, {part}: ") for message in logged)


@pytest.mark.django_db
def test_a_disk_that_is_nearly_full_is_not_ready(client: Client, ready: Settings) -> None:
    ready.READY_MIN_FREE_BYTES = 10**18
    assert parts(client, 503) == {**ALL, "storage": False}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("there", "asked_for"),
    [("", ""), ("pending", "pending"), ("thumbnails/2024", "thumbnails/2024"), ("detections/2024/05",) * 2],
)
def test_a_store_of_another_user_is_not_ready(
    client: Client,
    ready: Settings,
    media_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    logged: list[str],
    there: str,
    asked_for: str,
) -> None:
    """A folder that a command of root's made, say; where it is still to be made the one that will hold it counts."""
    (media_root / there).mkdir(parents=True)
    monkeypatch.setattr("detector.readiness.timezone", Mock(now=lambda: datetime(2024, 5, 31, tzinfo=UTC)))
    monkeypatch.setattr("os.access", lambda path, mode: path != media_root / asked_for)  # root may write anywhere
    assert parts(client, 503) == {**ALL, "storage": False}
    assert logged == [f"Not ready, storage: {media_root / asked_for} cannot be written to."]


@pytest.mark.django_db
@pytest.mark.parametrize("kept", ["db.sqlite3", ""])
def test_an_sqlite_file_of_another_user_is_not_ready(
    client: Client, ready: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str], kept: str
) -> None:
    """Or its folder, in which SQLite writes what is not yet in the file."""
    (tmp_path / "db.sqlite3").touch()
    monkeypatch.setattr(connection, "vendor", "sqlite")
    monkeypatch.setitem(connection.settings_dict, "NAME", str(tmp_path / "db.sqlite3"))
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path / kept)  # root may write anywhere
    assert parts(client, 503) == {**ALL, "database": False}
    assert logged == [f"Not ready, database: {tmp_path / kept} cannot be written to."]


@pytest.mark.django_db
def test_a_missing_redis_setting_is_not_ready(client: Client, ready: Settings, logged: list[str]) -> None:
    ready.CACHES = {**ready.CACHES, "ratelimit": {"BACKEND": "detector.ratelimits.NoSharedCache"}}
    assert parts(client, 503) == {**ALL, "redis": False}
    assert logged == ["Not ready, redis: REDIS_URL is not set, so nothing can be counted."]


@pytest.mark.django_db
def test_an_answer_is_kept_for_a_moment_and_changes_are_logged_once(
    ready: Settings, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    asked: list[int] = []
    works = True

    def check() -> None:
        asked.append(1)
        if not works:
            raise OSError("gone")

    monkeypatch.setattr(readiness_module, "PARTS", {"part": check})
    clock = [1000.0]
    monkeypatch.setattr("detector.readiness.time", Mock(monotonic=lambda: clock[0]))
    state = Readiness()
    assert [state.state()["part"] for _ in range(100)] == [True] * 100
    assert len(asked) == 1
    works = False
    for _ in range(3):
        clock[0] += 1.5
        assert state.state() == {"part": False}
    works = True
    clock[0] += 1.5
    assert state.state() == {"part": True}
    assert logged == ["Not ready, part: gone", "Ready again: part"]


# Metrics


def test_without_a_token_there_is_no_such_page(client: Client, settings: Settings) -> None:
    assert settings.METRICS_TOKEN == ""
    assert client.get("/metrics", headers={"authorization": "Bearer "}).status_code == 404


@pytest.mark.parametrize("sent", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x"])
def test_metrics_need_the_token(client: Client, settings: Settings, sent: str) -> None:
    settings.METRICS_TOKEN = TOKEN
    response = client.get("/metrics", headers={"authorization": sent} if sent else {})
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Bearer"
    assert response.content == b""


def test_a_token_may_have_any_characters(client: Client, settings: Settings) -> None:
    """Prometheus and curl send them as UTF-8."""
    settings.METRICS_TOKEN = "schlüssel-für-die-zähler-→"
    on_the_wire = f"Bearer {settings.METRICS_TOKEN}".encode().decode("latin-1")
    assert client.get("/metrics", headers={"authorization": on_the_wire}).status_code == 200
    assert client.get("/metrics", headers={"authorization": on_the_wire[:-1]}).status_code == 401


@pytest.mark.django_db
def test_what_is_under_way_is_counted_while_it_is(
    client: Client, settings: Settings, predictor: FakePredictor, limiter: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.METRICS_TOKEN = TOKEN

    def under_way() -> tuple[float | None, ...]:
        names = ("deepfake_uploads_in_progress", "deepfake_detections_in_progress")
        return tuple(REGISTRY.get_sample_value(name) for name in names)

    during = []

    def predict(*args: Any, **options: Any) -> Prediction:
        during.append(under_way())
        return make_prediction(0.9)

    monkeypatch.setattr(predictor, "predict", predict)
    assert client.post("/", {"picture": make_upload()}).status_code == 302
    assert during == [(1.0, 1.0)]
    assert under_way() == (0.0, 0.0)
    monkeypatch.setattr(predictor, "predict", Mock(side_effect=RuntimeError("broke")))
    assert client.post("/", {"picture": make_upload()}).status_code == 500
    assert under_way() == (0.0, 0.0)
    assert REGISTRY.get_sample_value("deepfake_analysis_errors_total", {"code": "analysis_failed"}) == 1.0


@pytest.mark.django_db
def test_where_no_face_was_found_no_network_is_timed(
    client: Client, settings: Settings, predictor: FakePredictor, limiter: Settings
) -> None:
    settings.METRICS_TOKEN = TOKEN

    def timed() -> dict[str, float]:
        return {
            stage: REGISTRY.get_sample_value("deepfake_stage_seconds_count", {"stage": stage}) or 0.0
            for stage in ("faces", "network")
        }

    before = timed()
    for predictor.fake_probabilities in ((), (0.9, 0.2), ()):
        assert client.post("/", {"picture": make_upload()}).status_code == 302
    after = timed()
    assert {stage: after[stage] - before[stage] for stage in after} == {"faces": 3.0, "network": 1.0}


def test_the_first_requests_share_one_set_of_instruments(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several at once come right after the start, from load balancers and Prometheus."""
    settings.METRICS_TOKEN = TOKEN
    barrier = threading.Barrier(8)
    made = []

    def make() -> object:
        made.append(object())
        time.sleep(0.2)
        return made[-1]

    def ask() -> object:
        barrier.wait(30)
        return metrics.instruments()

    monkeypatch.setattr(metrics, "_made", functools.cache(make))
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask) for _ in range(8)]
        assert {id(each.result(30)) for each in answers} == {id(made[0])}
    assert len(made) == 1


def test_the_queue_is_counted_while_it_is_there(settings: Settings) -> None:
    settings.METRICS_TOKEN = TOKEN
    room = Room(at_once=1, waiting=2)

    def queue() -> float:
        return REGISTRY.get_sample_value("deepfake_queue") or 0.0

    def take_turn() -> None:
        with room.place(), room.turn():
            assert queue() < 2.0

    assert queue() == 0.0
    with ThreadPoolExecutor(2) as pool:
        with room.place(), room.turn():
            assert queue() == 0.0, "whoever has a turn does not wait"
            waiting = [pool.submit(take_turn) for _ in range(2)]
            assert eventually(lambda: queue() == 2.0, 30)
        for each in waiting:
            each.result(30)
    assert queue() == 0.0


@pytest.fixture(scope="module")
def server(
    redis_process: PrivateRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[psutil.Popen, Path]]:
    """gunicorn with two processes, as `serve` and deploy/ start it, with JSON logs, access log and metrics."""
    folder = tmp_path_factory.mktemp("watched")
    environment = {
        **os.environ,
        "DEBUG": "true",
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "MEDIA_ROOT": str(folder / "media"),
        "REDIS_URL": redis_process.url,
        "UPLOAD_RATE": "5/d",
        "LOG_FORMAT": "json",
        "ACCESS_LOG": "true",
        "METRICS_TOKEN": TOKEN,
        "READY_MIN_FREE_BYTES": "0",
        "TRUSTED_PROXY_COUNT": "1",
    }
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True)
    with (folder / "log").open("wb") as log:
        process = psutil.Popen(
            [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py"]
            + ["--bind=127.0.0.1:0", "--workers=2", "detector.tests.wsgi_with_fake_model:application"],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=dies_with_parent(),
        )
    try:
        yield process, folder
    finally:
        process.terminate()
        process.wait(20)


def port_of(process: psutil.Popen) -> int:
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        listening = [each.laddr.port for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
        if listening:
            wait_for(listening[0])
            return int(listening[0])
        time.sleep(0.1)
    raise TimeoutError("gunicorn did not start")


COUNTERS = ("uploads", "limits_hit", "analysis_errors")


def samples(port: int) -> dict[tuple[str, ...], float]:
    answer = Browser(port).ask("GET", "/metrics", Authorization=f"Bearer {TOKEN}")
    assert answer.status == 200
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text())
        for sample in family.samples
    }


def access_lines(log: Path, ids: list[str]) -> dict[str, dict[str, Any]]:
    """The access line of each of the requests, or nothing as long as one is missing."""
    lines = [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line[0] + line[-1] == "{\n"]
    found = {line["request_id"]: line for line in lines if line["logger"] == "gunicorn.access"}
    return found if found.keys() >= set(ids) else {}


@pytest.mark.redis
def test_two_processes_log_and_count_as_one(server: tuple[psutil.Popen, Path], redis_server: PrivateRedis) -> None:
    process, folder = server
    port = port_of(process)
    visitors = [Browser(port) for _ in range(3)]
    for number, visitor in enumerate(visitors):
        address = {"X-Forwarded-For": f"203.0.113.{number}"}
        assert visitor.ask("GET", "/", None, **address).status == 200
        answers = [visitor.upload(make_jpeg(seed=seed), **address).status for seed in range(6)]
        assert answers == [302] * 5 + [429]
        assert visitor.upload(b"no picture", **{"X-Forwarded-For": f"198.51.100.{number}"}).status == 400
    counted = samples(port)
    assert counted["deepfake_uploads_total", "accepted"] == 15
    assert counted["deepfake_uploads_total", "limited"] == 3
    assert counted["deepfake_uploads_total", "invalid"] == 3
    assert counted["deepfake_verdicts_total", "test-1", "fake"] == 15
    assert counted["deepfake_limits_hit_total", "rate:detector:upload"] == 3
    labels = {name: {key[1] for key in counted if key[0] == f"deepfake_{name}_total"} for name in COUNTERS}
    assert labels == {
        "uploads": {"accepted", "limited", "invalid"},
        "limits_hit": {"rate:detector:upload"},
        "analysis_errors": set(),
    }
    for stage in ("decode", "faces", "network", "store"):
        assert counted["deepfake_stage_seconds_count", stage] == 15
    # What the model's stand-in says that it took: 2 ms each.
    assert counted["deepfake_stage_seconds_sum", "faces"] == pytest.approx(15 * 0.002)
    # Both processes answer for both, and a process that dies takes nothing along that was counted.
    workers = process.children()
    assert len(workers) == 2
    assert all(samples(port)["deepfake_uploads_total", "accepted"] == 15 for _ in range(8))
    workers[0].send_signal(signal.SIGKILL)
    psutil.wait_procs([workers[0]], timeout=20)
    assert all(samples(port)["deepfake_uploads_total", "accepted"] == 15 for _ in range(4))

    # What a proxy gave as id stands in the answer and in the access line of whichever process answered.
    ids = [f"{number:032x}" for number in range(6)]
    for request_id in ids:
        answer = Browser(port).ask("GET", "/about/?query=secret", None, **{HEADER: request_id})
        assert answer.headers[HEADER] == request_id
    accesses = eventually(lambda: access_lines(folder / "log", ids), 20)  # an answer is logged after it was sent
    for request_id in ids:
        line = accesses[request_id]
        assert (line["method"], line["path"], line["status"]) == ("GET", "/about/", 200)
        assert line["byte_count"] > 100
        assert line["duration_ms"] >= 0
    log = (folder / "log").read_text()
    for private in ("203.0.113", "198.51.100", "secret", TOKEN, "a.jpg"):
        assert private not in log


@pytest.mark.redis
def test_what_gunicorn_cannot_read_is_not_quoted(server: tuple[psutil.Popen, Path], redis_server: PrivateRedis) -> None:
    process, folder = server
    port = port_of(process)
    refused = {
        b"GET /?hidden-query\r\n\r\n": "Invalid HTTP request line",
        b"GET / HTTP/1.1\r\nCookie hidden-cookie\r\n\r\n": "Invalid HTTP Header",
        b"POST /about/ HTTP/1.1\r\nHost: localhost\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nhidden\r\n": "Invalid chunk size",
    }
    for request in refused:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(request)
            while client.recv(4096):
                pass
    log = folder / "log"
    lines = [f'Invalid request from ip=127.0.0.1: {said}"' for said in refused.values()]
    assert eventually(lambda: all(line in log.read_text() for line in lines), 20)
    assert "hidden" not in log.read_text()
