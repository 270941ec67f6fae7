from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("detector", "0022_drop_covered_indexes"),
    ]

    operations = [
        migrations.AddField(
            model_name="detection",
            name="ai_declaration",
            # Null for what was there before, and what the old version stores while the new one is being rolled out.
            field=models.CharField(
                blank=True,
                choices=[
                    ("c2pa", "Content Credentials (C2PA)"),
                    ("iptc", "IPTC digital source type"),
                    ("settings", "an image generator’s settings"),
                ],
                help_text="Where its metadata says that AI made it, or parts of it. A claim: it changes no verdict.",
                max_length=16,
                null=True,
                verbose_name="the file says AI",
            ),
        ),
    ]
