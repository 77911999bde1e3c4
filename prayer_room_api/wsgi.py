import logging
import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "prayer_room_api.settings")

application = get_wsgi_application()

# In a worker and in beat, Celery sets up the root logger. Here nothing does, and the
# project's log lines would have no time.
logging.basicConfig(**settings.LOGGING["formatters"]["timed"])
