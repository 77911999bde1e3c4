from django.apps import AppConfig


class PrayerRoomConfig(AppConfig):
    name = "prayer_room_api"
    verbose_name = "Prayer room"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks, heartbeat

        checks.register_checks()
        heartbeat.listen()
