from django.core.management import call_command
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

import prayer_room_api.text

TABLE = "prayer_room_cache"


def create_cache_table(
    apps: StateApps, schema_editor: BaseDatabaseSchemaEditor
) -> None:
    """Make the table of the settings' CACHES, in which the throttles count."""
    alias = schema_editor.connection.alias
    call_command("createcachetable", TABLE, database=alias, verbosity=0)


class Migration(migrations.Migration):
    dependencies = [
        ("prayer_room_api", "0019_links_in_the_moderator_digest"),
    ]

    operations = [
        migrations.RunPython(
            create_cache_table,
            # Nothing is lost with it but counts of the last hour.
            lambda apps, schema_editor: schema_editor.execute(f"DROP TABLE {TABLE}"),
        ),
        migrations.AlterField(
            model_name="prayerrequest",
            name="name",
            field=models.CharField(
                blank=True,
                help_text="Whom the request is from, if they say.",
                max_length=100,
                validators=[prayer_room_api.text.validate_visible],
            ),
        ),
        migrations.AlterField(
            model_name="prayerrequest",
            name="response",
            field=models.TextField(
                blank=True,
                help_text="The team's answer to the author.",
                max_length=4000,
                validators=[prayer_room_api.text.validate_visible],
            ),
        ),
        migrations.AlterField(
            model_name="prayerrequest",
            name="text",
            field=models.TextField(
                max_length=2000, validators=[prayer_room_api.text.validate_visible]
            ),
        ),
    ]
