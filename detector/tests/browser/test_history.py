import io

import pytest
from django.core.files.base import ContentFile
from PIL import Image
from pytest_django.fixtures import Settings

from detector.tests.browser.conftest import Browser
from detector.tests.factories import make_detection, make_jpeg, make_user

pytestmark = [pytest.mark.alone, pytest.mark.redis]


def names(browser: Browser) -> list[str]:
    return [name.text for name in browser.all(".card__name")]


def test_an_empty_history_says_so_and_leads_on(browser: Browser) -> None:
    browser.open("/history/")
    assert browser.text("h2") == "No photos yet"
    browser.find(".empty .button").click()
    assert browser.is_at("/")


def test_the_newest_comes_first_with_thumbnail_and_verdict(browser: Browser) -> None:
    make_detection(0.9, original_name="first.jpg")
    make_detection(no_face=True, original_name="second.jpg")
    browser.become_visitor()
    browser.open("/history/")
    assert names(browser) == ["second.jpg", "first.jpg"]
    assert [tag.text for tag in browser.all(".card .tag")] == ["No face", "Fake"]
    loaded = "return [...document.querySelectorAll('.card__picture')].every((picture) => picture.naturalWidth > 0)"
    browser.wait(lambda: browser.script(loaded), "a thumbnail is missing")
    browser.all(".card__link")[1].click()
    assert browser.is_at("/detections/")
    assert browser.text("h1") == "Fake"


def test_on_a_phone_a_tall_picture_makes_no_tall_card(browser: Browser) -> None:
    make_detection()
    make_detection().thumbnail.save("", ContentFile(make_jpeg(64, 960)))
    browser.become_visitor()
    browser.resize(360)
    browser.open("/history/")
    loaded = "return [...document.querySelectorAll('.card__picture')].every((picture) => picture.naturalWidth > 0)"
    browser.wait(lambda: browser.script(loaded), "a thumbnail is missing")
    heights = [card.rect["height"] for card in browser.all(".card")]
    assert heights[0] == heights[1] < 250


def test_with_forced_colours_the_chosen_filter_still_differs(browser: Browser) -> None:
    make_detection()
    browser.become_visitor()
    feature = {"name": "forced-colors", "value": "active"}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.open("/history/")
    painted = [Image.open(io.BytesIO(link.screenshot_as_png)).convert("RGB") for link in browser.all(".filters a")]
    chosen, *others = [picture.getpixel((8, picture.height // 2)) for picture in painted]
    assert chosen not in others


def test_a_verdict_can_be_picked_out(browser: Browser) -> None:
    make_detection(0.9, original_name="fake.jpg")
    make_detection(0.1, original_name="real.jpg")
    make_detection(failed=True, original_name="failed.jpg")
    browser.become_visitor()
    browser.open("/history/")
    assert [" ".join(link.text.split()) for link in browser.all(".filters a")] == [
        "All 3",
        "Real 1",
        "Fake 1",
        "No face 0",
    ]
    browser.all(".filters a")[1].click()
    assert browser.is_at("/history/?verdict=real")
    assert names(browser) == ["real.jpg"]
    assert browser.find(".filters [aria-current]").text.startswith("Real")
    browser.all(".filters a")[3].click()
    assert browser.sees("Nothing with this verdict")


def test_more_than_a_page_is_paged_within_the_filter(browser: Browser, settings: Settings) -> None:
    settings.HISTORY_PAGE_SIZE = 2
    for number in range(3):
        make_detection(0.9, original_name=f"fake-{number}.jpg")
    make_detection(0.1, original_name="real.jpg")
    browser.become_visitor()
    browser.open("/history/?verdict=fake")
    assert names(browser) == ["fake-2.jpg", "fake-1.jpg"]
    browser.find("a[rel=next]").click()
    assert browser.is_at("/history/?verdict=fake&page=2")
    assert names(browser) == ["fake-0.jpg"]
    assert browser.sees("Page 2 of 2")


def test_a_log_in_takes_the_visitor_s_photos_along(browser: Browser) -> None:
    make_user("ada")
    make_detection(original_name="before.jpg")
    browser.become_visitor()
    browser.open("/accounts/login/?next=/history/")
    browser.find("#id_username").send_keys("ada")
    browser.find("#id_password").send_keys("correct horse battery")
    browser.find(".form-page button").click()
    assert browser.is_at("/history/")
    assert names(browser) == ["before.jpg"]
    assert browser.sees("ada", ".site-nav__user")
    browser.find(".site-nav form button").click()
    assert browser.sees("Log in", ".site-nav")
    browser.open("/history/")
    assert browser.sees("No photos yet")
