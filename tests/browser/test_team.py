"""The team's day, by clicks alone."""

from __future__ import annotations

import re

import pytest

from dev import mails

from ..deployment import Deployment
from .conftest import Browser

REQUESTS = """
from datetime import timedelta
from django.contrib.auth import get_user_model as u
from django.utils import timezone
from django_celery_beat.models import PeriodicTask
from prayer_room_api.models import *

now = timezone.now()
ruth = u().objects.create_user("ruth", "ruth@example.org")
DigestSubscription.objects.create(user=ruth, digest="daily")

def make(text, hours, **fields):
    at = now - timedelta(hours=hours)
    made = PrayerRequest.objects.create(text=text, status_changed_at=at, **fields)
    PrayerRequest.objects.filter(pk=made.pk).update(created_at=at)
    return made

make("The harvest is in, and nobody was hurt. Thanks be to God.", 50, kind="praise",
     name="Amos", status="approved")
make("For the children who start school on Monday, and for their teachers.", 30,
     status="approved", flag_count=2, flagged_again_at=now - timedelta(minutes=40))
make("For my neighbour, who is ill and lives alone. She has had a hard autumn, and her "
     "son can visit her only at the weekend. May she feel that she is not forgotten.",
     5, name="Ruth", author=ruth)
make("My brother Daniel of 14 Mill Lane drinks again.", 3, status="flagged",
     flag_count=1)
make("For a good end to a long court case.", 1, name="Somebody from the village")
make("An old one.", 900, status="archived")
WorkerHeartbeat.record()
BeatHeartbeat.record()
PeriodicTask.objects.filter(name="moderator-digest-hourly").update(
    last_run_at=now.replace(minute=0, second=0, microsecond=0))
for number, (digest, status) in enumerate(
    [("moderator", "sent"), ("daily", "sent"), ("weekly", "failed")]
):
    EmailLog.objects.create(recipient=f"somebody.with.a.long.name.{number}@example.org",
        digest=digest, status=status, period=str(number), covers_until=now)
"""

SHAPES = [
    (size, scheme) for size in ("desktop", "phone") for scheme in ("light", "dark")
]


LIST = "/admin/prayer_room_api/prayerrequest/"


@pytest.mark.parametrize(("size", "scheme"), SHAPES)
def test_everything_is_seen_and_can_be_pressed(
    browser: Browser, site: Deployment, size: str, scheme: str
) -> None:
    site.shell(REQUESTS)
    browser.shape(size, scheme)

    def look(*buttons: str, picture: str = "") -> None:
        if picture:
            browser.picture(picture)
        assert browser.too_wide() == []
        for text in buttons:
            button = browser.button(text)
            assert button.size["height"] >= 44, text
            assert browser.contrast(button) >= 4.5, text

    browser.open("/")
    look(picture="page")
    browser.open("/admin/")
    browser.log_in("miriam", "amen")
    look("4 requests are waiting for us")
    browser.click("4 requests are waiting for us")
    look(
        *("Approve", "Put back on the list", "Keep on the list"),
        *("Archive", "Respond or correct"),
        picture="moderation",
    )
    assert "An old one." not in browser.text
    browser.click("Respond or correct")
    look("Approve", "Archive", "Save", picture="request")
    assert "ruth, in the daily digest" in browser.text
    browser.open("/admin/prayer_room_api/emaillog/")
    look()
    browser.open("/admin/prayer_room_api/emailtemplate/1/change/")
    look("Preview what is typed above")
    assert browser.complaints() == []


# Not the file system: see tests/processes/test_serve.py.
@pytest.mark.parametrize("services", ["redis-sqlite"])
def test_from_the_api_to_the_digest_and_to_the_list(
    browser: Browser, site: Deployment
) -> None:
    worker = site.start("worker")
    worker.wait_until_ready()
    browser.shape("desktop", "light")

    # Somebody posts a request.
    browser.open("/")
    browser.type("#id_text", "For my neighbour")
    browser.type("#id_name", "Ann")
    browser.click("Send it to the team")
    browser.wait_for("Thank you.")

    # Miriam wants the digest, and has it sent.
    browser.open("/admin/")
    browser.log_in("miriam", "amen")
    browser.wait_for("1 request is waiting for us")
    browser.click("Digest subscriptions")
    browser.click("Add digest subscription")
    browser.press(".select2-selection")
    browser.type(".select2-search__field", "miri")
    # Not "Searching…", which is shown first and cannot be chosen.
    browser.press(".select2-results__option[aria-selected]")
    browser.choose("digest", "moderator")
    browser.click("Save")
    browser.wait_for("was added successfully")
    browser.click("Periodic tasks")
    browser.select("moderator-digest-hourly")
    browser.choose("action", "run_tasks")
    browser.click("Go")
    worker.wait_for(r"send_moderator_digest\[\S+\] succeeded")

    # She reads the mail, follows its link, and approves the request.
    (mail,) = mails.Mailbox(site.folder / "mails").new()
    assert mail["To"] == "miriam@example.org"
    (link,) = re.findall(r"<(http\S+)>", mails.text(mail))
    browser.open(link)
    browser.wait_for("For my neighbour")
    browser.wait_for("Nobody: it was posted without logging in.")
    browser.click("Approve")
    browser.wait_for("is approved: it is on the public list")
    browser.wait_for("Waiting for us (0)")
    browser.open("/admin/prayer_room_api/emaillog/")
    browser.wait_for("miriam@example.org")

    # Everybody sees it.
    browser.forget()
    browser.open("/")
    browser.wait_for("For my neighbour")
    assert browser.complaints() == []


def test_archiving_and_responding_where_one_reads(
    browser: Browser, site: Deployment
) -> None:
    site.shell(REQUESTS)
    browser.shape("phone", "light")
    browser.open(LIST)
    browser.log_in("miriam", "amen")
    browser.click("Archive")
    browser.wait_for("is archived: it is on no list")
    browser.wait_for("Waiting for us (3)")
    browser.click("Undo")
    browser.wait_for("it waits for us")
    browser.wait_for("Waiting for us (4)")
    browser.open(f"{LIST}3/change/")
    browser.click("Archive")
    browser.wait_for("Waiting for us (3)")
    browser.click("All")
    browser.wait_for("An old one.")
    # Enter in a field saves, but approves nothing.
    browser.open(f"{LIST}4/change/")
    browser.click("Correct the request")
    browser.type("#id_name", "Daniel's sister\n")
    browser.wait_for("was changed successfully")
    browser.wait_for("Waiting for us (3)")
    # The decision saves the response, too.
    browser.open(f"{LIST}4/change/")
    browser.type("#id_response", "We pray with you.")
    browser.click("Put back on the list")
    browser.wait_for("is approved: it is on the public list")
    browser.wait_for("Waiting for us (2)")
    browser.click("Approved")
    browser.wait_for("Our response: We pray with you.")
