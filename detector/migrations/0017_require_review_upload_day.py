from importlib import import_module

from django.db import migrations, models

protection = import_module("detector.migrations.0005_protect_reviews")


class Migration(migrations.Migration):
    dependencies = [
        ("detector", "0016_fill_review_upload_day"),
    ]

    operations = [
        migrations.AlterField(
            model_name="review",
            name="uploaded_on",
            field=models.DateField(
                db_index=True, help_text="The detection's day of upload, which stays when the detection goes."
            ),
        ),
        migrations.RunPython(protection.protect, protection.unprotect),
        migrations.CreateModel(
            name="ReviewWeek",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("start", models.DateField(help_text="Monday.", unique=True)),
                (
                    "reviews",
                    models.PositiveIntegerField(
                        help_text="How many there were of the week's uploads when it was counted."
                    ),
                ),
                (
                    "reviewers_needed",
                    models.PositiveIntegerField(help_text="The setting by which it was counted."),
                ),
                (
                    "by_model",
                    models.JSONField(help_text="Per model version: subjects and pairs of reviewers."),
                ),
            ],
        ),
    ]
