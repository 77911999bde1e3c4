"""The patches for django-prodserver, and what makes and proves them."""
