"""Puts what was stored before there was a queue into it, by the same rules as Detection.need_now()."""

from typing import Any

from django.db import migrations
from django.db.models import F, Q

UNCERTAIN, APPEALED, SECOND_OPINION = 1, 2, 3


def fill(apps: Any, schema_editor: Any) -> None:
    detections = apps.get_model("detector", "Detection").objects.using(schema_editor.connection.alias)
    appeal_is_open = Q(appealed_at__isnull=False) & (Q(reviewed_at=None) | Q(reviewed_at__lt=F("appealed_at")))
    open_ones = detections.exclude(status="failed").filter(Q(review_verdict="") | appeal_is_open)
    open_ones.filter(review_count__gt=0).update(review_need=SECOND_OPINION)
    open_ones.filter(appealed_at__isnull=False).update(review_need=APPEALED)
    open_ones.filter(verdict="fake", fake_probability__lt=1.0 - F("uncertain_above")).update(review_need=UNCERTAIN)


class Migration(migrations.Migration):
    dependencies = [
        ("detector", "0008_add_review_queue"),
    ]

    operations = [
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
