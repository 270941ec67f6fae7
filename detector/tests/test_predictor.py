"""The predictor: a probability from the network, or a refusal; never a made-up score."""

import hashlib
import io
import itertools
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from detector.exceptions import AnalysisFailed, ModelUnavailable
from detector.faces import BoundingBox, DetectedFace
from detector.images import DecodedImage, decode_image
from detector.interpreters import Runner
from detector.predictor import (
    DecisionRule,
    LiteRTClassifier,
    ModelSpec,
    OtherNetwork,
    Predictor,
    SecondOpinion,
    SeveralNetworks,
    Verdict,
    forget_predictors,
    get_predictor,
    golden_picture,
    load_predictor,
)
from detector.preprocessing import face_input
from detector.tests.portraits import astronaut, astronaut_jpeg

MODEL_DIR = Path(__file__).parents[2] / "models" / "mobilenet_v2"
SPEC = ModelSpec(
    name="fake",
    version="fake-1",
    input_size=64,
    color_order="RGB",
    value_range=[0, 255],
    positive_class="fake",
    face_margin=1.5,
    max_source_side=64,
    decision_threshold=0.7,
    calibration={"temperature": 1.0, "bias": 0.0, "prior": 0.5},
    uncertain_band=[0.3, 0.9],
    cam_bias=0.0,
    weights_sha256="0" * 64,
    golden_fake_probability=0.25,
    code_version="test",
    data_version="test",
    config={},
)


class FakeClassifier:
    """Gives the listed probabilities in turn and keeps what it was shown."""

    def __init__(self, *probabilities: float, cam: float = 0.0) -> None:
        self.probabilities = list(probabilities)
        self.cam = cam
        self.seen: list[NDArray[np.uint8]] = []

    def __call__(self, face: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
        self.seen.append(face)
        return self.probabilities[len(self.seen) - 1], np.full((7, 7), self.cam, np.float32)


class FakeFaceFinder:
    """Finds the listed boxes (fractions of the picture) in every picture."""

    def __init__(self, *boxes: tuple[float, float, float, float]) -> None:
        self.boxes = boxes

    def detect(self, picture: Image.Image) -> list[DetectedFace]:
        return [DetectedFace(box, 0.9, np.zeros((6, 2), np.float32)) for box in self.boxes]


LARGE, SMALL = (0.1, 0.1, 0.3, 0.4), (0.5, 0.5, 0.54, 0.55)  # 160 x 180 and 32 x 30 px of the picture below


def make_image(width: int = 800, height: int = 600, *, reduced_by: int = 2) -> DecodedImage:
    picture = Image.new("RGB", (width // reduced_by, height // reduced_by))
    return DecodedImage(picture, "PNG", width, height, 1, "0" * 64, 3.0, b"")


@pytest.mark.parametrize(
    ("fake_probability", "verdict", "is_uncertain"),
    [
        (0.0, Verdict.REAL, False),
        (0.2999, Verdict.REAL, False),
        (0.3, Verdict.FAKE, True),  # real_probability is 0.7, which is not above 0.7
        (0.5, Verdict.FAKE, True),
        (0.6999, Verdict.FAKE, True),
        (0.7001, Verdict.FAKE, False),
        (1.0, Verdict.FAKE, False),
        (None, Verdict.NOT_APPLICABLE, False),
    ],
)
def test_the_inherited_rule(fake_probability: float | None, verdict: Verdict, is_uncertain: bool) -> None:
    rule = DecisionRule()
    assert rule.verdict(fake_probability) is verdict
    assert rule.is_uncertain(fake_probability) is is_uncertain


@pytest.mark.parametrize(
    ("real_probability", "verdict", "is_uncertain"),
    [
        (0.29, Verdict.FAKE, False),
        (0.31, Verdict.FAKE, True),
        (0.7, Verdict.FAKE, True),
        (0.71, Verdict.REAL, True),
        (0.9, Verdict.REAL, True),
        (0.91, Verdict.REAL, False),
    ],
)
def test_the_band_reaches_into_both_verdicts(real_probability: float, verdict: Verdict, is_uncertain: bool) -> None:
    rule = DecisionRule(uncertain_above=0.3, uncertain_up_to=0.9)
    fake_probability = round(1 - real_probability, 2)
    assert rule.verdict(fake_probability) is verdict
    assert rule.is_uncertain(fake_probability) is is_uncertain


@pytest.mark.parametrize(
    ("fake_probability", "verdict", "is_uncertain"),
    [
        (0.75, Verdict.FAKE, False),
        (0.5, Verdict.FAKE, True),
        (0.125, Verdict.REAL, True),
    ],
)
def test_where_the_band_begins_and_ends(fake_probability: float, verdict: Verdict, is_uncertain: bool) -> None:
    """With halves, quarters and eighths, of which floating point makes nothing else."""
    rule = DecisionRule(0.5, uncertain_above=0.25, uncertain_up_to=0.875)
    assert rule.verdict(fake_probability) is verdict
    assert rule.is_uncertain(fake_probability) is is_uncertain


@pytest.mark.parametrize(
    ("first", "asked", "result"),
    [
        (0.01, False, 0.01),
        (0.05, False, 0.05),
        (0.1, True, 0.25),  # odds 1/9 and 1: their geometric mean is 1/3
        (0.5, True, 0.5),
        (0.8, False, 0.8),
        (0.95, False, 0.95),
    ],
)
def test_a_second_opinion_is_asked_where_the_first_is_not_sure(first: float, asked: bool, result: float) -> None:
    second = FakeClassifier(0.5, cam=1.0)
    both = SeveralNetworks(FakeClassifier(first, cam=3.0), second, asked_between=(0.05, 0.8))

    probability, cam = both(np.zeros((64, 64, 3), np.uint8))

    assert len(second.seen) == asked
    assert probability == pytest.approx(result)
    assert cam == pytest.approx(2.0 if asked else 3.0)


def test_a_third_is_asked_with_the_second_and_all_count_alike() -> None:
    others = [FakeClassifier(0.5, cam=1.0), FakeClassifier(0.5, cam=2.0)]
    networks = SeveralNetworks(FakeClassifier(1 / 9, cam=6.0), *others, asked_between=(0.05, 0.8))

    probability, cam = networks(np.zeros((64, 64, 3), np.uint8))

    assert [len(each.seen) for each in others] == [1, 1]
    assert probability == pytest.approx(1 / 3)  # odds 1/8, 1 and 1: their geometric mean is 1/2
    assert cam == pytest.approx(3.0)
    SeveralNetworks(FakeClassifier(0.9), *others, asked_between=(0.05, 0.8))(np.zeros((64, 64, 3), np.uint8))
    assert [len(each.seen) for each in others] == [1, 1]


def test_without_the_second_opinion_that_it_needs_there_is_no_score() -> None:
    def broken(face: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
        raise AnalysisFailed("LiteRT failed.")

    both = SeveralNetworks(FakeClassifier(0.5), broken, asked_between=(0.05, 0.8))
    with pytest.raises(AnalysisFailed):
        both(np.zeros((64, 64, 3), np.uint8))


def test_another_prior_shifts_every_probability_by_the_same_odds() -> None:
    finder = FakeFaceFinder((0.1, 0.1, 0.3, 0.4))
    # Exported for as many fakes as reals; here one upload in ten is a fake: odds of 1 to 9.
    predictor = Predictor(SPEC, FakeClassifier(0.5, 0.9, 1.0), finder, prior=0.1)

    found = [predictor.predict(make_image()).fake_probability for _ in range(3)]

    assert found == pytest.approx([0.1, 0.5, 1.0])  # 0.9 has odds of 9 to 1
    assert predictor.version == "fake-1@0.1"
    # The band stays where the evidence is the same: 0.9 real has odds of 9, here of 81.
    assert predictor.uncertain_band[1] == pytest.approx(81 / 82)
    assert predictor.cam_bias == pytest.approx(-np.log(9))


def test_another_prior_is_measured_against_the_spec_s_own() -> None:
    spec = replace(SPEC, calibration={**SPEC.calibration, "prior": 0.2})
    predictor = Predictor(spec, FakeClassifier(0.5), FakeFaceFinder((0, 0, 1, 1)), prior=0.1)
    # Odds of 1 to 9 instead of 1 to 4: those of each face are 4/9 of what they were.
    assert predictor.predict(make_image()).fake_probability == pytest.approx(4 / 13)


def test_the_spec_s_own_prior_changes_nothing() -> None:
    for prior in (None, 0.5):
        predictor = Predictor(SPEC, FakeClassifier(0.123456789), FakeFaceFinder((0, 0, 1, 1)), prior=prior)
        assert predictor.predict(make_image()).fake_probability == 0.123456789
        assert predictor.version == "fake-1"
        assert predictor.uncertain_band == (0.3, 0.9)


@pytest.mark.parametrize(("threshold", "band"), [(0.7, (0.3, 0.9)), (0.2, (0.2, 0.9)), (0.95, (0.3, 0.95))])
def test_the_band_holds_the_threshold(threshold: float, band: tuple[float, float]) -> None:
    rule = Predictor(SPEC, FakeClassifier(), FakeFaceFinder()).rule(threshold)
    assert (rule.uncertain_above, rule.uncertain_up_to) == pytest.approx(band)


@pytest.mark.parametrize(("prior", "above"), [(0.05, 0.3), (0.5, 0.3), (0.9, 1 / 22)])
def test_a_fake_that_may_well_be_real_is_uncertain_at_every_prior(prior: float, above: float) -> None:
    rule = Predictor(SPEC, FakeClassifier(), FakeFaceFinder(), prior=prior).rule(0.7)
    assert rule.uncertain_above == pytest.approx(above)


def test_the_threshold_can_be_set() -> None:
    assert DecisionRule(real_threshold=0.5).verdict(0.4) is Verdict.REAL
    assert DecisionRule(real_threshold=0.9).verdict(0.2) is Verdict.FAKE


@pytest.mark.parametrize(
    ("rule", "verdict", "is_uncertain"),
    [
        (None, Verdict.REAL, True),  # the spec's: Real from 0.7 on, and uncertain up to 0.9
        (DecisionRule(0.7, 0.3, 0.7), Verdict.REAL, False),
        (DecisionRule(0.9, 0.85, 0.9), Verdict.FAKE, False),
    ],
)
def test_a_picture_is_judged_by_the_rule_that_is_given(
    rule: DecisionRule | None, verdict: Verdict, is_uncertain: bool
) -> None:
    prediction = Predictor(SPEC, FakeClassifier(0.2), FakeFaceFinder(LARGE)).predict(make_image(), rule=rule)
    assert (prediction.verdict, prediction.is_uncertain) == (verdict, is_uncertain)


def test_the_most_fake_face_decides_and_comes_first() -> None:
    finder = FakeFaceFinder((0.1, 0.1, 0.3, 0.4), (0.6, 0.2, 0.7, 0.3))
    predictor = Predictor(SPEC, FakeClassifier(0.1, 0.8), finder)

    prediction = predictor.predict(make_image())

    assert [face.fake_probability for face in prediction.faces] == [0.8, 0.1]
    assert prediction.fake_probability == 0.8
    assert prediction.real_probability == pytest.approx(0.2)
    assert prediction.verdict is Verdict.FAKE
    assert prediction.model_version == "fake-1"


@pytest.mark.parametrize(
    ("faces", "is_uncertain"),
    [
        ([(LARGE, 0.01)], False),
        ([(SMALL, 0.01)], True),
        ([(SMALL, 0.99)], True),
        ([(LARGE, 0.01), (SMALL, 0.02)], True),  # Real has to hold for both
        ([(LARGE, 0.02), (SMALL, 0.01)], True),
        ([(LARGE, 0.99), (SMALL, 0.01)], False),  # one fake is enough
        ([(LARGE, 0.98), (SMALL, 0.99)], True),
        ([], False),
    ],
)
def test_a_face_that_is_too_small_decides_nothing(
    faces: list[tuple[tuple[float, float, float, float], float]], is_uncertain: bool
) -> None:
    finder = FakeFaceFinder(*(box for box, _ in faces))
    prediction = Predictor(SPEC, FakeClassifier(*(value for _, value in faces)), finder).predict(make_image())
    assert prediction.is_uncertain is is_uncertain
    assert prediction.verdict is DecisionRule().verdict(prediction.fake_probability)


@pytest.mark.parametrize(
    ("width", "height", "is_uncertain"), [(39, 20, True), (40, 20, False), (20, 39, True), (20, 40, False)]
)
def test_from_which_size_on_a_face_decides(width: int, height: int, is_uncertain: bool) -> None:
    finder = FakeFaceFinder((0.0, 0.0, width / 800, height / 600))
    assert Predictor(SPEC, FakeClassifier(0.01), finder).predict(make_image()).is_uncertain is is_uncertain


def test_boxes_are_in_pixels_of_the_original() -> None:
    predictor = Predictor(SPEC, FakeClassifier(0.1), FakeFaceFinder((0.25, 0.25, 0.5, 0.5)))

    (face,) = predictor.predict(make_image(800, 600, reduced_by=2)).faces

    assert face.bbox == (200, 150, 200, 150)
    # Margin 1.5 round the longer side: 150 px of the reduced picture, centred on its (150, 112.5), doubled.
    assert face.crop == (150, 76, 300, 300)
    assert face.as_dict()["bbox"] == [200, 150, 200, 150]
    json.dumps(face.as_dict())


def test_the_crop_is_round_the_face_at_the_end_of_a_long_picture_too() -> None:
    """Of which a JPEG's decoder makes 282 x 5,000 px: 1125 / 282 is less than 4."""
    buffer = io.BytesIO()
    Image.new("RGB", (1125, 20_000)).save(buffer, "JPEG")
    finder = FakeFaceFinder((0.3, 0.94, 0.6, 0.96))

    (face,) = Predictor(SPEC, FakeClassifier(0.1), finder).predict(decode_image(buffer.getvalue())).faces

    assert face.bbox == (338, 18_800, 337, 400)
    assert face.crop.y + face.crop.height / 2 == pytest.approx(19_000, abs=4)


def test_the_network_sees_the_spec_s_input_size() -> None:
    classifier = FakeClassifier(0.1)
    Predictor(SPEC, classifier, FakeFaceFinder((0.2, 0.2, 0.4, 0.4))).predict(make_image())
    assert classifier.seen[0].shape == (64, 64, 3)


def test_without_a_face_there_is_no_probability() -> None:
    prediction = Predictor(SPEC, FakeClassifier(), FakeFaceFinder()).predict(make_image())

    assert prediction.verdict is Verdict.NOT_APPLICABLE
    assert prediction.fake_probability is None
    assert prediction.real_probability is None
    assert not prediction.is_uncertain
    assert prediction.faces == ()


def test_timings_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(5)  # which a busy machine does not stop: each look is a second later
    monkeypatch.setattr("detector.predictor.time", SimpleNamespace(perf_counter=lambda: next(clock)))

    timings = Predictor(SPEC, FakeClassifier(0.1), FakeFaceFinder((0, 0, 1, 1))).predict(make_image()).timings_ms

    # The decoder's own 3 ms, and what went into decoding more of it for small faces.
    assert timings == {"decode": 1003.0, "faces": 1000.0, "network": 1000.0, "total": 3003.0}


def test_a_small_face_is_judged_from_more_pixels_of_the_file() -> None:
    noise = np.random.default_rng(1).integers(256, size=(300, 400, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((4000, 3000)).save(buffer, "JPEG")
    image = decode_image(buffer.getvalue())
    fine = image.finer()
    assert fine is not None
    classifier = FakeClassifier(0.3, 0.1)

    # In the picture of 1,000 px the second face's crop has 150, which is less than the network can take in.
    spec = replace(SPEC, max_source_side=160)
    finder = FakeFaceFinder((0.1, 0.1, 0.4, 0.5), (0.6, 0.6, 0.7, 0.7))
    large, small = Predictor(spec, classifier, finder).predict(image).faces

    assert (large.crop, small.crop) == (BoundingBox(100, 0, 1800, 1800), BoundingBox(2300, 1650, 600, 600))
    assert (
        classifier.seen[0] == face_input(image.picture, BoundingBox(25, 0, 450, 450), size=64, max_source_side=160)
    ).all()
    assert (
        classifier.seen[1] == face_input(fine, BoundingBox(1150, 825, 300, 300), size=64, max_source_side=160)
    ).all()


def test_a_broken_face_detector_gives_no_score() -> None:
    class BrokenFaceFinder(FakeFaceFinder):
        def detect(self, picture: Image.Image) -> list[DetectedFace]:
            raise RuntimeError("Failed to allocate memory for tensors")

    with pytest.raises(AnalysisFailed, match="Failed to allocate"):
        Predictor(SPEC, FakeClassifier(0.1), BrokenFaceFinder()).predict(make_image())


def test_at_most_max_faces_are_judged() -> None:
    finder = FakeFaceFinder(*[(0.1, 0.1, 0.2, 0.2)] * 5)
    prediction = Predictor(SPEC, FakeClassifier(*[0.1] * 5), finder).predict(make_image(), max_faces=3)
    assert (len(prediction.faces), prediction.unjudged_faces) == (3, 2)


@pytest.mark.parametrize(("probability", "passes"), [(0.25, True), (0.25009, True), (0.2502, False), (0.9, False)])
def test_the_self_test_compares_with_the_spec(probability: float, passes: bool) -> None:
    predictor = Predictor(SPEC, FakeClassifier(probability), FakeFaceFinder())
    if passes:
        predictor.self_test()
    else:
        with pytest.raises(ModelUnavailable, match="self-test gave"):
            predictor.self_test()


def test_a_self_test_that_breaks_is_no_model() -> None:
    def broken(face: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
        raise AnalysisFailed("LiteRT failed.")

    with pytest.raises(ModelUnavailable, match=r"self-test failed: LiteRT failed\."):
        Predictor(SPEC, broken, FakeFaceFinder()).self_test()


class BrokenInterpreter:
    """An interpreter that fails, or returns what no probability can be, or no such map."""

    def __init__(self, probability: float | None, *, cam: float = 0.0, shape: tuple[int, ...] = (1, 7, 7)) -> None:
        self.probability = probability
        self.cam = cam
        self.shape = shape

    def allocate_tensors(self) -> None:
        pass

    def get_input_details(self) -> list[dict[str, Any]]:
        return [{"index": 0}]

    def get_output_details(self) -> list[dict[str, Any]]:
        return [{"index": 0, "shape": (1, 1)}, {"index": 1, "shape": self.shape}]

    def set_tensor(self, index: int, value: NDArray[np.float32]) -> None:
        pass

    def invoke(self) -> None:
        if self.probability is None:
            raise RuntimeError("out of memory")

    def get_tensor(self, index: int) -> NDArray[np.float32]:
        return (
            np.full((1, 1), self.probability, np.float32) if index == 0 else np.full(self.shape, self.cam, np.float32)
        )


@pytest.mark.parametrize(
    ("probability", "cam"),
    [(None, 0), (float("nan"), 0), (float("inf"), 0), (-0.01, 0), (1.01, 0), (0.5, float("nan")), (0.5, float("inf"))],
)
def test_a_broken_inference_gives_no_score(
    probability: float | None, cam: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LiteRTClassifier, "_runner", lambda _self: Runner(BrokenInterpreter(probability, cam=cam)))
    classifier = LiteRTClassifier(b"", num_threads=1)
    with pytest.raises(AnalysisFailed):
        classifier(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize("opinion", [0.0, 1.0])
def test_what_is_beyond_float32_is_no_certainty(opinion: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiteRTClassifier, "_runner", lambda _self: Runner(BrokenInterpreter(opinion)))
    network = LiteRTClassifier(b"", num_threads=1)
    both = SeveralNetworks(FakeClassifier(0.5), network, asked_between=(0.05, 0.8))
    for classifier in (network, both):
        probability, _cam = classifier(np.zeros((64, 64, 3), np.uint8))
        assert probability == pytest.approx(opinion, abs=0.001)
        assert 0.0 < probability < 1.0
        assert DecisionRule().undecided().is_uncertain(probability)


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A copy of the shipped model that a test may damage."""
    copy = tmp_path / "model"
    copy.mkdir()
    for path in (*MODEL_DIR.glob("*.tflite"), MODEL_DIR / "spec.json"):
        shutil.copy(path, copy / path.name)
    return copy


@pytest.fixture
def pair_dir(model_dir: Path) -> Path:
    """The same with a second network: the first once more, asked always."""
    shutil.copy(model_dir / "model.tflite", model_dir / "second.tflite")
    spec = ModelSpec.load(model_dir / "spec.json")
    second = SecondOpinion([0.0, 1.0], 1.0, 1.0, spec.weights_sha256, spec.golden_fake_probability)
    changed_spec(model_dir, second_opinion=asdict(second))
    return model_dir


@pytest.fixture
def trio_dir(pair_dir: Path) -> Path:
    """The same with a third: the first once more."""
    shutil.copy(pair_dir / "model.tflite", pair_dir / "third.tflite")
    spec = ModelSpec.load(pair_dir / "spec.json")
    assert spec.second_opinion is not None
    third = OtherNetwork(spec.weights_sha256, spec.golden_fake_probability)
    changed_spec(pair_dir, second_opinion=asdict(replace(spec.second_opinion, third=third)))
    return pair_dir


def changed_spec(model_dir: Path, **values: Any) -> None:
    path = model_dir / "spec.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.model
def test_the_shipped_model_decides_nothing_on_a_thumbnail() -> None:
    buffer = io.BytesIO()
    Image.fromarray(astronaut()).crop((96, 0, 352, 256)).resize((80, 80)).save(buffer, "PNG")
    prediction = get_predictor(MODEL_DIR).predict(decode_image(buffer.getvalue()))
    (face,) = prediction.faces
    assert 28 < face.bbox.width < 38
    assert prediction.verdict is Verdict.REAL
    assert prediction.is_uncertain


@pytest.mark.model
def test_the_shipped_model_judges_a_portrait() -> None:
    predictor = get_predictor(MODEL_DIR)

    prediction = predictor.predict(decode_image(astronaut_jpeg()))

    assert len(prediction.faces) == 1
    assert prediction.fake_probability is not None
    assert 0 < prediction.fake_probability < 1
    assert not prediction.is_uncertain
    # The map explains the very probability: its mean plus the bias is the logit.
    logit = float(prediction.faces[0].cam.mean()) + predictor.cam_bias
    assert 1 / (1 + np.exp(-logit)) == pytest.approx(prediction.fake_probability, abs=1e-4)


@pytest.mark.model
def test_the_predictor_is_loaded_once_for_all_threads() -> None:
    forget_predictors()  # another test may have loaded it
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(get_predictor, [MODEL_DIR] * 8))

    assert len({id(each) for each in found}) == 1


@pytest.mark.model
def test_threads_get_the_same_scores() -> None:
    predictor = get_predictor(MODEL_DIR)
    image = decode_image(astronaut_jpeg())
    expected = predictor.predict(image).fake_probability

    with ThreadPoolExecutor(6) as pool:
        scores = [each.fake_probability for each in pool.map(predictor.predict, [image] * 12)]

    assert scores == [pytest.approx(expected, abs=1e-6)] * 12


@pytest.mark.model
def test_altered_weights_are_refused(model_dir: Path) -> None:
    with (model_dir / "model.tflite").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ModelUnavailable, match="SHA-256"):
        load_predictor(model_dir)


@pytest.mark.model
def test_a_model_that_scores_otherwise_is_refused(model_dir: Path) -> None:
    changed_spec(model_dir, golden_fake_probability=0.123)
    with pytest.raises(ModelUnavailable, match="self-test gave"):
        load_predictor(model_dir)


@pytest.mark.model
@pytest.mark.parametrize("name", ["model.tflite", "spec.json"])
def test_a_missing_file_is_named(model_dir: Path, name: str) -> None:
    (model_dir / name).unlink()
    with pytest.raises(ModelUnavailable, match=name.replace(".", r"\.")):
        load_predictor(model_dir)


@pytest.mark.model
@pytest.mark.parametrize(
    ("values", "message"),
    [({"surprise": 1}, "unknown"), ({"color_order": "BGR"}, "not supported"), ({"positive_class": "real"}, "not supp")],
)
def test_a_foreign_spec_is_refused(model_dir: Path, values: dict[str, Any], message: str) -> None:
    changed_spec(model_dir, **values)
    with pytest.raises(ModelUnavailable, match=message):
        load_predictor(model_dir)


@pytest.mark.model
def test_two_networks_of_one_mind_say_what_one_says(pair_dir: Path) -> None:
    image = decode_image(astronaut_jpeg())
    shutil.copytree(pair_dir, pair_dir.with_name("alone"))
    changed_spec(pair_dir.with_name("alone"), second_opinion=None)
    predictor = load_predictor(pair_dir)

    both = predictor.predict(image).faces[0]
    alone = load_predictor(pair_dir.with_name("alone")).predict(image).faces[0]

    assert both.fake_probability == pytest.approx(alone.fake_probability, abs=1e-6)
    assert both.cam == pytest.approx(alone.cam, abs=1e-5)


@pytest.mark.model
def test_the_third_network_is_checked_as_the_first_is(trio_dir: Path) -> None:
    image = decode_image(astronaut_jpeg())
    second = json.loads((trio_dir / "spec.json").read_text())["second_opinion"]
    predictor = load_predictor(trio_dir)
    changed_spec(trio_dir, second_opinion={name: value for name, value in second.items() if name != "third"})
    pair = load_predictor(trio_dir)  # as specs of two networks were written before there were three
    probability, of_pair = (each.predict(image).faces[0].fake_probability for each in (predictor, pair))
    assert probability == pytest.approx(of_pair, abs=1e-6)

    third = second["third"]
    changed_spec(trio_dir, second_opinion={**second, "third": {**third, "golden_fake_probability": 0.123}})
    with pytest.raises(ModelUnavailable, match=r"self-test gave .* 0\.123"):
        load_predictor(trio_dir)
    changed_spec(trio_dir, second_opinion={**second, "third": {**third, "weights_sha256": "0" * 64}})
    with pytest.raises(ModelUnavailable, match=r"third\.tflite has SHA-256"):
        load_predictor(trio_dir)
    for broken in ({"weights_sha256": "0" * 64}, "third.tflite"):
        changed_spec(trio_dir, second_opinion={**second, "third": broken})
        with pytest.raises(ModelUnavailable, match="lacks .*golden_fake_probability"):
            load_predictor(trio_dir)
    changed_spec(trio_dir, second_opinion=second)
    (trio_dir / "third.tflite").unlink()
    with pytest.raises(ModelUnavailable, match=r"can't be read.*third\.tflite"):
        load_predictor(trio_dir)


@pytest.mark.model
def test_the_second_network_is_checked_as_the_first_is(pair_dir: Path) -> None:
    second = json.loads((pair_dir / "spec.json").read_text())["second_opinion"]
    changed_spec(pair_dir, second_opinion={**second, "golden_fake_probability": 0.123})
    with pytest.raises(ModelUnavailable, match=r"self-test gave .* 0\.123"):
        load_predictor(pair_dir)
    changed_spec(pair_dir, second_opinion={**second, "weights_sha256": "0" * 64})
    with pytest.raises(ModelUnavailable, match=r"second\.tflite has SHA-256"):
        load_predictor(pair_dir)
    for broken in ({"asked_between": [0, 1]}, "second.tflite"):
        changed_spec(pair_dir, second_opinion=broken)
        with pytest.raises(ModelUnavailable, match="lacks .*golden_fake_probability"):
            load_predictor(pair_dir)
    changed_spec(pair_dir, second_opinion=second)
    (pair_dir / "second.tflite").unlink()
    with pytest.raises(ModelUnavailable, match=r"can't be read.*second\.tflite"):
        load_predictor(pair_dir)


def test_weights_that_are_no_model_are_refused() -> None:
    with pytest.raises(ModelUnavailable, match="can't load"):
        LiteRTClassifier(b"not a model at all", num_threads=1)


def test_a_network_without_a_map_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiteRTClassifier, "_runner", lambda _self: Runner(BrokenInterpreter(0.5, shape=(1, 7))))
    with pytest.raises(ModelUnavailable, match="does not return one probability and one"):
        LiteRTClassifier(b"", num_threads=1)


@pytest.mark.parametrize("text", ["[]", "null", '"spec"'])
def test_a_spec_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "spec.json"
    path.write_text(text)
    with pytest.raises(ModelUnavailable, match="lacks .*weights_sha256"):
        ModelSpec.load(path)


def test_a_spec_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text("{")
    with pytest.raises(ModelUnavailable, match="can't be read"):
        ModelSpec.load(path)


def test_the_golden_picture_never_changes() -> None:
    digest = hashlib.sha256(golden_picture().tobytes()).hexdigest()
    assert digest == "8f3eb91a0f8bf4985a53ddd2f79bfa2b8dc3dd6d98a6806a72c9b4bb734b297f"
