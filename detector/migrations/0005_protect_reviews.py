"""Makes reviews append-only in the database itself: whatever connects to it can add a review and nothing else.

What may change is the link to a deleted detection or account, and only to empty. A later migration that makes SQLite
build the table anew (most changes of a field do) drops the triggers and has to call `protect` again; a test tells.
"""

from typing import Any

from django.db import migrations

TABLE = "detector_review"
LINKS = {"detection_id", "reviewer_id"}
REFUSAL = "detector_review is append-only"

POSTGRESQL = f"""
CREATE FUNCTION detector_review_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE'
        AND to_jsonb(NEW) - 'detection_id' - 'reviewer_id' = to_jsonb(OLD) - 'detection_id' - 'reviewer_id'
        AND (NEW.detection_id IS NULL OR NEW.detection_id IS NOT DISTINCT FROM OLD.detection_id)
        AND (NEW.reviewer_id IS NULL OR NEW.reviewer_id IS NOT DISTINCT FROM OLD.reviewer_id)
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER detector_review_no_change BEFORE UPDATE OR DELETE ON {TABLE}
    FOR EACH ROW EXECUTE FUNCTION detector_review_refuse();
CREATE TRIGGER detector_review_no_truncate BEFORE TRUNCATE ON {TABLE}
    FOR EACH STATEMENT EXECUTE FUNCTION detector_review_refuse();
"""
POSTGRESQL_BACK = f"""
DROP TRIGGER detector_review_no_change ON {TABLE};
DROP TRIGGER detector_review_no_truncate ON {TABLE};
DROP FUNCTION detector_review_refuse();
"""


def sqlite_triggers(columns: list[str]) -> list[str]:
    """One statement per trigger. INSERT OR REPLACE deletes without asking a delete trigger, hence the third."""
    same = " AND ".join(f'NEW."{name}" IS OLD."{name}"' for name in columns if name not in LINKS)
    emptied = " AND ".join(f'(NEW."{name}" IS NULL OR NEW."{name}" IS OLD."{name}")' for name in sorted(LINKS))
    taken = f"SELECT 1 FROM {TABLE} WHERE id = NEW.id OR (detection_key = NEW.detection_key AND ordinal = NEW.ordinal)"
    refuse = f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
    return [
        f"CREATE TRIGGER detector_review_no_update BEFORE UPDATE ON {TABLE} WHEN NOT ({same} AND {emptied}) {refuse}",
        f"CREATE TRIGGER detector_review_no_delete BEFORE DELETE ON {TABLE} {refuse}",
        f"CREATE TRIGGER detector_review_no_replace BEFORE INSERT ON {TABLE} WHEN EXISTS ({taken}) {refuse}",
    ]


SQLITE_BACK = [f"DROP TRIGGER detector_review_no_{what}" for what in ("update", "delete", "replace")]


def protect(apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(POSTGRESQL, params=None)
        return
    columns = [field.column for field in apps.get_model("detector", "Review")._meta.local_fields]
    for statement in sqlite_triggers(columns):
        schema_editor.execute(statement, params=None)


def unprotect(apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(POSTGRESQL_BACK, params=None)
        return
    for statement in SQLITE_BACK:
        schema_editor.execute(statement, params=None)


class Migration(migrations.Migration):
    dependencies = [
        ("detector", "0004_drop_review_fields"),
    ]

    operations = [
        migrations.RunPython(protect, unprotect),
    ]
