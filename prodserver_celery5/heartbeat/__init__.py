"""The key HEARTBEAT_FILE: a process says from its working loop that it is alive."""
