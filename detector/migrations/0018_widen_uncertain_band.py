"""The band of uncertainty reaches into what is called Real; the kept weeks count that apart, so they are counted anew.

The triggers that keep reviews from being changed name the columns, so they are made anew.
"""

from importlib import import_module
from typing import Any

from django.db import migrations, models

protection = import_module("detector.migrations.0005_protect_reviews")


def forget_weeks(apps: Any, schema_editor: Any) -> None:
    for name in ("UploadWeek", "ReviewWeek"):
        apps.get_model("detector", name).objects.using(schema_editor.connection.alias).all().delete()


class Migration(migrations.Migration):
    dependencies = [
        ("detector", "0017_require_review_upload_day"),
    ]

    operations = [
        migrations.AddField(
            model_name="detection",
            name="uncertain_up_to",
            field=models.FloatField(
                blank=True, help_text="A Real with a real probability up to it is uncertain.", null=True
            ),
        ),
        migrations.RunPython(protection.unprotect, protection.protect),
        migrations.AddField(
            model_name="review",
            name="uncertain_up_to",
            field=models.FloatField(blank=True, null=True),
        ),
        migrations.RunPython(protection.protect, protection.unprotect),
        migrations.AlterField(
            model_name="uploadweek",
            name="by_model",
            field=models.JSONField(help_text="Per model version: counts, the sum of the scores and ten bins."),
        ),
        migrations.RunPython(forget_weeks, forget_weeks),
    ]
