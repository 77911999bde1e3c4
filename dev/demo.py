"""Shows everything at work, as a short story.

A mistake that `check` finds, the Procfile's three processes on a fresh database, the
memory of a worker beside that of `celery worker`, requests posted over HTTP, both
answers of the probe, a digest email that the worker sends because a schedule in the
database says so, and a second beat that takes over. The exit status is 0 if all of it
happened.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.request
from contextlib import ExitStack
from email.message import EmailMessage
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dev import mails, procfile
from dev.mails import Mailbox
from dev.waiting import wait_until
from docs.measure import pss
from prodserver_celery5.pytest_plugin.process import StartedProcess

CHILDREN = 8  # of each worker
INTERVAL = 3  # seconds, for the schedule that the demonstration adds
LOOK = 5  # seconds between beat's looks at the database
SILENCE = 2  # seconds that the probe allows a worker; 30 by default
TASKS = 32  # for each of the two workers that are compared
CHANGED = "DatabaseScheduler: Schedule changed"
SENDS = "Sending due task demo-digest"


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
        with urllib.request.urlopen(request, timeout=60) as response:
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


def wait_for_email(mailbox: Mailbox) -> EmailMessage:
    def first() -> EmailMessage | None:
        return next(iter(mailbox.new()), None)

    found: EmailMessage = wait_until(first)
    return found


def check_finds(mistake: str, env: dict[str, str], folder: Path) -> None:
    """Run `manage.py check` on the settings with a mistake in them."""
    Path(folder, "mistaken.py").write_text(
        f"from prayer_room_api.settings import *\n{mistake}\n"
    )
    path = {"PYTHONPATH": str(folder), "DJANGO_SETTINGS_MODULE": "mistaken"}
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=procfile.ROOT, env=env | path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r".*\(prodserver_celery5\.E\d+\).*(\n\s+HINT.*)?", done.stderr)
    assert found, done.stderr
    detail(f"{mistake}\n\n{found[0]}")
    detail(f"manage.py check: exit status {done.returncode}")


def probe(name: str, file: Path, *words: str) -> int:
    """Ask the probe about a process, as a platform does."""
    command = [sys.executable, "-m", "prodserver_celery5.probe", str(file), *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    detail(f"{name}: exit status {done.returncode}, {done.stdout.strip()}")
    return done.returncode


def compare_memory(env: dict[str, str], folder: Path) -> None:
    """Give two workers the same work, ours and celery's, and show what they need."""
    folder.mkdir()
    Path(folder, "compared.py").write_text(
        'from prayer_room_api.settings import *\nCELERY_IMPORTS = ["dev.rows"]\n'
    )
    path = {"PYTHONPATH": str(folder), "DJANGO_SETTINGS_MODULE": "compared"}
    words = f"-A prayer_room_api worker -l INFO -c {CHILDREN}".split()
    commands = {
        "ours": ["python", "manage.py", "prodserver", "worker"],
        "celery's": ["python", "-m", "celery", *words],
    }
    with ExitStack() as stack:
        running = {}
        for name, command in commands.items():
            # Each has a broker of its own, with all of its messages from the start:
            # kombu's transport of files ends a worker that reads half of one.
            own = env | path | {"DATA_DIR": str(folder / name), "HEARTBEAT_FOLDER": ""}
            send = f"import dev.rows\nfor _ in range({TASKS}): dev.rows.export.delay()"
            subprocess.run(
                [sys.executable, "-c", f"import django; django.setup()\n{send}"],
                cwd=procfile.ROOT, env=own, check=True,
            )  # fmt: skip
            log = folder / f"{name}.log"
            running[name] = stack.enter_context(
                StartedProcess(command, log=log, cwd=procfile.ROOT, env=own)
            )
        for worker in running.values():
            worker.wait_for(r"\] succeeded in", count=TASKS)
        used = {name: pss(worker.pid) for name, worker in running.items()}
    detail(f"{CHILDREN} children each, after {TASKS} tasks that held 100,000 rows:")
    for name, mebibytes in used.items():
        detail(f"{' '.join(commands[name]):<56}{mebibytes:>4.0f} MiB")
    assert used["ours"] < used["celery's"], "ours needs no less"


def main() -> None:
    began = time.monotonic()
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        apart = data / "apart"
        apart.mkdir()
        mailbox = Mailbox(data / "mails")
        port = procfile.free_port()
        env = {
            **os.environ,
            "DATA_DIR": str(data),
            "SECRET_KEY": secrets.token_urlsafe(50),
            "ALLOWED_HOSTS": "127.0.0.1",
            "EMAIL_URL": mailbox.url,
            "HEARTBEAT_FOLDER": str(data),
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "SITE_URL": f"http://127.0.0.1:{port}",
            "WORKER_CONCURRENCY": str(CHILDREN),
        }
        packages = ("django-prodserver", "celery", "django", "django-celery-beat")
        tell(", ".join(f"{package} {version(package)}" for package in packages))

        def start(name: str, entry: str, **other: str) -> StartedProcess:
            return stack.enter_context(
                StartedProcess(
                    procfile.commands()[entry],
                    log=data / f"{name}.log",
                    cwd=procfile.ROOT,
                    env=env | other,
                    notify=True,
                )
            )

        step("A mistake in an entry is found before anything starts")
        check_finds(
            'PRODUCTION_PROCESSES["worker"]["ARGS"]["concurency"] = 4', env, data
        )

        step("The release phase creates a fresh database")
        procfile.release(env, data / "release.log")
        applied = re.findall(
            r"Applying (\S+)\.\.\. OK", (data / "release.log").read_text()
        )
        detail(f"{len(applied)} migrations, the last one {applied[-1]}")

        step("The Procfile's processes start")
        names = [name for name in procfile.commands() if name != "release"]
        running = {name: start(name, name) for name in names}
        api = Api(port)
        for name in ("worker", "beat"):
            running[name].wait_until_ready()
        api.wait_until_healthy(running["web"])
        started = time.monotonic()
        for name, process in running.items():
            detail(f"{name:<7}{' '.join(process.command)}  (pid {process.pid})")

        step("Memory, with what processes share counted once")
        if sys.platform == "linux":
            compare_memory(env, data / "compared")
        else:
            detail("Only Linux tells it.")

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

        step("The probe tells a worker that works from one that only exists")
        heartbeat = data / "worker.heartbeat"
        assert probe("at work", heartbeat) == 0
        running["worker"].send(signal.SIGSTOP)
        try:
            time.sleep(SILENCE + 1)
            assert probe("frozen", heartbeat, "--max-age", str(SILENCE)) == 1
        finally:
            running["worker"].send(signal.SIGCONT)

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
        running["beat"].wait_for(SENDS)
        detail(f"beat sent the first task {time.monotonic() - added:.1f} s later")

        step("The worker sends the digest")
        message = wait_for_email(mailbox)
        running["worker"].wait_for(r"send_moderator_digest\[\S+\] succeeded")
        assert "For my neighbour, who is ill." in mails.text(message)
        detail(mails.show(message))
        running["worker"].wait_for(r"send_moderator_digest\[\S+\] succeeded", count=2)
        detail("Next time there is nothing new, so the worker sends nothing.")

        step("A second beat stands by, and takes over when the first is killed")
        second = start("second beat", "beat", HEARTBEAT_FOLDER=str(apart))
        second.wait_until_ready()
        detail(f"the first, pid {running['beat'].pid}, leads; {second.pid} stands by")
        sent = running["beat"].output.count(SENDS)
        running["beat"].kill()
        killed = time.monotonic()
        assert probe("the first", data / "beat.heartbeat") == 1
        second.wait_for(SENDS)
        detail(
            f"the first had sent {sent}; the second sent the next one "
            f"{time.monotonic() - killed:.1f} s after the kill"
        )
        running["beat"] = second

        step("The schedule is switched off, as a click in the admin would do")
        schedule.enabled = False
        noticed = second.output.count(CHANGED)
        with transaction.atomic():
            schedule.save()
        second.wait_for(CHANGED, count=noticed + 1)
        sent = second.output.count(SENDS)
        time.sleep(2.5 * INTERVAL)
        after = second.output.count(SENDS)
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
    except (AssertionError, OSError) as error:  # too late, or refused
        tell(f"\nThe demonstration failed: {error}")
        sys.exit(1)
