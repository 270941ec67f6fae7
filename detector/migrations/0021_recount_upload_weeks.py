"""Has past weeks counted again: what was uploaded without its photo to keep is counted now, too."""

from typing import Any

from django.db import migrations


def forget(apps: Any, schema_editor: Any) -> None:
    apps.get_model("detector", "UploadWeek").objects.using(schema_editor.connection.alias).all().delete()


class Migration(migrations.Migration):
    dependencies = [
        ("detector", "0020_add_unjudged_faces"),
    ]

    operations = [
        migrations.RunPython(forget, forget),
    ]
