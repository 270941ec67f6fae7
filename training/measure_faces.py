"""Measures the face detector's looks: `python -m training.measure_faces`.

Prints, for each look and each candidate for its lowest score, the share of validation crops, of faces pasted small into
scenes without people, and of pictures without people in which it finds a face; of the latter two also what all looks
together find after they were reduced.
"""

import argparse
import importlib.metadata
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images
from tqdm import tqdm

from detector.faces import BACK_CAMERA, FAR, NEAR, FaceDetector, Look
from detector.images import decode_image
from training.data import Sample, read_manifest
from training.paths import FACES_DIR

Pixels = NDArray[np.uint8]
_PEOPLELESS = ("brick", "cell", "chelsea", "coffee", "coins", "grass", "gravel", "horse", "ihc", "moon", "page", "text")
_SCORES = (0.4, 0.5, 0.6, 0.65, 0.7, 0.8, 0.9)
_SCENE_SIDE = 1024
_SMALL_SIDES = (48, 96, 128, 240, 320, 479, 640)


def peopleless_pictures(rng: np.random.Generator, *, crops: int = 15) -> list[Pixels]:
    """Returns public pictures without people, each followed by random crops of it; (h, w, 3) uint8 RGB."""
    distribution = importlib.metadata.distribution("scikit-image")
    files = [distribution.locate_file(f"skimage/data/{name}.png") for name in _PEOPLELESS]
    pictures = [np.asarray(Image.open(str(file)).convert("RGB")) for file in files]
    pictures += list(load_sample_images().images)
    for whole in list(pictures):
        height, width = whole.shape[:2]
        for _ in range(crops):
            side = int(rng.uniform(0.25, 0.9) * min(height, width))
            y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
            pictures.append(whole[y : y + side, x : x + side])
    return pictures


def scene(sample: Sample, faces_dir: Path, background: Pixels, share: float, rng: np.random.Generator) -> Pixels:
    """Returns a background of 1024 px with the sample pasted so that its face is `share` (0 to 1) as wide."""
    if sample.yunet is None:
        raise ValueError(f"{sample.path} has no box to scale by.")
    picture = Image.open(faces_dir / sample.path).convert("RGB")
    factor = share * _SCENE_SIDE / max(sample.yunet[2:])
    small = picture.resize((round(picture.width * factor), round(picture.height * factor)), Image.Resampling.BICUBIC)
    canvas = Image.fromarray(background).resize((_SCENE_SIDE, _SCENE_SIDE))
    room = (max(1, _SCENE_SIDE - small.width), max(1, _SCENE_SIDE - small.height))
    canvas.paste(small, (int(rng.integers(room[0])), int(rng.integers(room[1]))))
    return np.asarray(canvas)


def best_scores(look: Look, pictures: list[Pixels]) -> NDArray[np.float64]:
    """Returns (n,) the highest score of any face in each picture, 0 to 1; 0 below 0.05."""
    detector = FaceDetector((replace(look, min_score=0.05, min_side=0),))
    return np.array(
        [max((face.score for face in detector.detect(each)), default=0.0) for each in tqdm(pictures, disable=None)]
    )


def main(arguments: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=600, help="validation crops to use")
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    samples = [each for each in read_manifest(FACES_DIR) if each.split == "val" and each.yunet]
    samples = [samples[int(index)] for index in rng.permutation(len(samples))[: options.limit]]
    peopleless = peopleless_pictures(rng)
    sets = {
        "without people": peopleless,
        "val crops": [decode_image((FACES_DIR / each.path).read_bytes()).pixels for each in samples],
    }
    for share in (0.5, 0.25, 0.15, 0.1, 0.07):
        sets[f"face {share:.0%} of scene"] = [
            scene(each, FACES_DIR, peopleless[int(rng.integers(len(peopleless)))], share, rng) for each in samples[:100]
        ]
    looks = {
        "near": NEAR,
        "near, no border": replace(NEAR, padding=0.0),
        "far": FAR,
        "back camera": Look(BACK_CAMERA, 0.6),
    }
    print(f"{'share found at score >=':40}{'n':>6}" + "".join(f"{score:>8}" for score in _SCORES))
    for look_name, look in looks.items():
        for set_name, pictures in sets.items():
            found = best_scores(look, pictures)
            shares = "".join(f"{np.mean(found >= score):>8.3f}" for score in _SCORES)
            print(f"{look_name + ': ' + set_name:40}{len(pictures):>6}{shares}")
    detector = FaceDetector()
    print(f"\n{'found as served':40}{'n':>6}" + "".join(f"{side:>6} px" for side in _SMALL_SIDES))
    for set_name, pictures in sets.items():
        if set_name == "val crops":
            continue
        found_as_served = [
            [bool(detector.detect(Image.fromarray(each).resize((side, side)))) for each in pictures]
            for side in _SMALL_SIDES
        ]
        print(f"{set_name:40}{len(pictures):>6}" + "".join(f"{np.mean(each):>9.3f}" for each in found_as_served))


if __name__ == "__main__":
    main()
