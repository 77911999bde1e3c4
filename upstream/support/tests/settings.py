"""Settings for the tests of a source distribution, which has none."""

SECRET_KEY = "only-for-tests"  # noqa: S105 - as it says
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.staticfiles",
    "django_prodserver",
]
STATIC_URL = "static/"
WSGI_APPLICATION = "tests.wsgi.application"
ASGI_APPLICATION = "tests.asgi.application"
# Upstream has no process "web" in its own; one of its tests relies on that.
PRODUCTION_PROCESSES = {"web-1": {"BACKEND": "tests.nothing.Server"}}
