from django import template

from prayer_room_api.models import PrayerRequest

register = template.Library()


@register.simple_tag
def requests_that_wait() -> int:
    """Return how many requests wait for the team."""
    return PrayerRequest.objects.waiting().count()
