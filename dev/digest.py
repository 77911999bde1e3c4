"""Sends the moderators' digest now; `nox -s serve` shows it."""

from __future__ import annotations

import os
import sys


def main() -> int:
    os.environ.setdefault("DEBUG", "on")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "prayer_room_api.settings")
    import django

    django.setup()
    from django.contrib.auth import get_user_model
    from django.contrib.auth.hashers import make_password
    from django.db import DatabaseError

    from prayer_room_api.models import Digest, DigestSubscription, PrayerRequest
    from prayer_room_api.tasks import send_moderator_digest

    try:
        # A digest reports only what is new.
        PrayerRequest.objects.create(name="Ruth", text="For my neighbour, who is ill.")
        if not DigestSubscription.objects.filter(digest=Digest.MODERATOR).exists():
            moderator, _ = get_user_model().objects.get_or_create(
                username="moderator",
                defaults={
                    "email": "moderator@localhost",
                    "password": make_password(None),
                    "is_staff": True,
                    "is_superuser": True,
                },
            )
            DigestSubscription.objects.create(user=moderator, digest=Digest.MODERATOR)
    except DatabaseError as error:
        print(f"No data yet; start `serve` first: {error}", file=sys.stderr)
        return 1
    send_moderator_digest.delay()
    print("Ruth has asked for prayer, and the moderators' digest is on its way.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
