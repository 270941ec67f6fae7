from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("detector", "0012_create_score"),
    ]

    operations = [
        migrations.CreateModel(
            name="UploadWeek",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("start", models.DateTimeField(help_text="Monday, midnight.", unique=True)),
                (
                    "by_model",
                    models.JSONField(help_text="Per model version: n, real, undecided, score_sum and ten bins."),
                ),
            ],
        ),
    ]
