from django.db import migrations, models

import prayer_room_api.text

DIGESTS = [
    ("moderator", "For moderators: what waits for them"),
    ("daily", "Daily: responses to your own requests"),
    ("weekly", "Weekly: responses to your own requests"),
]


class Migration(migrations.Migration):
    # Only texts change: the tables stay as they are.
    dependencies = [("prayer_room_api", "0020_quotas_and_visible_text")]

    operations = [
        migrations.AlterField(
            model_name="digestsubscription",
            name="digest",
            field=models.CharField(choices=DIGESTS, max_length=10),
        ),
        migrations.AlterField(
            model_name="emaillog",
            name="digest",
            field=models.CharField(choices=DIGESTS, max_length=10),
        ),
        migrations.AlterField(
            model_name="emailtemplate",
            name="digest",
            field=models.CharField(choices=DIGESTS, max_length=10, unique=True),
        ),
        migrations.AlterField(
            model_name="prayerrequest",
            name="name",
            field=models.CharField(
                blank=True,
                help_text="Who the request is from, if they say.",
                max_length=100,
                validators=[prayer_room_api.text.validate_visible],
            ),
        ),
    ]
