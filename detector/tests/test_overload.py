"""What is refused when there is more to do than fits, and what is told when something is missing."""

import errno
import os
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import FileSystemStorage
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path, reverse
from pytest_django import Settings

from deepfake_site import urls as site
from detector import room as rooms
from detector.exceptions import Overloaded
from detector.models import Detection
from detector.room import Room, get_room
from detector.tests.factories import FakePredictor, make_detection, make_upload, make_user

JSON = {"accept": "application/json"}
FAULTS = {
    "database": OperationalError("server closed the connection unexpectedly"),
    "connection": InterfaceError("connection already closed"),
    "disk": OSError(errno.ENOSPC, "No space left on device"),
    "quota": OSError(errno.EDQUOT, "Disk quota exceeded"),
    "room": Overloaded("full"),
}


def break_down(request: HttpRequest, fault: str) -> HttpResponse:
    raise FAULTS[fault]


urlpatterns = [*site.urlpatterns, path("break/<str:fault>/", break_down)]
handler500 = site.handler500


@pytest.fixture
def small_room(settings: Settings) -> Iterator[Room]:
    """One picture at once, and nobody waits."""
    settings.DETECTIONS_AT_ONCE, settings.DETECTIONS_WAITING = 1, 0
    rooms._made.cache_clear()
    yield get_room()
    rooms._made.cache_clear()


def test_all_threads_get_the_same_room_from_the_first_moment_on(monkeypatch: pytest.MonkeyPatch) -> None:
    many = 8
    found: list[Room] = []
    all_came = threading.Barrier(many)

    class SlowRoom(Room):
        def __init__(self, **size: int) -> None:
            time.sleep(0.1)  # long enough for every thread to ask meanwhile
            super().__init__(**size)

    def ask() -> None:
        all_came.wait(10)
        found.append(get_room())

    monkeypatch.setattr(rooms, "Room", SlowRoom)
    rooms._made.cache_clear()
    threads = [threading.Thread(target=ask) for _ in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rooms._made.cache_clear()
    assert len(found) == many
    assert len(set(found)) == 1


def test_a_room_takes_as_many_as_it_has_places() -> None:
    room = Room(at_once=1, waiting=1)
    with room.place():
        with room.place(), pytest.raises(Overloaded), room.place():
            pass
        with room.place():
            pass


def test_those_in_a_room_take_turns() -> None:
    room = Room(at_once=1, waiting=1)
    order: list[str] = []
    is_waiting = threading.Event()

    def wait() -> None:
        with room.place():
            is_waiting.set()
            with room.turn():
                order.append("second")

    with room.place(), room.turn():
        second = threading.Thread(target=wait)
        second.start()
        assert is_waiting.wait(10)
        order.append("first")
    second.join(10)
    assert order == ["first", "second"]


@pytest.mark.django_db
@pytest.mark.parametrize("headers", [{}, JSON])
def test_an_upload_without_room_is_refused_at_once_and_not_counted(
    client: Client, predictor: FakePredictor, limiter: Settings, small_room: Room, headers: dict[str, str]
) -> None:
    limiter.UPLOAD_RATE = "1/d"
    with small_room.place():
        refused = client.post(reverse("detector:upload"), {"picture": make_upload()}, headers=headers)
        assert client.get(reverse("detector:upload")).status_code == HTTPStatus.OK
    assert refused.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert refused["Retry-After"] == "2"
    assert "try again in a few seconds" in refused.content.decode()
    assert not Detection.objects.exists()
    accepted = client.post(reverse("detector:upload"), {"picture": make_upload()}, headers=headers)
    assert accepted.status_code in (HTTPStatus.FOUND, HTTPStatus.CREATED)


@pytest.mark.django_db
def test_a_broken_upload_gives_its_place_back(
    client: Client, predictor: FakePredictor, limiter: Settings, small_room: Room
) -> None:
    for _ in range(2):
        response = client.post(reverse("detector:upload"), {"picture": make_upload(b"nothing")})
        assert response.status_code == HTTPStatus.BAD_REQUEST


@pytest.mark.django_db
def test_a_picture_that_has_to_be_decoded_takes_a_place_too(client: Client, small_room: Room) -> None:
    owner = make_user()
    client.force_login(owner)
    detection = make_detection(owner=owner)
    address = reverse("detector:detection-image", args=[detection.pk])
    with small_room.place():
        assert client.get(address).status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert client.get(reverse("detector:detection-thumbnail", args=[detection.pk])).status_code == HTTPStatus.OK
    assert client.get(address).status_code == HTTPStatus.OK


@pytest.mark.parametrize(
    ("fault", "retry_after", "said"),
    [
        ("database", "10", "database cannot be reached"),
        ("connection", "10", "database cannot be reached"),
        ("disk", "300", "cannot be stored"),
        ("quota", "300", "cannot be stored"),
        ("room", "2", "again in a few seconds"),
    ],
)
@pytest.mark.parametrize("headers", [{}, JSON])
def test_an_outage_is_a_503_that_needs_no_database(
    client: Client, settings: Settings, fault: str, retry_after: str, said: str, headers: dict[str, str]
) -> None:
    settings.ROOT_URLCONF = __name__
    response = client.post(f"/break/{fault}/", headers=headers)
    assert response.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert (response["Retry-After"], response["Cache-Control"]) == (retry_after, "no-store")
    assert response["Content-Type"].startswith("application/json" if headers else "text/html")
    assert said in response.content.decode()
    assert "Content-Security-Policy" in response


def test_a_picture_that_is_on_a_broken_disk_is_not_said_to_be_refused(client: Client, settings: Settings) -> None:
    settings.ROOT_URLCONF = __name__
    response = client.get("/break/disk/")
    assert response.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert "Pictures cannot be read right now." in response.content.decode()


@pytest.mark.django_db
def test_a_store_that_may_not_be_written_to_is_an_outage(
    client: Client,
    predictor: FakePredictor,
    limiter: Settings,
    media_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    logged: list[str],
) -> None:
    def refuse(storage: FileSystemStorage, name: str, *args: Any) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(media_root / name))

    monkeypatch.setattr(FileSystemStorage, "_save", refuse)
    response = client.post(reverse("detector:upload"), {"picture": make_upload()}, headers=JSON)
    assert response.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert response.json()["error"].startswith("Pictures cannot be stored right now")
    assert "Storage failed" in logged
    assert not Detection.objects.exists()


@pytest.mark.parametrize("code", [errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH])
def test_a_shared_store_that_is_away_is_an_outage(
    client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    settings.ROOT_URLCONF = __name__
    path = str(settings.MEDIA_ROOT / "detections" / "a.jpg")
    monkeypatch.setitem(FAULTS, "disk", OSError(code, os.strerror(code), path))
    assert client.get("/break/disk/").status_code == HTTPStatus.SERVICE_UNAVAILABLE


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOTCONN, errno.ETIMEDOUT])
@pytest.mark.parametrize("place", [(), ("/etc/a-key.pem",)])
def test_any_other_error_is_still_one(
    client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch, place: tuple[str, ...], code: int
) -> None:
    settings.ROOT_URLCONF = __name__
    monkeypatch.setitem(FAULTS, "disk", OSError(code, os.strerror(code), *place))
    client.raise_request_exception = False
    assert client.post("/break/disk/").status_code == HTTPStatus.INTERNAL_SERVER_ERROR
