import logging
from collections.abc import Callable, Iterator

from celery import Task, shared_task

from . import digests
from .models import Digest

logger = logging.getLogger(__name__)

# Acknowledged when done, so that the broker redelivers a digest if its worker dies; the
# email log makes sure that nobody receives it twice. (The file-system broker loses what
# a killed worker held.) The results only go to the log.
DIGEST = {
    "bind": True,
    "acks_late": True,
    "reject_on_worker_lost": True,
    "ignore_result": True,
    "max_retries": 6,
}
FIRST_RETRY, LONGEST_RETRY = 30, 15 * 60  # seconds


class DigestIncompleteError(Exception):
    """Some recipients were not sent their digest; the email log says why."""


# The schedules in the database use these names.
@shared_task(name="prayer_room_api.tasks.send_moderator_digest", **DIGEST)
def send_moderator_digest(self: Task) -> int:
    """Tell the team about pending and flagged requests, if anything is new."""
    return _send(self, Digest.MODERATOR, digests.due_to_moderators)


@shared_task(name="prayer_room_api.tasks.send_user_digest", **DIGEST)
def send_user_digest(self: Task, frequency: str) -> int:
    """Tell people about responses to their requests, "daily" or "weekly"."""
    if frequency not in digests.WINDOWS:
        accepted = " or ".join(f'"{each}"' for each in digests.WINDOWS)
        raise ValueError(f"frequency is {frequency!r}; it must be {accepted}.")
    digest = Digest(frequency)
    return _send(self, digest, lambda: digests.due_to_users(digest))


def _send(
    task: Task, digest: Digest, due: Callable[[], Iterator[digests.Email]]
) -> int:
    task_id = task.request.id or ""
    digests.give_up_cut_off(digest, task_id)
    outcome = digests.deliver(due(), task_id)
    logger.info(
        "%s digest: %d sent, %d failed",
        digest.value.capitalize(),
        outcome.sent,
        outcome.failed,
    )
    if outcome.failed:
        raise task.retry(
            exc=DigestIncompleteError(
                f"{outcome.failed} emails of the {digest} digest failed"
            ),
            countdown=min(FIRST_RETRY * 2**task.request.retries, LONGEST_RETRY),
        )
    return outcome.sent
