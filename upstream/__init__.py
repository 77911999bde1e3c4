"""The patches for django-prodserver, and the program that makes and proves them."""
