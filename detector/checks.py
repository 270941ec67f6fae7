"""System checks: a setting that cannot work stops the start with what was found and what is allowed.

The model is judged only by `check --deploy` and by each server process as it starts: `migrate`, `collectstatic` and
`createsuperuser` must work on a machine whose model is still on its way.
"""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured

from detector import services
from detector.exceptions import ModelUnavailable
from detector.ratelimits import parse_rate

AT_LEAST_ONE = (
    "DETECTIONS_AT_ONCE",
    "HISTORY_PAGE_SIZE",
    "MAX_FACES",
    "MAX_UPLOAD_BYTES",
    "MAX_UPLOAD_PIXELS",
    "PREDICTOR_THREADS",
    "REVIEWERS_NEEDED",
)
METRICS_TOKEN_LENGTH = 16


@register(Tags.models, deploy=True)
def check_model(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    try:
        services.active_predictor()
    except ModelUnavailable as error:
        return [
            Error(
                f"No verdict can be given: {error}",
                hint=f"MODEL_DIR is {settings.MODEL_DIR}. It needs the model.tflite and spec.json of one training run.",
                id="detector.E001",
            )
        ]
    return []


@register("detector")
def check_thresholds(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    errors: list[CheckMessage] = []
    if not 0 < settings.REAL_THRESHOLD < 1:
        errors.append(
            Error(
                f"REAL_THRESHOLD is {settings.REAL_THRESHOLD}.",
                hint="It is a probability between 0 and 1; a real probability above it is Real.",
                id="detector.E002",
            )
        )
        return errors
    above, up_to, prior = settings.UNCERTAIN_ABOVE, settings.UNCERTAIN_UP_TO, settings.FAKE_PRIOR
    if above is not None and not 0 <= above <= settings.REAL_THRESHOLD:
        errors.append(
            Error(
                f"UNCERTAIN_ABOVE is {above} with a REAL_THRESHOLD of {settings.REAL_THRESHOLD}.",
                hint="It lies between 0 and REAL_THRESHOLD; a Fake with a real probability above it is uncertain.",
                id="detector.E003",
            )
        )
    if up_to is not None and not settings.REAL_THRESHOLD <= up_to <= 1:
        errors.append(
            Error(
                f"UNCERTAIN_UP_TO is {up_to} with a REAL_THRESHOLD of {settings.REAL_THRESHOLD}.",
                hint="It lies between REAL_THRESHOLD and 1; a Real with a real probability up to it is uncertain.",
                id="detector.E014",
            )
        )
    if prior is not None and not 0.001 <= prior <= 0.999:
        errors.append(
            Error(
                f"FAKE_PRIOR is {prior}.",
                hint="It is the share of fakes among the uploads, from 0.001 to 0.999; empty for the model's own.",
                id="detector.E015",
            )
        )
    return errors


@register("detector")
def check_rates(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    errors: list[CheckMessage] = []
    for name in ("UPLOAD_RATE", "APPEAL_RATE", "LOGIN_FAILURE_RATE", "LOGIN_NAME_RATE", "LOGIN_RATE", "SIGNUP_RATE"):
        try:
            parse_rate(getattr(settings, name))
        except ValueError:
            errors.append(
                Error(
                    f"{name} is {getattr(settings, name)!r}.",
                    hint="Write a number, a slash and a period: 5/m, 100/h, 20/30s.",
                    id="detector.E004",
                )
            )
    return errors


@register("detector")
def check_numbers(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    errors: list[CheckMessage] = [
        Error(f"{name} is {getattr(settings, name)}.", hint="It has to be 1 or more.", id="detector.E005")
        for name in AT_LEAST_ONE
        if getattr(settings, name) < 1
    ]
    if settings.TRUSTED_PROXY_COUNT < 0:
        errors.append(
            Error(
                f"TRUSTED_PROXY_COUNT is {settings.TRUSTED_PROXY_COUNT}.",
                hint="It is the number of proxies in front of this server; 0 where there is none.",
                id="detector.E006",
            )
        )
    if settings.DETECTIONS_WAITING < 0:
        errors.append(
            Error(
                f"DETECTIONS_WAITING is {settings.DETECTIONS_WAITING}.",
                hint="It is a number of pictures; 0 refuses whatever cannot be looked at at once.",
                id="detector.E009",
            )
        )
    if settings.RETENTION_DAYS < 0:
        errors.append(
            Error(
                f"RETENTION_DAYS is {settings.RETENTION_DAYS}.",
                hint="It is a number of days; 0 keeps pictures until somebody deletes them.",
                id="detector.E008",
            )
        )
    if not 0 <= settings.REVIEW_SAMPLE_PERCENT <= 100:
        errors.append(
            Error(
                f"REVIEW_SAMPLE_PERCENT is {settings.REVIEW_SAMPLE_PERCENT}.",
                hint="It is a share in percent, from 0 to 100.",
                id="detector.E007",
            )
        )
    return errors


@register("detector")
def check_watching(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    errors: list[CheckMessage] = []
    if 0 < len(settings.METRICS_TOKEN) < METRICS_TOKEN_LENGTH:
        errors.append(
            Error(
                f"METRICS_TOKEN is too short: {len(settings.METRICS_TOKEN)} characters.",
                hint=f"It is a random secret of at least {METRICS_TOKEN_LENGTH}; empty switches /metrics off.",
                id="detector.E010",
            )
        )
    if settings.READY_MIN_FREE_BYTES < 0:
        errors.append(
            Error(
                f"READY_MIN_FREE_BYTES is {settings.READY_MIN_FREE_BYTES}.",
                hint="It is a number of bytes; 0 asks only whether something can be written.",
                id="detector.E011",
            )
        )
    return errors


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


def require_sound_setup() -> None:
    """Refuses to serve with a broken model or impossible settings.

    Raises:
        ImproperlyConfigured: With the sentences of every check that failed.
    """
    checks = (check_model, check_thresholds, check_rates, check_numbers, check_watching)
    problems = [problem for check in checks for problem in check(None)]
    if problems:
        raise ImproperlyConfigured("\n".join(f"{problem.id}: {problem.msg} {problem.hint}" for problem in problems))
