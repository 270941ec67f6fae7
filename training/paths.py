"""Where training finds its data and writes its model, and how it writes.

Where the data is can be set in the environment.
"""

import os
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FACES_DIR = Path(os.environ.get("FACES_DIR", ROOT.parent / "shared/faces"))
BACKBONE_WEIGHTS = Path(
    os.environ.get("BACKBONE_WEIGHTS", ROOT.parent / "shared/weights/mobilenet_v2_imagenet_no_top.weights.h5")
)
MODEL_DIR = ROOT / "models/mobilenet_v2"
RUNS_DIR = ROOT / "training/runs"


def write_atomically(path: Path, data: bytes) -> None:
    """Writes the file whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
