"""Made-up detections with their reviews, to try and to measure the admin with. Its pictures are generated noise."""

import io
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
from django.contrib.auth.models import Group, User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import transaction
from django.utils import timezone
from PIL import Image

from detector import services
from detector.models import Detection, Review, ReviewVerdict, UploadWeek
from detector.reviews import agreed_verdict, is_drawn
from detector.services import STATUS_BY_VERDICT

BATCH = 1000
WEEKS = 104
PICTURES = 8
REVIEWERS = 5
MOST_OWNERS = 2000
KNOWN_PICTURES = 500  # that are uploaded again and again
MODEL_VERSIONS = ["demo-1", "demo-2", "demo-3"]  # one after the other
NAMES = ["IMG_{}.jpg", "DSC{}.JPG", "photo-{}.png", "Screenshot {}.png", "portrait {}.webp", "WhatsApp Image {}.jpeg"]


@dataclass(frozen=True, slots=True)
class Added:
    """How many rows of each kind a call has added."""

    detections: int
    reviews: int
    appeals: int


@dataclass(slots=True)
class Maker:
    """Makes one detection after the other, with its reviews, as uploads and reviewers would have."""

    owners: list[User]
    reviewers: list[User]
    pictures: list[tuple[str, str, int]]
    random: random.Random
    now: datetime = field(default_factory=timezone.now)
    known: list[tuple[str, int]] = field(default_factory=list)

    def detection(self, age: float) -> Detection:
        """A detection that nobody has saved yet.

        Args:
            age: 0 for now, 1 for two years ago.
        """
        rule, probability = services.active_rule(), self._fake_probability()
        verdict = rule.verdict(probability)
        image, thumbnail, byte_count = self.random.choice(self.pictures)
        sha256, perceptual_hash = self._hashes()
        owner = self.owners[int(len(self.owners) * self.random.random() ** 2)] if self.random.random() < 0.6 else None
        detection = Detection(
            id=UUID(int=self.random.getrandbits(128), version=4),
            owner=owner,
            session_key="" if owner else f"{self.random.getrandbits(160):040x}",
            created_at=self.now - age * timedelta(weeks=WEEKS),
            image=image,
            thumbnail=thumbnail,
            original_name=self.random.choice(NAMES).format(self.random.randrange(10_000, 100_000_000)),
            sha256=sha256,
            format="JPEG",
            width=96,
            height=72,
            byte_count=byte_count,
            status=STATUS_BY_VERDICT[verdict],
            verdict=verdict.value,
            fake_probability=probability,
            threshold=rule.real_threshold,
            uncertain_above=rule.uncertain_above,
            uncertain_up_to=rule.uncertain_up_to,
            model_version=MODEL_VERSIONS[2 - min(2, int(age * 3))],
            faces=[] if probability is None else [_face(probability)],
            timings_ms={"decode": 2.0, "faces": 9.0, "network": 11.0, "total": 22.0},
            sample_percent=5.0,
            ai_declaration="c2pa" if self.random.random() < 0.02 else "none",
        )
        detection.perceptual_hash = perceptual_hash
        detection.is_sampled = is_drawn(detection.pk, detection.sample_percent)
        if self.random.random() < 0.03:
            _fail(detection)
        elif self.random.random() < 0.01:
            detection.appealed_at = detection.created_at + timedelta(minutes=5)
            detection.appeal_text = "This is not right."
        detection.review_need = detection.need_now()
        return detection

    def reviews(self, detection: Detection) -> list[Review]:
        """None, one or two; what they say together is noted on the detection."""
        if not detection.review_need or self.random.random() > 0.15:
            return []
        truth = detection.verdict if self.random.random() < 0.8 else self.random.choice(ReviewVerdict.values)
        asked = self.random.sample(self.reviewers, 2 if self.random.random() < 0.2 else 1)
        reviews = [self._review(detection, who, n, truth) for n, who in enumerate(asked, start=1)]
        detection.review_count = len(reviews)
        detection.reviewed_at = reviews[-1].created_at
        opinions = [review.verdict for review in reviews]
        detection.review_verdict = agreed_verdict(detection.verdict, opinions, reviewers_needed=1)
        detection.review_need = detection.need_now()
        return reviews

    def _review(self, detection: Detection, reviewer: User, ordinal: int, truth: str) -> Review:
        return Review(
            detection=detection,
            detection_key=detection.pk,
            uploaded_on=timezone.localdate(detection.created_at),
            ordinal=ordinal,
            reviewer=reviewer,
            reviewer_key=reviewer.pk,
            verdict=truth if truth in ReviewVerdict.values and self.random.random() < 0.9 else ReviewVerdict.CANT_TELL,
            is_blind=False,
            seconds_spent=self.random.randrange(3, 90),
            created_at=detection.created_at + timedelta(hours=ordinal),
            machine_verdict=detection.verdict,
            fake_probability=detection.fake_probability,
            threshold=detection.threshold,
            uncertain_above=detection.uncertain_above,
            uncertain_up_to=detection.uncertain_up_to,
            model_version=detection.model_version,
            is_sampled=detection.is_sampled,
            sample_percent=detection.sample_percent,
        )

    def _fake_probability(self) -> float | None:
        kind = self.random.random()
        if kind < 0.07:
            return None
        if kind < 0.70:
            return self.random.betavariate(1, 9)
        return self.random.betavariate(7, 1) if kind < 0.95 else self.random.uniform(0.3, 0.7)

    def _hashes(self) -> tuple[str, int]:
        if self.known and self.random.random() < 0.03:
            return self.random.choice(self.known)
        pair = f"{self.random.getrandbits(256):064x}", self.random.getrandbits(64)
        if len(self.known) < KNOWN_PICTURES:
            self.known.append(pair)
        return pair


def make(rows: int, *, seed: int | None = None, progress: Callable[[int], object] = lambda _: None) -> Added:
    """Adds so many detections, their reviews, and the accounts and pictures that all of them share."""
    maker = Maker(_owners(rows), _reviewers(), _pictures(), random.Random(seed))
    reviews = appeals = 0
    for start in range(0, rows, BATCH):
        # The oldest first, as they would have come, and more of them lately.
        ages = [(1 - number / rows) ** 1.2 for number in range(start, min(start + BATCH, rows))]
        detections = [maker.detection(age) for age in ages]
        written = [review for detection in detections for review in maker.reviews(detection)]
        with transaction.atomic():
            Detection.objects.bulk_create(detections)
            Review.objects.bulk_create(written)
        reviews += len(written)
        appeals += sum(detection.appealed_at is not None for detection in detections)
        progress(len(detections))
    UploadWeek.objects.all().delete()  # bulk inserts into weeks that were counted already
    return Added(rows, reviews, appeals)


def _accounts(prefix: str, count: int, **fields: Any) -> list[User]:
    """Accounts that nobody can log in to, made once."""
    names = [f"{prefix}-{number:04d}" for number in range(1, count + 1)]
    User.objects.bulk_create([User(username=name, password="!", **fields) for name in names], ignore_conflicts=True)
    return list(User.objects.filter(username__in=names).order_by("username"))


def _owners(rows: int) -> list[User]:
    return _accounts("demo", min(MOST_OWNERS, max(10, rows // 100)))


def _reviewers() -> list[User]:
    reviewers = _accounts("demo-reviewer", REVIEWERS, is_staff=True)
    Group.objects.get(name="Reviewers").user_set.add(*reviewers)
    return reviewers


def _pictures() -> list[tuple[str, str, int]]:
    """Path, path of the thumbnail and size of each; the rows share them, so what removes one takes it from many."""
    made = []
    for number in range(PICTURES):
        noise = np.random.default_rng(number).integers(0, 256, (9, 12, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).resize((96, 72)).save(buffer, "JPEG")
        paths = [f"{folder}/demo/{number}.jpg" for folder in ("detections", "thumbnails")]
        for path in paths:
            if not default_storage.exists(path):
                default_storage.save(path, ContentFile(buffer.getvalue()))
        made.append((paths[0], paths[1], len(buffer.getvalue())))
    return made


def _face(probability: float) -> dict[str, Any]:
    return {
        "bbox": [30, 20, 36, 36],
        "crop": [21, 11, 54, 54],
        "detection_score": 0.97,
        "fake_probability": probability,
        "cam": [[round(probability * x * y / 9, 2) for x in range(7)] for y in range(7)],
    }


def _fail(detection: Detection) -> None:
    detection.status, detection.verdict, detection.error_code = Detection.Status.FAILED, "", "analysis_failed"
    detection.fake_probability, detection.faces, detection.model_version = None, [], ""
