"""Detections and reviews as files, and reviewed pictures as a training set."""

import codecs
import csv
import errno
import io
import json
import os
from collections import Counter
from http import HTTPStatus
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from PIL import Image
from pytest_django import DjangoAssertNumQueries

from detector import exports, services
from detector.exports import BYTE_ORDER_MARK, neutral
from detector.images import decode_image
from detector.tests.factories import make_detection, make_face, make_jpeg, make_review, make_user
from detector.tests.test_known import remade

DETECTIONS, REVIEWS = (reverse(f"admin:detector_{name}_changelist") for name in ("detection", "review"))


def download(client: Client, address: str, action: str) -> Any:
    keys = [str(row.pk) for row in client.get(address).context["cl"].result_list]
    return client.post(address, {"action": action, "_selected_action": keys})


def body(response: Any) -> str:
    return b"".join(response.streaming_content).decode()


def export(**options: Any) -> str:
    output = StringIO()
    call_command("export_reviews", stdout=output, stderr=StringIO(), **options)
    return output.getvalue()


@pytest.mark.django_db
@pytest.mark.parametrize(("count", "words"), [(0, "0 reviews"), (1, "1 review"), (2, "2 reviews")])
def test_the_command_ends_with_how_many_there_were(count: int, words: str) -> None:
    for _ in range(count):
        make_review(make_detection())
    errors = StringIO()
    call_command("export_reviews", stdout=StringIO(), stderr=errors)
    assert errors.getvalue().strip() == words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("holiday.jpg", "holiday.jpg"),
        ("=1+1", "'=1+1"),
        ("+49 30 1234", "'+49 30 1234"),
        ("-2", "'-2"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t'=1"),
        ("\r=1", "'\r'=1"),
        ("\n=1", "'\n'=1"),
        ("  =1", "'  =1"),
        ("＝1", "'＝1"),
        ("a=1", "a=1"),
        ("'=1", "'=1"),
        # A semicolon ends a cell where it is the list separator.
        ("x;=1+1;.jpg", "x;'=1+1;.jpg"),
        ('x; "=1"', 'x;\' "=1"'),
        ("first\n-1", "first\n'-1"),
        ("first; second\nthird", "first; second\nthird"),
    ],
)
def test_what_a_spreadsheet_would_run_is_neutralised(text: str, expected: str) -> None:
    assert neutral(text) == expected


@pytest.mark.django_db
def test_detections_are_downloaded_as_csv_without_formulas(admin_client: Client) -> None:
    detection = make_detection(0.9, original_name='=HYPERLINK("http://evil.example")', owner=make_user("ada-lovelace"))
    services.appeal_create(detection=detection, text="@SUM(1+1)")
    make_review(detection, "real", note="-1")
    response = download(admin_client, DETECTIONS, "export_csv")
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response["Content-Disposition"].startswith('attachment; filename="detections-')
    text = body(response)
    (row,) = csv.DictReader(io.StringIO(text.removeprefix(BYTE_ORDER_MARK)))
    assert row["original_name"] == '\'=HYPERLINK("http://evil.example")'
    assert row["appeal_text"] == "'@SUM(1+1)"
    assert (row["id"], row["verdict"], row["fake_probability"]) == (str(detection.pk), "fake", "0.9")
    assert (row["review_verdict"], row["review_count"]) == ("real", "1")
    for secret in ("ada-lovelace", "session_key"):
        assert secret not in text


def test_a_spreadsheet_is_told_that_a_download_is_utf_8_and_a_program_is_not(admin_client: Client) -> None:
    """By the mark that Excel looks for; JSON and what commands print have none."""
    make_review(make_detection(0.9, original_name="Zoë.jpg"), "real", note="Überbelichtet")
    for address, words in ((DETECTIONS, "Zoë.jpg"), (REVIEWS, "Überbelichtet")):
        data = b"".join(download(admin_client, address, "export_csv").streaming_content)
        assert data.startswith(codecs.BOM_UTF8)
        assert words in data.decode("utf-8-sig")
        assert body(download(admin_client, address, "export_json")).startswith("[")
    assert export().startswith("detection_key,")


def test_an_uncertain_verdict_is_exported_as_one(admin_client: Client) -> None:
    make_review(make_detection(0.5), "real")
    for address in (DETECTIONS, REVIEWS):
        (row,) = json.loads(body(download(admin_client, address, "export_json")))
        assert (row["is_uncertain"], row["fake_probability"], row["real_probability"]) == (True, 0.5, 0.5)


@pytest.mark.django_db
def test_reviews_are_downloaded_as_json_as_they_are(admin_client: Client) -> None:
    make_review(make_detection(0.9), "real", note="=É")
    (row,) = json.loads(body(download(admin_client, REVIEWS, "export_json")))
    assert (row["verdict"], row["note"], row["is_blind"], row["machine_verdict"]) == ("real", "=É", False, "fake")


@pytest.mark.django_db
@pytest.mark.parametrize("address", [DETECTIONS, REVIEWS])
@pytest.mark.parametrize("action", ["export_csv", "export_json"])
def test_reviewers_may_export_what_they_see_and_others_nothing(address: str, action: str) -> None:
    review = make_review(make_detection(0.9, owner=make_user("ada-lovelace")), "real")
    rita = make_user("rita", is_staff=True)
    client = Client()
    client.force_login(rita)
    chosen = review.pk if "/review/" in address else review.detection_id
    post = {"action": action, "_selected_action": [str(chosen)]}
    assert client.post(address, post).status_code == HTTPStatus.FORBIDDEN
    rita.groups.add(Group.objects.get(name="Reviewers"))
    text = body(download(client, address, action))
    assert "0.9" in text
    assert "ada-lovelace" not in text


@pytest.mark.django_db
def test_the_command_prints_every_review() -> None:
    assert json.loads(export(format="json")) == []
    assert export().splitlines()[0].startswith("detection_key,ordinal,")
    detection = make_detection(0.9)
    make_review(detection, "real", note="=1")
    make_review(detection, "fake")
    rows = list(csv.DictReader(io.StringIO(export())))
    assert [(row["verdict"], row["note"]) for row in rows] == [("real", "'=1"), ("fake", "")]
    assert [row["note"] for row in json.loads(export(format="json"))] == ["=1", ""]


@pytest.mark.django_db
def test_reviewed_pictures_become_a_set_that_training_reads(tmp_path: Path) -> None:
    from training.data import FAKE, REAL, read_manifest

    expected = {}
    for seed, (verdict, label) in enumerate([("real", "0_real"), ("fake", "1_fake"), ("fake", "1_fake")]):
        detection = make_detection(0.9, data=make_jpeg(seed=seed))
        make_review(detection, verdict)
        expected[f"{label}/{detection.pk}.jpg"] = FAKE if verdict == "fake" else REAL
    make_review(make_detection(0.9, data=make_jpeg(seed=7)), "cant_tell")
    make_review(make_detection(no_face=True, data=make_jpeg(seed=8)), "real")
    forgotten = make_detection(0.9, data=make_jpeg(seed=9))
    make_review(forgotten, "real")
    services.picture_forget(detection=forgotten)
    make_detection(0.9)
    folder = tmp_path / "reviewed"
    assert "Wrote 1 real and 2 fake pictures" in export(dataset=folder)
    samples = read_manifest(folder)
    assert {sample.path: sample.label for sample in samples} == expected
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.jpg")} == set(expected)
    for sample in samples:
        assert sample.yunet == (100.0, 60.0, 80.0, 80.0)
        assert sample.generator == ("unknown" if sample.label == FAKE else "photo")
        assert decode_image((folder / sample.path).read_bytes()).width == 320


@pytest.mark.django_db
def test_a_face_at_the_end_of_a_long_picture_keeps_its_place(tmp_path: Path) -> None:
    """Of which 282 x 5,000 px are written: 1125 / 282 is less than 4."""
    data = make_jpeg(1125, 20_000)
    faces = [make_face(0.9, x=450, y=18_800, side=300).as_dict()]
    make_review(make_detection(data=data, width=1125, height=20_000, faces=faces), "fake")
    export(dataset=tmp_path / "set")
    with (tmp_path / "set" / "manifest.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert [row[name] for name in ("width", "height")] == ["282", "5000"]
    assert [row[name] for name in ("face_x", "face_y", "face_w", "face_h")] == ["112.8", "4700.0", "75.2", "75.0"]


@pytest.mark.django_db
def test_pictures_that_look_alike_share_a_group(tmp_path: Path) -> None:
    from training.data import read_manifest

    for seed in range(4):
        for data in (make_jpeg(seed=seed), make_jpeg(seed=seed), remade(make_jpeg(seed=seed))):
            make_detection(0.9, data=data, review_verdict="fake")
    export(dataset=tmp_path / "set")
    groups = [sample.group for sample in read_manifest(tmp_path / "set")]
    assert len(set(groups)) == 4
    assert all(groups[place] == groups[place - place % 3] for place in range(12))


@pytest.mark.django_db
def test_a_picture_that_is_here_many_times_is_asked_for_few_times(
    tmp_path: Path, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    first, *others = (make_detection(0.9, data=make_jpeg()) for _ in range(30))
    for number, other in enumerate(others):
        other.sha256 = f"{number:064x}"  # as if saved anew, each time with other bytes and the same look
        other.save()
    make_review(first, "fake")
    with django_assert_max_num_queries(12):
        export(dataset=tmp_path / "set")


@pytest.mark.django_db
def test_flat_pictures_are_not_taken_for_alike(tmp_path: Path) -> None:
    blank = io.BytesIO()
    Image.new("RGB", (320, 240), "white").save(blank, "PNG")
    for data in (blank.getvalue(), remade(blank.getvalue())):
        make_review(make_detection(0.9, data=data), "fake")
    export(dataset=tmp_path / "set")
    assert len({group for group, _split in splits(tmp_path / "set").values()}) == 2


def splits(folder: Path) -> dict[str, tuple[str, str]]:
    """Group and split of each picture's key."""
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return {Path(row["path"]).stem: (row["group"], row["split"]) for row in csv.DictReader(file)}


@pytest.mark.django_db
def test_a_picture_keeps_its_split_when_an_older_one_like_it_is_reviewed(tmp_path: Path) -> None:
    older, newer = [], []
    for seed in range(8):
        data = make_jpeg(seed=seed)
        older.append(make_detection(0.9, data=remade(data)))
        newer.append(make_detection(0.9, data=data))
        make_review(newer[-1], "fake")
    export(dataset=tmp_path / "first")
    first = splits(tmp_path / "first")
    for seed in range(8):
        make_detection(0.9, data=remade(remade(make_jpeg(seed=seed))))  # later ones have no say
    for number, detection in enumerate(older):
        make_review(detection, "fake")
        if number % 2:
            services.picture_forget(detection=detection)
    export(dataset=tmp_path / "second")
    second = splits(tmp_path / "second")
    assert len(first) == 8
    assert len(second) == 12
    assert {key: second[key] for key in first} == first
    assert all(second[str(older[place].pk)] == second[str(newer[place].pk)] for place in range(0, 8, 2))


def test_eight_in_ten_groups_are_trained_on_and_each_keeps_its_split() -> None:
    found = Counter(exports._split(f"{number:012x}") for number in range(2000))
    assert found["train"] == pytest.approx(1600, abs=80)
    assert (found["val"], found["test"]) == pytest.approx((200, 200), abs=50)
    # Their SHA-256 begin with 2cf24dba, 8b5b9db0 and 3f79bb7b: 754077114, 2338037168 and 1064942459, of which the
    # last digit counts.
    assert [exports._split(group) for group in ("hello", "three", "e")] == ["train", "val", "test"]


@pytest.mark.django_db
def test_pictures_are_linked_by_one_that_nobody_reviewed(tmp_path: Path) -> None:
    for flipped, verdict in ((0, "real"), (6, ""), (12, "real")):
        detection = make_detection(sha256=f"{flipped:064x}", review_verdict=verdict)
        detection.perceptual_hash = 0x0123_4567_89AB_CDEF ^ (1 << flipped) - 1
        detection.save()
    make_detection(sha256="cd" * 32, review_verdict="real")  # from before there were hashes
    export(dataset=tmp_path / "set")
    groups = [group for group, _ in splits(tmp_path / "set").values()]
    assert groups == ["0" * 12, "0" * 12, "cd" * 6]


@pytest.mark.django_db
def test_what_is_like_another_in_a_quarter_alone_has_a_group_of_its_own(tmp_path: Path) -> None:
    """By one of the four bands of its hash it is found, and is not near."""
    for number, value in enumerate((0x0123_4567_89AB_CDEF, 0x0123_BA98_7654_3210)):
        detection = make_detection(sha256=f"{number}" * 64, review_verdict="real")
        detection.perceptual_hash = value
        detection.save()
    export(dataset=tmp_path / "set")
    assert len({group for group, _split in splits(tmp_path / "set").values()}) == 2


@pytest.mark.django_db
def test_the_set_holds_pixels_alone(tmp_path: Path) -> None:
    make_detection(0.9, data=make_jpeg(comment=b"Ada's kitchen"), review_verdict="real", original_name="ada.jpg")
    export(dataset=tmp_path / "set")
    everything = b"".join(path.read_bytes() for path in (tmp_path / "set").rglob("*") if path.is_file())
    for secret in (b"kitchen", b"ada.jpg"):
        assert secret not in everything


@pytest.mark.django_db
def test_what_cannot_be_read_is_counted_and_left_out(tmp_path: Path) -> None:
    missing, damaged, whole = (make_detection(0.9, data=make_jpeg(), review_verdict="real") for _ in range(3))
    Path(missing.image.path).unlink()
    Path(damaged.image.path).write_bytes(make_jpeg()[:500])
    assert "2 had no readable file" in export(dataset=tmp_path / "set")
    assert splits(tmp_path / "set").keys() == {str(whole.pk)}


def counted(real: int = 0, fake: int = 0) -> dict[str, int]:
    return {"0_real": real, "1_fake": fake, "uncertain": 0, "skipped": 0, "several_faces": 0}


@pytest.mark.django_db
def test_of_several_faces_none_is_taught_as_fake(tmp_path: Path) -> None:
    for data, verdict in ((make_jpeg(seed=1), "fake"), (make_jpeg(seed=2), "real")):
        make_review(make_detection(0.9, 0.2, data=data), verdict)
    make_review(make_detection(0.9, data=make_jpeg(seed=3), unjudged_faces=1), "fake")
    single = make_detection(0.9, data=make_jpeg(seed=4))
    make_review(single, "fake")
    output = export(dataset=tmp_path / "set")
    assert "Wrote 1 real and 1 fake pictures" in output
    assert "Left out: 2 reviewed as fake that have several faces" in output
    assert [path.stem for path in (tmp_path / "set" / "1_fake").iterdir()] == [str(single.pk)]


@pytest.mark.django_db
def test_the_manifest_says_how_pictures_came_to_review(tmp_path: Path) -> None:
    drawn: dict[str, Any] = {"is_sampled": True, "sample_percent": 5.0}
    for options in ({}, {"sample_percent": 5.0}, drawn):
        make_review(make_detection(0.9, **options), "fake")
    make_review(make_detection(0.5, **drawn), "real")
    output = export(dataset=tmp_path / "set")
    assert "1 of those written had an uncertain answer" in output
    assert "fit no prior" in output
    with (tmp_path / "set" / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [(row["stratum"], float(row["queued_percent"])) for row in csv.DictReader(file)]
    assert rows == [("fake", 0.0), ("fake", 0.0), ("fake", 5.0), ("uncertain_fake", 100.0)]


@pytest.mark.django_db
def test_what_is_reviewed_while_a_set_is_written_waits_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_review(make_detection())
    late = make_detection()
    find_groups = exports._groups

    def review_then(reviewed: Any) -> Any:
        groups = find_groups(reviewed)
        make_review(late, "fake")
        return groups

    with monkeypatch.context() as patch:
        patch.setattr(exports, "_groups", review_then)
        assert exports.dataset_write(tmp_path / "now") == counted(real=1)
    assert exports.dataset_write(tmp_path / "next") == counted(real=1, fake=1)


@pytest.mark.django_db
def test_a_set_is_for_this_user_s_eyes_alone(tmp_path: Path) -> None:
    make_review(make_detection())
    export(dataset=tmp_path / "set")
    written = [tmp_path / "set", *(tmp_path / "set").rglob("*")]
    assert {(path.is_dir(), path.stat().st_mode & 0o777) for path in written} == {(True, 0o700), (False, 0o600)}


@pytest.mark.django_db
def test_a_set_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_review(make_detection())

    def fail(path: str, flags: int) -> int:
        if path.endswith(".jpg"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.open(path, flags)

    monkeypatch.setattr(exports, "_private", fail)
    with pytest.raises(CommandError, match="incomplete: No space left on device"):
        export(dataset=tmp_path / "set")


@pytest.mark.django_db
def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(CommandError, match="not an empty folder"):
        export(dataset=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_that_cannot_be_looked_into_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be looked into: File name too long"):
        export(dataset=tmp_path / ("x" * 300))
