"""Drops indexes of one column beside which there is one that begins with it and answers the same queries."""

from typing import Any

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

# Name, table and column.
COVERED = [
    ("detector_detection_owner_id_f727462d", "detector_detection", "owner_id"),
    ("detector_detection_session_key_d13cd2de", "detector_detection", "session_key"),
    ("detector_score_detection_id_389a30b0", "detector_score", "detection_id"),
]
# PostgreSQL has a second one of a text, for LIKE.
COVERED_LIKE = ("detector_detection_session_key_d13cd2de_like", "detector_detection", "session_key varchar_pattern_ops")


def drop(apps: Any, schema_editor: Any) -> None:
    """On PostgreSQL nobody waits for it; it waits for the transactions that are open. SQLite takes a moment."""
    is_postgresql = schema_editor.connection.vendor == "postgresql"
    for name, _, _ in [*COVERED, COVERED_LIKE]:
        schema_editor.execute(f'DROP INDEX {"CONCURRENTLY " if is_postgresql else ""}IF EXISTS "{name}"')


def create(apps: Any, schema_editor: Any) -> None:
    is_postgresql = schema_editor.connection.vendor == "postgresql"
    for name, table, column in [*COVERED, COVERED_LIKE] if is_postgresql else COVERED:
        schema_editor.execute(f'CREATE INDEX {"CONCURRENTLY " if is_postgresql else ""}"{name}" ON {table} ({column})')


class Migration(migrations.Migration):
    atomic = False  # in a transaction PostgreSQL does nothing concurrently

    dependencies = [
        ("detector", "0021_recount_upload_weeks"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        # Not AlterField itself, which on SQLite would copy the table.
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(drop, create)],
            state_operations=[
                migrations.AlterField(
                    model_name="detection",
                    name="owner",
                    field=models.ForeignKey(
                        blank=True,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="detections",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                migrations.AlterField(
                    model_name="detection",
                    name="session_key",
                    field=models.CharField(
                        blank=True,
                        help_text="Of a visitor without an account; see detector/visitors.py.",
                        max_length=40,
                    ),
                ),
                migrations.AlterField(
                    model_name="score",
                    name="detection",
                    field=models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="scores",
                        to="detector.detection",
                    ),
                ),
            ],
        ),
    ]
