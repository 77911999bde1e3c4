import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "prayer_room_api.settings")

app = Celery("prayer_room_api")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

# There is no `beat_schedule` here. Schedules live in the database, where staff see
# and change them under /admin/django_celery_beat/periodictask/; the first ones come
# from the migration 0016_create_celery_beat_schedules. At each start, beat would
# overwrite a row with the `beat_schedule` entry of the same name.
