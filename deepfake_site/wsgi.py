"""The entry point of gunicorn's workers. A worker without a sound model does not start."""

import os

from django.core.wsgi import get_wsgi_application
from django.template.loader import get_template
from django.urls import get_resolver

from detector.charsets import Utf8Requests
from detector.head_requests import BodilessHeads
from detector.whole_bodies import WholeBodies

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "deepfake_site.settings")

django_application = get_wsgi_application()

from detector.checks import require_sound_setup  # noqa: E402  (its models need the apps that the line above loads)

application = BodilessHeads(WholeBodies(Utf8Requests(django_application)))

require_sound_setup()
# What the first request would load; processes that are forked off have it in common, and nobody waits for it.
get_resolver().url_patterns  # noqa: B018  (reading it imports the views)
for name in ("detector/upload.html", "detector/detection.html"):
    get_template(name)
