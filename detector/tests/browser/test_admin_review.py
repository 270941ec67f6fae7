import pytest
from django.contrib.auth.models import User

from detector.models import Detection, Review
from detector.tests.browser.conftest import Browser
from detector.tests.factories import make_detection, make_review, make_user

pytestmark = pytest.mark.redis


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
    assert "Reviewed by a person: Real" in " ".join(browser.text(".review").split())
    assert browser.sees("The reviewer disagrees with the model")
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
