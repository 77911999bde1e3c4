import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from prayer_room_api.models import DigestSubscription, EmailLog, PrayerRequest

pytestmark = pytest.mark.django_db

OURS = "/admin/prayer_room_api/"
Status = PrayerRequest.Status


@pytest.fixture
def log() -> EmailLog:
    return EmailLog.objects.create(
        recipient="ann@example.org",
        digest="daily",
        period="2026-11-22",
        covers_until=timezone.now(),
        status="unknown",
    )


@pytest.mark.parametrize(
    "page",
    [
        f"{OURS}prayerrequest/",
        f"{OURS}prayerrequest/add/",
        f"{OURS}digestsubscription/",
        f"{OURS}digestsubscription/add/",
        f"{OURS}emailtemplate/",
        f"{OURS}emailtemplate/add/",
        f"{OURS}emaillog/",
        "/admin/django_celery_beat/periodictask/",
    ],
)
def test_there_is_a_page_for_all_of_it(admin_client, page, log):
    PrayerRequest.objects.create(text="Peace")
    assert admin_client.get(page).status_code == 200
    if not page.endswith("add/"):
        assert admin_client.get(page, {"q": "ann"}).status_code == 200


def test_the_schedules_are_listed(admin_client):
    page = admin_client.get("/admin/django_celery_beat/periodictask/")
    for name in ("moderator-digest-hourly", "user-digest-daily", "user-digest-weekly"):
        assert name in page.content.decode()


def test_unknown_is_shown_and_nothing_in_the_log_changes(admin_client, log):
    assert "Unknown" in admin_client.get(f"{OURS}emaillog/").content.decode()
    url = f"{OURS}emaillog/{log.pk}/"
    assert admin_client.get(f"{url}change/").status_code == 200
    assert admin_client.post(f"{url}change/", {"status": "sent"}).status_code == 403
    assert admin_client.post(f"{url}delete/", {"post": "yes"}).status_code == 403
    assert admin_client.get(f"{OURS}emaillog/add/").status_code == 403
    log.refresh_from_db()
    assert log.status == "unknown"


@pytest.mark.parametrize(
    ("action", "result"),
    [
        ("approve", ["approved", "approved", "approved"]),
        ("archive", ["archived", "archived", "archived"]),
    ],
)
def test_actions(admin_client, action, result):
    requests = [
        PrayerRequest.objects.create(text="x", status=status)
        for status in ("pending", "flagged", result[0])
    ]
    page = admin_client.post(
        f"{OURS}prayerrequest/",
        {"action": action, "_selected_action": [each.pk for each in requests]},
        follow=True,
    )
    found = PrayerRequest.objects.order_by("pk").values_list("status", flat=True)
    assert list(found) == result
    assert "2 made" in page.content.decode()
    assert "cannot become" in page.content.decode()


def test_a_response_knows_who_and_when(admin_client, admin_user):
    request = PrayerRequest.objects.create(text="Peace", status="approved")
    url = f"{OURS}prayerrequest/{request.pk}/change/"
    form = {"kind": "prayer", "name": "", "text": "Peace", "author": ""}

    admin_client.post(url, {**form, "response": ""})
    request.refresh_from_db()
    assert (request.responded_by, request.responded_at) == (None, None)

    answer = admin_client.post(url, {**form, "response": "Amen", "status": "archived"})
    assert answer.status_code == 302
    request.refresh_from_db()
    assert (request.response, request.responded_by) == ("Amen", admin_user)
    first = request.responded_at
    assert first is not None
    assert request.status == "approved"

    # Something else is edited: no news for the author.
    admin_client.post(url, {**form, "name": "Ann", "response": "Amen"})
    request.refresh_from_db()
    assert (request.name, request.responded_at) == ("Ann", first)

    admin_client.post(url, {**form, "response": ""})
    request.refresh_from_db()
    assert (request.responded_by, request.responded_at) == (None, None)


def test_a_template_that_does_not_work_is_not_saved(admin_client):
    page = admin_client.post(
        f"{OURS}emailtemplate/1/change/",
        {"digest": "moderator", "subject": "x", "body": "{% if %}"},
    )
    assert page.status_code == 200
    assert "does not work" in page.content.decode()


def test_subscriptions_that_would_never_be_sent_are_refused(person, staff):
    DigestSubscription(user=person, digest="daily").full_clean()
    DigestSubscription(user=staff, digest="moderator").full_clean()
    with pytest.raises(ValidationError, match="staff"):
        DigestSubscription(user=person, digest="moderator").full_clean()
    person.email = ""
    with pytest.raises(ValidationError, match="address"):
        DigestSubscription(user=person, digest="daily").full_clean()


def test_a_subscription_is_there_once(person, subscribe):
    subscribe("daily", person)
    with pytest.raises(IntegrityError), transaction.atomic():
        subscribe("daily", person)
