import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from rest_framework.test import APIClient

from prayer_room_api.models import DigestSubscription, PrayerRequest
from prodserver_celery5.pytest_plugin.process import DEADLINE

# Celery 5.0 and 5.1 import it, and it warns that it is deprecated.
PKG_RESOURCES = "ignore:pkg_resources is deprecated:UserWarning"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def python(tmp_path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python in a minimal environment, plus the given variables."""

    def run(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", "-W", PKG_RESOURCES, *args],
            cwd=ROOT,
            env={
                "PATH": os.environ["PATH"],
                "DATA_DIR": str(tmp_path / "data"),
                "STATIC_ROOT": str(tmp_path / "static"),
                "DJANGO_SETTINGS_MODULE": "prayer_room_api.settings",
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    return run


@pytest.fixture
def api() -> APIClient:
    return APIClient()


@pytest.fixture
def may() -> Callable[..., None]:
    """Give a user permissions on prayer requests."""

    def may(user, *actions: str) -> None:
        for action in actions:
            codename = f"{action}_prayerrequest"
            user.user_permissions.add(Permission.objects.get(codename=codename))

    return may


@pytest.fixture
def newcomer(django_user_model):
    """A staff member without any permission yet."""
    return django_user_model.objects.create_user(
        "newcomer", "newcomer@example.org", "secret", is_staff=True
    )


@pytest.fixture
def staff(django_user_model, may):
    staff = django_user_model.objects.create_user(
        "moderator", "moderator@example.org", "secret", is_staff=True
    )
    may(staff, "view", "change")
    return staff


@pytest.fixture
def person(django_user_model):
    return django_user_model.objects.create_user("ann", "ann@example.org", "secret")


@pytest.fixture
def staff_api(staff) -> APIClient:
    client = APIClient()
    client.force_login(staff)
    return client


@pytest.fixture
def subscribe() -> Callable[..., None]:
    def subscribe(digest: str, *users) -> None:
        for user in users:
            DigestSubscription.objects.create(user=user, digest=digest)

    return subscribe


@pytest.fixture
def answered(person, staff) -> Callable[..., PrayerRequest]:
    """Make a request that the team has just responded to."""

    def answered(author=person, response="We prayed.", **fields) -> PrayerRequest:
        request = PrayerRequest(author=author, text="For my neighbour", **fields)
        request.respond(response, staff)
        request.save()
        return request

    return answered


class MailServer:
    """Stands in for a mail server, and does what a test sets for an address."""

    def __init__(self) -> None:
        self.on_send: dict[str, Callable[[], object]] = {}

    @property
    def received(self) -> list[str]:
        return [message.to[0] for message in mail.outbox]

    def refuses(self, address: str, error: BaseException) -> None:
        def refuse() -> None:
            raise error

        self.on_send[address] = refuse


@pytest.fixture
def mail_server(monkeypatch) -> MailServer:
    server = MailServer()
    deliver = EmailBackend.send_messages

    def send_messages(self, messages):
        for message in messages:
            if happening := server.on_send.get(message.to[0]):
                happening()
        return deliver(self, messages)

    monkeypatch.setattr(EmailBackend, "send_messages", send_messages)
    return server
