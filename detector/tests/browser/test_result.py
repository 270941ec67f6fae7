from itertools import combinations

import pytest
from django.utils import timezone

from detector.tests.browser.conftest import Browser
from detector.tests.factories import make_detection, make_face

pytestmark = [pytest.mark.alone, pytest.mark.redis]


@pytest.mark.parametrize("scripts", [True, False], ids=["with JavaScript", "without JavaScript"])
def test_boxes_and_heat_map_are_switched_on_and_off(browser: Browser, scripts: bool) -> None:
    detection = make_detection(0.9)
    browser.become_visitor()
    browser.allow_scripts(scripts)
    browser.open(detection.get_absolute_url())
    assert browser.is_shown(".evidence__boxes")
    assert not browser.is_shown(".evidence__heatmap")
    browser.find("label[for=show-heatmap]").click()
    assert browser.is_shown(".evidence__heatmap")
    browser.wait(lambda: browser.script("return document.querySelector('.evidence__heatmap').naturalWidth") > 0)
    browser.find("label[for=show-boxes]").click()
    assert not browser.is_shown(".evidence__boxes")


@pytest.mark.parametrize("width", [320, 1280])
def test_a_box_lies_on_its_face_at_any_width(browser: Browser, width: int) -> None:
    detection = make_detection(0.9)  # its face is at 100, 60 and has sides of 80 of 320 x 240 px
    browser.become_visitor()
    browser.resize(width)
    browser.open(detection.get_absolute_url())
    picture, box = browser.find(".evidence__picture").rect, browser.find(".box__line").rect
    scale = picture["width"] / 320
    assert picture["height"] == pytest.approx(240 * scale, abs=1)
    assert box["x"] - picture["x"] == pytest.approx(100 * scale, abs=2.5)
    assert box["y"] - picture["y"] == pytest.approx(60 * scale, abs=2.5)
    assert box["width"] == pytest.approx(80 * scale, abs=5)


def test_the_picture_stays_in_sight_but_never_lies_over_the_record(browser: Browser) -> None:
    browser.become_visitor()
    browser.resize(1280, 600)
    browser.open(make_detection(0.5).get_absolute_url())
    source = "return document.querySelector(arguments[0]).getBoundingClientRect()"
    tops = []
    for scrolled in range(0, browser.script("return document.documentElement.scrollHeight"), 40):
        browser.script("window.scrollTo({top: arguments[0], behavior: 'instant'})", scrolled)
        picture, record = (browser.script(source, selector) for selector in (".evidence", ".result__details"))
        assert picture["bottom"] <= record["top"], scrolled
        tops.append(picture["top"])
    assert tops.count(16) > 1, "it sticks for a while"


@pytest.mark.parametrize(
    ("fake_probability", "title", "sentence"),
    [
        (0.1, "Real", "a probability of 90.0 % of being real, which is above the 70 %"),
        (0.3, "Fake, but uncertain", "It takes more than 70 % to be called real"),
        (0.5, "Fake, but uncertain", "This result is uncertain."),
        (0.9, "Fake", "a probability of 10.0 % of being real. It takes more than 70 % to be called real"),
    ],
)
def test_the_verdict_is_said_in_words(browser: Browser, fake_probability: float, title: str, sentence: str) -> None:
    detection = make_detection(fake_probability)
    browser.become_visitor()
    browser.open(detection.get_absolute_url())
    assert browser.text("h1") == title
    assert sentence in browser.text(".result__verdict")
    assert ("This result is uncertain." in browser.text()) == ("uncertain" in title)
    assert browser.text(".meter").split() == ["70", "%", "Fake", "Real"]


@pytest.mark.parametrize("fake_probability", [0.0, 0.3, 0.95, 1.0])
def test_the_needle_stands_at_the_real_probability(browser: Browser, fake_probability: float) -> None:
    detection = make_detection(fake_probability)
    browser.become_visitor()
    browser.open(detection.get_absolute_url())
    scale, needle = browser.find(".meter__frame").rect, browser.find(".meter__needle").rect
    place = (needle["x"] + needle["width"] / 2 - scale["x"]) / scale["width"]
    assert place == pytest.approx(1 - fake_probability, abs=0.01)


# Left, top, right and bottom of each word under the scale, where the mark on the scale ends, and where all of it does.
UNDER_THE_SCALE = """
    const box = (selector) => document.querySelector(selector).getBoundingClientRect();
    const words = [...document.querySelectorAll(".meter__text")].map((element) => element.getBoundingClientRect());
    const edges = words.map((word) => [word.left, word.top, word.right, word.bottom]);
    return [edges, box(".meter__mark").bottom, box(".meter").bottom];
"""


@pytest.mark.parametrize("threshold", [0.05, 0.7, 0.9])
@pytest.mark.parametrize("width", [320, 360, 1280])
def test_the_words_under_the_scale_stay_apart(browser: Browser, width: int, threshold: float) -> None:
    detection = make_detection(0.5, threshold=threshold, uncertain_above=min(0.3, threshold))
    browser.become_visitor()
    browser.resize(width)
    browser.open(detection.get_absolute_url())
    for percent in (100, 150, 200):
        browser.enlarge_text(percent)
        words, mark_end, end = browser.script(UNDER_THE_SCALE)
        for one, other in combinations(words, 2):
            (left, top, right, bottom), (other_left, other_top, other_right, other_bottom) = one, other
            assert right <= other_left or other_right <= left or bottom <= other_top or other_bottom <= top, percent
        assert all(mark_end <= top and bottom <= end for _, top, _, bottom in words), percent


def test_every_face_is_listed_and_the_most_fake_one_decides(browser: Browser) -> None:
    detection = make_detection(0.95, 0.5, 0.05)
    browser.become_visitor()
    browser.open(detection.get_absolute_url())
    assert "3 faces were found; the most fake one decides." in browser.text()
    rows = [" ".join(row.text.replace("\N{NO-BREAK SPACE}", " ").split()) for row in browser.all(".faces tbody tr")]
    assert rows == ["1 decides Fake 5.0 %", "2 Fake, uncertain 50.0 %", "3 Real 95.0 %"]
    assert [number.text for number in browser.all(".box__number")] == ["1", "2", "3"]


@pytest.mark.parametrize("width", [320, 360, 414])
def test_the_table_of_faces_fits_a_phone_however_large_its_letters(browser: Browser, width: int) -> None:
    faces = [make_face(0.95).as_dict(), make_face(0.02, side=31).as_dict() | {"is_uncertain": True}]
    detection = make_detection(0.95, 0.02, faces=faces)
    browser.become_visitor()
    browser.resize(width)
    browser.open(detection.get_absolute_url())
    for percent in range(100, 201, 10):
        browser.enlarge_text(percent)
        right = browser.script("return document.querySelector('.faces__table').getBoundingClientRect().right")
        assert right <= width, percent
    heading = "return getComputedStyle(document.querySelector('.faces td.num'), '::before').content"
    assert browser.script(heading) == '"Real with "', "its column's heading is not to be seen then"


@pytest.mark.parametrize(("kind", "title"), [("no_face", "No face found"), ("failed", "The analysis failed")])
def test_without_a_verdict_there_is_no_probability(browser: Browser, kind: str, title: str) -> None:
    detection = make_detection(**{kind: True})
    browser.become_visitor()
    browser.open(detection.get_absolute_url())
    assert browser.text("h1") == title
    assert browser.all(".meter") == []
    assert browser.all(".evidence__boxes") == []
    assert "%" not in browser.text()


def test_the_record_tells_where_the_verdict_comes_from(browser: Browser) -> None:
    detection = make_detection(0.9)
    browser.become_visitor()
    browser.open(detection.get_absolute_url())
    record = browser.text(".record")
    for fact in (
        detection.sha256,
        detection.model_version,
        "holiday.jpg",
        "JPEG, 320 × 240 px",
        "6.0 ms",
        "network 3.0",
    ):
        assert fact in record


def test_the_hash_is_copied_with_one_click(browser: Browser) -> None:
    detection = make_detection()
    browser.become_visitor()
    permission = {"permission": {"name": "clipboard-write"}, "setting": "granted", "origin": browser.address}
    browser.driver.execute_cdp_cmd("Browser.setPermission", permission)
    browser.open(detection.get_absolute_url())
    browser.find("[data-copy]").click()
    assert browser.sees("Copied", "[data-copy]")


def test_deleting_asks_first_and_needs_no_javascript(browser: Browser) -> None:
    detection = make_detection()
    browser.become_visitor()
    browser.allow_scripts(False)
    browser.open(detection.get_absolute_url())
    assert not browser.is_shown(".button--danger")
    browser.find(".confirm:not(.confirm--appeal) summary").click()
    browser.find(".button--danger").click()
    assert browser.is_at("/history/")
    assert browser.sees("deleted", ".messages")
    browser.open(detection.get_absolute_url())
    assert browser.text("h1") == "Nothing here"


def test_the_uploader_objects_with_a_sentence(browser: Browser) -> None:
    detection = make_detection(0.9)
    browser.become_visitor()
    browser.open(detection.get_absolute_url())
    browser.find(".confirm--appeal summary").click()
    browser.find("#id_sentence").send_keys("It is me, at my sister's wedding.")
    browser.find(".confirm--appeal button").click()
    assert browser.sees("You object to this result")
    assert browser.sees("It is me, at my sister's wedding.", ".review")
    assert browser.all(".confirm--appeal") == []


# How far right of the objection's words the day of its date begins.
DISTANCE = """
    const line = document.querySelector(".review__title + .small");
    const range = document.createRange();
    const texts = document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
    while (!texts.nextNode().textContent.includes(arguments[0])) {}
    range.selectNodeContents(texts.currentNode);
    const words = range.getBoundingClientRect();
    range.setStart(line.querySelector("time").firstChild, 0);
    range.setEnd(line.querySelector("time").firstChild, 1);
    return range.getBoundingClientRect().left - words.right;
"""


@pytest.mark.parametrize("words", ["It is me", "\u05d6\u05d5 \u05d0\u05e0\u05d9", "It is me\u202e"])
def test_an_objection_in_any_script_leaves_its_date_alone(browser: Browser, words: str) -> None:
    detection = make_detection(0.9, appealed_at=timezone.now(), appeal_text=words)
    browser.become_visitor()
    browser.open(detection.get_absolute_url())
    assert browser.script(DISTANCE, words) >= 0


def test_an_objection_of_one_long_word_makes_no_page_wider(browser: Browser) -> None:
    detection = make_detection(0.9, appealed_at=timezone.now(), appeal_text=f"https://example.org/{'photo' * 20}.jpg")
    browser.become_visitor()
    browser.resize(360)
    browser.open(detection.get_absolute_url())
    assert browser.overflow_px() == 0


def test_a_refused_objection_is_seen_and_can_be_changed_at_once(browser: Browser) -> None:
    detection = make_detection(0.9)
    browser.become_visitor()
    browser.open(detection.get_absolute_url())
    browser.find(".confirm--appeal summary").click()
    browser.script("document.getElementById('id_sentence').maxLength = 1000")
    browser.find("#id_sentence").send_keys("x" * 501)
    browser.find(".confirm--appeal button").click()
    assert browser.sees("At most 500 characters, please.", "#appeal-error")
    is_in_sight = """
        const box = document.getElementById("appeal-error").getBoundingClientRect();
        return box.top >= 0 && box.bottom <= window.innerHeight;
    """
    browser.wait(lambda: browser.script(is_in_sight), "the sentence is out of sight")
    assert browser.focused == browser.find("#id_sentence")
