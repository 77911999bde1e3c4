from django.core.handlers.wsgi import WSGIHandler as application  # noqa: F401
