"""A review keeps its upload's day. The table is open to changes from here to 0017, which protects it again."""

from importlib import import_module

from django.db import migrations, models

protection = import_module("detector.migrations.0005_protect_reviews")


class Migration(migrations.Migration):
    dependencies = [
        ("detector", "0014_index_names_models_verdicts"),
    ]

    operations = [
        migrations.RunPython(protection.unprotect, protection.protect),
        migrations.AddField(
            model_name="review",
            name="uploaded_on",
            field=models.DateField(
                null=True, help_text="The detection's day of upload, which stays when the detection goes."
            ),
        ),
    ]
