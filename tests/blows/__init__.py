"""Three beats, one of which leads, and what can happen to it."""
