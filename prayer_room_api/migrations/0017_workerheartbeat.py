from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("prayer_room_api", "0016_create_celery_beat_schedules")]

    operations = [
        migrations.CreateModel(
            name="WorkerHeartbeat",
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
                ("seen_at", models.DateTimeField()),
            ],
            options={"ordering": ["pk"]},
        ),
    ]
