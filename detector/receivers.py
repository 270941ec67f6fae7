from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.db import transaction
from django.db.models.signals import post_delete, pre_delete
from django.dispatch import receiver
from django.http import HttpRequest

from detector import services, staff_sessions, unsent, upload_weeks
from detector.models import Detection
from detector.visitors import retire_visitor_key, visitor_key


@receiver(user_logged_in, dispatch_uid="detector.claim")
def claim_detections(sender: Any, request: HttpRequest | None, user: User, **kwargs: Any) -> None:
    """What somebody uploaded before logging in (or signing up, which logs in) moves to the account."""
    if request is None or not hasattr(request, "session"):
        return
    if key := visitor_key(request):
        services.detections_claim(session_key=key, user=user)
        retire_visitor_key(request)


@receiver(user_logged_in, dispatch_uid="detector.time_session")
def time_session(sender: Any, request: HttpRequest | None, user: User, **kwargs: Any) -> None:
    """When the log-in was counts for staff; what they leave unused that long goes altogether."""
    if request is None or not hasattr(request, "session"):
        return
    staff_sessions.note_log_in(request)
    if user.is_staff:
        request.session.set_expiry(settings.STAFF_SESSION_AGE_S)


@receiver(user_logged_in, dispatch_uid="detector.keep_unsent")
def keep_unsent(sender: Any, request: HttpRequest | None, user: User, **kwargs: Any) -> None:
    """What could not be taken in because the session had ended waits for its page."""
    if request is not None and hasattr(request, "session"):
        unsent.keep(request)


@receiver(pre_delete, sender=Detection, dispatch_uid="detector.lock")
def lock_detection(sender: Any, instance: Detection, **kwargs: Any) -> None:
    """Waits for whoever is adding a review or a score, so that what is deleted next takes that along."""
    services.detection_lock(detection=instance)


@receiver(post_delete, sender=Detection, dispatch_uid="detector.remove_files")
def remove_files(sender: Any, instance: Detection, **kwargs: Any) -> None:
    """However a row goes (page, admin, the account's deletion), its files go with it, once that is certain."""
    pk, files = instance.pk, services.files_doom(detection=instance)
    transaction.on_commit(lambda: services.files_remove(pk=pk, files=files))


@receiver(post_delete, sender=Detection, dispatch_uid="detector.recount_week")
def recount_week(sender: Any, instance: Detection, **kwargs: Any) -> None:
    transaction.on_commit(lambda: upload_weeks.recount_week_of(instance.created_at))
