import io
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from pytest_django import Settings

from detector.exports import dataset_write
from detector.models import Detection
from detector.tests.factories import (
    FakePredictor,
    make_detection,
    make_jpeg,
    make_picture,
    make_review,
    make_upload,
)
from detector.tests.hostile.workshop import chunk, exif, segment, with_chunks, with_segments

pytestmark = pytest.mark.django_db

MEDIA = [
    ("detection-image", "image/jpeg", (320, 240)),
    ("detection-thumbnail", "image/jpeg", (256, 192)),
]


def address(detection: Detection, name: str) -> str:
    return reverse(f"detector:{name}", args=[detection.pk])


def with_gps() -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8825)[1] = "N"
    exif[0x010E] = "Ada's kitchen"
    return make_jpeg(exif=exif, comment=b"Ada's comment")


@pytest.mark.parametrize(("name", "content_type", "size"), MEDIA)
def test_a_medium_is_private_and_inert(visitor: Client, name: str, content_type: str, size: tuple[int, int]) -> None:
    response = visitor.get(address(make_detection(), name))
    assert response.status_code == HTTPStatus.OK
    assert response["Content-Type"] == content_type
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert response["Cache-Control"] == "private, no-cache"
    assert response["Cross-Origin-Resource-Policy"] == "same-origin"
    assert Image.open(io.BytesIO(response.content)).size == size


@pytest.mark.parametrize(("name", "content_type", "size"), MEDIA)
def test_a_browser_that_has_it_gets_304(visitor: Client, name: str, content_type: str, size: tuple[int, int]) -> None:
    url = address(make_detection(), name)
    first = visitor.get(url)
    again = visitor.get(url, headers={"if-none-match": first["ETag"]})
    assert again.status_code == HTTPStatus.NOT_MODIFIED
    assert again.content == b""
    stranger = Client().get(url, headers={"if-none-match": first["ETag"]})
    assert stranger.status_code == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("name", ["detection-image", "detection-thumbnail"])
def test_metadata_stays_on_the_server(visitor: Client, name: str) -> None:
    detection = make_detection(data=with_gps())
    assert b"Ada's" in Path(detection.image.path).read_bytes()
    content = visitor.get(address(detection, name)).content
    assert b"Ada's" not in content
    picture = Image.open(io.BytesIO(content))
    assert not picture.getexif()
    assert "comment" not in picture.info


SECRET = b"48.8584N-2.2945E"
EVERY_METADATA: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "EXIF": ("JPEG", lambda data: with_segments(data, segment(0xE1, b"Exif\0\0" + exif([(0x8825, 4, 1, 26)], SECRET)))),
    "XMP": ("JPEG", lambda data: with_segments(data, segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x>" + SECRET))),
    "IPTC": (
        "JPEG",
        lambda data: with_segments(data, segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x10" + SECRET)),
    ),
    "ICC": ("JPEG", lambda data: with_segments(data, segment(0xE2, b"ICC_PROFILE\0\x01\x01" + SECRET * 10))),
    "comment": ("JPEG", lambda data: with_segments(data, segment(0xFE, SECRET))),
    "tail": ("JPEG", lambda data: data + SECRET),
    "tEXt": ("PNG", lambda data: with_chunks(data, chunk(b"tEXt", b"Location\0" + SECRET))),
    "iTXt": ("PNG", lambda data: with_chunks(data, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + SECRET))),
    "eXIf": ("PNG", lambda data: with_chunks(data, chunk(b"eXIf", exif([(0x8825, 4, 1, 26)], SECRET)))),
    "WebP": ("WEBP", lambda data: data + SECRET),
}


@pytest.mark.parametrize("kind", EVERY_METADATA)
def test_no_kind_of_metadata_leaves_the_server(
    client: Client, limiter: Settings, predictor: FakePredictor, tmp_path: Path, kind: str
) -> None:
    """Uploaded as by anybody, then asked for in every way: the pages' pictures and the export of reviewed ones."""
    file_format, add = EVERY_METADATA[kind]
    data = add(make_picture(file_format=file_format))
    assert SECRET in data
    assert client.post("/", {"picture": make_upload(data)}).status_code == HTTPStatus.FOUND
    detection = Detection.objects.get()
    make_review(detection, "fake")
    dataset_write(tmp_path / "dataset")
    exported = list((tmp_path / "dataset").rglob("*.jpg"))
    assert len(exported) == 1
    served = [client.get(address(detection, name)).content for name, *_ in MEDIA]
    for content in (*served, exported[0].read_bytes(), client.get(detection.get_absolute_url()).content):
        assert SECRET not in content
    for content in (*served, exported[0].read_bytes()):
        with Image.open(io.BytesIO(content)) as picture:
            # Transparency: how a heat map's colours say how much of the picture they cover.
            assert not set(picture.info) - {"jfif", "jfif_version", "jfif_unit", "jfif_density", "transparency"}


def test_a_large_picture_is_sent_smaller(visitor: Client) -> None:
    detection = make_detection(data=make_jpeg(2600, 1300), width=2600, height=1300)
    content = visitor.get(address(detection, "detection-image")).content
    assert Image.open(io.BytesIO(content)).size == (1300, 650)


def test_any_format_is_sent_as_jpeg(visitor: Client) -> None:
    detection = make_detection(data=make_picture(file_format="PNG"), format="PNG")
    content = visitor.get(address(detection, "detection-image")).content
    assert Image.open(io.BytesIO(content)).format == "JPEG"


def test_a_picture_from_before_the_limits_shrank_is_still_shown(visitor: Client, settings: Settings) -> None:
    detection = make_detection()
    settings.MAX_UPLOAD_BYTES = settings.MAX_UPLOAD_PIXELS = 10
    assert visitor.get(address(detection, "detection-image")).status_code == HTTPStatus.OK


@pytest.mark.parametrize("name", ["detection-image", "detection-thumbnail"])
def test_a_file_that_is_gone_is_not_found(visitor: Client, name: str) -> None:
    detection = make_detection()
    Path(detection.image.path).unlink()
    Path(detection.thumbnail.path).unlink()
    assert visitor.get(address(detection, name)).status_code == HTTPStatus.NOT_FOUND


def test_uploads_have_no_address_of_their_own(visitor: Client) -> None:
    detection = make_detection()
    for prefix in ("/media/", "/", "/static/"):
        assert visitor.get(f"{prefix}{detection.image.name}").status_code == HTTPStatus.NOT_FOUND


def test_with_x_accel_nginx_gets_the_thumbnail_of_whoever_may_see_it(visitor: Client, settings: Settings) -> None:
    settings.MEDIA_X_ACCEL = True
    detection = make_detection()
    response = visitor.get(address(detection, "detection-thumbnail"))
    assert response["X-Accel-Redirect"] == f"/protected-media/{detection.thumbnail.name}"
    assert response.content == b""
    assert response["Content-Type"] == "image/jpeg"
    assert response["Content-Security-Policy"] == "default-src 'none'; sandbox"
    stranger = Client().get(address(detection, "detection-thumbnail"))
    assert stranger.status_code == HTTPStatus.NOT_FOUND
    assert "X-Accel-Redirect" not in stranger
    # The picture is encoded anew at the moment it is asked for.
    assert "X-Accel-Redirect" not in visitor.get(address(detection, "detection-image"))


def test_a_file_that_was_damaged_on_the_disk_is_not_found(visitor: Client, logged: list[str]) -> None:
    detection = make_detection()
    path = Path(detection.image.path)
    path.write_bytes(path.read_bytes()[:500])
    assert visitor.get(address(detection, "detection-image")).status_code == HTTPStatus.NOT_FOUND
    assert "cannot be read any more" in logged[0]


def test_a_picture_that_there_is_no_memory_for_is_not_called_damaged(
    visitor: Client, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    detection = make_detection()

    def fail(image: JpegImageFile) -> None:
        raise MemoryError

    monkeypatch.setattr(JpegImageFile, "load", fail)
    response = visitor.get(address(detection, "detection-image"))
    assert response.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert int(response["Retry-After"]) > 0
    assert not any("cannot be read any more" in message for message in logged)


def test_nobody_holds_up_uploads_by_looking_at_a_picture_over_and_over(visitor: Client, limiter: Settings) -> None:
    limiter.PICTURE_RATE = "3/d"
    detection, other = make_detection(), make_detection(session_key="b" * 40)
    statuses = [visitor.get(address(detection, "detection-image")).status_code for _ in range(4)]
    assert statuses == [HTTPStatus.OK] * 3 + [HTTPStatus.TOO_MANY_REQUESTS]
    refused = visitor.get(address(detection, "detection-image"))
    assert int(refused["Retry-After"]) > 0
    assert refused.content.startswith(b"That was one picture too many."), "it can be opened alone"
    assert refused["Cache-Control"] == "no-store"
    assert "ETag" not in refused, "a browser that kept it would take it for the picture"
    assert visitor.get(address(detection, "detection-thumbnail")).status_code == HTTPStatus.OK
    assert visitor.get(address(other, "detection-image")).status_code == HTTPStatus.NOT_FOUND
    assert visitor.post("/", {"picture": make_upload(b"")}).status_code == HTTPStatus.BAD_REQUEST, "uploads count apart"


def test_what_the_browser_has_is_not_counted(visitor: Client, limiter: Settings) -> None:
    limiter.PICTURE_RATE = "1/d"
    picture = address(make_detection(), "detection-image")
    etag = visitor.get(picture)["ETag"]
    for _ in range(3):
        assert visitor.get(picture, headers={"if-none-match": etag}).status_code == HTTPStatus.NOT_MODIFIED


def test_without_redis_pictures_are_shown(visitor: Client, settings: Settings) -> None:
    settings.CACHES = {**settings.CACHES, "ratelimit": {"BACKEND": "detector.ratelimits.NoSharedCache"}}
    assert visitor.get(address(make_detection(), "detection-image")).status_code == HTTPStatus.OK
