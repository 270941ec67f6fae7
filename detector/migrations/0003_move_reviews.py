"""What reviewers had written on the detections themselves becomes a Review each."""

from typing import Any

from django.db import migrations
from django.db.models import Q


def move_to_reviews(apps: Any, schema_editor: Any) -> None:
    detection_model, review_model = apps.get_model("detector", "Detection"), apps.get_model("detector", "Review")
    database = schema_editor.connection.alias
    reviewed = detection_model.objects.using(database).exclude(review_verdict="").defer("faces", "timings_ms")
    for detection in reviewed.iterator():
        review_model.objects.using(database).create(
            detection=detection,
            detection_key=detection.pk,
            ordinal=1,
            reviewer_id=detection.reviewed_by_id,
            reviewer_key=detection.reviewed_by_id,
            verdict=detection.review_verdict,
            note=detection.review_note,
            is_blind=False,
            seconds_spent=None,
            created_at=detection.reviewed_at,
            machine_verdict=detection.verdict,
            fake_probability=detection.fake_probability,
            threshold=detection.threshold,
            uncertain_above=detection.uncertain_above,
            model_version=detection.model_version,
            is_sampled=False,
            sample_percent=0.0,
        )
    reviewed.update(review_count=1)


def move_back(apps: Any, schema_editor: Any) -> None:
    """The newest review of each detection goes back to it; older ones have no place there and are lost."""
    detection_model, review_model = apps.get_model("detector", "Detection"), apps.get_model("detector", "Review")
    database = schema_editor.connection.alias
    for review in review_model.objects.using(database).exclude(detection=None).order_by("ordinal").iterator():
        detection_model.objects.using(database).filter(pk=review.detection_id).update(
            review_verdict=review.verdict,
            review_note=review.note,
            reviewed_by=review.reviewer_id,
            reviewed_at=review.created_at,
        )
    review_model.objects.using(database).all().delete()
    unsettled = Q(review_verdict="", reviewed_at__isnull=False)
    detection_model.objects.using(database).filter(unsettled).update(reviewed_at=None)


class Migration(migrations.Migration):
    dependencies = [
        ("detector", "0002_create_review"),
    ]

    operations = [
        migrations.RunPython(move_to_reviews, move_back),
    ]
