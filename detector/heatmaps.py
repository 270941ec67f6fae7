"""Class-activation maps as a transparent picture to lay over the photo."""

import base64
import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# The maps are 7 x 7, so finer would show nothing more: a browser interpolates as well. The smallest crop gets
# CROP_SIDE, unless that would make a long side of more than HEATMAP_SIDE.
CROP_SIDE = 64  # px
HEATMAP_SIDE = 320  # px
# A cell as strong as this is painted at full strength. Contributions are logits, and their mean is by how much the
# logit of the face differs from that of a usual one: a map whose strongest cell is weaker stays pale instead of being
# stretched to look like evidence.
FULL_STRENGTH_LOGIT = 6.0
MAX_ALPHA = 190
FAKE_COLOUR = (214, 48, 32)
REAL_COLOUR = (24, 110, 220)
# The map is stored as one byte a pixel: evidence from -STEPS (real) to STEPS (fake) round NEUTRAL, which is invisible.
# An encoder takes a tenth of the time for that, compared with four bytes a pixel, and the file is no larger.
NEUTRAL = 128
STEPS = 127


def _palette() -> NDArray[np.uint8]:
    evidence = np.arange(256) - NEUTRAL
    rgba = np.empty((256, 4), dtype=np.uint8)
    rgba[:, :3] = np.where(evidence[:, np.newaxis] > 0, FAKE_COLOUR, REAL_COLOUR)
    rgba[:, 3] = np.minimum(np.round(np.abs(evidence) / STEPS * MAX_ALPHA), MAX_ALPHA)
    return rgba


PALETTE = _palette()  # (256, 4) uint8 RGBA


def encode_heatmap(faces: Iterable[Mapping[str, Any]], *, width: int, height: int) -> bytes:
    """Returns a PNG with alpha in the shape of the picture: red where evidence for fake is, blue where for real.

    Args:
        faces: As `Detection.faces` holds them: `crop` [x, y, width, height] in px of the original, `cam` as rows of
            logit contributions, positive for fake. The first is painted last, over the others.
        width: Of the upright original in px.
        height: Of the upright original in px.
    """
    faces = list(faces)
    crop_side = min((max(face["crop"][2:]) for face in faces), default=CROP_SIDE)
    scale = min(1.0, HEATMAP_SIDE / max(width, height), CROP_SIDE / max(1, crop_side))
    canvas = Image.new("P", (max(1, round(width * scale)), max(1, round(height * scale))), NEUTRAL)
    canvas.putpalette(PALETTE.tobytes(), "RGBA")
    for face in reversed(faces):
        left, top, crop_width, crop_height = (round(side * scale) for side in face["crop"])
        size = (max(1, crop_width), max(1, crop_height))
        overlay = Image.fromarray(evidence_map(np.asarray(face["cam"], dtype=np.float32), size))
        # Pasted, not blended: each face shows its own map, also where two crops overlap.
        canvas.paste(overlay, (left, top))
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def heatmap_uri(faces: Iterable[Mapping[str, Any]], *, width: int, height: int) -> str:
    """Returns the same as a data: URI. In a page it saves a request, which costs several times what the map does."""
    return f"data:image/png;base64,{base64.b64encode(encode_heatmap(faces, width=width, height=height)).decode()}"


def evidence_map(cam: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Returns the map as (height, width) uint8 indices of `PALETTE`, interpolated to `size` (width, height) in px."""
    full_strength = max(FULL_STRENGTH_LOGIT, float(np.abs(cam).max()))
    smooth = np.asarray(Image.fromarray(cam * (STEPS / full_strength)).resize(size, Image.Resampling.BICUBIC))
    indices: NDArray[np.uint8] = np.round(np.clip(smooth, -STEPS, STEPS) + NEUTRAL).astype(np.uint8)
    return indices
