import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

from prayer_room_api.shipped_templates import SHIPPED


def create_templates(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Put the shipped templates where staff can edit them."""
    EmailTemplate = apps.get_model("prayer_room_api", "EmailTemplate")
    for digest, shipped in SHIPPED.items():
        EmailTemplate.objects.using(schema_editor.connection.alias).create(
            digest=digest, subject=shipped.subject, body=shipped.body
        )


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="EmailTemplate",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True,
                        primary_key=True,
                        serialize=False,
                        verbose_name="ID",
                    ),
                ),
                (
                    "digest",
                    models.CharField(
                        choices=[
                            ("moderator", "For moderators, of what waits for them"),
                            ("daily", "Daily, of responses to one's own requests"),
                            ("weekly", "Weekly, of responses to one's own requests"),
                        ],
                        max_length=10,
                        unique=True,
                    ),
                ),
                ("subject", models.CharField(max_length=200)),
                (
                    "body",
                    models.TextField(
                        help_text="Markdown, with Django's template syntax."
                    ),
                ),
                ("updated_at", models.DateTimeField(auto_now=True)),
            ],
            options={
                "ordering": ["digest"],
            },
        ),
        migrations.CreateModel(
            name="EmailLog",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True,
                        primary_key=True,
                        serialize=False,
                        verbose_name="ID",
                    ),
                ),
                ("recipient", models.EmailField(max_length=254)),
                (
                    "digest",
                    models.CharField(
                        choices=[
                            ("moderator", "For moderators, of what waits for them"),
                            ("daily", "Daily, of responses to one's own requests"),
                            ("weekly", "Weekly, of responses to one's own requests"),
                        ],
                        max_length=10,
                    ),
                ),
                ("period", models.CharField(max_length=40)),
                ("covers_until", models.DateTimeField()),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("sending", "Sending"),
                            ("sent", "Sent"),
                            ("failed", "Failed"),
                            ("unknown", "Unknown"),
                        ],
                        max_length=10,
                    ),
                ),
                ("error", models.TextField(blank=True)),
                ("task_id", models.CharField(blank=True, max_length=255)),
                ("attempts", models.PositiveIntegerField(default=1)),
                ("claimed_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
            ],
            options={
                "ordering": ["-created_at", "-pk"],
                "indexes": [
                    models.Index(fields=["digest", "status"], name="email_by_status")
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("recipient", "digest", "period"),
                        name="one_email_per_period",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="DigestSubscription",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True,
                        primary_key=True,
                        serialize=False,
                        verbose_name="ID",
                    ),
                ),
                (
                    "digest",
                    models.CharField(
                        choices=[
                            ("moderator", "For moderators, of what waits for them"),
                            ("daily", "Daily, of responses to one's own requests"),
                            ("weekly", "Weekly, of responses to one's own requests"),
                        ],
                        max_length=10,
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="digest_subscriptions",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ["digest", "user"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("user", "digest"), name="one_subscription_per_digest"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="PrayerRequest",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True,
                        primary_key=True,
                        serialize=False,
                        verbose_name="ID",
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[("prayer", "Prayer"), ("praise", "Praise")],
                        default="prayer",
                        max_length=10,
                    ),
                ),
                (
                    "name",
                    models.CharField(
                        blank=True,
                        help_text="Whom the request is from, if they say.",
                        max_length=100,
                    ),
                ),
                ("text", models.TextField(max_length=2000)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("approved", "Approved"),
                            ("flagged", "Flagged"),
                            ("archived", "Archived"),
                        ],
                        default="pending",
                        max_length=10,
                    ),
                ),
                (
                    "status_changed_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, editable=False
                    ),
                ),
                ("flag_count", models.PositiveIntegerField(default=0, editable=False)),
                (
                    "response",
                    models.TextField(
                        blank=True,
                        help_text="The team's answer to the author.",
                        max_length=4000,
                    ),
                ),
                (
                    "responded_at",
                    models.DateTimeField(blank=True, editable=False, null=True),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "author",
                    models.ForeignKey(
                        blank=True,
                        help_text=(
                            "Who posted it while logged in; they receive the responses."
                        ),
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="prayer_requests",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "responded_by",
                    models.ForeignKey(
                        blank=True,
                        editable=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ["-created_at", "-pk"],
                "indexes": [
                    models.Index(
                        fields=["status", "-created_at"], name="request_by_status"
                    ),
                    models.Index(fields=["responded_at"], name="request_by_response"),
                ],
            },
        ),
        migrations.RunPython(create_templates, migrations.RunPython.noop),
    ]
