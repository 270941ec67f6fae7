import base64
import io
import os
import re
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import pytest
from django.test import Client
from PIL import Image
from pytest_django.fixtures import Settings
from selenium.webdriver import Keys

from detector.models import Detection
from detector.tests.browser.conftest import Browser
from detector.tests.factories import FakePredictor, make_jpeg, make_upload

pytestmark = [pytest.mark.alone, pytest.mark.redis]

INPUT = "input[name=picture]"
SUBMIT = "#upload-submit"

# A file that arrives by drag and drop or from the clipboard, as the browser hands it to the page.
HAND_OVER = """
    const [kind, content] = arguments;
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], "handed-over.jpg", {type: "image/jpeg"}));
    const event = kind === "paste"
        ? new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true, cancelable: true})
        : new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true});
    document.getElementById("drop-zone").dispatchEvent(event);
"""


# How far right of the file's name its figures begin in the preview, in pixels.
FIGURES_FROM_NAME = """
    const line = document.getElementById("preview-name");
    const texts = document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
    const boxOf = (words) => {
        texts.currentNode = line;
        while (texts.nextNode()) {
            const start = texts.currentNode.textContent.indexOf(words);
            if (start >= 0) {
                const range = document.createRange();
                range.setStart(texts.currentNode, start);
                range.setEnd(texts.currentNode, start + words.length);
                return range.getBoundingClientRect();
            }
        }
    };
    return boxOf("320").left - boxOf(arguments[0]).right;
"""


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., str]:
    """Makes files to choose; what they are called and hold can be said."""

    def write(name: str = "holiday.jpg", data: bytes | None = None) -> str:
        path = tmp_path / name
        path.write_bytes(make_jpeg() if data is None else data)
        return str(path)

    return write


def choose(browser: Browser, path: str) -> None:
    browser.find(INPUT).send_keys(path)


def test_a_chosen_photo_is_previewed_and_then_judged(browser: Browser, picture: Callable[..., str]) -> None:
    browser.open("/")
    assert browser.sees("5 of 5 uploads left this minute")
    choose(browser, picture())
    assert browser.sees(f"holiday.jpg · 320 × 240 px · {round(len(make_jpeg()) / 1024)} KB")
    assert browser.is_shown(".preview__picture")
    browser.find(SUBMIT).click()
    assert browser.is_at("/detections/")
    assert browser.text("h1") == "Fake"
    browser.open("/")
    assert browser.sees("4 of 5 uploads left this minute")


def test_without_javascript_a_photo_is_judged_all_the_same(browser: Browser, picture: Callable[..., str]) -> None:
    browser.allow_scripts(False)
    browser.open("/")
    assert browser.is_shown(INPUT)
    assert not browser.is_shown(".drop-zone__hint")
    choose(browser, picture())
    browser.find(SUBMIT).click()
    assert browser.is_at("/detections/")
    assert browser.text("h1") == "Fake"


@pytest.mark.parametrize("scripts", [True, False], ids=["with JavaScript", "without JavaScript"])
@pytest.mark.parametrize(
    "name", ['my "best" day.jpg', "100 %.jpg", "caf\u00e9 & \u05e9\u05dc\u05d5\u05dd; 2.jpg", "a%20b%22.jpg"]
)
def test_a_photo_is_called_what_its_file_is(
    browser: Browser, picture: Callable[..., str], name: str, scripts: bool
) -> None:
    browser.allow_scripts(scripts)
    browser.open("/")
    choose(browser, picture(name))
    browser.find(SUBMIT).click()
    assert browser.is_at("/detections/")
    assert Detection.objects.get().original_name == name


def test_without_javascript_a_refusal_is_read_on_the_page(browser: Browser, picture: Callable[..., str]) -> None:
    browser.allow_scripts(False)
    browser.open("/")
    choose(browser, picture("notes.jpg", b"This is no picture at all."))
    browser.find(SUBMIT).click()
    assert browser.find("#upload-error .notice").is_displayed()
    assert browser.find(INPUT).get_attribute("aria-invalid") == "true"
    assert not Detection.objects.exists()


@pytest.mark.parametrize("scripts", [True, False], ids=["with JavaScript", "without JavaScript"])
def test_on_a_small_phone_a_refusal_comes_into_sight(
    browser: Browser, picture: Callable[..., str], scripts: bool
) -> None:
    browser.allow_scripts(scripts)
    browser.resize(360, 640)
    browser.open("/")
    choose(browser, picture("notes.jpg", b"This is no picture at all."))
    browser.script("document.querySelector(arguments[0]).scrollIntoView()", SUBMIT)  # by now above it is out of sight
    browser.find(SUBMIT).click()
    is_in_sight = """
        const box = document.querySelector("#upload-error .notice")?.getBoundingClientRect();
        return box && box.top >= 0 && box.bottom <= window.innerHeight;
    """
    browser.wait(lambda: browser.script(is_in_sight), "the sentence is out of sight")


def test_the_field_is_heard_as_wrong_only_once_something_is(browser: Browser, picture: Callable[..., str]) -> None:
    """Chromium calls a required field for files invalid as long as it is empty."""
    limits = "JPEG, PNG or WebP, up to 15 MB and 50 megapixels"
    browser.open("/")
    assert heard(browser, INPUT) == {"description": limits, "is_invalid": False}
    choose(browser, picture("letter.pdf", b"%PDF-1.7"))
    assert heard(browser, INPUT) == {"description": f"{limits} This file is not a photo.", "is_invalid": True}
    choose(browser, picture())
    assert heard(browser, INPUT) == {"description": limits, "is_invalid": False}


def heard(browser: Browser, selector: str) -> dict[str, object]:
    """What a screen reader says of a field besides its name."""
    root = browser.driver.execute_cdp_cmd("DOM.getDocument", {})["root"]
    field = browser.driver.execute_cdp_cmd("DOM.querySelector", {"nodeId": root["nodeId"], "selector": selector})
    tree = browser.driver.execute_cdp_cmd("Accessibility.getPartialAXTree", {**field, "fetchRelatives": False})
    node = tree["nodes"][0]
    states = {state["name"]: state["value"].get("value") for state in node["properties"]}
    return {"description": node["description"]["value"], "is_invalid": states.get("invalid", "false") != "false"}


def test_the_keyboard_alone_is_enough(browser: Browser, picture: Callable[..., str]) -> None:
    browser.open("/")
    browser.press(Keys.TAB)
    assert browser.focused.text == "Skip to content"
    browser.press(Keys.ENTER)
    browser.tab_to(INPUT, most=2)
    assert outline_of(browser, ".file-label") != "none"
    choose(browser, picture())  # stands for the system's own file dialog
    browser.tab_to(SUBMIT, most=3)
    assert outline_of(browser, SUBMIT) != "none"
    browser.press(Keys.ENTER)
    assert browser.is_at("/detections/")
    browser.tab_to("#show-heatmap")
    browser.press(Keys.SPACE)
    assert browser.is_shown(".evidence__heatmap")
    browser.tab_to(".confirm:not(.confirm--appeal) summary")
    browser.press(Keys.ENTER)
    browser.tab_to(".button--danger", most=1)
    browser.press(Keys.ENTER)
    assert browser.is_at("/history/")
    assert not Detection.objects.exists()


def outline_of(browser: Browser, selector: str) -> str:
    return browser.find(selector).value_of_css_property("outline-style")


@pytest.mark.parametrize("name", ["\u05e6\u05d9\u05dc\u05d5\u05dd", "photo\u202egpj.exe.jpg"])
def test_a_name_in_any_script_leaves_the_figures_beside_it_alone(
    browser: Browser, picture: Callable[..., str], name: str
) -> None:
    browser.open("/")
    choose(browser, picture(name))
    assert browser.sees("320 × 240 px", "#preview-name")
    assert browser.script(FIGURES_FROM_NAME, name) >= 0


def test_on_the_way_back_the_same_photo_is_still_chosen(browser: Browser, picture: Callable[..., str]) -> None:
    browser.open("/")
    choose(browser, picture())
    browser.find(SUBMIT).click()
    assert browser.is_at("/detections/")
    browser.driver.back()
    assert browser.sees("holiday.jpg · 320 × 240 px")
    browser.find(SUBMIT).click()
    assert browser.is_at("/detections/")
    assert Detection.objects.count() == 2


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_photo_can_be_dropped_or_pasted(browser: Browser, kind: str) -> None:
    browser.open("/")
    browser.script(HAND_OVER, kind, base64.b64encode(make_jpeg()).decode())
    assert browser.sees("handed-over.jpg · 320 × 240 px")
    assert browser.focused.get_attribute("id") == "upload-submit"
    browser.press(Keys.ENTER)
    assert browser.is_at("/detections/")
    assert Detection.objects.get().original_name == "handed-over.jpg"


def test_what_is_dropped_and_no_file_is_said_to_be_none(browser: Browser) -> None:
    """A picture from another page may arrive as its address alone."""
    browser.open("/")
    browser.script("window.dispatchEvent(new DragEvent('drop', {dataTransfer: new DataTransfer(), cancelable: true}))")
    assert browser.sees("That was no file.", "#upload-error")


def test_a_folder_that_is_dropped_is_said_to_be_one(browser: Browser, tmp_path: Path) -> None:
    """Browsers hand it over as if it was a file, but can't read or send it."""
    browser.open("/")
    zone = browser.find("#drop-zone").rect
    folder = {"items": [], "files": [str(tmp_path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": zone["x"] + 9, "y": zone["y"] + 9, "data": folder}
        browser.driver.execute_cdp_cmd("Input.dispatchDragEvent", event)
    assert browser.sees("That was a folder.", "#upload-error")
    assert not browser.is_shown("#preview")


def test_no_other_photo_takes_the_place_of_one_on_its_way(browser: Browser, picture: Callable[..., str]) -> None:
    """The next try would send what the preview does not show."""
    browser.open("/")
    choose(browser, picture())
    browser.script("XMLHttpRequest.prototype.send = () => {}")
    browser.find(SUBMIT).click()
    browser.script(HAND_OVER, "drop", base64.b64encode(make_jpeg()).decode())
    assert browser.sees("holiday.jpg · 320 × 240 px")
    assert browser.script("return document.querySelector('input[name=picture]').files[0].name") == "holiday.jpg"


def test_on_a_phone_a_photo_can_be_taken(browser: Browser, picture: Callable[..., str]) -> None:
    browser.touch(True)
    browser.resize(360)
    browser.open("/")
    assert browser.is_shown("label[for=camera]")
    browser.find("#camera").send_keys(picture("taken.jpg"))
    assert browser.sees("taken.jpg · 320 × 240 px")
    browser.find(SUBMIT).click()
    assert browser.is_at("/detections/")


def test_the_sixth_upload_in_a_minute_waits_in_place(browser: Browser, picture: Callable[..., str]) -> None:
    for number in range(5):
        browser.open("/")
        assert browser.sees(f"{5 - number} of 5 uploads left")
        choose(browser, picture())
        browser.find(SUBMIT).click()
        assert browser.is_at("/detections/")
    browser.open("/")
    assert browser.sees("0 of 5 uploads left")
    assert browser.sees("The next one is free in ", "#upload-error")
    assert browser.find(SUBMIT).get_attribute("aria-disabled") == "true"
    first = waiting_s(browser)
    assert 0 < first <= 61
    browser.wait(lambda: waiting_s(browser) < first, "the seconds don't count down")
    assert Detection.objects.count() == 5


def test_a_page_that_was_open_before_the_limit_learns_of_it(browser: Browser, picture: Callable[..., str]) -> None:
    browser.open("/")
    use_up()
    choose(browser, picture())
    browser.find(SUBMIT).click()
    assert browser.sees("The next one is free in ", "#upload-error")
    assert 0 < waiting_s(browser) <= 61
    assert browser.sees("0 of 5 uploads left")
    assert browser.path == "/"


def test_the_countdown_ends_by_itself(browser: Browser, picture: Callable[..., str], settings: Settings) -> None:
    settings.UPLOAD_RATE = "1/4s"
    browser.open("/")
    choose(browser, picture())
    use_up(1)
    browser.find(SUBMIT).click()
    assert browser.sees("The next one is free in ", "#upload-error")
    browser.wait(lambda: browser.text(SUBMIT) == "Check this photo", "the button stays locked")
    assert browser.all("#upload-error .notice") == []
    browser.find(SUBMIT).click()
    assert browser.is_at("/detections/")


def test_a_long_wait_is_counted_in_minutes(browser: Browser, settings: Settings) -> None:
    settings.UPLOAD_RATE = "1/10m"
    use_up(1)
    browser.open("/")
    browser.wait(lambda: re.fullmatch(r"Wait 9 min( \d+ s)?", browser.text(SUBMIT)), "the button counts in seconds")
    assert browser.sees("The next one is free in 9 min", "#upload-error")


def test_a_wrong_photo_and_the_waiting_time_are_said_apart(browser: Browser, picture: Callable[..., str]) -> None:
    use_up()
    browser.open("/")
    choose(browser, picture("letter.pdf", b"%PDF-1.7"))
    assert browser.sees("This file is not a photo.", "#upload-error")
    assert browser.sees("The next one is free in ", "#upload-error")
    choose(browser, picture())
    assert len(browser.all("#upload-error .notice")) == 1
    assert browser.sees("The next one is free in ", "#upload-error")
    assert not heard(browser, INPUT)["is_invalid"]


def test_without_javascript_the_sixth_upload_gets_its_own_page(browser: Browser, picture: Callable[..., str]) -> None:
    browser.allow_scripts(False)
    browser.open("/")
    use_up()
    choose(browser, picture())
    browser.find(SUBMIT).click()
    assert browser.sees("one upload too many", "h1")
    assert 0 < int(browser.text("[data-countdown]").split()[0]) <= 61


def use_up(uploads: int = 5) -> None:
    """Uploads from elsewhere at the same address until none is left."""
    for _ in range(uploads):
        assert Client().post("/", {"picture": make_upload()}).status_code == HTTPStatus.FOUND


def waiting_s(browser: Browser) -> int:
    """The seconds on the button."""
    browser.wait(lambda: browser.text(SUBMIT).startswith("Wait "), "the button does not count")
    return int(browser.text(SUBMIT).split()[1])


def test_a_file_that_is_too_large_is_not_even_sent(
    browser: Browser, picture: Callable[..., str], settings: Settings
) -> None:
    settings.MAX_UPLOAD_BYTES = 1024 * 1024
    browser.open("/")
    choose(browser, picture("huge.jpg", make_jpeg() + bytes(1024 * 1024)))
    browser.find(SUBMIT).click()
    assert browser.sees("This file is 1.1 MB; at most 1 MB are accepted.", "#upload-error")  # by some KB
    assert browser.path == "/"
    browser.open("/")
    assert browser.sees("5 of 5 uploads left")


def test_a_file_that_was_made_smaller_in_its_place_can_be_chosen_again(
    browser: Browser, picture: Callable[..., str], settings: Settings
) -> None:
    settings.MAX_UPLOAD_BYTES = 1024 * 1024
    browser.open("/")
    choose(browser, picture(data=make_jpeg() + bytes(1024 * 1024)))
    assert browser.sees("at most 1 MB are accepted.", "#upload-error")
    choose(browser, picture(data=make_jpeg(640, 480)))
    assert browser.sees("holiday.jpg · 640 × 480 px")
    assert browser.text("#upload-error") == ""
    browser.find(SUBMIT).click()
    assert browser.is_at("/detections/")


def test_a_photo_of_too_many_pixels_is_not_even_sent(
    browser: Browser, picture: Callable[..., str], settings: Settings
) -> None:
    settings.MAX_UPLOAD_PIXELS = 1_000_000
    browser.open("/")
    choose(browser, picture("wide.jpg", make_jpeg(1001, 1000)))
    assert browser.sees("This photo has 1.1 megapixels; at most 1 are accepted.", "#upload-error")


def test_what_the_server_refuses_is_said_in_place(browser: Browser, picture: Callable[..., str]) -> None:
    browser.open("/")
    choose(browser, picture("notes.jpg", b"This is no picture at all."))
    browser.find(SUBMIT).click()
    notice = browser.find("#upload-error .notice")
    assert notice.is_displayed()
    assert notice.text.endswith(".")
    assert browser.sees("4 of 5 uploads left")
    assert browser.path == "/"
    assert browser.text(SUBMIT) == "Check this photo"
    assert not Detection.objects.exists()


def test_without_cookies_the_reason_is_the_server_s(browser: Browser, picture: Callable[..., str]) -> None:
    browser.open("/")
    choose(browser, picture())
    browser.driver.delete_all_cookies()
    browser.find(SUBMIT).click()
    assert browser.sees("cookies are blocked or were deleted", "#upload-error")


# What nginx of deploy/ says itself, which tests of that ask for.
ANSWERED = """
    const [status, response, retryAfter] = arguments;
    XMLHttpRequest.prototype.send = function () {
      Object.defineProperties(this, { status: { value: status }, response: { value: response } });
      this.getResponseHeader = () => retryAfter;
      this.dispatchEvent(new ProgressEvent("load"));
    };
"""


@pytest.mark.parametrize(
    ("status", "response", "sentence"),
    [
        (503, {"error": "The detector is being started."}, "The detector is being started."),
        (503, None, "Look first whether the photo is in your history already"),
        (504, None, "Look first whether the photo is in your history already"),
        (500, None, "Something broke on our side"),
        (429, {"error": "Other uploads are on their way."}, "Other uploads are on their way."),
        (413, {"error": "That file is larger."}, "That file is larger."),
        (413, None, "This file is too large; at most 15 MB are accepted."),
    ],
)
def test_what_the_web_server_answers_itself_takes_no_upload_away(
    browser: Browser, picture: Callable[..., str], status: int, response: dict[str, str] | None, sentence: str
) -> None:
    browser.open("/")
    choose(browser, picture())
    browser.script(ANSWERED, status, response, "5")
    browser.find(SUBMIT).click()
    assert browser.sees(sentence, "#upload-error")
    assert browser.sees("5 of 5 uploads left")
    assert browser.text(SUBMIT) == "Check this photo"


def touch(path: Path) -> None:
    """As if it was changed; by another second, which is what Chromium goes by."""
    os.utime(path, (0, 0))


@pytest.mark.parametrize("change", [touch, Path.unlink])
def test_a_file_that_is_not_as_it_was_chosen_is_no_fault_of_the_connection(
    browser: Browser, picture: Callable[..., str], change: Callable[[Path], object]
) -> None:
    """Cropped and saved in between, for example: browsers do not send it, and never will."""
    browser.open("/")
    path = picture()
    choose(browser, path)
    assert browser.sees("holiday.jpg · 320 × 240 px")
    change(Path(path))
    for _ in range(2):
        browser.find(SUBMIT).click()
        assert browser.sees("changed, moved or deleted after it was chosen", "#upload-error")
    assert browser.text(SUBMIT) == "Check this photo"
    picture()
    choose(browser, path)
    browser.wait(lambda: not browser.text("#upload-error"))
    browser.find(SUBMIT).click()
    assert browser.is_at("/detections/")


def test_nothing_chosen_is_said_in_place(browser: Browser) -> None:
    browser.open("/")
    browser.script("document.querySelector('input[name=picture]').required = false")
    browser.find(SUBMIT).click()
    assert browser.sees("Choose a photo first.", "#upload-error")


def test_an_analysis_that_breaks_leads_to_a_page_without_a_verdict(
    browser: Browser, picture: Callable[..., str], predictor: FakePredictor
) -> None:
    predictor.error = RuntimeError("broken on purpose")
    browser.open("/")
    choose(browser, picture())
    browser.find(SUBMIT).click()
    assert browser.is_at("/detections/")
    assert browser.text("h1") == "The analysis failed"
    assert browser.all(".meter") == []
    assert "%" not in browser.text(".result__verdict")


def test_with_redis_down_the_page_says_that_uploads_are_paused(
    browser: Browser, counted: object, settings: Settings
) -> None:
    settings.CACHES = {**settings.CACHES, "ratelimit": {"BACKEND": "detector.ratelimits.NoSharedCache"}}
    browser.open("/")
    assert browser.sees("Uploads are paused for a moment")
    assert not browser.find(SUBMIT).is_enabled()


@pytest.mark.parametrize("scripts", [True, False], ids=["with JavaScript", "without JavaScript"])
def test_a_photo_that_is_not_to_be_kept_leaves_its_verdict_alone(
    browser: Browser, picture: Callable[..., str], scripts: bool
) -> None:
    browser.allow_scripts(scripts)
    browser.open("/")
    choose(browser, picture())
    browser.find("label[for=id_forget]").click()
    browser.find(SUBMIT).click()
    assert browser.is_at("/detections/")
    assert browser.text("h1") == "Fake"
    assert browser.sees("The photo was not kept, as its uploader chose.")
    assert browser.all("main img") == []
    assert not Detection.objects.get().has_picture


@pytest.mark.parametrize("value", ["40", None])
def test_with_forced_colours_the_progress_is_still_seen(browser: Browser, value: str | None) -> None:
    feature = {"name": "forced-colors", "value": "active"}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.open("/")
    browser.script("document.getElementById('upload-progress').hidden = false")
    change = "bar.value = arguments[0]" if value else "bar.removeAttribute('value')"
    browser.script(f"const bar = document.getElementById('upload-bar'); {change}", value)
    bar = browser.find("#upload-bar")
    browser.wait(lambda: len(colours(bar.screenshot_as_png)) > 1, "the bar has one colour only")


def colours(png: bytes) -> set[object]:
    """Those along the middle of a picture, without its ends."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    return {picture.getpixel((x, picture.height // 2)) for x in range(20, picture.width - 20)}
