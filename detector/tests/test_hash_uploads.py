"""`manage.py hash_uploads`: hashes, and what the file says, for uploads from before either was asked for."""

import hashlib
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from detector import known, services
from detector.images import decode_image
from detector.management.commands import hash_uploads
from detector.models import Detection, ReviewNeed
from detector.similarity import perceptual_hash
from detector.tests.factories import make_detection, make_jpeg

pytestmark = pytest.mark.django_db


def hash_all(**options: Any) -> tuple[str, str]:
    output, errors = StringIO(), StringIO()
    call_command("hash_uploads", stdout=output, stderr=errors, **options)
    return output.getvalue(), errors.getvalue()


def old_upload(seed: int = 0, **fields: Any) -> Detection:
    """As it was stored before there were hashes, and before its file was asked."""
    detection = make_detection(**{"data": make_jpeg(seed=seed), "ai_declaration": "", **fields})
    detection.perceptual_hash = None
    detection.save()
    return detection


def test_what_lacks_a_hash_gets_it_and_is_found_as_known() -> None:
    old, neither = old_upload(), old_upload(seed=1, sha256="")
    new = make_detection(data=make_jpeg())
    others = Detection.objects.filter(pk=new.pk).values().get()
    assert hash_all() == ("Read 2 pictures, skipped 0.\n", "")
    for detection, seed in ((old, 0), (neither, 1)):
        detection.refresh_from_db()
        data = make_jpeg(seed=seed)
        assert detection.sha256 == hashlib.sha256(data).hexdigest()
        assert detection.perceptual_hash == perceptual_hash(decode_image(data).pixels)
    assert [match.detection for match in known.matches(old)] == [new]
    assert Detection.objects.filter(pk=new.pk).values().get() == others


def test_hashes_that_are_there_and_everything_else_stay() -> None:
    old = old_upload(sha256="ab" * 32)
    before: dict[str, Any] = dict(Detection.objects.values().get())
    hash_all()
    after: dict[str, Any] = dict(Detection.objects.values().get())
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"ai_declaration", *(f"hash_band_{n}" for n in (1, 2, 3, 4))}
    assert Detection.objects.get(pk=old.pk).sha256 == "ab" * 32


def test_nothing_that_is_known_is_asked_anew() -> None:
    """A picture that was accepted before may be read otherwise by now."""
    hashed = make_detection(data=make_jpeg(), sha256="", ai_declaration="iptc")
    hashed.perceptual_hash = 0x0123_4567_89AB_CDEF
    hashed.save()
    hash_all()
    hashed.refresh_from_db()
    assert hashed.sha256 == hashlib.sha256(make_jpeg()).hexdigest()
    assert (hashed.perceptual_hash, hashed.ai_declaration) == (0x0123_4567_89AB_CDEF, "iptc")


def test_a_real_whose_file_says_ai_waits_for_a_review_then() -> None:
    data = make_jpeg(xmp=b"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia")
    before = make_detection(0.1, data=data, ai_declaration="", is_sampled=False)
    silent = make_detection(0.1, data=make_jpeg(seed=1), ai_declaration="")
    assert hash_all()[0] == "Read 2 pictures, skipped 0.\n"
    for detection, declared, need in ((before, "iptc", ReviewNeed.CONTRADICTED), (silent, "none", ReviewNeed.NONE)):
        detection.refresh_from_db()
        assert (detection.ai_declaration, detection.review_need) == (declared, need)


def test_what_is_deleted_meanwhile_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    gone, other = old_upload(), old_upload(seed=1)
    fill = services.file_facts_fill

    def delete_first(*, detection: Detection, keep: bool) -> None:
        if detection.pk == gone.pk:
            Detection.objects.filter(pk=gone.pk).update(image="elsewhere")  # the file stays, as when it was read
            Detection.objects.filter(pk=gone.pk).delete()
        fill(detection=detection, keep=keep)

    monkeypatch.setattr(services, "file_facts_fill", delete_first)
    assert hash_all()[0] == "Read 1 picture, skipped 0.\n"
    other.refresh_from_db()
    assert other.perceptual_hash is not None


def test_a_dry_run_counts_and_stores_nothing() -> None:
    old_upload()
    before = list(Detection.objects.values())
    assert hash_all(dry_run=True) == ("Read 1 picture, skipped 0. Nothing was stored.\n", "")
    assert list(Detection.objects.values()) == before


def test_missing_and_broken_files_are_named_and_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_uploads, "BATCH", 1)
    missing, broken, fine = (old_upload(seed=seed) for seed in range(3))
    Path(missing.image.path).unlink()
    Path(broken.image.path).write_bytes(b"no picture")
    output, errors = hash_all()
    assert output == "Read 1 picture, skipped 2.\n"
    assert f"{missing.pk}: its file is missing\n" in errors
    assert f"{broken.pk}: " in errors
    fine.refresh_from_db()
    assert fine.perceptual_hash is not None
    assert hash_all()[0] == "Read 0 pictures, skipped 2.\n"


def test_what_has_no_picture_is_left_alone() -> None:
    services.picture_forget(detection=old_upload())
    assert hash_all() == ("Read 0 pictures, skipped 0.\n", "")


def test_an_interrupted_run_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        old_upload(seed=seed)
    fill, calls = services.file_facts_fill, []

    def interrupt(**arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        fill(**arguments)

    monkeypatch.setattr(services, "file_facts_fill", interrupt)
    with pytest.raises(KeyboardInterrupt):
        hash_all()
    assert Detection.objects.lacking_file_facts().count() == 1
    assert hash_all()[0] == "Read 1 picture, skipped 0.\n"
