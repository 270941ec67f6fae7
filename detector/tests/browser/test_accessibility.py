"""axe on every page in both schemes, and the narrowest phone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path
from django.utils import timezone
from pytest_django.fixtures import Settings

from deepfake_site import urls as site
from detector import services
from detector.tests.browser.conftest import Browser
from detector.tests.factories import FakePredictor, make_detection, make_jpeg, make_review, make_user

pytestmark = [pytest.mark.alone, pytest.mark.redis]

ROOT = Path(__file__).parents[3]
SCHEMES = ["light", "dark"]
NARROWEST = 320  # px, as WCAG 1.4.10 has it
PHONE = 360


def reviewed() -> str:
    return make_detection(0.9, review_verdict="cant_tell").get_absolute_url()


def known_picture() -> str:
    make_detection(0.9, review_verdict="fake")
    return make_detection(0.9).get_absolute_url()


def forgotten() -> str:
    detection = make_detection(0.9, 0.4)
    services.picture_forget(detection=detection)
    return detection.get_absolute_url()


def full_history() -> str:
    forgotten()
    make_detection(0.9, original_name="a-very-long-name-" * 12 + ".jpg")
    make_detection(0.5)
    make_detection(0.1)
    make_detection(no_face=True)
    make_detection(failed=True)
    reviewed()
    return "/history/"


def unmatched_filter() -> str:
    make_detection(0.9)
    return "/history/?verdict=real"


# Each prepares what the page shows and returns its path.
PAGES: dict[str, Callable[[], str]] = {
    "upload": lambda: "/",
    "real": lambda: make_detection(0.1).get_absolute_url(),
    "fake": lambda: make_detection(0.9).get_absolute_url(),
    "uncertain": lambda: make_detection(0.5).get_absolute_url(),
    "several faces": lambda: make_detection(0.95, 0.5, 0.05).get_absolute_url(),
    "not kept": forgotten,
    "no face": lambda: make_detection(no_face=True).get_absolute_url(),
    "failed": lambda: make_detection(failed=True).get_absolute_url(),
    "reviewed": reviewed,
    "known picture": known_picture,
    "objected to": lambda: make_detection(0.9, appealed_at=timezone.now(), appeal_text="It is me.").get_absolute_url(),
    "history": full_history,
    "empty history": lambda: "/history/",
    "nothing with that verdict": unmatched_filter,
    "about": lambda: "/about/",
    "log-in": lambda: "/accounts/login/",
    "sign-up": lambda: "/accounts/signup/",
    "not found": lambda: "/nothing/here/",
}


@pytest.mark.parametrize("page", PAGES)
def test_axe_finds_nothing_and_nothing_overflows(browser: Browser, page: str) -> None:
    browser.become_visitor()
    address = PAGES[page]()
    for scheme in SCHEMES:
        browser.emulate(scheme)
        browser.open(address)
        for switch in browser.all(".evidence__heatmap-on, .confirm summary"):
            switch.click()
        assert browser.axe_findings() == [], scheme
    browser.resize(NARROWEST)
    assert browser.overflow_px() == 0
    assert browser.axe_findings() == [], "narrow"
    browser.resize(PHONE)
    browser.enlarge_text(200)
    assert browser.overflow_px() == 0, "text of twice the size, as WCAG 1.4.4 has it"


ERROR_TEMPLATES = ["400", "403", "403_csrf", "404", "413", "500", "503", "detector/unavailable"]


def show_template(request: HttpRequest, name: str) -> HttpResponse:
    return render(request, f"{name}.html")


urlpatterns = [*site.urlpatterns, path("template/<path:name>", show_template)]


@pytest.mark.parametrize("name", ERROR_TEMPLATES)
def test_axe_finds_nothing_on_an_error_page(browser: Browser, name: str, settings: Settings) -> None:
    settings.ROOT_URLCONF = __name__
    for scheme in SCHEMES:
        browser.emulate(scheme)
        browser.open(f"/template/{name}")
        assert browser.axe_findings() == [], scheme
    browser.resize(NARROWEST)
    assert browser.overflow_px() == 0


def test_nothing_overflows_without_javascript_either(browser: Browser) -> None:
    browser.allow_scripts(False)
    browser.resize(NARROWEST)
    browser.open("/")
    assert browser.overflow_px() == 0


@pytest.mark.parametrize("width", [NARROWEST, 360, 768, 1280])
def test_a_long_name_of_an_account_makes_no_page_wider(browser: Browser, width: int) -> None:
    browser.log_in(make_user("maria." * 12 + "gonzalez@newspaper.example"))
    browser.resize(width)
    browser.open("/")
    assert browser.overflow_px() == 0


def test_axe_finds_nothing_in_a_notice_from_the_page_before(browser: Browser) -> None:
    browser.become_visitor()
    browser.open(make_detection().get_absolute_url())
    browser.find(".confirm:not(.confirm--appeal) summary").click()
    browser.find(".button--danger").click()
    assert browser.sees("The picture and its result were deleted.", "[role=status]")
    assert browser.axe_findings() == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_refused_upload_stays_accessible(browser: Browser, scheme: str, settings: Settings) -> None:
    settings.UPLOAD_RATE = "1/h"
    browser.emulate(scheme)
    browser.open("/")
    upload(browser, b"This is no picture at all.")
    browser.find("#upload-error .notice")
    assert browser.axe_findings() == []
    browser.open("/")
    upload(browser, make_jpeg())
    assert browser.sees("one upload too many", "h1")
    assert browser.axe_findings() == []
    browser.open("/")
    assert browser.sees("The next one is free in ", "#upload-error")
    assert browser.axe_findings() == []


def upload(browser: Browser, data: bytes) -> None:
    """Sends `data` by the page's own form, past the page's script."""
    source = """
        const [content, form] = [arguments[0], document.getElementById("upload-form")];
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(content)], "picture.jpg", {type: "image/jpeg"}));
        form.querySelector("input[name=picture]").files = transfer.files;
        form.submit();
    """
    browser.script(source, list(data))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_forms_errors_are_accessible(browser: Browser, scheme: str) -> None:
    browser.emulate(scheme)
    browser.open("/accounts/login/")
    browser.find("#id_username").send_keys("nobody")
    browser.find("#id_password").send_keys("wrong")
    browser.find(".form-page button").click()
    browser.find(".notice--error")
    assert browser.axe_findings() == []
    browser.open("/accounts/signup/")
    browser.find("#id_username").send_keys("nobody")
    for field in browser.all("input[type=password]"):
        field.send_keys("123")
    browser.find(".form-page button").click()
    browser.find(".field__error")
    assert browser.axe_findings() == []


ADMIN_PAGES = ["/admin/", "/admin/detector/detection/", "/admin/detector/detection/{pk}/change/"]
ADMIN_PAGES += ["/admin/detector/detection/{pk}/review/", "/admin/detector/review/", "/admin/detector/queueddetection/"]
ADMIN_PAGES += ["/admin/detector/queueddetection/?review_need__exact=3"]
ADMIN_PAGES += ["/admin/detector/review/quality/", "/accounts/password/", "/accounts/delete/"]


@pytest.mark.parametrize("page", ADMIN_PAGES)
def test_axe_finds_nothing_in_the_admin_and_where_it_leads(browser: Browser, page: str) -> None:
    make_detection(failed=True)
    make_detection(0.5)
    make_review(make_detection(0.5), "cant_tell")  # the same file as the next
    detection = make_detection(0.95, 0.5, 0.05)
    make_review(detection, "real", note="An official portrait.")
    browser.log_in(make_user("vera", is_staff=True, is_superuser=True))
    for scheme in SCHEMES:
        browser.emulate(scheme)
        browser.open(page.format(pk=detection.pk))
        for switch in browser.all(".evidence__heatmap-on"):
            switch.click()
        assert browser.axe_findings() == [], scheme
    browser.resize(NARROWEST)
    assert browser.overflow_px() == 0


@pytest.mark.parametrize("page", ["", "{pk}/change/"])
def test_links_of_the_admin_that_stand_in_text_differ_by_more_than_colour(browser: Browser, page: str) -> None:
    """axe takes them to be in text only where there is more text than link, such as a long name."""
    detection = make_detection(0.5, original_name="at-the-wedding-of-my-sister.jpg")
    browser.log_in(make_user("vera", is_staff=True, is_superuser=True))
    browser.resize(NARROWEST)
    for scheme in SCHEMES:
        browser.emulate(scheme)
        browser.open("/admin/detector/detection/" + page.format(pk=detection.pk))
        assert browser.axe_findings() == [], scheme


def test_the_heat_map_and_the_boxes_stay_when_motion_and_colours_are_reduced(browser: Browser) -> None:
    detection = make_detection(0.9)
    browser.become_visitor()
    features = [{"name": "prefers-reduced-motion", "value": "reduce"}, {"name": "forced-colors", "value": "active"}]
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.open(detection.get_absolute_url())
    assert browser.is_shown(".evidence__boxes")
    assert browser.find(".meter__needle").rect["width"] > 0


PAPER_PX = 680  # what A4 is wide between margins of 15 mm


def test_on_paper_no_column_of_figures_is_cut_off(browser: Browser, predictor: FakePredictor) -> None:
    predictor.spec.version = json.loads((ROOT / "models/mobilenet_v2/metrics.json").read_text())["model_version"]
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.resize(PAPER_PX)
    browser.open("/about/")
    for summary in browser.all(".per-source summary"):
        summary.click()
    ends = browser.script("return [...document.querySelectorAll('table')].map((e) => e.getBoundingClientRect().right)")
    assert len(ends) > 2
    assert max(ends) <= PAPER_PX
