"""Starts a process, and passes words on, as django-prodserver's main branch does."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError
from django.utils.module_loading import import_string


class Command(BaseCommand):
    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("name", choices=settings.PRODUCTION_PROCESSES)

    def run_from_argv(self, argv: list[str]) -> None:
        parser = self.create_parser(argv[0], argv[1])
        options, words = parser.parse_known_args(argv[2:])
        try:
            if not options.skip_checks:
                self.check(display_num_errors=True)
            self.start(options.name, words)
        except CommandError as exc:
            self.stderr.write(f"{type(exc).__name__}: {exc}")
            sys.exit(exc.returncode)

    def start(self, name: str, words: list[str]) -> None:
        entry = settings.PRODUCTION_PROCESSES[name]
        args = entry.get("ARGS", {})
        args = args if isinstance(args, Mapping) else {}
        named: dict[str, str | None] = {}
        others: list[str] = []
        rest = iter(words)
        for word in rest:
            key, equals, value = word.removeprefix("--").partition("=")
            if not word.startswith("--") or key not in args:
                others.append(word)
            elif equals:
                named[key] = value
            else:
                # A flag set to True in the settings takes the next option as its value.
                named[key] = None if args[key] is None else next(rest, None)
        backend_class = import_string(entry["BACKEND"])
        if others and not backend_class.accepts_extra_args:
            raise CommandError(f"{name} takes no words of the command line")
        if named:
            entry = {**entry, "ARGS": {**args, **named}}
        backend = backend_class(**entry)
        backend.start_server(*backend.prep_server_args(others))
