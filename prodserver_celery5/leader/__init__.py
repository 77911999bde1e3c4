"""The key LEADER_LOCK: of all beats that run, the one that has the lock sends."""
