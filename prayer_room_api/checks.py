"""System checks for the environment variables that the settings read."""

from collections.abc import Iterator, Sequence

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from rest_framework.throttling import SimpleRateThrottle


def register_checks() -> None:
    """Let `manage.py check` run them, and `migrate` too."""
    checks.register(check_rates, checks.Tags.security)
    checks.register(check_proxies, checks.Tags.security)
    checks.register(check_https, checks.Tags.security, deploy=True)


def check_rates(
    app_configs: Sequence[AppConfig] | None, **kwargs: object
) -> Iterator[checks.CheckMessage]:
    """Find rates that cannot be parsed: the first request would fail."""
    for scope, rate in settings.REST_FRAMEWORK["DEFAULT_THROTTLE_RATES"].items():
        try:
            count, _ = SimpleRateThrottle.parse_rate(None, rate)
        except (IndexError, KeyError, ValueError):
            count = -1
        if count < 0:
            yield checks.Error(
                f"THROTTLE_{scope.upper()} = {rate!r} is not a rate.",
                hint="A number and a period: 20/hour, or /second, /minute or /day.",
                id="prayer_room_api.E001",
            )


def check_proxies(
    app_configs: Sequence[AppConfig] | None, **kwargs: object
) -> Iterator[checks.CheckMessage]:
    """Find a negative number of proxies."""
    proxies = settings.REST_FRAMEWORK["NUM_PROXIES"]
    if proxies < 0:
        yield checks.Error(
            f"TRUSTED_PROXIES = {proxies} is not a number of proxies.",
            hint="0 without a proxy, 1 behind nginx, 2 with another in front of that.",
            id="prayer_room_api.E002",
        )


def check_https(
    app_configs: Sequence[AppConfig] | None, **kwargs: object
) -> Iterator[checks.CheckMessage]:
    """Find https without a proxy: gunicorn itself speaks only plain http here."""
    if settings.SECURE_SSL_REDIRECT and not settings.SECURE_PROXY_SSL_HEADER:
        yield checks.Warning(
            "HTTPS_ONLY is on and TRUSTED_PROXIES is 0: each request is redirected"
            " to https, again and again.",
            hint="Set TRUSTED_PROXIES to the number of proxies in front.",
            id="prayer_room_api.W001",
        )
