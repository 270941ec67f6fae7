"""The page in the admin on which a reviewer decides, its neighbours, and what a blind look withholds."""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.forms import AdminAuthenticationForm
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.html import format_html
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from detector import known, services, unsent
from detector.exceptions import DetectionGone, OwnUpload, PictureGone, StaleReview
from detector.forms import ReviewForm
from detector.models import Detection, DetectionQuerySet, Review, ReviewVerdict
from detector.presentation import faces_for_display, machine_words
from detector.responses import detection_gone
from detector.reviews import Look

SEEN_FIELD = "machine_answers_seen"
ALL_SEEN_FIELD = "machine_answers_seen_until"
IN_QUEUE = "queue"
GONE_SENTENCE = "This detection is gone: it was deleted in the meantime. No review of it was saved."


def may_review(user: Any) -> bool:
    return bool(user.has_perms(["detector.view_detection", "detector.add_review"]))


def address(detection: Detection, *, in_queue: bool) -> str:
    page = reverse("admin:detector_detection_review", args=[detection.pk])
    return f"{page}?{IN_QUEUE}=1" if in_queue else page


def remember_seen(request: HttpRequest, *keys: object) -> None:
    """Notes of which detections this reviewer has seen the machine's answer, after which no look at them is blind."""
    if settings.REVIEW_BLIND and request.user.is_authenticated:
        services.seen_answers_add(account=request.user, keys=keys)


def remember_file_seen(request: HttpRequest, detection: Detection) -> None:
    """The same of the detection and of all copies of its file, which have the same answer, for staff alone."""
    if settings.REVIEW_BLIND and request.user.is_staff:
        copies = (match.detection.pk for match in known.matches(detection) if match.is_same_file)
        remember_seen(request, detection.pk, *copies)


def remember_all_seen(request: HttpRequest) -> None:
    """The same of whoever saw or downloaded more than can be named: of all that there are by now."""
    if settings.REVIEW_BLIND and request.user.is_authenticated:
        services.seen_until_set(account=request.user)


def with_log_in(page: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """The page of the admin, where a review that is sent after the session has ended goes along into the log-in.

    The admin itself would lead to the log-in and forget what was sent.
    """

    @wraps(page)
    @never_cache
    def page_or_log_in(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method != "POST" or admin.site.has_permission(request):
            return page(request, *args, **kwargs)
        context = {
            **admin.site.each_context(request),
            "title": "Log in",
            "form": AdminAuthenticationForm(request),
            "app_path": reverse("admin:login"),
            "username": request.user.get_username(),
            "next": request.get_full_path(),
            "unsent": unsent.typed(
                page=request.path,
                text=request.POST.get("note", ""),
                verdict=dict(ReviewVerdict.choices).get(request.POST.get("verdict", ""), "No verdict"),
            ),
        }
        return render(request, "admin/login.html", context, status=HTTPStatus.FORBIDDEN)

    return page_or_log_in


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def review(request: HttpRequest, pk: UUID) -> HttpResponse:
    if not may_review(request.user):
        raise PermissionDenied
    try:
        return _review(request, Detection.objects.get(pk=pk))
    except (Detection.DoesNotExist, DetectionGone):
        return detection_gone(request, GONE_SENTENCE, next_review=_queue_start(request))


def _review(request: HttpRequest, detection: Detection) -> HttpResponse:
    if not detection.has_picture:
        return _refused(request, detection, "There is no picture to review any more; the figures and reviews stay.")
    assert request.user.is_authenticated  # the admin lets nobody else in
    if detection.owner_id == request.user.pk:
        return _refused(request, detection, "Somebody else has to review what you uploaded.")
    form = ReviewForm(request.POST or None, detection=detection)
    if not form.is_bound and (waiting := unsent.take(request, request.path)):
        form.initial["note"] = waiting[unsent.TEXT]
        return _page(request, detection, form, status=HTTPStatus.OK, unsent_verdict=waiting[unsent.VERDICT])
    if not form.is_valid():
        return _page(request, detection, form, status=HTTPStatus.BAD_REQUEST if form.is_bound else HTTPStatus.OK)
    following = _neighbours(request, detection)["next_page"]
    try:
        written = services.review_create(
            detection=detection,
            reviewer=request.user,
            verdict=form.cleaned_data["verdict"],
            note=form.cleaned_data["note"],
            look=_as_sent(request, detection, form.cleaned_data["look"]),
        )
    except StaleReview as error:
        detection.refresh_from_db()
        return _page(request, detection, form, status=HTTPStatus.CONFLICT, stale_since=error.seen_count)
    except (PictureGone, OwnUpload) as error:
        return _refused(request, detection, str(error))
    messages.success(request, _what_was_said(written, detection))
    remember_file_seen(request, detection)
    if IN_QUEUE not in request.GET:
        return redirect("admin:detector_detection_change", detection.pk)
    return redirect(following or _queue_start(request))


def _refused(request: HttpRequest, detection: Detection, sentence: str) -> HttpResponse:
    messages.warning(request, sentence)
    return redirect("admin:detector_detection_change", detection.pk)


def _what_was_said(written: Review, detection: Detection) -> str:
    return format_html(
        'Added for <bdi>{}</bdi>: {}. The machine says {}. <a href="{}">Look again</a>',
        detection.original_name or "the unnamed picture",
        written.get_verdict_display(),
        machine_words(detection),
        address(detection, in_queue=False),
    )


def _queue(request: HttpRequest) -> DetectionQuerySet:
    assert request.user.is_authenticated
    return Detection.objects.to_review(request.user)


def _queue_start(request: HttpRequest) -> str:
    """What is left in the queue after its end was reached, else the empty list."""
    first = _queue(request).only("pk").first()
    return address(first, in_queue=True) if first else reverse("admin:detector_queueddetection_changelist")


def _neighbours(request: HttpRequest, detection: Detection) -> dict[str, str]:
    if IN_QUEUE not in request.GET:
        return {"next_page": "", "previous_page": ""}
    queue = _queue(request).only("pk")
    found = {"next_page": queue.after(detection).first(), "previous_page": queue.before(detection).first()}
    return {name: address(each, in_queue=True) if each else "" for name, each in found.items()}


def _is_blind(request: HttpRequest, detection: Detection) -> bool:
    """Whether the first look of a reviewer who knows nothing yet is to stay unprejudiced."""
    if not settings.REVIEW_BLIND or _session_remembers(request, detection):
        return False
    unseen = Detection.objects.filter(pk=detection.pk).unseen_by(request.user)
    return unseen.exclude(reviews__reviewer=request.user.pk).exists()


def _session_remembers(request: HttpRequest, detection: Detection) -> bool:
    """Whether a session from before accounts remembered it does."""
    is_seen = str(detection.pk) in request.session.get(SEEN_FIELD, [])
    return is_seen or detection.created_at.isoformat() <= request.session.get(ALL_SEEN_FIELD, "")


def _as_sent(request: HttpRequest, detection: Detection, look: Look) -> Look:
    """The look, which began as a blind one and is none any more if the answer was seen on another page meanwhile."""
    return replace(look, is_blind=look.is_blind and _is_blind(request, detection))


def _page(
    request: HttpRequest,
    detection: Detection,
    form: ReviewForm,
    *,
    status: int,
    stale_since: int | None = None,
    unsent_verdict: str = "",
) -> HttpResponse:
    # A refusal has to say what others said, so what is decided after it is no blind look any more.
    is_blind = stale_since is None and _is_blind(request, detection)
    matches = [] if is_blind else known.matches(detection)
    if not is_blind:
        remember_seen(request, detection.pk, *(match.detection.pk for match in matches))
    reviews = [] if is_blind else detection.reviews_so_far()
    newer = _newer(reviews, stale_since)
    # Always of this moment: whoever sends the form again has seen what the page shows now.
    look = Look.begin(detection.pk, seen_count=detection.review_count, is_blind=is_blind)
    context = {
        **admin.site.each_context(request),
        "title": "Review a detection",
        "opts": Detection._meta,
        "detection": detection,
        "faces": [] if is_blind else faces_for_display(detection),
        "form": form,
        "look": look.sign(),
        "is_blind": is_blind,
        "in_queue": IN_QUEUE in request.GET,
        "reviews": reviews,
        "matches": matches,
        "newer_reviews": newer,
        # A form that was sent twice, or from two tabs.
        "newer_are_own": all(review.reviewer == request.user for review in newer),
        "unsent_verdict": unsent_verdict,
        **_neighbours(request, detection),
    }
    return render(request, "admin/detector/detection/review.html", context, status=status)


def _newer(reviews: list[Review], stale_since: int | None) -> list[Review]:
    """The reviews that the sender of a refused form had not seen."""
    return [] if stale_since is None else [review for review in reviews if review.ordinal > stale_since]
