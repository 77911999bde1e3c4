"""The project's settings in the containers of the tests."""

from prayer_room_api.settings import *
from prayer_room_api.settings import CELERY_BROKER_URL

CELERY_IMPORTS = ("tests.docker.tasks",)
# The project keeps no results; the tests ask for them. The backend's URL comes from
# pytest-celery, in a variable that Celery itself reads.
CELERY_TASK_IGNORE_RESULT = False
if CELERY_BROKER_URL.startswith("redis"):
    # How long Redis waits for an acknowledgement before it delivers once more: an hour,
    # unless told. Longer than any task here takes. A worker looks when it starts, and
    # then every 100 seconds.
    CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 4}
