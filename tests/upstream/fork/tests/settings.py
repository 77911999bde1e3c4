"""Settings for the tests of the source distribution, which has none."""

SECRET_KEY = "only-for-tests"  # noqa: S105 - as it says
INSTALLED_APPS = [
    *("django.contrib.auth", "django.contrib.contenttypes"),
    *("django.contrib.staticfiles", "django_prodserver"),
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
STATIC_URL = "static/"
WSGI_APPLICATION = "tests.wsgi.application"
ASGI_APPLICATION = "tests.asgi.application"
PRODUCTION_PROCESSES = {"web-1": {"BACKEND": "tests.nothing.Server"}}
