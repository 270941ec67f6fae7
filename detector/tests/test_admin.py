import re
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries, Settings
from pytest_django.asserts import assertContains, assertNotContains

from detector import admin as detector_admin
from detector.admin import ListedDetections
from detector.models import Detection
from detector.templatetags.display import percent
from detector.tests.factories import make_detection, make_review, make_user

pytestmark = pytest.mark.django_db

LIST = reverse("admin:detector_detection_changelist")


@pytest.fixture
def staff() -> Client:
    client = Client()
    user = make_user("grace", is_staff=True)
    own = Permission.objects.filter(content_type__app_label="detector")
    user.user_permissions.set(own | Permission.objects.filter(codename="view_user"))
    client.force_login(user)
    return client


def change_page(detection: Detection) -> str:
    return reverse("admin:detector_detection_change", args=[detection.pk])


def found(client: Client, **query: str) -> set[str]:
    response = client.get(LIST, query)
    assert response.status_code == HTTPStatus.OK
    return {detection.original_name for detection in response.context["cl"].result_list}


def test_the_list_shows_what_a_reviewer_needs(staff: Client) -> None:
    detection = make_detection(0.923, owner=make_user("ada"))
    response = staff.get(LIST)
    assertContains(response, reverse("detector:detection-thumbnail", args=[detection.pk]))
    for text in ("Fake", "92.3\N{NO-BREAK SPACE}%", "ada", "test-1"):
        assertContains(response, text)


HUGE = "9" * 30


@pytest.mark.parametrize(
    "query",
    [
        *("verdict__exact=%00", "model_version=a%00b", "q=%00", "status__exact=Done&p=%00"),
        *("created_at__year__gte=0", "created_at__iso_year=0", f"created_at__year={HUGE}"),
        *(f"created_at__year=2026&created_at__month={HUGE}", "verdict__regex=(", "original_name__iregex=["),
    ],
)
def test_a_filter_that_no_database_can_hold_is_refused(staff: Client, query: str) -> None:
    assert staff.get(f"{LIST}?{query}").status_code == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize("query", [{"faces__contains": "x"}, {"timings_ms__contained_by": "x"}])
def test_a_filter_that_this_database_does_not_know_is_refused(staff: Client, query: dict[str, str]) -> None:
    is_known = connection.features.supports_json_field_contains
    assert staff.get(LIST, query).status_code == (HTTPStatus.OK if is_known else HTTPStatus.BAD_REQUEST)


@pytest.mark.parametrize("year", ["0", "-1", "10000", HUGE])
@pytest.mark.parametrize(
    ("address", "field"),
    [
        ("detector_queueddetection", "created_at"),
        ("detector_review", "created_at"),
        ("auth_user", "date_joined"),
    ],
)
def test_a_year_that_is_none_is_refused(admin_client: Client, address: str, field: str, year: str) -> None:
    make_review(make_detection(0.5))
    response = admin_client.get(reverse(f"admin:{address}_changelist"), {f"{field}__year": year})
    # Where there is a hierarchy of dates Django itself leads back to the list.
    assert response.status_code in (HTTPStatus.BAD_REQUEST, HTTPStatus.FOUND)


def test_the_number_of_an_account_that_none_can_have_finds_nothing(staff: Client) -> None:
    assert staff.get(f"{LIST}?owner={HUGE}").status_code in (HTTPStatus.BAD_REQUEST, HTTPStatus.OK)


@pytest.mark.parametrize("action", ["export_csv", "export_json", "delete_selected"])
@pytest.mark.parametrize("chosen", ["\0", "x", "9" * 30])
def test_an_action_on_what_is_no_row_is_refused(staff: Client, action: str, chosen: str) -> None:
    response = staff.post(LIST, {"action": action, "_selected_action": [chosen]})
    assert response.status_code == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize("chosen", ["x", HUGE])
def test_an_export_of_what_is_no_review_is_refused(staff: Client, chosen: str) -> None:
    address = reverse("admin:detector_review_changelist")
    response = staff.post(address, {"action": "export_csv", "_selected_action": [chosen]})
    assert response.status_code == HTTPStatus.BAD_REQUEST


def test_an_error_of_an_action_s_own_is_not_taken_for_the_request_s(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise ValueError("a slip in the code")

    monkeypatch.setattr(detector_admin, "export", fail)
    admin_client.raise_request_exception = False
    response = admin_client.post(LIST, {"action": "export_csv", "_selected_action": [str(make_detection().pk)]})
    assert response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR


@pytest.mark.parametrize("kind", ["user", "group"])
@pytest.mark.parametrize("chosen", ["", "\0", "x", HUGE])
def test_an_action_on_what_is_no_account_is_refused(admin_client: Client, kind: str, chosen: str) -> None:
    address = reverse(f"admin:auth_{kind}_changelist")
    response = admin_client.post(address, {"action": "delete_selected", "_selected_action": [chosen]})
    assert response.status_code == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize("key", ["1", "%00", "x"])
def test_a_link_to_what_is_no_row_is_refused(admin_client: Client, key: str) -> None:
    for kind in (Detection, Session):
        number = ContentType.objects.get_for_model(kind).pk
        response = admin_client.get(f"/admin/r/{number}/{key}/")
        assert response.status_code in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND)
    detection = make_detection()
    link = reverse("admin:view_on_site", args=[ContentType.objects.get_for_model(Detection).pk, detection.pk])
    assert admin_client.get(link)["Location"].endswith(detection.get_absolute_url())


@pytest.mark.parametrize(
    ("values", "verdict", "probability"),
    [
        ({}, "Fake", "90.0\N{NO-BREAK SPACE}%"),
        ({"no_face": True}, "Not applicable", "none"),
        ({"failed": True}, "Failed", "none"),
    ],
)
def test_without_a_verdict_the_list_makes_none_up(
    staff: Client, values: dict[str, Any], verdict: str, probability: str
) -> None:
    make_detection(**values)
    response = staff.get(LIST)
    content = response.content.decode()
    assert f">{verdict}</a>" in content
    assert f'<td class="field-shown_probability">{probability}</td>' in content


@pytest.mark.parametrize("term", ["beach", "BEACH", "cd" * 32, "cdcdcd", "CDCDCD", "ada", "ada@example.org"])
def test_it_is_searched_by_name_hash_and_owner(staff: Client, term: str) -> None:
    make_detection(original_name="other.jpg")
    ada = make_user("ada", email="ada@example.org")
    make_detection(original_name="beach.jpg", sha256="cd" * 32, owner=ada)
    assert found(staff, q=term) == {"beach.jpg"}


@pytest.mark.parametrize("term", ["Über den Fjord.jpg", "Über", "FJORD", "Özgür"])
def test_a_name_is_found_as_it_is_written(staff: Client, term: str) -> None:
    make_detection(original_name="Über den Fjord.jpg", owner=make_user("Özgür"))
    assert found(staff, q=term) == {"Über den Fjord.jpg"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"verdict__exact": "real"}, {"real"}),
        ({"verdict__exact": "fake"}, {"fake"}),
        ({"status__exact": "failed"}, {"failed"}),
        ({"reviewed": "yes"}, {"fake"}),
        ({"reviewed": "no"}, {"real", "failed"}),
        ({"review_verdict__exact": "cant_tell"}, {"fake"}),
        ({"ai_declaration__exact": "c2pa"}, {"real"}),
        ({"model_version": "test-2"}, {"real"}),
        ({"created_at__year": "2025"}, {"real"}),
    ],
)
def test_it_is_filtered(staff: Client, query: dict[str, str], expected: set[str]) -> None:
    moment = datetime(2025, 3, 4, tzinfo=UTC)
    make_detection(0.1, original_name="real", model_version="test-2", created_at=moment, ai_declaration="c2pa")
    make_detection(0.9, original_name="fake", review_verdict="cant_tell")
    make_detection(failed=True, original_name="failed")
    assert found(staff, **query) == expected


def uploaded_on(*days: tuple[int, int, int]) -> None:
    for day in days:
        make_detection(created_at=datetime(*day, 23, 30, tzinfo=UTC))


def test_the_dates_lead_from_years_to_days(staff: Client) -> None:
    uploaded_on((2024, 12, 31), (2026, 1, 1), (2026, 3, 30), (2026, 4, 2))
    for query, links in (
        ({}, ["2024", "2025", "2026"]),
        ({"created_at__year": "2026"}, [f"{month} 2026" for month in ("January", "February", "March", "April")]),
        ({"created_at__year": "2026", "created_at__month": "3"}, ["March 30"]),
    ):
        content = staff.get(LIST, query).content.decode()
        toplinks = content[content.index("toplinks") :].split("</nav>")[0]
        assert [link for link in links if f">{link}</a>" in toplinks] == links


@pytest.mark.parametrize(
    ("kind", "days", "expected"),
    [
        ("year", [(2023, 12, 31), (2025, 1, 1)], [(2023, 1, 1), (2024, 1, 1), (2025, 1, 1)]),
        ("month", [(2024, 1, 31), (2024, 3, 1)], [(2024, 1, 1), (2024, 2, 1), (2024, 3, 1)]),
        ("day", [(2024, 2, 28), (2024, 3, 1)], [(2024, 2, 28), (2024, 2, 29), (2024, 3, 1)]),
        ("day", [(2024, 2, 28)], [(2024, 2, 28)]),
        ("year", [], []),
    ],
)
def test_the_periods_between_the_first_and_the_last_upload(
    kind: str, days: list[tuple[int, int, int]], expected: list[tuple[int, int, int]]
) -> None:
    uploaded_on(*days)
    periods = ListedDetections(Detection).datetimes("created_at", kind)
    assert [(each.year, each.month, each.day, each.hour) for each in periods] == [(*day, 0) for day in expected]


def test_more_rows_take_no_more_queries(staff: Client, django_assert_max_num_queries: DjangoAssertNumQueries) -> None:
    for number in range(8):
        make_detection(owner=make_user(f"user{number}"))
    with django_assert_max_num_queries(12):
        staff.get(LIST)


@pytest.mark.parametrize(
    ("rows", "sentence"), [(2, "2 detections"), (3, "More than 2 detections; the first 2 are listed.")]
)
def test_many_rows_are_not_counted_to_their_end(
    staff: Client, monkeypatch: pytest.MonkeyPatch, rows: int, sentence: str
) -> None:
    monkeypatch.setattr(detector_admin, "MOST_COUNTED", 2)
    monkeypatch.setattr(detector_admin.DetectionAdmin, "list_per_page", 1)
    for _ in range(rows):
        make_detection()
    for query in ({}, {"q": "holiday"}):
        response = staff.get(LIST, query)
        assertContains(response, sentence)
        content = " ".join(response.content.decode().split())
        for words in ("more than 2 results", "Select all, more than 2 detections", "All selected, more than 2"):
            assert (words in content) is (rows > 2)
    with CaptureQueriesContext(connection) as captured:
        staff.get(LIST)
    (count,) = [query["sql"] for query in captured if "COUNT(*)" in query["sql"]]
    assert "LIMIT 3" in count
    last = staff.get(LIST, {"p": "2"})
    assert [detection.pk for detection in last.context["cl"].result_list] == [Detection.objects.newest_first()[1].pk]


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("verdict__exact=fake", "detection_verdict_newest"),
        ("status__exact=failed", "detection_status_newest"),
        ("review_verdict__exact=fake", "detection_reviewed_as_newest"),
        ("ai_declaration__exact=c2pa", "detection_declaration_newest"),
        ("reviewed=yes", "detection_reviewed_newest"),
        ("o=-3", "detection_probability"),
        ("owner=1", "detection_owner_newest"),
    ],
)
def test_filters_and_sorting_read_an_index(staff: Client, query: str, index: str) -> None:
    plan = staff.get(f"{LIST}?{query}").context["cl"].queryset[:50].explain()
    assert index in plan
    assert "TEMP B-TREE FOR ORDER BY" not in plan


def test_time_and_owner_come_before_what_may_be_cut_off(staff: Client) -> None:
    make_detection(owner=make_user("ada"))
    columns = re.findall(r'class="[^"]*column-(\w+)', staff.get(LIST).content.decode())
    assert columns[-4:] == ["created_at", "shown_owner", "review_count", "model_version"]


def test_only_what_has_an_index_is_sorted_by(staff: Client) -> None:
    make_detection()
    content = staff.get(LIST).content.decode()
    sortable = set(re.findall(r'<th scope="col" class="sortable column-(\w+)', content))
    assert sortable == {"machine_verdict", "shown_probability", "created_at"}


def test_an_action_on_all_takes_those_beyond_the_count_too(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector_admin, "MOST_COUNTED", 1)
    for _ in range(3):
        make_detection()
    action = {"action": "export_csv", "select_across": "1", "_selected_action": [str(Detection.objects.all()[0].pk)]}
    response = admin_client.post(LIST, action)
    assert len(response.getvalue().splitlines()) == 1 + 3


def test_an_owner_leads_to_all_of_their_uploads(staff: Client) -> None:
    ada = make_user("ada")
    detection = make_detection(original_name="first.jpg", owner=ada)
    make_detection(original_name="second.jpg", owner=ada)
    make_detection(original_name="other.jpg", owner=make_user("bob"))
    make_detection(original_name="visitor.jpg")
    link = f"{LIST}?owner={ada.pk}"
    for page in (LIST, change_page(detection)):
        assertContains(staff.get(page), f'<a href="{link}">ada</a>')
    response = staff.get(link)
    assert {each.original_name for each in response.context["cl"].result_list} == {"first.jpg", "second.jpg"}
    assertContains(response, "By owner")  # the filter that says so and leads back
    assertNotContains(staff.get(LIST), "By owner")
    assert found(staff, owner="987654321") == found(staff, owner="x") == set()


def test_the_detail_shows_the_picture_with_its_faces(staff: Client) -> None:
    detection = make_detection()
    response = staff.get(change_page(detection))
    assertContains(response, "decode 1.0 ms, faces 2.0 ms, network 3.0 ms, total 6.0 ms")
    assertContains(response, reverse("detector:detection-image", args=[detection.pk]))
    assertContains(response, 'class="evidence__heatmap" src="data:image/png;base64,')


def test_every_time_has_the_same_form_and_its_zone(admin_client: Client, settings: Settings) -> None:
    # without summer time, since in the hour that comes twice Django leaves the zone out
    settings.TIME_ZONE = "Asia/Kolkata"
    late = datetime(2026, 11, 28, 23, 5, tzinfo=UTC)
    detection, alike = make_detection(created_at=late), make_detection(created_at=late)
    review = make_review(alike)
    for page in (
        LIST,
        change_page(detection),
        reverse("admin:detector_detection_review", args=[alike.pk]),
        reverse("admin:detector_queueddetection_changelist"),
        reverse("admin:detector_review_changelist"),
        reverse("admin:detector_review_change", args=[review.pk]),
    ):
        # the signed look in a hidden field has colons between random letters and digits
        content = re.sub(r'<input type="hidden"[^>]*>', "", admin_client.get(page).content.decode())
        assert re.findall(r"[ap]\.m\.|midnight|noon", content) == []
        assert re.findall(r"\d:\d\d(?! IST)", content) == []
    assertContains(admin_client.get(change_page(detection)), "29 Nov 2026, 04:35 IST")


def test_the_detail_says_of_nothing_that_it_is_none_of_python_s(staff: Client) -> None:
    for detection in (make_detection(failed=True), make_detection(no_face=True)):
        content = staff.get(change_page(detection)).content.decode()
        assert re.findall(r'<div class="readonly">\s*None\s*</div>', content) == []
        assert re.search(r'<div class="readonly">\s*none\s*</div>', content), "the fake probability"


def test_the_pages_have_no_inline_script_or_style(staff: Client) -> None:
    for page in (LIST, change_page(make_detection())):
        response = staff.get(page)
        assert "unsafe-inline" not in response["Content-Security-Policy"]
        assertNotContains(response, " style=")
        assertNotContains(response, "<style")
        assertNotContains(response, "<script>")


def test_a_detection_cannot_be_changed(admin_client: Client) -> None:
    detection = make_detection(0.9)
    before = Detection.objects.values().get()
    forged = {"verdict": "real", "fake_probability": "0.1", "review_verdict": "real", "owner": "1", "faces": "[]"}
    assert admin_client.post(change_page(detection), forged).status_code == HTTPStatus.FORBIDDEN
    assert Detection.objects.values().get() == before


def test_the_detail_shows_every_review_and_leads_to_one_s_own(staff: Client) -> None:
    detection = make_detection()
    assertContains(staff.get(change_page(detection)), "None yet.")
    make_review(detection, "cant_tell", reviewer=make_user("vera"), note="Too blurred.")
    make_review(detection, "real", reviewer=make_user("linus"))
    response = staff.get(change_page(detection))
    for text in ("vera", "Too blurred.", "linus", reverse("admin:detector_detection_review", args=[detection.pk])):
        assertContains(response, text)


def test_no_button_leads_to_a_history_that_is_always_empty(admin_client: Client) -> None:
    """Nothing is changed here, so Django would say of a detection with reviews that nothing ever happened to it."""
    detection = make_detection()
    review = make_review(detection)
    response = admin_client.get(change_page(detection))
    assertNotContains(response, "historylink")
    assertContains(response, "View on site")
    assertNotContains(admin_client.get(reverse("admin:detector_review_change", args=[review.pk])), "historylink")
    account = reverse("admin:auth_user_change", args=[review.reviewer_key])
    assertContains(admin_client.get(account), "historylink")


def test_reviews_are_listed_and_cannot_be_touched(admin_client: Client) -> None:
    review = make_review(make_detection(0.9), "real")
    assertContains(admin_client.get(reverse("admin:detector_review_changelist")), "Real")
    for page, arguments in (("add", []), ("delete", [review.pk])):
        address = reverse(f"admin:detector_review_{page}", args=arguments)
        assert admin_client.get(address).status_code == HTTPStatus.FORBIDDEN
    address = reverse("admin:detector_review_change", args=[review.pk])
    assert admin_client.get(address).status_code == HTTPStatus.OK
    assert admin_client.post(address, {"verdict": "fake"}).status_code == HTTPStatus.FORBIDDEN
    review.refresh_from_db()
    assert review.verdict == "real"


@pytest.mark.parametrize(
    ("answer", "words", "probabilities", "up_to"),
    [
        ("real", "Real", [0.01], 0.95),
        ("real", "Real", [0.29], None),  # from before there was such a band
        ("uncertain_real", "Real, uncertain", [0.2878754734992981], 0.95),
        ("fake", "Fake", [0.95], 0.95),
        ("uncertain_fake", "Fake, uncertain", [0.5], 0.95),
        ("not_applicable", "Not applicable", [], 0.95),
    ],
)
def test_a_review_says_whether_the_machine_was_sure(
    admin_client: Client, answer: str, words: str, probabilities: list[float], up_to: float | None
) -> None:
    detection = make_detection(*probabilities, no_face=not probabilities, uncertain_up_to=up_to)
    review = make_review(detection, "cant_tell")
    for chosen in ("real", "uncertain_real", "fake", "uncertain_fake", "not_applicable"):
        listed = admin_client.get(reverse("admin:detector_review_changelist"), {"machine_answer": chosen})
        shown = re.findall(r'field-machine_answer">([^<]*)<', listed.content.decode())
        assert shown == ([words] if chosen == answer else [])
    page = admin_client.get(reverse("admin:detector_review_change", args=[review.pk])).content.decode()
    assert re.findall(r'<div class="readonly">((?:Real|Fake|Not).*)</div>', page) == [words]
    assert f'<div class="readonly">{percent(detection.fake_probability) or "none"}</div>' in page


def test_nobody_adds_a_detection_by_hand(admin_client: Client) -> None:
    assert admin_client.get(reverse("admin:detector_detection_add")).status_code == HTTPStatus.FORBIDDEN
    assertNotContains(admin_client.get(LIST), "Add detection")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("way", ["page", "action"])
def test_deleting_removes_the_files(admin_client: Client, media_root: Path, way: str) -> None:
    detection = make_detection()
    if way == "page":
        admin_client.post(reverse("admin:detector_detection_delete", args=[detection.pk]), {"post": "yes"})
    else:
        action = {"action": "delete_selected", "_selected_action": [str(detection.pk)], "post": "yes"}
        admin_client.post(LIST, action)
    assert not Detection.objects.exists()
    assert [path for path in media_root.rglob("*") if path.is_file()] == []
    assert [entry.object_repr for entry in LogEntry.objects.all()] == [str(detection.pk)], "not the file's name"


def test_a_whole_page_of_shown_rows_can_be_chosen(admin_client: Client) -> None:
    for _ in range(detector_admin.DetectionAdmin.list_max_show_all):
        make_detection()
    shown = admin_client.get(LIST, {"all": ""}).context["cl"].result_list
    chosen = [str(detection.pk) for detection in shown]
    assert len(chosen) == detector_admin.DetectionAdmin.list_max_show_all
    # What the list's form sends along: each of its two bars of actions has these.
    fields = {"action": ["export_csv", ""], "select_across": ["0", "0"], "csrfmiddlewaretoken": "x"}
    response = admin_client.post(f"{LIST}?all=", {**fields, "_selected_action": chosen})
    assert response.status_code == HTTPStatus.OK
    assert len(response.getvalue().splitlines()) == 1 + len(chosen)


@pytest.mark.parametrize("logged_in", [False, True])
def test_the_admin_is_for_staff(client: Client, logged_in: bool) -> None:
    if logged_in:
        client.force_login(make_user())
    for page in (LIST, change_page(make_detection())):
        response = client.get(page)
        assert response.status_code == HTTPStatus.FOUND
        assert response["Location"].startswith(reverse("admin:login"))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("by_action", [False, True])
def test_an_account_goes_with_all_that_it_uploaded(admin_client: Client, media_root: Path, by_action: bool) -> None:
    ada = make_user("ada")
    make_detection(owner=ada)
    if by_action:
        action = {"action": "delete_selected", "_selected_action": [str(ada.pk)], "post": "yes"}
        admin_client.post(reverse("admin:auth_user_changelist"), action)
    else:
        admin_client.post(reverse("admin:auth_user_delete", args=[ada.pk]), {"post": "yes"})
    assert not type(ada).objects.filter(pk=ada.pk).exists()
    assert not Detection.objects.exists()
    assert [path for path in media_root.rglob("*") if path.is_file()] == []
