"""The use cases of the application.

Nothing else writes a Detection, a Review, a Score or what was seen of them, but demo.py made-up ones.
"""

import logging
import os
import time
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from detector import metrics, pending
from detector.exceptions import (
    AccountGone,
    AppealRefused,
    DetectionGone,
    LastAdministrator,
    ModelUnavailable,
    NameTaken,
    OwnUpload,
    PictureGone,
    StaleReview,
)
from detector.images import DecodedImage, decode_again, encode_jpeg, fitted, middle_of_long
from detector.models import (
    HASH_BANDS,
    Detection,
    Review,
    Score,
    SeenAnswer,
    SeenUntil,
    picture_path,
    thumbnail_path,
)
from detector.predictor import DecisionRule, Prediction, Predictor, Verdict, get_predictor, is_face_uncertain
from detector.provenance import ai_declaration
from detector.reviews import Look, agreed_verdict, is_drawn, opinions_of
from detector.similarity import HASHED_SIDE, perceptual_hash

logger = logging.getLogger(__name__)

THUMBNAIL_SIDE = HASHED_SIDE  # so that one small copy serves both
FILE_FACTS = ("sha256", *HASH_BANDS, "ai_declaration")
STATUS_BY_VERDICT = {
    Verdict.REAL: Detection.Status.DONE,
    Verdict.FAKE: Detection.Status.DONE,
    Verdict.NOT_APPLICABLE: Detection.Status.NOT_APPLICABLE,
}


def active_predictor() -> Predictor:
    """The predictor that the settings name.

    Raises:
        ModelUnavailable: Its model is missing or broken.
    """
    return get_predictor(settings.MODEL_DIR, num_threads=settings.PREDICTOR_THREADS, prior=settings.FAKE_PRIOR)


def predictor_reserve(*, processes: int) -> None:
    """Makes the active predictor ready for as many detections at once as there may be and the machine can work at.

    So many processes share the processors. More networks than processors make nothing faster, and each takes memory in
    each process; detections take turns at each of them, face by face.
    """
    active_predictor().reserve(min(settings.DETECTIONS_AT_ONCE, max(1, processor_count() // processes)))


def processor_count() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def named_predictor(name: str) -> Predictor:
    """The predictor of a model folder beside the active one.

    Raises:
        ModelUnavailable: There is no such folder, or its model is broken.
    """
    if name != Path(name).name:
        raise ModelUnavailable(f"{name!r} is not the name of a folder.")
    model_dir = settings.MODEL_DIR.parent / name
    return get_predictor(model_dir, num_threads=settings.PREDICTOR_THREADS, prior=settings.FAKE_PRIOR)


def active_version() -> str | None:
    """The weights that judge new uploads, whatever share of fakes is assumed; None while there are none."""
    try:
        return active_predictor().spec.version
    except ModelUnavailable:
        return None


def is_fitted(rule: DecisionRule) -> bool:
    """Whether the active model was measured with this rule and band; nothing speaks against it while there is none."""
    try:
        return rule == active_predictor().fitted_rule
    except ModelUnavailable:
        return True


def active_rule() -> DecisionRule:
    """The rule for new uploads: the threshold of the settings, and the model's own band unless a setting moves it."""
    threshold = settings.REAL_THRESHOLD
    try:
        rule = active_predictor().rule(threshold)
    except ModelUnavailable:
        # Nothing will be judged by it; uploads are kept as failed.
        rule = DecisionRule(threshold, threshold, threshold)
    above, up_to = settings.UNCERTAIN_ABOVE, settings.UNCERTAIN_UP_TO
    return DecisionRule(
        threshold,
        uncertain_above=rule.uncertain_above if above is None else above,
        uncertain_up_to=rule.uncertain_up_to if up_to is None else up_to,
    )


def detection_create(
    *,
    owner: User | None,
    session_key: str,
    data: bytes,
    image: DecodedImage,
    original_name: str,
    keep_picture: bool = True,
) -> Detection:
    """The stored detection; when the analysis broke it has the status failed, and neither verdict nor probability.

    Without `keep_picture` nothing of the upload is ever written but its figures and its two hashes.

    Raises:
        AccountGone: The owner was deleted while the picture was looked at.
    """
    rule = active_rule()
    # Nobody can review what is not kept, so it takes no part in the draw.
    sample_percent = settings.REVIEW_SAMPLE_PERCENT if keep_picture else 0.0
    detection = Detection(
        owner=owner,
        session_key="" if owner else session_key,
        original_name=display_name(original_name) if keep_picture else "",
        sha256=image.sha256,
        format=image.format,
        width=image.width,
        height=image.height,
        byte_count=image.byte_count,
        ai_declaration=ai_declaration(data, image.format),
        threshold=rule.real_threshold,
        uncertain_above=rule.uncertain_above,
        uncertain_up_to=rule.uncertain_up_to,
        sample_percent=sample_percent,
    )
    small = fitted(image.picture, THUMBNAIL_SIDE)
    detection.perceptual_hash = perceptual_hash(small)
    detection.is_sampled = is_drawn(detection.pk, sample_percent)
    _analyse(detection, image, rule)
    started = time.perf_counter()
    try:
        if keep_picture:
            # A whole panorama would be a strip of a few pixels, which lists show enlarged.
            middle = middle_of_long(image.picture)
            shown = small if middle is image.picture else fitted(middle, THUMBNAIL_SIDE)
            _store(detection, data, encode_jpeg(shown))
        else:
            detection.picture_removed_at = detection.created_at
            detection.save(force_insert=True)
    except IntegrityError as error:
        if owner and not User.objects.filter(pk=owner.pk).exists():
            raise AccountGone("Your account was deleted in the meantime; nothing was kept.") from error
        raise
    metrics.detection_stored(detection, store_s=time.perf_counter() - started)
    return detection


def picture_forget(*, detection: Detection) -> None:
    """Removes the picture, its thumbnail and its file name; the row, its figures and its reviews stay.

    The files go first: if this is interrupted the row still says that there is a picture, and the next call ends it.

    Raises:
        DetectionGone: It was deleted.
    """
    for file in (detection.image, detection.thumbnail):
        if file:
            file.storage.delete(str(file.name))
    with transaction.atomic():
        current = _locked(detection)
        current.image = current.thumbnail = current.original_name = ""
        current.picture_removed_at = timezone.now()
        current.review_need = current.need_now()
        current.save(update_fields=["image", "thumbnail", "original_name", "picture_removed_at", "review_need"])


def detection_delete(*, detection: Detection) -> None:
    """Deletes the row and then, by the receiver that every way of deleting has in common, the files."""
    with transaction.atomic():
        detection.delete()


def detections_delete(*, detections: QuerySet[Detection]) -> None:
    with transaction.atomic():
        detections.delete()


def account_create(*, account: User) -> None:
    """Stores a new account.

    The database compares names with their case: of two that sign up at once as ada and Ada neither would see the other.
    So one comes after the other. The row that they wait for stands for all accounts, and nothing else needs it.

    Raises:
        NameTaken: Somebody has that name, or one that differs from it in case only.
    """
    try:
        with transaction.atomic():
            ContentType.objects.select_for_update(no_key=True).get(app_label="auth", model="user")
            if User.objects.filter(username__iexact=account.username).exists():
                raise NameTaken("Somebody has that name already.")
            account.save(force_insert=True)
    except IntegrityError as error:
        raise NameTaken("Somebody has that name already.") from error


def accounts_delete(*, accounts: QuerySet[User]) -> None:
    """Deletes the accounts with all that they uploaded; an upload that is being stored finds its account gone."""
    with transaction.atomic():
        # Or an upload that is stored after their uploads were looked up would have PostgreSQL refuse the deletion.
        doomed = User.objects.filter(pk__in=accounts.order_by().values("pk")).order_by("pk")
        keys = list(doomed.select_for_update().values_list("pk", flat=True))
        User.objects.filter(pk__in=keys).delete()
        # In the admin's record of what others did there the names would stay.
        of_them = LogEntry.objects.filter(content_type__app_label="auth", content_type__model="user")
        of_them.filter(object_id__in=[str(key) for key in keys]).update(object_repr="a deleted account")


def account_delete(*, account: User) -> None:
    """Deletes somebody's own account with all that they uploaded; what they reviewed stays, without their name.

    Raises:
        LastAdministrator: Nobody else could manage the site's accounts.
    """
    with transaction.atomic():
        # Locked, or the last two could delete themselves at the same moment.
        administrators = User.objects.filter(is_superuser=True, is_active=True).order_by("pk").select_for_update()
        if account.is_superuser and list(administrators.values_list("pk", flat=True)) == [account.pk]:
            raise LastAdministrator("This is the last account that can manage the others. Make another one first.")
        accounts_delete(accounts=User.objects.filter(pk=account.pk))
    # The admin's own record of what it did there goes with it.
    logger.info("Account %s was deleted by whoever it belonged to", account.pk)


def appeal_create(*, detection: Detection, text: str) -> Detection:
    """The detection with the uploader's objection, which a review will answer.

    Raises:
        AppealRefused: There is one already, or nothing to object to.
        DetectionGone: It was deleted.
    """
    with transaction.atomic():
        current = _locked(detection)
        if not current.can_be_appealed:
            raise AppealRefused("You can object to a result once.")
        current.appealed_at = timezone.now()
        current.appeal_text = text
        current.review_need = current.need_now()
        current.save(update_fields=["appealed_at", "appeal_text", "review_need"])
    return current


def score_create(*, detection: Detection, predictor: Predictor, keep: bool) -> Score:
    """What that model says of the stored picture, kept beside the detection if wanted; the detection stays as it is.

    Raises:
        AnalysisFailed: The model broke on it.
        DetectionGone: It was deleted.
        InvalidImage, OSError: The file cannot be read any more.
    """
    with detection.image.open("rb") as file:
        data = file.read()
    image = decode_again(data, pixel_count=detection.width * detection.height)
    prediction = predictor.predict(image, rule=active_rule(), max_faces=settings.MAX_FACES)
    score = Score(detection=detection, model_version=predictor.version, fake_probability=prediction.fake_probability)
    if keep:
        with transaction.atomic():
            _locked(detection)
            # Another run may have been faster.
            figures = {"fake_probability": score.fake_probability}
            score, _ = Score.objects.get_or_create(
                detection=detection, model_version=predictor.version, defaults=figures
            )
    return score


def file_facts_fill(*, detection: Detection, keep: bool) -> None:
    """Fills in the hashes of the stored picture and what its file says of AI, in the database too if wanted.

    They are not changed where present. Whether a person should look is asked anew.

    Raises:
        InvalidImage, OSError: The file cannot be read any more.
        DetectionGone: It was deleted.
    """
    with detection.image.open("rb") as file:
        data = file.read()
    image = decode_again(data, pixel_count=detection.width * detection.height)
    detection.sha256 = detection.sha256 or image.sha256
    if detection.perceptual_hash is None:
        detection.perceptual_hash = perceptual_hash(image.picture)
    detection.ai_declaration = detection.ai_declaration or ai_declaration(data, image.format)
    if not keep:
        return
    with transaction.atomic():
        current = _locked(detection)
        for name in FILE_FACTS:
            setattr(current, name, getattr(detection, name))
        current.review_need = current.need_now()
        current.save(update_fields=[*FILE_FACTS, "review_need"])


def detection_resettle(*, detection: Detection, keep: bool) -> Detection:
    """The detection as its reviews settle it by the settings of now, stored if wanted.

    Raises:
        DetectionGone: It was deleted.
    """
    with transaction.atomic():
        current = _locked(detection)
        before = current.review_verdict, current.review_need
        current.review_verdict = _agreed(current)
        current.review_need = current.need_now()
        if keep and (current.review_verdict, current.review_need) != before:
            current.save(update_fields=["review_verdict", "review_need"])
    return current


def review_create(*, detection: Detection, reviewer: User, verdict: str, note: str, look: Look) -> Review:
    """The new review, added to those of the detection; what they say together is noted on the detection.

    Raises:
        StaleReview: Somebody else reviewed it after the page was opened. Nothing is stored.
        PictureGone: There is no picture any more.
        OwnUpload: The reviewer uploaded it.
        DetectionGone: It was deleted.
    """
    with transaction.atomic():
        current = _locked(detection)
        if not current.has_picture:
            raise PictureGone("There is no picture to review any more.")
        if current.owner_id == reviewer.pk:
            raise OwnUpload("Somebody else has to review what you uploaded.")
        if current.review_count != look.seen_count:
            raise StaleReview("Somebody else has reviewed this in the meantime.", seen_count=look.seen_count)
        review = Review.objects.create(
            detection=current,
            detection_key=current.pk,
            uploaded_on=timezone.localdate(current.created_at),
            ordinal=current.review_count + 1,
            reviewer=reviewer,
            reviewer_key=reviewer.pk,
            verdict=verdict,
            note=note,
            is_blind=look.is_blind,
            seconds_spent=look.seconds_spent,
            machine_verdict=current.verdict,
            fake_probability=current.fake_probability,
            threshold=current.threshold,
            uncertain_above=current.uncertain_above,
            uncertain_up_to=current.uncertain_up_to,
            model_version=current.model_version,
            is_sampled=current.is_sampled,
            sample_percent=current.sample_percent,
        )
        _settle(current, review)
    return review


def _locked(detection: Detection) -> Detection:
    """The detection as it is now and stays until the transaction ends.

    Raises:
        DetectionGone: It was deleted.
    """
    try:
        return Detection.objects.select_for_update().get(pk=detection.pk)
    except Detection.DoesNotExist as error:
        raise DetectionGone("This detection was deleted in the meantime.") from error


def _settle(detection: Detection, newest: Review) -> None:
    """Notes on the detection what its reviews say together."""
    detection.review_count = newest.ordinal
    detection.reviewed_at = newest.created_at
    detection.review_verdict = _agreed(detection)
    detection.review_need = detection.need_now()
    detection.save(update_fields=["review_count", "reviewed_at", "review_verdict", "review_need"])


def _agreed(detection: Detection) -> str:
    """What its reviews say together; each reviewer's newest one counts."""
    reviews = detection.reviews.order_by("ordinal").values_list("reviewer_key", "pk", "verdict")
    return agreed_verdict(detection.verdict, opinions_of(reviews), reviewers_needed=settings.REVIEWERS_NEEDED)


def seen_answers_add(*, account: User, keys: Iterable[object]) -> None:
    """Notes that the account has seen the machine's answers to those detections; nothing is written of known ones."""
    unseen = list(Detection.objects.filter(pk__in=list(keys)).unseen_by(account).values_list("pk", flat=True))
    if not unseen:
        return
    with transaction.atomic():
        if not _account_is_locked(account):
            return
        # Locked, or one that is deleted right now would have PostgreSQL refuse all. In the order of a deletion.
        there = Detection.objects.filter(pk__in=unseen).order_by("pk").select_for_update(no_key=True)
        rows = [SeenAnswer(account=account, detection_id=key) for key in there.values_list("pk", flat=True)]
        SeenAnswer.objects.bulk_create(rows, ignore_conflicts=True)


def seen_until_set(*, account: User) -> None:
    """Notes that the account has seen the machine's answers to all that there are by now."""
    until = SeenUntil.objects.filter(account=account).values_list("until", flat=True).first()
    if until and not Detection.objects.filter(created_at__gt=until).exists():
        return
    with transaction.atomic():
        if _account_is_locked(account):
            SeenUntil.objects.update_or_create(account=account, defaults={"until": timezone.now()})


def _account_is_locked(account: User) -> bool:
    """Whether the account is still there, which then stays so until the transaction ends."""
    return User.objects.select_for_update(no_key=True).filter(pk=account.pk).values_list("pk").first() is not None


def detections_claim(*, session_key: str, user: User) -> int:
    """The number of detections that moved from the session to the account."""
    if not session_key:
        return 0
    return Detection.objects.filter(owner=None, session_key=session_key).update(owner=user, session_key="")


def detection_lock(*, detection: Detection) -> None:
    """Has nobody change the row, if it is still there, until the transaction ends, nor add what refers to it.

    PostgreSQL would otherwise empty the links of the reviews that it sees, wait for a review in the making with the
    row itself, and then refuse to delete it because of that one.
    """
    Detection.objects.select_for_update().filter(pk=detection.pk).values_list("pk").first()


def files_doom(*, detection: Detection) -> list[str]:
    """The files of a row that is about to go, after a note that they have to follow it."""
    files = [str(file.name) for file in (detection.image, detection.thumbnail) if file]
    if files:
        try:
            pending.note(detection.pk, files, is_first=False)
        except OSError:
            # A full disk must not keep anybody from deleting.
            logger.exception("Could not write a note on %s", detection.pk)
    return files


def files_remove(*, pk: UUID, files: list[str]) -> None:
    """Removes the files of a row that is gone, and the note on them."""
    if files:
        _remove(pk, files)


def display_name(name: str) -> str:
    """The client's file name without its folders and without characters that would not be seen or would mislead."""
    base = unicodedata.normalize("NFC", name).replace("\\", "/").rpartition("/")[2]
    shown = "".join(character for character in base if character.isprintable()).strip()
    return shown[: Detection._meta.get_field("original_name").max_length]


def _analyse(detection: Detection, image: DecodedImage, rule: DecisionRule) -> None:
    """Fills in what the model says, or that it could not say anything."""
    detection.status = Detection.Status.FAILED
    try:
        with metrics.in_progress():
            prediction = active_predictor().predict(image, rule=rule, max_faces=settings.MAX_FACES)
    except ModelUnavailable:
        logger.exception("No model to judge picture %s with", detection.pk)
        detection.error_code = "model_unavailable"
    except Exception:
        # The edge to native code: whatever breaks in there, the upload is kept, without a verdict.
        logger.exception("The analysis of picture %s broke", detection.pk)
        detection.error_code = "analysis_failed"
    else:
        _apply(detection, prediction, rule)


def _apply(detection: Detection, prediction: Prediction, rule: DecisionRule) -> None:
    detection.status = STATUS_BY_VERDICT[prediction.verdict]
    detection.verdict = prediction.verdict.value
    detection.fake_probability = prediction.fake_probability
    detection.model_version = prediction.model_version
    # The row keeps the rule for the whole picture, which one small face leaves undecided for all.
    detection.faces = [face.as_dict() | {"is_uncertain": is_face_uncertain(face, rule)} for face in prediction.faces]
    detection.unjudged_faces = prediction.unjudged_faces
    detection.uncertain_above = prediction.rule.uncertain_above
    detection.uncertain_up_to = prediction.rule.uncertain_up_to
    detection.timings_ms = dict(prediction.timings_ms)


def _store(detection: Detection, data: bytes, thumbnail: bytes) -> None:
    """Writes files and row together or not at all: the files first, and away with them if anything after fails."""
    files = [picture_path(detection, ""), thumbnail_path(detection, "")]
    try:
        pending.note(detection.pk, files, is_first=True)
        detection.image.save("", ContentFile(data), save=False)
        detection.thumbnail.save("", ContentFile(thumbnail), save=False)
        detection.review_need = detection.need_now()
        with transaction.atomic():
            detection.save(force_insert=True)
    except BaseException:
        # Also when the process is told to stop: a file without its row would never be found again.
        _discard(detection, files)
        raise
    _forget_note(detection.pk)


def _discard(detection: Detection, files: list[str]) -> None:
    """Removes what `_store` may have written, half-written files included, unless the row is there after all."""
    try:
        is_stored = Detection.objects.filter(pk=detection.pk).exists()
    except DatabaseError:
        # A connection that broke at the commit says neither yes nor no.
        logger.exception("Whether %s was stored has to be asked again", detection.pk)
        pending.give_up(detection.pk, files)
        return
    _remove(detection.pk, [] if is_stored else files)


def _remove(pk: UUID, files: list[str]) -> None:
    """Removes the files and the note on them; what cannot be removed now is left to pending.settle_abandoned()."""
    is_clean = True
    for path in files:
        try:
            default_storage.delete(path)
        except OSError:
            logger.exception("Could not remove %s", path)
            is_clean = False
    if is_clean:
        _forget_note(pk)
    else:
        pending.give_up(pk, files)


def _forget_note(pk: UUID) -> None:
    try:
        pending.forget(pk)
    except OSError:
        logger.exception("Could not remove the note on %s", pk)
