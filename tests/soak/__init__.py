"""A worker and a beat under fire for minutes: ``python -m tests.soak``."""
