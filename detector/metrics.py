"""What Prometheus may count here, gathered over all processes of one server. Without METRICS_TOKEN nothing is counted.

prometheus_client itself and not django-prometheus: what matters are uploads, verdicts and stages, which only this code
knows; of the latter's wrapped databases, models and caches nothing would be used.
"""

import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

    from detector.models import Detection

# Seconds. A stage takes milliseconds, a whole request up to a few seconds when there is a queue.
STAGE_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
UPLOAD_VIEW = "detector:upload"
# What became of an upload, by the status that answered it.
UPLOAD_OUTCOMES = {
    201: "accepted",
    302: "accepted",
    400: "invalid",
    403: "forbidden",
    413: "too_large",
    429: "limited",
    500: "failed",
    503: "unavailable",
}


class Instruments:
    """Made on first use: the folder in which processes meet has to be known before, and many runs need none of it."""

    uploads: "Counter"
    verdicts: "Counter"
    analysis_errors: "Counter"
    stages: "Histogram"
    uploads_in_progress: "Gauge"
    queue: "Gauge"
    in_progress: "Gauge"
    limits: "Counter"
    requests: "Histogram"

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self.uploads = Counter("deepfake_uploads", "Uploads by what became of them.", ["outcome"])
        self.verdicts = Counter("deepfake_verdicts", "Detections that were stored.", ["verdict", "model_version"])
        self.analysis_errors = Counter("deepfake_analysis_errors", "Analyses that broke; no verdict.", ["code"])
        self.stages = Histogram(
            "deepfake_stage_seconds", "Time that one stage of a detection took.", ["stage"], buckets=STAGE_BUCKETS
        )
        self.uploads_in_progress = Gauge(
            "deepfake_uploads_in_progress", "Uploads without an answer yet.", multiprocess_mode="livesum"
        )
        self.queue = Gauge(
            "deepfake_queue",
            "Pictures that wait for their turn: uploads, and copies that are shown.",
            multiprocess_mode="livesum",
        )
        self.in_progress = Gauge(
            "deepfake_detections_in_progress", "Pictures that the model looks at.", multiprocess_mode="livesum"
        )
        self.limits = Counter("deepfake_limits_hit", "Requests refused because of a limit.", ["limit"])
        self.requests = Histogram(
            "deepfake_request_seconds",
            "Time until the answer, by view and status.",
            ["view", "method", "status"],
            buckets=REQUEST_BUCKETS,
        )


_making = threading.Lock()


@functools.cache
def _made() -> Instruments:
    return Instruments()


def _instruments() -> Instruments:
    """The same for all threads: prometheus_client refuses a second set, and `cache` alone would let two make one."""
    with _making:
        return _made()


def instruments() -> Instruments | None:
    return _instruments() if settings.METRICS_TOKEN else None


def detection_stored(detection: "Detection", *, store_s: float) -> None:
    if (counted := instruments()) is None:
        return
    counted.verdicts.labels(detection.verdict or "none", detection.model_version or "none").inc()
    if detection.error_code:
        counted.analysis_errors.labels(detection.error_code).inc()
    for stage, duration_ms in detection.timings_ms.items():
        if stage == "network" and not detection.faces:
            continue  # none ran: what stands there is the time that nothing took
        counted.stages.labels(stage).observe(duration_ms / 1000)
    counted.stages.labels("store").observe(store_s)


def waiting() -> AbstractContextManager[object]:
    """A picture waits for its turn until the end of the block."""
    counted = instruments()
    return nullcontext() if counted is None else counted.queue.track_inprogress()


@contextmanager
def in_progress() -> Iterator[None]:
    """The model looks at a picture until the end of the block."""
    counted = instruments()
    if counted is None:
        yield
        return
    with counted.in_progress.track_inprogress():
        yield


class MetricsMiddleware:
    """Times every request under the name of its view; the paths themselves are too many, and say who looked at what."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if (counted := instruments()) is None:
            return self.get_response(request)
        started = time.perf_counter()
        is_upload = request.method == "POST" and request.path_info == reverse(UPLOAD_VIEW)
        with counted.uploads_in_progress.track_inprogress() if is_upload else nullcontext():
            response = self.get_response(request)
        view = request.resolver_match.view_name if request.resolver_match else "none"
        method = request.method if request.method in {"GET", "HEAD", "POST"} else "other"
        counted.requests.labels(view, method, str(response.status_code)).observe(time.perf_counter() - started)
        if is_upload:
            counted.uploads.labels(UPLOAD_OUTCOMES.get(response.status_code, "other")).inc()
        if response.status_code == 429:
            counted.limits.labels(f"rate:{view}").inc()
        elif response.status_code == 413:
            counted.limits.labels("body_size").inc()
        return response


def exposition() -> tuple[bytes, str]:
    """The text for Prometheus, of all processes together, and its content type."""
    from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest, multiprocess

    _instruments()
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST
