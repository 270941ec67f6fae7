import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from pytest_django import Settings

from deepfake_site.settings import PATIENCE_WITH_DATABASE
from detector import checks
from detector.tests.factories import FakePredictor

ROOT = Path(__file__).parents[2]


def found() -> list[str]:
    return [
        str(problem.id)
        for problem in run_checks(include_deployment_checks=False)
        if str(problem.id).startswith("detector.")
    ]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("REAL_THRESHOLD", 0.0, "detector.E002"),
        ("REAL_THRESHOLD", 1.0, "detector.E002"),
        ("REAL_THRESHOLD", 70.0, "detector.E002"),
        ("UNCERTAIN_ABOVE", -0.1, "detector.E003"),
        ("UNCERTAIN_ABOVE", 0.8, "detector.E003"),
        ("UNCERTAIN_UP_TO", 0.6, "detector.E014"),
        ("UNCERTAIN_UP_TO", 1.1, "detector.E014"),
        ("FAKE_PRIOR", 0.0, "detector.E015"),
        ("FAKE_PRIOR", 1.0, "detector.E015"),
        ("UPLOAD_RATE", "five a minute", "detector.E004"),
        ("UPLOAD_RATE", "5/y", "detector.E004"),
        ("UPLOAD_RATE", "0/m", "detector.E004"),
        ("UPLOAD_RATE", "5/0m", "detector.E004"),
        ("UPLOAD_RATE", "5/m; 9/h", "detector.E004"),
        ("UPLOAD_RATE", "", "detector.E004"),
        ("UPLOAD_RATE", "5/99999999999999d", "detector.E004"),
        ("PICTURE_RATE", "many", "detector.E004"),
        ("APPEAL_RATE", "often", "detector.E004"),
        ("LOGIN_FAILURE_RATE", "5", "detector.E004"),
        ("LOGIN_FAILURE_RATE", "5/36501d", "detector.E004"),
        ("LOGIN_NAME_RATE", "30", "detector.E004"),
        ("LOGIN_RATE", "0/h", "detector.E004"),
        ("SIGNUP_RATE", "many", "detector.E004"),
        ("MAX_UPLOAD_BYTES", 0, "detector.E005"),
        ("MAX_UPLOAD_PIXELS", -1, "detector.E005"),
        ("MAX_UPLOAD_PIXELS", 178_956_971, "detector.E017"),
        ("MAX_FACES", 0, "detector.E005"),
        ("PREDICTOR_THREADS", 0, "detector.E005"),
        ("HISTORY_PAGE_SIZE", 0, "detector.E005"),
        ("PREDICTOR_THREADS", 2**31, "detector.E016"),
        ("REVIEWERS_NEEDED", 0, "detector.E005"),
        ("WEB_CONCURRENCY", 0, "detector.E005"),
        ("DETECTIONS_AT_ONCE", 0, "detector.E005"),
        ("DETECTIONS_WAITING", -1, "detector.E009"),
        ("RETENTION_DAYS", -1, "detector.E008"),
        ("RETENTION_DAYS", 1_000_000, "detector.E008"),
        ("METRICS_TOKEN", "short", "detector.E010"),
        ("READY_MIN_FREE_BYTES", -1, "detector.E011"),
        ("REVIEW_SAMPLE_PERCENT", -0.5, "detector.E007"),
        ("REVIEW_SAMPLE_PERCENT", 100.5, "detector.E007"),
        ("TRUSTED_PROXY_COUNT", -1, "detector.E006"),
    ],
)
def test_a_setting_that_cannot_work_is_an_error(
    settings: Settings, predictor: FakePredictor, name: str, value: Any, expected: str
) -> None:
    setattr(settings, name, value)
    assert found() == [expected]
    with pytest.raises(ImproperlyConfigured, match=rf"{expected}: {name} is"):
        checks.require_sound_setup()


@pytest.mark.parametrize(
    ("name", "value"),
    [("UPLOAD_RATE", "20/30s"), ("UPLOAD_RATE", "5/2m"), ("UNCERTAIN_ABOVE", 0.0), ("UNCERTAIN_ABOVE", 0.7)],
)
def test_settings_that_work_are_none(settings: Settings, predictor: FakePredictor, name: str, value: Any) -> None:
    setattr(settings, name, value)
    assert found() == []
    checks.require_sound_setup()


def broken_model(folder: Path, fault: str) -> Path:
    if fault == "no folder":
        return folder / "absent"
    if fault == "no spec":
        (folder / "model.tflite").write_bytes(b"weights")
    if fault == "spec is no JSON":
        (folder / "spec.json").write_text("{")
    if fault == "spec of something else":
        (folder / "spec.json").write_text(json.dumps({"name": "something"}))
    return folder


FAULTS = ["no folder", "no spec", "spec is no JSON", "spec of something else"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_model_is_an_error_of_the_deployment(settings: Settings, tmp_path: Path, fault: str) -> None:
    settings.MODEL_DIR = broken_model(tmp_path, fault)
    (problem,) = checks.check_model(None)
    assert problem.id == "detector.E001"
    assert str(settings.MODEL_DIR) in str(problem.hint)
    assert all(name in str(problem.hint) for name in ("spec.json", "model.tflite", "second.tflite", "third.tflite"))
    assert found() == []
    with pytest.raises(ImproperlyConfigured, match=r"detector\.E001: No verdict can be given"):
        checks.require_sound_setup()


@pytest.mark.model
def test_too_many_threads_are_told_in_one_sentence() -> None:
    told = run("manage.py", "check", "--deploy", PREDICTOR_THREADS=str(2**31)).stderr
    assert "(detector.E016) PREDICTOR_THREADS is 2147483648." in told
    assert "Traceback" not in told


def test_a_deployment_without_redis_is_warned(settings: Settings) -> None:
    settings.REDIS_URL = ""
    assert [problem.id for problem in checks.check_redis(None)] == ["detector.W001"]
    settings.REDIS_URL = "redis://127.0.0.1:6379/0"
    assert checks.check_redis(None) == []


@pytest.mark.parametrize(
    ("https", "proxies", "expected"), [(True, 0, ["detector.W003"]), (True, 1, []), (False, 0, []), (False, 1, [])]
)
def test_https_without_a_proxy_is_warned_of(settings: Settings, https: bool, proxies: int, expected: list[str]) -> None:
    settings.HTTPS, settings.TRUSTED_PROXY_COUNT = https, proxies
    assert [problem.id for problem in checks.check_proxies(None)] == expected


@pytest.mark.django_db
def test_a_missing_model_stops_no_preparation(settings: Settings, tmp_path: Path) -> None:
    settings.MODEL_DIR = tmp_path / "absent"
    settings.STATIC_ROOT = tmp_path / "static"
    call_command("migrate", verbosity=0, skip_checks=False)
    call_command("collectstatic", interactive=False, verbosity=0, skip_checks=False)
    call_command("makemigrations", check=True, dry_run=True, verbosity=0, skip_checks=False)
    os.environ["DJANGO_SUPERUSER_PASSWORD"] = "correct horse battery"
    try:
        call_command(
            "createsuperuser", username="root", email="r@example.org", interactive=False, verbosity=0, skip_checks=False
        )
    finally:
        del os.environ["DJANGO_SUPERUSER_PASSWORD"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_commands_look_for_garbage_again_once_all_is_loaded() -> None:
    code = "import gc; print(gc.isenabled(), gc.get_freeze_count() > 0)"
    told = run("manage.py", "shell", "--no-imports", "-c", code)
    assert told.stdout.split() == ["True", "True"]


def test_a_server_process_without_a_model_does_not_start(tmp_path: Path) -> None:
    gunicorn = ["-m", "gunicorn", "deepfake_site.wsgi:application", "--bind=127.0.0.1:0", "--no-control-socket"]
    ended = run(*gunicorn, MODEL_DIR=str(tmp_path / "absent"), DATABASE_URL=f"sqlite:///{tmp_path / 'db.sqlite3'}")
    assert ended.returncode != 0
    assert "detector.E001: No verdict can be given" in ended.stderr
    assert str(tmp_path / "absent") in ended.stderr


@pytest.mark.model
def test_the_documented_production_settings_are_clean_to_django() -> None:
    ended = run(
        *["-W", "error", "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        SECRET_KEY="5d0b8ad6e8b14b1f9b3e7b2a6c8f4e1d7a9c3b5f2e6d8a1c4f7b9e3d5a8c2f6b",
        HTTPS="true",
        TRUSTED_PROXY_COUNT="1",
        REDIS_URL="redis://127.0.0.1:6379/0",
    )
    assert ended.returncode == 0, ended.stderr
    assert "no issues" in ended.stdout


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY"),
        ({"DATABASE_URL": "nothing"}, "DATABASE_URL has to look like"),
        ({"DATABASE_URL": "mysql://user:password@host/name"}, "DATABASE_URL has to look like"),
        ({"DATABASE_URL": "postgres://user:pass/word@host:5432/name"}, "DATABASE_URL has to look like"),
        ({"DATABASE_URL": "sqlite://db.sqlite3"}, "DATABASE_URL has to look like"),
        ({"DATABASE_URL": "sqlite:db.sqlite3"}, "DATABASE_URL has to look like"),
        ({"DATABASE_URL": "sqlite:///"}, "DATABASE_URL has to look like"),
        ({"REDIS_URL": "localhost:6379"}, "REDIS_URL has to look like"),
        ({"REDIS_URL": "redis://localhost:port"}, "REDIS_URL has to look like"),
        ({"REAL_THRESHOLD": "high"}, "REAL_THRESHOLD is 'high'"),
        ({"HTTPS": "ture"}, "HTTPS is 'ture'; it has to be true or false"),
        ({"ACTIVE_MODEL": "../elsewhere"}, "ACTIVE_MODEL is '../elsewhere'"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL is 'LOUD'; it has to be one of DEBUG"),
        ({"MAX_FACES": "2.5"}, "MAX_FACES is '2.5'; it has to be a whole number"),
        ({"TIME_ZONE": "Mars"}, "TIME_ZONE is 'Mars'; it has to be a name such as Europe/Berlin"),
    ],
)
def test_settings_that_cannot_be_read_stop_the_start(environment: dict[str, str], expected: str) -> None:
    ended = run("manage.py", "check", **environment)
    assert ended.returncode == 1
    assert expected in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Traceback" in run("manage.py", "check", "--traceback", **environment).stderr


def test_a_password_is_not_told_when_an_address_cannot_be_read() -> None:
    for name, scheme in (("DATABASE_URL", "postgres"), ("REDIS_URL", "redis")):
        assert "s3cret" not in run("manage.py", "check", **{name: f"{scheme}://user:s3cret/s3cret@host:5432/0"}).stderr


def shown(*names: str, **environment: str) -> list[str]:
    """The settings of that name where the environment is this."""
    program = "import sys, deepfake_site.settings as s; print(*(getattr(s, name) for name in sys.argv[1:]), sep='\\n')"
    ended = run("-c", program, *names, **environment)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_a_secret_may_begin_with_a_dollar() -> None:
    secrets = {"SECRET_KEY": "$HOME and more", "METRICS_TOKEN": "$HOME"}
    assert shown(*secrets, **secrets) == list(secrets.values())


def test_an_empty_setting_is_none() -> None:
    empty = {"MEDIA_ROOT": "", "STATIC_ROOT": "", "TIME_ZONE": "", "MAX_FACES": "", "ALLOWED_HOSTS": ""}
    expected = [str(ROOT / "media"), str(ROOT / "staticfiles"), "UTC", "20", "['localhost', '127.0.0.1', '[::1]']"]
    assert shown(*empty, **empty) == expected


def test_pictures_are_opened_to_the_group_where_nginx_sends_them_and_to_nobody_else() -> None:
    names = ["FILE_UPLOAD_PERMISSIONS", "FILE_UPLOAD_DIRECTORY_PERMISSIONS"]
    assert [oct(int(mode)) for mode in shown(*names, MEDIA_X_ACCEL="true")] == ["0o640", "0o750"]


def test_a_postgresql_that_is_gone_is_not_waited_for() -> None:
    """What libpq takes; the address may say otherwise. How long it is, was measured between two network namespaces."""
    program = "import json, deepfake_site.settings as s; print(json.dumps(s.DATABASES['default']['OPTIONS']))"
    address = "postgres://user:password@host/name?keepalives_idle=30"
    options = json.loads(run("-c", program, DATABASE_URL=address).stdout)
    assert options == {**PATIENCE_WITH_DATABASE, "keepalives_idle": 30}
    assert "tcp_user_timeout=10000" in psycopg.conninfo.make_conninfo(**options)


def test_there_are_threads_left_however_many_pictures_may_wait() -> None:
    assert shown("SERVER_THREADS") == ["18"]
    assert shown("SERVER_THREADS", DETECTIONS_WAITING="30") == ["34"]
    assert shown("SERVER_THREADS", DETECTIONS_WAITING="2") == ["18"]
    printed = run("-m", "gunicorn", "--config=gunicorn.conf.py", "--print-config", DETECTIONS_WAITING="200").stdout
    assert [line.split()[-1] for line in printed.splitlines() if line.startswith(("threads ", "worker_conn"))] == [
        "204",
        "314",
    ]


def test_a_misspelt_setting_is_warned_of() -> None:
    ended = run("manage.py", "check", RETENTON_DAYS="30")
    assert ended.returncode == 0
    assert "(detector.W002) RETENTON_DAYS is no setting.\n\tHINT: Is RETENTION_DAYS meant?" in ended.stderr
    assert "W002" not in run("manage.py", "check", HTTP_PROXY="", TEST_DATABASE_URL="", LANGUAGE="en").stderr
