import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.core.exceptions import BadRequest, ValidationError
from django.core.paginator import Paginator
from django.db import DataError, NotSupportedError
from django.db.models import F, Max, Min, QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import capfirst

from detector import exports, known, quality_report, services, workplace
from detector.models import (
    Detection,
    DetectionQuerySet,
    QueuedDetection,
    Review,
    ReviewNeed,
    SeenAnswer,
    SeenUntil,
    uncertain,
)
from detector.presentation import faces_for_display, score_words
from detector.similarity import from_text
from detector.templatetags.display import percent

MOST_COUNTED = 10_000  # rows of a list
STAGES = ("decode", "faces", "network", "total")  # PostgreSQL keeps no order of keys
OWNER_FIELDS = {"owner", "owner_id", "session_key"}
PATTERNS = {"regex", "iregex"}
# A year 0, a number of thirty digits, a look into JSON that SQLite knows none of.
BEYOND_THE_DATABASE = (ValueError, OverflowError, DataError, NotSupportedError)


def may_see_accounts(user: Any) -> bool:
    """Whether somebody may know whose a detection is; reviewers may not."""
    return bool(user.has_perm("auth.view_user"))


def thumbnail(detection: Detection, words: str) -> SafeString:
    if not detection.has_picture:
        return mark_safe('<span class="list-thumbnail list-thumbnail--none">not kept</span>')
    address = reverse("detector:detection-thumbnail", args=[detection.pk])
    return format_html('<img class="list-thumbnail" src="{}" alt="{}" loading="lazy">', address, words)


def export(queryset: QuerySet[Any], file_format: str) -> StreamingHttpResponse:
    """A download that is made as it is sent: a million rows take no more memory than a few."""
    write_lines, content_type = exports.FORMATS[file_format]
    name = f"{queryset.model._meta.model_name}s-{timezone.localdate():%Y-%m-%d}.{file_format}"
    mark = [exports.BYTE_ORDER_MARK] if file_format == "csv" else []
    response = StreamingHttpResponse(chain(mark, write_lines(queryset)), content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["Cache-Control"] = "private, no-store"
    return response


class ExportMixin:
    """The actions that download what is chosen; they need no more than to see it, and give nobody's account away."""

    @admin.action(description="Export as CSV", permissions=["view"])
    def export_csv(self, request: HttpRequest, queryset: QuerySet[Any]) -> StreamingHttpResponse:
        workplace.remember_all_seen(request)
        return export(queryset, "csv")

    @admin.action(description="Export as JSON", permissions=["view"])
    def export_json(self, request: HttpRequest, queryset: QuerySet[Any]) -> StreamingHttpResponse:
        workplace.remember_all_seen(request)
        return export(queryset, "json")


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts no further than to 10,000: nobody turns so many pages, and to count a million takes too long.

    templates/admin/detector/pagination.html says so where there are more.
    """

    @cached_property
    def counted(self) -> int:
        assert isinstance(self.object_list, QuerySet)
        return self.object_list.order_by()[: MOST_COUNTED + 1].count()

    @property
    def has_more(self) -> bool:
        return self.counted > MOST_COUNTED

    @cached_property
    def count(self) -> int:
        return min(self.counted, MOST_COUNTED)


class ActionBroke(Exception):
    """An error of an action's own, which is no fault of the request's."""


class CarefulAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """A list that answers 400 to a filter or an action that no row can match, whatever the database says of it."""

    # With an action's other fields, all of a shown page stays below DATA_UPLOAD_MAX_NUMBER_FIELDS.
    list_max_show_all = 150

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        if any("\0" in value for _, values in request.GET.lists() for value in values):
            raise BadRequest("PostgreSQL has no text with a zero byte in it.")
        try:
            for chosen in request.POST.getlist(ACTION_CHECKBOX_NAME):
                self.opts.pk.clean(chosen, None)
        except ValidationError as error:
            raise BadRequest("What was chosen cannot be a row.") from error
        try:
            return super().changelist_view(request, extra_context)
        except BEYOND_THE_DATABASE as error:
            raise BadRequest("What was asked for is beyond what the database can compare.") from error

    def response_action(self, request: HttpRequest, *args: Any, **options: Any) -> Any:
        """Runs the action, after the list was asked for once: what was beyond the database is known by now."""
        try:
            return super().response_action(request, *args, **options)
        except BEYOND_THE_DATABASE as error:
            raise ActionBroke from error

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Without a line for each answer that was seen: they are many, and whose they are is nobody's business."""
        lines, *about = super().get_deleted_objects(objs, request)
        return _without_seen(lines), *about

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """No patterns, which no link leads to: a broken one is an error, and an evil one takes for ever."""
        return not PATTERNS & set(lookup.split("__")) and super().lookup_allowed(lookup, value, request)


def _without_seen(lines: list[Any]) -> list[Any]:
    names = tuple(f"{capfirst(model._meta.verbose_name)}: " for model in (SeenAnswer, SeenUntil))
    kept = [_without_seen(each) if isinstance(each, list) else each for each in lines]
    return [each for each in kept if each != [] and not str(each).startswith(names)]


class BoundedAdmin(CarefulAdmin):
    """A list of a million rows: nothing on its page counts them all."""

    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        response = super().changelist_view(request, extra_context)
        context = getattr(response, "context_data", None) or {}
        if "cl" in context and context["cl"].paginator.has_more:
            context["selection_note_all"] = f"All selected, more than {MOST_COUNTED}"
        return response

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Not even the number of an account is told: it would show which uploads are one person's."""
        if OWNER_FIELDS & set(lookup.split("__")) and not may_see_accounts(request.user):
            return False
        return super().lookup_allowed(lookup, value, request)


class ListedDetections(DetectionQuerySet):
    """What the list shows, for which the date hierarchy asks."""

    def datetimes(self, field_name: str, kind: str, *_args: Any, **_kwargs: Any) -> list[datetime]:  # type: ignore[override]
        """Every year, month or day from the first row to the last, also where one has none.

        Which of them have rows is known only after reading all, which takes too long with a million; the ends come
        from the index.
        """
        ends = self.order_by().aggregate(first=Min(field_name), last=Max(field_name))
        if ends["first"] is None:
            return []
        first, last = (_start_of(kind, timezone.localtime(ends[end])) for end in ("first", "last"))
        periods = [first]
        while periods[-1] < last:
            # 32 days and 366 days lead into the next month and year, and no further.
            later = periods[-1] + timedelta(days={"day": 1, "month": 32, "year": 366}[kind], hours=12 * (kind == "day"))
            periods.append(_start_of(kind, timezone.localtime(later)))
        return periods


def _start_of(kind: str, moment: datetime) -> datetime:
    """Midnight at the start of the moment's day, month or year, in its time zone."""
    day = moment.day if kind == "day" else 1
    month = 1 if kind == "year" else moment.month
    return datetime(moment.year, month, day, tzinfo=moment.tzinfo)


class ModelVersionFilter(admin.SimpleListFilter):
    """Its choices are read by index, one query for each: to look for them in a million rows takes too long."""

    title = "model version"
    parameter_name = "model_version"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(version, version or "none") for version in Detection.objects.model_versions()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Detection]) -> QuerySet[Detection]:
        return queryset if self.value() is None else queryset.filter(model_version=self.value())


class OwnerFilter(admin.SimpleListFilter):
    """Says whose uploads are listed. Its only choice is who was chosen: a list of all accounts would have no end."""

    title = "owner"
    parameter_name = "owner"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        number = self.value()
        if number is None:
            return []
        owner = User.objects.filter(pk=number).first() if number.isdecimal() else None
        return [(number, owner.get_username() if owner else "nobody")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Detection]) -> QuerySet[Detection]:
        number = self.value()
        if number is None:
            return queryset
        return queryset.filter(owner=int(number)) if number.isdecimal() else queryset.none()


class ReviewedFilter(admin.SimpleListFilter):
    title = "reviewed"
    parameter_name = "reviewed"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Yes"), ("no", "No")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Detection]) -> QuerySet[Detection]:
        if self.value() is None:
            return queryset
        return queryset.filter(reviewed_at__isnull=self.value() == "no")


class AnsweringAdmin(BoundedAdmin):
    """Pages that show what the machine said: after them no review of it is blind."""

    # Fields by which a list may be filtered and sorted without telling anything of what it leaves out.
    telling_nothing = {"pk", "created_at"}

    def answers_shown(self, row: Any, *, on_own_page: bool) -> list[object]:
        """The keys of the detections whose answers the list, or the row's own page, shows of it.

        Here for rows that are detections.
        """
        return [row.pk]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        response = super().changelist_view(request, extra_context)
        if settings.REVIEW_BLIND:
            context = _context(response)
            shown = context.get("cl")
            # An action that asks first lists all that it was asked for, which may be more than the page had.
            if "queryset" in context or (shown and self._tells_of_others(shown)):
                workplace.remember_all_seen(request)
            elif shown:
                keys = [key for row in shown.result_list for key in self.answers_shown(row, on_own_page=False)]
                workplace.remember_seen(request, *keys)
        return response

    def _tells_of_others(self, shown: ChangeList) -> bool:
        """Whether what is not among the rows may be known by that: it is not called Real, or is less likely fake."""
        filtered = {lookup.split("__")[0] for lookup in shown.get_filters_params()}
        sorted_by = {str(field).removeprefix("-") for field in shown.queryset.query.order_by}
        return not filtered | sorted_by <= self.telling_nothing

    def change_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        response = super().change_view(request, object_id, *args, **kwargs)
        self._remember(request, _context(response).get("original"))
        return response

    def history_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        """Its title is the row in words."""
        response = super().history_view(request, object_id, *args, **kwargs)
        self._remember(request, _context(response).get("object"))
        return response

    def delete_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        """It asks about the row in words."""
        response = super().delete_view(request, object_id, *args, **kwargs)
        self._remember(request, _context(response).get("object"))
        return response

    def _remember(self, request: HttpRequest, row: Any) -> None:
        if settings.REVIEW_BLIND and row is not None:
            workplace.remember_seen(request, *self.answers_shown(row, on_own_page=True))


def _context(response: Any) -> dict[str, Any]:
    """What a page was made of; nothing where the response is another one."""
    return getattr(response, "context_data", None) or {}


@admin.register(Detection)
class DetectionAdmin(ExportMixin, AnsweringAdmin):
    """Past detections, read-only: what a reviewer thinks of one is a Review beside it."""

    telling_nothing = {*AnsweringAdmin.telling_nothing, "owner"}
    list_display = [
        "list_thumbnail",
        "machine_verdict",
        "shown_probability",
        "review_verdict",
        "created_at",
        "review_count",
        "model_version",
    ]
    list_display_links = ["list_thumbnail", "machine_verdict"]
    sortable_by = ["machine_verdict", "shown_probability", "created_at"]  # what has an index
    list_filter = [
        "verdict",
        "status",
        "review_need",
        ReviewedFilter,
        "review_verdict",
        "ai_declaration",
        ModelVersionFilter,
        "created_at",
    ]
    list_select_related = ["owner"]
    actions = ["export_csv", "export_json"]
    search_fields = ["original_name"]  # what else is searched: get_search_results()
    search_help_text = (
        "File name, SHA-256, perceptual hash or, if you may see accounts, the owner's user name or e-mail address"
    )
    date_hierarchy = "created_at"
    ordering = ["-created_at"]
    fieldsets = [
        (None, {"fields": ["picture"]}),
        ("Review", {"fields": ["review_verdict", "appealed_at", "appeal_text", "reviews", "similar"]}),
        (
            "Machine",
            {
                "fields": [
                    "machine_verdict",
                    "shown_probability",
                    "threshold",
                    "uncertain_above",
                    "uncertain_up_to",
                    "unjudged_faces",
                    "model_version",
                    "other_scores",
                    "status",
                    "error_code",
                    "timings",
                ]
            },
        ),
        (
            "Upload",
            {
                "fields": [
                    "original_name",
                    "sha256",
                    "perceptual_hash_text",
                    "format",
                    "width",
                    "height",
                    "byte_count",
                    "ai_declaration",
                    "created_at",
                ]
            },
        ),
    ]

    class Media:
        css = {"all": ["detector/admin.css"]}

    def has_add_permission(self, request: HttpRequest) -> bool:
        """A detection comes from an upload, never from a form full of figures."""
        return False

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        columns = list(super().get_list_display(request))
        if may_see_accounts(request.user):
            columns.insert(columns.index("created_at") + 1, "shown_owner")
        return columns

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        return [*super().get_list_filter(request), *([OwnerFilter] if may_see_accounts(request.user) else [])]

    def get_fieldsets(self, request: HttpRequest, obj: Detection | None = None) -> list[Any]:
        owner = [("Account", {"fields": ["shown_owner"]})] if may_see_accounts(request.user) else []
        return [*super().get_fieldsets(request, obj), *owner]

    def has_change_permission(self, request: HttpRequest, obj: Detection | None = None) -> bool:
        return False

    def get_urls(self) -> list[URLPattern]:
        review = workplace.with_log_in(self.admin_site.admin_view(workplace.review))
        return [path("<uuid:pk>/review/", review, name="detector_detection_review"), *super().get_urls()]

    def get_search_fields(self, request: HttpRequest) -> Any:
        """None for the admin's address that completes names in forms: no form here has such, and it tells answers."""
        is_completing = request.resolver_match and request.resolver_match.url_name == "autocomplete"
        return [] if is_completing else super().get_search_fields(request)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Detection], search_term: str
    ) -> tuple[QuerySet[Detection], bool]:
        """By index, the perceptual hash too, which finds what is near it."""
        assert isinstance(queryset, DetectionQuerySet)
        term = search_term.strip().lower()
        if (value := from_text(term)) is not None:
            return queryset.filter(pk__in=[key for key, _ in known.near_keys(queryset, value)]), False
        if re.fullmatch(r"[0-9a-f]{64}", term):
            return queryset.filter(sha256=term), False
        # As it was typed: SQLite takes only a to z and A to Z for the same letters.
        for word in search_term.split():
            queryset = queryset.matching(word, with_owners=may_see_accounts(request.user))
        return queryset, False

    def answers_shown(self, row: Detection, *, on_own_page: bool) -> list[object]:
        similar = known.matches(row) if on_own_page else []
        return [*super().answers_shown(row, on_own_page=on_own_page), *(match.detection.pk for match in similar)]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Detection]:
        if request.resolver_match and request.resolver_match.url_name == "detector_detection_changelist":
            return ListedDetections(Detection).for_list().order_by(*self.ordering)
        return super().get_queryset(request)

    def log_deletions(self, request: HttpRequest, queryset: QuerySet[Detection]) -> Any:
        """Under the detections' ids: a file's name would stay in the log after the picture."""
        entries = super().log_deletions(request, queryset)
        of_detections = LogEntry.objects.filter(content_type__app_label="detector", content_type__model="detection")
        named = of_detections.filter(action_flag=DELETION).exclude(object_repr=F("object_id"))
        named.update(object_repr=F("object_id"))
        return entries

    def delete_model(self, request: HttpRequest, obj: Detection) -> None:
        services.detection_delete(detection=obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Detection]) -> None:
        services.detections_delete(detections=queryset)

    @admin.display(description="picture")
    def list_thumbnail(self, detection: Detection) -> SafeString:
        return thumbnail(detection, str(detection))

    @admin.display(description="verdict", ordering="verdict")
    def machine_verdict(self, detection: Detection) -> str:
        return detection.verdict_words

    # Not empty_value=, which a detection's own page overlooks: there it said "None".
    @admin.display(description="fake probability", ordering="fake_probability")
    def shown_probability(self, detection: Detection) -> str:
        return percent(detection.fake_probability) or "none"

    @admin.display(description="owner", ordering="owner__username")
    def shown_owner(self, detection: Detection) -> str:
        if detection.owner is None:
            return "visitor"
        address = reverse("admin:detector_detection_changelist", query={"owner": detection.owner.pk})
        return format_html('<a href="{}">{}</a>', address, detection.owner.get_username())

    @admin.display(description="other models")
    def other_scores(self, detection: Detection) -> str:
        return ", ".join(score_words(score) for score in detection.scores.order_by("created_at")) or "-"

    @admin.display(description="time taken")
    def timings(self, detection: Detection) -> str:
        # Without a face no network ran; what stands there is the time that nothing took.
        taken = {stage: ms for stage, ms in detection.timings_ms.items() if detection.faces or stage != "network"}
        return ", ".join(f"{stage} {taken[stage]:.1f} ms" for stage in STAGES if stage in taken) or "-"

    @admin.display(description="picture")
    def picture(self, detection: Detection) -> SafeString:
        return render_to_string(
            "admin/detector/_picture.html", {"detection": detection, "faces": faces_for_display(detection)}
        )

    @admin.display(description="perceptual hash")
    def perceptual_hash_text(self, detection: Detection) -> str:
        return detection.perceptual_hash_text or "-"

    @admin.display(description="same or similar pictures")
    def similar(self, detection: Detection) -> SafeString:
        return render_to_string("admin/detector/_similar.html", {"matches": known.matches(detection)})

    @admin.display(description="all reviews")
    def reviews(self, detection: Detection) -> SafeString:
        return render_to_string("admin/detector/_reviews.html", {"reviews": detection.reviews_so_far()})


class QueueList(ChangeList):
    """Leads to the page for deciding; and says nothing of a blind look's answer, which a row's own words would."""

    def url_for_result(self, result: Any) -> str:
        return workplace.address(result, in_queue=True)


class NeedFilter(admin.ChoicesFieldListFilter):
    """Without "None", which nothing in the queue needs."""

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        return (choice for choice in super().choices(changelist) if choice["display"] != ReviewNeed.NONE.label)


@admin.register(QueuedDetection)
class QueueAdmin(BoundedAdmin):
    """What waits for the reviewer who looks, the most needed first."""

    list_display_links = ["list_thumbnail", "name"]
    sortable_by = ()
    actions = None

    class Media:
        css = {"all": ["detector/admin.css"]}

    def has_view_permission(self, request: HttpRequest, obj: Detection | None = None) -> bool:
        return workplace.may_review(request.user)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return workplace.may_review(request.user)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Detection | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Detection | None = None) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return super().changelist_view(request, {**(extra_context or {}), "title": "To review"})

    def get_queryset(self, request: HttpRequest) -> QuerySet[Detection]:
        queryset = super().get_queryset(request)
        assert isinstance(queryset, DetectionQuerySet)
        return queryset.to_review(request.user).for_list()

    def get_ordering(self, request: HttpRequest) -> list[Any]:
        return ["review_need", "created_at", "pk"]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return QueueList

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        # Why somebody has to look says what the machine thinks.
        return ["list_thumbnail", "name", *([] if settings.REVIEW_BLIND else ["review_need"]), "created_at"]

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        return [] if settings.REVIEW_BLIND else [("review_need", NeedFilter)]

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """None for a blind look, which has no filters: a list of those that the machine calls fake tells its answer."""
        return not settings.REVIEW_BLIND and super().lookup_allowed(lookup, value, request)

    def get_urls(self) -> list[URLPattern]:
        """The list alone: every other page of a detection is DetectionAdmin's."""
        return [pattern for pattern in super().get_urls() if str(pattern.name).endswith("_changelist")]

    @admin.display(description="picture")
    def list_thumbnail(self, detection: Detection) -> SafeString:
        return thumbnail(detection, f"Picture {detection.original_name}")

    @admin.display(description="file")
    def name(self, detection: Detection) -> SafeString:
        name = detection.shown_name
        return format_html('<span class="list-name" title="{}">{}</span>', name, name)


class MachineAnswerFilter(admin.SimpleListFilter):
    """Keeps what the machine had decided apart from what it only leaned to, as the list does."""

    title = "machine verdict"
    parameter_name = "machine_answer"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("real", "Real"),
            ("uncertain_real", "Real, uncertain"),
            ("fake", "Fake"),
            ("uncertain_fake", "Fake, uncertain"),
            ("not_applicable", "Not applicable"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Review]) -> QuerySet[Review]:
        answer = self.value()
        if answer is None:
            return queryset
        reviews = queryset.filter(machine_verdict=answer.removeprefix("uncertain_"))
        band = uncertain("machine_verdict")
        return reviews.filter(band) if answer.startswith("uncertain_") else reviews.exclude(band)


@admin.register(Review)
class ReviewAdmin(ExportMixin, AnsweringAdmin):
    """Every review, read-only: the database refuses anything but adding one, which the review page does."""

    telling_nothing = {*AnsweringAdmin.telling_nothing, "reviewer", "is_blind", "is_sampled", "seconds_spent"}
    list_display = ["created_at", "verdict", "machine_answer", "reviewer", "is_blind", "seconds_spent", "is_sampled"]
    list_filter = ["verdict", MachineAnswerFilter, "is_blind", "is_sampled", "model_version", "created_at"]
    list_select_related = ["reviewer"]
    actions = ["export_csv", "export_json"]
    search_fields = ["note", "reviewer__username"]
    date_hierarchy = "created_at"
    fields = [
        "detection",
        "detection_key",
        "uploaded_on",
        "ordinal",
        "reviewer",
        "reviewer_key",
        "verdict",
        "note",
        "is_blind",
        "seconds_spent",
        "created_at",
        "machine_answer",
        "shown_probability",
        "threshold",
        "uncertain_above",
        "uncertain_up_to",
        "model_version",
        "is_sampled",
        "sample_percent",
    ]

    class Media:
        css = {"all": ["detector/admin.css"]}

    def get_urls(self) -> list[URLPattern]:
        page = self.admin_site.admin_view(quality_report.page)
        return [path("quality/", page, name="detector_review_quality"), *super().get_urls()]

    def answers_shown(self, row: Review, *, on_own_page: bool) -> list[object]:
        return [row.detection_key]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Review | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Review | None = None) -> bool:
        return False

    @admin.display(description="machine verdict", ordering="machine_verdict")
    def machine_answer(self, review: Review) -> str:
        return review.machine_words or "none"

    @admin.display(description="fake probability")
    def shown_probability(self, review: Review) -> str:
        return percent(review.fake_probability) or "none"


admin.site.unregister([User, Group])


@admin.register(User)
class CarefulUserAdmin(CarefulAdmin, UserAdmin):  # type: ignore[type-arg]
    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """The page that asks names their uploads in words, which tell the machine's answers."""
        workplace.remember_all_seen(request)
        return super().get_deleted_objects(objs, request)

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        services.accounts_delete(accounts=User.objects.filter(pk=obj.pk))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        services.accounts_delete(accounts=queryset)


@admin.register(Group)
class CarefulGroupAdmin(CarefulAdmin, GroupAdmin):
    pass
