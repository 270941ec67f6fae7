"""Takes the names of deleted accounts, and the files' names of deleted detections, out of the admin's log."""

from typing import Any

from django.db import migrations
from django.db.models import F

DELETION = 3


def forget(apps: Any, schema_editor: Any) -> None:
    database = schema_editor.connection.alias
    entries = apps.get_model("admin", "LogEntry").objects.using(database)
    accounts = apps.get_model("auth", "User").objects.using(database)
    of_detections = entries.filter(content_type__app_label="detector", action_flag=DELETION)
    of_detections.filter(content_type__model__in=["detection", "queueddetection"]).update(object_repr=F("object_id"))
    there = {str(key) for key in accounts.values_list("pk", flat=True)}
    of_accounts = entries.filter(content_type__app_label="auth", content_type__model="user")
    for key in set(of_accounts.values_list("object_id", flat=True)) - there:
        of_accounts.filter(object_id=key).update(object_repr="a deleted account")


class Migration(migrations.Migration):
    dependencies = [
        ("detector", "0028_remember_seen_answers"),
        ("admin", "0003_logentry_add_action_flag_choices"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]

    operations = [migrations.RunPython(forget, migrations.RunPython.noop)]
