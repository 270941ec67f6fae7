"""The cached MobileNet predictor: faces in a picture to calibrated probabilities of being fake. No Django.

`get_predictor` loads a model folder once per process and checks it; threads take turns at its interpreters.
"""

import functools
import hashlib
import json
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from PIL import Image

from detector.exceptions import AnalysisFailed, ModelUnavailable
from detector.faces import BoundingBox, DetectedFace, FaceDetector
from detector.images import DecodedImage, Picture
from detector.interpreters import Runner, RunnerPool
from detector.preprocessing import face_input, scaled, square_crop

SELF_TEST_TOLERANCE = 1e-4
MAX_FACES = 20
# Longer side of a face's box in px of the upright original, below which no verdict on it is decided. Chosen on `test`
# reduced to such faces: of 40 px about one in twenty decided answers was wrong, of 20 px one in eight.
MIN_DECIDED_FACE_SIDE = 40
WEIGHT_FILES = ("model.tflite", "second.tflite", "third.tflite")
_LEAST = 1e-7  # probability either way: float32's sigmoid reaches 0 and 1, which nothing is


class Verdict(StrEnum):
    """What is said about a picture."""

    REAL = "real"
    FAKE = "fake"
    NOT_APPLICABLE = "not_applicable"


@dataclass(frozen=True, slots=True)
class DecisionRule:
    """How a probability becomes a verdict, and which verdicts are only leanings.

    Attributes:
        real_threshold: Real needs a real_probability above this.
        uncertain_above: A Fake with a real_probability above this is uncertain.
        uncertain_up_to: A Real with a real_probability up to this is uncertain; at most real_threshold means none is.
    """

    real_threshold: float = 0.7
    uncertain_above: float = 0.3
    uncertain_up_to: float = 0.7

    def verdict(self, fake_probability: float | None) -> Verdict:
        """Returns the verdict; without a probability there is none to give: not applicable."""
        if fake_probability is None:
            return Verdict.NOT_APPLICABLE
        return Verdict.REAL if 1.0 - fake_probability > self.real_threshold else Verdict.FAKE

    def is_uncertain(self, fake_probability: float | None) -> bool:
        """Returns whether the verdict lies in the band in which too many answers are wrong to call it decided."""
        if fake_probability is None:
            return False
        if self.verdict(fake_probability) is Verdict.FAKE:
            return 1.0 - fake_probability > self.uncertain_above
        return 1.0 - fake_probability <= self.uncertain_up_to

    def undecided(self) -> "DecisionRule":
        """Returns the rule with the same threshold by which every verdict is uncertain."""
        return replace(self, uncertain_above=0.0, uncertain_up_to=1.0)


@dataclass(frozen=True, slots=True, eq=False)
class FacePrediction:
    """One judged face.

    Attributes:
        bbox: The face, in px of the upright original.
        crop: The square that the network looked at, in px of the upright original.
        detection_score: The face detector's score, 0 to 1.
        fake_probability: Calibrated, between 0 and 1.
        cam: (rows, columns) float32 class-activation map over `crop`: logit contributions, positive for fake; its mean
            plus `Predictor.cam_bias` is the logit of fake_probability.
    """

    bbox: BoundingBox
    crop: BoundingBox
    detection_score: float
    fake_probability: float
    cam: NDArray[np.float32]

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values, fit for JSON; the map with three decimals."""
        return {
            "bbox": list(self.bbox),
            "crop": list(self.crop),
            "detection_score": round(self.detection_score, 4),
            "fake_probability": self.fake_probability,
            "cam": [[round(float(value), 3) for value in row] for row in self.cam],
        }


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the pipeline says about one picture.

    Attributes:
        faces: Judged faces, the most fake first.
        model_version: `ModelSpec.version` of the model that judged.
        rule: The rule that turns the probability into the verdict; `undecided` where a face that it rests on is too
            small.
        timings_ms: Wall time in ms of `decode`, `faces`, `network` and their sum `total`.
        unjudged_faces: How many smaller faces were found and not judged.
    """

    faces: tuple[FacePrediction, ...]
    model_version: str
    rule: DecisionRule
    timings_ms: dict[str, float]
    unjudged_faces: int = 0

    @property
    def fake_probability(self) -> float | None:
        """The most fake face's probability; None without a face."""
        return self.faces[0].fake_probability if self.faces else None

    @property
    def real_probability(self) -> float | None:
        """1 - fake_probability; None without a face."""
        return None if self.fake_probability is None else 1.0 - self.fake_probability

    @property
    def verdict(self) -> Verdict:
        """The verdict under `rule`."""
        return self.rule.verdict(self.fake_probability)

    @property
    def is_uncertain(self) -> bool:
        """Whether the verdict is only a leaning."""
        return self.rule.is_uncertain(self.fake_probability)


@dataclass(frozen=True, slots=True)
class OtherNetwork:
    """The contract of a network that is asked with the second.

    Attributes:
        weights_sha256: Hex digest of third.tflite.
        golden_fake_probability: Its own score of `golden_picture`.
    """

    weights_sha256: str
    golden_fake_probability: float


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """The contract of a second network, which is asked where the first is not sure.

    Attributes:
        asked_between: [low, high] in the first one's fake_probability, under the spec's prior: in between it is asked.
        asked_of_reals: For which share of the reals of `val` it is.
        asked_of_fakes: And of the fakes.
        weights_sha256: Hex digest of second.tflite.
        golden_fake_probability: Its own score of `golden_picture`.
        third: The network that is always asked with it, if there is one.
    """

    asked_between: Sequence[float]
    asked_of_reals: float
    asked_of_fakes: float
    weights_sha256: str
    golden_fake_probability: float
    third: OtherNetwork | None = None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The contract of a model folder, read from its spec.json.

    Attributes:
        name: The architecture's name.
        version: Names these weights; kept with every detection.
        input_size: Side of the square input in px; (1, input_size, input_size, 3) float32.
        color_order: Always RGB.
        value_range: Input values, 0 to 255; the graph normalises them itself.
        positive_class: Always fake: scores rise with fakeness.
        face_margin: Side of the crop as a multiple of the face box's longer side.
        max_source_side: Crops are reduced to this side in px before they are scaled to the input.
        decision_threshold: real_probability above which a picture is Real, unless a setting says otherwise.
        calibration: Temperature, bias and prior (the share of fakes among uploads that fake_probability assumes); all
            folded into the graph's classifier.
        uncertain_band: [low, high] in real_probability: in between the answer is uncertain.
        cam_bias: What to add to the mean of a class-activation map to get the logit.
        weights_sha256: Hex digest of model.tflite.
        golden_fake_probability: The score of `golden_picture`, for the self-test.
        code_version: Commit of the code that trained it.
        data_version: Hex digest of the manifest that it was trained on.
        config: The resolved training settings.
        second_opinion: The second network, if there is one; it takes the same input.
    """

    name: str
    version: str
    input_size: int
    color_order: str
    value_range: Sequence[float]
    positive_class: str
    face_margin: float
    max_source_side: int
    decision_threshold: float
    calibration: dict[str, float]
    uncertain_band: Sequence[float]
    cam_bias: float
    weights_sha256: str
    golden_fake_probability: float
    code_version: str
    data_version: str
    config: dict[str, Any]
    second_opinion: SecondOpinion | None = None

    @property
    def networks(self) -> list[tuple[str, float]]:
        """Each network's weights_sha256 and golden_fake_probability, in the order of `WEIGHT_FILES`."""
        second = self.second_opinion
        found = (self, second, second.third if second else None)
        return [(each.weights_sha256, each.golden_fake_probability) for each in found if each is not None]

    @classmethod
    def load(cls, path: Path) -> "ModelSpec":
        """Returns the spec in the file.

        Raises:
            ModelUnavailable: The file is missing, is no JSON, or has not exactly the fields above; that of a model of
                one network may leave out second_opinion, that of one of two `third`.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelUnavailable(f"The model's spec {path} can't be read: {error}") from error
        values = {"second_opinion": None, **values} if isinstance(values, dict) else {}
        _check_fields(path, cls, values)
        if (second := values["second_opinion"]) is not None:
            second = {"third": None, **second} if isinstance(second, dict) else {}
            _check_fields(path, SecondOpinion, second)
            if (third := second["third"]) is not None:
                _check_fields(path, OtherNetwork, third)
                second["third"] = OtherNetwork(**third)
            values["second_opinion"] = SecondOpinion(**second)
        spec = cls(**values)
        if (spec.color_order, list(spec.value_range), spec.positive_class) != ("RGB", [0, 255], "fake"):
            raise ModelUnavailable(f"The model's spec {path} describes an input or output that is not supported.")
        return spec


def _check_fields(path: Path, cls: type[ModelSpec | SecondOpinion | OtherNetwork], values: Any) -> None:
    expected = {each.name for each in fields(cls)}
    found = set(values) if isinstance(values, dict) else set()
    if found != expected:
        raise ModelUnavailable(
            f"The model's spec {path} lacks {sorted(expected - found)} and has unknown {sorted(found - expected)}."
        )


class Classifier(Protocol):
    """Judges one face."""

    def __call__(self, face: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
        """Returns fake_probability and its (rows, columns) map for a (size, size, 3) uint8 RGB face."""


class FaceFinder(Protocol):
    """Finds faces."""

    def detect(self, picture: Image.Image) -> list[DetectedFace]:
        """Returns the faces in the RGB picture, largest first."""


class LiteRTClassifier:
    """The exported network in LiteRT; safe to share between threads."""

    def __init__(self, weights: bytes, *, num_threads: int) -> None:
        """Checks that LiteRT accepts the weights.

        Raises:
            ModelUnavailable: It doesn't, or the outputs are not one probability and one map.
        """
        self._weights = weights
        self._num_threads = num_threads
        self._runners = RunnerPool(self._runner)
        try:
            with self._runners.borrow() as runner:
                shapes = [len(shape) for shape in runner.output_shapes]
        except (RuntimeError, ValueError) as error:
            raise ModelUnavailable(f"LiteRT can't load the model: {error}") from error
        if shapes != [2, 3]:
            raise ModelUnavailable("The model does not return one probability and one class-activation map.")

    def __call__(self, face: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
        """Returns fake_probability (between 0 and 1, never either) and its (rows, columns) float32 map.

        Raises:
            AnalysisFailed: LiteRT failed, or its result is not a finite number.
        """
        try:
            with self._runners.borrow() as runner:
                probability, cam = runner.run(face[None].astype(np.float32))
        except (RuntimeError, ValueError) as error:
            raise AnalysisFailed(f"LiteRT failed: {error}") from error
        value = float(probability[0])
        if not (0.0 <= value <= 1.0 and np.isfinite(cam).all()):  # of what is no number neither holds
            raise AnalysisFailed("The network returned something that is not a probability.")
        return min(max(value, _LEAST), 1.0 - _LEAST), cam

    def reserve(self, count: int) -> None:
        """Makes interpreters for so many calls at once."""
        self._runners.reserve(count)

    def _runner(self) -> Runner:
        return Runner(Interpreter(model_content=self._weights, num_threads=self._num_threads))


class SeveralNetworks:
    """A network and others whose errors differ, asked where the first is not sure; safe to share between threads.

    Then the mean of all calibrated logits counts. Where the first is sure the others would hardly change the verdict,
    and most pictures take the time of one network.
    """

    def __init__(self, first: Classifier, *others: Classifier, asked_between: tuple[float, float]) -> None:
        """Takes the parts; `asked_between` is `SecondOpinion.asked_between`."""
        self.parts = (first, *others)
        self._low, self._high = asked_between

    def __call__(self, face: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
        """Returns fake_probability and its map, both of the mean logit where all were asked.

        Raises:
            AnalysisFailed: A network broke. The opinion of the rest alone would be a score of another model.
        """
        first, *others = self.parts
        probability, cam = first(face)
        if not self._low < probability < self._high:
            return probability, cam
        logit = _logit(probability)
        for network in others:
            other, other_cam = network(face)
            logit += _logit(other)
            cam = cam + other_cam
        return _sigmoid(logit / len(self.parts)), np.asarray(cam / len(self.parts), np.float32)


class Predictor:
    """Faces, crops and judges; safe to share between threads."""

    def __init__(
        self, spec: ModelSpec, classifier: Classifier, face_finder: FaceFinder, *, prior: float | None = None
    ) -> None:
        """Takes the parts.

        Args:
            spec: What the classifier was exported with.
            classifier: Gives probabilities under the spec's prior.
            face_finder: Finds what to judge.
            prior: Share of fakes among the uploads, between 0 and 1; None assumes the spec's. Another one shifts every
                logit by the difference of the log odds, which is what Bayes' rule says.
        """
        self.spec = spec
        self.prior = spec.calibration["prior"] if prior is None else prior
        self._odds = _odds(self.prior) / _odds(spec.calibration["prior"])
        self._classifier = classifier
        self._networks = classifier.parts if isinstance(classifier, SeveralNetworks) else (classifier,)
        self._face_finder = face_finder

    @property
    def version(self) -> str:
        """The spec's version; with another prior that too, since probabilities of one prior are no other's."""
        return self.spec.version if self._odds == 1.0 else f"{self.spec.version}@{self.prior:g}"

    @property
    def cam_bias(self) -> float:
        """What to add to the mean of a class-activation map to get the logit under `prior`."""
        return self.spec.cam_bias + math.log(self._odds)

    @property
    def uncertain_band(self) -> tuple[float, float]:
        """The spec's band, in real_probability under `prior`: the same evidence is enough for an answer."""
        # Rounded, or 0.3 comes out as 0.30000000000000004, which is what people would read.
        low, high = (round(1.0 - shifted(1.0 - edge, self._odds), 9) for edge in self.spec.uncertain_band)
        return low, high

    def predict(
        self, image: DecodedImage, *, rule: DecisionRule | None = None, max_faces: int = MAX_FACES
    ) -> Prediction:
        """Returns the prediction; without a face it has no probability.

        Args:
            image: What `decode_image` returned.
            rule: Default: the spec's threshold and band. A face under `MIN_DECIDED_FACE_SIDE` widens its band.
            max_faces: Judges the largest faces up to this count.

        Raises:
            AnalysisFailed: A network broke.
            InvalidImage: There is not enough memory to decode more of it for small faces.
        """
        started = time.perf_counter()
        try:
            found = self._face_finder.detect(image.picture)
        except (RuntimeError, ValueError) as error:
            raise AnalysisFailed(f"The face detector failed: {error}") from error
        faces_ms = (time.perf_counter() - started) * 1000
        unjudged = found[max_faces:]
        found = found[:max_faces]
        started = time.perf_counter()
        finer = image.finer() if any(self._is_coarse(face, image.picture) for face in found) else None
        finer_ms = (time.perf_counter() - started) * 1000
        started = time.perf_counter()
        faces = []
        for face in found:
            picture = finer if finer and self._is_coarse(face, image.picture) else image.picture
            crop = self._crop(face, picture)
            probability, cam = self._classifier(self._input(picture, crop))
            faces.append(
                FacePrediction(
                    bbox=face.to_pixels(image.width, image.height),
                    crop=_in_original(crop, picture, image),
                    detection_score=face.score,
                    fake_probability=shifted(probability, self._odds),
                    cam=cam,
                )
            )
        network_ms = (time.perf_counter() - started) * 1000
        faces.sort(key=lambda each: each.fake_probability, reverse=True)
        timings_ms = {"decode": image.decode_ms + finer_ms, "faces": faces_ms, "network": network_ms}
        return Prediction(
            faces=tuple(faces),
            model_version=self.version,
            rule=_suited(rule or self.fitted_rule, faces),
            timings_ms={**timings_ms, "total": sum(timings_ms.values())},
            unjudged_faces=len(unjudged),
        )

    @property
    def fitted_rule(self) -> DecisionRule:
        """The rule that the model was measured with, its band under `prior`."""
        return self.rule(self.spec.decision_threshold)

    def rule(self, real_threshold: float) -> DecisionRule:
        """Returns the rule with this threshold and the fitted band, which always holds the threshold.

        Where fakes are assumed to be rarer the band moves up, but its lower end not above the rule's own: a Fake that
        is as likely real would be no decided one.
        """
        low, high = self.uncertain_band
        low = min(low, DecisionRule().uncertain_above)
        return DecisionRule(real_threshold, min(low, real_threshold), max(high, real_threshold))

    def self_test(self) -> None:
        """Scores a generated picture and compares it with the spec.

        Raises:
            ModelUnavailable: The score differs by more than `SELF_TEST_TOLERANCE`.
        """
        pixels = golden_picture()
        face = self._input(pixels, BoundingBox(0, 0, pixels.shape[1], pixels.shape[0]))
        for network, (_sha256, wanted) in zip(self._networks, self.spec.networks, strict=True):
            try:
                value, _cam = network(face)
            except AnalysisFailed as error:
                raise ModelUnavailable(f"The model's self-test failed: {error}") from error
            if abs(value - wanted) > SELF_TEST_TOLERANCE:
                raise ModelUnavailable(
                    f"The model's self-test gave {value:.6f}, its spec says {wanted:.6f}: "
                    "this machine would give other verdicts than those that were measured."
                )

    def reserve(self, count: int) -> None:
        """Makes everything that so many detections at once take; processes that are forked then have it in common."""
        for part in (*self._networks, self._face_finder):
            if isinstance(part, LiteRTClassifier | FaceDetector):
                part.reserve(count)

    def _crop(self, face: DetectedFace, picture: Image.Image) -> BoundingBox:
        box = face.to_pixels(picture.width, picture.height)
        return square_crop(box, width=picture.width, height=picture.height, margin=self.spec.face_margin)

    def _is_coarse(self, face: DetectedFace, picture: Image.Image) -> bool:
        """Whether the network could be shown more pixels of the face than there are in the picture."""
        return self._crop(face, picture).width < self.spec.max_source_side

    def _input(self, picture: Picture, crop: BoundingBox) -> NDArray[np.uint8]:
        return face_input(picture, crop, size=self.spec.input_size, max_source_side=self.spec.max_source_side)


def golden_picture() -> NDArray[np.uint8]:
    """Returns the self-test's (300, 300, 3) uint8 RGB picture: waves and a soft disc, from integers alone."""
    ys, xs = np.mgrid[0:300, 0:300]
    red = (xs * 3 + ys) % 256
    green = (xs * ys // 64) % 256
    disc = (xs - 150) ** 2 + (ys - 140) ** 2
    blue = np.clip(255 - disc // 80, 0, 255)
    skin = disc < 110**2
    picture = np.stack([red, green, blue], axis=-1)
    picture[skin] = (picture[skin] + np.array([3 * 224, 3 * 172, 3 * 144])) // 4
    return picture.astype(np.uint8)


def shifted(probability: float, odds: float) -> float:
    """Returns the probability after its odds were multiplied; 0 and 1 stay what they are."""
    if odds == 1.0:
        return probability
    return probability * odds / (probability * odds + 1.0 - probability)


def _odds(share: float) -> float:
    return share / (1.0 - share)


def _logit(probability: float) -> float:
    return math.log(_odds(probability))


def _sigmoid(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-logit))


def load_predictor(model_dir: Path, *, num_threads: int = 1, prior: float | None = None) -> Predictor:
    """Returns a checked predictor; `get_predictor` is the cached way to it.

    Args:
        model_dir: Holds spec.json and the weights that it names.
        num_threads: LiteRT threads per interpreter.
        prior: Share of fakes among the uploads, between 0 and 1; None assumes the spec's.

    Raises:
        ModelUnavailable: A file is missing, altered, or fails its self-test.
    """
    spec = ModelSpec.load(model_dir / "spec.json")
    classifier = load_classifier(model_dir, spec, num_threads=num_threads)
    predictor = Predictor(spec, classifier, FaceDetector(num_threads=num_threads), prior=prior)
    predictor.self_test()
    return predictor


def load_classifier(model_dir: Path, spec: ModelSpec, *, num_threads: int = 1) -> LiteRTClassifier | SeveralNetworks:
    """Returns the spec's network, or all of them; `load_predictor` tests them too.

    Raises:
        ModelUnavailable: Weights are missing or altered.
    """
    first, *others = (
        LiteRTClassifier(_checked_weights(model_dir / name, sha256), num_threads=num_threads)
        for name, (sha256, _golden) in zip(WEIGHT_FILES, spec.networks, strict=False)
    )
    if spec.second_opinion is None:
        return first
    low, high = spec.second_opinion.asked_between
    return SeveralNetworks(first, *others, asked_between=(low, high))


def _checked_weights(path: Path, sha256: str) -> bytes:
    try:
        weights = path.read_bytes()
    except OSError as error:
        raise ModelUnavailable(f"The model's weights can't be read: {error}") from error
    digest = hashlib.sha256(weights).hexdigest()
    if digest != sha256:
        raise ModelUnavailable(
            f"{path} has SHA-256 {digest[:12]}..., its spec expects {sha256[:12]}...: "
            "the file was altered or belongs to another spec."
        )
    return weights


_load_lock = threading.Lock()


@functools.cache
def _cached_predictor(model_dir: Path, num_threads: int, prior: float | None) -> Predictor:
    return load_predictor(model_dir, num_threads=num_threads, prior=prior)


def get_predictor(model_dir: Path, *, num_threads: int = 1, prior: float | None = None) -> Predictor:
    """Returns this process's predictor for the model folder, loading it on the first call.

    Args:
        model_dir: Holds spec.json and the weights that it names.
        num_threads: LiteRT threads per interpreter.
        prior: Share of fakes among the uploads, between 0 and 1; None assumes the spec's.

    Raises:
        ModelUnavailable: A file is missing, altered, or fails its self-test. A failure is not cached.
    """
    with _load_lock:
        return _cached_predictor(Path(model_dir), num_threads, prior)


def forget_predictors() -> None:
    """Drops what `get_predictor` has loaded; the next call loads anew."""
    with _load_lock:
        _cached_predictor.cache_clear()


def _suited(rule: DecisionRule, faces: Sequence[FacePrediction]) -> DecisionRule:
    """Returns the rule for these faces, the most fake one first."""
    if not faces:
        return rule
    bboxes = [each.bbox for each in faces]
    smallest = smallest_deciding_face(rule.verdict(faces[0].fake_probability), bboxes)
    return rule.undecided() if is_too_small(bboxes[smallest]) else rule


def smallest_deciding_face(verdict: str, bboxes: Sequence[Sequence[int]]) -> int:
    """Returns the index of the smallest face that the verdict rests on: Fake on one, Real on all.

    Args:
        verdict: Real or fake.
        bboxes: (x, y, width, height) in px of the upright original, at least one, the most fake face's first.
    """
    deciding = bboxes[:1] if verdict == Verdict.FAKE else bboxes
    return min(range(len(deciding)), key=lambda index: longer_side(deciding[index]))


def longer_side(bbox: Sequence[int]) -> int:
    """Returns the longer side of (x, y, width, height)."""
    _x, _y, width, height = bbox
    return max(width, height)


def is_too_small(bbox: Sequence[int]) -> bool:
    """Returns whether no verdict on the face in that box, in px of the upright original, is decided."""
    return longer_side(bbox) < MIN_DECIDED_FACE_SIDE


def is_face_uncertain(face: FacePrediction, rule: DecisionRule) -> bool:
    """Returns whether the face's own verdict is only a leaning, whatever the other faces are like.

    Args:
        face: One of a prediction.
        rule: What `predict` was given, not what it made of that for the whole picture.
    """
    return is_too_small(face.bbox) or rule.is_uncertain(face.fake_probability)


def _in_original(crop: BoundingBox, picture: Image.Image, image: DecodedImage) -> BoundingBox:
    """Returns the crop of the picture in px of the original, and inside it."""
    box = scaled(crop, image.width / picture.width, image.height / picture.height)
    return BoundingBox(box.x, box.y, min(box.width, image.width - box.x), min(box.height, image.height - box.y))
