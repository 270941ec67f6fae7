"""The public-domain portrait of the astronaut Eileen Collins, which comes with scikit-image."""

import importlib.metadata
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def astronaut() -> NDArray[np.uint8]:
    """Returns (512, 512, 3) uint8 RGB with one face, about 90 px wide, near the upper middle."""
    path = importlib.metadata.distribution("scikit-image").locate_file("skimage/data/astronaut.png")
    return np.asarray(Image.open(Path(str(path))).convert("RGB"))


def astronaut_jpeg(**save_options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(astronaut()).save(buffer, "JPEG", quality=92, **save_options)
    return buffer.getvalue()
