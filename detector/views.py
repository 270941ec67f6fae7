import logging
import sys
from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login, logout
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView, PasswordChangeView
from django.core.exceptions import DisallowedHost, RequestDataTooBig
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render, resolve_url
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.urls import reverse, reverse_lazy
from django.utils.crypto import constant_time_compare
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import cache_control, never_cache
from django.views.decorators.csrf import requires_csrf_token
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from detector import known, media, metrics, model_cards, ratelimits, services, throttling, unsent, workplace
from detector.exceptions import AccountGone, AppealRefused, DetectionGone, LastAdministrator
from detector.forms import AccountDeletionForm, AppealForm, PasswordForm, SignupForm, UploadForm
from detector.images import ACCEPTED_FORMATS
from detector.models import Detection, Review
from detector.outages import outage_answer
from detector.predictor import MIN_DECIDED_FACE_SIDE
from detector.presentation import faces_for_display, too_small_face
from detector.ratelimits import LimiterUnavailable
from detector.readiness import readiness
from detector.responses import detection_gone, refuse, text_too_long, unknown_host, unreadable, wants_json
from detector.room import get_room
from detector.templatetags.display import seconds
from detector.visitors import ensure_visitor_key, has_visitor_key, keep_session, late_visitor_key, offer_visitor_key
from detector.whole_bodies import CUT_SHORT

logger = logging.getLogger(__name__)

FAILED_SENTENCE = "The picture was received, but analysing it failed. There is no verdict."
UNAVAILABLE_SENTENCE = "Pictures cannot be accepted right now. Please try again shortly."
UNAVAILABLE_RETRY_AFTER_S = 30
PASSWORD_BACKEND = "django.contrib.auth.backends.ModelBackend"
APPEALED_SENTENCE = "You can object to a result once, and while its photo is there."
SESSION_ENDED_SENTENCE = "The objection was not taken in: the session has ended in which it was begun. Log in first."
NOT_DELETED_SENTENCE = (
    "Nothing was deleted just now. Either it is gone already, or it belongs to another account or browser. If it is "
    "your account’s and your session has ended, log in, open it from the history and delete it there."
)
UNSENT_SENTENCE = "This was not saved: your session had ended. Please send it again."
APPEALS_PAUSED_SENTENCE = "Objections cannot be taken in right now. Please try again shortly."


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def upload(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        # First of all: an upload that there is no room for is not counted either.
        with get_room().place():
            return _receive(request)
    response = _upload_page(request, UploadForm())
    offer_visitor_key(request, response)
    return response


def _receive(request: HttpRequest) -> HttpResponse:
    try:
        allowance = ratelimits.take_upload(request)
    except LimiterUnavailable as error:
        logger.error("Nobody can upload: %s", error)
        return refuse(
            request,
            "detector/unavailable.html",
            HTTPStatus.SERVICE_UNAVAILABLE,
            UNAVAILABLE_SENTENCE,
            retry_after=UNAVAILABLE_RETRY_AFTER_S,
        )
    if allowance.is_exceeded:
        return _limited(request, allowance)
    form = UploadForm(request.POST, request.FILES)
    try:
        with get_room().turn():
            detection = _detection_of(request, form) if form.is_valid() else None
    except AccountGone as error:
        return refuse(request, "403.html", HTTPStatus.FORBIDDEN, str(error), lead=str(error))
    return _answer(request, detection) if detection else _invalid(request, form, allowance.uploads_left)


def _detection_of(request: HttpRequest, form: UploadForm) -> Detection:
    owner = request.user if request.user.is_authenticated else None
    data, image = form.take_picture()
    return services.detection_create(
        owner=owner,
        session_key="" if owner else ensure_visitor_key(request),
        data=data,
        image=image,
        original_name=form.original_name,
        keep_picture=not form.cleaned_data["forget"],
    )


def _limited(request: HttpRequest, allowance: ratelimits.Allowance) -> HttpResponse:
    return refuse(
        request,
        "detector/limited.html",
        HTTPStatus.TOO_MANY_REQUESTS,
        f"That was one upload too many. The next one is possible in {seconds(allowance.seconds_left)}.",
        retry_after=allowance.seconds_left,
        limit=allowance.limit,
        period_s=allowance.period_s,
    )


def _invalid(request: HttpRequest, form: UploadForm, uploads_left: int) -> HttpResponse:
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if form.is_too_large else HTTPStatus.BAD_REQUEST
    if wants_json(request):
        return JsonResponse({"error": form.sentence, "uploads_left": uploads_left}, status=status)
    return _upload_page(request, form, status=status)


def _answer(request: HttpRequest, detection: Detection) -> HttpResponse:
    if detection.status == Detection.Status.FAILED:
        return _failed(request, detection)
    if wants_json(request):
        return JsonResponse({"url": detection.get_absolute_url()}, status=HTTPStatus.CREATED)
    return redirect(detection)


def _failed(request: HttpRequest, detection: Detection) -> HttpResponse:
    response = (
        JsonResponse({"error": FAILED_SENTENCE, "url": detection.get_absolute_url()})
        if wants_json(request)
        else _detection_page(request, detection)
    )
    keep_session(request, response)
    response.status_code = HTTPStatus.INTERNAL_SERVER_ERROR
    return response


def _upload_page(request: HttpRequest, form: UploadForm, status: int = HTTPStatus.OK) -> HttpResponse:
    limit, period_s = ratelimits.upload_limit()
    try:
        allowance = ratelimits.upload_allowance(request)
    except LimiterUnavailable:
        allowance = None
    context = {
        "form": form,
        "upload_limit": limit,
        "upload_period_s": period_s,
        "uploads_left": allowance.uploads_left if allowance else None,
        "retry_after": allowance.seconds_left if allowance and not allowance.uploads_left else None,
        "redis_down": allowance is None,
        "max_upload_bytes": settings.MAX_UPLOAD_BYTES,
        "max_upload_megapixels": f"{settings.MAX_UPLOAD_PIXELS / 1_000_000:g}",
        "accepted_formats": ACCEPTED_FORMATS,
        "rule": services.active_rule(),
        "retention_days": settings.RETENTION_DAYS,
    }
    return render(request, "detector/upload.html", context, status=status)


@cache_control(private=True, no_store=True)
@require_safe
def detection_show(request: HttpRequest, pk: UUID) -> HttpResponse:
    _claim_late(request)
    detection = _visible(request, pk)
    workplace.remember_file_seen(request, detection)
    if waiting := unsent.take(request, request.path):
        return _detection_page(request, detection, appeal_text=waiting[unsent.TEXT], appeal_error=UNSENT_SENTENCE)
    return _detection_page(request, detection)


def _claim_late(request: HttpRequest) -> None:
    """An upload that was still under way when its visitor logged in belongs to the account as well."""
    if request.user.is_authenticated and (key := late_visitor_key(request)):
        services.detections_claim(session_key=key, user=request.user)


def _visible(request: HttpRequest, pk: UUID) -> Detection:
    return get_object_or_404(Detection.objects.visible_to(request), pk=pk)


def _detection_page(
    request: HttpRequest,
    detection: Detection,
    *,
    status: int = HTTPStatus.OK,
    appeal_text: str = "",
    appeal_error: str = "",
) -> HttpResponse:
    is_own = detection.is_owned_by(request)
    context = {
        "detection": detection,
        "faces": faces_for_display(detection),
        "face_count": len(detection.faces) + detection.unjudged_faces,
        "can_delete": is_own,
        "can_appeal": is_own and detection.can_be_appealed,
        "appeal_error": appeal_error,
        "appeal_text": request.POST.get("sentence", appeal_text),
        # Only for the uploader: to others it would tell that somebody uploaded such a picture. What people said of this
        # very detection counts for more.
        "known": known.reviewed_match(detection) if is_own and not detection.review_verdict else None,
        "threshold": detection.threshold,
        "uncertain_above": detection.rule.uncertain_above,
        "uncertain_up_to": detection.rule.uncertain_up_to,
        "too_small_face": too_small_face(detection),
        "min_decided_face_side": MIN_DECIDED_FACE_SIDE,
        "review": {"verdict": detection.review_verdict, "at": detection.reviewed_at}
        if detection.review_verdict
        else None,
    }
    return render(request, "detector/detection.html", context, status=status)


@cache_control(private=True, no_store=True)
@require_POST
def detection_appeal(request: HttpRequest, pk: UUID) -> HttpResponse:
    detection = Detection.objects.owned_by(request).filter(pk=pk).first()
    if detection is None:
        return _not_theirs_to_appeal(request, pk)
    if not detection.can_be_appealed:
        return _already_appealed(request, detection)
    form = AppealForm(request.POST)
    if not form.is_valid():
        return _appeal_refused(request, detection, HTTPStatus.BAD_REQUEST, str(form.errors["sentence"][0]))
    try:
        allowance = ratelimits.take_appeal(request)
    except LimiterUnavailable as error:
        logger.error("Nobody can object: %s", error)
        return _appeal_refused(request, detection, HTTPStatus.SERVICE_UNAVAILABLE, APPEALS_PAUSED_SENTENCE)
    if allowance.is_exceeded:
        return _appeals_used_up(request, detection, allowance)
    try:
        services.appeal_create(detection=detection, text=form.cleaned_data["sentence"])
    except AppealRefused:
        return _already_appealed(request, detection)
    except DetectionGone:
        return detection_gone(request, "The picture and its result were deleted in the meantime.")
    messages.success(request, "Thank you. A person will look at this picture; the answer will appear on this page.")
    return redirect(detection)


def _not_theirs_to_appeal(request: HttpRequest, pk: UUID) -> HttpResponse:
    """404, but the log-in where there is no session: the same whether there is such a detection or not."""
    if request.user.is_authenticated or has_visitor_key(request):
        raise Http404("There is no such detection of theirs.")
    page = reverse("detector:detection", args=[pk])
    return refuse(
        request,
        "registration/login.html",
        HTTPStatus.FORBIDDEN,
        SESSION_ENDED_SENTENCE,
        form=AuthenticationForm(request),
        next=page,
        unsent=unsent.typed(page=page, text=request.POST.get("sentence", "")),
    )


def _appeal_refused(request: HttpRequest, detection: Detection, status: int, sentence: str) -> HttpResponse:
    if wants_json(request):
        return JsonResponse({"error": sentence}, status=status)
    return _detection_page(request, detection, status=status, appeal_error=sentence)


def _already_appealed(request: HttpRequest, detection: Detection) -> HttpResponse:
    if wants_json(request):
        return _appeal_refused(request, detection, HTTPStatus.CONFLICT, APPEALED_SENTENCE)
    messages.info(request, APPEALED_SENTENCE)
    return redirect(detection)


def _appeals_used_up(request: HttpRequest, detection: Detection, allowance: ratelimits.Allowance) -> HttpResponse:
    sentence = f"That was one objection too many. The next one is possible in {seconds(allowance.seconds_left)}."
    response = _appeal_refused(request, detection, HTTPStatus.TOO_MANY_REQUESTS, sentence)
    response["Retry-After"] = str(allowance.seconds_left)
    return response


@require_safe
def detection_image(request: HttpRequest, pk: UUID) -> HttpResponse:
    """The picture, encoded anew: whatever else the uploaded file holds (GPS position, scripts) stays on the server."""
    return media.respond(request, _visible(request, pk), media.DISPLAY)


@require_safe
def detection_thumbnail(request: HttpRequest, pk: UUID) -> HttpResponse:
    return media.respond(request, _visible(request, pk), media.THUMBNAIL)


@require_POST
def detection_delete(request: HttpRequest, pk: UUID) -> HttpResponse:
    detection = Detection.objects.owned_by(request).filter(pk=pk).first()
    if detection is None:
        return detection_gone(request, NOT_DELETED_SENTENCE)
    what = "The picture and its result were deleted." if detection.has_picture else "The result was deleted."
    services.detection_delete(detection=detection)
    messages.success(request, what)
    return redirect("detector:history")


@cache_control(private=True, no_store=True)
@require_safe
def history(request: HttpRequest) -> HttpResponse:
    _claim_late(request)
    own = Detection.objects.owned_by(request)
    verdict = request.GET.get("verdict", "")
    if verdict not in Detection.Verdict.values:
        verdict = ""
    shown = own.with_verdict(verdict) if verdict else own
    counts = own.counts_by_verdict()
    paginator = Paginator(shown.for_list().newest_first(), settings.HISTORY_PAGE_SIZE)
    context = {
        "page_obj": paginator.get_page(request.GET.get("page")),
        "paginator": paginator,
        "verdict": verdict,
        "counts": counts,
        "verdict_choices": [
            {"value": value, "label": label, "count": counts[value]} for value, label in Detection.Verdict.choices
        ],
    }
    return render(request, "detector/history.html", context)


@require_safe
def about(request: HttpRequest) -> HttpResponse:
    version = services.active_version()
    card = model_cards.read_model_card(settings.MODEL_DIR, version=version)
    rule = services.active_rule()
    context = {
        "version": version,
        "is_fitted_rule": services.is_fitted(rule),
        "min_decided_face_side": MIN_DECIDED_FACE_SIDE,
        "spec": card.spec,
        "metrics": card.metrics,
        "tables": card.tables,
        "deliveries": card.deliveries,
        "folds": card.folds,
        "prior": settings.FAKE_PRIOR,
        "rule": rule,
        "max_faces": settings.MAX_FACES,
        "retention_days": settings.RETENTION_DAYS,
    }
    return render(request, "detector/about.html", context)


@never_cache
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """Answers as long as this process does; it asks neither the database nor Redis."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """Whether an upload can be taken now, and if not, what of this server does not work; why is for its log."""
    state = readiness.state()
    body = {"status": "ok" if all(state.values()) else "unavailable", "parts": state}
    return JsonResponse(body, status=HTTPStatus.OK if all(state.values()) else HTTPStatus.SERVICE_UNAVAILABLE)


@never_cache
@require_safe
def metrics_page(request: HttpRequest) -> HttpResponse:
    """The metrics, for whoever sends METRICS_TOKEN."""
    if not settings.METRICS_TOKEN:
        raise Http404("METRICS_TOKEN is not set.")
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    # Its bytes as they came, which WSGI reads as Latin-1 whatever they are.
    if not constant_time_compare(given.encode("latin-1"), settings.METRICS_TOKEN):
        return HttpResponse(status=HTTPStatus.UNAUTHORIZED, headers={"WWW-Authenticate": "Bearer"})
    content, content_type = metrics.exposition()
    return HttpResponse(content, content_type=content_type)


@require_safe
def favicon(request: HttpRequest) -> HttpResponse:
    """Where the icon is, for browsers on pages that do not say so (the admin's, an image's)."""
    return redirect(static("detector/icon.svg"))


@sensitive_post_parameters()
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def signup(request: HttpRequest) -> HttpResponse:
    if not settings.SIGNUP_ENABLED:
        raise Http404("Sign-up is switched off.")
    if request.user.is_authenticated:
        return redirect(settings.LOGIN_REDIRECT_URL)
    target = request.POST.get("next", request.GET.get("next", ""))
    if request.method == "POST":
        allowance = ratelimits.take_signup(request)
        if allowance.is_exceeded:
            return throttling.too_many(request, allowance.seconds_left)
    form = SignupForm(request.POST or None)
    if form.is_valid() and (user := form.create_user()):
        login(request, user, backend=PASSWORD_BACKEND)
        return HttpResponseRedirect(_safe_target(request, target))
    return render(request, "registration/signup.html", {"form": form, "next": target})


class LogIn(LoginView):
    redirect_authenticated_user = True

    def get_success_url(self) -> str:
        """Where to go on to; not this page again, to which Django would lead whoever is logged in for ever."""
        target = super().get_success_url()
        return self.get_default_redirect_url() if target == self.request.path else target


class PasswordChange(PasswordChangeView):
    form_class = PasswordForm
    template_name = "registration/password.html"
    success_url = reverse_lazy("detector:upload")

    def get_form_kwargs(self) -> dict[str, Any]:
        return {**super().get_form_kwargs(), "request": self.request}

    def form_valid(self, form: Any) -> HttpResponse:
        messages.success(self.request, "Your password was changed. Other browsers were logged out.")
        return super().form_valid(form)


@sensitive_post_parameters()
@never_cache
@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def account_delete(request: HttpRequest) -> HttpResponse:
    assert request.user.is_authenticated
    _claim_late(request)
    form = AccountDeletionForm(request.POST if request.method == "POST" else None, request=request)
    if not form.is_valid():
        return _account_page(request, form, HTTPStatus.BAD_REQUEST if form.is_bound else HTTPStatus.OK)
    try:
        services.account_delete(account=request.user)
    except LastAdministrator as error:
        form.add_error(None, str(error))
        return _account_page(request, form, HTTPStatus.CONFLICT)
    logout(request)
    messages.success(request, "Your account was deleted, and all that was checked with it.")
    return redirect("detector:upload")


def _account_page(request: HttpRequest, form: AccountDeletionForm, status: int) -> HttpResponse:
    context = {
        "form": form,
        "upload_count": Detection.objects.owned_by(request).count(),
        "review_count": Review.objects.filter(reviewer=request.user.pk).count(),
    }
    return render(request, "registration/delete.html", context, status=status)


def _safe_target(request: HttpRequest, target: str) -> str:
    allowed = url_has_allowed_host_and_scheme(target, {request.get_host()}, require_https=request.is_secure())
    return target if allowed else resolve_url(settings.LOGIN_REDIRECT_URL)


# Error pages


@requires_csrf_token
def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if isinstance(exception, RequestDataTooBig):
        return text_too_long(request)
    if isinstance(exception, DisallowedHost):
        return unknown_host(request)
    return unreadable(request)


@requires_csrf_token
def permission_denied(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return refuse(request, "403.html", HTTPStatus.FORBIDDEN, "You may not do this.")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    if request.META.get(CUT_SHORT):
        return bad_request(request)  # its token was in the part that is missing, or was dropped with the others
    reasons = "You have logged in since the page was opened, or cookies are blocked or were deleted."
    sentence = f"{reasons} Reload the page and try again."
    return refuse(request, "403_csrf.html", HTTPStatus.FORBIDDEN, sentence)


@requires_csrf_token
def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return refuse(request, "404.html", HTTPStatus.NOT_FOUND, "There is no such page.")


@requires_csrf_token
def server_error(request: HttpRequest) -> HttpResponse:
    """Takes nothing for granted: the database may be what is broken, so the page has no context."""
    # A middleware that could not save the session is past the place where a view's faults are caught.
    if answer := outage_answer(request, sys.exc_info()[1]):
        return answer
    if wants_json(request):
        return JsonResponse({"error": "Something went wrong on the server."}, status=HTTPStatus.INTERNAL_SERVER_ERROR)
    return HttpResponse(render_to_string("500.html"), status=HTTPStatus.INTERNAL_SERVER_ERROR)
