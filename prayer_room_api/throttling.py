"""Limits how often one address may do what costs the site something.

The counts are in Django's default cache, here a database table, so all gunicorn
workers on all machines share them.
"""

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle

# A customer gets a network at least this large, and can use any address in it.
IPV6_NETWORK = 64


class Quota(SimpleRateThrottle):
    """A rate that is checked before a request is handled, and counted afterwards.

    The outcome of the request decides which quota it counts against.

    Args:
        scope: a key of `DEFAULT_THROTTLE_RATES`.
    """

    def __init__(self, scope: str) -> None:
        self.scope = scope
        super().__init__()

    def get_cache_key(self, request: HttpRequest | Request, view: object | None) -> str:
        """Count by user, or by address if nobody is logged in.

        Args:
            request: whose user or address counts.
            view: its view; None during a login, before the user is known.
        """
        known = view is not None and request.user.is_authenticated
        ident = request.user.pk if known else self.get_ident(request)
        return self.cache_format % {"scope": self.scope, "ident": ident}

    def get_ident(self, request: HttpRequest | Request) -> str:
        """Return the IPv4 address, or the IPv6 address's network."""
        try:
            address = ip_address(super().get_ident(request))
        except ValueError:
            # The proxy reported no valid address: all of these share one quota.
            return request.META["REMOTE_ADDR"]
        if isinstance(address, IPv6Address):
            mapped = address.ipv4_mapped
            address = mapped or ip_network((int(address), IPV6_NETWORK), strict=False)
        return str(address)

    def throttle_success(self) -> bool:
        """Let the request pass, without counting it yet."""
        return True

    def count(self) -> None:
        """Count the request that was let through."""
        # Others may have been counted since.
        self.history = self.cache.get(self.key, [])
        super().throttle_success()


class TooManyWrongPasswordsError(ValidationError):
    """An address has sent too many wrong passwords; a login form says so.

    Args:
        wait: seconds until it may try again.
    """

    def __init__(self, wait: float | None) -> None:
        self.wait = wait
        super().__init__("Too many wrong passwords from your address. Try again later.")


class PasswordBackend(ModelBackend):
    """Django's own, with a limit per address for the admin and the API together."""

    def authenticate(
        self,
        request: HttpRequest | Request | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> AbstractBaseUser | None:
        """Check a password, unless its address has sent too many wrong ones."""
        wrong = Quota("password")
        # Without a request, nobody on the network is asking.
        if request is not None and not wrong.allow_request(request, None):
            raise TooManyWrongPasswordsError(wrong.wait())
        user = super().authenticate(request, username, password, **kwargs)
        if user is None and request is not None:
            wrong.count()
        return user
