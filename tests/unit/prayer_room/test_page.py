"""The page at `/`: what it shows, and what it must not."""

import re
from datetime import datetime, timedelta, timezone

import pytest
from celery.beat import Scheduler
from celery.signals import beat_init, heartbeat_sent
from django.db import DatabaseError
from django.test import Client
from django.utils import timezone as django_timezone
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)

from prayer_room_api import heartbeat
from prayer_room_api.celery import app
from prayer_room_api.models import (
    BeatHeartbeat,
    EmailLog,
    PrayerRequest,
    WorkerHeartbeat,
)
from prayer_room_api.page import ago, beat_state
from prayer_room_api.schedules import Schedule, all_schedules

pytestmark = [
    pytest.mark.django_db,
    # From the crontabs of django-celery-beat 2.1, on Python 3.12.
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"),
]

# As django-celery-beat 2.2 and newer write it, and as older ones do.
AT_8 = r"(At 08:00|0 8 \* \* \* \(m/h/\S+\))"
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=timezone.utc)


class Quiet(Scheduler):
    """Has nothing to send, and sleeps for five seconds."""

    def tick(self) -> float:
        return 5


def words(answer) -> str:
    """Return the text that a reader sees, on one line."""
    assert answer.status_code == 200
    body = re.sub(r"<(style|head)\b.*?</\1>", "", answer.content.decode(), flags=re.S)
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def email(number: int, **fields) -> EmailLog:
    return EmailLog.objects.create(
        **{
            "recipient": f"ann{number}@example.org",
            "digest": "daily",
            "period": "2026-11-22",
            "covers_until": NOW,
            "status": "sent",
            "error": "SMTPError: smtp.example.org",
            "task_id": "4f1c",
            **fields,
        }
    )


def schedule(name="each", **fields) -> PeriodicTask:
    task = PeriodicTask.objects.create(name=name, task="x", **fields)
    # Saving sets date_changed to now.
    PeriodicTask.objects.filter(pk=task.pk).update(date_changed=NOW - timedelta(days=1))
    return task


def only_schedule() -> Schedule:
    (found,) = (each for each in all_schedules(NOW) if each.name == "each")
    return found


@pytest.fixture
def _at_noon(monkeypatch):
    """Set every schedule's own clock to `NOW`."""
    monkeypatch.setattr(
        "celery.schedules.BaseSchedule.now",
        lambda self: NOW.astimezone(self.tz),
    )
    monkeypatch.setattr(
        "django_celery_beat.models.TzAwareCrontab.now",
        lambda self: NOW.astimezone(self.tz),
        raising=False,
    )


def test_nothing_is_there_yet(client):
    PeriodicTask.objects.all().delete()
    page = words(client.get("/"))
    for text in (
        "manage.py prodserver web",
        "manage.py prodserver worker",
        "manage.py prodserver beat",
        "No worker has reported yet.",
        "No beat has reported yet.",
        "No request is on the list yet.",
        "No digest has been sent yet.",
        "There are no schedules.",
    ):
        assert text in page


def test_all_of_it_for_everybody_in_few_queries(client, django_assert_max_num_queries):
    for number in range(9):
        PrayerRequest.objects.create(text=f"Peace {number}", status="approved")
        email(number)
        email(number, digest="weekly", status="failed")
    # As each start of beat does.
    clean_up = "celery.backend_cleanup"
    schedule(clean_up, crontab=CrontabSchedule.objects.create(timezone="UTC"))
    PeriodicTask.objects.filter(name=clean_up).update(task=clean_up)
    WorkerHeartbeat.record()
    BeatHeartbeat.record()
    with django_assert_max_num_queries(5):
        answer = client.get("/")
    page = words(answer)
    assert [f"Peace {n}" in page for n in range(9)] == [False] * 4 + [True] * 5
    assert "Daily Sent 9" in page
    assert "Weekly Failed 9" in page
    assert "worker Running" in page
    assert re.search(
        r"beat Running Celery beat\..* It reported [^.]+\. Next run: "
        r"moderator-digest-hourly, due at \d+ \w+ 20\d\d, \d\d:00\.",
        page,
    )
    assert "backend_cleanup" not in page
    assert re.search(rf"user-digest-daily {AT_8} none yet \d+ \w+ 20\d\d, 08:00", page)
    assert 'href="/admin/"' in answer.content.decode()
    assert "no-store" in answer["Cache-Control"]


def test_what_is_nobody_s_business_is_not_on_it(client, person, staff):
    for status in ("pending", "flagged", "archived"):
        PrayerRequest.objects.create(text=f"A {status} one", status=status)
    PrayerRequest.objects.create(
        text="<script>alert(1)</script>",
        status="approved",
        name="Ruth",
        author=person,
        response="To the author only",
        responded_by=staff,
    )
    email(1)
    answer = client.get("/")
    body = answer.content.decode()
    for secret in (
        *("A pending one", "A flagged one", "A archived one"),
        *("Ruth", "To the author only", "example.org"),
        *("SMTPError", "4f1c", "<script", "0.0.0.0", "://"),
    ):
        assert secret not in body.replace("http://www.w3.org/2000/svg", ""), secret
    assert "&lt;script&gt;" in body
    assert "default-src 'none'" in answer["Content-Security-Policy"]


def test_versions_are_for_the_team_and_for_debug(client, person, staff, settings):
    assert "django-celery-beat " not in words(client.get("/"))
    client.force_login(person)
    assert "django-celery-beat " not in words(client.get("/"))
    client.force_login(staff)
    assert re.search(
        r"Django \d.* celery 5.* django-prodserver \d", words(client.get("/"))
    )
    client.logout()
    settings.DEBUG = True
    assert "django-celery-beat " in words(client.get("/"))


def test_a_visitor_posts_a_request(client, person):
    answer = client.post("/", {"kind": "praise", "text": " Thanks. ", "name": "Ann"})
    assert (answer.status_code, answer["Location"]) == (302, "/#ask")
    assert "Thank you." in words(client.get("/"))
    assert "Thank you." not in words(client.get("/"))
    client.force_login(person)
    client.post("/", {"kind": "prayer", "text": "Peace", "status": "approved"})
    assert list(
        PrayerRequest.objects.order_by("pk").values_list(
            "kind", "text", "name", "status", "author__username"
        )
    ) == [
        ("praise", "Thanks.", "Ann", "pending", None),
        ("prayer", "Peace", "", "pending", "ann"),
    ]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "This field is required."),
        ({"text": "\u202eecaep"}, "Remove the invisible character"),
        ({"text": "x" * 2001}, "at most 2000 characters"),
        ({"text": "Peace", "kind": "curse"}, "curse is not one of the available"),
    ],
)
def test_what_is_refused_stays_in_the_form(client, fields, text):
    answer = client.post("/", {"kind": "prayer", "name": "<b>Ann", **fields})
    assert answer.status_code == 400
    body = answer.content.decode()
    assert text in body
    assert 'value="&lt;b&gt;Ann"' in body
    assert not PrayerRequest.objects.exists()


def test_another_site_cannot_post_in_a_visitor_s_name():
    client = Client(enforce_csrf_checks=True)
    assert client.post("/", {"kind": "prayer", "text": "Peace"}).status_code == 403
    (token,) = re.findall(
        r'name="csrfmiddlewaretoken" value="(\w+)"', client.get("/").content.decode()
    )
    peace = {"kind": "prayer", "text": "Peace", "csrfmiddlewaretoken": token}
    assert client.post("/", peace).status_code == 302
    assert client.put("/").status_code == 403
    assert Client().put("/").status_code == 405


@pytest.mark.parametrize(
    ("server", "text"),
    [("gunicorn/23.0", "web Running"), ("WSGIServer/0.2", "web Not known")],
)
def test_the_server_that_made_it(client, server, text):
    assert text in words(client.get("/", SERVER_SOFTWARE=server))


@pytest.mark.parametrize(
    ("model", "name"), [(WorkerHeartbeat, "worker"), (BeatHeartbeat, "beat")]
)
def test_a_process_that_is_silent(client, model, name):
    model.record()
    model.record()
    seen = django_timezone.now() - timedelta(hours=3)
    assert model.objects.update(seen_at=seen) == 1
    page = words(client.get("/"))
    assert f"{name} Silent" in page
    assert page.count("3 hours ago") == 1


def test_the_page_asks_no_broker(client, monkeypatch):
    def connect(*args, **kwargs):
        raise AssertionError("the page wants a connection to the broker")

    monkeypatch.setattr("kombu.connection.Connection.connect", connect)
    monkeypatch.setattr("kombu.connection.Connection._ensure_connection", connect)
    assert client.get("/").status_code == 200


def test_celery_s_heartbeats_are_written_down_now_and_then(
    monkeypatch, django_assert_num_queries
):
    recorder = heartbeat.Recorder(WorkerHeartbeat)
    recorder()
    first = WorkerHeartbeat.last_seen()
    assert first is not None
    with django_assert_num_queries(0):
        recorder()
    later = heartbeat.time.monotonic() + heartbeat.WRITE_EVERY
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: later)
    recorder()
    assert WorkerHeartbeat.last_seen() > first


@pytest.mark.parametrize("signal", [heartbeat_sent, beat_init])
def test_a_worker_and_a_beat_listen(signal):
    keys = [key for key, _ in signal.receivers]
    assert any("prayer_room_api.heartbeat" in str(key) for key in keys)


def test_a_beat_records_at_its_ticks():
    service = app.Beat.Service(app, scheduler_cls=Quiet)
    beat_init.send(sender=service)
    assert BeatHeartbeat.last_seen() is None
    assert service.scheduler.tick() == 5
    assert BeatHeartbeat.last_seen() is not None


def test_a_worker_goes_on_without_its_database(monkeypatch, caplog):
    def fail():
        raise DatabaseError("gone")

    monkeypatch.setattr(WorkerHeartbeat, "record", fail)
    monkeypatch.setattr(heartbeat, "WRITE_EVERY", 0)
    recorder = heartbeat.Recorder(WorkerHeartbeat)
    recorder()
    recorder()
    assert [record.message for record in caplog.records] == [
        "The heartbeat was not recorded: gone"
    ]


def test_a_schedule_that_is_switched_off_is_shown_as_such(client):
    PeriodicTask.objects.filter(name="user-digest-weekly").update(
        enabled=False, last_run_at=None
    )
    page = words(client.get("/"))
    assert re.search(r"user-digest-weekly [^<]+ not kept switched off", page)
    assert re.search(rf"user-digest-daily {AT_8} none yet \d+ \w+", page)


@pytest.mark.usefixtures("_at_noon")
@pytest.mark.parametrize(
    ("make", "next_run"),
    [
        # 12:00 in UTC is 07:00 there.
        (
            lambda: {
                "crontab": CrontabSchedule.objects.create(
                    minute="30", hour="9", timezone="America/New_York"
                ),
                "last_run_at": NOW - timedelta(hours=20),
            },
            datetime(2026, 11, 22, 14, 30, tzinfo=timezone.utc),
        ),
        (
            lambda: {
                "interval": IntervalSchedule.objects.create(every=3, period="hours"),
                "last_run_at": NOW - timedelta(hours=1),
            },
            NOW + timedelta(hours=2),
        ),
        (
            lambda: {
                "clocked": ClockedSchedule.objects.create(
                    clocked_time=NOW + timedelta(days=9)
                ),
                "one_off": True,
            },
            NOW + timedelta(days=9),
        ),
        (
            lambda: {
                "interval": IntervalSchedule.objects.create(every=3, period="hours"),
                "start_time": NOW + timedelta(days=2),
            },
            NOW + timedelta(days=2),
        ),
    ],
    ids=["crontab of another zone", "interval", "clocked", "not before"],
)
def test_the_next_run(make, next_run):
    schedule(**make())
    found = only_schedule()
    assert (found.next_run, found.note) == (next_run, "")
    assert not found.is_overdue(NOW)


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"expires": NOW - timedelta(days=1)}, "expired"),
        ({"one_off": True, "total_run_count": 1}, "one-off, done"),
    ],
)
def test_there_is_no_next_run(fields, note):
    interval = IntervalSchedule.objects.create(every=3, period="hours")
    schedule(interval=interval, **fields)
    assert (only_schedule().next_run, only_schedule().note) == (None, note)


def test_a_schedule_that_cannot_be_computed_does_not_take_the_page_away(client):
    # The sun does not rise there in winter; or the library is not installed.
    solar = SolarSchedule.objects.create(event="sunrise", latitude=89, longitude=0)
    schedule(solar=solar)
    never = CrontabSchedule.objects.create(
        day_of_month="31", month_of_year="2", timezone="UTC"
    )
    schedule("never", crontab=never)
    assert words(client.get("/")).count("cannot be computed") == 2


@pytest.mark.parametrize(
    ("schedules", "label", "evidence"),
    [
        ([(None, 1)], "Running", "Next run: each, due at 22 Nov 2026, 13:00."),
        ([(None, 30), (-1, 0.5)], "Running", "due at 22 Nov 2026, 12:30."),
        # beat records its runs late, but does not start them late.
        ([(-1, -0.05)], "Running", "due at 22 Nov 2026, 11:57."),
        ([(None, None)], "Running", "It reported 4 seconds ago. Nothing is due."),
        ([], "Running", "Nothing is due."),
        ([(-3, -2), (-30, -6)], "Late", "each was due 2 hours ago, and has not been"),
        ([(-1, 1), (-30, -6)], "Late", "each was due 6 hours ago, and has not been"),
    ],
)
def test_what_is_known_of_beat(schedules, label, evidence):
    def hours(number):
        return None if number is None else NOW + timedelta(hours=number)

    found = [
        Schedule("each", "", True, hours(last), hours(due)) for last, due in schedules
    ]
    state = beat_state(NOW - timedelta(seconds=4), found, NOW)
    assert state.label == label
    assert evidence in state.evidence.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("twelve", "whole"),
    [
        ("At 08:00 AM", "At 08:00"),
        ("At 12:05 AM, only on Monday", "At 00:05, only on Monday"),
        ("Between 12:00 PM and 11:59 PM", "Between 12:00 and 23:59"),
    ],
)
def test_one_clock(monkeypatch, twelve, whole):
    monkeypatch.setattr(
        CrontabSchedule, "human_readable", f"{twelve} Europe/London", raising=False
    )
    schedule(crontab=CrontabSchedule.objects.create(timezone="Europe/London"))
    assert only_schedule().when == whole


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "just now"),
        (-1, "1 second ago"),
        (-59, "59 seconds ago"),
        (-3 * 3600, "3 hours ago"),
        (90, "in 1 minute"),
    ],
)
def test_ago(seconds, text):
    there = ago(NOW + timedelta(seconds=seconds), NOW)
    assert there.replace("\N{NO-BREAK SPACE}", " ") == text
