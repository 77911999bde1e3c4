"""A project with little more than a schedule; the environment names its services."""

import sys

import environ

_env = environ.Env()

if _env.str("MYSQL_DRIVER", default="") == "pymysql":
    import pymysql

    pymysql.install_as_MySQLdb()
if _env.str("DRIVER", default="") == "psycopg2":
    # Django prefers psycopg where it is installed.
    sys.modules["psycopg"] = None  # type: ignore[assignment]

SECRET_KEY = "only-for-tests"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django_celery_beat",
    "django_prodserver",
    "prodserver_celery5",
]
DATABASES = {"default": _env.db_url("DATABASE_URL")}
DATABASES["default"]["CONN_MAX_AGE"] = _env.json("CONN_MAX_AGE", default=0)
DATABASES["default"].setdefault("OPTIONS", {}).update(_env.json("OPTIONS", default={}))

BROKER_URL = _env.str("BROKER", default="memory://")

PRODUCTION_PROCESSES = {
    "beat": {
        "BACKEND": "prodserver_celery5.backends.CeleryBeat",
        "APP": "tests.blows.app",
        "LEADER_LOCK": "default",
        "ARGS": {
            "loglevel": "INFO",
            "scheduler": _env.str("SCHEDULER", default="tests.blows.scheduler:Noted"),
            **_env.json("BEAT_ARGS", default={}),
        },
    }
}
if _env.str("HEARTBEAT_FILE", default=""):
    PRODUCTION_PROCESSES["beat"]["HEARTBEAT_FILE"] = _env.str("HEARTBEAT_FILE")
if not _env.str("LEADER_LOCK", default="default"):
    del PRODUCTION_PROCESSES["beat"]["LEADER_LOCK"]
