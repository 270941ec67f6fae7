from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("detector", "0024_tell_silent_files"),
    ]

    operations = [
        migrations.AlterField(
            model_name="detection",
            name="ai_declaration",
            # Empty for what was there before, and what the old version stores while the new one is being rolled out.
            field=models.CharField(
                blank=True,
                choices=[
                    ("c2pa", "Content Credentials (C2PA)"),
                    ("iptc", "IPTC digital source type"),
                    ("settings", "an image generator’s settings"),
                    ("none", "no"),
                ],
                db_default="",
                default="",
                help_text="Where its metadata says that AI made it, or parts of it. A claim: it changes no verdict.",
                max_length=16,
                verbose_name="the file says AI",
            ),
        ),
    ]
