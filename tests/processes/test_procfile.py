"""The Procfile's processes, without services (the default) and with them."""

from __future__ import annotations

import signal
import urllib.request

import pytest

from dev.procfile import commands, free_port
from prodserver_celery5.pytest_plugin.process import DEADLINE
from tests.deployment import Deployment, stop_asleep, wait_until, wait_until_asleep

# The oldest Celery has the newest kombu and psycopg, too.
POSTGRESQL = pytest.param("redis-postgresql", marks=pytest.mark.once)
RABBITMQ = pytest.param("rabbitmq-sqlite", marks=pytest.mark.once)


def on(*services: object) -> pytest.MarkDecorator:
    """Run a test without services, and with some."""
    return pytest.mark.parametrize("services", ["filesystem-sqlite", *services])


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=DEADLINE) as response:
        assert response.status == 200
        return response.read()


@on(POSTGRESQL)
def test_web_answers_on_port(deployment: Deployment) -> None:
    port = free_port()
    deployment.env["PORT"] = str(port)
    web = deployment.start("web")
    web.wait_until_ready()
    base = f"http://127.0.0.1:{port}"
    assert b'"ok"' in get(f"{base}/healthz")
    assert b"body" in get(f"{base}/static/admin/css/base.css")
    assert web.stop() == 0


@pytest.mark.smoke
@on(POSTGRESQL, RABBITMQ)
def test_worker_runs_a_task_whose_effect_is_in_the_database(
    deployment: Deployment,
) -> None:
    deployment.env["EMAIL_URL"] = "consolemail://"
    deployment.shell(
        "from django.contrib.auth import get_user_model as u\n"
        "from prayer_room_api.models import *\n"
        "from prayer_room_api.tasks import send_moderator_digest\n"
        "staff = u().objects.create_superuser('staff', 's@example.org')\n"
        "DigestSubscription.objects.create(user=staff, digest='moderator')\n"
        "PrayerRequest.objects.create(text='For rain')\n"
        "send_moderator_digest.delay()\n"
    )
    worker = deployment.start("worker")
    worker.wait_for(r"send_moderator_digest\[\S+\] succeeded")
    log = deployment.shell(
        "from prayer_room_api.models import *\n"
        "print(*EmailLog.objects.values_list('recipient', 'status'))"
    )
    assert log == "('s@example.org', 'sent')"


@on(RABBITMQ)
def test_sigterm_lets_the_worker_finish_the_task_under_way(
    deployment: Deployment,
) -> None:
    worker = deployment.start("worker")
    deployment.shell("from tests.processes.tasks import hold; hold.delay('a')")
    deployment.wait_for_notes(1)
    wait_until_asleep(worker)
    worker.send(signal.SIGTERM)
    worker.wait_for("Warm shutdown")
    deployment.gate.touch()
    assert worker.wait() == 0
    assert deployment.notes() == ["began a", "ended a"]


@pytest.mark.smoke
@on(POSTGRESQL, RABBITMQ)
def test_idle_processes_end_with_0(deployment: Deployment) -> None:
    deployment.env["PORT"] = str(free_port())
    processes = [deployment.start(name) for name in ("web", "worker", "beat")]
    for process in processes:
        process.wait_until_ready()
    assert [process.stop() for process in processes] == [0, 0, 0]


SCHEDULE = """
from django.db import transaction
from django_celery_beat.models import IntervalSchedule, PeriodicTask
every, _ = IntervalSchedule.objects.get_or_create(every=1, period="seconds")
with transaction.atomic():  # as in the admin: else beat may look between two writes
    PeriodicTask.objects.create(
        name={name!r}, task="tests.behaviour.tasks.write", args='["{name}"]',
        interval=every,
    )
"""


@on(POSTGRESQL, RABBITMQ)
def test_beat_sends_what_is_due_and_follows_the_database(
    deployment: Deployment,
) -> None:
    deployment.shell(SCHEDULE.format(name="early"))
    beat = deployment.start("beat")
    beat.wait_for("Sending due task early")
    # Beat notices changes only from its second look at the database.
    beat.wait_for("Sending due task early", count=7)

    deployment.shell(SCHEDULE.format(name="late"))
    beat.wait_for("Sending due task late")

    deployment.shell(
        "from django.db import transaction\n"
        "from django_celery_beat.models import *\n"
        "row = PeriodicTask.objects.get(name='early')\n"
        "row.enabled = False\n"
        "with transaction.atomic():\n"
        "    row.save()\n"
    )

    def disabled() -> bool:
        sent = beat.output.count("Sending due task early")
        late = beat.output.count("Sending due task late")
        beat.wait_for("Sending due task late", count=late + 3)
        return beat.output.count("Sending due task early") == sent

    assert wait_until(disabled)
    names = deployment.shell(
        "from django_celery_beat.models import *\n"
        "print(*PeriodicTask.objects.values_list('name', flat=True))"
    )
    assert "celery.backend_cleanup" in names.split()
    assert stop_asleep(beat) == 0


MESSAGES = """
from prayer_room_api.celery import app
names = []
with app.connection() as connection:
    queue = connection.SimpleQueue("celery")
    while True:
        try:
            message = queue.get(block=False)
        except queue.Empty:
            break
        names.append(message.headers["task"])
        message.ack()
print(names.count("tests.behaviour.tasks.write"))
"""

RUNS = """
from django_celery_beat.models import PeriodicTask
print(PeriodicTask.objects.get(name="early").total_run_count)
"""


@pytest.mark.parametrize("leads", [True, False], ids=["one leads", "without the key"])
@on(POSTGRESQL)
def test_two_beats_during_a_deploy(deployment: Deployment, leads: bool) -> None:
    if leads:
        deployment.configure(
            "PRODUCTION_PROCESSES['beat']['LEADER_LOCK'] = LEADER_LOCK\n"
        )
    deployment.shell(SCHEDULE.format(name="early"))
    sending = "Sending due task early"
    old = deployment.start("beat")
    old.wait_for(sending)
    new = deployment.start("new", command=commands()["beat"])
    new.wait_for("Standing by" if leads else sending)
    before = old.output.count(sending)
    old.wait_for(sending, count=before + 4)
    if leads:
        assert sending not in new.output
    else:
        new.wait_for(sending, count=3)
    assert stop_asleep(old) == 0
    after = new.output.count(sending)
    new.wait_for(sending, count=after + 2)
    assert stop_asleep(new) == 0
    messages = int(deployment.shell(MESSAGES))
    # Each beat may have ended before its last message was out.
    assert messages >= sum(beat.output.count(sending) for beat in (old, new)) - 2
    if leads:
        assert messages <= int(deployment.shell(RUNS))


def test_the_exit_status_is_handed_on(deployment: Deployment) -> None:
    pidfile = deployment.folder / "worker.pid"
    deployment.configure(
        f"PRODUCTION_PROCESSES['worker']['ARGS']['pidfile'] = {str(pidfile)!r}\n"
    )
    first = deployment.start("worker")
    first.wait_until_ready()
    second = deployment.start("second", command=first.command)
    # 73 is EX_CANTCREAT, as with `celery worker`.
    assert second.wait() == 73
    assert first.stop() == 0
