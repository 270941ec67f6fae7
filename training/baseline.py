"""Measures the original's recipe on the same crops: `python -m training.baseline`.

A frozen ImageNet backbone with a newly trained dense classifier. Its figures stand beside the model's in metrics.json
and the card; it has seen the same training pictures, without augmentation, and its probability is not calibrated.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from detector.predictor import DecisionRule
from training.augment import evaluation_input
from training.card import write_card
from training.data import FacePicture, limited, load_pictures, read_manifest
from training.evaluate import rounded
from training.export import write_atomically
from training.metrics import table_row
from training.model import build_backbone, load_backbone_weights
from training.paths import BACKBONE_WEIGHTS, FACES_DIR, MODEL_DIR, RUNS_DIR


def frozen_head(faces_dir: Path, *, limit_per_source: int | None = None) -> dict[str, Any]:
    """Returns the overall rows of `test` and `test_unseen` for a frozen backbone with a new head.

    Args:
        faces_dir: The folder with manifest.csv.
        limit_per_source: Uses at most this many pictures of each split, source and label.
    """
    samples = limited(read_manifest(faces_dir), limit_per_source)
    backbone = build_backbone()
    load_backbone_weights(backbone, BACKBONE_WEIGHTS)
    pooled = keras.Model(backbone.input, keras.layers.GlobalAveragePooling2D()(backbone.output))

    def features(split: str) -> tuple[list[FacePicture], NDArray[np.float32], NDArray[np.int_]]:
        pictures = load_pictures(faces_dir, [each for each in samples if each.split == split], cache_dir=RUNS_DIR)
        chunks = [pictures[start : start + 256] for start in range(0, len(pictures), 256)]
        found = [
            pooled.predict(np.stack([evaluation_input(each) for each in chunk]) / np.float32(127.5) - 1, verbose=0)
            for chunk in chunks
        ]
        return pictures, np.concatenate(found), np.array([each.sample.label for each in pictures])

    _pictures, train_features, train_labels = features("train")
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500, class_weight="balanced"))
    head.fit(train_features, train_labels)
    rows = {}
    for split in ("test", "test_unseen"):
        pictures, test_features, labels = features(split)
        groups = [f"{each.sample.source}/{each.sample.group}" for each in pictures]
        scores = head.predict_proba(test_features)[:, 1]
        rows[split] = {
            **table_row(labels, scores, groups, rule=DecisionRule(), prior=0.5),
            "n_train": len(train_labels),
        }
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Measures, stores and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-dir", type=Path, default=MODEL_DIR)
    parser.add_argument("--limit-per-source", type=int)
    options = parser.parse_args(arguments)
    rows = frozen_head(FACES_DIR, limit_per_source=options.limit_per_source)
    path = options.model_dir / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["baseline"] = {"frozen_head": rounded(rows), "command": "python -m training.baseline"}
    write_atomically(path, (json.dumps(metrics, indent=1) + "\n").encode())
    write_card(options.model_dir)
    for split, row in rows.items():
        print(split, {name: row[name] for name in ("n", "auc", "acc", "real_acc", "fake_acc", "eer", "ece")})


if __name__ == "__main__":
    main()
