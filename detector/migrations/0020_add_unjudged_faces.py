from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("detector", "0019_index_filters_and_sorting"),
    ]

    operations = [
        migrations.AddField(
            model_name="detection",
            name="unjudged_faces",
            # With a default of the database, or the old version could not store while the new one is being rolled out.
            field=models.PositiveSmallIntegerField(
                db_default=0,
                default=0,
                help_text="Smaller faces that were found beyond MAX_FACES; nobody looked at them.",
            ),
        ),
    ]
