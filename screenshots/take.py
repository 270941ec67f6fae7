"""Takes the README's screenshots from the running application, with the model that ships and what it really says.

Run from the project's root with everything installed (`make test` does that): `.venv/bin/python screenshots/take.py`.
The photos are scikit-image's astronaut (NASA, public domain) and coffee (Rachel Michetti, CC0). Nothing of the
installation's own data is touched.
"""

import base64
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import skimage.data
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "screenshots"
START_S = 60
MOST_BYTES = 300_000
REVIEWER, PASSWORD = "vera", "only-for-screenshots"


@contextmanager
def running_application(data: Path) -> Iterator[str]:
    """The address of the application on an empty database."""
    environment = {
        **os.environ,
        "SECRET_KEY": "only-for-screenshots" * 3,
        "DEBUG": "false",
        "DATABASE_URL": f"sqlite:///{data / 'db.sqlite3'}",
        "MEDIA_ROOT": str(data / "media"),
        "REDIS_URL": "",
        "UPLOAD_RATE": "5/m",
        "REVIEW_SAMPLE_PERCENT": "100",  # so that there is a queue
        "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
    }
    manage = [sys.executable, str(ROOT / "manage.py")]
    account = ["createsuperuser", "--no-input", "--username", REVIEWER, "--email", "vera@example.org"]
    for command in (["migrate", "-v0"], ["collectstatic", "--no-input", "-v0"], account):
        subprocess.run([*manage, *command], env=environment, check=True, stdout=subprocess.DEVNULL)
    log = data / "serve.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [*manage, "serve", "--port", "0"],
            env={**environment, "PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=output,
        )
        try:
            yield announced_address(log, server)
        finally:
            server.terminate()
            server.wait(START_S)


def announced_address(log: Path, server: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        found = re.search(r"is at (http://\S+)", log.read_text())
        if found:
            return found[1]
        time.sleep(0.1)
    raise RuntimeError(f"The application did not start:\n{log.read_text()}")


class Camera:
    def __init__(self, driver: Chrome, address: str) -> None:
        self.driver = driver
        self.address = address

    def set_up(self, width: int, height: int, scheme: str = "light", scale: int = 1) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def open(self, path: str) -> None:
        self.driver.get(self.address + path)

    def click(self, selector: str) -> None:
        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def fill(self, selector: str, text: str) -> None:
        self.driver.find_element(By.CSS_SELECTOR, selector).send_keys(text)

    def wait_for(self, start: str) -> None:
        WebDriverWait(self.driver, START_S).until(lambda d: d.current_url.startswith(self.address + start))

    def upload(self, picture: Path) -> str:
        """The path of the result page."""
        self.open("/")
        self.fill("input[name=picture]", str(picture))
        self.click("#upload-submit")
        self.wait_for("/detections/")
        return self.driver.current_url.removeprefix(self.address)

    def shoot(self, name: str) -> None:
        """Writes the window's contents as WebP."""
        complete = "return document.readyState === 'complete' && [...document.images].every((image) => image.complete)"
        WebDriverWait(self.driver, START_S).until(lambda d: d.execute_script(complete))
        time.sleep(0.5)  # for the last paint, of which no event tells
        data = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
        path = FOLDER / f"{name}.webp"
        Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB").save(path, quality=86, method=6)
        if path.stat().st_size > MOST_BYTES:
            raise RuntimeError(
                f"{path.name} has {path.stat().st_size} bytes; at most {MOST_BYTES} belong in the project."
            )
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def pictures(folder: Path) -> dict[str, Path]:
    """The astronaut as it is, closer, with a crude face swap, and a picture without a face."""
    astronaut = Image.fromarray(skimage.data.astronaut())
    made = {
        "astronaut.jpg": astronaut,
        "swapped-face.jpg": with_swapped_face(astronaut),
        "portrait-crop.png": astronaut.crop((110, 0, 350, 300)).resize((720, 900)),
        "coffee.jpg": Image.fromarray(skimage.data.coffee()),
    }
    for name, picture in made.items():
        picture.save(folder / name, quality=90)
    return {name: folder / name for name in made}


def with_swapped_face(portrait: Image.Image) -> Image.Image:
    """The picture with its own face mirrored, smoothed, recoloured and laid over it, as simple swapping tools do."""
    box = (168, 60, 282, 192)
    face = ImageOps.mirror(portrait.crop(box)).filter(ImageFilter.GaussianBlur(1.6))
    face = ImageEnhance.Color(ImageEnhance.Brightness(face).enhance(1.12)).enhance(0.75)
    mask = Image.new("L", face.size)
    ImageDraw.Draw(mask).ellipse((14, 14, face.width - 14, face.height - 10), fill=255)
    swapped = portrait.copy()
    swapped.paste(face, box[:2], mask.filter(ImageFilter.GaussianBlur(4)))
    return swapped


def take_all(camera: Camera, photos: dict[str, Path]) -> None:
    camera.set_up(1280, 860)
    camera.open("/")
    camera.fill("input[name=picture]", str(photos["astronaut.jpg"]))
    camera.shoot("upload")
    for name in ("coffee.jpg", "portrait-crop.png", "swapped-face.jpg"):
        camera.upload(photos[name])
    result = camera.upload(photos["astronaut.jpg"])
    camera.set_up(1280, 1260)
    camera.open(result)
    camera.click("label[for=show-heatmap]")
    camera.shoot("result")
    camera.set_up(390, 1180, "dark", scale=2)
    camera.open(result)
    camera.shoot("result-dark-phone")
    camera.set_up(1280, 720)
    camera.open("/history/")
    camera.shoot("history")
    camera.set_up(1280, 1000)
    # Another person: at log-in an account takes over what its browser uploaded, and nobody reviews their own uploads.
    camera.driver.delete_all_cookies()
    camera.open("/admin/login/?next=/admin/detector/detection/")
    camera.fill("#id_username", REVIEWER)
    camera.fill("#id_password", PASSWORD)
    camera.click("[type=submit]")
    camera.wait_for("/admin/detector/detection/")
    camera.open(result.replace("/detections/", "/admin/detector/detection/") + "review/?queue=1")
    camera.click("label[for=show-heatmap]")
    camera.fill("#id_note", "NASA's official portrait, compared with the original.")
    camera.driver.execute_script("window.scrollTo(0, 0)")
    camera.shoot("admin-review")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="screenshots-", ignore_cleanup_errors=True) as directory:
        folder = Path(directory)
        options = ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"):
            options.add_argument(argument)
        options.add_argument(f"--user-data-dir={folder / 'profile'}")
        with running_application(folder) as address:
            driver = Chrome(options=options, service=ChromeService(shutil.which("chromedriver")))
            try:
                take_all(Camera(driver, address), pictures(folder))
            finally:
                driver.quit()


if __name__ == "__main__":
    main()
