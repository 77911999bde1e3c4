import logging
import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "prayer_room_api.settings")

application = get_wsgi_application()

# In a worker and in beat the root logger is Celery's. Here it is nobody's, and what the
# project logs would come without its time.
logging.basicConfig(**settings.LOGGING["formatters"]["timed"])
