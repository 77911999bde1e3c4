"""The page at `/`: a form for a request, what runs here, and what is known about it.

Anyone can see it, so it shows no address, no name, and no version unless the reader is
on the team. It costs a few queries, and waits only for the database.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version

from django.conf import settings
from django.contrib import messages
from django.db import Error
from django.db.models import Count, Max
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.timesince import timesince
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

import prodserver_celery5

from . import heartbeat, schedules
from .forms import RequestForm
from .models import BeatHeartbeat, Digest, EmailLog, PrayerRequest, WorkerHeartbeat
from .schedules import Schedule
from .throttling import Quota

logger = logging.getLogger(__name__)

REQUESTS = 5
DIGESTS = 8
PACKAGES = ("Django", "celery", "django-celery-beat", "django-prodserver")

# The page's style is inline, and it loads nothing.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

THANKS = "Thank you. The team reads each request before it is on the list."
TOO_MANY = "That was a lot from your address. Please try again later."


@dataclass(frozen=True)
class State:
    """What is known about a process, in a word, and from what evidence."""

    level: str  # "good", "bad" or "unknown"
    label: str
    evidence: str


@dataclass(frozen=True)
class Process:
    """An entry of PRODUCTION_PROCESSES."""

    name: str
    program: str
    purpose: str
    state: State


@dataclass(frozen=True)
class Moment:
    at: datetime
    relative: str


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def page(request: HttpRequest) -> HttpResponse:
    """Show the page, or one line that says why there is none; take a request."""
    try:
        form, status = RequestForm(label_suffix=""), 200
        if request.method == "POST":
            form, status = _post(request)
            if status == 201:
                messages.success(request, THANKS)
                return redirect(f"{request.path}#ask")
        content = {"form": form, **_content(request, timezone.now())}
    except Error as error:
        logger.error("The page cannot be shown: %s", error)
        return HttpResponse(
            "The database does not answer, or nobody has run `manage.py migrate`.\n",
            content_type="text/plain",
            status=503,
        )
    response = render(request, "prayer_room_api/page.html", content, status=status)
    response["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    return response


def _post(request: HttpRequest) -> tuple[RequestForm, int]:
    """Take a request, within the quotas of the API; return the form and a status."""
    form = RequestForm(request.POST, label_suffix="")
    accepted, refused = Quota("submit"), Quota("refused")
    if not all(each.allow_request(request, page) for each in (accepted, refused)):
        form.add_error(None, TOO_MANY)
        return form, 429
    if not form.is_valid():
        refused.count()
        return form, 400
    form.instance.author = request.user if request.user.is_authenticated else None
    form.save()
    accepted.count()
    return form, 201


def _content(request: HttpRequest, now: datetime) -> dict[str, object]:
    """Query everything here, so that the template queries nothing."""
    found = schedules.all_schedules(now)
    return {
        "processes": list(_processes(request, found, now)),
        "requests": [
            (each, moment(each.created_at, now))
            for each in PrayerRequest.objects.filter(
                status=PrayerRequest.Status.APPROVED
            ).only("kind", "text", "created_at")[:REQUESTS]
        ],
        "digests": _digests(now),
        "schedules": [
            {
                "schedule": each,
                "last": each.last_run and moment(each.last_run, now),
                "next": each.next_run and _due(each.next_run, now),
                "overdue": each.is_overdue(now),
            }
            for each in found
        ],
        "now": now,
        "time_zone": settings.TIME_ZONE,
        "versions": _versions() if _may_see_versions(request) else {},
    }


def _processes(
    request: HttpRequest, found: list[Schedule], now: datetime
) -> Iterator[Process]:
    for name, entry in getattr(settings, "PRODUCTION_PROCESSES", {}).items():
        program = str(entry.get("BACKEND", "")).rpartition(".")[2]
        if program == "CeleryWorker":
            yield Process(
                name,
                "Celery worker",
                "Runs the tasks, which send the digests.",
                worker_state(WorkerHeartbeat.last_seen(), now),
            )
        elif program == "CeleryBeat":
            yield Process(
                name,
                "Celery beat",
                "Starts each task when its schedule says so.",
                beat_state(BeatHeartbeat.last_seen(), found, now),
            )
        else:
            server = program.removesuffix("Server").lower()
            yield Process(
                name,
                server,
                "Serves this page, the API and the admin.",
                web_state(server, request.META.get("SERVER_SOFTWARE", "")),
            )


def web_state(server: str, server_here: str) -> State:
    """Tell whether the entry's server is the one that is answering now."""
    # runserver and other development servers can serve the page too.
    if server and server in server_here.lower():
        return State("good", "Running", "It just served this page.")
    return State("unknown", "Not known", "Another server served this page.")


def worker_state(seen: datetime | None, now: datetime) -> State:
    """Tell from the heartbeat whether a worker is up."""
    return _not_running(seen, now, "worker", "Tasks wait in the queue.") or State(
        "good", "Running", f"It reported {ago(seen, now)}, connected to the broker."
    )


def beat_state(seen: datetime | None, found: list[Schedule], now: datetime) -> State:
    """Tell from the heartbeat whether a beat is up, and from the schedules what of."""
    if state := _not_running(seen, now, "beat", "Nothing is started."):
        return state
    due = [each for each in found if each.enabled and each.next_run]
    late = [each for each in due if each.is_overdue(now)]
    if late:
        # Releases that load only the schedules of the nearby hours skip a daily one
        # whose hour passed while beat was down.
        latest = max(late, key=lambda each: each.next_run)
        return State(
            "bad",
            "Late",
            f"{latest.name} was due {ago(latest.next_run, now)}, and has not been "
            f"started. beat reported {ago(seen, now)}.",
        )
    if not due:
        return State(
            "good", "Running", f"It reported {ago(seen, now)}. Nothing is due."
        )
    first = min(due, key=lambda each: each.next_run)
    at = date_format(timezone.localtime(first.next_run), "DATETIME_FORMAT")
    return State(
        "good",
        "Running",
        f"It reported {ago(seen, now)}. Next run: {first.name}, due at {at}.",
    )


def _not_running(
    seen: datetime | None, now: datetime, program: str, result: str
) -> State | None:
    """Tell from its heartbeat whether a program is missing; None if it is there."""
    if seen is None:
        return State("unknown", "Not seen yet", f"No {program} has reported yet.")
    if now - seen > timedelta(seconds=heartbeat.SILENT_AFTER):
        return State(
            "bad",
            "Silent",
            f"It should report every {heartbeat.WRITE_EVERY} seconds, and last did "
            f"{ago(seen, now)}. {result}",
        )
    return None


def _digests(now: datetime) -> list[dict[str, object]]:
    """Return the latest digests; one sent to several people is one entry."""
    sent = (
        EmailLog.objects.order_by()
        .values("digest", "period", "status")
        .annotate(emails=Count("pk"), at=Max("updated_at"))
        .order_by("-at")[:DIGESTS]
    )
    return [
        {
            "digest": Digest(each["digest"]).short,
            "status": EmailLog.Status(each["status"]),
            "emails": each["emails"],
            "when": moment(each["at"], now),
        }
        for each in sent
    ]


def _due(at: datetime, now: datetime) -> Moment:
    distance = ago(at, now)
    return Moment(at, f"due {distance}" if at <= now else distance)


def _may_see_versions(request: HttpRequest) -> bool:
    """Whether to show versions, which tell a reader which known holes to try."""
    return settings.DEBUG or request.user.is_staff


def _versions() -> dict[str, str]:
    # From the module: a clone need not be installed.
    own = {"prodserver-celery5": prodserver_celery5.__version__}
    return {package: version(package) for package in PACKAGES} | own


def moment(at: datetime, now: datetime) -> Moment:
    """Return a time, and how far away it is in words."""
    return Moment(at, ago(at, now))


def ago(at: datetime, now: datetime) -> str:
    """Say how far away it is, in the largest unit: "3 hours ago", "in 2 days"."""
    seconds = round(abs(now - at).total_seconds())
    if seconds == 0:
        return "just now"
    if seconds < 60:
        distance = f"{seconds} second{'' if seconds == 1 else 's'}"
    else:
        distance = timesince(min(at, now), max(at, now), depth=1)
    return f"{distance} ago" if at < now else f"in {distance}"
