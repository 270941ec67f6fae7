import pytest
import skimage.data
from django.conf import settings as site_settings
from PIL import Image

from detector import services
from detector.models import Detection
from detector.predictor import get_predictor
from detector.templatetags.display import percent
from detector.tests.browser.conftest import Browser

pytestmark = [pytest.mark.alone, pytest.mark.redis, pytest.mark.model]


def test_a_portrait_goes_all_the_way_through_the_model_that_ships(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = get_predictor(site_settings.MODEL_DIR)
    monkeypatch.setattr(services, "active_predictor", lambda: predictor)
    path = tmp_path_factory.mktemp("pictures") / "portrait.jpg"
    Image.fromarray(skimage.data.astronaut()).save(path, quality=92)  # type: ignore[no-untyped-call]
    browser.open("/")
    browser.find("input[name=picture]").send_keys(str(path))
    browser.find("#upload-submit").click()
    assert browser.is_at("/detections/")
    detection = Detection.objects.get()
    assert detection.model_version == predictor.version
    assert browser.text("h1").split(",")[0] == detection.get_verdict_display()
    # However sure a model is of this portrait: in words at the very ends.
    assert browser.sees(f"a probability of {percent(detection.real_probability)}".replace("\N{NO-BREAK SPACE}", " "))
    assert len(browser.all(".box")) == len(detection.faces) >= 1
    # The astronaut's face: right of the middle of the left half, in the upper third of 512 x 512 px.
    x, y, width, height = detection.faces[0]["bbox"]
    assert 170 < x + width / 2 < 280
    assert 60 < y + height / 2 < 180
