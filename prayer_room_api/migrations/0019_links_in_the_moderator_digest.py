from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

from prayer_room_api.shipped_templates import SHIPPED

# As 0001 put it there before there were links.
WITHOUT_LINKS = """\
{% if flagged %}**Flagged**
{% for request in flagged %}
- {{ request.kind }} request {{ request.id }}{% if request.name %} from \
{{ request.name }}{% endif %}, {{ request.created }}, flagged {{ request.flags }}\
 time{{ request.flags|pluralize }}: {{ request.text }}
{% endfor %}
{% endif %}{% if pending %}**Pending**
{% for request in pending %}
- {{ request.kind }} request {{ request.id }}{% if request.name %} from \
{{ request.name }}{% endif %}, {{ request.created }}: {{ request.text }}
{% endfor %}
{% endif %}The prayer room
"""


def renew(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Give the template its links, unless staff have changed it."""
    EmailTemplate = apps.get_model("prayer_room_api", "EmailTemplate")
    for template in EmailTemplate.objects.using(schema_editor.connection.alias).filter(
        digest="moderator"
    ):
        # A form gives it other line ends, without anybody having changed a word.
        if template.body.split() == WITHOUT_LINKS.split():
            template.body = SHIPPED["moderator"].body
            template.save(update_fields=["body"])


class Migration(migrations.Migration):
    dependencies = [("prayer_room_api", "0018_flagged_again")]

    operations = [migrations.RunPython(renew, migrations.RunPython.noop)]
