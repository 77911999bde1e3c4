"""The email templates that a new installation starts with, and falls back to."""

from typing import NamedTuple


class Shipped(NamedTuple):
    subject: str
    body: str


_RESPONSES = """\
Someone on the team has responded to what you shared with us.
{% for request in requests %}
**{{ request.kind }} request of {{ request.created }}**

> {{ request.text }}

Our response, {{ request.responded }}:

> {{ request.response }}
{% endfor %}
The prayer room
"""

SHIPPED = {
    "moderator": Shipped(
        "Prayer room: {{ count }} request{{ count|pluralize }} to look at",
        """\
{% if flagged %}**Flagged**
{% for request in flagged %}
- {{ request.kind }} request {{ request.id }}{% if request.name %} from \
{{ request.name }}{% endif %}, {{ request.created }}, flagged {{ request.flags }}\
 time{{ request.flags|pluralize }}\
{% if request.status == "approved" %}, still on the list{% endif %}: {{ request.text }}\
{% if request.link %}
  <{{ request.link }}>{% endif %}
{% endfor %}
{% endif %}{% if pending %}**Pending**
{% for request in pending %}
- {{ request.kind }} request {{ request.id }}{% if request.name %} from \
{{ request.name }}{% endif %}, {{ request.created }}: {{ request.text }}\
{% if request.link %}
  <{{ request.link }}>{% endif %}
{% endfor %}
{% endif %}The prayer room
""",
    ),
    "daily": Shipped("Prayer room: responses to your requests", _RESPONSES),
    "weekly": Shipped("Prayer room: this week's responses", _RESPONSES),
}
