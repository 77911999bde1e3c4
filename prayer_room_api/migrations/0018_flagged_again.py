from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("prayer_room_api", "0017_workerheartbeat"),
    ]

    operations = [
        migrations.AddField(
            model_name="prayerrequest",
            name="flagged_again_at",
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.AddIndex(
            model_name="prayerrequest",
            index=models.Index(
                fields=["flagged_again_at"], name="request_flagged_again"
            ),
        ),
    ]
