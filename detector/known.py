"""Pictures that were here before: the same file, or one that looks the same."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from django.db.models import Q

from detector.models import HASH_BANDS, Detection, DetectionQuerySet, ReviewVerdict
from detector.similarity import NEAR_DISTANCE, distance, from_bands, is_telling

MOST_SHOWN = 20
# A common hash may have many neighbours; the newest are enough to find some that are near.
MOST_CANDIDATES = 5000


@dataclass(frozen=True, slots=True)
class Match:
    """A detection of the same or a similar picture; `bits` is how far the hashes are apart, 0 for the same file."""

    detection: Detection
    bits: int
    is_same_file: bool
    is_disputed: bool = False  # whether people said something else of others like it


def matches(detection: Detection, *, among: DetectionQuerySet | None = None) -> list[Match]:
    """The nearest others, the same file first, then by distance, then the newest."""
    others = (Detection.objects.all() if among is None else among).exclude(pk=detection.pk)
    # Two files whose SHA-256 nobody has computed yet need not be the same.
    is_same_file = Q(sha256=detection.sha256) if detection.sha256 else Q(pk__in=[])
    same = others.filter(is_same_file).newest_first().values_list("pk", flat=True)[:MOST_SHOWN]
    found: list[tuple[object, int, bool]] = [(key, 0, True) for key in same]
    value = detection.perceptual_hash
    if value is not None and is_telling(value) and len(found) < MOST_SHOWN:
        nearest = near_keys(others.exclude(is_same_file), value)[: MOST_SHOWN - len(found)]
        found += [(key, bits, False) for key, bits in nearest]
    # Mostly there are none; then nothing but keys was asked for.
    by_key = others.for_list().in_bulk([key for key, *_ in found]) if found else {}
    return [Match(by_key[key], bits, is_same) for key, bits, is_same in found if key in by_key]


def near_keys(detections: DetectionQuerySet, value: int) -> list[tuple[object, int]]:
    """Keys of those whose hash is near, with the number of bits between, the nearest and newest first."""
    candidates = detections.near_hash(value).newest_first().values_list("pk", *HASH_BANDS)[:MOST_CANDIDATES]
    return sorted(_within_reach(candidates, value), key=lambda pair: pair[1])


def _within_reach(candidates: Iterable[tuple[object, ...]], value: int) -> Iterable[tuple[object, int]]:
    for key, *bands in candidates:
        first, second, third, fourth = (int(str(band)) for band in bands)
        bits = distance(value, from_bands((first, second, third, fourth)))
        if bits <= NEAR_DISTANCE:
            yield key, bits


def reviewed_match(detection: Detection) -> Match | None:
    """The nearest earlier picture that people have called real or fake, if there is one.

    It is disputed where others as alike, copies of the file or not, were called otherwise.

    Earlier ones alone: a later one would tell that a stranger has uploaded it since.
    """
    earlier = Detection.objects.filter(created_at__lt=detection.created_at)
    reviewed = earlier.filter(review_verdict__in=[ReviewVerdict.REAL, ReviewVerdict.FAKE])
    if _has_none(detection, reviewed):
        return None
    found = matches(detection, among=reviewed)
    if not found:
        return None
    nearest = found[0]
    as_alike = [each.detection.review_verdict for each in found if each.is_same_file == nearest.is_same_file]
    return replace(nearest, is_disputed=len(set(as_alike)) > 1)


def _has_none(detection: Detection, among: DetectionQuerySet) -> bool:
    """Whether it is certain, as mostly, that there is neither the file nor a near one: one question for both.

    It has no order and no small limit, for which a database might prefer to read all rows until it has found one.
    """
    value = detection.perceptual_hash
    if value is None or not is_telling(value):
        return False
    maybe = among.exclude(pk=detection.pk).near_hash(value, or_file=detection.sha256)
    rows = list(maybe.order_by().values_list("sha256", "pk", *HASH_BANDS)[:MOST_CANDIDATES])
    if len(rows) == MOST_CANDIDATES or any(sha256 == detection.sha256 for sha256, *_ in rows):
        return False
    return next(iter(_within_reach((row[1:] for row in rows), value)), None) is None
