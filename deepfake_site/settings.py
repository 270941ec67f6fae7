"""Settings of the site. Everything that differs between machines comes from the environment (see .env.example)."""

import contextlib
import importlib.util
import os
import re
import sys
import zoneinfo
from pathlib import Path
from typing import Any

import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured
from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.retry import Retry

BASE_DIR = Path(__file__).resolve().parent.parent

environ.Env.read_env(BASE_DIR / ".env")

# Every name that was asked for; a name that is only like one of them is a slip (detector.W002).
ENV_NAMES: list[str] = []
FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
ENGINES = ("django.db.backends.sqlite3", "django.db.backends.postgresql")
# A PostgreSQL whose machine or network is gone without a word: libpq waits for minutes to reach one, and for a quarter
# of an hour for an answer. A query may take longer than these seconds; the second one is in milliseconds.
PATIENCE_WITH_DATABASE = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
LOG_FORMATS = ("line", "json")


def env_text(name: str, default: str = "") -> str:
    """A text from the environment, as it is: django-environ takes a secret that begins with $ for another's name."""
    ENV_NAMES.append(name)
    return os.environ.get(name) or default


def env_list(name: str, default: str = "") -> list[str]:
    return [part.strip() for part in env_text(name, default).split(",") if part.strip()]


def env_flag(name: str, default: bool) -> bool:
    text = env_text(name, str(default))
    if text.lower() not in FLAGS:
        raise ImproperlyConfigured(f"{name} is {text!r}; it has to be true or false.")
    return FLAGS[text.lower()]


def env_number(name: str, default: float, cast: type[int] | type[float] = int) -> Any:
    text = env_text(name, str(default))
    try:
        return cast(text)
    except ValueError as error:
        kind = "a whole number" if cast is int else "a number"
        raise ImproperlyConfigured(f"{name} is {text!r}; it has to be {kind}, such as {default}.") from error


def env_optional_number(name: str) -> float | None:
    """A number from the environment; None where there is none."""
    return float(env_number(name, 0.0, float)) if env_text(name) else None


def env_path(name: str, default: str) -> Path:
    """A path from the environment; a relative one starts at the project root, whatever the working directory."""
    return BASE_DIR / env_text(name, default)


def env_database() -> dict[str, Any]:
    address = env_text("DATABASE_URL", "sqlite:///db.sqlite3")
    config: dict[str, Any] = {}
    # Without the third slash django-environ takes another file, or a database in memory, empty in each process.
    if not address.startswith("sqlite:") or re.fullmatch("sqlite://(/[^?]+.*|:memory:)", address):
        with contextlib.suppress(ValueError):
            config = environ.Env.db_url_config(address)
    if config.get("ENGINE") not in ENGINES:
        # Without its value, which may hold a password.
        raise ImproperlyConfigured(
            "DATABASE_URL has to look like sqlite:///db.sqlite3 or postgres://user:password@host:5432/name; in the "
            "password write / as %2F and ? as %3F."
        )
    if config["ENGINE"] == "django.db.backends.sqlite3":
        if config["NAME"] != ":memory:":
            config["NAME"] = BASE_DIR / config["NAME"]
        config["OPTIONS"] = {
            # Writers of other processes are waited for, in seconds, instead of "database is locked".
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        }
    else:
        config["CONN_HEALTH_CHECKS"] = True
        config["OPTIONS"] = {**PATIENCE_WITH_DATABASE, **config.get("OPTIONS", {})}
    # Seconds that a thread keeps its connection. SQLite, too: opening one costs more than most queries, and whoever
    # closes the last one has to empty the write-ahead log.
    config.setdefault("CONN_MAX_AGE", 60)
    return config


def env_redis_url() -> str:
    url = env_text("REDIS_URL")
    try:
        if url:
            ConnectionPool.from_url(url)  # connects when it is used, and never is
    except ValueError:
        # Without its value, too.
        raise ImproperlyConfigured(
            "REDIS_URL has to look like redis://127.0.0.1:6379/0, rediss://user:password@host:6379/0 or "
            "unix:///path/of/the.sock."
        ) from None
    return url


def redis_cache(url: str, *, ignore_exceptions: bool) -> dict[str, Any]:
    return {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": url,
        "KEY_PREFIX": "deepfake",
        "OPTIONS": {
            "IGNORE_EXCEPTIONS": ignore_exceptions,
            "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
            "SOCKET_CONNECT_TIMEOUT": 0.5,
            "SOCKET_TIMEOUT": 0.5,
            # One fresh attempt, so that a restarted Redis is not noticed; redis-py's own default waits for seconds
            # between three attempts, which would hold a worker thread while Redis is down.
            "CONNECTION_POOL_KWARGS": {"retry": Retry(NoBackoff(), 1)},
        },
    }


def redis_caches(url: str) -> dict[str, Any]:
    return {
        # Losing a cached value costs time only, so a Redis that is down is ignored here ...
        "default": redis_cache(url, ignore_exceptions=True),
        # ... but an upload that cannot be counted must not be let through.
        "ratelimit": redis_cache(url, ignore_exceptions=False),
    }


# Core

DEBUG = env_flag("DEBUG", False)
# Only a development server may run with a key that everybody knows.
SECRET_KEY = env_text("SECRET_KEY") or ("development-only" if DEBUG else "")
if not SECRET_KEY:
    raise ImproperlyConfigured(
        "SECRET_KEY is not set. It has to be a long random secret, in the environment or in .env; `make run` makes one."
    )
ALLOWED_HOSTS = env_list("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = env_list("CSRF_TRUSTED_ORIGINS")

ROOT_URLCONF = "deepfake_site.urls"
WSGI_APPLICATION = "deepfake_site.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "detector",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "csp",
    "django_ratelimit",
    "axes",
]

MIDDLEWARE = [
    "detector.request_ids.RequestIdMiddleware",
    "detector.metrics.MetricsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "detector.visitors.VisitorMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "detector.staff_sessions.StaffSessionMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
    "detector.middleware.MethodMiddleware",
    "detector.middleware.LimiterMiddleware",
    "detector.middleware.AdminValuesMiddleware",
    "detector.middleware.BodyLimitMiddleware",
    "detector.outages.OutageMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "detector.context_processors.site",
            ],
        },
    },
]

# Storage

DATABASES = {"default": env_database()}

REDIS_URL = env_redis_url()
if REDIS_URL:
    CACHES = redis_caches(REDIS_URL)
else:
    CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "ratelimit": {"BACKEND": "detector.ratelimits.NoSharedCache"},
    }
    # Says that NoSharedCache is unsupported; detector.W001 says what to do about it.
    SILENCED_SYSTEM_CHECKS = ["django_ratelimit.W001"]

MEDIA_ROOT = env_path("MEDIA_ROOT", "media")
# nginx sends the thumbnails, once a view has said who may see them (see detector/media.py and deploy/).
MEDIA_X_ACCEL = env_flag("MEDIA_X_ACCEL", False)
STATIC_URL = "static/"
STATIC_ROOT = env_path("STATIC_ROOT", "staticfiles")
# Hashed names need a `collectstatic` first, which neither the development server nor a test run has done.
HASHED_STATIC_FILES = not DEBUG and "pytest" not in sys.modules
# Without them the files are served straight from the folders they are edited in.
WHITENOISE_USE_FINDERS = not HASHED_STATIC_FILES
WHITENOISE_AUTOREFRESH = not HASHED_STATIC_FILES
STORAGES: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if HASHED_STATIC_FILES
        else "django.contrib.staticfiles.storage.StaticFilesStorage",
        # For everybody, nginx included; FILE_UPLOAD_PERMISSIONS, which would count else, are those of pictures.
        "OPTIONS": {"file_permissions_mode": 0o644, "directory_permissions_mode": 0o755},
    },
}

# Pictures in S3-compatible storage instead of MEDIA_ROOT
MEDIA_S3_BUCKET = env_text("MEDIA_S3_BUCKET")
if MEDIA_S3_BUCKET:
    if not all(importlib.util.find_spec(name) for name in ("boto3", "storages")):
        raise ImproperlyConfigured("MEDIA_S3_BUCKET needs the packages of requirements-s3.txt: run `make s3`.")
    if MEDIA_X_ACCEL:
        raise ImproperlyConfigured("MEDIA_X_ACCEL is for pictures on disk; with MEDIA_S3_BUCKET it has to be false.")
    MEDIA_S3_ENDPOINT = env_text("MEDIA_S3_ENDPOINT")
    if MEDIA_S3_ENDPOINT and not re.match("https?://[^/]", MEDIA_S3_ENDPOINT):
        raise ImproperlyConfigured(
            f"MEDIA_S3_ENDPOINT is {MEDIA_S3_ENDPOINT!r}; it has to be an address such as https://minio.example.org."
        )
    STORAGES["default"] = {
        "BACKEND": "detector.storages.PictureStorage",
        "OPTIONS": {
            "bucket_name": MEDIA_S3_BUCKET,
            "endpoint_url": MEDIA_S3_ENDPOINT or None,
            "region_name": env_text("MEDIA_S3_REGION") or None,
            # Without them boto3 looks where it always does: AWS_* variables, ~/.aws, the machine's role.
            "access_key": env_text("MEDIA_S3_ACCESS_KEY") or None,
            "secret_key": env_text("MEDIA_S3_SECRET_KEY") or None,
        },
    }

# Language and time

LANGUAGE_CODE = "en-us"
FORMAT_MODULE_PATH = "deepfake_site.formats"
TIME_ZONE = env_text("TIME_ZONE", "UTC")
try:
    zoneinfo.ZoneInfo(TIME_ZONE)
except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
    raise ImproperlyConfigured(f"TIME_ZONE is {TIME_ZONE!r}; it has to be a name such as Europe/Berlin.") from error
USE_TZ = True

# Accounts

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "detector:upload"
LOGOUT_REDIRECT_URL = "detector:upload"
SIGNUP_ENABLED = env_flag("SIGNUP_ENABLED", True)
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]

AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",  # refuses who has failed too often, before a password is looked at
    "django.contrib.auth.backends.ModelBackend",
]
SESSION_COOKIE_AGE = 14 * 24 * 3600
STAFF_SESSION_AGE_S = 12 * 3600  # from the log-in on: detector/staff_sessions.py

# What throttles log-ins: detector/throttling.py.
LOGIN_FAILURE_RATE = env_text("LOGIN_FAILURE_RATE", "5/15m")
LOGIN_NAME_RATE = env_text("LOGIN_NAME_RATE", "30/h")
LOGIN_RATE = env_text("LOGIN_RATE", "60/h")
SIGNUP_RATE = env_text("SIGNUP_RATE", "10/h")
AXES_HANDLER = "detector.throttling.LoginLimiter"
AXES_CACHE = "ratelimit"
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_FAILURE_LIMIT = "detector.throttling.failure_limit"
AXES_COOLOFF_TIME = "detector.throttling.cool_off"
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
# Neither its cache keys nor its log lines hold an address or a name as it was sent.
AXES_CLIENT_IP_CALLABLE = "detector.throttling.network_pseudonym"
AXES_USERNAME_CALLABLE = "detector.throttling.name_pseudonym"
AXES_VERBOSE = False
AXES_LOCKOUT_CALLABLE = "detector.throttling.locked_out"
# Its tables stay empty: everything is counted in Redis.
AXES_ENABLE_ADMIN = False

# Detector

MODEL_DIR = env_path("MODEL_DIR", "models/mobilenet_v2")
ACTIVE_MODEL = env_text("ACTIVE_MODEL")
if ACTIVE_MODEL:
    if Path(ACTIVE_MODEL).name != ACTIVE_MODEL:
        raise ImproperlyConfigured(
            f"ACTIVE_MODEL is {ACTIVE_MODEL!r}; it has to be the name of a folder beside MODEL_DIR."
        )
    MODEL_DIR = MODEL_DIR.parent / ACTIVE_MODEL
PREDICTOR_THREADS = env_number("PREDICTOR_THREADS", 1)
REAL_THRESHOLD = env_number("REAL_THRESHOLD", 0.7, float)
# None: what was fitted for the model in use.
UNCERTAIN_ABOVE = env_optional_number("UNCERTAIN_ABOVE")
UNCERTAIN_UP_TO = env_optional_number("UNCERTAIN_UP_TO")
FAKE_PRIOR = env_optional_number("FAKE_PRIOR")
MAX_FACES = env_number("MAX_FACES", 20)
WEB_CONCURRENCY = env_number("WEB_CONCURRENCY", 2)
DETECTIONS_AT_ONCE = env_number("DETECTIONS_AT_ONCE", 2)
DETECTIONS_WAITING = env_number("DETECTIONS_WAITING", 14)
# Threads of each process: those that look at pictures or wait to, and two for pages and for saying 503; not fewer where
# few may wait, since each slow client takes one until it is cut off.
SERVER_THREADS = max(18, DETECTIONS_AT_ONCE + DETECTIONS_WAITING + 2)
# Connections that wait in the kernel for a thread, of all processes together.
SERVER_BACKLOG = 256
MAX_UPLOAD_BYTES = env_number("MAX_UPLOAD_BYTES", 15 * 1024 * 1024)
MAX_UPLOAD_PIXELS = env_number("MAX_UPLOAD_PIXELS", 50_000_000)
RETENTION_DAYS = env_number("RETENTION_DAYS", 0)
REVIEWERS_NEEDED = env_number("REVIEWERS_NEEDED", 1)
REVIEW_BLIND = env_flag("REVIEW_BLIND", False)
REVIEW_SAMPLE_PERCENT = env_number("REVIEW_SAMPLE_PERCENT", 5.0, float)
HISTORY_PAGE_SIZE = env_number("HISTORY_PAGE_SIZE", 20)
# Everything in a request that is not a file: a form's fields, in bytes.
DATA_UPLOAD_MAX_MEMORY_SIZE = 256 * 1024
DATA_UPLOAD_MAX_NUMBER_FIELDS = 200
DATA_UPLOAD_MAX_NUMBER_FILES = 1
# An upload is decoded from memory as a whole, so it never goes through a temporary file (and needs no disk for one).
FILE_UPLOAD_MAX_MEMORY_SIZE = MAX_UPLOAD_BYTES + DATA_UPLOAD_MAX_MEMORY_SIZE
# With X-Accel nginx has to read pictures, as a member of the server's group.
FILE_UPLOAD_PERMISSIONS = 0o640 if MEDIA_X_ACCEL else 0o600
FILE_UPLOAD_DIRECTORY_PERMISSIONS = 0o750 if MEDIA_X_ACCEL else 0o700

UPLOAD_RATE = env_text("UPLOAD_RATE", "5/m")
PICTURE_RATE = env_text("PICTURE_RATE", "120/m")
APPEAL_RATE = env_text("APPEAL_RATE", "10/d")
RATELIMIT_USE_CACHE = "ratelimit"
# How many proxies stand in front and append to X-Forwarded-For. With 0 the header is not believed at all.
TRUSTED_PROXY_COUNT = env_number("TRUSTED_PROXY_COUNT", 0)

# Security

HTTPS = env_flag("HTTPS", False)
SECURE_SSL_REDIRECT = HTTPS
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = HTTPS
SECURE_HSTS_PRELOAD = HTTPS
if TRUSTED_PROXY_COUNT > 0:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_REFERRER_POLICY = "same-origin"
# The prefix has browsers refuse the cookie unless it is secure and of this very host: no subdomain can plant one.
SESSION_COOKIE_NAME = "__Host-sessionid" if HTTPS else "sessionid"
CSRF_COOKIE_NAME = "__Host-csrftoken" if HTTPS else "csrftoken"
OFFER_COOKIE_NAME = "__Host-visitor" if HTTPS else "visitor"
SESSION_COOKIE_SECURE = HTTPS
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SECURE = HTTPS
CSRF_COOKIE_HTTPONLY = True
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "detector.views.csrf_failure"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        # The preview of a picture that is about to be sent is a blob: URL.
        "img-src": [SELF, "blob:", "data:"],
        "object-src": [NONE],
        "base-uri": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}

# Watching

# What has to be sent as "Authorization: Bearer ..." to read /metrics. Without one that page does not exist.
METRICS_TOKEN = env_text("METRICS_TOKEN")
READY_MIN_FREE_BYTES = env_number("READY_MIN_FREE_BYTES", 100 * 1024 * 1024)

# Logs go to standard error, for whatever runs the process to keep.

LOG_LEVEL = env_text("LOG_LEVEL", "INFO").upper()
if LOG_LEVEL not in LOG_LEVELS:
    raise ImproperlyConfigured(f"LOG_LEVEL is {LOG_LEVEL!r}; it has to be one of {', '.join(LOG_LEVELS)}.")
LOG_FORMAT = env_text("LOG_FORMAT", "line").lower()
if LOG_FORMAT not in LOG_FORMATS:
    raise ImproperlyConfigured(f"LOG_FORMAT is {LOG_FORMAT!r}; it has to be one of {', '.join(LOG_FORMATS)}.")
ACCESS_LOG = env_flag("ACCESS_LOG", False)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "request_id": {"()": "detector.logs.RequestIdFilter"},
        "level": {"()": "detector.logs.LevelFilter"},
        "refusal": {"()": "detector.logs.RefusalFilter"},
    },
    "formatters": {
        "line": {
            "()": "detector.logs.LineFormatter",
            "format": "{asctime} {levelname} {process:d} {request_id} {name}: {message}",
            "style": "{",
        },
        "json": {"()": "detector.logs.OneObjectFormatter"},
    },
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": LOG_FORMAT,
            "filters": ["request_id", "level", "refusal"],
        },
    },
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        "django": {"handlers": ["console"], "level": LOG_LEVEL, "propagate": False},
        "detector": {"handlers": ["console"], "level": LOG_LEVEL, "propagate": False},
        "gunicorn.error": {"handlers": ["console"], "level": "WARNING", "propagate": False},
        "gunicorn.access": {
            "handlers": ["console"],
            "level": "INFO" if ACCESS_LOG else "WARNING",
            "propagate": False,
        },
    },
}
