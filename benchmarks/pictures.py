"""Pictures of a size, for benchmarks: the public-domain portrait that comes with scikit-image."""

import importlib.metadata
import io

import numpy as np
from PIL import Image


def portrait(megapixels: int, file_format: str) -> bytes:
    """Returns the portrait enlarged to so many megapixels, 4:3, with the noise of a camera."""
    path = importlib.metadata.distribution("scikit-image").locate_file("skimage/data/astronaut.png")
    height = round((megapixels * 1_000_000 * 3 / 4) ** 0.5)
    with Image.open(str(path)) as image:
        large = np.asarray(image.convert("RGB").crop((0, 0, 512, 384)).resize((height * 4 // 3, height)))
    # Less of it in a PNG, which can't compress noise and would be larger than an upload may be.
    noise = np.random.default_rng(0).normal(0, 4 if file_format == "JPEG" else 0.8, large.shape)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(large + noise, 0, 255).astype(np.uint8)).save(buffer, file_format)
    return buffer.getvalue()
