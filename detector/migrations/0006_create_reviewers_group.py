"""The group "Reviewers": may look at detections and reviews and add reviews, and nothing else."""

from typing import Any

from django.db import migrations

GROUP = "Reviewers"
# Django itself makes permissions only after the last migration, so the group makes those that it needs.
PERMISSIONS = {
    "view_detection": ("detection", "Can view detection"),
    "view_review": ("review", "Can view review"),
    "add_review": ("review", "Can add review"),
}


def create_group(apps: Any, schema_editor: Any) -> None:
    database = schema_editor.connection.alias
    content_types = apps.get_model("contenttypes", "ContentType").objects.using(database)
    permissions = apps.get_model("auth", "Permission").objects.using(database)
    group, _ = apps.get_model("auth", "Group").objects.using(database).get_or_create(name=GROUP)
    for codename, (model, name) in PERMISSIONS.items():
        content_type, _ = content_types.get_or_create(app_label="detector", model=model)
        permission, _ = permissions.get_or_create(content_type=content_type, codename=codename, defaults={"name": name})
        group.permissions.add(permission)


def delete_group(apps: Any, schema_editor: Any) -> None:
    apps.get_model("auth", "Group").objects.using(schema_editor.connection.alias).filter(name=GROUP).delete()


class Migration(migrations.Migration):
    dependencies = [
        ("detector", "0005_protect_reviews"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [
        migrations.RunPython(create_group, delete_group),
    ]
