"""What one prediction costs, against the original's way: `make bench`.

Prints two kinds of tables. The first compares ways to run the same network on one face; its baseline is the original's
`keras_model.predict`. The second compares the stages of a detection, the whole of `detect`, and all of an upload's work
with the sum of decoding, finding faces and the network, for pictures of 1, 4 and 12 megapixels. The pictures are
generated from the public-domain portrait that comes with scikit-image.
"""

import argparse
import functools
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

import django
import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from benchmarks.pictures import portrait
from benchmarks.sites import prepare, site_environment
from benchmarks.timing import interleaved, print_table
from detector.faces import BoundingBox, FaceDetector
from detector.images import DecodedImage, decode_image
from detector.predictor import Classifier, LiteRTClassifier, Predictor, SeveralNetworks, load_classifier, load_predictor
from detector.preprocessing import face_input, square_crop

MODEL_DIR = Path(__file__).resolve().parent.parent / "models/mobilenet_v2"
KERAS_PREDICT = "Keras predict (the original)"
LITERT = "bare LiteRT loop, same network, 1 thread"
PARTS = "decode + faces + network, one by one"
SIZES = (1, 4, 12)  # megapixels


def bench_network(rounds: int) -> None:
    """Prints what one face costs on each path."""
    spec = load_predictor(MODEL_DIR).spec
    size = spec.input_size
    backbone = keras.applications.MobileNetV2(input_shape=(size, size, 3), include_top=False, weights=None)
    pooled = keras.layers.GlobalAveragePooling2D()(backbone.output)
    model = keras.Model(backbone.input, keras.layers.Dense(1, activation="sigmoid")(pooled))
    face = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    batch = face[None].astype(np.float32)
    compiled = tf.function(lambda pictures: model(pictures, training=False))
    weights = (MODEL_DIR / "model.tflite").read_bytes()
    interpreter = Interpreter(model_content=weights, num_threads=1)
    interpreter.allocate_tensors()
    position = interpreter.get_input_details()[0]["index"]
    classifier = LiteRTClassifier(weights, num_threads=1)
    networks = load_classifier(MODEL_DIR, spec)
    pixels = np.repeat(np.repeat(face, 2, axis=0), 2, axis=1)
    crop = BoundingBox(0, 0, pixels.shape[1], pixels.shape[0])

    def bare() -> None:
        interpreter.set_tensor(position, batch)
        interpreter.invoke()

    paths: dict[str, Callable[[], object]] = {
        KERAS_PREDICT: lambda: model.predict(batch, verbose=0),
        "Keras call": lambda: model(batch, training=False),
        "tf.function": lambda: compiled(tf.constant(batch)),
        LITERT: bare,
        "our classifier, with its heat map": lambda: classifier(face),
        "our crop and classifier": lambda: classifier(face_input(pixels, crop)),
    }
    if isinstance(networks, SeveralNetworks):
        always = SeveralNetworks(*networks.parts, asked_between=(-1.0, 2.0))
        paths["our classifier where it asks the others"] = lambda: always(face)
    timings = interleaved(paths, rounds=rounds)
    print_table("One face through the network", timings, baseline=KERAS_PREDICT)
    print_table("The same against bare LiteRT", timings, baseline=LITERT)


def detection_paths(
    predictor: Predictor,
    face_detector: FaceDetector,
    classifier: Classifier,
    data: bytes,
    image: DecodedImage,
    faces: list[NDArray[np.uint8]],
) -> dict[str, Callable[[], object]]:
    """Returns the parts of a detection, their sequence, and `detect`, each as a call."""

    def network() -> None:
        for face in faces:
            classifier(face)

    def parts() -> None:
        decode_image(data)
        face_detector.detect(image.picture)
        network()

    return {
        "decode": lambda: decode_image(data),
        "faces": lambda: face_detector.detect(image.picture),
        "network": network,
        PARTS: parts,
        "detect": lambda: predictor.predict(decode_image(data)),
    }


def cut_out(image: DecodedImage, crops: list[BoundingBox]) -> list[NDArray[np.uint8]]:
    return [face_input(image.picture, crop) for crop in crops]


def storing_paths(data: bytes) -> dict[str, Callable[[], object]]:
    """Returns what is made and kept of a detection besides its verdict, and all of an upload's work, each as a call."""
    from django.core.files.base import ContentFile
    from django.db import transaction

    from detector import pending, services
    from detector.heatmaps import encode_heatmap
    from detector.images import encode_jpeg, fitted
    from detector.models import Detection, picture_path, thumbnail_path
    from detector.similarity import perceptual_hash

    def create() -> Detection:
        return services.detection_create(
            owner=None, session_key="0" * 40, data=data, image=decode_image(data), original_name="portrait"
        )

    image, detection = decode_image(data), create()
    small = fitted(image.picture, services.THUMBNAIL_SIDE)
    thumbnail = encode_jpeg(small)

    def row() -> None:
        detection.pk = uuid4()
        with transaction.atomic():
            detection.save(force_insert=True)

    def files() -> None:
        detection.pk = uuid4()
        pending.note(detection.pk, [picture_path(detection, ""), thumbnail_path(detection, "")], is_first=True)
        detection.image.save("", ContentFile(data), save=False)
        detection.thumbnail.save("", ContentFile(thumbnail), save=False)
        pending.forget(detection.pk)

    return {
        "small copy": lambda: fitted(image.picture, services.THUMBNAIL_SIDE),
        "its perceptual hash": lambda: perceptual_hash(small),
        "its JPEG, the thumbnail": lambda: encode_jpeg(small),
        "stored files, with their note": files,
        "database row": row,
        "heat map": lambda: encode_heatmap(detection.faces, width=detection.width, height=detection.height),
        "detect and store": create,
    }


def bench_detection(rounds: int, sizes: Sequence[int]) -> None:
    """Prints what the whole of `detect`, and of detecting and storing, costs against its parts."""
    predictor = load_predictor(MODEL_DIR)
    classifier = load_classifier(MODEL_DIR, predictor.spec)
    face_detector = FaceDetector()
    for file_format in ("JPEG", "PNG"):
        for megapixels in sizes:
            data = portrait(megapixels, file_format)
            image = decode_image(data)
            width, height = image.picture.size
            found = face_detector.detect(image.picture)
            crops = [square_crop(each.to_pixels(width, height), width=width, height=height) for each in found]
            faces = cut_out(image, crops)

            title = f"{megapixels} MP {file_format}, {len(data) / 1e6:.1f} MB, {len(faces)} face(s)"
            paths: dict[str, Callable[[], object]] = {
                **detection_paths(predictor, face_detector, classifier, data, image, faces),
                "crop": functools.partial(cut_out, image, crops),
                **storing_paths(data),
            }
            timings = interleaved(paths, rounds=rounds, calls=3 if megapixels == 1 else 1)
            print_table(title, timings, baseline=PARTS)


def main() -> None:
    """Runs all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="megapixels")
    options = parser.parse_args()
    bench_network(options.rounds)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        environment = site_environment(Path(folder)) | {"DJANGO_SETTINGS_MODULE": "deepfake_site.settings"}
        prepare(environment)
        os.environ.update(environment)
        django.setup()
        bench_detection(options.rounds, options.sizes)


if __name__ == "__main__":
    main()
