import errno
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from django.contrib.auth.models import User
from django.core.files.storage import FileSystemStorage
from django.db import DatabaseError, IntegrityError, connection, transaction
from PIL import Image
from pytest_django import Settings

import detector.faces
import detector.predictor
from detector import services
from detector.exceptions import AnalysisFailed, ModelUnavailable
from detector.images import decode_image, encode_jpeg, fitted
from detector.models import Detection
from detector.predictor import DecisionRule, Prediction, Predictor, forget_predictors
from detector.similarity import HASHED_SIDE, perceptual_hash
from detector.tests.factories import (
    VISITOR_KEY,
    FakePredictor,
    make_detection,
    make_face,
    make_jpeg,
    make_picture,
    make_prediction,
    make_user,
)


def create(data: bytes | None = None, owner: User | None = None) -> Detection:
    data = data or make_jpeg()
    return services.detection_create(
        owner=owner, session_key=VISITOR_KEY, data=data, image=decode_image(data), original_name="holiday.jpg"
    )


def stored(media_root: Path) -> list[Path]:
    return [path for path in media_root.rglob("*") if path.is_file()]


@pytest.mark.django_db
def test_a_detection_keeps_what_the_model_said_and_the_bytes_as_they_came(
    predictor: FakePredictor, media_root: Path
) -> None:
    predictor.fake_probabilities = (0.2, 0.8)
    data = make_picture(400, 300, file_format="PNG")
    detection = Detection.objects.get(pk=create(data).pk)
    assert (detection.status, detection.verdict, detection.fake_probability) == ("done", "fake", 0.8)
    assert [face["fake_probability"] for face in detection.faces] == [0.8, 0.2]
    assert len(detection.faces[0]["cam"]) == 7
    assert (detection.format, detection.width, detection.height, detection.byte_count) == ("PNG", 400, 300, len(data))
    assert detection.model_version == "test-1"
    assert detection.timings_ms["total"] == 6.0
    assert (detection.threshold, detection.uncertain_above) == (0.7, 0.3)
    assert Path(detection.image.path).read_bytes() == data
    assert max(decode_image(Path(detection.thumbnail.path).read_bytes()).pixels.shape) == 256
    assert len(stored(media_root)) == 2


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("size", "middle", "shown"),
    [
        ((4000, 400), (1600, 0, 2400, 400), (256, 128)),
        ((300, 6000), (0, 2700, 300, 3300), (128, 256)),
        ((40, 400), (0, 160, 40, 240), (40, 80)),
        ((1000, 400), (0, 0, 1000, 400), (250, 100)),  # just not long
    ],
)
def test_the_thumbnail_of_a_long_picture_shows_its_middle(
    predictor: FakePredictor, size: tuple[int, int], middle: tuple[int, int, int, int], shown: tuple[int, int]
) -> None:
    picture = Image.new("RGB", size, "navy")
    picture.paste("white", middle)
    data = encode_jpeg(picture)
    detection = create(data)
    with Image.open(detection.thumbnail.path) as thumbnail:
        assert thumbnail.size == shown
        assert np.asarray(thumbnail).min() > 240
    whole = fitted(decode_image(data).picture, HASHED_SIDE)
    assert detection.perceptual_hash == perceptual_hash(whole), "copies are found by the whole"


@pytest.mark.django_db
def test_an_answer_on_a_face_that_is_too_small_is_kept_as_undecided(
    predictor: FakePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    undecided = make_prediction(0.01, rule=DecisionRule().undecided())
    monkeypatch.setattr(predictor, "predict", lambda *arguments, **options: undecided)
    detection = Detection.objects.get(pk=create().pk)
    assert (detection.verdict, detection.threshold, detection.is_uncertain) == ("real", 0.7, True)
    assert (detection.uncertain_above, detection.uncertain_up_to) == (0.0, 1.0)


@pytest.mark.django_db
def test_each_face_keeps_its_own_answer_beside_that_of_the_picture(
    predictor: FakePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picture's is undecided where one face is too small, which says nothing of the others."""
    faces = (make_face(0.28, side=80), make_face(0.02, side=39), make_face(0.01, side=80))
    undecided = replace(make_prediction(), faces=faces, rule=DecisionRule().undecided())
    monkeypatch.setattr(predictor, "predict", lambda *arguments, **options: undecided)
    monkeypatch.setattr(predictor, "rule", lambda threshold: DecisionRule(threshold, uncertain_up_to=0.9))
    faces_kept = Detection.objects.get(pk=create().pk).faces
    assert [face["is_uncertain"] for face in faces_kept] == [True, True, False]


@pytest.mark.django_db
def test_nobody_else_on_the_machine_reads_what_is_stored(predictor: FakePredictor, media_root: Path) -> None:
    create()
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in media_root.rglob("*")}
    assert modes == {(True, 0o700), (False, 0o600)}


@pytest.mark.django_db
def test_the_settings_rule_decides(predictor: FakePredictor, settings: Settings) -> None:
    predictor.fake_probabilities = (0.25,)
    assert create().verdict == "real"
    settings.REAL_THRESHOLD = 0.8
    detection = create()
    assert (detection.verdict, detection.threshold) == ("fake", 0.8)


@pytest.mark.model
@pytest.mark.parametrize("find", [services.active_predictor, lambda: services.named_predictor("mobilenet_v2")])
def test_the_model_assumes_and_takes_what_the_settings_say(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, find: Callable[[], Predictor]
) -> None:
    settings.FAKE_PRIOR, settings.PREDICTOR_THREADS = 0.05, 3
    threads: dict[str, list[int]] = {"networks": [], "faces": []}
    for module, made in zip((detector.predictor, detector.faces), threads.values(), strict=True):

        def make(made: list[int] = made, **options: Any) -> Interpreter:
            made.append(options["num_threads"])
            return Interpreter(**options)

        monkeypatch.setattr(module, "Interpreter", make)
    forget_predictors()
    model = find()
    model.reserve(2)  # of each network, and of the two that find faces
    assert (model.prior, model.version) == (0.05, f"{model.spec.version}@0.05")
    assert threads == {"networks": [3] * 2 * len(model.spec.networks), "faces": [3] * 4}


@pytest.mark.django_db
def test_an_owner_s_detection_has_no_session(predictor: FakePredictor) -> None:
    assert create(owner=make_user()).session_key == ""


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AnalysisFailed("The network broke."), "analysis_failed"),
        (RuntimeError("anything else"), "analysis_failed"),
        (ModelUnavailable("No model."), "model_unavailable"),
    ],
)
def test_a_broken_analysis_is_kept_without_a_verdict_and_logged(
    predictor: FakePredictor, error: Exception, code: str, media_root: Path, logged: list[str]
) -> None:
    predictor.error = error
    detection = Detection.objects.get(pk=create().pk)
    assert (detection.status, detection.verdict, detection.fake_probability) == ("failed", "", None)
    assert (detection.error_code, detection.faces) == (code, [])
    assert any(str(detection.pk) in message for message in logged)
    assert len(stored(media_root)) == 2


@pytest.mark.django_db(transaction=True)
def test_nothing_is_judged_inside_a_transaction(predictor: FakePredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = []
    predict = predictor.predict

    def watch(*args: Any, **kwargs: Any) -> Prediction:
        inside.append(connection.in_atomic_block)
        return predict(*args, **kwargs)

    monkeypatch.setattr(predictor, "predict", watch)
    create()
    assert inside == [False]


@pytest.mark.django_db
def test_no_file_is_left_when_the_database_fails(
    predictor: FakePredictor, media_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        assert len(stored(media_root)) == 3, "with the note that they are on their way"
        raise DatabaseError("server closed the connection unexpectedly")

    monkeypatch.setattr(Detection, "save", fail)
    with pytest.raises(DatabaseError):
        create()
    assert stored(media_root) == []
    assert not Detection.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("keep_picture", [True, False])
def test_what_the_database_refuses_is_not_laid_to_an_account_that_is_there(
    predictor: FakePredictor, media_root: Path, monkeypatch: pytest.MonkeyPatch, keep_picture: bool
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise IntegrityError("CHECK constraint failed: detection_thresholds_in_unit_range")

    monkeypatch.setattr(Detection, "save", refuse)
    owner, data = make_user(), make_jpeg()
    with pytest.raises(IntegrityError, match="thresholds_in_unit_range"):
        services.detection_create(
            owner=owner,
            session_key="",
            data=data,
            image=decode_image(data),
            original_name="",
            keep_picture=keep_picture,
        )
    assert stored(media_root) == []


@pytest.mark.django_db
def test_no_file_is_left_when_a_constraint_fails(predictor: FakePredictor, media_root: Path) -> None:
    data = make_jpeg()
    with pytest.raises(DatabaseError):
        services.detection_create(
            owner=None, session_key="", data=data, image=decode_image(data), original_name="nobody's.jpg"
        )
    assert stored(media_root) == []


@pytest.mark.django_db
@pytest.mark.parametrize("failing_file", [1, 2, 3], ids=["note", "picture", "thumbnail"])
def test_neither_row_nor_part_of_a_file_is_left_when_the_disk_is_full(
    predictor: FakePredictor, media_root: Path, monkeypatch: pytest.MonkeyPatch, failing_file: int
) -> None:
    written = []
    save = FileSystemStorage._save  # type: ignore[attr-defined]

    def fill_up(storage: FileSystemStorage, name: str, content: Any) -> str:
        written.append(name)
        if len(written) < failing_file:
            return str(save(storage, name, content))
        path = Path(storage.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.read(100))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FileSystemStorage, "_save", fill_up)
    with pytest.raises(OSError, match="No space left"):
        create()
    assert stored(media_root) == []
    assert not Detection.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_row_and_files_go_together(media_root: Path) -> None:
    detection = make_detection()
    assert len(stored(media_root)) == 2
    services.detection_delete(detection=detection)
    assert not Detection.objects.exists()
    assert stored(media_root) == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("way", ["queryset", "account"])
def test_files_go_however_the_row_goes(media_root: Path, way: str) -> None:
    owner = make_user()
    make_detection(owner=owner)
    make_detection(owner=owner)
    if way == "queryset":
        Detection.objects.all().delete()
    else:
        owner.delete()
    assert not Detection.objects.exists()
    assert stored(media_root) == []


@pytest.mark.django_db(transaction=True)
def test_files_stay_when_the_row_stays(media_root: Path) -> None:
    detection = make_detection()

    def delete_and_fail() -> None:
        with transaction.atomic():
            services.detection_delete(detection=Detection.objects.get())
            raise DatabaseError("something later in the same transaction")

    with pytest.raises(DatabaseError):
        delete_and_fail()
    assert Detection.objects.get() == detection
    # The note that they were about to go, which is settled when this process has ended, finds that they are known.
    assert sorted(path.name for path in stored(media_root)) == sorted([f"{detection.pk}.jpg"] * 2 + [str(detection.pk)])


@pytest.mark.django_db(transaction=True)
def test_a_file_that_is_gone_already_does_not_stop_a_deletion(media_root: Path) -> None:
    detection = make_detection()
    Path(detection.image.path).unlink()
    services.detection_delete(detection=detection)
    assert not Detection.objects.exists()
    assert stored(media_root) == []


@pytest.mark.django_db(transaction=True)
def test_a_file_that_cannot_be_removed_is_named_in_the_log(monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> None:
    detection = make_detection()

    def refuse(storage: FileSystemStorage, name: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(FileSystemStorage, "delete", refuse)
    services.detection_delete(detection=detection)
    assert not Detection.objects.exists()
    assert f"Could not remove {detection.image.name}" in logged


@pytest.mark.django_db
def test_a_session_s_detections_move_to_the_account() -> None:
    ada, grace = make_user("ada"), make_user("grace")
    mine, stranger_s, grace_s = make_detection(), make_detection(session_key="f" * 40), make_detection(owner=grace)
    assert services.detections_claim(session_key=VISITOR_KEY, user=ada) == 1
    for detection, owner, key in ((mine, ada, ""), (stranger_s, None, "f" * 40), (grace_s, grace, "")):
        detection.refresh_from_db()
        assert (detection.owner, detection.session_key) == (owner, key)
    assert services.detections_claim(session_key="", user=ada) == 0


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("", ""),
        ("a/b\\c.jpg", "c.jpg"),
        ("nul\x00l.jpg", "null.jpg"),
        ("e\u0301te\u0301.jpg", "été.jpg"),
        ("\u202egpj.exe", "gpj.exe"),
        ("<script>.jpg", "<script>.jpg"),
        ("y" * 400, "y" * 255),
    ],
)
def test_a_name_is_shown_without_what_cannot_be_seen(name: str, shown: str) -> None:
    assert services.display_name(name) == shown


@pytest.mark.parametrize(
    ("processors", "processes", "at_once", "wanted"),
    [(1, 2, 2, 1), (2, 2, 2, 1), (3, 2, 2, 1), (4, 2, 2, 2), (64, 2, 2, 2), (64, 2, 1, 1), (2, 1, 2, 2), (4, 4, 2, 1)],
)
def test_no_more_networks_are_made_than_a_process_has_processors(
    predictor: FakePredictor,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    processors: int,
    processes: int,
    at_once: int,
    wanted: int,
) -> None:
    made: list[int] = []
    monkeypatch.setattr(predictor, "reserve", made.append)
    monkeypatch.setattr(services, "processor_count", lambda: processors)
    settings.DETECTIONS_AT_ONCE = at_once
    services.predictor_reserve(processes=processes)
    assert made == [wanted]
