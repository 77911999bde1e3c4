from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("prayer_room_api", "0021_plainer_labels")]

    operations = [
        migrations.CreateModel(
            name="BeatHeartbeat",
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
            options={"ordering": ["pk"], "abstract": False},
        ),
    ]
