"""Who is sent what, once: selecting, claiming, and a row's outcome."""

from datetime import datetime, timedelta, timezone
from html import unescape
from operator import attrgetter

import pytest
from django.core import mail
from django.db import IntegrityError, transaction

from prayer_room_api import digests, tasks
from prayer_room_api.models import Digest, DigestSubscription, EmailLog, PrayerRequest

pytestmark = pytest.mark.django_db

Status = EmailLog.Status


class KilledError(BaseException):
    """The process dies in the middle: no `except Exception` sees it."""


def log() -> list[tuple[str, str]]:
    return list(EmailLog.objects.order_by("pk").values_list("recipient", "status"))


def send_moderator_digest(task_id: str = "task") -> int:
    """Run the task as a worker would, and raise what it raised."""
    return tasks.send_moderator_digest.apply(task_id=task_id).get()


def send_user_digest(frequency: str = "daily", task_id: str = "task") -> int:
    return tasks.send_user_digest.apply([frequency], task_id=task_id).get()


# --- The moderator digest -------------------------------------------------------


@pytest.fixture
def waiting(staff, subscribe) -> PrayerRequest:
    subscribe("moderator", staff)
    return PrayerRequest.objects.create(text="Peace", name="Ann")


def test_moderators_are_told_what_is_pending_or_flagged(waiting):
    PrayerRequest.objects.create(text="Rude", status="flagged", flag_count=2)
    PrayerRequest.objects.create(text="Public", status="approved")
    PrayerRequest.objects.create(text="Old", status="archived")
    assert send_moderator_digest() == 1
    (message,) = mail.outbox
    assert message.to == ["moderator@example.org"]
    assert message.subject == "Prayer room: 2 requests to look at"
    html, mimetype = message.alternatives[0]
    assert mimetype == "text/html"
    for part in (message.body, html):
        assert "Peace" in part
        assert "Rude" in part
        assert "Public" not in part
        assert "Old" not in part
    assert "<li>" in html
    assert "<" not in message.body


def test_moderators_are_told_nothing_when_nothing_waits(staff, subscribe):
    subscribe("moderator", staff)
    PrayerRequest.objects.create(text="Public", status="approved")
    assert send_moderator_digest() == 0
    assert mail.outbox == []
    assert log() == []


def test_moderators_are_told_nothing_when_there_is_nothing_new(waiting):
    older = PrayerRequest.objects.create(
        text="Older", status_changed_at=waiting.status_changed_at - timedelta(hours=1)
    )
    assert send_moderator_digest("first") == 1
    assert send_moderator_digest("second") == 0
    # Fewer are waiting, and another one is the newest, but nothing is new.
    waiting.move_to("archived")
    assert send_moderator_digest("third") == 0
    # A flag is news, and so is another request.
    older.move_to("approved")
    older.flag()
    assert send_moderator_digest("fourth") == 1
    PrayerRequest.objects.create(text="New")
    assert send_moderator_digest("fifth") == 1
    assert len(mail.outbox) == 3


def test_moderators_are_told_once_of_what_is_flagged_again(waiting):
    waiting.move_to("approved")
    waiting.flag()
    assert send_moderator_digest("first") == 1
    waiting.move_to("approved")
    assert send_moderator_digest("second") == 0
    waiting.flag()
    assert send_moderator_digest("third") == 1
    assert "flagged 2 times, still on the list: Peace" in mail.outbox[-1].body
    waiting.flag()
    assert send_moderator_digest("fourth") == 0


def test_what_moderators_are_told_of_is_one_click_away(waiting, settings):
    flagged = PrayerRequest.objects.create(text="Rude", status="flagged", flag_count=1)
    assert "admin" not in digest_of(settings, "")
    body = digest_of(settings, "https://prayer.example.org")
    html = mail.outbox[-1].alternatives[0][0]
    for each in (waiting, flagged):
        path = f"/admin/prayer_room_api/prayerrequest/{each.pk}/change/"
        assert f"\n  <https://prayer.example.org{path}>\n" in body
        assert f'href="https://prayer.example.org{path}"' in unescape(html)


def digest_of(settings, site_url: str) -> str:
    settings.SITE_URL = site_url
    EmailLog.objects.all().delete()
    assert send_moderator_digest() == 1
    return mail.outbox[-1].body


@pytest.mark.parametrize("change", [{"is_staff": False}, {"is_active": False}])
def test_only_active_staff_receive_the_moderator_digest(waiting, staff, change):
    type(staff).objects.filter(pk=staff.pk).update(**change)
    assert send_moderator_digest() == 0
    assert mail.outbox == []


def test_who_has_not_subscribed_or_has_no_address_is_left_alone(staff, person):
    PrayerRequest.objects.create(text="Peace")
    assert send_moderator_digest() == 0
    DigestSubscription.objects.create(user=staff, digest="moderator")
    type(staff).objects.filter(pk=staff.pk).update(email="")
    assert send_moderator_digest() == 0


# --- The digests of responses ---------------------------------------------------


@pytest.mark.parametrize("frequency", ["daily", "weekly"])
def test_people_are_told_of_responses_to_their_own_requests(
    person, staff, subscribe, answered, frequency
):
    subscribe(frequency, person, staff)
    answered(response="We prayed for you.")
    answered(author=None, response="Nobody's")
    PrayerRequest.objects.create(text="Not yet answered", author=person)
    assert send_user_digest(frequency) == 1
    (message,) = mail.outbox
    assert message.to == ["ann@example.org"]
    for part in (message.body, message.alternatives[0][0]):
        assert "We prayed for you." in part
        assert "For my neighbour" in part
        assert "Nobody" not in part
        assert "Not yet" not in part


def test_the_other_frequency_is_somebody_else_s(person, subscribe, answered):
    subscribe("weekly", person)
    answered()
    assert send_user_digest("daily") == 0
    assert mail.outbox == []


def test_only_what_is_new_since_the_last_digest(
    person, subscribe, answered, monkeypatch
):
    subscribe("daily", person)
    answered(response="First answer")
    assert send_user_digest(task_id="today") == 1
    monkeypatch.setattr(digests, "current_period", lambda digest: "tomorrow")
    assert send_user_digest(task_id="tomorrow, nothing new") == 0
    answered(response="Second answer")
    assert send_user_digest(task_id="tomorrow") == 1
    assert "First" not in mail.outbox[1].body
    assert "Second answer" in mail.outbox[1].body


@pytest.mark.parametrize(
    ("frequency", "window"),
    [("daily", timedelta(days=1)), ("weekly", timedelta(weeks=1))],
)
def test_the_first_digest_looks_back_a_day_or_a_week(
    person, subscribe, answered, frequency, window
):
    subscribe(frequency, person)
    request = answered()
    subscribed = DigestSubscription.objects.get().created_at
    requests = PrayerRequest.objects.filter(pk=request.pk)
    requests.update(responded_at=subscribed - window)
    assert send_user_digest(frequency, "too old") == 0
    requests.update(responded_at=subscribed - window + timedelta(minutes=1))
    assert send_user_digest(frequency, "new enough") == 1


def test_a_day_on_which_every_attempt_failed_is_made_up_for(
    person, subscribe, answered, mail_server, monkeypatch
):
    subscribe("daily", person)
    request = answered()
    mail_server.refuses("ann@example.org", OSError("down"))
    with pytest.raises(tasks.DigestIncompleteError):
        send_user_digest(task_id="today")
    mail_server.on_send.clear()
    # Three days later: further back than a new subscriber's first digest looks.
    past = timedelta(days=3)
    PrayerRequest.objects.update(responded_at=request.responded_at - past)
    subscription = DigestSubscription.objects.get()
    DigestSubscription.objects.update(created_at=subscription.created_at - past)
    monkeypatch.setattr(digests, "current_period", lambda digest: "later")
    assert send_user_digest(task_id="later") == 1
    assert log() == [("ann@example.org", "failed"), ("ann@example.org", "sent")]


def test_a_family_that_shares_an_address_gets_one_email(
    person, staff, subscribe, answered, django_user_model
):
    son = django_user_model.objects.create_user("bob", "Ann@Example.org", "secret")
    subscribe("daily", person, son)
    answered(response="For Ann")
    answered(author=son, response="For Bob")
    assert send_user_digest() == 1
    (message,) = mail.outbox
    assert "For Ann" in message.body
    assert "For Bob" in message.body


@pytest.mark.parametrize("frequency", ["moderator", "hourly", "", None])
def test_any_other_frequency_is_an_error_that_names_it(frequency):
    with pytest.raises(ValueError, match=r"daily.*weekly") as raised:
        send_user_digest(frequency)
    assert repr(frequency) in str(raised.value)


def test_periods_are_those_of_the_project_s_time_zone(monkeypatch):
    # Half an hour past midnight on a Monday in London, still Sunday in UTC.
    now = datetime(2026, 6, 28, 23, 30, tzinfo=timezone.utc)
    monkeypatch.setattr("django.utils.timezone.now", lambda: now)
    assert digests.current_period(Digest.DAILY) == "2026-06-29"
    assert digests.current_period(Digest.WEEKLY) == "2026-W27"


# --- Once -----------------------------------------------------------------------


def test_recipient_digest_and_period_are_unique(waiting):
    send_moderator_digest()
    again = EmailLog.objects.get()
    again.pk = None
    with pytest.raises(IntegrityError), transaction.atomic():
        again.save(force_insert=True)


def test_a_redelivered_task_sends_nothing_twice(person, subscribe, answered, waiting):
    subscribe("daily", person)
    answered()
    assert send_moderator_digest("same") == 1
    assert send_user_digest(task_id="same too") == 1
    assert send_moderator_digest("same") == 0
    assert send_user_digest(task_id="same too") == 0
    assert len(mail.outbox) == 2
    assert {status for _, status in log()} == {"sent"}


def test_two_workers_that_selected_the_same_send_it_once(person, subscribe, answered):
    subscribe("daily", person)
    answered()
    one, other = (list(digests.due_to_users(Digest.DAILY)) for _ in range(2))
    assert len(one) == len(other) == 1
    assert digests.deliver(one, "one").sent == 1
    assert digests.deliver(other, "other").sent == 0
    assert len(mail.outbox) == 1


def test_a_second_task_while_the_first_one_is_sending(
    person, subscribe, answered, mail_server
):
    subscribe("daily", person)
    answered()
    seen = []
    mail_server.on_send["ann@example.org"] = lambda: seen.append(
        (log(), send_user_digest(task_id="second"))
    )
    assert send_user_digest(task_id="first") == 1
    # Claimed before it was sent, and left alone by the other task.
    assert seen == [([("ann@example.org", "sending")], 0)]
    assert log() == [("ann@example.org", "sent")]
    assert len(mail.outbox) == 1


def test_one_failing_recipient_stops_no_other_and_is_tried_again(
    waiting, subscribe, mail_server, django_user_model, caplog
):
    for name in ("b", "c"):
        subscribe(
            "moderator",
            django_user_model.objects.create_superuser(name, f"{name}@example.org"),
        )
    attempts = []

    def refuse_once() -> None:
        attempts.append(dict(log())["b@example.org"])
        if len(attempts) == 1:
            raise OSError("mailbox full")

    mail_server.on_send["b@example.org"] = refuse_once
    # Eager mode retries at once; a worker waits first.
    result = tasks.send_moderator_digest.apply(task_id="task")
    assert result.get() == 1
    assert mail_server.received == [
        "moderator@example.org",
        "c@example.org",
        "b@example.org",
    ]
    assert attempts == ["sending", "sending"]
    retried = EmailLog.objects.get(recipient="b@example.org")
    assert (retried.status, retried.attempts, retried.error) == ("sent", 2, "")
    assert "@example.org" not in caplog.text


def test_retries_end_and_the_log_says_why(waiting, mail_server):
    mail_server.refuses("moderator@example.org", OSError("mailbox full"))
    with pytest.raises(tasks.DigestIncompleteError):
        send_moderator_digest()
    row = EmailLog.objects.get()
    assert row.status == Status.FAILED
    assert row.error == "OSError: mailbox full"
    assert row.attempts == 1 + tasks.DIGEST["max_retries"]
    mail_server.on_send.clear()
    # The next hour's task tries again, although nothing is new.
    assert send_moderator_digest("an hour later") == 1


def test_what_was_cut_off_is_unknown_when_redelivered_and_not_sent_again(
    waiting, subscribe, mail_server, django_user_model, caplog
):
    later = django_user_model.objects.create_superuser("b", "b@example.org")
    subscribe("moderator", later)
    mail_server.refuses("moderator@example.org", KilledError())
    with pytest.raises(KilledError):
        send_moderator_digest("killed")
    assert log() == [("moderator@example.org", "sending")]
    mail_server.on_send.clear()
    assert send_moderator_digest("killed") == 1
    assert log() == [("moderator@example.org", "unknown"), ("b@example.org", "sent")]
    assert mail_server.received == ["b@example.org"]
    assert "may or may not" in EmailLog.objects.get(status="unknown").error
    assert "Cut off" in caplog.text
    assert send_moderator_digest("an hour later") == 0


def test_what_another_task_left_is_unknown_only_after_a_while(waiting, mail_server):
    mail_server.refuses("moderator@example.org", KilledError())
    with pytest.raises(KilledError):
        send_moderator_digest("killed")
    mail_server.on_send.clear()
    assert send_moderator_digest("another") == 0
    assert log() == [("moderator@example.org", "sending")]
    EmailLog.objects.update(
        claimed_at=EmailLog.objects.get().claimed_at - digests.CLAIM_TIMEOUT
    )
    # When there is news, too, the old row does not stay "sending" for ever.
    PrayerRequest.objects.create(text="New")
    assert send_moderator_digest("another") == 1
    assert sorted(status for _, status in log()) == ["sent", "unknown"]


def test_tasks_without_an_id_do_not_give_up_each_other_s(waiting, mail_server):
    seen = []
    mail_server.on_send["moderator@example.org"] = lambda: seen.append(
        (tasks.send_moderator_digest(), log())
    )
    assert tasks.send_moderator_digest() == 1
    assert seen == [(0, [("moderator@example.org", "sending")])]
    assert log() == [("moderator@example.org", "sent")]


@pytest.mark.parametrize(
    "task",
    [tasks.send_moderator_digest, tasks.send_user_digest],
    ids=attrgetter("name"),
)
def test_a_lost_worker_s_digest_is_delivered_again(task):
    assert task.acks_late
    assert task.reject_on_worker_lost
    assert task.name.startswith("prayer_room_api.tasks.send_")
