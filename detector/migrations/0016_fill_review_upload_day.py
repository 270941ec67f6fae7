"""Fills in the day of upload; of a deleted one nothing but the day of its first review is known."""

from typing import Any

from django.db import migrations
from django.db.models import OuterRef, Subquery
from django.db.models.functions import TruncDate


def fill(apps: Any, schema_editor: Any) -> None:
    database = schema_editor.connection.alias
    reviews = apps.get_model("detector", "Review").objects.using(database).order_by()
    uploads = apps.get_model("detector", "Detection").objects.using(database).order_by()
    upload = uploads.filter(pk=OuterRef("detection"))
    reviews.update(uploaded_on=Subquery(upload.values(day=TruncDate("created_at"))))
    first = reviews.filter(detection_key=OuterRef("detection_key")).order_by("ordinal")
    reviews.filter(uploaded_on=None).update(uploaded_on=Subquery(first.values(day=TruncDate("created_at"))[:1]))


class Migration(migrations.Migration):
    dependencies = [
        ("detector", "0015_add_review_upload_day"),
    ]

    operations = [
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
