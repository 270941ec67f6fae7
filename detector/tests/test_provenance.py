import random
import time
import zlib
from http import HTTPStatus
from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse
from PIL import Image
from pytest_django import Settings
from pytest_django.asserts import assertContains, assertNotContains

from detector.images import decode_image
from detector.models import Detection
from detector.provenance import MAX_TEXT_BYTES, Declaration, ai_declaration
from detector.tests.factories import FakePredictor, make_detection, make_jpeg, make_picture, make_upload
from detector.tests.hostile.workshop import chunk, exif, riff_chunk, segment, with_chunks, with_segments

TERM = b"http://cv.iptc.org/newscodes/digitalsourcetype/"
GENERATED, EDITED = TERM + b"trainedAlgorithmicMedia", TERM + b"compositeWithTrainedAlgorithmicMedia"
CAMERA = TERM + b"digitalCapture"
SETTINGS = "a portrait\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"


def xmp(term: bytes) -> bytes:
    return (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        b' Iptc4xmpExt:DigitalSourceType="' + term + b'"/></rdf:RDF></x:xmpmeta>'
    )


def manifest(term: bytes) -> bytes:
    """What tells in a C2PA manifest store: boxes, and in one of them CBOR with the action's digital source type."""
    text = b"\x71digitalSourceType\x78" + bytes([len(term)]) + term
    box = b"jumb" + b"\0\0\0\x1ejumdc2pa\0\x11\0\x10\x80\0\0\xaa\0\x38\x9b\x71\x03c2pa\0" + b"cbor" + text
    return (len(box) + 4).to_bytes(4, "big") + box


def in_app11(store: bytes, *, first: int) -> list[bytes]:
    """The segments of a JPEG that hold so much of the box at first, and then the rest behind its header again."""
    head = b"JP\0\1"
    parts = [store[:first], store[:8] + store[first:]] if first < len(store) else [store]
    return [segment(0xEB, head + number.to_bytes(4, "big") + part) for number, part in enumerate(parts, 1)]


def comment(encoding: str) -> bytes:
    """EXIF with the settings as the user's comment, tag 0x9286."""
    text = SETTINGS.encode(encoding)
    name = b"ASCII\0\0\0" if encoding == "ascii" else b"UNICODE\0"
    return exif([(0x9286, 7, len(name + text), 26)], name + text)


def as_jpeg(*segments: bytes) -> bytes:
    return with_segments(make_jpeg(), *segments)


def as_png(kind: bytes, content: bytes) -> bytes:
    return with_chunks(make_picture(file_format="PNG"), chunk(kind, content))


def as_webp(kind: bytes, content: bytes) -> bytes:
    data = make_picture(file_format="WEBP") + riff_chunk(kind, content)
    return data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:]


DECLARED = {
    "XMP in a JPEG": (
        Declaration.SOURCE_TYPE,
        as_jpeg(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp(GENERATED))),
    ),
    "XMP that Pillow wrote": (Declaration.SOURCE_TYPE, make_jpeg(xmp=xmp(EDITED))),
    "credentials in a JPEG": (Declaration.CREDENTIALS, as_jpeg(*in_app11(manifest(GENERATED), first=10_000))),
    "credentials in two segments": (Declaration.CREDENTIALS, as_jpeg(*in_app11(manifest(EDITED), first=100))),
    "settings in a JPEG": (Declaration.SETTINGS, as_jpeg(segment(0xE1, b"Exif\0\0" + comment("ascii")))),
    "settings in UTF-16": (Declaration.SETTINGS, as_jpeg(segment(0xE1, b"Exif\0\0" + comment("utf-16-be")))),
    "XMP in a PNG": (Declaration.SOURCE_TYPE, as_png(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(GENERATED))),
    "packed XMP in a PNG": (
        Declaration.SOURCE_TYPE,
        as_png(b"iTXt", b"XML:com.adobe.xmp\0\1\0en\0x\0" + zlib.compress(xmp(EDITED))),
    ),
    "credentials in a PNG": (Declaration.CREDENTIALS, as_png(b"caBX", manifest(GENERATED))),
    "settings in a PNG": (Declaration.SETTINGS, as_png(b"tEXt", b"parameters\0" + SETTINGS.encode())),
    "packed settings in a PNG": (
        Declaration.SETTINGS,
        as_png(b"zTXt", b"parameters\0\0" + zlib.compress(SETTINGS.encode())),
    ),
    "a graph in a PNG": (Declaration.SETTINGS, as_png(b"tEXt", b'prompt\0{"3": {"class_type": "KSampler"}}')),
    "settings in a PNG's EXIF": (Declaration.SETTINGS, as_png(b"eXIf", comment("utf-16-le"))),
    "XMP in a WebP": (Declaration.SOURCE_TYPE, make_picture(file_format="WEBP", xmp=xmp(GENERATED))),
    "credentials in a WebP": (Declaration.CREDENTIALS, as_webp(b"C2PA", manifest(GENERATED))),
    "settings in a WebP": (Declaration.SETTINGS, make_picture(file_format="WEBP", exif=b"Exif\0\0" + comment("ascii"))),
    "the most telling one of two": (
        Declaration.CREDENTIALS,
        as_jpeg(
            segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp(GENERATED)),
            *in_app11(manifest(GENERATED), first=10_000),
        ),
    ),
}
SILENT = {
    "JPEG": make_jpeg(),
    "PNG": make_picture(file_format="PNG"),
    "WebP": make_picture(file_format="WEBP"),
    "a camera's XMP": make_jpeg(xmp=xmp(CAMERA)),
    "a camera's credentials": as_jpeg(*in_app11(manifest(CAMERA), first=10_000)),
    "a phone that joins frames": make_jpeg(xmp=xmp(TERM + b"computationalCapture")),
    "the term in a comment": as_jpeg(segment(0xFE, GENERATED)),
    "the term behind the picture": make_jpeg() + GENERATED,
    "the term in a description": as_png(b"tEXt", b"Description\0" + GENERATED),
    "a prompt in words": as_png(b"tEXt", b"prompt\0Look to the left"),
    "another program": as_png(b"tEXt", b"Software\0GIMP"),
    "text that cannot be unpacked": as_png(b"zTXt", b"parameters\0\0" + b"none"),
}


def declared(data: bytes) -> Declaration:
    return ai_declaration(data, decode_image(data).format)


@pytest.mark.parametrize("kind", DECLARED)
def test_a_note_is_found(kind: str) -> None:
    expected, data = DECLARED[kind]
    assert declared(data) is expected


@pytest.mark.parametrize("kind", SILENT)
def test_nothing_else_is_taken_for_a_note(kind: str) -> None:
    assert declared(SILENT[kind]) is Declaration.NONE


def test_broken_files_raise_nothing() -> None:
    """As when a file was damaged since it was accepted; one that begins otherwise is never looked at."""
    source = random.Random(8)
    for _, data in DECLARED.values():
        kind = decode_image(data).format
        for _ in range(60):
            broken = bytearray(data[: source.randrange(12, len(data))])
            for _ in range(source.randrange(6)):
                broken[source.randrange(len(broken))] = source.randrange(256)
            assert ai_declaration(bytes(broken), kind) in Declaration


def test_a_packed_text_is_unpacked_only_so_far() -> None:
    """Pillow's own limit is the same: whoever raises it does not raise this one."""
    text = b"XML:com.adobe.xmp\0\1\0\0\0"
    near, far = (text + zlib.compress(b" " * count + xmp(GENERATED)) for count in (MAX_TEXT_BYTES // 2, MAX_TEXT_BYTES))
    assert declared(as_png(b"iTXt", near)) is Declaration.SOURCE_TYPE
    assert ai_declaration(as_png(b"iTXt", far), "PNG") is Declaration.NONE


@pytest.mark.parametrize(
    "data",
    [
        with_chunks(
            make_picture(file_format="PNG"),
            *[chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"Steps: 1, " * 100_000))] * 400,
        ),
        make_jpeg()[:2] + segment(0xE1, b"Exif\0\0" + b"Steps: 1, " * 6_000) * 200 + make_jpeg()[2:],
    ],
    ids=["PNG", "JPEG"],
)
def test_many_notes_take_no_longer_than_a_picture(data: bytes) -> None:
    started = time.process_time()
    assert ai_declaration(data, "PNG" if data[:1] == b"\x89" else "JPEG") is Declaration.NONE
    assert time.process_time() - started < 1.0


@pytest.mark.django_db
@pytest.mark.parametrize("keeps", [True, False])
def test_what_a_file_says_is_kept_and_shown(
    client: Client, limiter: Settings, predictor: FakePredictor, keeps: bool
) -> None:
    predictor.fake_probabilities = (0.1,)
    data = make_jpeg(xmp=xmp(GENERATED))
    response = client.post("/", {"picture": make_upload(data)} | ({} if keeps else {"forget": "on"}))
    assert response.status_code == HTTPStatus.FOUND
    detection = Detection.objects.get()
    assert (detection.ai_declaration, detection.verdict) == ("iptc", "real")
    page = client.get(detection.get_absolute_url())
    assertContains(page, "The file itself says that AI made this picture, or parts of it.")
    assertContains(page, "the model misses most pictures of new image generators")
    assertContains(page, "IPTC digital source type")
    assertNotContains(page, "No note means nothing.")
    assertContains(client.get("/history/"), "The file says AI")


@pytest.mark.django_db
def test_a_file_that_says_nothing_is_not_cleared_by_that(visitor: Client) -> None:
    page = visitor.get(make_detection(0.1, ai_declaration="none").get_absolute_url())
    assertContains(page, "No note means nothing.")
    assertNotContains(page, "The file itself says")
    assertNotContains(visitor.get("/history/"), "The file says AI")


@pytest.mark.django_db
def test_of_a_file_that_was_never_asked_nothing_is_said(visitor: Client) -> None:
    """An upload from before notes were read."""
    detection = make_detection(0.1, ai_declaration="")
    page = visitor.get(detection.get_absolute_url())
    assertNotContains(page, "No note means nothing.")
    assertNotContains(page, "The file itself says")


@pytest.mark.django_db
def test_that_a_file_says_nothing_is_kept(client: Client, limiter: Settings, predictor: FakePredictor) -> None:
    client.post("/", {"picture": make_upload()})
    assert Detection.objects.get().ai_declaration == "none"


@pytest.mark.django_db
def test_the_model_is_not_named_against_a_fake(visitor: Client) -> None:
    page = visitor.get(make_detection(0.95, ai_declaration="c2pa").get_absolute_url())
    assertContains(page, "Content Credentials (C2PA)")
    assertNotContains(page, "the model misses most pictures of new image generators")


@pytest.mark.django_db
def test_reviewers_see_what_the_file_says(admin_client: Client) -> None:
    detection = make_detection(ai_declaration="settings")
    review = reverse("admin:detector_detection_review", args=[detection.pk])
    assertContains(admin_client.get(review), "The file says that AI made it, or parts of it")
    change = reverse("admin:detector_detection_change", args=[detection.pk])
    assertContains(admin_client.get(change), "an image generator’s settings")


@pytest.mark.django_db
def test_a_blind_look_does_not_show_what_the_file_says(admin_client: Client, settings: Settings) -> None:
    """It waits because the machine says Real: the note would tell."""
    settings.REVIEW_BLIND = True
    detection = make_detection(0.1, ai_declaration="settings")
    review = reverse("admin:detector_detection_review", args=[detection.pk])
    words = "The file says that AI made it, or parts of it"
    assertNotContains(admin_client.get(review), words)
    admin_client.get(reverse("admin:detector_detection_change", args=[detection.pk]))  # after which no look is blind
    assertContains(admin_client.get(review), words)


def test_a_real_picture_says_nothing(tmp_path: Path) -> None:
    """A portrait that another program saved, with its profile and resolution."""
    path = tmp_path / "a.jpg"
    Image.new("RGB", (64, 64), "beige").save(path, dpi=(72, 72), icc_profile=b"profile" * 20, comment=b"from a camera")
    assert declared(path.read_bytes()) is Declaration.NONE
