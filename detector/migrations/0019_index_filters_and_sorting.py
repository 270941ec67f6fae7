"""Indexes for what the admin's list is filtered and sorted by, at a million rows."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("detector", "0018_widen_uncertain_band"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="detection",
            index=models.Index(fields=["status", "-created_at"], name="detection_status_newest"),
        ),
        migrations.AddIndex(
            model_name="detection",
            index=models.Index(fields=["review_verdict", "-created_at"], name="detection_reviewed_as_newest"),
        ),
        migrations.AddIndex(
            model_name="detection",
            index=models.Index(
                condition=models.Q(("reviewed_at__isnull", False)),
                fields=["-created_at"],
                name="detection_reviewed_newest",
            ),
        ),
        migrations.AddIndex(
            model_name="detection",
            index=models.Index(fields=["fake_probability", "created_at"], name="detection_probability"),
        ),
    ]
