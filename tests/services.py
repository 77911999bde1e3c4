"""The servers that the tests of one process share."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dev.servers import MariaDB, PostgreSQL, RabbitMQ, Redis

__all__ = ("Services",)

SERVERS = {
    "redis": Redis,
    "rabbitmq": RabbitMQ,
    "postgresql": PostgreSQL,
    "mariadb": MariaDB,
}


class Services:
    """Starts each requested server once.

    Args:
        make_folder: makes a folder for a server.
        stack: ends the servers.
    """

    def __init__(self, make_folder: Callable[[str], Path], stack: ExitStack) -> None:
        self._make_folder = make_folder
        self._stack = stack
        self._running: dict[str, Any] = {}

    def server(self, name: str) -> Any:
        """Return the named server; skip the test if it is not installed."""
        kind = SERVERS[name]
        if not kind.program:
            # In CI, nobody would notice a skip.
            (pytest.fail if os.environ.get("CI") else pytest.skip)(
                f"no {name} on this machine"
            )
        if name not in self._running:
            self._running[name] = kind(self._make_folder(name), self._stack)
        return self._running[name]

    def env(self, names: str, migrate: Callable[[str], None]) -> dict[str, str]:
        """Return the environment variables of a deployment that uses some services.

        Args:
            names: separated by hyphens; those without a server need no variable.
            migrate: runs the release phase on a database.
        """
        env = {}
        for name in names.split("-"):
            if name in ("postgresql", "mariadb"):
                env["DATABASE_URL"] = self.server(name).url(migrate)
            elif name in SERVERS:
                env[f"{name.upper()}_URL"] = self.server(name).url()
        return env
