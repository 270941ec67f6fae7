"""Both databases that are supported: SQLite, which the suite runs on, and a real PostgreSQL."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from detector.models import Review

ROOT = Path(__file__).parents[2]
# PostgreSQL plans by statistics, and a table of a few rows has none that would make it use an index.
SQLITE_ONLY = [
    "detector/tests/test_admin.py::test_filters_and_sorting_read_an_index",
    "detector/tests/test_known.py::test_near_ones_are_found_by_index",
    "detector/tests/test_review_weeks.py::test_what_waits_of_the_sample_is_read_from_its_index",
    "detector/tests/test_workplace.py::test_the_queue_is_read_from_its_index",
]
MIGRATE_THERE_AND_BACK = """
import django
from django.core.management import call_command
django.setup()
call_command("migrate", verbosity=0)
call_command("migrate", "detector", "zero", verbosity=0)
call_command("migrate", verbosity=0)
call_command("migrate", check_unapplied=True, verbosity=0)
"""

# What 0023 stored of a file that was never asked, of one that says nothing and of one that says AI, later and back.
MIGRATE_DECLARATIONS = """
import django
django.setup()
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

def at(name):
    MigrationExecutor(connection).migrate([("detector", name)])
    executor = MigrationExecutor(connection)
    return executor.loader.project_state([("detector", name)]).apps.get_model("detector", "Detection").objects

detections = at("0023_add_ai_declaration")
for number, stored in enumerate((None, "", "c2pa")):
    detections.create(
        original_name=str(number), ai_declaration=stored, session_key="k" * 40, image="x", format="JPEG", width=1,
        height=1, byte_count=1, status="done", verdict="real", fake_probability=0.1, threshold=0.7,
        uncertain_above=0.3, uncertain_up_to=0.8,
    )
for name in ("0027_index_declarations", "0023_add_ai_declaration", "0027_index_declarations"):
    print([stored for _, stored in sorted(at(name).values_list("original_name", "ai_declaration"))])
"""

# What the admin's log says of what is gone, before and after 0029.
MIGRATE_LOG = """
import django
django.setup()
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from detector.models import Detection
call_command("migrate", verbosity=0)
call_command("migrate", "detector", "0028", verbosity=0)
ada = User.objects.create(username="ada")
accounts, detections = (ContentType.objects.get_for_model(each) for each in (User, Detection))
for kind, key, flag, text in (
    (accounts, ada.pk, CHANGE, "ada"),
    (accounts, ada.pk + 1, CHANGE, "jane.doe"),
    (accounts, ada.pk + 1, DELETION, "jane.doe"),
    (detections, "a-key", DELETION, "passport.jpg (Fake)"),
):
    LogEntry.objects.create(user=ada, content_type=kind, object_id=key, action_flag=flag, object_repr=text)
call_command("migrate", verbosity=0)
print(sorted(LogEntry.objects.values_list("object_repr", flat=True)))
"""

# Four reviewers send what they decided on the same page at the same moment.
REVIEW_AT_ONCE = """
import threading
import django
from django.core.management import call_command
django.setup()
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
from django.db import connection
from detector import services
from detector.exceptions import StaleReview
from detector.models import Detection, Review
from detector.reviews import Look
detection = Detection.objects.create(
    session_key="k" * 40, image="x", format="JPEG", width=1, height=1, byte_count=1, status="done", verdict="fake",
    fake_probability=0.9, threshold=0.7, uncertain_above=0.3, uncertain_up_to=0.9,
)
reviewers = [User.objects.create(username=f"reviewer-{number}") for number in range(4)]
look = Look.begin(detection.pk, seen_count=0, is_blind=False)
start, outcomes = threading.Barrier(len(reviewers)), []

def send(reviewer):
    start.wait()
    try:
        services.review_create(detection=detection, reviewer=reviewer, verdict="real", note="", look=look)
        outcomes.append("kept")
    except StaleReview:
        outcomes.append("refused")
    finally:
        connection.close()

threads = [threading.Thread(target=send, args=[reviewer]) for reviewer in reviewers]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*sorted(outcomes), Review.objects.count(), Detection.objects.get(pk=detection.pk).review_count)
"""

# Somebody deletes what a reviewer is just adding a review to; the deletion begins before the review is committed.
DELETE_WHAT_IS_REVIEWED = """
import threading
import django
from django.core.management import call_command
django.setup()
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
from django.db import connection, transaction
from detector import services
from detector.models import Detection, Review
from detector.reviews import Look
detection = Detection.objects.create(
    session_key="k" * 40, image="x", format="JPEG", width=1, height=1, byte_count=1, status="done", verdict="fake",
    fake_probability=0.9, threshold=0.7, uncertain_above=0.3, uncertain_up_to=0.9,
)
reviewer = User.objects.create(username="reviewer")
look = Look.begin(detection.pk, seen_count=0, is_blind=False)
outcomes = []

def delete():
    try:
        services.detection_delete(detection=Detection.objects.get(pk=detection.pk))
        outcomes.append("deleted")
    except Exception as error:
        outcomes.append(type(error).__name__)
    finally:
        connection.close()

deleting = threading.Thread(target=delete)
with transaction.atomic():
    services.review_create(detection=detection, reviewer=reviewer, verdict="real", note="", look=look)
    deleting.start()
    deleting.join(1.0)
deleting.join()
print(*outcomes, Detection.objects.count(), Review.objects.filter(detection=None).count())
"""

# Something is uploaded to an account that is just being deleted, after its uploads were looked up.
DELETE_WHO_UPLOADS = """
import threading
import django
from django.core.management import call_command
django.setup()
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
from django.db import IntegrityError, connection
from django.db.models.signals import pre_delete
from detector import services
from detector.models import Detection
owner = User.objects.create(username="ada")
outcomes = []

def upload():
    detection = Detection(
        owner=owner, image="x", format="JPEG", width=1, height=1, byte_count=1, status="failed", threshold=0.7,
        uncertain_above=0.3,
    )
    try:
        detection.save(force_insert=True)
        outcomes.append("stored")
    except IntegrityError:
        outcomes.append("refused")
    finally:
        connection.close()

uploading = threading.Thread(target=upload)

def upload_meanwhile(**options):
    uploading.start()
    uploading.join(1.0)

pre_delete.connect(upload_meanwhile, sender=User)
services.accounts_delete(accounts=User.objects.all())
uploading.join()
print(*outcomes, User.objects.count(), Detection.objects.count())
"""

# What is seen while it, or who sees it, is being deleted; at the end the same is seen four times at the same moment.
SEE_WHAT_IS_DELETED = """
import threading
import django
from django.core.management import call_command
django.setup()
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
from django.db import connection
from django.db.models.signals import pre_delete
from detector import services
from detector.models import Detection, SeenAnswer, SeenUntil
account, *_ = accounts = [User.objects.create(username=f"reviewer-{number}") for number in range(2)]
detections = [
    Detection.objects.create(
        session_key="k" * 40, image="", format="JPEG", width=1, height=1, byte_count=1, status="failed", threshold=0.7,
        uncertain_above=0.3,
    )
    for _ in range(3)
]
keys, errors = [detection.pk for detection in detections], []

def see(account):
    try:
        services.seen_answers_add(account=account, keys=keys)
        services.seen_until_set(account=account)
    except Exception as error:
        errors.append(repr(error))
    finally:
        connection.close()

def counts():
    return SeenAnswer.objects.count(), SeenUntil.objects.count()

def see_while(delete, sender, account):
    seeing = threading.Thread(target=see, args=[account])

    def begin(**options):
        seeing.start()
        seeing.join(1.0)

    pre_delete.connect(begin, sender=sender)
    delete()
    seeing.join()
    pre_delete.disconnect(begin, sender=sender)
    return counts()

print(see_while(lambda: services.detection_delete(detection=detections[1]), Detection, account))
last = User.objects.filter(pk=accounts[1].pk)
print(see_while(lambda: services.accounts_delete(accounts=last), User, accounts[1]))
SeenAnswer.objects.all().delete()
SeenUntil.objects.all().delete()
threads = [threading.Thread(target=see, args=[account]) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(counts(), errors)
"""

# Four people sign up at the same moment, with one name in four cases.
SIGN_UP_AT_ONCE = """
import threading
import django
from django.core.management import call_command
django.setup()
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
from django.db import connection
from detector import services
from detector.exceptions import NameTaken
barrier, outcomes = threading.Barrier(4), []

def sign_up(name):
    connection.ensure_connection()
    barrier.wait()
    try:
        services.account_create(account=User(username=name, password="!"))
        outcomes.append("stored")
    except NameTaken:
        outcomes.append("taken")
    finally:
        connection.close()

threads = [threading.Thread(target=sign_up, args=(name,)) for name in ("ada", "Ada", "aDa", "ADA")]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*sorted(outcomes), User.objects.count())
"""

# Reviewers and deletions at work while the quality page is read; at the end it says what a fresh count says.
COUNT_MEANWHILE = """
import random, threading
from datetime import timedelta
import django
from django.core.management import call_command
django.setup()
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone
from detector import quality_report, services
from detector.exceptions import StaleReview
from detector.models import Detection, ReviewWeek, UploadWeek
from detector.reviews import Look
detections = [
    Detection.objects.create(
        session_key="k" * 40, image="x", format="JPEG", width=1, height=1, byte_count=1, status="done",
        # Thirty-seconds are added up without rounding, in whatever order the database does it.
        verdict="fake", fake_probability=(number + 12) / 32, threshold=1.0, uncertain_above=0.3,
        created_at=timezone.now() - timedelta(days=number),
    )
    for number in range(20)
]
writers_left, errors = [3], []

def review(reviewer, dice):
    for _ in range(12):
        detection = Detection.objects.filter(pk=dice.choice(detections[5:]).pk).get()
        look = Look.begin(detection.pk, seen_count=detection.review_count, is_blind=False)
        verdict = dice.choice(["real", "fake"])
        try:
            services.review_create(detection=detection, reviewer=reviewer, verdict=verdict, note="", look=look)
        except StaleReview:
            pass

def delete():
    for detection in detections[:5]:
        services.detection_delete(detection=detection)

def read():
    while writers_left[0]:
        quality_report.make_report(model_version="", since=None)

def work(job, *arguments):
    try:
        job(*arguments)
    except Exception as error:
        errors.append(repr(error))
    finally:
        connection.close()
        writers_left[0] -= job is not read

jobs = [(review, User.objects.create(username=f"r{seed}"), random.Random(seed)) for seed in range(2)]
threads = [threading.Thread(target=work, args=job) for job in [*jobs, (delete,), (read,), (read,)]]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
kept = quality_report.make_report(model_version="", since=None)
UploadWeek.objects.all().delete()
ReviewWeek.objects.all().delete()
fresh = quality_report.make_report(model_version="", since=None)
print(errors, kept == fresh, sum(fresh.totals.values()), fresh.reviewed > 0)
"""

# A standby, or one that its provider closed because its disk is full.
ASK_WHAT_IS_READ_ONLY = """
import django, logging
django.setup()
from django.conf import settings
from django.test import Client
from detector import services
from detector.tests.factories import FakePredictor, make_upload
settings.CACHES["ratelimit"] = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
logging.disable()
predictor = FakePredictor(0.9)
services.active_predictor = lambda: predictor
client = Client(headers={"host": "localhost"}, raise_request_exception=False)
upload = client.post("/", {"picture": make_upload()})
print(client.get("/readyz").json()["parts"]["database"], upload.status_code, upload["Retry-After"])
"""

# Every column but the links to what may be deleted, and the ways to remove a row.
CHANGE_AFTER_ALL_MIGRATIONS = """
import django
from django.core.management import call_command
django.setup()
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
from django.db import Error, connection, transaction
from detector import services
from detector.models import Detection, Review
from detector.reviews import Look
detection = Detection.objects.create(
    session_key="k" * 40, image="x", format="JPEG", width=1, height=1, byte_count=1, status="done", verdict="fake",
    fake_probability=0.9, threshold=0.7, uncertain_above=0.3, uncertain_up_to=0.9,
)
look = Look.begin(detection.pk, seen_count=0, is_blind=False)
reviewer = User.objects.create(username="reviewer")
services.review_create(detection=detection, reviewer=reviewer, verdict="real", note="", look=look)
columns = [field.column for field in Review._meta.local_fields]
names = ", ".join(f'"{name}"' for name in columns)
statements = [
    f'UPDATE detector_review SET "{name}" = {"id + 1" if name == "id" else "NULL"}'
    for name in columns
    if name not in ("detection_id", "reviewer_id")
]
statements += ["DELETE FROM detector_review"]
if connection.vendor == "postgresql":
    statements += ["TRUNCATE detector_review"]
else:
    statements += [f"INSERT OR REPLACE INTO detector_review ({names}) SELECT {names} FROM detector_review"]
assert None not in Review.objects.values_list().get(), "a column that is empty already would show nothing"
for statement in statements:
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
    except Error as error:
        if "append-only" not in str(error):
            print("refused otherwise:", statement, error)
    else:
        print("allowed:", statement)
print(len(statements), Review.objects.count())
"""


def run(command: list[str], **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fresh_database(vendor: str, folder: Path, request: pytest.FixtureRequest) -> str:
    """Address of an empty database; of the cluster's own one there is but one for all tests."""
    if vendor == "sqlite":
        return f"sqlite:///{folder / 'db.sqlite3'}"
    url: str = request.getfixturevalue("postgres_url")
    name = f"test_{uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return url.replace("/postgres?", f"/{name}?")


def told(url: str, *command: str) -> str:
    """What a command says on standard error when it has failed."""
    environment = {**os.environ, "DATABASE_URL": url, "RETENTION_DAYS": "30"}
    ended = subprocess.run(
        [sys.executable, "manage.py", *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 1, ended.stdout
    return ended.stderr


@pytest.mark.parametrize("command", ["purge_uploads", "export_reviews", "clearsessions", "migrate", "serve --port=0"])
def test_a_database_that_cannot_be_reached_is_one_line(command: str) -> None:
    (line,) = told("postgres://detector:s3cret@127.0.0.1:1/detector", *command.split()).splitlines()
    assert line.startswith("The database failed: connection failed: ")
    assert "Connection refused. DATABASE_URL says where it is" in line
    assert "s3cret" not in line


def test_a_database_that_cannot_be_opened_or_is_empty_is_one_line(tmp_path: Path) -> None:
    for place, reason in (("no/such/folder", "unable to open database file"), ("empty", "no such table: detector_")):
        url = f"sqlite:///{tmp_path}/{place}"
        (line,) = told(url, "purge_uploads").splitlines()
        assert line.startswith(f"The database failed: {reason}")
        assert line.endswith("`manage.py migrate` makes its tables.")
    assert "Traceback" in told(url, "purge_uploads", "--traceback")


def test_a_postgresql_that_knows_neither_account_nor_tables_is_one_line(postgres_url: str) -> None:
    (line,) = told(postgres_url.replace("postgres@", "stranger:s3cret@"), "purge_uploads").splitlines()
    assert 'role "stranger" does not exist. DATABASE_URL' in line
    assert "s3cret" not in line
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE without_tables")
    (line,) = told(postgres_url.replace("/postgres?", "/without_tables?"), "purge_uploads").splitlines()
    assert line.startswith('The database failed: relation "detector_detection" does not exist. DATABASE_URL')


@pytest.mark.postgres
def test_a_postgresql_that_takes_no_changes_is_an_outage(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = fresh_database("postgres", tmp_path, request)
    run(["manage.py", "migrate", "-v0"], DATABASE_URL=url)
    with psycopg.connect(url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    answers = run(["-c", ASK_WHAT_IS_READ_ONLY], DATABASE_URL=url, MEDIA_ROOT=str(tmp_path))
    assert answers.splitlines()[-1] == "False 503 10"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    (line,) = told(url, "clearsessions").splitlines()
    assert line.startswith("The database failed: cannot execute DELETE in a read-only transaction.")


def test_migrations_go_forward_and_back_on_sqlite(tmp_path: Path) -> None:
    run(["-c", MIGRATE_THERE_AND_BACK], DATABASE_URL=f"sqlite:///{tmp_path / 'db.sqlite3'}")


def test_migrations_go_forward_and_back_on_postgres(postgres_url: str) -> None:
    run(["-c", MIGRATE_THERE_AND_BACK], DATABASE_URL=postgres_url)


@pytest.mark.parametrize("vendor", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_what_files_said_is_migrated_there_and_back(
    vendor: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    output = run(["-c", MIGRATE_DECLARATIONS], DATABASE_URL=fresh_database(vendor, tmp_path, request))
    later, before = "['', 'none', 'c2pa']", "[None, '', 'c2pa']"
    assert output.splitlines() == [later, before, later]


@pytest.mark.parametrize("vendor", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_of_reviews_sent_at_once_one_is_kept(vendor: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = fresh_database(vendor, tmp_path, request)
    assert run(["-c", REVIEW_AT_ONCE], DATABASE_URL=url).split() == ["kept", *["refused"] * 3, "1", "1"]


@pytest.mark.parametrize("vendor", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_what_is_being_reviewed_can_be_deleted(vendor: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = fresh_database(vendor, tmp_path, request)
    assert run(["-c", DELETE_WHAT_IS_REVIEWED], DATABASE_URL=url).split() == ["deleted", "0", "1"]


@pytest.mark.parametrize("vendor", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_who_is_uploading_can_be_deleted(vendor: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = fresh_database(vendor, tmp_path, request)
    assert run(["-c", DELETE_WHO_UPLOADS], DATABASE_URL=url).split() == ["refused", "0", "0"]


@pytest.mark.parametrize("vendor", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_what_is_being_deleted_can_be_seen(vendor: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    output = run(["-c", SEE_WHAT_IS_DELETED], DATABASE_URL=fresh_database(vendor, tmp_path, request))
    assert output.splitlines() == ["(2, 1)", "(2, 1)", "(2, 1) []"]


@pytest.mark.parametrize("vendor", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_of_names_that_differ_in_case_one_signs_up(vendor: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = fresh_database(vendor, tmp_path, request)
    assert run(["-c", SIGN_UP_AT_ONCE], DATABASE_URL=url).split() == ["stored", *["taken"] * 3, "1"]


@pytest.mark.parametrize("vendor", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_the_quality_page_is_right_whatever_happens_while_it_counts(
    vendor: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    assert run(["-c", COUNT_MEANWHILE], DATABASE_URL=fresh_database(vendor, tmp_path, request)) == "[] True 15 True\n"


@pytest.mark.parametrize("vendor", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_reviews_are_append_only_after_all_migrations(
    vendor: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Fails if a migration rebuilds the table, or adds a column, and does not call `protect` again."""
    changes = len(Review._meta.local_fields) - 2 + 2
    output = run(["-c", CHANGE_AFTER_ALL_MIGRATIONS], DATABASE_URL=fresh_database(vendor, tmp_path, request))
    assert output == f"{changes} 1\n"


@pytest.mark.parametrize("vendor", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_names_of_what_was_deleted_leave_the_admin_s_log(
    vendor: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    output = run(["-c", MIGRATE_LOG], DATABASE_URL=fresh_database(vendor, tmp_path, request))
    assert output.splitlines()[-1] == "['a deleted account', 'a deleted account', 'a-key', 'ada']"


def test_every_test_that_uses_the_database_passes_on_postgres_too(postgres_url: str) -> None:
    services = "redis or postgres or browser or model or training"
    command = ["-m", "pytest", "detector", "-q", "-p", "no:cacheprovider", "-m", f"django_db and not ({services})"]
    command += [f"--deselect={test}" for test in SQLITE_ONLY]
    assert " passed" in run(command, TEST_DATABASE_URL=postgres_url, DATABASE_URL=postgres_url)
