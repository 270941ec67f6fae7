"""The forms of accounts, which are longer than a phone's window."""

import pytest
from selenium.webdriver.common.by import By

from detector.tests.browser.conftest import Browser
from detector.tests.factories import make_user

pytestmark = [pytest.mark.alone, pytest.mark.redis]

PASSWORD = "correct horse battery"
WEAK = {"old_password": PASSWORD, "new_password1": "12", "new_password2": "12"}
IS_IN_SIGHT = """
    const box = arguments[0].getBoundingClientRect();
    return box.top >= 0 && box.bottom <= window.innerHeight;
"""


@pytest.mark.parametrize(
    ("page", "typed", "wrong", "sentence"),
    [
        ("signup", {"username": "grace", "password1": "123", "password2": "123"}, "password2", ".field__error"),
        ("password", {**WEAK, "old_password": "no"}, "old_password", ".field__error"),
        ("password", WEAK, "new_password2", ".field__error"),
        ("delete", {"password": "no"}, "password", ".field__error"),
        ("delete", {"password": PASSWORD}, "password", ".notice--error"),
    ],
)
def test_what_is_wrong_is_in_sight_and_has_the_focus(
    browser: Browser, page: str, typed: dict[str, str], wrong: str, sentence: str
) -> None:
    if page != "signup":
        browser.log_in(make_user("ada", is_superuser=True))
    browser.resize(360, 640)
    browser.open(f"/accounts/{page}/")
    for name, text in typed.items():
        browser.find(f"#id_{name}").send_keys(text)
    browser.find(".form-page form").find_element(By.CSS_SELECTOR, "button").click()
    told = browser.find(sentence)
    browser.wait(lambda: browser.script(IS_IN_SIGHT, told), "the sentence is out of sight")
    assert browser.focused == browser.find(f"#id_{wrong}")
