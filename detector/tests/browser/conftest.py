"""One headless Chromium for the whole session, and what a test does with it in words."""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as site_settings
from django.contrib.auth.models import User
from django.test import Client
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, ChromeService, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from deepfake_site.settings import redis_cache
from detector.private_redis import PrivateRedis
from detector.tests.factories import VISITOR_KEY, FakePredictor
from detector.visitors import SESSION_FIELD

WAIT_S = 10
# Everything that axe can tell about WCAG 2.2 A and AA, and its own advice on top.
AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
CHROMIUM_ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",  # Chromium refuses to run as root with one, which is what a container does
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--lang=en-GB",
]


class Browser:
    """Chromium on the running site. `text`, `find` and the like wait until there is something to return."""

    def __init__(self, driver: Chrome, address: str) -> None:
        self.driver = driver
        self.address = address

    def reset(self) -> None:
        """As a new visitor with a window of 1280 x 900 px, JavaScript on and the light scheme."""
        self.driver.delete_all_cookies()
        self.allow_scripts(True)
        self.resize(1280)
        self.emulate("light")
        self.touch(False)
        self.driver.get("about:blank")
        self.complaints()

    def open(self, path: str) -> None:
        self.driver.get(self.address + path)

    @property
    def path(self) -> str:
        return self.driver.current_url.removeprefix(self.address)

    def wait(self, condition: Callable[[], Any], message: str = "") -> Any:
        def holds(driver: Chrome) -> Any:
            try:
                return condition()
            except WebDriverException as error:
                # Stale is what was found on a page that has gone since; Chromium has two ways to say so.
                if isinstance(error, StaleElementReferenceException) or "not belong to the document" in str(error):
                    return None
                raise

        return WebDriverWait(self.driver, WAIT_S, 0.05).until(holds, message)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def find(self, selector: str) -> WebElement:
        element: WebElement = self.wait(lambda: next(iter(self.all(selector)), None), f"no {selector} on {self.path}")
        return element

    def text(self, selector: str = "main") -> str:
        """What is to be read there, with ordinary spaces."""
        text: str = self.wait(lambda: [self.find(selector).text])[0]
        return text.replace("\N{NO-BREAK SPACE}", " ")

    def sees(self, sentence: str, selector: str = "body") -> bool:
        self.wait(lambda: sentence in self.text(selector), f"{sentence!r} does not appear")
        return True

    def is_at(self, start: str) -> bool:
        """Waits for the page to be there, with everything that it loads."""
        loaded = "return document.readyState === 'complete'"
        self.wait(lambda: self.path.startswith(start) and self.script(loaded), f"{start} was not reached")
        return True

    def press(self, *keys: str) -> None:
        """On the keyboard: whatever has the focus gets them."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def tab_to(self, selector: str, most: int = 40) -> WebElement:
        """Tabs on until the focus is there, as somebody without a mouse does."""
        for _ in range(most):
            self.press(Keys.TAB)
            if self.focused in self.all(selector):
                return self.focused
        raise AssertionError(f"Tab never reaches {selector} on {self.path}")

    @property
    def focused(self) -> WebElement:
        return self.driver.switch_to.active_element

    def script(self, source: str, *arguments: Any) -> Any:
        return self.driver.execute_script(source, *arguments)

    def allow_scripts(self, allowed: bool) -> None:
        """From the next page on; what a test runs itself still works."""
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not allowed})

    def resize(self, width: int, height: int = 900) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def enlarge_text(self, percent: int) -> None:
        """Of the page that is open."""
        self.script("document.documentElement.style.fontSize = arguments[0]", f"{percent}%")

    def touch(self, finger: bool) -> None:
        """A finger or a mouse."""
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": finger})

    def emulate(self, scheme: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def log_in(self, user: User) -> None:
        client = Client()
        client.force_login(user)
        self._take_session(client)

    def become_visitor(self) -> None:
        """The visitor whose detections `make_detection` makes."""
        client = Client()
        session = client.session
        session[SESSION_FIELD] = VISITOR_KEY
        session.save()
        self._take_session(client)

    def _take_session(self, client: Client) -> None:
        if not self.driver.current_url.startswith(self.address):
            self.open("/healthz")  # a cookie can only be set on its own site
        name = site_settings.SESSION_COOKIE_NAME
        self.driver.add_cookie({"name": name, "value": client.cookies[name].value})

    def is_shown(self, selector: str) -> bool:
        return self.find(selector).is_displayed()

    def overflow_px(self) -> int:
        """By how much the page is wider than the window."""
        return int(self.script("const e = document.documentElement; return e.scrollWidth - e.clientWidth"))

    def axe_findings(self, selector: str = "html") -> list[str]:
        """One line for each thing that axe objects to."""
        if not self.script("return typeof window.axe === 'object'"):
            self.script(axe_source())
        source = """
            const [selector, tags, done] = arguments;
            // Preloading style sheets makes inline ones of imported sheets, which the page's policy rightly blocks.
            axe.run(selector, {runOnly: tags, resultTypes: ["violations"], preload: false})
                .then((result) => done(result.violations), (error) => done([{id: String(error), nodes: []}]));
        """
        found = self.driver.execute_async_script(source, selector, AXE_TAGS)
        return [
            f"{violation['id']}: {node['html'][:160]} {node['any'][0]['message'] if node['any'] else ''}"
            for violation in found
            for node in violation["nodes"] or [{"html": "", "any": []}]
        ]

    def complaints(self) -> list[str]:
        """What the browser logged about the content security policy or from a script that broke."""
        return [
            entry["message"]
            for entry in self._log()
            if "Content Security Policy" in entry["message"] or entry["source"] in ("javascript", "security")
        ]

    def _log(self) -> list[dict[str, str]]:
        entries: list[dict[str, str]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return entries


def axe_source() -> str:
    path = distribution("selenium-axe-python").locate_file("selenium_axe_python/axe-core/axe.min.js")
    return Path(str(path)).read_text(encoding="utf-8")


def server_threads() -> list[str]:
    """The threads in which the live server still talks to somebody."""
    return [thread.name for thread in threading.enumerate() if "process_request_thread" in thread.name]


@pytest.fixture(scope="session")
def chromium(live_server: LiveServer) -> Iterator[Chrome]:
    """Ends before the server does: a connection that stays open outlives the database."""
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        for argument in [*CHROMIUM_ARGUMENTS, f"--user-data-dir={profile}"]:
            options.add_argument(argument)
        driver = Chrome(options=options, service=ChromeService(shutil.which("chromedriver")))
        yield driver
        driver.quit()
    deadline = time.monotonic() + WAIT_S
    while server_threads() and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.fixture
def counted(redis_server: PrivateRedis, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> PrivateRedis:
    """Uploads are counted in a real Redis, in minutes that begin with the test and so don't end in the middle of it."""
    start = int(time.time())

    def window(value: str, period: int) -> int:
        return start + period * ((int(time.time()) - start) // period + 1)

    monkeypatch.setattr("django_ratelimit.core._get_window", window)
    settings.CACHES = {
        "default": redis_cache(redis_server.url, ignore_exceptions=True),
        "ratelimit": redis_cache(redis_server.url, ignore_exceptions=False),
    }
    return redis_server


@pytest.fixture
def browser(
    chromium: Chrome, counted: PrivateRedis, predictor: FakePredictor, live_server: LiveServer
) -> Iterator[Browser]:
    """A new visitor. Afterwards no page may have broken the content security policy or a script."""
    browser = Browser(chromium, live_server.url)
    browser.reset()
    yield browser
    assert browser.complaints() == []
    browser.open("/healthz")  # nothing is asked of the server any more while the database is emptied
