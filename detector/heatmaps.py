"""Class-activation maps as a transparent picture to lay over the photo."""

import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEATMAP_SIDE = 640  # px of the long side; the maps are 7 x 7, so finer would show nothing more
# A cell as strong as this is painted at full strength. Contributions are logits, and their mean is the logit of the
# face: a map whose strongest cell is weaker stays pale instead of being stretched to look like evidence.
FULL_STRENGTH_LOGIT = 6.0
MAX_ALPHA = 190
FAKE_COLOUR = (214, 48, 32)
REAL_COLOUR = (24, 110, 220)


def encode_heatmap(faces: Iterable[Mapping[str, Any]], *, width: int, height: int) -> bytes:
    """Returns a PNG with alpha in the shape of the picture: red where evidence for fake is, blue where for real.

    Args:
        faces: As `Detection.faces` holds them: `crop` [x, y, width, height] in px of the original, `cam` as rows of
            logit contributions, positive for fake. The first is painted last, over the others.
        width: Of the upright original in px.
        height: Of the upright original in px.
    """
    scale = min(1.0, HEATMAP_SIDE / max(width, height))
    canvas = Image.new("RGBA", (max(1, round(width * scale)), max(1, round(height * scale))))
    for face in reversed(list(faces)):
        left, top, crop_width, crop_height = (round(side * scale) for side in face["crop"])
        size = (max(1, crop_width), max(1, crop_height))
        overlay = Image.fromarray(colour_map(np.asarray(face["cam"], dtype=np.float32), size))
        # paste() instead of alpha_composite(): each face shows its own map, also where two crops overlap.
        canvas.paste(overlay, (left, top))
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def colour_map(cam: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Returns the map as (height, width, 4) uint8 RGBA, interpolated to `size` (width, height) in px."""
    smooth = np.asarray(Image.fromarray(cam).resize(size, Image.Resampling.BICUBIC))
    strength = np.clip(np.abs(smooth) / max(FULL_STRENGTH_LOGIT, float(np.abs(cam).max())), 0.0, 1.0)
    rgba = np.empty((*smooth.shape, 4), dtype=np.uint8)
    rgba[..., :3] = np.where(smooth[..., np.newaxis] > 0, FAKE_COLOUR, REAL_COLOUR)
    rgba[..., 3] = np.round(strength * MAX_ALPHA)
    return rgba
