"""Gunicorn as a child of `manage.py serve`. On Linux it is forked off, with all that serve has loaded and checked.

A second interpreter would load the same libraries and the same model again: half of the time until the first answer,
and a fifth of the memory. For the same reason serve loads all of the application, though it answers no request: a
process that loads anything after it was forked off writes on pages that it had in common with the others.
"""

import contextlib
import gc
import importlib
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from multiprocessing.process import BaseProcess

from detector.private_redis import dies_with_parent

FORKS = sys.platform.startswith("linux")  # macOS's own libraries do not survive a fork


def load_application() -> None:
    """Loads what the processes that will be forked off need. REDIS_URL need not be known yet."""
    if FORKS:
        importlib.import_module("deepfake_site.wsgi")
        importlib.import_module("gunicorn.app.wsgiapp")
        importlib.import_module("detector.gunicorn_worker")


def start_gunicorn(
    arguments: Iterable[str],
    *,
    listener: socket.socket,
    environment: dict[str, str],
    stop_signals: Iterable[signal.Signals],
) -> BaseProcess:
    """Returns the running process; what it inherits is this process as it is.

    Args:
        arguments: Gunicorn's command line.
        listener: Where it answers.
        environment: What to add to the environment; a REDIS_URL counts although the settings were read without it.
        stop_signals: Those that this process handles and gunicorn handles in its own way.
    """
    by_fork, anew = multiprocessing.get_context("fork"), multiprocessing.get_context("spawn")
    process: BaseProcess = (by_fork.Process if FORKS else anew.Process)(
        target=_run, args=(list(arguments), listener, environment, dies_with_parent(), list(stop_signals))
    )
    gc.freeze()  # a collection would touch, and so copy, memory that the processes share
    # A signal must not meet this process's handlers in the child: it waits until the child has its own.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return process


def _run(
    arguments: list[str],
    listener: socket.socket,
    environment: dict[str, str],
    die_with_parent: Callable[[], None] | None,
    stop_signals: list[signal.Signals],
) -> None:
    # A session of its own: a Ctrl-C in the terminal reaches the parent alone, which passes it on: one way to stop.
    os.setsid()
    if die_with_parent:
        die_with_parent()
    for number in stop_signals:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stop_signals)
    os.environ.update(environment)
    if url := environment.get("REDIS_URL"):
        _use_redis(url)
    sys.argv = ["gunicorn", f"--bind=fd://{listener.fileno()}", *arguments]
    from gunicorn.app.wsgiapp import run

    run()


def _use_redis(url: str) -> None:
    """Has the caches of this process be what they are when the settings find that REDIS_URL."""
    from django.conf import settings
    from django.core.cache import caches

    from deepfake_site.settings import redis_caches

    settings.REDIS_URL = url
    settings.CACHES.update(redis_caches(url))  # in place: `caches` keeps this very dictionary
    for alias in settings.CACHES:
        with contextlib.suppress(AttributeError):  # it has not been used
            del caches[alias]
