"""Where training finds its data and writes its model; each can be set in the environment."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FACES_DIR = Path(os.environ.get("FACES_DIR", ROOT.parent / "shared/faces"))
BACKBONE_WEIGHTS = Path(
    os.environ.get("BACKBONE_WEIGHTS", ROOT.parent / "shared/weights/mobilenet_v2_imagenet_no_top.weights.h5")
)
MODEL_DIR = ROOT / "models/mobilenet_v2"
RUNS_DIR = ROOT / "training/runs"
