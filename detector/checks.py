"""System checks: a setting that cannot work stops the start with what was found and what is allowed.

The model is judged only by `check --deploy` and by each server process as it starts: `migrate`, `collectstatic` and
`createsuperuser` must work on a machine whose model is still on its way.
"""

import os
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from PIL import Image

from detector import services
from detector.exceptions import ModelUnavailable
from detector.ratelimits import MOST_DAYS, parse_rate

AT_LEAST_ONE = (
    "DETECTIONS_AT_ONCE",
    "HISTORY_PAGE_SIZE",
    "MAX_FACES",
    "MAX_UPLOAD_BYTES",
    "MAX_UPLOAD_PIXELS",
    "PREDICTOR_THREADS",
    "REVIEWERS_NEEDED",
    "WEB_CONCURRENCY",
)
RATES = (
    "UPLOAD_RATE",
    "PICTURE_RATE",
    "APPEAL_RATE",
    "LOGIN_FAILURE_RATE",
    "LOGIN_NAME_RATE",
    "LOGIN_RATE",
    "SIGNUP_RATE",
)
MOST_THREADS = 2_147_483_647  # what an integer of the networks' library holds
METRICS_TOKEN_LENGTH = 16
MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # beyond that it takes any picture for a bomb
# How much of two names has to be the same, from 0 to 1, for one to be a slip for the other.
LEAST_LIKENESS = 0.85


@register(Tags.models, deploy=True)
def check_model(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    if settings.PREDICTOR_THREADS > MOST_THREADS:
        return []  # said by check_numbers; the networks' library would print the whole model
    try:
        services.active_predictor()
    except ModelUnavailable as error:
        return [
            Error(
                f"No verdict can be given: {error}",
                hint=f"MODEL_DIR is {settings.MODEL_DIR}. It needs the model.tflite and spec.json of one training run, "
                "and its second.tflite and third.tflite where there are such.",
                id="detector.E001",
            )
        ]
    return []


def errors_of(*problems: tuple[bool, str, str, str]) -> list[CheckMessage]:
    """An error for each problem that there is: whether, what was received, what is allowed, and the error's number."""
    return [
        Error(f"{what}.", hint=hint, id=f"detector.{number}") for is_there, what, hint, number in problems if is_there
    ]


@register("detector")
def check_thresholds(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    threshold = settings.REAL_THRESHOLD
    if not 0 < threshold < 1:
        hint = "It is a probability between 0 and 1; a real probability above it is Real."
        return errors_of((True, f"REAL_THRESHOLD is {threshold}", hint, "E002"))
    above, up_to, prior = settings.UNCERTAIN_ABOVE, settings.UNCERTAIN_UP_TO, settings.FAKE_PRIOR
    return errors_of(
        (
            above is not None and not 0 <= above <= threshold,
            f"UNCERTAIN_ABOVE is {above} with a REAL_THRESHOLD of {threshold}",
            "It lies between 0 and REAL_THRESHOLD; a Fake with a real probability above it is uncertain.",
            "E003",
        ),
        (
            up_to is not None and not threshold <= up_to <= 1,
            f"UNCERTAIN_UP_TO is {up_to} with a REAL_THRESHOLD of {threshold}",
            "It lies between REAL_THRESHOLD and 1; a Real with a real probability up to it is uncertain.",
            "E014",
        ),
        (
            prior is not None and not 0.001 <= prior <= 0.999,
            f"FAKE_PRIOR is {prior}",
            "It is the share of fakes among the uploads, from 0.001 to 0.999; empty for the model's own.",
            "E015",
        ),
    )


@register("detector")
def check_rates(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    rates = {name: getattr(settings, name) for name in RATES}
    hint = "Write a number, a slash and a period: 5/m, 100/h, 20/30s."
    return errors_of(*((not _is_rate(rate), f"{name} is {rate!r}", hint, "E004") for name, rate in rates.items()))


def _is_rate(rate: str) -> bool:
    try:
        parse_rate(rate)
    except ValueError:
        return False
    return True


@register("detector")
def check_numbers(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    numbers = {name: getattr(settings, name) for name in AT_LEAST_ONE}
    return errors_of(
        *((number < 1, f"{name} is {number}", "It has to be 1 or more.", "E005") for name, number in numbers.items()),
        (
            settings.PREDICTOR_THREADS > MOST_THREADS,
            f"PREDICTOR_THREADS is {settings.PREDICTOR_THREADS}",
            f"It is a number of threads, at most {MOST_THREADS}.",
            "E016",
        ),
        (
            settings.MAX_UPLOAD_PIXELS > MOST_PIXELS,
            f"MAX_UPLOAD_PIXELS is {settings.MAX_UPLOAD_PIXELS}",
            f"It is a number of pixels, at most {MOST_PIXELS}: Pillow opens no larger picture.",
            "E017",
        ),
        (
            settings.TRUSTED_PROXY_COUNT < 0,
            f"TRUSTED_PROXY_COUNT is {settings.TRUSTED_PROXY_COUNT}",
            "It is the number of proxies in front of this server; 0 where there is none.",
            "E006",
        ),
        (
            settings.DETECTIONS_WAITING < 0,
            f"DETECTIONS_WAITING is {settings.DETECTIONS_WAITING}",
            "It is a number of pictures; 0 refuses whatever cannot be looked at at once.",
            "E009",
        ),
        (
            not 0 <= settings.RETENTION_DAYS <= MOST_DAYS,
            f"RETENTION_DAYS is {settings.RETENTION_DAYS}",
            f"It is a number of days, at most {MOST_DAYS}; 0 keeps pictures until somebody deletes them.",
            "E008",
        ),
        (
            not 0 <= settings.REVIEW_SAMPLE_PERCENT <= 100,
            f"REVIEW_SAMPLE_PERCENT is {settings.REVIEW_SAMPLE_PERCENT}",
            "It is a share in percent, from 0 to 100.",
            "E007",
        ),
    )


@register("detector")
def check_watching(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    return errors_of(
        (
            0 < len(settings.METRICS_TOKEN) < METRICS_TOKEN_LENGTH,
            f"METRICS_TOKEN is too short: {len(settings.METRICS_TOKEN)} characters",
            f"It is a random secret of at least {METRICS_TOKEN_LENGTH}; empty switches /metrics off.",
            "E010",
        ),
        (
            settings.READY_MIN_FREE_BYTES < 0,
            f"READY_MIN_FREE_BYTES is {settings.READY_MIN_FREE_BYTES}",
            "It is a number of bytes; 0 asks only whether something can be written.",
            "E011",
        ),
    )


@register(Tags.caches, deploy=True)
def check_redis(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    if settings.REDIS_URL:
        return []
    return [
        Warning(
            "REDIS_URL is not set, so uploads, log-ins and sign-ups cannot be counted and are refused.",
            hint="Set it, for example to redis://127.0.0.1:6379/0. (`manage.py serve` starts a Redis of its own.)",
            id="detector.W001",
        )
    ]


@register(Tags.security, deploy=True)
def check_proxies(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    if not settings.HTTPS or settings.TRUSTED_PROXY_COUNT:
        return []
    return [
        Warning(
            "HTTPS is true and TRUSTED_PROXY_COUNT is 0: no proxy is believed to have been asked by https.",
            hint="Behind one, every page redirects to itself until it is counted; without one, gunicorn needs its own "
            "certificate.",
            id="detector.W003",
        )
    ]


@register("detector")
def check_names(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    others = [name for name in os.environ if name not in settings.ENV_NAMES]
    meant = {name: get_close_matches(name, settings.ENV_NAMES, n=1, cutoff=LEAST_LIKENESS) for name in others}
    return [
        Warning(f"{name} is no setting.", hint=f"Is {likeliest[0]} meant?", id="detector.W002")
        for name, likeliest in meant.items()
        if likeliest
    ]


def require_sound_setup() -> None:
    """Refuses to serve with a broken model or impossible settings.

    Raises:
        ImproperlyConfigured: With the sentences of every check that failed.
    """
    checks = (check_model, check_thresholds, check_rates, check_numbers, check_watching)
    problems = [problem for check in checks for problem in check(None)]
    if problems:
        raise ImproperlyConfigured("\n".join(f"{problem.id}: {problem.msg} {problem.hint}" for problem in problems))
