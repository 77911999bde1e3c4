"""How often one address may do what costs the site something.

The counts are in Django's default cache, here a table of the database, so all gunicorn
workers, and all machines with a web process, count together.
"""

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle

# A customer has a network at least this large, and any address in it.
IPV6_NETWORK = 64


class Quota(SimpleRateThrottle):
    """A rate that is checked before a request is handled, and counted afterwards.

    The outcome of the request decides which quota it uses up.

    Args:
        scope: a key of `DEFAULT_THROTTLE_RATES`.
    """

    def __init__(self, scope: str) -> None:
        self.scope = scope
        super().__init__()

    def get_cache_key(self, request: HttpRequest | Request, view: object | None) -> str:
        """Count by user, and by address where there is none.

        Args:
            request: who asks.
            view: what they ask; None while they log in, and are not known yet.
        """
        known = view is not None and request.user.is_authenticated
        ident = request.user.pk if known else self.get_ident(request)
        return self.cache_format % {"scope": self.scope, "ident": ident}

    def get_ident(self, request: HttpRequest | Request) -> str:
        """Return the address; of an IPv6 address, its network."""
        try:
            address = ip_address(super().get_ident(request))
        except ValueError:
            # Not how a proxy should report an address: all of these share one quota.
            return request.META["REMOTE_ADDR"]
        if isinstance(address, IPv6Address):
            mapped = address.ipv4_mapped
            address = mapped or ip_network((int(address), IPV6_NETWORK), strict=False)
        return str(address)

    def throttle_success(self) -> bool:
        """Let the request pass, without counting it yet."""
        return True

    def count(self) -> None:
        """Count the request that was allowed before."""
        # Others may have been counted since.
        self.history = self.cache.get(self.key, [])
        super().throttle_success()


class TooManyWrongPasswordsError(ValidationError):
    """An address has used up its wrong passwords; a login form says so.

    Args:
        wait: seconds until it may try again.
    """

    def __init__(self, wait: float | None) -> None:
        self.wait = wait
        super().__init__("Too many wrong passwords from your address. Try again later.")


class PasswordBackend(ModelBackend):
    """Django's own, with a limit for each address, in the admin and in the API."""

    def authenticate(
        self,
        request: HttpRequest | Request | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> AbstractBaseUser | None:
        """Check a password, unless too many from that address were wrong."""
        wrong = Quota("password")
        # Without a request, nobody on the network is asking.
        if request is not None and not wrong.allow_request(request, None):
            raise TooManyWrongPasswordsError(wrong.wait())
        user = super().authenticate(request, username, password, **kwargs)
        if user is None and request is not None:
            wrong.count()
        return user
