"""Puts those into the review queue that were called Real while their file says that AI made them."""

from typing import Any

from django.db import migrations, models
from django.db.models import Case, Q, Value, When

DECLARED = ["c2pa", "iptc", "settings"]
# The needs before, and their numbers since.
SECOND_OPINION, SAMPLE = 3, 4
CONTRADICTED, SECOND_OPINION_NOW, SAMPLE_NOW = 3, 4, 5


def queue(apps: Any, schema_editor: Any) -> None:
    """In one step: what was moved already would be moved again by a second one."""
    contradicted = Q(verdict="real", ai_declaration__in=DECLARED, review_verdict="", review_need__in=[0, 3, 4])
    contradicted &= ~Q(image="")
    later = {SECOND_OPINION: SECOND_OPINION_NOW, SAMPLE: SAMPLE_NOW}
    apps.get_model("detector", "Detection").objects.filter(contradicted | Q(review_need__in=later)).update(
        review_need=Case(
            When(contradicted, then=Value(CONTRADICTED)),
            *(When(review_need=before, then=Value(now)) for before, now in later.items()),
        )
    )


def unqueue(apps: Any, schema_editor: Any) -> None:
    apps.get_model("detector", "Detection").objects.filter(review_need__gte=CONTRADICTED).update(
        review_need=Case(
            When(review_need=SECOND_OPINION_NOW, then=Value(SECOND_OPINION)),
            When(review_need=SAMPLE_NOW, then=Value(SAMPLE)),
            When(review_count__gt=0, then=Value(SECOND_OPINION)),
            When(is_sampled=True, then=Value(SAMPLE)),
            default=Value(0),
        )
    )


class Migration(migrations.Migration):
    dependencies = [
        ("detector", "0023_add_ai_declaration"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="detection",
            index=models.Index(fields=["ai_declaration", "-created_at"], name="detection_declaration_newest"),
        ),
        migrations.AlterField(
            model_name="detection",
            name="review_need",
            field=models.PositiveSmallIntegerField(
                choices=[
                    (0, "None"),
                    (1, "Uncertain"),
                    (2, "Objected to"),
                    (3, "File says AI"),
                    (4, "Second opinion"),
                    (5, "Random sample"),
                ],
                default=0,
                editable=False,
                verbose_name="needs review",
            ),
        ),
        migrations.RunPython(queue, unqueue),
    ]
