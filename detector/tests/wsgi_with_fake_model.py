"""What gunicorn runs in the tests of several processes: the site as it is, with a stand-in for the model."""

import django

django.setup()

from detector import services  # noqa: E402
from detector.tests.factories import FakePredictor  # noqa: E402

services.active_predictor = lambda: FakePredictor(0.9)  # type: ignore[assignment, return-value]

# Last, because it refuses to start without a sound model.
from deepfake_site.wsgi import application  # noqa: E402

__all__ = ["application"]
