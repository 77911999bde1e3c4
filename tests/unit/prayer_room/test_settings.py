import json
import re

import pytest

from prayer_room_api import checks

from .conftest import ROOT

PRINT = """
import json, sys
from django.conf import settings
print(json.dumps({name: getattr(settings, name) for name in sys.argv[1:]}, default=str))
"""

# Through Django's public API, which is the same before and after MAILERS.
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


# Each variable in docs/deploy-example.md, as a deployment would set it.
DOCUMENTED = {
    # As made by `openssl rand -hex 32` in deploy/dokku/setup.sh.
    "SECRET_KEY": "0123456789abcdef" * 4,
    "ALLOWED_HOSTS": "pray.example.org,www.pray.example.org",
    "SITE_URL": "https://pray.example.org",
    "DATABASE_URL": "postgres://u:p@db/prayers",
    "RABBITMQ_URL": "amqp://u:p@broker//",
    "REDIS_URL": "redis://broker/0",
    "EMAIL_URL": "smtp+tls://u:p@mail.example.org:587",
    "DEFAULT_FROM_EMAIL": "Prayer room <pray@example.org>",
    "TRUSTED_PROXIES": "1",
    "HTTPS_ONLY": "on",
    "CSRF_TRUSTED_ORIGINS": "https://pray.example.org",
    "TIME_ZONE": "Europe/London",
    "WORKER_CONCURRENCY": "4",
    "WORKER_GRACE_SECONDS": "25",
    "HEARTBEAT_FOLDER": "/tmp",
    "PORT": "8000",
    "WEB_CONCURRENCY": "2",
    "WEB_THREADS": "80",
    "WEB_TIMEOUT": "30",
    "WEB_MAX_REQUESTS": "10000",
    "THROTTLE_SUBMIT": "20/hour",
    "THROTTLE_FLAG": "30/hour",
    "THROTTLE_REFUSED": "100/hour",
    "THROTTLE_PASSWORD": "20/hour",
}


def test_the_documented_variables_are_these():
    page = (ROOT / "docs/deploy-example.md").read_text()
    table = page.partition("## Variables")[2].partition("\n## ")[0]
    rows = (line.split("|")[1] for line in table.splitlines() if line[:3] == "| `")
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(
        DOCUMENTED
    )
    settings = (ROOT / "prayer_room_api/settings.py").read_text()
    for name in DOCUMENTED:
        assert f'"{name}"' in settings


def test_a_set_up_deployment_has_no_warning(python):
    done = python("manage.py", "check", "--deploy", **DOCUMENTED)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("System check identified no issues"), done.stdout


def test_rates_that_are_none_are_found_before_anything_runs(python):
    scopes = ("SUBMIT", "FLAG", "REFUSED", "PASSWORD")
    wrong = {f"THROTTLE_{scope}": "20/fortnight" for scope in scopes}
    done = python("manage.py", "check", SECRET_KEY="x", **wrong)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for name in wrong:
        line = f"(prayer_room_api.E001) {name} = '20/fortnight' is not a rate."
        assert line in done.stderr


@pytest.mark.parametrize(
    ("rate", "found"),
    [
        *((rate, 0) for rate in ("1/s", "20/hour", "0/day", " 3/minute")),
        *(
            (rate, 1)
            for rate in ("", "20", "20/", "/hour", "many/hour", "20/fortnight")
        ),
        *((rate, 1) for rate in ("1.5/hour", "-1/hour", "1/hour/day")),
    ],
)
def test_what_is_a_rate(settings, rate, found):
    settings.REST_FRAMEWORK = {"DEFAULT_THROTTLE_RATES": {"submit": rate}}
    messages = list(checks.check_rates(None))
    assert [message.id for message in messages] == ["prayer_room_api.E001"] * found


def test_a_variable_that_is_empty_is_one_that_is_not_set(settings_of):
    rates = settings_of("REST_FRAMEWORK", THROTTLE_SUBMIT="")["DEFAULT_THROTTLE_RATES"]
    assert rates["submit"] == "20/hour"


def test_fewer_proxies_than_none(python):
    done = python("manage.py", "check", SECRET_KEY="x", TRUSTED_PROXIES="-1")
    assert done.returncode == 1
    assert "(prayer_room_api.E002)" in done.stderr


def test_https_only_without_a_proxy_that_speaks_it(python):
    environment = DOCUMENTED | {"TRUSTED_PROXIES": "0"}
    done = python("manage.py", "check", "--deploy", **environment)
    assert "(prayer_room_api.W001)" in done.stderr
    assert "Set TRUSTED_PROXIES" in done.stderr


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
    assert processes["web"]["ARGS"] == {
        "bind": "0.0.0.0:8000",
        "workers": 2,
        "worker-class": "gthread",
        "threads": 80,
        "timeout": 30,
        "max-requests": 10_000,
        "max-requests-jitter": 5_000,
    }
    assert processes["worker"]["ARGS"] == {"loglevel": "INFO", "concurrency": None}
    scheduler = processes["beat"]["ARGS"]["scheduler"]
    assert scheduler == "django_celery_beat.schedulers:DatabaseScheduler"
    assert processes["worker"]["APP"] == processes["beat"]["APP"] == "prayer_room_api"


def test_port_and_concurrency(settings_of):
    processes = settings_of(
        "PRODUCTION_PROCESSES", PORT="8123", WORKER_CONCURRENCY="3",
        WEB_CONCURRENCY="4", WEB_THREADS="9", WEB_TIMEOUT="60", WEB_MAX_REQUESTS="100",
    )  # fmt: skip
    assert processes["web"]["ARGS"] == {
        "bind": "0.0.0.0:8123",
        "workers": 4,
        "worker-class": "gthread",
        "threads": 9,
        "timeout": 60,
        "max-requests": 100,
        "max-requests-jitter": 50,
    }
    assert processes["worker"]["ARGS"]["concurrency"] == 3


def test_the_time_to_end_in(settings_of):
    assert "GRACE_SECONDS" not in settings_of("PRODUCTION_PROCESSES")["worker"]
    processes = settings_of("PRODUCTION_PROCESSES", WORKER_GRACE_SECONDS="55")
    assert processes["worker"]["GRACE_SECONDS"] == 55


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
    names = ("REST_FRAMEWORK", "SECURE_PROXY_SSL_HEADER")
    behind = settings_of(*names, TRUSTED_PROXIES="1")
    assert behind["REST_FRAMEWORK"]["NUM_PROXIES"] == 1
    assert behind["SECURE_PROXY_SSL_HEADER"] == ["HTTP_X_FORWARDED_PROTO", "https"]
    bare = settings_of(*names)
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
