"""Finds which digest is due to whom, and sends each one once.

Select what a digest covers, claim its row in the email log, render and send it, and
record the outcome in the row. Recipient, digest and period are unique together, so
only one of two workers gets the row.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.mail import EmailMultiAlternatives
from django.db.models import Case, F, Max, Q, When
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.text import Truncator

from .models import (
    READ_REQUESTS,
    Digest,
    DigestSubscription,
    EmailLog,
    EmailTemplate,
    PrayerRequest,
)
from .rendering import Content, Value

logger = logging.getLogger(__name__)

# A row that is still "sending" after this long belongs to a task that is gone: an
# email takes no longer than a few of the mail server's timeouts.
CLAIM_TIMEOUT = timedelta(minutes=15)

# The limits of one email: this many requests, and this many characters of each text.
SHOWN = 25
TEXT = 500

# How far the first digest of a subscription looks back.
WINDOWS = {Digest.DAILY: timedelta(days=1), Digest.WEEKLY: timedelta(weeks=1)}


@dataclass(frozen=True)
class Email:
    """A digest that is due."""

    recipient: str
    digest: Digest
    period: str
    covers_until: datetime
    content: Content
    note: str = ""


@dataclass
class Outcome:
    sent: int = 0
    failed: int = 0


def due_to_moderators() -> Iterator[Email]:
    """Yield what waits for the team, for everyone not yet told of the newest."""
    waiting = PrayerRequest.objects.waiting()
    # As in waiting_since. Queried first, so that what arrives in between is reported
    # again.
    since = Case(
        When(status__in=PrayerRequest.UNDECIDED, then="status_changed_at"),
        default="flagged_again_at",
    )
    newest = waiting.aggregate(newest=Max(since))["newest"]
    if newest is None:
        return
    count = waiting.count()
    pending: list[dict[str, Value]] = []
    flagged: list[dict[str, Value]] = []
    # "approved" and "flagged" come before "pending": they are or were public.
    for request in waiting.order_by("status", "created_at", "pk")[:SHOWN]:
        is_new = request.status == PrayerRequest.Status.PENDING
        (pending if is_new else flagged).append(
            {**_describe(request), "link": _link("change", request.pk)}
        )
    link = _link("changelist")
    note = ""
    if count > SHOWN:
        note = f"{count - SHOWN} more waiting" + (f": <{link}>" if link else ".")
    for recipient in _subscribers(Digest.MODERATOR, _moderators()):
        told_until = _told_until(recipient, Digest.MODERATOR)
        if told_until is None or newest > told_until:
            yield Email(
                recipient=recipient,
                digest=Digest.MODERATOR,
                # Not the time of sending: a redelivered task must get the same key.
                period=newest.isoformat(),
                covers_until=newest,
                content={
                    "pending": pending,
                    "flagged": flagged,
                    "count": count,
                    "link": link,
                },
                note=note,
            )


def due_to_users(digest: Digest) -> Iterator[Email]:
    """Yield the responses to each subscriber's requests since their last digest."""
    period = current_period(digest)
    for recipient, subscriptions in _subscribers(digest).items():
        since = _told_until(recipient, digest)
        if since is None:
            # Nothing has gone out since they subscribed. Counting from then misses
            # no response from a day on which every attempt failed.
            since = min(each.created_at for each in subscriptions) - WINDOWS[digest]
        requests = (
            PrayerRequest.objects.filter(
                author__in=[each.user_id for each in subscriptions],
                responded_at__gt=since,
            )
            .exclude(response="")
            .order_by("responded_at", "pk")
        )
        shown = list(requests[:SHOWN])
        if shown:
            more = requests.count() - len(shown)
            yield Email(
                recipient=recipient,
                digest=digest,
                period=period,
                # Where the next one begins, with what does not fit in this one.
                covers_until=shown[-1].responded_at,
                content={
                    "requests": [_describe(request) for request in shown],
                    "count": len(shown),
                },
                note=f"{more} more will come in your next digest." if more > 0 else "",
            )


def current_period(digest: Digest) -> str:
    """Return today or this week, in the project's time zone."""
    today = timezone.localdate()
    if digest == Digest.WEEKLY:
        year, week, _ = today.isocalendar()
        return f"{year}-W{week:02}"
    return today.isoformat()


def deliver(emails: Iterable[Email], task_id: str) -> Outcome:
    """Send each email that nobody else has claimed; a failure does not stop others."""
    outcome = Outcome()
    for email in emails:
        log = claim(email, task_id)
        if log is None:
            continue
        try:
            _send(email)
        except Exception as error:
            # The process's log names no addresses; the email log does.
            logger.exception("Not sent: %s digest, email log %s", log.digest, log.pk)
            _finish(log, EmailLog.Status.FAILED, f"{type(error).__name__}: {error}")
            outcome.failed += 1
        else:
            _finish(log, EmailLog.Status.SENT)
            outcome.sent += 1
    return outcome


def claim(email: Email, task_id: str) -> EmailLog | None:
    """Record that the email is about to be sent; return None if it is not ours."""
    claimed = {
        "status": EmailLog.Status.SENDING,
        "covers_until": email.covers_until,
        "task_id": task_id,
        "claimed_at": timezone.now(),
    }
    log, created = EmailLog.objects.get_or_create(
        recipient=email.recipient,
        digest=email.digest,
        period=email.period,
        defaults=claimed,
    )
    if created:
        return log
    # Only failed emails are sent again, by whoever gets there first.
    reclaimed = EmailLog.objects.filter(
        pk=log.pk, status=EmailLog.Status.FAILED
    ).update(**claimed, attempts=F("attempts") + 1, updated_at=claimed["claimed_at"])
    return log if reclaimed else None


def give_up_cut_off(digest: Digest, task_id: str) -> None:
    """Mark emails whose task was cut off: nobody knows if they went out.

    Either it was this task, now redelivered, or another one long ago. (A retry has the
    same task id too, but has already recorded the outcome of each of its rows.)
    """
    now = timezone.now()
    cut_off = Q(claimed_at__lt=now - CLAIM_TIMEOUT)
    if task_id:
        cut_off |= Q(task_id=task_id)
    sending = EmailLog.objects.filter(digest=digest, status=EmailLog.Status.SENDING)
    for log in sending.filter(cut_off):
        if sending.filter(pk=log.pk).update(
            status=EmailLog.Status.UNKNOWN,
            error="Cut off while sending; it may or may not have gone out.",
            updated_at=now,
        ):
            logger.warning(
                "Cut off, not sent again: %s digest, email log %s", log.digest, log.pk
            )


def _finish(log: EmailLog, status: EmailLog.Status, error: str = "") -> None:
    EmailLog.objects.filter(pk=log.pk).update(
        status=status, error=error, updated_at=timezone.now()
    )


def _send(email: Email) -> None:
    rendered = EmailTemplate.render(email.digest, email.content, email.note)
    message = EmailMultiAlternatives(
        rendered.subject,
        rendered.text,
        to=[email.recipient],
        # Prevents out-of-office replies.
        headers={"Auto-Submitted": "auto-generated"},
    )
    message.attach_alternative(rendered.html, "text/html")
    message.send()


def _moderators() -> Q:
    """Select the subscriptions of staff who may read all requests in the admin."""
    may_read = Q()
    for permission in READ_REQUESTS:
        may_read |= Q(user__in=get_user_model().objects.with_perm(permission))
    return Q(user__is_staff=True) & may_read


def _subscribers(
    digest: Digest, condition: Q | None = None
) -> dict[str, list[DigestSubscription]]:
    """Return subscriptions by address: a family that shares one gets one email."""
    subscribers: defaultdict[str, list[DigestSubscription]] = defaultdict(list)
    for subscription in (
        DigestSubscription.objects.reachable()
        .filter(condition or Q(), digest=digest)
        .select_related("user")
        .order_by("pk")
    ):
        subscribers[subscription.user.email.lower()].append(subscription)
    return subscribers


def _told_until(recipient: str, digest: Digest) -> datetime | None:
    """Return the end of what the recipient's digests cover, without failed ones."""
    return (
        EmailLog.objects.filter(recipient=recipient, digest=digest)
        .exclude(status=EmailLog.Status.FAILED)
        .aggregate(until=Max("covers_until"))["until"]
    )


def _describe(request: PrayerRequest) -> dict[str, Value]:
    return {
        "id": request.pk,
        "kind": request.get_kind_display(),
        "name": request.name,
        "text": Truncator(request.text).chars(TEXT),
        "created": _moment(request.created_at),
        "flags": request.flag_count,
        "status": request.status,
        "response": request.response,
        "responded": _moment(request.responded_at),
    }


def _link(page: str, *args: int) -> str:
    """Return the URL of an admin page, or "" without a SITE_URL."""
    if not settings.SITE_URL:
        return ""
    path = reverse(f"admin:prayer_room_api_prayerrequest_{page}", args=args)
    return settings.SITE_URL + path


def _moment(moment: datetime | None) -> str:
    if moment is None:
        return ""
    return date_format(timezone.localtime(moment), "DATETIME_FORMAT")
