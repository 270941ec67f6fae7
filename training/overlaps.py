"""Finds test pictures of which training or validation holds another copy: `python -m training.overlaps`.

The manifest's groups keep what is known to belong together in one split. They do not know that two videos of DFDC show
the same recording, or that an edited portrait's original lies in another source. Such a picture tests memory; the list
that this writes is left out of training and of what the classifier is fitted to, and the figures of the test sets are
given without it, too.

Pairs are shortlisted by how alike the whole pictures and the faces look at 16 x 16 px, and kept where many local
features match under one map of scale, rotation and shift (Lowe, "Distinctive Image Features from Scale-Invariant
Keypoints", IJCV 2004; Fischler & Bolles, "Random Sample Consensus", CACM 1981). What looks alike only after a strong
change is not found: the list is a lower bound.
"""

import argparse
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.augment import evaluation_input
from training.data import OVERLAPS, FacePicture, load_pictures, manifest_sha256, read_manifest
from training.paths import FACES_DIR, RUNS_DIR

# How many local features have to match, and which share of the fewer ones. Faces that were aligned alike, in front of
# plain backgrounds, reach the first without being copies: 84 of 108 generated portraits of one source, with shares of
# 0.06 to 0.19.
LEAST_INLIERS, LEAST_SHARE = 12, 0.17
_SHORTLIST = 12
_THUMBNAIL_SIDE = 16
_RATIO = 0.75  # Lowe's
_FEATURES = 300

Keypoints = tuple[NDArray[np.float32], NDArray[np.float32]]


def thumbnails(pictures: list[FacePicture]) -> list[NDArray[np.float32]]:
    """Returns (n, 768) each, for the whole pictures and for the crops of the faces: zero mean, length 1."""
    wholes: list[NDArray[np.float32]] = []
    faces: list[NDArray[np.float32]] = []
    for picture in pictures:
        for found, pixels in ((wholes, picture.pixels), (faces, evaluation_input(picture, size=64))):
            small = cv2.resize(pixels, (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA)
            vector = small.astype(np.float32).ravel()
            vector -= vector.mean()
            found.append(vector / max(float(np.linalg.norm(vector)), 1e-6))
    return [np.stack(wholes), np.stack(faces)]


def keypoints(picture: FacePicture) -> Keypoints:
    """Returns (n, 2) px and (n, 128) SIFT descriptors."""
    grey = cv2.cvtColor(picture.pixels, cv2.COLOR_RGB2GRAY)
    points, descriptors = cv2.SIFT.create(nfeatures=_FEATURES).detectAndCompute(grey, None)
    where = np.array([point.pt for point in points], np.float32).reshape(-1, 2)
    return where, np.zeros((0, 128), np.float32) if descriptors is None else np.asarray(descriptors, np.float32)


def inliers(one: Keypoints, other: Keypoints) -> int:
    """Returns how many local features of two pictures match under one map of scale, rotation and shift."""
    if min(len(one[1]), len(other[1])) < 2:
        return 0
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(one[1], other[1], k=2)
    good = [best for best, second in pairs if best.distance < _RATIO * second.distance]
    if len(good) < 4:
        return 0
    source = one[0][[match.queryIdx for match in good]]
    target = other[0][[match.trainIdx for match in good]]
    matrix, mask = cv2.estimateAffinePartial2D(source, target, method=cv2.RANSAC, ransacReprojThreshold=3.0)
    # A map that shrinks all to a point has inliers, too.
    if matrix is None or not 0.25 < float(np.hypot(matrix[0, 0], matrix[1, 0])) < 4.0:
        return 0
    return len({tuple(point) for point in np.round(target[mask.ravel() == 1]).tolist()})


def find(tests: list[FacePicture], others: list[FacePicture]) -> list[tuple[str, str, int]]:
    """Returns (path of a test picture, path of one of the others, inliers) for every pair that matches."""
    looks = list(zip(thumbnails(tests), thumbnails(others), strict=True))
    cache: dict[int, Keypoints] = {}
    pairs = []
    for index, test in enumerate(tqdm(tests, desc="test pictures", unit="img", disable=None)):
        candidates: set[int] = set()
        for of_tests, of_others in looks:
            alike = of_others @ of_tests[index]
            candidates.update(np.argpartition(-alike, min(_SHORTLIST, len(alike) - 1))[:_SHORTLIST].tolist())
        own = keypoints(test)
        for candidate in sorted(candidates):
            if candidate not in cache:
                cache[candidate] = keypoints(others[candidate])
            count = inliers(own, cache[candidate])
            if count >= max(LEAST_INLIERS, LEAST_SHARE * min(len(own[0]), len(cache[candidate][0]))):
                pairs.append((test.sample.path, others[candidate].sample.path, count))
    return pairs


def _compact(content: dict[str, Any]) -> str:
    """Returns the JSON with a line for each pair."""
    return re.sub(r'\[\s+("[^"]+"),\s+("[^"]+"),\s+(\d+)\s+\]', r"[\1, \2, \3]", json.dumps(content, indent=1))


def main(arguments: list[str] | None = None) -> None:
    """Writes the list and prints how many pictures of each source are on it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OVERLAPS)
    options = parser.parse_args(arguments)
    samples = read_manifest(FACES_DIR)
    pictures = load_pictures(FACES_DIR, samples, cache_dir=RUNS_DIR)
    tests = [each for each in pictures if each.sample.split.startswith("test")]
    others = [each for each in pictures if not each.sample.split.startswith("test")]
    pairs = find(tests, others)
    content = {
        "command": "python -m training.overlaps",
        "data_version": manifest_sha256(FACES_DIR),
        "least_inliers": LEAST_INLIERS,
        "least_share": LEAST_SHARE,
        "pairs": pairs,
    }
    options.output.write_text(_compact(content) + "\n", encoding="utf-8")
    matched = {test for test, _other, _count in pairs}
    by_source = Counter(each.source for each in samples if each.path in matched)
    print(f"{len(pairs)} pairs; test pictures by source: {dict(by_source)}")


if __name__ == "__main__":
    main()
