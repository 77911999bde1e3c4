from __future__ import annotations

import logging
from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Coalesce
from django.utils import timezone

from . import rendering
from .shipped_templates import SHIPPED
from .text import validate_visible

logger = logging.getLogger(__name__)

# Either one shows all requests in the admin.
READ_REQUESTS = (
    "prayer_room_api.view_prayerrequest",
    "prayer_room_api.change_prayerrequest",
)


def may_read_requests(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Whether the user may read what is not public, in the API and in digests."""
    return user.is_staff and any(map(user.has_perm, READ_REQUESTS))


class TransitionRefusedError(Exception):
    """A request cannot change from its status to the requested one."""


class PrayerRequestQuerySet(models.QuerySet["PrayerRequest"]):
    """Prayer requests, with the team's query."""

    def waiting(self) -> PrayerRequestQuerySet:
        """Return the requests that wait for the team's decision."""
        return self.filter(
            Q(status__in=PrayerRequest.UNDECIDED) | Q(flagged_again_at__isnull=False)
        )


class PrayerRequest(models.Model):
    """What somebody asks the prayer room to pray or give thanks for."""

    class Kind(models.TextChoices):
        PRAYER = "prayer"
        PRAISE = "praise"

    class Status(models.TextChoices):
        PENDING = "pending"
        APPROVED = "approved"
        FLAGGED = "flagged"
        ARCHIVED = "archived"

    # Each status, with those that it can follow.
    SOURCES: ClassVar[dict[str, frozenset[str]]] = {
        Status.APPROVED: frozenset({Status.PENDING, Status.FLAGGED, Status.ARCHIVED}),
        Status.ARCHIVED: frozenset({Status.PENDING, Status.APPROVED, Status.FLAGGED}),
        # The way back from a mistaken click.
        Status.PENDING: frozenset({Status.ARCHIVED}),
        Status.FLAGGED: frozenset({Status.ARCHIVED}),
    }
    UNDECIDED: ClassVar[frozenset[str]] = frozenset({Status.PENDING, Status.FLAGGED})

    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.PRAYER)
    name = models.CharField(
        max_length=100,
        blank=True,
        validators=[validate_visible],
        help_text="Who the request is from, if they say.",
    )
    text = models.TextField(max_length=2000, validators=[validate_visible])
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="prayer_requests",
        help_text="Who posted it while logged in; they receive the responses.",
    )
    status = models.CharField(
        max_length=10, choices=Status.choices, default=Status.PENDING
    )
    status_changed_at = models.DateTimeField(default=timezone.now, editable=False)
    flag_count = models.PositiveIntegerField(default=0, editable=False)
    # Set while a request waits but stays on the list: see flag().
    flagged_again_at = models.DateTimeField(null=True, blank=True, editable=False)
    response = models.TextField(
        max_length=4000,
        blank=True,
        validators=[validate_visible],
        help_text="The team's answer to the author.",
    )
    responded_at = models.DateTimeField(null=True, blank=True, editable=False)
    responded_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        editable=False,
        related_name="+",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = PrayerRequestQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-pk"]
        indexes = [
            models.Index(fields=["status", "-created_at"], name="request_by_status"),
            models.Index(fields=["responded_at"], name="request_by_response"),
            models.Index(fields=["flagged_again_at"], name="request_flagged_again"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} request {self.pk} ({self.status})"

    @property
    def waiting_since(self) -> datetime | None:
        """When the request began to wait for the team; None if it does not wait."""
        if self.status in self.UNDECIDED:
            return self.status_changed_at
        return self.flagged_again_at

    def digests_of_the_author(self) -> list[str]:
        """Return the digests in which the author would receive a response."""
        return list(
            DigestSubscription.objects.reachable()
            .filter(user=self.author_id, digest__in=[Digest.DAILY, Digest.WEEKLY])
            .values_list("digest", flat=True)
        )

    def can_become(self, status: str) -> bool:
        """Whether the team can give the request that status."""
        return self.status in self.SOURCES.get(status, ()) or (
            status == self.Status.APPROVED and self.flagged_again_at is not None
        )

    def move_to(self, status: str) -> None:
        """Approve, archive or reopen the request, or raise `TransitionRefusedError`.

        Approving one that was flagged again keeps it on the list.
        """
        sources = Q(status__in=self.SOURCES.get(status, frozenset()))
        if status == self.Status.APPROVED:
            sources |= Q(flagged_again_at__isnull=False)
        # One statement: nobody can decide between the check and the update.
        if not self._update(
            sources,
            status=status,
            status_changed_at=timezone.now(),
            flagged_again_at=None,
        ):
            raise TransitionRefusedError(
                f"A request that is {self.status} cannot become {status}."
            )

    def flag(self) -> None:
        """Ask the team to look at an approved request again.

        The first flag takes it off the list until they have. Once they have approved
        it anyway, nobody outside the team can take it off the list: it stays there
        while it waits for them.

        Raises:
            TransitionRefusedError: the request was never approved, or is archived.
        """
        now = timezone.now()
        approved = Q(status=self.Status.APPROVED)
        counted = {"flag_count": F("flag_count") + 1}
        if not (
            self._update(
                approved & Q(flag_count=0),
                status=self.Status.FLAGGED,
                status_changed_at=now,
                **counted,
            )
            or self._update(
                approved, flagged_again_at=Coalesce("flagged_again_at", now), **counted
            )
            or self._update(Q(status=self.Status.FLAGGED), **counted)
        ):
            raise TransitionRefusedError(
                f"A request that is {self.status} cannot be flagged."
            )

    def _update(self, condition: Q, **values: object) -> bool:
        """Change the row if it meets the condition, then read it again."""
        values["updated_at"] = timezone.now()
        updated = PrayerRequest.objects.filter(condition, pk=self.pk).update(**values)
        self.refresh_from_db(
            fields=[
                "status",
                "status_changed_at",
                "flag_count",
                "flagged_again_at",
                "updated_at",
            ]
        )
        return bool(updated)

    def respond(self, text: str, by: models.Model) -> None:
        """Set the team's response; the caller saves it."""
        self.response = text
        self.responded_at = timezone.now()
        self.responded_by = by


class Digest(models.TextChoices):
    """The kinds of email."""

    MODERATOR = "moderator", "For moderators: what waits for them"
    DAILY = "daily", "Daily: responses to your own requests"
    WEEKLY = "weekly", "Weekly: responses to your own requests"

    @property
    def short(self) -> str:
        """The name where there is little space."""
        return self.label.partition(":")[0]


class DigestSubscriptionQuerySet(models.QuerySet["DigestSubscription"]):
    """Subscriptions, with the digests' query."""

    def reachable(self) -> DigestSubscriptionQuerySet:
        """Return the subscriptions of active users with an email address."""
        return self.filter(user__is_active=True).exclude(user__email="")


class DigestSubscription(models.Model):
    """Who receives which digest."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="digest_subscriptions",
    )
    digest = models.CharField(max_length=10, choices=Digest.choices)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = DigestSubscriptionQuerySet.as_manager()

    class Meta:
        ordering = ["digest", "user"]
        constraints = [
            models.UniqueConstraint(
                fields=["user", "digest"], name="one_subscription_per_digest"
            )
        ]

    def __str__(self) -> str:
        return f"{self.user}: {self.digest}"

    def clean(self) -> None:
        """Refuse a subscription that would never be sent."""
        if self.user_id is None:
            return
        if not self.user.email:
            raise ValidationError({"user": "This user has no email address."})
        if self.digest == Digest.MODERATOR and not may_read_requests(self.user):
            raise ValidationError(
                {"user": "The moderator digest is for staff who may view requests."}
            )


class EmailTemplate(models.Model):
    """A digest's subject and body, as staff want them."""

    digest = models.CharField(max_length=10, choices=Digest.choices, unique=True)
    subject = models.CharField(max_length=200)
    body = models.TextField(help_text="Markdown, with Django's template syntax.")
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["digest"]

    def __str__(self) -> str:
        return self.get_digest_display()

    def clean(self) -> None:
        """Refuse what cannot be rendered, while its author can still fix it."""
        if problem := rendering.check(self.digest, self.subject, self.body):
            raise ValidationError(problem)

    @classmethod
    def render(
        cls, digest: str, content: rendering.Content, note: str = ""
    ) -> rendering.Rendered:
        """Render the staff's template, or the shipped one if theirs does not work.

        Args:
            digest: which one.
            content: what the template can show.
            note: a paragraph below it, whatever the template.
        """
        template = cls.objects.filter(digest=digest).first()
        if template is not None:
            try:
                return rendering.render(template.subject, template.body, content, note)
            except Exception:
                logger.exception(
                    "The %s email template does not work; the shipped one is used.",
                    digest,
                )
        return rendering.render(*SHIPPED[digest], content, note)


class EmailLog(models.Model):
    """Each digest to each recipient: claimed before it is sent, then its outcome."""

    class Status(models.TextChoices):
        SENDING = "sending"
        SENT = "sent"
        FAILED = "failed"
        # Cut off between claiming and sending, or between sending and recording it.
        UNKNOWN = "unknown"

    recipient = models.EmailField()
    digest = models.CharField(max_length=10, choices=Digest.choices)
    period = models.CharField(max_length=40)
    # This email covers what happened until then; the next one begins there.
    covers_until = models.DateTimeField()
    status = models.CharField(max_length=10, choices=Status.choices)
    error = models.TextField(blank=True)
    task_id = models.CharField(max_length=255, blank=True)
    attempts = models.PositiveIntegerField(default=1)
    claimed_at = models.DateTimeField(default=timezone.now)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["-created_at", "-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["recipient", "digest", "period"], name="one_email_per_period"
            )
        ]
        indexes = [models.Index(fields=["digest", "status"], name="email_by_status")]

    def __str__(self) -> str:
        return f"{self.digest} digest to {self.recipient}: {self.status}"


class Heartbeat(models.Model):
    """When a program last worked: one row for all of its processes."""

    seen_at = models.DateTimeField()

    class Meta:
        abstract = True
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"Seen at {self.seen_at:%Y-%m-%d %H:%M:%S %Z}"

    @classmethod
    def record(cls) -> None:
        """Record that the program works now."""
        now = timezone.now()
        if not cls.objects.filter(pk=1).update(seen_at=now):
            cls.objects.get_or_create(pk=1, defaults={"seen_at": now})

    @classmethod
    def last_seen(cls) -> datetime | None:
        """Return when the program last worked."""
        return cls.objects.values_list("seen_at", flat=True).first()


class WorkerHeartbeat(Heartbeat):
    """When a worker was last connected to the broker."""


class BeatHeartbeat(Heartbeat):
    """When a beat that leads last looked for tasks that are due."""
