from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F
from django.utils import timezone


class TransitionRefusedError(Exception):
    """A request cannot go from the status it has to the one asked for."""


class PrayerRequest(models.Model):
    """What somebody asks the prayer room to pray, or to give thanks, for."""

    class Kind(models.TextChoices):
        PRAYER = "prayer"
        PRAISE = "praise"

    class Status(models.TextChoices):
        PENDING = "pending"
        APPROVED = "approved"
        FLAGGED = "flagged"
        ARCHIVED = "archived"

    # To each status, the ones it can be reached from.
    SOURCES: ClassVar[dict[str, frozenset[str]]] = {
        Status.APPROVED: frozenset({Status.PENDING, Status.FLAGGED, Status.ARCHIVED}),
        Status.FLAGGED: frozenset({Status.APPROVED}),
        Status.ARCHIVED: frozenset({Status.PENDING, Status.APPROVED, Status.FLAGGED}),
    }

    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.PRAYER)
    name = models.CharField(
        max_length=100, blank=True, help_text="Whom the request is from, if they say."
    )
    text = models.TextField(max_length=2000)
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
    response = models.TextField(
        max_length=4000, blank=True, help_text="The team's answer to the author."
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

    class Meta:
        ordering = ["-created_at", "-pk"]
        indexes = [
            models.Index(fields=["status", "-created_at"], name="request_by_status"),
            models.Index(fields=["responded_at"], name="request_by_response"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} request {self.pk} ({self.status})"

    def move_to(self, status: str) -> None:
        """Change the status, or raise `TransitionRefusedError`."""
        now = timezone.now()
        # One statement, so that of two people who decide at once the first one does.
        moved = PrayerRequest.objects.filter(
            pk=self.pk, status__in=self.SOURCES.get(status, frozenset())
        ).update(status=status, status_changed_at=now, updated_at=now)
        self.refresh_from_db(fields=["status", "status_changed_at", "updated_at"])
        if not moved:
            raise TransitionRefusedError(
                f"A request that is {self.status} cannot become {status}."
            )

    def flag(self) -> None:
        """Take an approved request off the list until the team has looked at it."""
        if self.status != self.Status.FLAGGED:
            self.move_to(self.Status.FLAGGED)
        PrayerRequest.objects.filter(pk=self.pk).update(flag_count=F("flag_count") + 1)
        self.refresh_from_db(fields=["flag_count"])

    def respond(self, text: str, by: models.Model) -> None:
        """Set the team's response; saving it is up to the caller."""
        self.response = text
        self.responded_at = timezone.now()
        self.responded_by = by


class Digest(models.TextChoices):
    """The emails there are."""

    MODERATOR = "moderator", "For moderators, of what waits for them"
    DAILY = "daily", "Daily, of responses to one's own requests"
    WEEKLY = "weekly", "Weekly, of responses to one's own requests"


class DigestSubscription(models.Model):
    """Who receives which digest."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="digest_subscriptions",
    )
    digest = models.CharField(max_length=10, choices=Digest.choices)
    created_at = models.DateTimeField(auto_now_add=True)

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
        """Refuse what would never be sent."""
        if self.user_id is None:
            return
        if not self.user.email:
            raise ValidationError({"user": "This user has no email address."})
        if self.digest == Digest.MODERATOR and not self.user.is_staff:
            raise ValidationError({"user": "The moderator digest is for staff only."})


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
        """Refuse what cannot be rendered, while somebody looks at it."""
        from .rendering import check

        if problem := check(self.digest, self.subject, self.body):
            raise ValidationError(problem)


class EmailLog(models.Model):
    """Each digest to each recipient: claimed before it is sent, and what came of it."""

    class Status(models.TextChoices):
        SENDING = "sending"
        SENT = "sent"
        FAILED = "failed"
        # Cut off between claiming and sending, or between sending and saying so.
        UNKNOWN = "unknown"

    recipient = models.EmailField()
    digest = models.CharField(max_length=10, choices=Digest.choices)
    period = models.CharField(max_length=40)
    # Up to when this email tells what happened; the next one begins there.
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
        return f"{self.digest} {self.period} to {self.recipient}: {self.status}"


class WorkerHeartbeat(models.Model):
    """When a worker was last connected to the broker: one row for all of them."""

    seen_at = models.DateTimeField()

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"A worker was there at {self.seen_at:%Y-%m-%d %H:%M:%S %Z}"
