"""An index for the admin's list filtered by what files say of AI."""

from typing import Any

from django.db import migrations, models

INDEX = models.Index(fields=["ai_declaration", "-created_at"], name="detection_declaration_newest")


def create(apps: Any, schema_editor: Any) -> None:
    """On PostgreSQL nobody waits for it; it waits for the transactions that are open."""
    model = apps.get_model("detector", "Detection")
    if schema_editor.connection.vendor == "postgresql":
        # What an interrupted run left is no index yet, but has the name.
        schema_editor.execute(f'DROP INDEX CONCURRENTLY IF EXISTS "{INDEX.name}"')
        schema_editor.add_index(model, INDEX, concurrently=True)
    else:
        schema_editor.add_index(model, INDEX)


def drop(apps: Any, schema_editor: Any) -> None:
    model = apps.get_model("detector", "Detection")
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.remove_index(model, INDEX, concurrently=True)
    else:
        schema_editor.remove_index(model, INDEX)


class Migration(migrations.Migration):
    atomic = False  # in a transaction PostgreSQL does nothing concurrently

    dependencies = [
        ("detector", "0026_queue_contradicted"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(create, drop)],
            state_operations=[migrations.AddIndex(model_name="detection", index=INDEX)],
        ),
    ]
