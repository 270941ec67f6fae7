import pytest
from django.contrib.auth.models import User

from detector.models import Detection
from detector.tests.browser.conftest import Browser
from detector.tests.factories import make_detection, make_user

pytestmark = pytest.mark.redis


@pytest.fixture
def reviewer(live_server: object) -> User:
    return make_user("vera", is_staff=True, is_superuser=True)


def admin_path(detection: Detection) -> str:
    return f"/admin/detector/detection/{detection.pk}/change/"


def test_a_reviewer_finds_a_detection_and_adds_a_verdict(browser: Browser, reviewer: User) -> None:
    detection = make_detection(0.9)
    browser.log_in(reviewer)
    browser.open("/admin/detector/detection/")
    browser.wait(lambda: browser.script("return document.querySelector('#result_list img').naturalWidth") > 0)
    browser.find("#result_list tbody a").click()
    assert browser.is_at(admin_path(detection))
    assert browser.is_shown(".evidence__boxes")
    browser.find("label[for=show-heatmap]").click()
    assert browser.is_shown(".evidence__heatmap")
    browser.find("#id_review_verdict option[value=real], #id_review_verdict input[value=real]").click()
    browser.find("#id_review_note").send_keys("An official portrait.")
    browser.find("[name=_save]").click()
    assert browser.is_at("/admin/detector/detection/")
    detection.refresh_from_db()
    assert (detection.review_verdict, detection.reviewed_by) == ("real", reviewer)
    assert (detection.verdict, detection.fake_probability) == ("fake", 0.9)


def test_the_uploader_sees_the_review_beside_the_model_s_verdict(browser: Browser, reviewer: User) -> None:
    detection = make_detection(0.9)
    browser.log_in(reviewer)
    browser.open(admin_path(detection))
    browser.find("#id_review_verdict option[value=real], #id_review_verdict input[value=real]").click()
    browser.find("[name=_save]").click()
    assert browser.is_at("/admin/detector/detection/")
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
    fields = "#detection_form input:not([type=hidden], [type=submit], .switch__box), select, textarea"
    names = {field.get_attribute("name") for field in browser.all(f"#detection_form :is({fields})")}
    assert names == {"review_verdict", "review_note"}
