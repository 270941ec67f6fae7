"""The page in the admin on which a reviewer decides, and what happens when they have."""

from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from detector import services
from detector.exceptions import StaleReview
from detector.forms import ReviewForm
from detector.models import Detection, Review
from detector.presentation import faces_for_display
from detector.reviews import Look


def may_review(user: Any) -> bool:
    return bool(user.has_perms(["detector.view_detection", "detector.add_review"]))


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def review(request: HttpRequest, pk: UUID) -> HttpResponse:
    if not may_review(request.user):
        raise PermissionDenied
    detection = get_object_or_404(Detection, pk=pk)
    form = ReviewForm(request.POST or None, detection=detection)
    if not form.is_valid():
        return _page(request, detection, form, status=HTTPStatus.BAD_REQUEST if form.is_bound else HTTPStatus.OK)
    assert request.user.is_authenticated  # the admin lets nobody else in
    try:
        written = services.review_create(
            detection=detection,
            reviewer=request.user,
            verdict=form.cleaned_data["verdict"],
            note=form.cleaned_data["note"],
            look=form.cleaned_data["look"],
        )
    except StaleReview as error:
        detection.refresh_from_db()
        return _page(request, detection, form, status=HTTPStatus.CONFLICT, stale_since=error.seen_count)
    messages.success(request, f"Your review was added: {written.get_verdict_display()}.")
    return redirect("admin:detector_detection_change", detection.pk)


def _page(
    request: HttpRequest, detection: Detection, form: ReviewForm, *, status: int, stale_since: int | None = None
) -> HttpResponse:
    reviews = detection.reviews_so_far()
    # Always of this moment: whoever sends the form again has seen what the page shows now.
    look = Look.begin(detection.pk, seen_count=detection.review_count, is_blind=False)
    context = {
        **admin.site.each_context(request),
        "title": "Review a detection",
        "opts": Detection._meta,
        "detection": detection,
        "faces": faces_for_display(detection),
        "form": form,
        "look": look.sign(),
        "reviews": reviews,
        "newer_reviews": _newer(reviews, stale_since),
    }
    return render(request, "admin/detector/detection/review.html", context, status=status)


def _newer(reviews: list[Review], stale_since: int | None) -> list[Review]:
    """The reviews that the sender of a refused form had not seen."""
    return [] if stale_since is None else [review for review in reviews if review.ordinal > stale_since]
