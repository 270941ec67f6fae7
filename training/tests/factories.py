"""Samples and pictures for the training tests."""

import numpy as np

from detector.faces import BoundingBox
from training.data import FacePicture, Sample


def make_sample(
    label: int = 0,
    source: str = "source",
    group: str = "group",
    *,
    split: str = "train",
    path: str = "train/0_real/source/a.jpg",
    generator: str = "photo",
) -> Sample:
    return Sample(path, split, label, source, generator, group, (60.0, 50.0, 100.0, 130.0))


def make_face_picture(label: int = 0, *, seed: int = 0, with_keypoints: bool = True) -> FacePicture:
    """A 240 x 200 picture of smooth noise with a face box in its middle."""
    noise = np.random.default_rng(seed).integers(0, 256, (200, 240, 3), dtype=np.uint8)
    keypoints = np.array([[90, 80], [150, 80], [120, 105], [120, 130], [75, 85], [165, 85]], np.float32)
    return FacePicture(
        make_sample(label), noise, BoundingBox(70, 50, 100, 100), keypoints if with_keypoints else None, served=True
    )
