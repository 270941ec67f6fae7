"""What one prediction costs, against the original's way: `make bench`.

Prints two kinds of tables. The first compares ways to run the same network on one face; its baseline is the original's
`keras_model.predict`. The second compares the whole of `detect` with the sum of its parts for pictures of 1, 4 and 12
megapixels. The pictures are generated from the public-domain portrait that comes with scikit-image.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from benchmarks.pictures import portrait
from benchmarks.timing import interleaved, print_table
from detector.faces import BoundingBox, FaceDetector
from detector.images import DecodedImage, decode_image
from detector.predictor import LiteRTClassifier, Predictor, load_predictor
from detector.preprocessing import face_input, square_crop

MODEL_DIR = Path(__file__).resolve().parent.parent / "models/mobilenet_v2"
KERAS_PREDICT = "Keras predict (the original)"
LITERT = "bare LiteRT loop, same network, 1 thread"
PARTS = "decode + faces + network, one by one"


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
    pixels = np.repeat(np.repeat(face, 2, axis=0), 2, axis=1)
    crop = BoundingBox(0, 0, pixels.shape[1], pixels.shape[0])

    def bare() -> None:
        interpreter.set_tensor(position, batch)
        interpreter.invoke()

    timings = interleaved(
        {
            KERAS_PREDICT: lambda: model.predict(batch, verbose=0),
            "Keras call": lambda: model(batch, training=False),
            "tf.function": lambda: compiled(tf.constant(batch)),
            LITERT: bare,
            "our classifier, with its heat map": lambda: classifier(face),
            "our crop and classifier": lambda: classifier(face_input(pixels, crop)),
        },
        rounds=rounds,
    )
    print_table("One face through the network", timings, baseline=KERAS_PREDICT)
    print_table("The same against bare LiteRT", timings, baseline=LITERT)


def detection_paths(
    predictor: Predictor,
    face_detector: FaceDetector,
    classifier: LiteRTClassifier,
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
        face_detector.detect(image.pixels)
        network()

    return {
        "decode": lambda: decode_image(data),
        "faces": lambda: face_detector.detect(image.pixels),
        "network": network,
        PARTS: parts,
        "detect": lambda: predictor.predict(decode_image(data)),
    }


def bench_detection(rounds: int) -> None:
    """Prints what the whole of `detect` costs against its parts, for each size and format."""
    predictor = load_predictor(MODEL_DIR)
    classifier = LiteRTClassifier((MODEL_DIR / "model.tflite").read_bytes(), num_threads=1)
    face_detector = FaceDetector()
    for file_format in ("JPEG", "PNG"):
        for megapixels in (1, 4, 12):
            data = portrait(megapixels, file_format)
            image = decode_image(data)
            height, width = image.pixels.shape[:2]
            found = face_detector.detect(image.pixels)
            crops = [square_crop(each.to_pixels(width, height), width=width, height=height) for each in found]
            faces = [face_input(image.pixels, crop) for crop in crops]

            title = f"{megapixels} MP {file_format}, {len(data) / 1e6:.1f} MB, {len(faces)} face(s)"
            paths = detection_paths(predictor, face_detector, classifier, data, image, faces)
            timings = interleaved(paths, rounds=rounds, calls=3 if megapixels == 1 else 1)
            print_table(title, timings, baseline=PARTS)


def main() -> None:
    """Runs all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    bench_network(options.rounds)
    bench_detection(options.rounds)


if __name__ == "__main__":
    main()
