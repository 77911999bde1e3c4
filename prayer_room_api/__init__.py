"""A JSON API for a church's prayer room, and the digests it sends."""

# Imported here so that `shared_task` finds the app in every Django process.
from .celery import app as celery_app

__all__ = ["celery_app"]
