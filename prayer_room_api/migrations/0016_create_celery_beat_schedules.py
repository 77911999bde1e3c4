from django.conf import settings
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps
from django.utils import timezone

DIGEST = "prayer_room_api.tasks.send_{}_digest"

# name: task, its arguments as JSON, what its crontab says other than "*"
SCHEDULES = {
    "moderator-digest-hourly": (DIGEST.format("moderator"), "[]", {"minute": "0"}),
    "user-digest-daily": (
        DIGEST.format("user"),
        '["daily"]',
        {"minute": "0", "hour": "8"},
    ),
    "user-digest-weekly": (
        DIGEST.format("user"),
        '["weekly"]',
        {"minute": "0", "hour": "8", "day_of_week": "1"},
    ),
}
EVERY = dict.fromkeys(
    ("minute", "hour", "day_of_week", "day_of_month", "month_of_year"), "*"
)

# By which the way back tells a row made here from one that somebody made themselves.
MADE_HERE = "Created by the migration prayer_room_api.0016."


def create_schedules(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Create the schedules that are missing; what is there stays as it is."""
    database = schema_editor.connection.alias
    PeriodicTask = apps.get_model("django_celery_beat", "PeriodicTask")
    CrontabSchedule = apps.get_model("django_celery_beat", "CrontabSchedule")
    tasks = PeriodicTask.objects.using(database)
    for name, (task, args, crontab) in SCHEDULES.items():
        if tasks.filter(name=name).exists():
            continue
        when = {**EVERY, **crontab, "timezone": settings.TIME_ZONE}
        # Not get_or_create: nothing keeps two crontabs from being the same.
        found = CrontabSchedule.objects.using(database).filter(**when).first()
        tasks.create(
            name=name,
            task=task,
            args=args,
            crontab=found or CrontabSchedule.objects.using(database).create(**when),
            enabled=True,
            description=MADE_HERE,
        )
    _tell_beat(apps, database)


def remove_schedules(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Remove the schedules made here, and leave the crontabs others may share."""
    database = schema_editor.connection.alias
    PeriodicTask = apps.get_model("django_celery_beat", "PeriodicTask")
    PeriodicTask.objects.using(database).filter(
        name__in=SCHEDULES, description=MADE_HERE
    ).delete()
    _tell_beat(apps, database)


def _tell_beat(apps: StateApps, database: str) -> None:
    # The models of a migration send none of the signals that do this otherwise.
    apps.get_model("django_celery_beat", "PeriodicTasks").objects.using(
        database
    ).update_or_create(ident=1, defaults={"last_update": timezone.now()})


class Migration(migrations.Migration):
    dependencies = [
        ("prayer_room_api", "0001_squashed_0015_email_templates"),
        # The newest that django-celery-beat 2.1, for Celery 5.0 and 5.1, has as well.
        ("django_celery_beat", "0014_remove_clockedschedule_enabled"),
    ]

    operations = [migrations.RunPython(create_schedules, remove_schedules)]
