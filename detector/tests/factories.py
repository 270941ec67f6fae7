"""Pictures, predictions and rows for tests; every argument has a default that makes a valid one."""

import hashlib
import io
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone
from PIL import Image

from detector import services
from detector.faces import BoundingBox
from detector.images import DecodedImage, decode_image
from detector.models import Detection, Review
from detector.predictor import DecisionRule, FacePrediction, Prediction
from detector.reviews import Look
from detector.similarity import perceptual_hash

MODEL_VERSION = "test-1"
VISITOR_KEY = "0123456789abcdef0123456789abcdef01234567"


def make_picture(
    width: int = 320, height: int = 240, *, file_format: str = "JPEG", seed: int = 0, **save_options: Any
) -> bytes:
    """A picture of blurred noise: nobody's face, and different bytes for every seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((width, height)).save(buffer, file_format, **save_options)
    return buffer.getvalue()


def make_jpeg(width: int = 320, height: int = 240, **options: Any) -> bytes:
    return make_picture(width, height, file_format="JPEG", **options)


def make_upload(data: bytes | None = None, name: str = "holiday.jpg") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, make_jpeg() if data is None else data)


def make_face(fake_probability: float = 0.9, x: int = 100, y: int = 60, side: int = 80) -> FacePrediction:
    return FacePrediction(
        bbox=BoundingBox(x, y, side, side),
        crop=BoundingBox(x - 20, y - 20, side + 40, side + 40),
        detection_score=0.97,
        fake_probability=fake_probability,
        cam=np.linspace(-4.0, 8.0, 49, dtype=np.float32).reshape(7, 7),
    )


def make_prediction(*fake_probabilities: float, rule: DecisionRule | None = None) -> Prediction:
    """One face for each probability, the most fake first; without any, a picture without a face."""
    probabilities = sorted(fake_probabilities, reverse=True)
    return Prediction(
        faces=tuple(make_face(p, x=100 + 40 * number) for number, p in enumerate(probabilities)),
        model_version=MODEL_VERSION,
        rule=rule or DecisionRule(),
        timings_ms={"decode": 1.0, "faces": 2.0, "network": 3.0, "total": 6.0},
    )


class Terminal(io.StringIO):
    """Standard error as a terminal, on which progress bars show."""

    def isatty(self) -> bool:
        return True


class FakePredictor:
    """Stands for the model: says of every picture what it was told to, or raises it."""

    def __init__(self, *fake_probabilities: float) -> None:
        self.fake_probabilities = fake_probabilities
        self.error: Exception | None = None
        self.images: list[DecodedImage] = []
        self.version = MODEL_VERSION
        self.spec = SimpleNamespace(version=MODEL_VERSION)

    @property
    def fitted_rule(self) -> DecisionRule:
        return self.rule(0.7)

    def rule(self, real_threshold: float) -> DecisionRule:
        return DecisionRule(real_threshold, min(0.3, real_threshold), real_threshold)

    def predict(self, image: DecodedImage, *, rule: DecisionRule, max_faces: int = 20) -> Prediction:
        self.images.append(image)
        if self.error:
            raise self.error
        prediction = make_prediction(*self.fake_probabilities[:max_faces], rule=rule)
        return replace(prediction, unjudged_faces=len(self.fake_probabilities[max_faces:]))

    def reserve(self, count: int) -> None:
        """Nothing has to be made ready."""


def make_user(username: str = "ada", **fields: Any) -> User:
    return User.objects.create_user(username=username, password="correct horse battery", **fields)


def make_detection(*fake_probabilities: float, no_face: bool = False, failed: bool = False, **fields: Any) -> Detection:
    """A stored detection with its files: of one face that is 90 % fake, unless told otherwise."""
    if not fake_probabilities and not no_face and not failed:
        fake_probabilities = (0.9,)
    prediction = make_prediction(*fake_probabilities)
    given = dict(fields)
    data = fields.pop("data", None) or make_jpeg()
    values: dict[str, Any] = {
        "original_name": "holiday.jpg",
        "sha256": hashlib.sha256(data).hexdigest() if "data" in given else "ab" * 32,
        "format": "JPEG",
        "width": 320,
        "height": 240,
        "byte_count": len(data),
        "ai_declaration": "none",
        "status": Detection.Status.DONE if prediction.faces else Detection.Status.NOT_APPLICABLE,
        "verdict": prediction.verdict.value,
        "fake_probability": prediction.fake_probability,
        "threshold": 0.7,
        "uncertain_above": 0.3,
        "model_version": MODEL_VERSION,
        "faces": [face.as_dict() for face in prediction.faces],
        "timings_ms": dict(prediction.timings_ms),
    }
    if failed:
        values |= {"status": Detection.Status.FAILED, "verdict": "", "model_version": "", "timings_ms": {}}
    if fields.get("review_verdict"):
        values |= {"review_count": 1, "reviewed_at": timezone.now()}
    if fields.get("owner") is None:
        values["session_key"] = VISITOR_KEY
    detection = Detection(**values | fields)
    if "data" in given:
        detection.perceptual_hash = perceptual_hash(decode_image(data).pixels)
    detection.image.save("", ContentFile(data), save=False)
    detection.review_need = detection.need_now()
    detection.thumbnail.save("", ContentFile(make_jpeg(256, 192)), save=False)
    detection.save(force_insert=True)
    return detection


def make_review(
    detection: Detection,
    verdict: str = "real",
    *,
    reviewer: User | None = None,
    note: str = "",
    is_blind: bool = False,
) -> Review:
    """A review by somebody who has just opened the page; `detection` is brought up to date."""
    reviewer = reviewer or make_user(f"reviewer-{Review.objects.count() + 1}", is_staff=True)
    detection.refresh_from_db()
    look = Look.begin(detection.pk, seen_count=detection.review_count, is_blind=is_blind)
    review = services.review_create(detection=detection, reviewer=reviewer, verdict=verdict, note=note, look=look)
    detection.refresh_from_db()
    return review
