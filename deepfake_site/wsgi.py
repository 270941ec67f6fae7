"""The entry point of gunicorn's workers. A worker without a sound model does not start."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "deepfake_site.settings")

django_application = get_wsgi_application()

from detector import services  # noqa: E402  (needs the apps that the line above loads)
from detector.checks import require_sound_setup  # noqa: E402
from detector.head_requests import BodilessHeads  # noqa: E402
from detector.whole_bodies import WholeBodies  # noqa: E402

application = BodilessHeads(WholeBodies(django_application))

require_sound_setup()
services.predictor_reserve()
