import json

import pytest

PRINT = """
import json, sys
from django.conf import settings
print(json.dumps({name: getattr(settings, name) for name in sys.argv[1:]}, default=str))
"""

# Through Django's own front door, so that it is the same before and after MAILERS.
MAILER = """
import django, json, sys
django.setup()
from django.core import mail
backend = mail.get_connection() if django.VERSION < (6, 1) else mail.mailers.default
names = ["host", "port", "username", "password", "use_tls", "timeout", "file_path"]
found = {name: getattr(backend, name) for name in names if hasattr(backend, name)}
print(json.dumps({"class": type(backend).__module__.rsplit(".")[-1], **found}))
"""


@pytest.fixture
def settings_of(python):
    def settings_of(*names: str, **environment: str):
        environment.setdefault("SECRET_KEY", "x")
        done = python("-c", PRINT, *names, **environment)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        return found[names[0]] if len(names) == 1 else found

    return settings_of


@pytest.fixture
def mailer_of(python):
    def mailer_of(**environment: str):
        done = python("-c", MAILER, **{"SECRET_KEY": "x", **environment})
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return mailer_of


def test_without_debug_it_refuses_to_start_without_a_secret_key(python):
    done = python("manage.py", "check")
    assert done.returncode != 0
    assert "ImproperlyConfigured: Set SECRET_KEY to" in done.stderr, done.stderr


def test_debug_is_off_by_default_and_does_without_a_key_when_on(settings_of):
    assert settings_of("DEBUG") is False
    on = settings_of("DEBUG", "SECRET_KEY", DEBUG="on", SECRET_KEY="")
    assert on["DEBUG"] is True
    assert on["SECRET_KEY"]


def test_a_set_up_deployment_passes_the_deployment_checks(python):
    done = python(
        *("manage.py", "check", "--deploy", "--fail-level", "WARNING"),
        SECRET_KEY="l0ng-and-random:" + "abcdefghijklmnopqrstuvwxyz0123456789" * 2,
        ALLOWED_HOSTS="pray.example.org",
        HTTPS_ONLY="on",
    )
    assert done.returncode == 0, done.stderr


def test_everything_is_below_the_data_folder_by_default(settings_of, tmp_path):
    found = settings_of(
        "DATABASES", "CELERY_BROKER_URL", "CELERY_BROKER_TRANSPORT_OPTIONS"
    )
    data = tmp_path / "data"
    assert found["DATABASES"]["default"]["NAME"] == str(data / "db.sqlite3")
    assert found["DATABASES"]["default"]["OPTIONS"]["timeout"] == 20
    assert found["CELERY_BROKER_URL"] == "filesystem://"
    folders = found["CELERY_BROKER_TRANSPORT_OPTIONS"]
    assert folders["data_folder_in"] == folders["data_folder_out"]
    for folder in folders.values():
        assert folder.startswith(str(data / "broker"))
    assert (data / "broker" / "messages").is_dir()
    assert (data / "broker" / "control").is_dir()


def test_database_url(settings_of):
    database = settings_of("DATABASES", DATABASE_URL="postgres://u:p@db:5433/prayers")
    default = database["default"]
    assert default["ENGINE"] == "django.db.backends.postgresql"
    assert (default["HOST"], default["PORT"]) == ("db", 5433)
    assert default["NAME"] == "prayers"
    assert "OPTIONS" not in default


def test_an_sqlite_url_waits_for_locks_as_the_default_does(settings_of, tmp_path):
    default = settings_of("DATABASES", DATABASE_URL=f"sqlite:///{tmp_path}/other")[
        "default"
    ]
    assert default["NAME"] == f"{tmp_path}/other"
    assert default["OPTIONS"]["timeout"] == 20


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"REDIS_URL": "redis://r/0"}, "redis://r/0"),
        ({"RABBITMQ_URL": "amqp://q//"}, "amqp://q//"),
        ({"RABBITMQ_URL": "amqp://q//", "REDIS_URL": "redis://r/0"}, "amqp://q//"),
    ],
)
def test_broker(settings_of, environment, url):
    assert settings_of("CELERY_BROKER_URL", **environment) == url


def test_with_services_nothing_is_written_below_the_data_folder(settings_of, tmp_path):
    settings_of("DEBUG", DATABASE_URL="postgres://db/prayers", REDIS_URL="redis://r/0")
    assert not (tmp_path / "data").exists()


def test_email_goes_to_the_console_when_nothing_is_set_and_debug_is_on(mailer_of):
    assert mailer_of(DEBUG="on")["class"] == "console"


def test_email_goes_to_a_server_when_nothing_is_set_and_debug_is_off(mailer_of):
    mailer = mailer_of()
    assert mailer["class"] == "smtp"
    assert (mailer["host"], mailer["port"]) == ("localhost", 25)


@pytest.mark.parametrize("debug", ["on", "off"])
def test_email_url(mailer_of, debug, tmp_path):
    mailer = mailer_of(DEBUG=debug, EMAIL_URL="smtp+tls://u:p%40@mail.example.org:587")
    assert mailer == {
        "class": "smtp",
        "host": "mail.example.org",
        "port": 587,
        "username": "u",
        "password": "p@",
        "use_tls": True,
        "timeout": 20,
    }
    to_files = mailer_of(DEBUG=debug, EMAIL_URL=f"filemail:///{tmp_path}/mails")
    assert to_files == {"class": "filebased", "file_path": f"{tmp_path}/mails"}


def test_processes(settings_of):
    processes = settings_of("PRODUCTION_PROCESSES")
    assert list(processes) == ["web", "worker", "beat"]
    assert processes["web"]["ARGS"] == {"bind": "0.0.0.0:8000"}
    assert processes["worker"]["ARGS"] == {"loglevel": "INFO", "concurrency": None}
    scheduler = processes["beat"]["ARGS"]["scheduler"]
    assert scheduler == "django_celery_beat.schedulers:DatabaseScheduler"
    assert processes["worker"]["APP"] == processes["beat"]["APP"] == "prayer_room_api"


def test_port_and_concurrency(settings_of):
    processes = settings_of("PRODUCTION_PROCESSES", PORT="8123", WORKER_CONCURRENCY="3")
    assert processes["web"]["ARGS"]["bind"] == "0.0.0.0:8123"
    assert processes["worker"]["ARGS"]["concurrency"] == 3


def test_the_web_backend_is_there_and_not_deprecated(python):
    done = python(
        "-c",
        "import django; django.setup()\n"
        "from django.conf import settings\n"
        "from django.utils.module_loading import import_string\n"
        "print(import_string(settings.PRODUCTION_PROCESSES['web']['BACKEND']))",
        SECRET_KEY="x",
    )
    assert "GunicornServer" in done.stdout, done.stderr


def test_proxies_are_believed_as_many_as_there_are(settings_of):
    behind = settings_of("REST_FRAMEWORK", "SECURE_PROXY_SSL_HEADER")
    assert behind["REST_FRAMEWORK"]["NUM_PROXIES"] == 1
    assert behind["SECURE_PROXY_SSL_HEADER"] == ["HTTP_X_FORWARDED_PROTO", "https"]
    bare = settings_of("REST_FRAMEWORK", "SECURE_PROXY_SSL_HEADER", TRUSTED_PROXIES="0")
    assert bare["REST_FRAMEWORK"]["NUM_PROXIES"] == 0
    assert bare["SECURE_PROXY_SSL_HEADER"] is None


def test_the_celery_app_has_the_settings_the_tasks_and_no_schedule():
    from prayer_room_api import celery_app

    celery_app.loader.import_default_modules()
    assert celery_app.conf.timezone == "Europe/London"
    assert celery_app.conf.task_ignore_result is True
    assert not celery_app.conf.beat_schedule
    assert {
        "prayer_room_api.tasks.send_moderator_digest",
        "prayer_room_api.tasks.send_user_digest",
    } <= set(celery_app.tasks)


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"SITE_URL": "https://prayer.example.org/"}, "https://prayer.example.org"),
        ({"ALLOWED_HOSTS": "a.example.org,b.example.org"}, "https://a.example.org"),
        ({"ALLOWED_HOSTS": ".example.org"}, ""),
        ({"ALLOWED_HOSTS": "*"}, ""),
        ({}, ""),
        ({"DEBUG": "on", "PORT": "8001"}, "http://127.0.0.1:8001"),
    ],
)
def test_where_the_links_in_the_digests_lead(settings_of, environment, url):
    assert settings_of("SITE_URL", **environment) == url
