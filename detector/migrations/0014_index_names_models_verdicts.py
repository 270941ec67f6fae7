"""Indexes for the admin's list and search at a million rows."""

from typing import Any

from django.db import migrations, models


def create_name_index(apps: Any, schema_editor: Any) -> None:
    """On PostgreSQL a part of a file name is found by trigrams. SQLite has no such index and reads the table."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
        schema_editor.execute(
            "CREATE INDEX detection_name_trigrams ON detector_detection USING gin (UPPER(original_name) gin_trgm_ops)"
        )


def drop_name_index(apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("DROP INDEX detection_name_trigrams")


class Migration(migrations.Migration):
    dependencies = [
        ("detector", "0013_create_upload_week"),
    ]

    operations = [
        migrations.RunPython(create_name_index, drop_name_index),
        migrations.AddIndex(
            model_name="detection",
            index=models.Index(fields=["model_version"], name="detection_model_version"),
        ),
        migrations.AddIndex(
            model_name="detection",
            index=models.Index(fields=["verdict", "-created_at"], name="detection_verdict_newest"),
        ),
    ]
