"""How gunicorn serves this site. It reads this file from the folder it is started in; its command line wins."""

import contextlib
import ctypes
import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "deepfake_site.settings")

from django.conf import settings  # noqa: E402  (needs to know where the settings are)

from detector.logs import ACCESS_LINE  # noqa: E402

wsgi_app = "deepfake_site.wsgi:application"
worker_class = "detector.gunicorn_worker.Worker"
workers = settings.WEB_CONCURRENCY
# Beyond the threads, 110 connections of each process are kept open between requests.
threads = settings.SERVER_THREADS
worker_connections = threads + 110
backlog = settings.SERVER_BACKLOG
timeout = 60
# Seconds for which a connection is kept between requests. nginx lets go of it after one; without the others a process
# that gets no turn for so long on a busy machine would close it with the next request in it, and a form be a 502.
keepalive = 5
# A request in work gets this long to finish when the server is told to stop.
graceful_timeout = 10
control_socket_disable = True
# Whom to believe is for TRUSTED_PROXY_COUNT to say: by itself gunicorn takes scheme and path from headers that come
# from this machine, where a proxy passes on what anybody sent.
forwarded_allow_ips = ""
# Loaded once, with the model, and shared by the processes. Not on macOS, whose own libraries do not survive a fork.
preload_app = sys.platform.startswith("linux")

# The networks are made ready once as well, unless they have threads, which would not survive the fork.
shares_networks = preload_app and settings.PREDICTOR_THREADS == 1

# One memory arena of glibc's for all threads, instead of many in which decoding leaves holes; and what a picture of 12
# megapixels took is kept for the next one, because getting pages anew and having them cleared costs up to a tenth of an
# upload. The worker gives it back every few seconds. 32 MB is the most that glibc takes from an arena.
M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -8, -3, -1  # <malloc.h>
MEGABYTE = 1024 * 1024
with contextlib.suppress(AttributeError):  # another C library
    ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 32 * MEGABYTE)
    ctypes.CDLL(None).mallopt(M_TRIM_THRESHOLD, 16 * MEGABYTE)

logconfig_dict = settings.LOGGING
access_log_format = ACCESS_LINE

# The processes' metrics meet in files in this folder, so that any process can answer for all. It has to be known before
# prometheus_client is imported, which the first request does, and empty at the start.
METRICS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"


def on_starting(server: Any) -> None:
    if not settings.METRICS_TOKEN:
        os.environ.pop(METRICS_DIRECTORY, None)
        return
    directory = os.environ.get(METRICS_DIRECTORY)
    if directory:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        for name in os.listdir(directory):
            if name.endswith(".db"):
                os.unlink(os.path.join(directory, name))
    else:
        os.environ[METRICS_DIRECTORY] = server.metrics_directory = tempfile.mkdtemp(prefix="metrics-")


def when_ready(server: Any) -> None:
    """Called before the first process is forked off. `--workers` counts: it wins over WEB_CONCURRENCY."""
    if shares_networks:
        from detector.services import predictor_reserve

        predictor_reserve(processes=server.cfg.workers)


def pre_fork(server: Any, worker: Any) -> None:
    """Called before each process is forked off."""
    if not preload_app:
        return
    from detector.predictor import forget_predictors

    if not shares_networks:
        forget_predictors()
    gc.freeze()  # a collection would touch, and so copy, memory that the processes share


def child_exit(server: Any, worker: Any) -> None:
    """What a process that has ended counted stays; what it was doing at the time does not."""
    if METRICS_DIRECTORY in os.environ:
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(server: Any) -> None:
    if directory := getattr(server, "metrics_directory", None):
        shutil.rmtree(directory, ignore_errors=True)


def post_worker_init(worker: Any) -> None:
    """Called in each process once it is there, so also in the one that takes the place of one that was killed."""
    from detector import pending, services

    if not shares_networks:
        services.predictor_reserve(processes=worker.cfg.workers)
    pending.settle_from_time_to_time()
