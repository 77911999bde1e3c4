"""The options of Celery: ARGS become the keyword arguments of its own command."""
