from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django import Settings

from detector.models import Detection, Review
from detector.tests.browser.conftest import Browser
from detector.tests.factories import make_detection, make_review, make_user

pytestmark = [pytest.mark.alone, pytest.mark.redis]


@pytest.fixture
def reviewer(live_server: object) -> User:
    return make_user("vera", is_staff=True, is_superuser=True)


def admin_path(detection: Detection) -> str:
    return f"/admin/detector/detection/{detection.pk}/change/"


def review_path(detection: Detection) -> str:
    return f"/admin/detector/detection/{detection.pk}/review/"


def test_a_reviewer_finds_a_detection_and_adds_a_verdict(browser: Browser, reviewer: User) -> None:
    detection = make_detection(0.9)
    browser.log_in(reviewer)
    browser.open("/admin/detector/detection/")
    browser.wait(lambda: browser.script("return document.querySelector('#result_list img').naturalWidth") > 0)
    browser.find("#result_list tbody a").click()
    assert browser.is_at(admin_path(detection))
    browser.find(".object-tools a[href$='/review/']").click()
    assert browser.is_at(review_path(detection))
    assert browser.is_shown(".evidence__boxes")
    browser.find("label[for=show-heatmap]").click()
    assert browser.is_shown(".evidence__heatmap")
    browser.find("#id_note").send_keys("An official portrait.")
    browser.find("#review-form [value=real]").click()
    assert browser.is_at(admin_path(detection))
    assert browser.sees("An official portrait.")
    review = Review.objects.get()
    assert (review.verdict, review.reviewer, review.note) == ("real", reviewer, "An official portrait.")
    detection.refresh_from_db()
    assert (detection.verdict, detection.fake_probability) == ("fake", 0.9)


def test_the_uploader_sees_the_review_beside_the_model_s_verdict(browser: Browser, reviewer: User) -> None:
    detection = make_detection(0.9)
    browser.log_in(reviewer)
    browser.open(review_path(detection))
    browser.find("#review-form [value=real]").click()
    assert browser.is_at(admin_path(detection))
    browser.driver.delete_all_cookies()
    browser.become_visitor()
    browser.open(detection.get_absolute_url())
    assert browser.text("h1") == "Fake"
    assert "Human review: Real" in " ".join(browser.text(".review").split())
    assert browser.sees("It disagrees with the model")
    browser.open("/history/")
    assert browser.sees("Reviewed: Real", ".card")


def test_what_the_machine_wrote_cannot_be_edited(browser: Browser, reviewer: User) -> None:
    detection = make_detection(0.9)
    browser.log_in(reviewer)
    browser.open(admin_path(detection))
    fields = "input:not([type=hidden], [type=submit], .switch__box), select, textarea"
    assert browser.all(f"#detection_form :is({fields})") == []


def test_a_reviewer_who_was_overtaken_sees_by_what_and_decides_again(browser: Browser, reviewer: User) -> None:
    detection = make_detection(0.9)
    browser.log_in(reviewer)
    browser.open(review_path(detection))
    make_review(detection, "fake", reviewer=make_user("grace"), note="Two left ears.")
    browser.find("#review-form [value=real]").click()
    assert browser.sees("Your review was not saved")
    assert browser.sees("Two left ears.", "[role=alert]")
    assert browser.axe_findings() == []
    browser.find("#review-form [value=real]").click()
    assert browser.is_at(admin_path(detection))
    assert [review.verdict for review in detection.reviews_so_far()] == ["fake", "real"]


QUEUE = "/admin/detector/queueddetection/"


LONG = "a" * 251 + ".jpg"


@pytest.fixture
def long_names(live_server: object) -> Detection:
    """Two detections in the queue of the longest names there are, one of them reviewed."""
    fields: dict[str, Any] = {"owner": make_user("maria." * 12 + "gonzalez@newspaper.example"), "original_name": LONG}
    make_review(make_detection(0.5, model_version="mobilenet_v2-5acc16d0@0.25", **fields), "cant_tell")
    return make_detection(0.5, model_version="mobilenet_v2-5acc16d0@0.25", **fields)


@pytest.mark.parametrize("page", [QUEUE, "/admin/detector/detection/", "/admin/detector/review/"])
def test_long_names_hide_no_column(browser: Browser, reviewer: User, long_names: Detection, page: str) -> None:
    browser.log_in(reviewer)
    browser.open(page)
    hidden = "const table = document.querySelector('.results'); return table.scrollWidth - table.clientWidth"
    assert browser.script(hidden) == 0
    if page == QUEUE:
        assert browser.find(".field-name span").get_attribute("title") == LONG
        browser.resize(360)
        assert browser.find("#result_list tbody tr").rect["height"] < 150


@pytest.mark.parametrize("page", ["change", "delete", "history", "review"])
def test_a_long_name_makes_no_page_wider(browser: Browser, long_names: Detection, page: str) -> None:
    browser.log_in(make_user("root." * 12 + "gonzalez@newspaper.example", is_staff=True, is_superuser=True))
    for width in (360, 1280):
        browser.resize(width)
        browser.open(f"/admin/detector/detection/{long_names.pk}/{page}/")
        assert browser.overflow_px() == 0


def press(browser: Browser, key: str) -> None:
    """Hits a key and waits for the page that it leads to."""
    before = browser.script("return performance.timeOrigin")
    browser.driver.switch_to.active_element.send_keys(key)
    browser.wait(lambda: browser.script("return performance.timeOrigin") != before, f"{key} leads nowhere")


def test_ten_items_are_decided_by_keyboard_alone(browser: Browser, reviewer: User) -> None:
    detections = [make_detection(0.5, original_name=f"{number}.jpg") for number in range(10)]
    browser.log_in(reviewer)
    browser.open(QUEUE)
    browser.find(".object-tools a").click()
    browser.find("#keys:not([hidden])")
    for key in "rfcrfcrfcr":
        press(browser, key)
    assert browser.is_at(QUEUE)
    assert browser.sees("Nothing waits for you.")
    verdicts = [detection.reviews_so_far()[0].verdict for detection in detections]
    assert verdicts == ["real", "fake", "cant_tell"] * 3 + ["real"]


def test_next_and_previous_skip_without_deciding(browser: Browser, reviewer: User) -> None:
    first, second = make_detection(0.5, original_name="1.jpg"), make_detection(0.5, original_name="2.jpg")
    browser.log_in(reviewer)
    browser.open(f"{review_path(first)}?queue=1")
    press(browser, "n")
    assert browser.is_at(f"{review_path(second)}?queue=1")
    press(browser, "p")
    assert browser.is_at(f"{review_path(first)}?queue=1")
    assert not Review.objects.exists()


def test_keys_are_letters_in_the_note_and_can_be_switched_off(browser: Browser, reviewer: User) -> None:
    detection = make_detection(0.5)
    browser.log_in(reviewer)
    browser.open(review_path(detection))
    browser.find("#id_note").send_keys("frc np")
    assert browser.find("#id_note").get_attribute("value") == "frc np"
    browser.find("#keys-on").click()
    browser.driver.switch_to.active_element.send_keys("r")
    browser.open(review_path(detection))
    assert not browser.find("#keys-on").is_selected()
    assert not Review.objects.exists()
    browser.find("#keys-on").click()
    press(browser, "r")
    assert Review.objects.get().verdict == "real"


def test_a_blind_look_is_followed_by_the_machine_s_answer(browser: Browser, reviewer: User, settings: Settings) -> None:
    settings.REVIEW_BLIND = True
    detection = make_detection(0.5)
    browser.log_in(reviewer)
    for scheme in ("dark", "light"):
        browser.emulate(scheme)
        browser.open(f"{review_path(detection)}?queue=1")
        assert browser.sees("A blind look")
        assert browser.axe_findings() == []
    assert browser.all(".evidence__boxes") == []
    press(browser, "r")
    assert browser.sees("The machine says Fake, uncertain", ".messagelist")
    assert Review.objects.get().is_blind


def test_without_javascript_buttons_do_the_same(browser: Browser, reviewer: User) -> None:
    first, second = make_detection(0.5), make_detection(0.5)
    browser.log_in(reviewer)
    browser.allow_scripts(False)
    browser.open(f"{review_path(first)}?queue=1")
    browser.find("#review-form [value=fake]").click()
    assert browser.is_at(f"{review_path(second)}?queue=1")
    assert Review.objects.get().verdict == "fake"


def test_two_people_overrule_the_machine(browser: Browser, reviewer: User, settings: Settings) -> None:
    settings.REVIEWERS_NEEDED = 2
    detection = make_detection(0.9, appealed_at=timezone.now(), appeal_text="It is me.")
    for user in (reviewer, make_user("grace", is_staff=True, is_superuser=True)):
        browser.driver.delete_all_cookies()
        browser.log_in(user)
        browser.open(QUEUE)
        browser.find(".object-tools a").click()
        assert browser.sees("It is me.")
        browser.find("#review-form [value=real]").click()
        assert browser.is_at(QUEUE)
    browser.driver.delete_all_cookies()
    browser.become_visitor()
    browser.open(detection.get_absolute_url())
    assert "Human review: Real" in " ".join(browser.text(".review").split())
    assert browser.sees("This answers your objection.")
