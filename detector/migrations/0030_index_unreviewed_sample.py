"""An index for what of the random sample nobody has reviewed."""

from typing import Any

from django.db import migrations, models
from django.db.models import Q

INDEX = models.Index(
    fields=["created_at"],
    condition=Q(is_sampled=True, sample_percent__gt=0.0, review_count=0),
    name="detection_unreviewed_sample",
)


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
        ("detector", "0029_forget_names_of_the_deleted"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(create, drop)],
            state_operations=[migrations.AddIndex(model_name="detection", index=INDEX)],
        ),
    ]
