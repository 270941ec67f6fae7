import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Coalesce
from django.db.models.lookups import GreaterThan, LessThanOrEqual
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from detector.predictor import DecisionRule
from detector.provenance import Declaration
from detector.similarity import from_bands, to_bands, to_text, within_one_bit
from detector.visitors import visitor_key

BEFORE_ANY_REVIEW = datetime(1970, 1, 1, tzinfo=UTC)
HASH_BANDS = ["hash_band_1", "hash_band_2", "hash_band_3", "hash_band_4"]
UNREVIEWED_SAMPLE = Q(is_sampled=True, sample_percent__gt=0.0, review_count=0)
MOST_OWNERS_FOUND = 1000  # accounts whose uploads a search lists
EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
PICTURE_FOLDER, THUMBNAIL_FOLDER = "detections", "thumbnails"


def picture_path(detection: "Detection", filename: str) -> str:
    """Where the upload is kept: nothing of the name that the client gave is in it."""
    return f"{month_folders(detection.created_at)[0]}/{detection.pk}.{EXTENSIONS[detection.format]}"


def thumbnail_path(detection: "Detection", filename: str) -> str:
    return f"{month_folders(detection.created_at)[1]}/{detection.pk}.jpg"


def month_folders(day: datetime) -> tuple[str, str]:
    """Where the pictures and the thumbnails of uploads of then are kept."""
    return f"{PICTURE_FOLDER}/{day:%Y/%m}", f"{THUMBNAIL_FOLDER}/{day:%Y/%m}"


class ReviewVerdict(models.TextChoices):
    REAL = "real", "Real"
    FAKE = "fake", "Fake"
    CANT_TELL = "cant_tell", "Can't tell"


class ReviewNeed(models.IntegerChoices):
    """Why a person should look, the most urgent first."""

    NONE = 0, "None"
    UNCERTAIN = 1, "Uncertain"
    APPEALED = 2, "Objected to"
    SECOND_OPINION = 3, "Second opinion"
    SAMPLE = 4, "Random sample"
    CONTRADICTED = 5, "File says AI"


class DetectionQuerySet(models.QuerySet["Detection"]):
    def owned_by(self, request: HttpRequest) -> "DetectionQuerySet":
        """The visitor's own: those of the account when logged in, else those of the session."""
        if request.user.is_authenticated:
            return self.filter(owner=request.user)
        key = visitor_key(request)
        return self.filter(owner=None, session_key=key) if key else self.none()

    def visible_to(self, request: HttpRequest) -> "DetectionQuerySet":
        """The visitor's own, and every one for staff who may view detections in the admin."""
        if may_see_all(request.user):
            return self
        return self.owned_by(request)

    def with_verdict(self, verdict: str) -> "DetectionQuerySet":
        return self.filter(verdict=verdict)

    def near_hash(self, value: int, *, or_file: str | None = None) -> "DetectionQuerySet":
        """Those whose perceptual hash may be near it: all that are, found by index, and some that are not.

        With `or_file` also those of the file with that SHA-256.
        """
        maybe = Q() if or_file is None else Q(sha256=or_file)
        for name, band in zip(HASH_BANDS, to_bands(value), strict=True):
            maybe |= Q(**{f"{name}__in": list(within_one_bit(band))})
        return self.filter(maybe)

    def matching(self, word: str, *, with_owners: bool) -> "DetectionQuerySet":
        """Those with the word in their file name or as the start of their SHA-256, or whose owner's name has it."""
        found = Q(original_name__icontains=word)
        if re.fullmatch(r"[0-9a-f]{4,64}", start := word.lower()):
            found |= Q(sha256__gte=start, sha256__lt=f"{start}g")  # "g" follows every hexadecimal digit
        if with_owners:
            # Their keys, not a join: an "or" over two tables can use no index of either.
            users = get_user_model().objects.filter(Q(username__icontains=word) | Q(email__icontains=word))
            found |= Q(owner__in=list(users.order_by("pk").values_list("pk", flat=True)[:MOST_OWNERS_FOUND]))
        return self.filter(found)

    def model_versions(self) -> Iterator[str]:
        """Every model version that there is, each found by index from the one before."""
        versions = self.order_by("model_version").values_list("model_version", flat=True)
        version = versions.first()
        while version is not None:
            yield version
            version = versions.filter(model_version__gt=version).first()

    def with_old_picture(self, before: datetime) -> "DetectionQuerySet":
        """Those uploaded before that moment whose picture is still there."""
        return self.filter(created_at__lt=before).exclude(image="")

    def lacking_file_facts(self) -> "DetectionQuerySet":
        """Those whose picture is there and can still be asked for its hashes, or for what it says of AI."""
        return self.filter(Q(sha256="") | Q(hash_band_1=None) | Q(ai_declaration="")).exclude(image="")

    def batches(self, size: int) -> "Iterator[list[Detection]]":
        """All, by key, so many at once: a million take no more memory than a few, and no query is open meanwhile.

        Whatever changes between two batches, none comes twice.
        """
        rows = self.order_by("pk")
        batch = list(rows[:size])
        while batch:
            yield batch
            batch = list(rows.filter(pk__gt=batch[-1].pk)[:size])

    def newest_first(self) -> "DetectionQuerySet":
        return self.order_by("-created_at", "-pk")

    def to_review(self, reviewer: "models.Model | AnonymousUser") -> "DetectionQuerySet":
        """What waits for this reviewer, the most needed first; not what they answered, nor their own uploads."""
        since = Coalesce(OuterRef("appealed_at"), BEFORE_ANY_REVIEW)  # one comparison, which an index join can answer
        own = Review.objects.filter(detection=OuterRef("pk"), reviewer=reviewer.pk, created_at__gte=since)
        waiting = self.filter(~Exists(own), review_need__gt=ReviewNeed.NONE).exclude(owner=reviewer.pk)
        return waiting.order_by("review_need", "created_at", "pk")

    def unreviewed_sample(self) -> "DetectionQuerySet":
        """Those of the random sample with a decided verdict that nobody has reviewed, and whose picture was kept."""
        # Not "is done": for that SQLite would rather read the index on the state, with all that were not drawn.
        drawn = self.filter(UNREVIEWED_SAMPLE).exclude(
            status__in=[Detection.Status.FAILED, Detection.Status.NOT_APPLICABLE]
        )
        return drawn.exclude(picture_removed_at=F("created_at")).exclude(uncertain("verdict"))

    def unseen_by(self, account: "models.Model | AnonymousUser") -> "DetectionQuerySet":
        """Those to which the account has seen no answer of the machine's, so far as that is noted (REVIEW_BLIND)."""
        seen = SeenAnswer.objects.filter(account=account.pk, detection=OuterRef("pk"))
        seen_until = SeenUntil.objects.filter(account=account.pk, until__gte=OuterRef("created_at"))
        return self.filter(~Exists(seen), ~Exists(seen_until))

    def after(self, detection: "Detection") -> "DetectionQuerySet":
        """Those of a queue that come later than that detection."""
        return self.filter(review_need__gte=detection.review_need).filter(
            Q(review_need__gt=detection.review_need)
            | Q(created_at__gt=detection.created_at)
            | Q(created_at=detection.created_at, pk__gt=detection.pk)
        )

    def before(self, detection: "Detection") -> "DetectionQuerySet":
        """Those of a queue that come earlier than that detection, the nearest first."""
        return (
            self.filter(review_need__lte=detection.review_need)
            .filter(
                Q(review_need__lt=detection.review_need)
                | Q(created_at__lt=detection.created_at)
                | Q(created_at=detection.created_at, pk__lt=detection.pk)
            )
            .reverse()
        )

    def for_list(self) -> "DetectionQuerySet":
        """Without what only a detection's own page shows: the faces' maps make up most of a row."""
        return self.defer("faces", "timings_ms")

    def counts_by_verdict(self) -> dict[str, int]:
        """The number of detections per verdict, zeros included, and under "total" that of all, failed ones too."""
        rows = self.order_by().values_list("verdict").annotate(n=models.Count("pk"))
        found: dict[str, int] = dict(rows)
        counts = {verdict.value: found.get(verdict.value, 0) for verdict in Detection.Verdict}
        return {"total": sum(found.values()), **counts}


def may_see_all(user: "models.Model | AnonymousUser") -> bool:
    return bool(
        getattr(user, "is_active", False)
        and getattr(user, "is_staff", False)
        and user.has_perm("detector.view_detection")  # type: ignore[union-attr]
    )


class Detection(models.Model):
    """One uploaded picture with what the model said about it and, perhaps, what a person did."""

    class Status(models.TextChoices):
        DONE = "done", "Done"
        NOT_APPLICABLE = "not_applicable", "No face found"
        FAILED = "failed", "Failed"

    class AiDeclaration(models.TextChoices):
        """Where the file itself says that AI made it, or parts of it; see detector/provenance.py."""

        CREDENTIALS = Declaration.CREDENTIALS.value, "Content Credentials (C2PA)"
        SOURCE_TYPE = Declaration.SOURCE_TYPE.value, "IPTC digital source type"
        SETTINGS = Declaration.SETTINGS.value, "an image generator’s settings"
        NONE = Declaration.NONE.value, "no"

    class Verdict(models.TextChoices):
        REAL = "real", "Real"
        FAKE = "fake", "Fake"
        NOT_APPLICABLE = "not_applicable", "Not applicable"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    # No index of its own where one of several columns begins with it (Meta.indexes): that one answers the same.
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="detections",
        db_index=False,
    )
    session_key = models.CharField(
        max_length=40, blank=True, help_text="Of a visitor without an account; see detector/visitors.py."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False, db_index=True)

    image = models.FileField(upload_to=picture_path, max_length=120, blank=True)
    thumbnail = models.FileField(upload_to=thumbnail_path, max_length=120, blank=True)
    picture_removed_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When the files went while the row stayed."
    )
    original_name = models.CharField(max_length=255, blank=True, help_text="As the client gave it; for display only.")
    sha256 = models.CharField("SHA-256", max_length=64, db_index=True)
    # The perceptual hash in four indexed parts; see detector/similarity.py.
    hash_band_1 = models.PositiveIntegerField(null=True, blank=True, editable=False, db_index=True)
    hash_band_2 = models.PositiveIntegerField(null=True, blank=True, editable=False, db_index=True)
    hash_band_3 = models.PositiveIntegerField(null=True, blank=True, editable=False, db_index=True)
    hash_band_4 = models.PositiveIntegerField(null=True, blank=True, editable=False, db_index=True)
    format = models.CharField(max_length=8, choices=[(name, name) for name in EXTENSIONS])
    width = models.PositiveIntegerField(help_text="In pixels, upright.")
    height = models.PositiveIntegerField(help_text="In pixels, upright.")
    byte_count = models.PositiveBigIntegerField()
    # Empty is from before files were asked: what they say is not known.
    ai_declaration = models.CharField(
        "the file says AI",
        max_length=16,
        choices=AiDeclaration,
        blank=True,
        default="",
        db_default="",
        help_text="Where its metadata says that AI made it, or parts of it. A claim: it changes no verdict.",
    )

    status = models.CharField(max_length=16, choices=Status)
    verdict = models.CharField(max_length=16, choices=Verdict, blank=True)
    fake_probability = models.FloatField(
        null=True, blank=True, validators=[MinValueValidator(0.0), MaxValueValidator(1.0)]
    )
    threshold = models.FloatField(help_text="A real probability above it is Real.")
    uncertain_above = models.FloatField(help_text="A Fake with a real probability above it is uncertain.")
    # Null is from before there was one: no Real was uncertain then.
    uncertain_up_to = models.FloatField(
        null=True, blank=True, help_text="A Real with a real probability up to it is uncertain."
    )
    model_version = models.CharField(max_length=100, blank=True)
    faces = models.JSONField(default=list, blank=True)
    unjudged_faces = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="Smaller faces that were found beyond MAX_FACES; nobody looked at them."
    )
    timings_ms = models.JSONField(default=dict, blank=True)
    error_code = models.CharField(max_length=32, blank=True)

    is_sampled = models.BooleanField(
        "in the random sample", default=False, editable=False, help_text="Drawn when it was uploaded, for review."
    )
    sample_percent = models.FloatField(
        default=0.0, editable=False, help_text="How many in a hundred were drawn when it was uploaded."
    )
    appealed_at = models.DateTimeField(null=True, blank=True, editable=False)
    appeal_text = models.CharField("the uploader's objection", max_length=500, blank=True, editable=False)
    review_need = models.PositiveSmallIntegerField(
        "needs review", choices=ReviewNeed, default=ReviewNeed.NONE, editable=False
    )
    # What the reviews together say, written by services.review_create(); the reviews themselves are Review's rows.
    review_verdict = models.CharField("reviewed as", max_length=16, choices=ReviewVerdict, blank=True, editable=False)
    review_count = models.PositiveIntegerField("reviews", default=0, editable=False)
    reviewed_at = models.DateTimeField("last reviewed", null=True, blank=True, editable=False)

    objects = DetectionQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        indexes = [
            models.Index(fields=["owner", "-created_at"], name="detection_owner_newest"),
            models.Index(fields=["session_key", "-created_at"], name="detection_session_newest"),
            models.Index(fields=["model_version"], name="detection_model_version"),
            # What the admin's list is filtered and sorted by.
            models.Index(fields=["verdict", "-created_at"], name="detection_verdict_newest"),
            models.Index(fields=["status", "-created_at"], name="detection_status_newest"),
            models.Index(fields=["ai_declaration", "-created_at"], name="detection_declaration_newest"),
            models.Index(fields=["review_verdict", "-created_at"], name="detection_reviewed_as_newest"),
            models.Index(
                fields=["-created_at"], condition=Q(reviewed_at__isnull=False), name="detection_reviewed_newest"
            ),
            models.Index(fields=["fake_probability", "created_at"], name="detection_probability"),
            models.Index(
                fields=["review_need", "created_at", "id"],
                condition=Q(review_need__gt=0),
                name="detection_review_queue",
            ),
            models.Index(fields=["created_at"], condition=UNREVIEWED_SAMPLE, name="detection_unreviewed_sample"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(fake_probability__isnull=True) | Q(fake_probability__gte=0.0, fake_probability__lte=1.0),
                name="detection_probability_in_unit_range",
            ),
            models.CheckConstraint(
                condition=Q(threshold__gte=0.0, threshold__lte=1.0, uncertain_above__gte=0.0, uncertain_above__lte=1.0),
                name="detection_thresholds_in_unit_range",
            ),
            models.CheckConstraint(
                condition=Q(status="done", verdict__in=["real", "fake"], fake_probability__isnull=False)
                | Q(status="not_applicable", verdict="not_applicable", fake_probability__isnull=True)
                | Q(status="failed", verdict="", fake_probability__isnull=True),
                name="detection_verdict_matches_status",
            ),
            models.CheckConstraint(
                condition=Q(owner__isnull=False) | ~Q(session_key=""), name="detection_has_owner_or_session"
            ),
            models.CheckConstraint(
                condition=Q(review_count=0, review_verdict="", reviewed_at__isnull=True)
                | Q(
                    review_count__gt=0,
                    review_verdict__in=["", "real", "fake", "cant_tell"],
                    reviewed_at__isnull=False,
                ),
                name="detection_review_has_count_and_time",
            ),
            models.CheckConstraint(
                condition=Q(sample_percent__gte=0.0, sample_percent__lte=100.0),
                name="detection_sample_percent_in_range",
            ),
            models.CheckConstraint(
                condition=Q(appeal_text="") | Q(appealed_at__isnull=False), name="detection_appeal_text_has_time"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.original_name or self.pk} ({self.verdict_words})"

    def get_absolute_url(self) -> str:
        return reverse("detector:detection", args=[self.pk])

    def is_owned_by(self, request: HttpRequest) -> bool:
        """What `DetectionQuerySet.owned_by` asks of the database, asked of one detection."""
        if request.user.is_authenticated:
            return bool(self.owner_id == request.user.pk)
        return self.owner_id is None and self.session_key != "" and self.session_key == visitor_key(request)

    @property
    def perceptual_hash(self) -> int | None:
        bands = [getattr(self, name) for name in HASH_BANDS]
        return None if None in bands else from_bands((bands[0], bands[1], bands[2], bands[3]))

    @perceptual_hash.setter
    def perceptual_hash(self, value: int | None) -> None:
        bands = [None] * len(HASH_BANDS) if value is None else list(to_bands(value))
        for name, band in zip(HASH_BANDS, bands, strict=True):
            setattr(self, name, band)

    @property
    def perceptual_hash_text(self) -> str:
        return "" if self.perceptual_hash is None else to_text(self.perceptual_hash)

    @property
    def has_picture(self) -> bool:
        """Whether there is still something to look at, besides the figures."""
        return bool(self.image)

    @property
    def declares_ai(self) -> bool:
        """Whether the file itself says that AI made it, or parts of it."""
        return self.ai_declaration not in ("", Detection.AiDeclaration.NONE)

    @property
    def shown_name(self) -> str:
        """The file's name; what there is to say where it had none, or went with the picture."""
        if self.has_picture:
            return self.original_name or "unnamed"
        return "name not kept"

    @property
    def can_be_appealed(self) -> bool:
        """Once, and only where the machine said something that can be wrong and a person can look."""
        return self.appealed_at is None and self.status != Detection.Status.FAILED and self.has_picture

    @property
    def is_appeal_open(self) -> bool:
        """Whether the uploader still waits for a review that settles it."""
        if self.appealed_at is None:
            return False
        return self.review_verdict == "" or self.reviewed_at is None or self.reviewed_at < self.appealed_at

    @property
    def is_appeal_answered(self) -> bool:
        return self.appealed_at is not None and not self.is_appeal_open

    def need_now(self) -> ReviewNeed:
        """Why a person should look at it as it stands; `review_need` keeps the answer for the queue."""
        is_settled = self.review_verdict != "" and not self.is_appeal_open
        if self.status == Detection.Status.FAILED or is_settled or not self.has_picture:
            return ReviewNeed.NONE
        if self.is_uncertain:
            return ReviewNeed.UNCERTAIN
        if self.is_appeal_open:
            return ReviewNeed.APPEALED
        if self.review_count:
            return ReviewNeed.SECOND_OPINION
        # Before the next: of the sample those must not be reviewed sooner of which something else says they are wrong.
        if self.status == Detection.Status.DONE and self.is_sampled:
            return ReviewNeed.SAMPLE
        is_contradicted = self.verdict == Detection.Verdict.REAL and self.declares_ai
        return ReviewNeed.CONTRADICTED if is_contradicted else ReviewNeed.NONE

    def reviews_so_far(self) -> "list[Review]":
        return list(self.reviews.select_related("reviewer").order_by("ordinal"))

    @property
    def rule(self) -> DecisionRule:
        """The rule that was in force when the verdict was given."""
        return rule_of(self)

    @property
    def real_probability(self) -> float | None:
        return None if self.fake_probability is None else 1.0 - self.fake_probability

    @property
    def is_uncertain(self) -> bool:
        return self.rule.is_uncertain(self.fake_probability)

    @property
    def verdict_words(self) -> str:
        """The machine's verdict as "Real", "Fake, uncertain" or "Failed"."""
        said = self.get_verdict_display() or self.get_status_display()
        return f"{said}, uncertain" if self.is_uncertain else said

    @property
    def answer(self) -> str:
        """What a tag says: real, uncertain_real, uncertain_fake, fake, not_applicable or failed."""
        if self.status == self.Status.FAILED:
            return "failed"
        return f"uncertain_{self.verdict}" if self.is_uncertain else self.verdict


def rule_of(row: "Detection | Review") -> DecisionRule:
    """The rule that a row keeps, which was in force when its verdict was given."""
    up_to = row.threshold if row.uncertain_up_to is None else row.uncertain_up_to
    return DecisionRule(row.threshold, row.uncertain_above, up_to)


def uncertain(verdict: str) -> Q:
    """What `rule_of(row).is_uncertain` says, asked of the database; `verdict` is the field of the machine's."""
    # Not the probability of a fake with 1.0 less the edge, which is rounded otherwise.
    real_probability = 1.0 - F("fake_probability")
    leans_to_fake = Q(**{verdict: "fake"}) & Q(GreaterThan(real_probability, F("uncertain_above")))
    up_to = Coalesce("uncertain_up_to", "threshold")
    return leans_to_fake | Q(**{verdict: "real"}) & Q(LessThanOrEqual(real_probability, up_to))


class QueuedDetection(Detection):
    """A detection as the admin's "To review" lists it."""

    class Meta:
        proxy = True
        default_permissions = ()
        verbose_name = "detection to review"
        verbose_name_plural = "to review"


class Review(models.Model):
    """What one person said of one detection, for good: the database refuses to change or delete it.

    The machine's figures are copied, so that a review still counts when the detection is gone. Deleting a detection or
    an account empties the link to it and nothing else.
    """

    detection = models.ForeignKey(Detection, on_delete=models.SET_NULL, null=True, blank=True, related_name="reviews")
    detection_key = models.UUIDField(help_text="The detection's id, which stays when the detection goes.")
    uploaded_on = models.DateField(
        db_index=True, help_text="The detection's day of upload, which stays when the detection goes."
    )
    ordinal = models.PositiveIntegerField(help_text="1 for the first review of its detection, then 2 ...")
    reviewer = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="reviews"
    )
    reviewer_key = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="The reviewer's number, which stays when the account goes."
    )
    verdict = models.CharField(max_length=16, choices=ReviewVerdict)
    note = models.TextField(blank=True, max_length=2000)
    is_blind = models.BooleanField("blind", help_text="Decided before the machine's answer was shown.")
    seconds_spent = models.PositiveIntegerField(null=True, blank=True, help_text="From opening the page to deciding.")
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    machine_verdict = models.CharField(max_length=16, choices=Detection.Verdict, blank=True)
    fake_probability = models.FloatField(null=True, blank=True)
    threshold = models.FloatField()
    uncertain_above = models.FloatField()
    uncertain_up_to = models.FloatField(null=True, blank=True)
    model_version = models.CharField(max_length=100, blank=True, db_index=True)
    is_sampled = models.BooleanField("in the random sample", help_text="The detection was drawn at random for review.")
    sample_percent = models.FloatField(help_text="How many in a hundred were drawn when it was uploaded.")

    class Meta:
        ordering = ["-created_at", "-pk"]
        constraints = [
            models.UniqueConstraint(fields=["detection_key", "ordinal"], name="review_takes_its_turn"),
            models.CheckConstraint(
                condition=Q(verdict__in=["real", "fake", "cant_tell"]), name="review_verdict_is_a_choice"
            ),
            models.CheckConstraint(condition=Q(ordinal__gte=1), name="review_ordinal_starts_at_one"),
        ]

    def __str__(self) -> str:
        return f"{self.get_verdict_display()} by {self.reviewer or 'a deleted account'}"

    @property
    def real_probability(self) -> float | None:
        return None if self.fake_probability is None else 1.0 - self.fake_probability

    @property
    def is_uncertain(self) -> bool:
        """Whether the machine's verdict was only a leaning."""
        return rule_of(self).is_uncertain(self.fake_probability)

    @property
    def machine_words(self) -> str:
        """What the machine had said, as "Real" or "Fake, uncertain"; empty where its analysis had failed."""
        doubt = ", uncertain" if self.is_uncertain else ""
        return f"{self.get_machine_verdict_display()}{doubt}"


class Score(models.Model):
    """What another model says of a stored picture, beside the verdict that was given; made by `manage.py rescore`."""

    detection = models.ForeignKey(Detection, on_delete=models.CASCADE, related_name="scores", db_index=False)
    model_version = models.CharField(max_length=100)
    fake_probability = models.FloatField(null=True, blank=True, help_text="Empty where the model found no face.")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["detection", "model_version"], name="score_once_per_model"),
            models.CheckConstraint(
                condition=Q(fake_probability__isnull=True) | Q(fake_probability__gte=0.0, fake_probability__lte=1.0),
                name="score_probability_in_unit_range",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model_version} on {self.detection_id}"


class SeenAnswer(models.Model):
    """That an account has seen the machine's answer to a detection, after which no look of its own at it is blind."""

    # No reverse names, by which a list could be asked for what others have seen.
    account = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False)
    detection = models.ForeignKey(Detection, on_delete=models.CASCADE, related_name="+")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["account", "detection"], name="seen_answer_once")]

    def __str__(self) -> str:
        return f"Account {self.account_id} of {self.detection_id}"


class SeenUntil(models.Model):
    """The same of all that was uploaded by then: of an account that saw or downloaded too much to name it all."""

    account = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", primary_key=True
    )
    until = models.DateTimeField()

    def __str__(self) -> str:
        return f"Account {self.account_id} until {self.until:%Y-%m-%d %H:%M}"


class UploadWeek(models.Model):
    """What the quality page counts of the uploads of one past week, kept so that a million are not counted each time.

    Nothing but a deletion changes a past week, and that removes its row; whatever is missing is counted again.
    """

    start = models.DateTimeField(unique=True, help_text="Monday, midnight.")
    by_model = models.JSONField(help_text="Per model version: counts, the sum of the scores and ten bins.")

    def __str__(self) -> str:
        return f"Week from {self.start:%Y-%m-%d}"


class ReviewWeek(models.Model):
    """What the quality page needs of the reviews of one week's uploads, kept so that they are not read each time.

    Reviews are never changed or deleted, so as long as the number of them is the same they are the same ones: whoever
    reads compares the number, and has the week counted again where it differs. Nothing has to tell of a new review.
    """

    start = models.DateField(unique=True, help_text="Monday.")
    reviews = models.PositiveIntegerField(help_text="How many there were of the week's uploads when it was counted.")
    reviewers_needed = models.PositiveIntegerField(help_text="The setting by which it was counted.")
    by_model = models.JSONField(help_text="Per model version: subjects and pairs of reviewers.")

    def __str__(self) -> str:
        return f"Week from {self.start:%Y-%m-%d}"
