"""Pictures in S3-compatible storage: a real S3 server (moto's) in a thread, asked over HTTP, and broken at will."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import boto3
import pytest
from botocore.config import Config
from django.core.files.storage import default_storage
from django.core.management import call_command
from django.db import DatabaseError
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from PIL import Image
from pytest_django import Settings
from werkzeug.serving import make_server

from detector import pending, services
from detector.images import decode_image
from detector.models import Detection
from detector.readiness import Readiness, check_storage
from detector.tests.factories import FakePredictor, make_detection, make_jpeg, make_review, make_upload, make_user

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).parents[2]
BUCKET = "pictures"
KEYS = {"access_key": "test", "secret_key": "test", "region_name": "us-east-1"}


class S3:
    """The server; `breaks` says of a request whether it is answered by a 503."""

    def __init__(self) -> None:
        self.app = DomainDispatcherApplication(create_backend_app)
        self.server = make_server("127.0.0.1", 0, self, threaded=True)
        self.address = f"http://127.0.0.1:{self.server.port}"
        self.breaks: Callable[[str, str], bool] = lambda method, path: False
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.thread = Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.client = boto3.client(
            "s3",
            endpoint_url=self.address,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(s3={"addressing_style": "path"}),
        )
        self.client.create_bucket(Bucket=BUCKET)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        headers = {name: value for name, value in environ.items() if name.startswith("HTTP_X_AMZ")}
        self.requests.append((method, path, headers))
        if self.breaks(method, path):
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]
        return self.app(environ, start_response)  # type: ignore[no-any-return]

    def keys(self) -> list[str]:
        return sorted(each["Key"] for each in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", []))

    def empty(self) -> None:
        self.breaks = lambda method, path: False
        for key in self.keys():
            self.client.delete_object(Bucket=BUCKET, Key=key)
        self.requests.clear()

    def stop(self) -> None:
        self.client.close()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3]:
    server = S3()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: S3, settings: Settings) -> Iterator[S3]:
    """The server, empty, as what settings.py makes of MEDIA_S3_BUCKET."""
    s3_server.empty()
    options = {"bucket_name": BUCKET, "endpoint_url": s3_server.address, **KEYS}
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {"BACKEND": "detector.storages.PictureStorage", "OPTIONS": options},
    }
    yield s3_server
    storage: Any = default_storage
    for connections in (storage.connection, storage.unsigned_connection):
        connections.meta.client.close()


@pytest.fixture
def visitor(client: Client, s3: S3, predictor: FakePredictor, limiter: Settings) -> Client:
    return client


def upload(client: Client, **fields: Any) -> Detection:
    response = client.post("/", {"picture": make_upload(), **fields})
    assert response.status_code == 302
    return Detection.objects.newest_first()[0]


def create(owner: Any = None) -> Detection:
    data = make_jpeg()
    return services.detection_create(
        owner=owner, session_key="" if owner else "a" * 40, data=data, image=decode_image(data), original_name="a.jpg"
    )


def address(detection: Detection, name: str) -> str:
    return reverse(f"detector:detection-{name}", args=[detection.pk])


def test_an_upload_lies_in_the_bucket_and_nowhere_else(visitor: Client, s3: S3, media_root: Path) -> None:
    detection = upload(visitor)
    month = f"{detection.created_at:%Y/%m}"
    assert s3.keys() == [f"detections/{month}/{detection.pk}.jpg", f"thumbnails/{month}/{detection.pk}.jpg"]
    assert not media_root.exists()
    stored = s3.client.get_object(Bucket=BUCKET, Key=detection.image.name)["Body"].read()
    assert stored == make_jpeg()


def test_pictures_that_were_copied_from_a_disk_are_found(
    visitor: Client, s3: S3, settings: Settings, tmp_path: Path
) -> None:
    """As docs/operations.md says: under the same names."""
    bucket = settings.STORAGES
    settings.STORAGES = {
        **bucket,
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": str(tmp_path)},
        },
    }
    detection = upload(visitor)
    assert s3.keys() == []
    for path in tmp_path.rglob("*.jpg"):
        s3.client.upload_file(str(path), BUCKET, str(path.relative_to(tmp_path)))
    settings.STORAGES = bucket
    for name in ("image", "thumbnail"):
        assert visitor.get(address(detection, name)).status_code == 200


def test_objects_are_private_and_have_no_address(visitor: Client, s3: S3) -> None:
    detection = upload(visitor)
    written = [headers for method, _, headers in s3.requests if method == "PUT"]
    assert len(written) == 3, "a note, the picture, its thumbnail"
    assert not any("HTTP_X_AMZ_ACL" in headers for headers in written)
    for key in list(s3.keys()):
        grants = s3.client.get_object_acl(Bucket=BUCKET, Key=key)["Grants"]
        assert not any("AllUsers" in grant["Grantee"].get("URI", "") for grant in grants)
    with pytest.raises(NotImplementedError):
        detection.image.url  # noqa: B018


@pytest.mark.parametrize("name", ["image", "thumbnail"])
def test_copies_are_served_to_whom_they_belong(visitor: Client, s3: S3, name: str) -> None:
    detection = upload(visitor)
    response = visitor.get(address(detection, name))
    assert response.status_code == 200
    assert s3.address not in str(response.headers)
    assert Client().get(address(detection, name)).status_code == 404


def test_a_missing_object_is_not_found(visitor: Client, s3: S3) -> None:
    detection = upload(visitor)
    s3.empty()
    assert visitor.get(address(detection, "thumbnail")).status_code == 404


def test_analyse_and_forget_writes_nothing(visitor: Client, s3: S3) -> None:
    upload(visitor, forget="on")
    assert s3.keys() == []
    assert not [method for method, *_ in s3.requests if method == "PUT"]


def test_a_deleted_detection_leaves_no_object(visitor: Client, s3: S3, django_capture_on_commit_callbacks: Any) -> None:
    detection = upload(visitor)
    with django_capture_on_commit_callbacks(execute=True):
        assert visitor.post(address(detection, "delete")).status_code == 302
    assert s3.keys() == []


def test_a_deleted_account_leaves_no_object(
    s3: S3, predictor: FakePredictor, django_capture_on_commit_callbacks: Any
) -> None:
    user = make_user()
    create(user)
    create(user)
    assert len(s3.keys()) == 4
    with django_capture_on_commit_callbacks(execute=True):
        user.delete()
    assert s3.keys() == []


def test_purging_removes_old_objects(s3: S3, predictor: FakePredictor, settings: Settings) -> None:
    old, new = create(), create()
    Detection.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(days=8))
    settings.RETENTION_DAYS = 7
    call_command("purge_uploads", verbosity=0)
    assert s3.keys() == sorted([str(new.image.name), str(new.thumbnail.name)])


def test_objects_without_a_row_are_removed(s3: S3, predictor: FakePredictor) -> None:
    lost, kept = (make_detection(data=make_jpeg(seed=number)) for number in range(2))
    Detection.objects.filter(pk=lost.pk)._raw_delete("default")

    call_command("remove_orphans", older_than_hours=0)

    assert s3.keys() == sorted([str(kept.image.name), str(kept.thumbnail.name)])


def test_reviewed_pictures_are_exported(s3: S3, predictor: FakePredictor, tmp_path: Path) -> None:
    make_review(create(make_user()), "fake")
    call_command("export_reviews", dataset=tmp_path / "dataset")
    (picture,) = (tmp_path / "dataset" / "1_fake").glob("*.jpg")
    with Image.open(picture) as image:
        assert image.size == (320, 240)


def is_thumbnail(method: str, path: str) -> bool:
    return method == "PUT" and "/thumbnails/" in path


def test_when_storing_breaks_half_way_nothing_is_left(s3: S3, predictor: FakePredictor) -> None:
    s3.breaks = is_thumbnail
    with pytest.raises(OSError, match="The storage of pictures failed"):
        create()
    assert any("/detections/" in path for method, path, _ in s3.requests if method == "PUT")
    assert not Detection.objects.exists()
    assert s3.keys() == []


def test_when_the_database_breaks_after_storing_nothing_is_left(
    s3: S3, predictor: FakePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        assert len(s3.keys()) == 3, "a note, the picture, its thumbnail"
        raise DatabaseError("gone")

    monkeypatch.setattr(Detection, "save", fail)
    with pytest.raises(DatabaseError):
        create()
    assert s3.keys() == []


def test_when_even_removing_breaks_there_is_no_row_and_the_log_names_the_object(
    s3: S3, predictor: FakePredictor, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.breaks = lambda method, path: is_thumbnail(method, path) or method == "DELETE"
    with pytest.raises(OSError, match="The storage of pictures failed"):
        create()
    assert not Detection.objects.exists()
    left, note = s3.keys()
    assert f"Could not remove {left}" in logged
    assert note == f"pending/{Path(left).stem}"
    s3.breaks = lambda method, path: False
    monkeypatch.setattr(pending, "LONGEST_WORK", timedelta(0))
    assert pending.settle_abandoned() == 1
    assert s3.keys() == []


@pytest.mark.parametrize("refused", ["removing", "removing and writing", "everything"])
def test_a_deletion_that_the_storage_refuses_is_logged_and_made_up_for(
    s3: S3, predictor: FakePredictor, logged: list[str], django_capture_on_commit_callbacks: Any, refused: str
) -> None:
    methods = {"removing": {"DELETE"}, "removing and writing": {"DELETE", "PUT"}}.get(refused)
    kept, detection = create(), create()
    pk = detection.pk
    files = sorted([str(detection.image.name), str(detection.thumbnail.name)])
    s3.breaks = lambda method, path: methods is None or method in methods
    with django_capture_on_commit_callbacks(execute=True):
        services.detection_delete(detection=detection)
    assert list(Detection.objects.all()) == [kept]
    s3.breaks = lambda method, path: False
    assert {f"Could not remove {file}" for file in files} <= set(logged)
    notes = [f"pending/{pk}"] if refused == "removing" else []
    assert set(s3.keys()) == {str(kept.image.name), str(kept.thumbnail.name), *files, *notes}

    s3.breaks = lambda method, path: method == "DELETE"
    assert pending.settle_abandoned() == 0
    left = s3.keys()
    assert f"pending/{pk}" in left, "another process can make up for it, too"
    s3.breaks = lambda method, path: False
    assert pending.settle_abandoned() == 2
    assert s3.keys() == sorted([str(kept.image.name), str(kept.thumbnail.name)])


@pytest.mark.parametrize("wrong", [{"endpoint_url": "http://127.0.0.1:1"}, {"bucket_name": "absent"}])
def test_a_storage_that_is_not_there_is_a_broken_disk(
    visitor: Client, settings: Settings, wrong: dict[str, str]
) -> None:
    options = settings.STORAGES["default"]["OPTIONS"] | wrong
    settings.STORAGES = {**settings.STORAGES, "default": {**settings.STORAGES["default"], "OPTIONS": options}}
    with pytest.raises(OSError, match="The storage of pictures failed"):
        check_storage()
    assert visitor.post("/", {"picture": make_upload()}).status_code == 503


def test_a_note_that_another_process_settles_at_the_same_time_is_passed_over(
    s3: S3, predictor: FakePredictor, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        pending._write(create().pk, pending.Note(("detections/a.jpg",)), is_first=True)
    read = pending._read

    def read_and_lose(path: str) -> pending.Note:
        found = read(path)
        if not lost:
            lost.append(path)
            default_storage.delete(path)
        return found

    lost: list[str] = []
    monkeypatch.setattr(pending, "_read", read_and_lose)
    assert pending.settle_abandoned() == 0
    assert logged == []
    assert not any(key.startswith("pending/") for key in list(s3.keys()))


def test_a_server_whose_storage_fails_is_not_ready(
    client: Client, s3: S3, predictor: FakePredictor, limiter: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detector.views.readiness", Readiness())
    assert client.get("/readyz").status_code == 200
    s3.breaks = lambda method, path: True
    monkeypatch.setattr("detector.views.readiness", Readiness())
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["parts"] == {"database": True, "redis": True, "model": True, "storage": False}


# Settings


def settings_with(program: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )


def test_the_settings_name_the_bucket() -> None:
    program = "import json, deepfake_site.settings as s; print(json.dumps(s.STORAGES['default']))"
    done = settings_with(program, MEDIA_S3_BUCKET="b", MEDIA_S3_ENDPOINT="https://s3.example.org", MEDIA_S3_REGION="r")
    assert json.loads(done.stdout) == {
        "BACKEND": "detector.storages.PictureStorage",
        "OPTIONS": {
            "bucket_name": "b",
            "endpoint_url": "https://s3.example.org",
            "region_name": "r",
            "access_key": None,
            "secret_key": None,
        },
    }


def test_missing_packages_are_named_with_what_installs_them() -> None:
    done = settings_with("import sys; sys.modules['boto3'] = None; import deepfake_site.settings", MEDIA_S3_BUCKET="b")
    assert "run `make s3`" in done.stderr


def test_nginx_cannot_send_what_is_in_a_bucket() -> None:
    done = settings_with("import deepfake_site.settings", MEDIA_S3_BUCKET="b", MEDIA_X_ACCEL="true")
    assert "MEDIA_X_ACCEL is for pictures on disk" in done.stderr


@pytest.mark.parametrize(
    "endpoint", ["minio.example.org", "minio.example.org:9000", "s3://minio.example.org", "https://"]
)
def test_an_endpoint_that_is_no_address_stops_the_start(endpoint: str) -> None:
    done = settings_with("import deepfake_site.settings", MEDIA_S3_BUCKET="b", MEDIA_S3_ENDPOINT=endpoint)
    assert f"MEDIA_S3_ENDPOINT is '{endpoint}'; it has to be an address" in done.stderr
