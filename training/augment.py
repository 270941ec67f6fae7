"""Augmentation against shortcuts: what a file went through must not tell the class.

The sources differ in sharpness, compression, colour and framing, and most hold one class only; every transform here is
drawn independently of the label, but for `blend_fake`, which makes a fake out of a real face.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from detector.faces import BoundingBox
from detector.preprocessing import INPUT_SIZE, MAX_SOURCE_SIDE, face_input, square_crop
from training.data import FacePicture

Pixels = NDArray[np.uint8]
# BlazeFace's keypoints that lie on the face itself: eyes, nose tip, mouth.
_INNER = slice(0, 4)


def training_input(
    picture: FacePicture,
    rng: Generator,
    *,
    size: int,
    donor: FacePicture | None = None,
    augmentation: float = 1.0,
    margins: tuple[float, float] = (1.2, 2.0),
) -> Pixels:
    """Returns one augmented network input, (size, size, 3) uint8 RGB.

    Args:
        picture: The picture to draw from.
        rng: Source of all randomness.
        size: Side of the result in px.
        augmentation: Scales the probability of every change to the file's history, 0 to 1.
        margins: Lowest and highest side of the crop, as a multiple of the face box's longer side.
        donor: If given, the picture is real and a blended fake is made of it, from itself or from the donor's face.
    """
    # Streams of their own: the same seed frames and treats a picture, its blend and its counterpart alike.
    framing, blending, history = rng.spawn(3)
    pixels, keypoints = _framed(picture, framing, margins)
    if donor is not None and keypoints is not None:
        pixels = blend_fake(pixels, keypoints, blending, donor)
    face = _file_history(np.ascontiguousarray(pixels), history, augmentation)
    if framing.random() < 0.5:
        face = np.ascontiguousarray(face[:, ::-1])
    whole = BoundingBox(0, 0, face.shape[1], face.shape[0])
    return face_input(face, whole, size=size)


def evaluation_input(picture: FacePicture, *, size: int = INPUT_SIZE) -> Pixels:
    """Returns the network input that serving would make of the picture, (size, size, 3) uint8 RGB."""
    height, width = picture.pixels.shape[:2]
    return face_input(picture.pixels, square_crop(picture.bbox, width=width, height=height), size=size)


def _framed(
    picture: FacePicture, rng: Generator, margins: tuple[float, float]
) -> tuple[Pixels, NDArray[np.float32] | None]:
    """Returns a randomly framed square around the face, and the keypoints in its px."""
    height, width = picture.pixels.shape[:2]
    bbox = picture.bbox
    shift = rng.normal(0, 0.05, 2) * bbox.width
    moved = BoundingBox(round(bbox.x + shift[0]), round(bbox.y + shift[1]), bbox.width, bbox.height)
    # Tight pictures hold less than the margin asked for: they are cropped tighter still, or they would have one scale.
    widest = min(width, height) / max(bbox.width, bbox.height)
    margin = min(float(rng.uniform(*margins)), widest * float(rng.uniform(0.85, 1.0)))
    crop = square_crop(moved, width=width, height=height, margin=margin)
    pixels = picture.pixels[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
    keypoints = picture.keypoints
    return pixels, None if keypoints is None else keypoints - np.array([crop.x, crop.y], np.float32)


def _file_history(pixels: Pixels, rng: Generator, augmentation: float) -> Pixels:
    """Returns the picture after a random life: retouched, rescaled, compressed, at most MAX_SOURCE_SIDE px."""
    side = min(pixels.shape[0], MAX_SOURCE_SIDE)
    if rng.random() < 0.6 * augmentation:
        side = max(48, round(side * rng.uniform(0.45, 1.0)))
    if side != pixels.shape[0]:
        shrink = rng.choice([cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC], p=[0.6, 0.2, 0.2])
        pixels = _resized(pixels, side, int(shrink))
    for probability, transform in _RETOUCHES:
        if rng.random() < probability * augmentation:
            pixels = transform(pixels, rng)
    if rng.random() < 0.25 * augmentation:
        # A second scale, as a screenshot or a messenger leaves it.
        other = max(48, round(side * rng.uniform(0.7, 1.4)))
        pixels = _resized(pixels, other, cv2.INTER_LINEAR)
    if rng.random() < 0.6 * augmentation:
        pixels = _jpeg(pixels, int(rng.integers(35, 96)))
    return pixels


def _jpeg(pixels: Pixels, quality: int) -> Pixels:
    # OpenCV takes BGR: of RGB it would make brightness with blue's weight for red, and keep reds and blues otherwise.
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.uint8)


def _resized(pixels: Pixels, side: int, interpolation: int) -> Pixels:
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=interpolation), np.uint8)


def _blur(pixels: Pixels, rng: Generator) -> Pixels:
    return cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(0.3, 1.4))).astype(np.uint8)


def _sharpen(pixels: Pixels, rng: Generator) -> Pixels:
    soft = cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(0.6, 2.0)))
    amount = float(rng.uniform(0.2, 1.2))
    return cv2.addWeighted(pixels, 1 + amount, soft, -amount, 0).astype(np.uint8)


def _smooth_skin(pixels: Pixels, rng: Generator) -> Pixels:
    return cv2.bilateralFilter(pixels, 5, float(rng.uniform(10, 40)), 3).astype(np.uint8)


def _noise(pixels: Pixels, rng: Generator) -> Pixels:
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * float(rng.uniform(1, 9))
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def _tone(pixels: Pixels, rng: Generator) -> Pixels:
    """Applies gain, gamma and per-channel white balance through one lookup table."""
    levels = np.linspace(0, 1, 256)[:, None] ** np.exp(rng.normal(0, 0.2))
    levels = (levels - 0.5) * rng.uniform(0.75, 1.25) + 0.5 + rng.uniform(-0.1, 0.1)
    table = np.clip(levels * rng.normal(1, 0.04, 3) * 255, 0, 255).astype(np.uint8)
    return cv2.LUT(pixels, table[None]).astype(np.uint8)


def _saturation(pixels: Pixels, rng: Generator) -> Pixels:
    grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    amount = float(rng.uniform(0.4, 1.4))
    return cv2.addWeighted(pixels, amount, grey, 1 - amount, 0).astype(np.uint8)


def _grey(pixels: Pixels, _rng: Generator) -> Pixels:
    return cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.uint8)


_RETOUCHES: tuple[tuple[float, Callable[[Pixels, Generator], Pixels]], ...] = (
    (0.5, _tone),
    (0.3, _saturation),
    (0.08, _grey),
    (0.06, _smooth_skin),
    (0.15, _blur),
    (0.2, _sharpen),
    (0.15, _noise),
)


def blend_fake(pixels: Pixels, keypoints: NDArray[np.float32], rng: Generator, donor: FacePicture) -> Pixels:
    """Returns a fake: a slightly changed face, or the donor's, blended into the picture's face.

    Shiohara & Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022, section 3.2: source and target
    differ in colour, sharpness and position, and a deformed, softened mask blends them. The mask is an ellipse round
    the eyes, nose and mouth, or one part of them, since only those points are known here.

    Args:
        pixels: (side, side, 3) uint8 RGB, the real face.
        keypoints: (6, 2) float32 in px of `pixels`.
        rng: Source of all randomness.
        donor: A picture whose face, real or not, may be the one that is blended in.
    """
    source: Pixels | None = None
    if rng.random() < 0.5:
        source = _aligned(donor, keypoints, pixels.shape[0], rng)
        if source is not None and rng.random() < 0.7:
            source = _matched_colour(source, pixels, keypoints)
    if source is None:
        source = _shifted(_perturbed(pixels, rng), keypoints, rng)
    elif rng.random() < 0.5:
        source = _perturbed(source, rng)
    mask = _face_mask(keypoints, pixels.shape[0], rng)[..., None]
    mask = mask * float(rng.choice([0.5, 0.75, 1.0, 1.0, 1.0]))
    blended = mask * source + (1 - mask) * pixels
    return np.clip(blended + 0.5, 0, 255).astype(np.uint8)


def _perturbed(pixels: Pixels, rng: Generator) -> Pixels:
    if rng.random() < 0.8:
        shift = rng.normal(0, 7, 3) + rng.normal(0, 6)
        pixels = np.clip(pixels * rng.uniform(0.88, 1.12) + shift, 0, 255).astype(np.uint8)
    choice = rng.random()
    if choice < 0.35:
        small = max(16, round(pixels.shape[0] * rng.uniform(0.3, 0.8)))
        reduced = cv2.resize(pixels, (small, small), interpolation=cv2.INTER_AREA)
        pixels = cv2.resize(reduced, pixels.shape[1::-1], interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    elif choice < 0.6:
        pixels = _sharpen(pixels, rng)
    elif choice < 0.75:
        pixels = _jpeg(np.ascontiguousarray(pixels), int(rng.integers(30, 80)))
    return pixels


def _shifted(pixels: Pixels, keypoints: NDArray[np.float32], rng: Generator) -> Pixels:
    side = pixels.shape[0]
    centre = keypoints[_INNER].mean(axis=0)
    matrix = cv2.getRotationMatrix2D(
        (float(centre[0]), float(centre[1])), float(rng.normal(0, 2)), float(rng.uniform(0.94, 1.06))
    )
    matrix[:, 2] += rng.normal(0, 0.012, 2) * side
    return cv2.warpAffine(pixels, matrix, (side, side), borderMode=cv2.BORDER_REFLECT).astype(np.uint8)


def _aligned(donor: FacePicture, keypoints: NDArray[np.float32], side: int, rng: Generator) -> Pixels | None:
    """Returns the donor's picture moved so that its eyes, nose and mouth lie on the given ones; None if they can't."""
    if donor.keypoints is None:
        return None
    matrix, _inliers = cv2.estimateAffinePartial2D(donor.keypoints[_INNER], keypoints[_INNER], method=cv2.LMEDS)
    if matrix is None:
        return None
    jitter = np.zeros((2, 3))
    jitter[:, 2] = rng.normal(0, 0.01, 2) * side
    return cv2.warpAffine(
        donor.pixels, np.asarray(matrix) + jitter, (side, side), borderMode=cv2.BORDER_REFLECT
    ).astype(np.uint8)


def _matched_colour(source: Pixels, target: Pixels, keypoints: NDArray[np.float32]) -> Pixels:
    """Returns the source with the target's mean and spread of each channel inside the face."""
    points = keypoints[_INNER]
    low = np.clip(points.min(axis=0).astype(int), 0, target.shape[0] - 2)
    high = np.maximum(np.clip(points.max(axis=0).astype(int), 0, target.shape[0]), low + 2)
    region = np.s_[low[1] : high[1], low[0] : high[0]]
    source_mean, target_mean = (each[region].mean(axis=(0, 1)) for each in (source, target))
    source_std, target_std = (each[region].std(axis=(0, 1)) + 1e-3 for each in (source, target))
    matched = (source - source_mean) * np.clip(target_std / source_std, 0.5, 2.0) + target_mean
    recoloured: Pixels = np.clip(matched, 0, 255).astype(np.uint8)
    return recoloured


def _face_mask(keypoints: NDArray[np.float32], side: int, rng: Generator) -> NDArray[np.float32]:
    """Returns a (side, side) float32 mask, 0 to 1: the face, its lower half, or one feature, deformed and soft."""
    right_eye, left_eye, nose, mouth = keypoints[_INNER]
    eyes = (right_eye + left_eye) / 2
    between = max(float(np.linalg.norm(left_eye - right_eye)), 4.0)
    down = max(float(np.linalg.norm(mouth - eyes)), 4.0)
    parts: tuple[tuple[NDArray[np.float32], float, float], ...] = (
        ((eyes + mouth) / 2, between * 1.05, down * 1.15),
        ((nose + mouth) / 2, between * 0.85, down * 0.7),
        (mouth, between * 0.55, down * 0.35),
        (eyes, between * 0.95, down * 0.35),
        (nose, between * 0.4, down * 0.45),
    )
    centre, half_width, half_height = parts[int(rng.choice(len(parts), p=[0.5, 0.14, 0.12, 0.12, 0.12]))]
    angle = float(np.degrees(np.arctan2(*(left_eye - right_eye)[::-1])))
    axes = (
        max(2, round(half_width * rng.uniform(0.8, 1.25))),
        max(2, round(half_height * rng.uniform(0.8, 1.25))),
    )
    mask = np.zeros((side, side), np.float32)
    cv2.ellipse(mask, (round(float(centre[0])), round(float(centre[1]))), axes, angle, 0, 360, 1.0, -1)
    # A smooth random displacement keeps the mask from being a perfect ellipse.
    coarse = rng.normal(0, 0.03 * side, (2, 5, 5)).astype(np.float32)
    shift_x, shift_y = (cv2.resize(each, (side, side), interpolation=cv2.INTER_CUBIC) for each in coarse)
    ys, xs = np.mgrid[0:side, 0:side].astype(np.float32)
    deformed = cv2.remap(mask, xs + shift_x, ys + shift_y, cv2.INTER_LINEAR)
    sigma = float(rng.uniform(0.01, 0.06)) * side
    return np.asarray(cv2.GaussianBlur(deformed, (0, 0), sigma), np.float32)
