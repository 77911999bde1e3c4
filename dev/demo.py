"""Shows everything at work, as a short story.

A fresh database, the Procfile's three processes, requests posted over HTTP, and a
digest email that the worker sends because a schedule in the database says so. The exit
status is 0 if all of it happened.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import sys
import tempfile
import textwrap
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from email.message import EmailMessage
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dev import mails, procfile
from dev.mails import Mailbox
from dev.waiting import wait_until
from prodserver_celery5.pytest_plugin.process import StartedProcess

INTERVAL = 3  # seconds, for the schedule that the demonstration adds
LOOK = 5  # seconds between beat's looks at the database


def tell(text: str) -> None:
    print(text, flush=True)


def step(title: str) -> None:
    tell(f"\n\N{BULLET} {title}")


def detail(text: str) -> None:
    tell(textwrap.indent(text, "    "))


class Api:
    """The web process's API, as someone with curl would use it."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        self.login = ""

    def call(self, method: str, path: str, body: dict[str, str] | None = None) -> Any:
        headers = {"Content-Type": "application/json"}
        if self.login:
            headers["Authorization"] = f"Basic {self.login}"
        request = urllib.request.Request(
            self.base + path,
            data=json.dumps(body).encode() if body else None,
            headers=headers,
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            answer = json.load(response)
            detail(f"{method} {path} \N{RIGHTWARDS ARROW} {response.status}")
            return answer

    def wait_until_healthy(self, web: StartedProcess) -> None:
        def answers() -> bool:
            try:
                urllib.request.urlopen(self.base + "/healthz", timeout=5).close()
            except OSError:  # refused, or too slow
                return False
            return True

        web.wait_until_ready()
        wait_until(answers)


def django_here(env: dict[str, str]) -> None:
    """Set up Django in this process too, on the same database."""
    os.environ.update(env)
    os.environ["DJANGO_SETTINGS_MODULE"] = "prayer_room_api.settings"
    import django

    django.setup()


def wait_for_email(mailbox: Mailbox, timeout: float) -> EmailMessage:
    def first() -> EmailMessage | None:
        return next(iter(mailbox.new()), None)

    found: EmailMessage = wait_until(first, timeout)
    return found


def main() -> None:
    began = time.monotonic()
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mailbox = Mailbox(data / "mails")
        port = procfile.free_port()
        env = {
            **os.environ,
            "DATA_DIR": str(data),
            "SECRET_KEY": secrets.token_urlsafe(50),
            "ALLOWED_HOSTS": "127.0.0.1",
            "EMAIL_URL": mailbox.url,
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "SITE_URL": f"http://127.0.0.1:{port}",
            "WORKER_CONCURRENCY": "2",
        }
        packages = ("django-prodserver", "celery", "django", "django-celery-beat")
        tell(", ".join(f"{package} {version(package)}" for package in packages))

        step("The release phase creates a fresh database")
        procfile.release(env, data / "release.log")
        applied = re.findall(
            r"Applying (\S+)\.\.\. OK", (data / "release.log").read_text()
        )
        detail(f"{len(applied)} migrations, the last one {applied[-1]}")

        step("The Procfile's processes start")
        running: dict[str, StartedProcess] = {}
        for name, command in procfile.commands().items():
            if name != "release":
                running[name] = stack.enter_context(
                    StartedProcess(
                        command,
                        log=data / f"{name}.log",
                        cwd=procfile.ROOT,
                        env=env,
                        notify=True,
                    )
                )
        api = Api(port)
        for name in ("worker", "beat"):
            running[name].wait_until_ready()
        api.wait_until_healthy(running["web"])
        started = time.monotonic()
        for name, process in running.items():
            detail(f"{name:<7}{' '.join(process.command)}  (pid {process.pid})")

        step("Someone asks for prayer, someone else gives thanks")
        api.call(
            "POST",
            "/api/requests/",
            {"kind": "prayer", "name": "Ruth", "text": "For my neighbour, who is ill."},
        )
        thanks = api.call(
            "POST",
            "/api/requests/",
            {"kind": "praise", "name": "Amos", "text": "The harvest is in."},
        )

        step("Miriam, from the team, approves one of the two")
        django_here(env)
        from django.contrib.auth import get_user_model
        from django.db import transaction
        from django_celery_beat.models import IntervalSchedule, PeriodicTask

        from prayer_room_api.models import Digest, DigestSubscription

        password = secrets.token_urlsafe()
        miriam = get_user_model().objects.create_superuser(
            "miriam", "miriam@example.org", password
        )
        DigestSubscription.objects.create(user=miriam, digest=Digest.MODERATOR)
        api.login = base64.b64encode(f"miriam:{password}".encode()).decode()
        api.call("POST", f"/api/requests/{thanks['id']}/approve/")
        api.login = ""
        public = api.call("GET", "/api/requests/")["results"]
        assert [each["text"] for each in public] == ["The harvest is in."], public
        detail(f"on the public list now: “{public[0]['text']}”")

        step(f"A {INTERVAL} s schedule is added to the database while beat runs")
        # Beat notices changes only from its second look at the database, which is late
        # on a busy machine.
        time.sleep(max(0.0, started + LOOK + 6 - time.monotonic()))
        with transaction.atomic():  # as in the admin: beat sees all of it or nothing
            schedule = PeriodicTask.objects.create(
                name="demo-digest",
                task="prayer_room_api.tasks.send_moderator_digest",
                interval=IntervalSchedule.objects.create(
                    every=INTERVAL, period=IntervalSchedule.SECONDS
                ),
            )
        added = time.monotonic()
        running["beat"].wait_for("Sending due task demo-digest", timeout=4 * LOOK)
        detail(f"beat sent the first task {time.monotonic() - added:.1f} s later")

        step("The worker sends the digest")
        message = wait_for_email(mailbox, timeout=20)
        running["worker"].wait_for(r"send_moderator_digest\[\S+\] succeeded")
        assert "For my neighbour, who is ill." in mails.text(message)
        detail(mails.show(message))
        running["worker"].wait_for(r"send_moderator_digest\[\S+\] succeeded", count=2)
        detail("Next time there is nothing new, so the worker sends nothing.")

        step("The schedule is switched off, as a click in the admin would do")
        schedule.enabled = False
        with transaction.atomic():
            schedule.save()
        time.sleep(LOOK + 1)
        sent = running["beat"].output.count("Sending due task demo-digest")
        time.sleep(2.5 * INTERVAL)
        after = running["beat"].output.count("Sending due task demo-digest")
        assert after == sent, f"beat sent {after - sent} more"
        detail(f"beat had sent {sent}, and none in the {2.5 * INTERVAL} s since")

        step("SIGTERM ends each process")
        statuses = {name: process.stop() for name, process in running.items()}
        for name, status in statuses.items():
            detail(f"{name:<7}exit status {status}")
        assert not any(statuses.values()), statuses
        assert not list(mailbox.new()), "an email with nothing new"
    tell(f"\nEverything worked, in {time.monotonic() - began:.0f} s.")


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, urllib.error.URLError) as error:
        tell(f"\nThe demonstration failed: {error}")
        sys.exit(1)
