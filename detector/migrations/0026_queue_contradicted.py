"""Puts those into the review queue that were called Real while their file says that AI made them."""

from typing import Any

from django.db import migrations, models

NONE, CONTRADICTED = 0, 5


def queue(apps: Any, schema_editor: Any) -> None:
    apps.get_model("detector", "Detection").objects.filter(
        verdict="real", ai_declaration__in=["c2pa", "iptc", "settings"], review_verdict="", review_need=NONE
    ).exclude(image="").update(review_need=CONTRADICTED)


def unqueue(apps: Any, schema_editor: Any) -> None:
    apps.get_model("detector", "Detection").objects.filter(review_need=CONTRADICTED).update(review_need=NONE)


class Migration(migrations.Migration):
    dependencies = [
        ("detector", "0025_require_ai_declaration"),
    ]

    operations = [
        migrations.AlterField(
            model_name="detection",
            name="review_need",
            field=models.PositiveSmallIntegerField(
                choices=[
                    (0, "None"),
                    (1, "Uncertain"),
                    (2, "Objected to"),
                    (3, "Second opinion"),
                    (4, "Random sample"),
                    (5, "File says AI"),
                ],
                default=0,
                editable=False,
                verbose_name="needs review",
            ),
        ),
        migrations.RunPython(queue, unqueue),
    ]
