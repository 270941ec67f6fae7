"""Augmentation keeps shapes and labels apart from what a file went through."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from detector.faces import BoundingBox
from detector.images import decode_image
from detector.predictor import Predictor
from detector.preprocessing import FACE_MARGIN, INPUT_SIZE, MAX_SOURCE_SIDE
from detector.tests.portraits import astronaut
from detector.tests.test_predictor import SPEC, FakeClassifier, FakeFaceFinder
from training.augment import _framed, _jpeg, blend_fake, evaluation_input, training_input
from training.tests.factories import make_face_picture


@pytest.mark.parametrize("size", [96, 160, 224])
@pytest.mark.parametrize("with_donor", [False, True])
def test_inputs_have_the_network_s_shape(size: int, with_donor: bool) -> None:
    donor = make_face_picture(seed=1) if with_donor else None
    for seed in range(20):
        rng = np.random.default_rng(seed)
        face = training_input(make_face_picture(), rng, size=size, donor=donor)
        assert face.shape == (size, size, 3)
        assert face.dtype == np.uint8


def test_the_same_seed_gives_the_same_input() -> None:
    first, second = (training_input(make_face_picture(), np.random.default_rng(7), size=96) for _ in range(2))
    other = training_input(make_face_picture(), np.random.default_rng(8), size=96)
    assert (first == second).all()
    assert (first != other).any()


def test_the_label_does_not_change_the_augmentation() -> None:
    real, fake = (training_input(make_face_picture(label), np.random.default_rng(3), size=96) for label in (0, 1))
    assert (real == fake).all()


def test_evaluation_sees_what_serving_sees() -> None:
    picture = make_face_picture()
    left, top, width, height = picture.bbox
    finder = FakeFaceFinder((left / 240, top / 200, (left + width) / 240, (top + height) / 200))
    network = FakeClassifier(0.5)
    buffer = io.BytesIO()
    Image.fromarray(picture.pixels).save(buffer, "PNG")
    spec = replace(SPEC, input_size=INPUT_SIZE, face_margin=FACE_MARGIN, max_source_side=MAX_SOURCE_SIDE)

    Predictor(spec, network, finder).predict(decode_image(buffer.getvalue()))

    (seen,) = network.seen
    assert (evaluation_input(picture) == seen).all()


@pytest.mark.parametrize("quality", [35, 60, 90])
def test_compression_leaves_the_traces_of_a_real_jpeg(quality: int) -> None:
    pixels = np.ascontiguousarray(astronaut()[:240, 100:340])
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    wanted = np.asarray(Image.open(buffer), np.float32)
    assert np.abs(_jpeg(pixels, quality) - wanted).mean() < 0.3


def test_a_blended_fake_changes_the_face_and_keeps_the_rest() -> None:
    picture, donor = make_face_picture(seed=1), make_face_picture(seed=2)
    square = np.ascontiguousarray(picture.pixels[:200, 20:220])
    assert picture.keypoints is not None
    keypoints = picture.keypoints - np.array([20, 0], np.float32)
    changed = 0
    for seed in range(20):
        blended = blend_fake(square, keypoints, np.random.default_rng(seed), donor)
        difference = np.abs(blended.astype(int) - square).max(axis=2)
        assert blended.shape == square.shape
        assert difference[:8, :8].max() == 0
        changed += int(difference[70:140, 60:140].max() > 5)
    assert changed == 20


def test_a_blend_and_its_original_go_through_the_same() -> None:
    """In the corners, away from the face, the two agree: framing, compression and tone tell nothing about the class."""
    picture, donor = make_face_picture(seed=1), make_face_picture(seed=2)
    changed = 0
    for seed in range(10):
        real, fake = (
            training_input(picture, np.random.default_rng(seed), size=96, donor=each, augmentation=0.0)
            for each in (None, donor)
        )
        difference = np.abs(real.astype(int) - fake).max(axis=2)
        assert max(difference[:4, :4].max(), difference[:4, -4:].max()) <= 1  # the far end of a soft mask
        changed += int(difference.max() > 5)
    assert changed == 10


@pytest.mark.parametrize(("side", "expected"), [(400, (1.2, 2.0)), (90, (0.76, 0.9))])
def test_crops_come_in_several_sizes(side: int, expected: tuple[float, float]) -> None:
    """Also around a face that fills its picture, which can only be cropped tighter."""
    pixels = np.zeros((side, side, 3), np.uint8)
    picture = replace(make_face_picture(), pixels=pixels, bbox=BoundingBox(side // 2 - 50, side // 2 - 50, 100, 100))
    margins = [_framed(picture, np.random.default_rng(seed), (1.2, 2.0))[0].shape[0] / 100 for seed in range(200)]
    assert min(margins) >= expected[0] - 0.02
    assert max(margins) <= expected[1] + 0.02
    assert max(margins) - min(margins) > 0.8 * (expected[1] - expected[0])
