"""The typical demo of such a detector, as tutorials build it: the baseline of `benchmarks/web.py`.

One Flask file on the development server: the upload is saved to disk under its own name, read back with Keras'
`load_img` at 224 x 224, and given to `model.predict`. It finds no faces, keeps no row and draws no heat map. The
network is the one that this project serves, built by its own training code, with random weights: they cost the same.
"""

import argparse
import math
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import keras
import numpy as np
from flask import Flask, render_template_string, request

from training.model import build_backbone, build_classifier

FORM = """<!doctype html><title>Deepfake demo</title>
<form method="post" enctype="multipart/form-data"><input type="file" name="picture"><button>Check</button></form>"""
RESULT = "<!doctype html><title>Result</title><h1>{{ verdict }}</h1><p>{{ '%.2f' % percent }} %</p>"
INPUT_SIZE = 224


def make_app(folder: Path) -> Flask:
    app = Flask(__name__)
    model: Any = build_classifier(build_backbone(), dropout=0.2, seed=0)

    @app.get("/")
    def form() -> str:
        return render_template_string(FORM)

    @app.post("/")
    def predict() -> str:
        upload = request.files["picture"]
        # A name of its own, which such demos do not give: clients at once would read each other's half-written files.
        path = folder / f"{uuid4()}-{os.path.basename(str(upload.filename))}"
        upload.save(path)
        image = keras.utils.load_img(path, target_size=(INPUT_SIZE, INPUT_SIZE))
        batch = np.expand_dims(keras.utils.img_to_array(image), axis=0)
        probability = 1 / (1 + math.exp(-float(model.predict(batch)[0][0])))
        verdict = "Fake" if probability > 0.5 else "Real"
        return render_template_string(RESULT, verdict=verdict, percent=100 * probability)

    return app


def main() -> None:
    """Serves until it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where uploads are saved")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    make_app(options.folder).run(port=options.port)


if __name__ == "__main__":
    main()
