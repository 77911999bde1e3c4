"""Three beats, of which one leads, and what may happen to it."""
