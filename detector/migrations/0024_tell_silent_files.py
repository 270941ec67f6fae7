"""Says "none" of files that were asked and say nothing of AI, of which 0023 had an empty text; null is never asked."""

from typing import Any

from django.db import migrations


def is_nullable(schema_editor: Any) -> bool:
    """For some hours 0023 made the column as it becomes in 0025: there an empty text is never asked."""
    connection = schema_editor.connection
    with connection.cursor() as cursor:
        columns = connection.introspection.get_table_description(cursor, "detector_detection")
    return bool(next(column.null_ok for column in columns if column.name == "ai_declaration"))


def tell(apps: Any, schema_editor: Any) -> None:
    if is_nullable(schema_editor):
        apps.get_model("detector", "Detection").objects.filter(ai_declaration="").update(ai_declaration="none")


def untell(apps: Any, schema_editor: Any) -> None:
    detections = apps.get_model("detector", "Detection").objects
    detections.filter(ai_declaration="").update(ai_declaration=None)
    detections.filter(ai_declaration="none").update(ai_declaration="")


class Migration(migrations.Migration):
    dependencies = [
        ("detector", "0023_add_ai_declaration"),
    ]

    operations = [migrations.RunPython(tell, untell)]
