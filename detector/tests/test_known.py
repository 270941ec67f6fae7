"""Pictures that were uploaded before: found by hash, told to whom it concerns."""

import io
import itertools
from http import HTTPStatus
from typing import Any

import numpy as np
import pytest
from django.test import Client
from django.urls import reverse
from PIL import Image
from pytest_django import DjangoAssertNumQueries, Settings
from pytest_django.asserts import assertContains, assertNotContains

from detector import known, services
from detector.images import decode_image, fitted
from detector.models import Detection
from detector.similarity import (
    HASHED_SIDE,
    NEAR_DISTANCE,
    distance,
    from_bands,
    from_text,
    is_telling,
    perceptual_hash,
    to_bands,
    to_text,
    within_one_bit,
)
from detector.tests.factories import VISITOR_KEY, FakePredictor, make_detection, make_jpeg, make_review, make_user


def remade(data: bytes, scale: float = 0.6, quality: int = 40) -> bytes:
    """The same picture smaller and compressed more."""
    picture = Image.open(io.BytesIO(data))
    buffer = io.BytesIO()
    size = (round(picture.width * scale), round(picture.height * scale))
    picture.resize(size).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def hash_of(data: bytes) -> int:
    return perceptual_hash(decode_image(data).pixels)


def test_a_remade_picture_is_near_and_another_is_far() -> None:
    for seed in range(8):
        original = make_jpeg(seed=seed)
        assert distance(hash_of(original), hash_of(remade(original))) <= NEAR_DISTANCE
        assert distance(hash_of(original), hash_of(make_jpeg(seed=seed + 100))) > NEAR_DISTANCE


@pytest.mark.parametrize("size", [(100, 80), (300, 200), (511, 700), (1154, 866), (2048, 40)])
def test_a_small_copy_has_the_hash_of_its_picture(size: tuple[int, int]) -> None:
    picture = decode_image(make_jpeg(*size)).picture
    small = fitted(picture, HASHED_SIDE)
    assert max(small.size) <= HASHED_SIDE
    assert perceptual_hash(small) == perceptual_hash(picture)


def test_a_hash_is_kept_in_bands_and_written_as_text() -> None:
    value = 0x0123_4567_89AB_CDEF
    assert to_bands(value) == (0x0123, 0x4567, 0x89AB, 0xCDEF)
    assert from_bands(to_bands(value)) == value
    assert from_text(to_text(value)) == value
    assert to_text(1) == "0000000000000001"
    for text in ("", "123", "x" * 16, "0" * 64):
        assert from_text(text) is None


def test_two_hashes_that_differ_in_seven_bits_always_share_a_band_but_for_one_bit() -> None:
    value, random = 0x0123_4567_89AB_CDEF, np.random.default_rng(0)
    for _ in range(200):
        flips = random.choice(64, NEAR_DISTANCE + 1, replace=False)
        other = value ^ sum(1 << int(bit) for bit in flips)
        pairs = zip(to_bands(value), to_bands(other), strict=True)
        assert any(theirs in set(within_one_bit(ours)) for ours, theirs in pairs)


@pytest.mark.parametrize(("value", "expected"), [(0, False), (0b11111, False), (0b111111, True), (2**64 - 1, False)])
def test_a_hash_without_structure_tells_nothing(value: int, expected: bool) -> None:
    assert is_telling(value) is expected


def upload(data: bytes, **fields: Any) -> Detection:
    return make_detection(data=data, **fields)


@pytest.mark.django_db
def test_every_upload_gets_its_hashes(predictor: FakePredictor) -> None:
    data = make_jpeg()
    for keep in (True, False):
        created = services.detection_create(
            owner=None,
            session_key=VISITOR_KEY,
            data=data,
            image=decode_image(data),
            original_name="",
            keep_picture=keep,
        )
        assert Detection.objects.get(pk=created.pk).perceptual_hash == hash_of(data)


@pytest.mark.django_db
def test_the_same_file_comes_before_what_only_looks_the_same() -> None:
    data = make_jpeg()
    detection, near, same = upload(data), upload(remade(data)), upload(data)
    upload(make_jpeg(seed=1))
    found = known.matches(detection)
    assert [(match.detection, match.is_same_file) for match in found] == [(same, True), (near, False)]
    assert found[1].bits <= NEAR_DISTANCE


@pytest.mark.django_db
def test_blank_pictures_are_not_alike() -> None:
    blank = io.BytesIO()
    Image.new("RGB", (320, 240), "white").save(blank, "PNG")
    detection = upload(blank.getvalue())
    upload(remade(blank.getvalue()))
    assert known.matches(detection) == []


@pytest.mark.django_db
def test_a_detection_from_before_there_were_hashes_has_no_near_ones() -> None:
    detection = make_detection(sha256="cd" * 32)
    assert detection.perceptual_hash_text == ""
    make_detection()
    assert known.matches(detection) == []


@pytest.mark.django_db
def test_files_without_a_sha256_are_not_taken_for_one(visitor: Client) -> None:
    """As `hash_uploads` has not been run, or could not read them."""
    data = make_jpeg()
    other, near, mine = upload(make_jpeg(seed=1), sha256=""), upload(remade(data), sha256=""), upload(data, sha256="")
    make_review(other, "real")
    assert [(match.detection, match.is_same_file) for match in known.matches(mine)] == [(near, False)]
    assertNotContains(visitor.get(mine.get_absolute_url()), "was uploaded before")
    make_review(near, "real")
    assertContains(visitor.get(mine.get_absolute_url()), "the review does not settle yours")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("change", "sentence"), [(lambda data: data, "This very file"), (remade, "the review does not settle yours")]
)
def test_the_uploader_learns_that_people_have_judged_such_a_picture(
    visitor: Client, change: Any, sentence: str
) -> None:
    data = make_jpeg()
    other = upload(data, owner=make_user("ada-lovelace"), original_name="in-the-bath.jpg")
    mine = upload(change(data))
    assertNotContains(visitor.get(mine.get_absolute_url()), "was uploaded before")
    make_review(other, "real", note="Compared with the passport.")
    response = visitor.get(mine.get_absolute_url())
    assertContains(response, sentence)
    for secret in (str(other.pk), "ada-lovelace", "in-the-bath", "passport"):
        assertNotContains(response, secret)


@pytest.mark.django_db
def test_one_query_says_that_there_is_none(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    data = make_jpeg()
    same, near = upload(data), upload(remade(data))
    make_review(upload(make_jpeg(seed=1)), "real")
    mine = upload(data)
    with django_assert_num_queries(1):
        assert known.reviewed_match(mine) is None
    for other, is_same_file in ((near, False), (same, True)):
        make_review(other, "fake")
        match = known.reviewed_match(mine)
        assert match is not None
        assert (match.detection, match.is_same_file) == (other, is_same_file)


@pytest.mark.django_db
@pytest.mark.parametrize("change", [lambda data: data, remade])
def test_what_was_uploaded_later_is_not_told(
    visitor: Client, change: Any, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    data = make_jpeg()
    mine = upload(data)
    make_review(upload(change(data)), "real")
    assertNotContains(visitor.get(mine.get_absolute_url()), "was uploaded before")
    with django_assert_num_queries(1):
        assert known.reviewed_match(mine) is None


@pytest.mark.django_db
def test_a_picture_of_which_the_hash_tells_nothing_is_not_looked_for() -> None:
    reviewed, mine = upload(make_jpeg()), upload(make_jpeg(seed=1))
    make_review(reviewed, "real")
    Detection.objects.update(hash_band_1=0, hash_band_2=0, hash_band_3=0, hash_band_4=0)
    mine.refresh_from_db()
    assert known.reviewed_match(mine) is None


@pytest.mark.django_db
def test_a_picture_that_only_shares_a_part_of_the_hash_is_no_match() -> None:
    mine, far = upload(make_jpeg()), upload(make_jpeg(seed=1))
    first, second, third, fourth = to_bands(mine.perceptual_hash or 0)
    far.perceptual_hash = from_bands((first, second ^ 0xFFFF, third, fourth))
    far.save()
    assert known.matches(mine) == []


@pytest.mark.django_db
def test_a_match_beyond_the_most_candidates_is_still_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "MOST_CANDIDATES", 1)
    data = make_jpeg()
    same = upload(data)
    first, second, third, fourth = to_bands(same.perceptual_hash or 0)
    distant = from_bands((first, second ^ 0xFFFF, third ^ 0xFFFF, fourth))  # shares a band, and is far all the same
    for _ in range(2):
        far = upload(make_jpeg(seed=1))
        far.perceptual_hash = distant
        far.save()
        make_review(far, "real")
    make_review(same, "real")
    mine = upload(data)
    match = known.reviewed_match(mine)
    assert match is not None
    assert match.detection == same


@pytest.mark.django_db
def test_neither_doubt_nor_an_open_dispute_is_told(visitor: Client, settings: Settings) -> None:
    settings.REVIEWERS_NEEDED = 2
    data = make_jpeg()
    doubted, disputed, mine = upload(data), upload(data), upload(data)
    make_review(doubted, "cant_tell")
    make_review(disputed, "real")
    assertNotContains(visitor.get(mine.get_absolute_url()), "was uploaded before")


@pytest.mark.django_db
@pytest.mark.parametrize("is_same_file", [True, False])
def test_people_who_did_not_agree_are_not_told_as_one(visitor: Client, is_same_file: bool) -> None:
    data = make_jpeg()
    before = data if is_same_file else remade(data)
    for verdict in ("real", "fake"):
        upload(before, review_verdict=verdict)
    # What looks alike is no copy of the file, so it disputes nothing about the copies.
    upload(make_jpeg(seed=1), review_verdict="fake")
    detection = upload(data)
    assertContains(visitor.get(reverse("detector:detection", args=[detection.pk])), "did not agree")


@pytest.mark.django_db
def test_what_was_said_of_this_very_upload_counts_for_more(visitor: Client) -> None:
    data = make_jpeg()
    upload(data, review_verdict="real")
    detection = upload(data, review_verdict="fake")
    assertNotContains(visitor.get(reverse("detector:detection", args=[detection.pk])), "uploaded before")


@pytest.mark.django_db
def test_only_the_uploader_is_told(admin_client: Client) -> None:
    data = make_jpeg()
    make_review(upload(data), "real")
    assertNotContains(admin_client.get(upload(data).get_absolute_url()), "was uploaded before")


@pytest.mark.django_db
def test_the_admin_shows_duplicates_with_what_people_said(admin_client: Client, settings: Settings) -> None:
    data = make_jpeg()
    detection, near = upload(data), upload(remade(data))
    make_review(near, "fake")
    link = reverse("admin:detector_detection_change", args=[near.pk])
    page, review = (reverse(f"admin:detector_detection_{name}", args=[detection.pk]) for name in ("change", "review"))
    for address in (review, page):
        assertContains(admin_client.get(address), link)
    settings.REVIEW_BLIND = True
    admin_client.logout()
    admin_client.force_login(make_user("root", is_staff=True, is_superuser=True))
    assertNotContains(admin_client.get(review), link)


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ["sha256", "perceptual_hash_text"])
def test_the_admin_finds_by_either_hash(admin_client: Client, kind: str) -> None:
    data = make_jpeg()
    detection = upload(data, original_name="first.jpg")
    upload(remade(data), original_name="second.jpg")
    upload(make_jpeg(seed=1), original_name="other.jpg")
    response = admin_client.get(reverse("admin:detector_detection_changelist"), {"q": getattr(detection, kind).upper()})
    assert response.status_code == HTTPStatus.OK
    names = {found.original_name for found in response.context["cl"].result_list}
    assert names == ({"first.jpg"} if kind == "sha256" else {"first.jpg", "second.jpg"})


@pytest.mark.django_db
def test_near_ones_are_found_by_index() -> None:
    plan = Detection.objects.near_hash(0x0123_4567_89AB_CDEF).explain()
    assert "MULTI-INDEX OR" in plan
    assert all(f"hash_band_{number}" in plan for number in range(1, 5))
    assert "SCAN" not in plan.replace("SCALAR", "")
    both = Detection.objects.near_hash(0x0123_4567_89AB_CDEF, or_file="0" * 64).explain()
    assert "MULTI-INDEX OR" in both
    assert "sha256" in both
    assert "SCAN" not in both.replace("SCALAR", "")


def test_hashes_of_many_pictures_spread() -> None:
    values = [hash_of(make_jpeg(seed=seed)) for seed in range(30)]
    assert all(distance(one, other) > NEAR_DISTANCE for one, other in itertools.combinations(values, 2))
