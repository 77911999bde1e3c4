"""The key GRACE_SECONDS: a worker ends in time, and loses no task."""
