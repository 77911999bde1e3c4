import json
from importlib import import_module

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django_celery_beat.models import CrontabSchedule, PeriodicTask, PeriodicTasks

from prayer_room_api.models import EmailTemplate
from prayer_room_api.shipped_templates import SHIPPED

pytestmark = pytest.mark.django_db(transaction=True)

TABLES = "0001_squashed_0015_email_templates"
SCHEDULES = "0016_create_celery_beat_schedules"
HEARTBEAT = "0017_workerheartbeat"
FLAGGED_AGAIN = "0018_flagged_again"
LINKS = "0019_links_in_the_moderator_digest"
QUOTAS = "0020_quotas_and_visible_text"
LABELS = "0021_plainer_labels"
BEAT = "0022_beatheartbeat"
ZONE = "Europe/London"
NAMES = ["moderator-digest-hourly", "user-digest-daily", "user-digest-weekly"]


def migrate(to: str) -> None:
    call_command("migrate", "prayer_room_api", to, verbosity=0)


@pytest.fixture(autouse=True)
def _before_the_schedules():
    migrate(TABLES)
    # The test before may have emptied these tables or not: start with none.
    PeriodicTask.objects.all().delete()
    CrontabSchedule.objects.all().delete()
    yield
    call_command("migrate", "prayer_room_api", verbosity=0)


def test_the_names_of_the_migrations():
    loader = MigrationLoader(connection)
    ours = sorted(name for app, name in loader.graph.nodes if app == "prayer_room_api")
    tables = [TABLES, SCHEDULES, HEARTBEAT, FLAGGED_AGAIN, LINKS, QUOTAS, LABELS, BEAT]
    assert ours == tables
    assert not loader.get_migration("prayer_room_api", TABLES).replaces


def test_no_migration_is_missing():
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_forward():
    migrate(SCHEDULES)
    found = {}
    for row in PeriodicTask.objects.select_related("crontab"):
        at = row.crontab
        found[row.name] = (
            row.task,
            json.loads(row.args),
            json.loads(row.kwargs),
            f"{at.minute} {at.hour} {at.day_of_month} {at.month_of_year}"
            f" {at.day_of_week}",
            str(at.timezone),
            row.enabled,
        )
    digest = "prayer_room_api.tasks.send_{}_digest"
    assert found == {
        NAMES[0]: (digest.format("moderator"), [], {}, "0 * * * *", ZONE, True),
        NAMES[1]: (digest.format("user"), ["daily"], {}, "0 8 * * *", ZONE, True),
        NAMES[2]: (digest.format("user"), ["weekly"], {}, "0 8 * * 1", ZONE, True),
    }


def test_the_project_s_time_zone(settings):
    settings.TIME_ZONE = "America/New_York"
    migrate(SCHEDULES)
    zones = {str(row.crontab.timezone) for row in PeriodicTask.objects.all()}
    assert zones == {"America/New_York"}


def test_the_scheduler_makes_of_them_what_is_meant():
    migrate(SCHEDULES)
    weekly = PeriodicTask.objects.get(name="user-digest-weekly").schedule
    assert (weekly.minute, weekly.hour, weekly.day_of_week) == ({0}, {8}, {1})


def test_what_an_operator_has_changed_is_kept_when_it_runs_again():
    migrate(SCHEDULES)
    noon = CrontabSchedule.objects.create(minute="0", hour="12", timezone=ZONE)
    PeriodicTask.objects.filter(name=NAMES[1]).update(crontab=noon, enabled=False)
    PeriodicTask.objects.filter(name=NAMES[2]).delete()
    call_command("migrate", "prayer_room_api", TABLES, fake=True, verbosity=0)
    migrate(SCHEDULES)
    assert sorted(PeriodicTask.objects.values_list("name", flat=True)) == NAMES
    changed = PeriodicTask.objects.get(name=NAMES[1])
    assert (changed.crontab, changed.enabled) == (noon, False)


def test_backward_removes_its_own_rows_and_no_others():
    migrate(SCHEDULES)
    daily = PeriodicTask.objects.get(name=NAMES[1])
    PeriodicTask.objects.create(name="mine", task=daily.task, crontab=daily.crontab)
    # Changed by an operator, but still the migration's own.
    PeriodicTask.objects.filter(name=NAMES[0]).update(enabled=False)
    migrate(TABLES)
    assert list(PeriodicTask.objects.values_list("name", flat=True)) == ["mine"]
    assert PeriodicTask.objects.get().crontab == daily.crontab
    migrate(SCHEDULES)
    names = sorted(PeriodicTask.objects.values_list("name", flat=True))
    assert names == ["mine", *NAMES]


def test_a_row_that_somebody_else_made_under_the_name_is_left_alone():
    theirs = CrontabSchedule.objects.create(minute="30", timezone=ZONE)
    PeriodicTask.objects.create(name=NAMES[0], task="theirs", crontab=theirs)
    migrate(SCHEDULES)
    assert PeriodicTask.objects.get(name=NAMES[0]).task == "theirs"
    migrate(TABLES)
    assert PeriodicTask.objects.get().task == "theirs"


def test_crontabs_that_are_there_twice_already():
    for _ in range(2):
        CrontabSchedule.objects.create(minute="0", timezone=ZONE)
    migrate(SCHEDULES)
    assert PeriodicTask.objects.count() == 3
    assert CrontabSchedule.objects.count() == 4


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_a_running_beat_is_told(way):
    if way == "backward":
        migrate(SCHEDULES)
    before = PeriodicTasks.last_change()
    migrate(SCHEDULES if way == "forward" else TABLES)
    after = PeriodicTasks.last_change()
    assert after is not None
    assert before is None or after > before


@pytest.mark.parametrize("staff_s", [False, True])
def test_the_moderator_digest_gets_its_links_where_staff_have_not_changed_it(staff_s):
    before = import_module(f"prayer_room_api.migrations.{LINKS}").WITHOUT_LINKS
    assert "link" not in before
    body = "Ours" if staff_s else before.replace("\n", "\r\n").strip()
    EmailTemplate.objects.update_or_create(digest="moderator", defaults={"body": body})
    migrate(LINKS)
    found = EmailTemplate.objects.get(digest="moderator").body
    assert found == (body if staff_s else SHIPPED["moderator"].body)
