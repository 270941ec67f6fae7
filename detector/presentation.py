"""What the stored figures of a detection mean to somebody who looks at its page."""

from typing import Any

from detector.models import Detection, Score
from detector.predictor import is_too_small, longer_side, smallest_deciding_face
from detector.templatetags.display import percent


def machine_words(detection: Detection) -> str:
    """What the machine said, in a few words: "Fake, uncertain (54.0 % fake)", "No face found"."""
    if detection.status != Detection.Status.DONE:
        return detection.get_status_display()
    return f"{detection.verdict_words} ({percent(detection.fake_probability)} fake)"


def score_words(score: Score) -> str:
    """What another model says: "mobilenet_v2-504e4110: 54.0 % fake", or that it found no face."""
    said = "no face" if score.fake_probability is None else f"{percent(score.fake_probability)} fake"
    return f"{score.model_version}: {said}"


def faces_for_display(detection: Detection) -> list[dict[str, Any]]:
    """One dictionary per face, the deciding one first; boxes in pixels of the upright original.

    A box is cut at the picture's edges, where a face that is partly outside has a part of its box too.
    """
    return [_face(detection, number, face) for number, face in enumerate(detection.faces, start=1)]


def too_small_face(detection: Detection) -> dict[str, int] | None:
    """Number and longer side in px of the smallest face that left the answer undecided; None where none did."""
    if detection.status != Detection.Status.DONE or detection.rule != detection.rule.undecided():
        return None
    bboxes = [face["bbox"] for face in detection.faces]
    smallest = smallest_deciding_face(detection.verdict, bboxes)
    if not is_too_small(bboxes[smallest]):
        return None
    return {"number": smallest + 1, "longer_side": longer_side(bboxes[smallest])}


def _face(detection: Detection, number: int, face: dict[str, Any]) -> dict[str, Any]:
    fake_probability = float(face["fake_probability"])
    verdict = detection.rule.verdict(fake_probability).value
    # A face from before each kept its own answer goes by the picture's rule, which decided small ones as well or none.
    is_uncertain = face.get("is_uncertain", detection.rule.is_uncertain(fake_probability))
    is_limited = "is_uncertain" in face or detection.rule == detection.rule.undecided()
    return {
        "number": number,
        "bbox": _inside(detection, face["bbox"]),
        "crop": _inside(detection, face["crop"]),
        "detection_score": face["detection_score"],
        "fake_probability": fake_probability,
        "real_probability": 1.0 - fake_probability,
        "verdict": verdict,
        "answer": f"uncertain_{verdict}" if is_uncertain else verdict,
        "is_uncertain": is_uncertain,
        "is_too_small": is_limited and is_too_small(face["bbox"]),
        "longer_side": longer_side(face["bbox"]),
        "is_deciding": number == 1,
    }


def _inside(detection: Detection, box: list[int]) -> dict[str, int]:
    x, y, width, height = box
    left, top = max(0, x), max(0, y)
    return {
        "x": left,
        "y": top,
        "width": max(0, min(x + width, detection.width) - left),
        "height": max(0, min(y + height, detection.height) - top),
    }
