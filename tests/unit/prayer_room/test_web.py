"""The WSGI application as gunicorn runs it: health, static files, plain http."""

import json
import re

import pytest

GET = """
import json, sys
from wsgiref.util import setup_testing_defaults
from prayer_room_api.wsgi import application
for path in sys.argv[3:]:
    environ = {"HTTP_HOST": sys.argv[1], "PATH_INFO": path}
    environ.update(REQUEST_METHOD=sys.argv[2], REMOTE_ADDR="127.0.0.1")
    setup_testing_defaults(environ)
    answer = {}
    def start_response(status, headers):
        answer.update(status=int(status[:3]), headers=dict(headers))
    body = application(environ, start_response)
    answer["body"] = b"".join(body).decode()
    body.close()
    print(json.dumps(answer))
"""
CSS = "/static/admin/css/base.css"


@pytest.fixture
def get(python):
    def get(
        *paths: str, host: str = "localhost", method: str = "GET", **environment: str
    ):
        environment = {
            "SECRET_KEY": "x",
            "ALLOWED_HOSTS": "localhost",
            **environment,
        }
        done = python("-c", GET, host, method, *paths, **environment)
        assert done.returncode == 0, done.stderr
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        return answers[0] if len(answers) == 1 else answers

    return get


@pytest.mark.parametrize("debug", ["on", "off"])
def test_static_files_of_the_admin_on_a_fresh_clone(get, debug):
    page, css = get("/admin/login/", CSS, DEBUG=debug)
    assert page["status"] == 200
    assert f'href="{CSS}"' in page["body"]
    assert css["status"] == 200
    assert css["headers"]["Content-Type"].startswith("text/css")


def test_static_files_of_the_admin_once_collected(python, get):
    done = python("manage.py", "collectstatic", "--noinput", SECRET_KEY="x")
    assert done.returncode == 0, done.stderr
    page = get("/admin/login/")
    assert page["status"] == 200
    hashed = page["body"].partition("/static/admin/css/base.")[2].partition('"')[0]
    assert hashed.endswith(".css")
    assert hashed != "css"
    css = get(f"/static/admin/css/base.{hashed}")
    assert css["status"] == 200
    assert "immutable" in css["headers"]["Cache-Control"]


def test_health_needs_no_session_no_known_host_and_no_https(get):
    health = get("/healthz", host="10.0.0.7:8000", HTTPS_ONLY="on")
    assert health["status"] == 200
    assert json.loads(health["body"]) == {"status": "ok"}
    assert "Set-Cookie" not in health["headers"]


def test_health_when_the_database_does_not_answer(get):
    health = get("/healthz", DATABASE_URL="sqlite:////no/such/folder/db")
    assert health["status"] == 503
    assert json.loads(health["body"])["status"] != "ok"


def test_the_page_before_the_first_migration(get):
    home = get("/")
    assert home["status"] == 503
    assert "migrate" in home["body"]


@pytest.mark.parametrize(
    "url", ["sqlite:////no/such/folder/db", "postgres://u@127.0.0.1:1/prayers"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_api_when_the_database_does_not_answer(get, method, url):
    answer = get("/api/requests/", method=method, DATABASE_URL=url)
    assert answer["status"] == 503
    assert answer["headers"]["Content-Type"] == "application/json"
    assert json.loads(answer["body"]) == {"detail": "The database does not answer."}


def test_health_is_for_reading(client):
    assert client.post("/healthz").status_code == 405


def test_an_unknown_host_is_refused_elsewhere(get):
    assert get("/", host="evil.example")["status"] == 400


def test_plain_http_is_answered_without_debug_and_redirected_when_asked_to(python, get):
    done = python("manage.py", "migrate", "--noinput", SECRET_KEY="x")
    assert done.returncode == 0, done.stderr
    home = get("/")
    assert home["status"] == 200
    assert home["headers"]["Content-Type"].startswith("text/html")
    redirected = get("/", HTTPS_ONLY="on")
    assert redirected["headers"]["Location"] == "https://localhost/"


def test_each_line_of_the_log_has_its_time_and_its_level(python):
    done = python(
        *("-c", GET, "localhost", "GET", "/healthz", "/nothing"),
        SECRET_KEY="x",
        ALLOWED_HOSTS="localhost",
        DATABASE_URL="sqlite:////no/such/folder/db",
    )
    lines = done.stderr.splitlines()
    timed = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: [A-Z]+\] "
    for message in (
        "The database does not answer: ",
        "Service Unavailable: /healthz",
        "Not Found: /nothing",
    ):
        assert any(re.match(timed + message, line) for line in lines), done.stderr
