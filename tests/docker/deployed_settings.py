"""The project's settings in the tests' containers."""

from prayer_room_api.settings import *
from prayer_room_api.settings import CELERY_BROKER_URL

CELERY_IMPORTS = ("tests.docker.tasks",)
# The project keeps no results, but the tests need them. pytest-celery sets the
# backend's URL in a variable that Celery itself reads.
CELERY_TASK_IGNORE_RESULT = False
if CELERY_BROKER_URL.startswith("redis"):
    # How long a message may stay unacknowledged before it is redelivered: by default an
    # hour. Longer than any task here takes. A worker looks when it starts, and then
    # every 100 seconds.
    CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 4}
