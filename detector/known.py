"""Pictures that were here before: the same file, or one that looks the same."""

from collections.abc import Iterable
from dataclasses import dataclass

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


def matches(detection: Detection, *, among: DetectionQuerySet | None = None, most: int = MOST_SHOWN) -> list[Match]:
    """The nearest others, the same file first, then by distance, then the newest."""
    others = (Detection.objects.all() if among is None else among).exclude(pk=detection.pk)
    same = others.filter(sha256=detection.sha256).for_list().newest_first()[:most]
    found = [Match(other, 0, True) for other in same]
    value = detection.perceptual_hash
    if value is None or not is_telling(value) or len(found) == most:
        return found
    different_files = others.exclude(sha256=detection.sha256)
    nearest = near_keys(different_files, value)[: most - len(found)]
    by_key = different_files.for_list().in_bulk([key for key, _ in nearest])
    return found + [Match(by_key[key], bits, False) for key, bits in nearest if key in by_key]


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
    """The nearest picture that people have called real or fake, if there is one."""
    reviewed = Detection.objects.filter(review_verdict__in=[ReviewVerdict.REAL, ReviewVerdict.FAKE])
    return next(iter(matches(detection, among=reviewed, most=1)), None)
