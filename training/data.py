"""The labelled face pictures: manifest, splits, boxes found by the serving detector, balanced sampling."""

import csv
import functools
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import detector.faces
from detector.faces import BoundingBox, DetectedFace, FaceDetector
from detector.images import DecodedImage, decode_image
from detector.preprocessing import scaled_sides
from training.paths import write_atomically

Box = tuple[float, float, float, float]  # left, top, width, height in px
REAL, FAKE = 0, 1
# What `training.overlaps` found.
OVERLAPS = Path(__file__).resolve().parent / "overlaps.json"
_LABELS = {"0_real": REAL, "1_fake": FAKE}
SPLITS = ("train", "val", "test", "test_unseen")
# The kind of manipulation behind each generator of the manifest.
KINDS = {
    "photo": "real",
    "youtube": "real",
    "dfdc_swap": "swap",
    "Deepfakes": "swap",
    "FFpp": "swap",
    "FaceSwap": "swap",
    "NeuralTextures": "swap",
    "photoshop_edit": "edit",
    "stylegan1": "gan",
    "stylegan2": "gan",
    "stylegan2_edited": "gan",
    "stylegan2_e4e": "gan",
    "generated.photos_gan": "gan",
    "sd2.1": "diffusion",
    "flux1_sdxl_dalle3": "diffusion",
    "gpt4o_nanobanana_grok_mixed": "diffusion",
}
# What the classifier of the kinds tells apart, the genuine one first.
CLASSES = ("real", "swap", "edit", "gan", "diffusion")


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of the manifest.

    Attributes:
        path: Relative to the data folder.
        label: REAL (0) or FAKE (1).
        group: Pictures of one group (video, identity, original) never lie in two splits.
        yunet: Another detector's box, or None where it found no face.
    """

    path: str
    split: str
    label: int
    source: str
    generator: str
    group: str
    yunet: Box | None


@dataclass(frozen=True, slots=True, eq=False)
class FacePicture:
    """A decoded picture with the face to judge.

    Attributes:
        pixels: (height, width, 3) uint8 RGB.
        bbox: The face box in px.
        keypoints: (6, 2) float32 in px, or None where only another detector found the face.
        served: Whether the serving detector found a face; without one, serving gives no verdict.
    """

    sample: Sample
    pixels: NDArray[np.uint8]
    bbox: BoundingBox
    keypoints: NDArray[np.float32] | None
    served: bool


def read_manifest(faces_dir: Path) -> list[Sample]:
    """Returns the rows of `manifest.csv`.

    Raises:
        ValueError: An unknown split or label, or a group that lies in two of train, val and the tests.
    """
    samples = []
    splits_of_group: dict[tuple[str, str], set[str]] = defaultdict(set)
    with (faces_dir / "manifest.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["split"] not in SPLITS or row["label"] not in _LABELS:
                raise ValueError(f"{row['path']}: unknown split {row['split']!r} or label {row['label']!r}.")
            left, top, width, height = (float(row[key] or "nan") for key in ("face_x", "face_y", "face_w", "face_h"))
            samples.append(
                Sample(
                    path=row["path"],
                    split=row["split"],
                    label=_LABELS[row["label"]],
                    source=row["source"],
                    generator=row["generator"],
                    group=row["group"],
                    yunet=(left, top, width, height) if row["face_w"] else None,
                )
            )
            # One video may be tested in both test sets (its unseen manipulation apart); none is also learnt from.
            splits_of_group[row["source"], row["group"]].add(row["split"].removesuffix("_unseen"))
    torn = [group for group, splits in splits_of_group.items() if len(splits) > 1]
    if torn:
        raise ValueError(f"{len(torn)} groups lie in more than one split, such as {torn[0]}.")
    return samples


def overlapping(faces_dir: Path) -> list[tuple[str, str]]:
    """Returns (path of a test picture, path of another copy of it in train or val).

    For data that was not searched these are the known pairs that are in it; that there may be more is printed, once in
    a process.
    """
    found = json.loads(OVERLAPS.read_text(encoding="utf-8")) if OVERLAPS.is_file() else {"pairs": []}
    pairs = [(test, other) for test, other, _inliers in found["pairs"]]
    if found.get("data_version") == manifest_sha256(faces_dir):
        return pairs
    samples = read_manifest(faces_dir)
    tests = {each.path for each in samples if each.split.startswith("test")}
    others = {each.path for each in samples} - tests
    there = [(test, other) for test, other in pairs if test in tests and other in others]
    if tests:
        manifest = faces_dir / "manifest.csv"
        _say_once(
            f"{manifest} is not what training/overlaps.json was made of. Of its {len(pairs)} pairs of a test picture"
            f" and its copy in train or val {len(there)} are in this data and count. It was not searched for others;"
            " python -m training.overlaps does that."
        )
    return there


@functools.cache
def _say_once(text: str) -> None:
    print(text, flush=True)


def without_copies(samples: Iterable[Sample], faces_dir: Path) -> list[Sample]:
    """Returns the samples less those of train and val that test pictures are copies of (`training.overlaps`)."""
    copies = {other for _test, other in overlapping(faces_dir)}
    return [each for each in samples if each.path not in copies]


def source_classes(samples: Iterable[Sample]) -> list[tuple[int, str]]:
    """Returns (label, source) of each source's genuine pictures and of its fakes, the genuine ones first."""
    return sorted({(each.label, each.source) for each in samples})


def manifest_sha256(faces_dir: Path) -> str:
    """Returns the hex digest of the manifest, which names the data version."""
    return hashlib.sha256((faces_dir / "manifest.csv").read_bytes()).hexdigest()


def limited(samples: Iterable[Sample], per_source: int | None) -> list[Sample]:
    """Returns at most per_source samples of each split, source and label, in manifest order."""
    counts: dict[tuple[str, str, int], int] = defaultdict(int)
    kept = []
    for sample in samples:
        key = (sample.split, sample.source, sample.label)
        counts[key] += 1
        if per_source is None or counts[key] <= per_source:
            kept.append(sample)
    return kept


def load_pictures(
    faces_dir: Path, samples: Sequence[Sample], *, cache_dir: Path | None = None, progress: bool = True
) -> list[FacePicture]:
    """Returns the decoded pictures with their faces, found by the detector that serves.

    Args:
        faces_dir: The folder that holds manifest.csv.
        samples: What to load.
        cache_dir: Where found boxes are kept between runs; None finds them anew.
        progress: Shows a bar.
    """
    face_detector = FaceDetector()
    cache_path = cache_dir / f"boxes-{_boxes_version(faces_dir)}.json" if cache_dir else None
    boxes: dict[str, list[list[float]] | None] = {}
    if cache_path and cache_path.is_file():
        boxes = json.loads(cache_path.read_text())
    known = len(boxes)
    pictures = []
    for sample in tqdm(samples, desc="pictures", unit="img", disable=None if progress else True):
        image = decode_image((faces_dir / sample.path).read_bytes())
        yunet = _yunet(sample, image)
        if sample.path not in boxes:
            face = _subject(face_detector.detect(image.pixels), yunet, image.pixels.shape)
            boxes[sample.path] = [list(face.box), *face.keypoints.tolist()] if face else None
        pictures.append(_face_picture(sample, image.pixels, boxes[sample.path], yunet))
    if cache_path and len(boxes) > known:
        cache_path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(cache_path, json.dumps(boxes).encode())
    return pictures


def _boxes_version(faces_dir: Path) -> str:
    """Returns what names found boxes: the data and the detector's code."""
    code = Path(detector.faces.__file__).read_bytes()
    return hashlib.sha256(manifest_sha256(faces_dir).encode() + code).hexdigest()[:12]


def sampling_weights(
    samples: Sequence[Sample], *, source_power: float, matched_boost: float = 1.0, real_share: float = 0.5
) -> NDArray[np.float64]:
    """Returns (n,) probabilities that sum to 1: sources within a class by n ** source_power.

    Frames of one FaceForensics++ video are near-duplicates, so within a source a group counts once.

    Args:
        samples: What is drawn from.
        source_power: 1.0 lets the large sources rule, 0.0 gives each source the same share.
        matched_boost: Multiplies the share of the sources that hold both classes.
        real_share: What the real ones sum to.

    Raises:
        ValueError: A class is absent.
    """
    groups: dict[tuple[int, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for sample in samples:
        groups[sample.label, sample.source][sample.group] += 1
    shares = {
        (label, source): len(by_group) ** source_power * (matched_boost if (1 - label, source) in groups else 1.0)
        for (label, source), by_group in groups.items()
    }
    totals = {label: sum(share for key, share in shares.items() if key[0] == label) for label in (REAL, FAKE)}
    if not all(totals.values()):
        raise ValueError("Training needs pictures of both classes.")
    weights = [
        (real_share if sample.label == REAL else 1.0 - real_share)
        * shares[sample.label, sample.source]
        / totals[sample.label]
        / len(groups[sample.label, sample.source])
        / groups[sample.label, sample.source][sample.group]
        for sample in samples
    ]
    probabilities: NDArray[np.float64] = np.array(weights) / np.sum(weights)
    return probabilities


def counterparts(samples: Sequence[Sample]) -> dict[int, list[int]]:
    """Returns index -> indices of the samples of the other class in the same source and group; empty ones left out."""
    members: dict[tuple[str, str], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for index, sample in enumerate(samples):
        members[sample.source, sample.group][sample.label].append(index)
    return {
        index: by_label[1 - label]
        for by_label in members.values()
        for label in (REAL, FAKE)
        if by_label[1 - label]
        for index in by_label[label]
    }


def _yunet(sample: Sample, image: DecodedImage) -> Box | None:
    """Returns the manifest's box in px of the decoded picture, of which a large file's has fewer."""
    if sample.yunet is None:
        return None
    return scaled_sides(sample.yunet, image.picture.width / image.width, image.picture.height / image.height)


def _subject(faces: list[DetectedFace], yunet: Box | None, shape: tuple[int, ...]) -> DetectedFace | None:
    """Returns the face that the label is about: the one nearest to the manifest's box, else the largest."""
    if not faces or yunet is None:
        return faces[0] if faces else None
    left, top, width, height = yunet
    x, y = (left + width / 2) / shape[1], (top + height / 2) / shape[0]

    def distance(face: DetectedFace) -> float:
        return (face.box[0] + face.box[2] - 2 * x) ** 2 + (face.box[1] + face.box[3] - 2 * y) ** 2

    return min(faces, key=distance)


def _face_picture(
    sample: Sample, pixels: NDArray[np.uint8], found: list[list[float]] | None, yunet: Box | None
) -> FacePicture:
    height, width = pixels.shape[:2]
    if found is not None:
        face = DetectedFace((found[0][0], found[0][1], found[0][2], found[0][3]), 1.0, np.empty((0, 2), np.float32))
        keypoints = np.array(found[1:], np.float32) * np.array([width, height], np.float32)
        return FacePicture(sample, pixels, face.to_pixels(width, height), keypoints, served=True)
    if yunet is not None:
        # YuNet's box includes the forehead; its width matches BlazeFace's square.
        left, top, box_width, box_height = yunet
        side = box_width
        bbox = BoundingBox(round(left), round(top + box_height - side), round(side), round(side))
        return FacePicture(sample, pixels, bbox, None, served=False)
    side = round(min(width, height) * 0.7)
    bbox = BoundingBox((width - side) // 2, (height - side) // 2, side, side)
    return FacePicture(sample, pixels, bbox, None, served=False)
