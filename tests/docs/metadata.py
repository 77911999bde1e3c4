"""The project table of pyproject.toml."""

from __future__ import annotations

import sys
from typing import Any

from dev.procfile import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    # pytest depends on it on Python 3.10.
    import tomli as tomllib

__all__ = ("PROJECT",)

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())[
    "project"
]
