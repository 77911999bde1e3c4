"""Reports how many cases were compared, and with which Celery."""

from __future__ import annotations

from collections import Counter

import celery
import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    compared = Counter(
        value
        for report in terminalreporter.stats.get("passed", ())
        for name, value in report.user_properties
        if name == "compared"
    )
    if compared:
        counts = ", ".join(f"{count} of {name}" for name, count in compared.items())
        terminalreporter.write_line(
            f"Celery {celery.__version__}: {compared.total()} cases equal those of"
            f" its command line: {counts}"
        )
