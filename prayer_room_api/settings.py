"""Settings from environment variables; without any, all data lives in `var/`."""

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import django
import environ
from django.core.exceptions import ImproperlyConfigured

env = environ.Env()

BASE_DIR = Path(__file__).resolve().parent.parent
# Holds the database and the broker if there are no services; git ignores the default.
DATA_DIR = Path(env.str("DATA_DIR", default="") or BASE_DIR / "var").resolve()

# --- Security -------------------------------------------------------------------

DEBUG = env.bool("DEBUG", default=False)

SECRET_KEY = env.str("SECRET_KEY", default="")
if not SECRET_KEY:
    if not DEBUG:
        raise ImproperlyConfigured(
            "Set SECRET_KEY to a long random text (or DEBUG=on, on your own machine)."
        )
    SECRET_KEY = "django-insecure-for-debug-on-your-own-machine-only"  # noqa: S105 - no secret

# If empty, Django allows localhost when DEBUG is on, and nothing when it is off.
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=[])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

# How many proxies in front write X-Forwarded-For and -Proto: Dokku's nginx is one. With
# 0, neither header is trusted. If it is too high, anyone can choose the address they
# are throttled by, and claim to use https.
TRUSTED_PROXIES = env.int("TRUSTED_PROXIES", default=0)
if TRUSTED_PROXIES:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG
# Off by default, so that the API answers plain http on localhost without DEBUG too.
HTTPS_ONLY = env.bool("HTTPS_ONLY", default=False)
SECURE_SSL_REDIRECT = HTTPS_ONLY
SECURE_HSTS_SECONDS = 30 * 24 * 60 * 60 if HTTPS_ONLY else 0
# Subdomains and the preload list are for the domain's owner to decide.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

# The longest valid text, a response, has 4,000 characters: 48 KB when escaped.
DATA_UPLOAD_MAX_MEMORY_SIZE = 128 * 1024

AUTHENTICATION_BACKENDS = ["prayer_room_api.throttling.PasswordBackend"]

# --- The application ------------------------------------------------------------

INSTALLED_APPS = [
    "django_prodserver",
    "prodserver_celery5",
    "prayer_room_api",
    "django_celery_beat",
    "rest_framework",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "prayer_room_api.health.health_middleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "prayer_room_api.urls"
WSGI_APPLICATION = "prayer_room_api.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

LANGUAGE_CODE = "en-gb"
TIME_ZONE = env.str("TIME_ZONE", default="Europe/London")
USE_TZ = True
FORMAT_MODULE_PATH = "prayer_room_api.formats"

# Errors go to stderr without DEBUG too; Django would mail them, to nobody. The root
# logger is left alone: in a worker and in beat it is Celery's.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    # Celery's format, so that the lines of all processes look alike.
    "formatters": {
        "timed": {"format": "[{asctime}: {levelname}] {message}", "style": "{"}
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "timed"}},
    "loggers": {
        "django": {"handlers": ["console"], "level": "INFO", "propagate": False}
    },
}

# --- Database -------------------------------------------------------------------

if env.str("DATABASE_URL", default=""):
    DATABASES = {"default": env.db_url("DATABASE_URL")}
else:
    DATA_DIR.mkdir(parents=True, exist_ok=True)
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": DATA_DIR / "db.sqlite3",
        }
    }
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # Web, worker and beat write to one file, and wait for each other this long.
    DATABASES["default"].setdefault("OPTIONS", {}).setdefault("timeout", 20)
    if django.VERSION >= (5, 1):
        # A transaction that reads first and writes later is refused at once, timeout
        # or not, when another one wrote in between; so each takes its turn at BEGIN.
        DATABASES["default"]["OPTIONS"].setdefault("transaction_mode", "IMMEDIATE")

# The throttles count in it, and all web processes must share the counts. With the
# default of 300 entries, a few hundred addresses would push each other out.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "prayer_room_cache",
        "OPTIONS": {"MAX_ENTRIES": 10_000},
    }
}

# Not BigAutoField: older releases of django-celery-beat choose none, so they would seem
# to lack migrations. This project's own app does choose it.
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"

# --- Email ----------------------------------------------------------------------

# Without EMAIL_URL and DEBUG, use Django's own default, a mail server on this machine.
# If there is none, each email is logged as failed and tried again. The console would
# have it logged as sent, although nobody received it.
_email = env.email_url_config(
    env.str("EMAIL_URL", default="")
    or ("consolemail://" if DEBUG else "smtp://localhost:25")
)
_email["EMAIL_TIMEOUT"] = 20
if django.VERSION < (6, 1):
    vars().update({name: _email[name] for name in _email if name != "OPTIONS"})
else:
    # MAILERS replaces the EMAIL_ settings; each backend accepts only its own options.
    _options = {
        "smtp": {
            "host": "EMAIL_HOST",
            "port": "EMAIL_PORT",
            "username": "EMAIL_HOST_USER",
            "password": "EMAIL_HOST_PASSWORD",
            "use_tls": "EMAIL_USE_TLS",
            "use_ssl": "EMAIL_USE_SSL",
            "timeout": "EMAIL_TIMEOUT",
        },
        "filebased": {"file_path": "EMAIL_FILE_PATH"},
    }.get(_email["EMAIL_BACKEND"].split(".")[-2], {})
    MAILERS = {
        "default": {
            "BACKEND": _email["EMAIL_BACKEND"],
            "OPTIONS": {
                option: _email[name]
                for option, name in _options.items()
                if _email.get(name) is not None
            },
        }
    }
DEFAULT_FROM_EMAIL = env.str(
    "DEFAULT_FROM_EMAIL", default="Prayer room <prayer-room@localhost>"
)

# --- Static files ---------------------------------------------------------------

STATIC_URL = "static/"
STATIC_ROOT = Path(env.str("STATIC_ROOT", default="") or BASE_DIR / "staticfiles")
# WhiteNoise warns about a missing folder; if it cannot be created, let it warn.
with suppress(OSError):
    STATIC_ROOT.mkdir(parents=True, exist_ok=True)
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "prayer_room_api.storage.StaticStorage"},
}
# On a fresh clone nothing is collected yet: the admin's files are served straight from
# their packages.
WHITENOISE_USE_FINDERS = DEBUG or not (STATIC_ROOT / "staticfiles.json").exists()

# --- API ------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        # First, so that anonymous users get a 401 that says how to log in.
        "rest_framework.authentication.BasicAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAdminUser"],
    "DEFAULT_PARSER_CLASSES": ["prayer_room_api.parsers.BoundedJSONParser"],
    "EXCEPTION_HANDLER": "prayer_room_api.exceptions.handle",
    "DEFAULT_RENDERER_CLASSES": [
        "rest_framework.renderers.JSONRenderer",
        *(["rest_framework.renderers.BrowsableAPIRenderer"] if DEBUG else []),
    ],
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.PageNumberPagination",
    "PAGE_SIZE": 20,
    # For each address, or each logged-in user.
    "DEFAULT_THROTTLE_RATES": {
        "submit": env.str("THROTTLE_SUBMIT", default="") or "20/hour",
        "flag": env.str("THROTTLE_FLAG", default="") or "30/hour",
        # Invalid attempts to post or flag.
        "refused": env.str("THROTTLE_REFUSED", default="") or "100/hour",
        # Wrong passwords, in the admin and in the API.
        "password": env.str("THROTTLE_PASSWORD", default="") or "20/hour",
    },
    "NUM_PROXIES": TRUSTED_PROXIES,
}

# --- Celery ---------------------------------------------------------------------

CELERY_BROKER_URL = env.str("RABBITMQ_URL", default="") or env.str(
    "REDIS_URL", default=""
)
if not CELERY_BROKER_URL:
    # No service needed: messages are files. kombu needs the folders to exist.
    _broker = DATA_DIR / "broker"
    for _folder in ("messages", "control"):
        (_broker / _folder).mkdir(parents=True, exist_ok=True)
    CELERY_BROKER_URL = "filesystem://"
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(_broker / "messages"),
        "data_folder_out": str(_broker / "messages"),
        "control_folder": str(_broker / "control"),
    }
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TIMEZONE = TIME_ZONE
# The email log says what happened to each email; no result backend is needed.
CELERY_TASK_IGNORE_RESULT = True

# --- Processes ------------------------------------------------------------------

# A platform's router reaches the process from outside; on your own machine,
# HOST=127.0.0.1 keeps others out.
HOST = env.str("HOST", default="0.0.0.0")  # noqa: S104 - for the router
PORT = env.int("PORT", default=8000)
_max_requests = env.int("WEB_MAX_REQUESTS", default=10_000)

# Where links in the digests point. Without it: to this machine with DEBUG, else to the
# first name in ALLOWED_HOSTS; if that is a pattern, there are no links.
SITE_URL = env.str("SITE_URL", default="").rstrip("/")
if not SITE_URL and DEBUG:
    SITE_URL = f"http://127.0.0.1:{PORT}"
elif not SITE_URL and ALLOWED_HOSTS and ALLOWED_HOSTS[0][0] not in "*.":
    SITE_URL = f"https://{ALLOWED_HOSTS[0]}"

# django-prodserver 3 moved its servers; the old path gives a warning.
_servers = "django_prodserver.backends"
if find_spec(f"{_servers}.servers"):
    _servers += ".servers"

PRODUCTION_PROCESSES = {
    "web": {
        "BACKEND": f"{_servers}.gunicorn.GunicornServer",
        "ARGS": {
            "bind": f"{HOST}:{PORT}",
            # Two, so that one answers while the other is replaced.
            "workers": env.int("WEB_CONCURRENCY", default=2),
            # A client that sends nothing, or a byte a second, holds only a
            # thread; a sync worker would answer nobody else meanwhile.
            "worker-class": "gthread",
            "threads": env.int("WEB_THREADS", default=80),
            # Replaces a worker that hangs completely; does not limit a request.
            "timeout": env.int("WEB_TIMEOUT", default=30),
            # Ends any leak; the jitter keeps workers from restarting together.
            "max-requests": _max_requests,
            "max-requests-jitter": _max_requests // 2,
        },
    },
    "worker": {
        "BACKEND": "prodserver_celery5.backends.CeleryWorker",
        "APP": "prayer_room_api",
        "ARGS": {
            "loglevel": "INFO",
            # None leaves it to Celery: one child per core.
            "concurrency": env.int("WORKER_CONCURRENCY", default=None),
        },
    },
    "beat": {
        "BACKEND": "prodserver_celery5.backends.CeleryBeat",
        "APP": "prayer_room_api",
        # During a deploy the old and the new one overlap; only one sends.
        "LEADER_LOCK": "default",
        "ARGS": {
            "loglevel": "INFO",
            "scheduler": "django_celery_beat.schedulers:DatabaseScheduler",
        },
    },
}

# The files that a probe reads. Two workers in one folder would get in each other's way,
# so set it only on a platform where each has its own file system.
if _folder := env.str("HEARTBEAT_FOLDER", default=""):
    for _name in ("worker", "beat"):
        PRODUCTION_PROCESSES[_name]["HEARTBEAT_FILE"] = f"{_folder}/{_name}.heartbeat"

# A few seconds less than the platform waits between SIGTERM and SIGKILL.
if _grace := env.float("WORKER_GRACE_SECONDS", default=None):
    PRODUCTION_PROCESSES["worker"]["GRACE_SECONDS"] = _grace
