import html
import re
from datetime import datetime, timedelta
from datetime import timezone as dt_timezone

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
        f"{OURS}prayerrequest/?show=all",
        {"action": action, "_selected_action": [each.pk for each in requests]},
        follow=True,
    )
    found = PrayerRequest.objects.order_by("pk").values_list("status", flat=True)
    assert list(found) == result
    assert f"2 requests {result[0]}." in page.content.decode()
    assert "cannot become" in page.content.decode()


# --- Moderation -----------------------------------------------------------------

LIST = f"{OURS}prayerrequest/"


def read(answer) -> str:
    """Return the text that a reader sees, on one line."""
    assert answer.status_code == 200
    text = re.sub(r"<[^>]*>", " ", answer.content.decode())
    return " ".join(html.unescape(text).split())


@pytest.fixture
def one_of_each() -> dict[str, PrayerRequest]:
    at = timezone.now()
    return {
        name: PrayerRequest.objects.create(
            text=f"It is {name}.", status_changed_at=at - timedelta(hours=age), **fields
        )
        for name, age, fields in (
            ("new", 1, {}),
            ("oldest", 9, {"name": "Ruth"}),
            ("flagged", 5, {"status": "flagged", "flag_count": 1}),
            ("approved", 7, {"status": "approved"}),
            (
                "flagged again",
                8,
                {
                    "status": "approved",
                    "flag_count": 2,
                    "flagged_again_at": at - timedelta(hours=3),
                },
            ),
            ("archived", 6, {"status": "archived"}),
        )
    }


def listed(answer) -> list[str]:
    return re.findall(r"It is ([a-z ]+)\.", read(answer))


@pytest.mark.parametrize(
    ("query", "found"),
    [
        # The longest wait comes first.
        ({}, ["oldest", "flagged", "flagged again", "new"]),
        ({"show": "nonsense"}, ["oldest", "flagged", "flagged again", "new"]),
        ({"show": "archived"}, ["archived"]),
        ({"show": "approved"}, ["flagged again", "approved"]),
        (
            {"show": "all"},
            [
                *("oldest", "flagged", "flagged again", "new"),
                *("archived", "approved"),
            ],
        ),
        # A search looks everywhere.
        ({"q": "archived"}, ["archived"]),
        ({"q": "archived", "show": "waiting"}, []),
    ],
)
def test_what_waits_comes_first_with_its_text(admin_client, one_of_each, query, found):
    for pk, each in enumerate(one_of_each.values()):
        PrayerRequest.objects.filter(pk=each.pk).update(
            created_at=timezone.now() + timedelta(minutes=pk)
        )
    page = admin_client.get(LIST, query)
    assert listed(page) == found
    filters = read(page)
    assert filters.index("Waiting for us (4)") < filters.index("By kind")


@pytest.mark.parametrize(
    ("name", "buttons"),
    [
        ("new", ["approved Approve", "archived Archive"]),
        ("flagged", ["approved Put back on the list", "archived Archive"]),
        ("flagged again", ["approved Keep on the list", "archived Archive"]),
        ("approved", ["archived Archive"]),
        ("archived", ["approved Approve", "pending Reopen"]),
    ],
)
def test_the_buttons_are_where_one_reads(admin_client, one_of_each, name, buttons):
    for page in (
        admin_client.get(LIST, {"show": "all", "q": f"It is {name}."}),
        admin_client.get(f"{LIST}{one_of_each[name].pk}/change/"),
    ):
        assert f"It is {name}." in read(page)
        found = re.findall(
            r'<button type="submit" class="decide (\w+)"[^>]*>([^<]*)',
            page.content.decode(),
        )
        assert [" ".join(each) for each in found] == buttons


@pytest.mark.parametrize("status", ["approved", "archived"])
def test_a_button_in_the_list(admin_client, one_of_each, status):
    new = one_of_each["new"]
    page = admin_client.get(LIST, {"kind__exact": "prayer"}).content.decode()
    (url,) = re.findall(rf'formaction="([^"]*/{new.pk}/make/{status}/[^"]*)"', page)
    assert admin_client.get(url).status_code == 405
    answer = admin_client.post(html.unescape(url))
    # Back to the same list.
    assert answer["Location"] == f"{LIST}?kind__exact=prayer"
    new.refresh_from_db()
    assert new.status == status
    assert "It is new." in read(admin_client.get(LIST, {"show": "archived"}))
    history = read(admin_client.get(f"{LIST}{new.pk}/history/"))
    assert f"Marked {status}." in history
    again = admin_client.post(url, follow=True)
    assert f"A request that is {status} cannot become {status}." in read(again)


def test_a_button_beside_the_text_keeps_what_was_written(
    admin_client, admin_user, one_of_each
):
    flagged = one_of_each["flagged"]
    answer = admin_client.post(
        f"{LIST}{flagged.pk}/change/?_changelist_filters=show%3Dall",
        {
            "kind": "prayer",
            "text": "It is well.",
            "response": "Amen",
            "_decide": "approved",
        },
    )
    assert answer["Location"] == f"{LIST}?show=all"
    flagged.refresh_from_db()
    assert (flagged.status, flagged.text) == ("approved", "It is well.")
    assert (flagged.response, flagged.responded_by) == ("Amen", admin_user)


def test_what_is_corrected_decides_nothing(admin_client, monkeypatch):
    request = PrayerRequest.objects.create(text="Peace", status="approved")
    clean = PrayerRequest.clean

    def flagged_meanwhile(self):
        PrayerRequest.objects.get(pk=self.pk).flag()
        clean(self)

    monkeypatch.setattr(PrayerRequest, "clean", flagged_meanwhile)
    admin_client.post(
        f"{LIST}{request.pk}/change/", {"kind": "praise", "text": "Peace"}
    )
    request.refresh_from_db()
    assert (request.kind, request.status, request.flag_count) == (
        "praise",
        "flagged",
        1,
    )


def test_who_may_only_look_has_no_buttons(client, newcomer, may, one_of_each):
    client.force_login(newcomer)
    assert client.get(LIST).status_code == 403
    assert "waiting for us" not in read(client.get("/admin/"))
    may(newcomer, "view")
    new = one_of_each["new"]
    assert client.post(f"{LIST}{new.pk}/make/approved/").status_code == 403
    for page in (client.get(LIST), client.get(f"{LIST}{new.pk}/change/")):
        assert "It is new." in read(page)
        assert 'class="decide approved"' not in page.content.decode()
    new.refresh_from_db()
    assert new.status == "pending"


def test_what_people_write_is_no_markup(admin_client):
    request = PrayerRequest.objects.create(text="<b>x</b>", name="<i>y</i>")
    url = f"{LIST}{request.pk}"
    for page in (
        admin_client.get(LIST),
        admin_client.get(f"{url}/change/"),
        admin_client.post(f"{url}/make/approved/", follow=True),
    ):
        body = page.content.decode()
        assert "&lt;b&gt;x" in body
        assert "<b>x" not in body
        assert "<i>y" not in body


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "No requests are waiting for us"),
        (1, "1 request is waiting for us"),
        (2, "2 requests are waiting for us"),
    ],
)
def test_the_front_says_how_many_wait(admin_client, number, text):
    for _ in range(number):
        PrayerRequest.objects.create(text="Peace")
    PrayerRequest.objects.create(text="Peace", status="approved")
    page = admin_client.get("/admin/")
    assert text in read(page)
    assert f'href="{LIST}"' in page.content.decode()


def test_who_will_read_a_response_is_said_beforehand(admin_client, person, subscribe):
    def reader(author) -> str:
        request = PrayerRequest.objects.create(text="Peace", author=author)
        page = read(admin_client.get(f"{LIST}{request.pk}/change/"))
        (found,) = re.findall(r"Who receives it: (.*) Response:", page)
        return found

    assert reader(None) == "Nobody : it was posted without logging in."
    assert reader(person) == "Nobody : ann receives no digest of responses."
    subscribe("daily", person)
    assert reader(person) == "ann, in the daily digest."
    subscribe("weekly", person)
    assert reader(person) == "ann, in the daily and the weekly digest."
    type(person).objects.filter(pk=person.pk).update(email="")
    assert reader(person) == "Nobody : ann receives no digest of responses."


def test_the_time_that_an_email_covers_is_read_at_a_glance(admin_client, log):
    log.covers_until = datetime(2026, 11, 22, 8, 0, 0, 123456, tzinfo=dt_timezone.utc)
    log.period = log.covers_until.isoformat()
    log.save()
    for page in (
        admin_client.get(f"{OURS}emaillog/"),
        admin_client.get(f"{OURS}emaillog/{log.pk}/change/"),
    ):
        assert "Covers until" in read(page)
        assert "22 Nov 2026, 08:00" in read(page)
        assert "123456" not in read(page)


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


@pytest.mark.parametrize(
    ("name", "back"),
    [
        ("new", ("pending", None)),
        ("flagged", ("flagged", None)),
        ("approved", ("approved", None)),
        # It waits for the team as before, but off the list.
        ("flagged again", ("flagged", None)),
    ],
)
def test_archiving_can_be_undone(admin_client, one_of_each, name, back):
    request = one_of_each[name]
    url = f"{LIST}{request.pk}/make/archived/?kind__exact=prayer"
    page = admin_client.post(url, follow=True).content.decode()
    form = r'<form id="changelist-form" method="post"'
    assert re.search(form, page)
    (undo,) = re.findall(
        r'<button class="undo" form="changelist-form" formaction="([^"]*)">Undo', page
    )
    answer = admin_client.post(html.unescape(undo))
    assert answer["Location"] == f"{LIST}?kind__exact=prayer"
    assert "Undo" not in read(admin_client.get(LIST))
    request.refresh_from_db()
    assert (request.status, request.flagged_again_at) == back


def test_only_what_is_archived_is_reopened(admin_client, one_of_each):
    page = admin_client.post(
        f"{LIST}?show=all",
        {
            "action": "reopen",
            "_selected_action": [
                one_of_each[name].pk for name in ("archived", "approved", "flagged")
            ],
        },
        follow=True,
    )
    assert "1 request pending." in read(page)
    assert "A request that is flagged cannot become pending." in read(page)
    one_of_each["archived"].refresh_from_db()
    assert one_of_each["archived"].waiting_since is not None


def test_a_response_that_nobody_will_receive_is_said_to_be_so(
    admin_client, person, subscribe
):
    def respond(author) -> str:
        request = PrayerRequest.objects.create(text="Peace", author=author)
        form = {
            "kind": "prayer",
            "text": "Peace",
            "author": author.pk if author else "",
        }
        url = f"{LIST}{request.pk}/change/"
        return read(admin_client.post(url, {**form, "response": "Amen"}, follow=True))

    nobody = "Response saved; nobody will receive it: "
    assert f"{nobody}it was posted without logging in." in respond(None)
    assert f"{nobody}ann receives no digest of responses." in respond(person)
    subscribe("daily", person)
    assert nobody not in respond(person)


def test_one_name_for_each_state(admin_client, one_of_each):
    page = read(admin_client.get(LIST, {"show": "all"}))
    for name in (
        "Pending",
        "Flagged",
        "Approved, flagged again",
        "Approved",
        "Archived",
    ):
        assert re.search(rf"\d\d:\d\d {name} It is", page), name
    filters = page[page.index("By status") :]
    assert filters.startswith("By status Waiting for us (4) Approved Archived All")


TEMPLATE = f"{OURS}emailtemplate/1/"


def test_what_a_template_can_show_is_beside_it(admin_client):
    page = read(admin_client.get(f"{TEMPLATE}change/"))
    for text in (
        "{% for request in pending %} … {% endfor %}",
        "{{ count }} 2",
        "{{ request.name }} Ann",
        "{{ request.link }} https://prayer.example/1",
    ):
        assert text in page
    assert "request.link" not in read(
        admin_client.get(f"{OURS}emailtemplate/2/change/")
    )


def test_a_template_is_previewed_before_it_is_saved(admin_client, client, staff):
    page = admin_client.get(f"{TEMPLATE}change/").content.decode()
    (url,) = re.findall(r'<iframe [^>]*name="preview"[^>]* src="([^"]*)"', page)
    assert f'formaction="{url}" formtarget="preview"' in page
    saved = admin_client.get(url)
    assert "2 requests to look at" in read(saved)
    # In a frame of the admin's own, and without what a script could do there.
    assert saved["X-Frame-Options"] == "SAMEORIGIN"
    assert saved["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    typed = {"digest": "moderator", "subject": "{{ count }} <i>", "body": "*new*"}
    answer = admin_client.post(url, typed).content.decode()
    assert "2 &lt;i&gt;" in answer
    assert "<em>new</em>" in answer
    assert "does not work" in read(
        admin_client.post(url, {**typed, "body": "{% if %}"})
    )
    assert "to look at" in read(admin_client.get(url))
    client.force_login(staff)
    assert client.get(url).status_code == 403


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
