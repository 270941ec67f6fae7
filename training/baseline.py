"""Measures the original's recipe on the same crops: `python -m training.baseline`.

A frozen ImageNet backbone with a newly trained dense classifier, with all sources and with each fold of
`training.leave_one_out` left out. Its figures stand beside the model's in metrics.json and the card; it has seen the
same training pictures, without augmentation, and its probability is not calibrated.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from detector.model_cards import BASELINE_FOLDS
from detector.predictor import DecisionRule
from training.augment import evaluation_input
from training.card import write_card
from training.data import SPLITS, FacePicture, limited, load_pictures, read_manifest, without_copies
from training.evaluate import rounded
from training.leave_one_out import folds, masks
from training.metrics import table_row
from training.model import build_backbone, load_backbone_weights
from training.paths import BACKBONE_WEIGHTS, FACES_DIR, MODEL_DIR, RUNS_DIR, write_atomically

Features = dict[str, tuple[list[FacePicture], NDArray[np.float32]]]


def frozen_features(faces_dir: Path, *, limit_per_source: int | None = None) -> Features:
    """Returns split -> (pictures, (n, 1280) float32 pooled features of the frozen backbone).

    Args:
        faces_dir: The folder with manifest.csv.
        limit_per_source: Uses at most this many pictures of each split, source and label.
    """
    samples = limited(read_manifest(faces_dir), limit_per_source)
    learnt = without_copies(samples, faces_dir)
    backbone = build_backbone()
    load_backbone_weights(backbone, BACKBONE_WEIGHTS)
    pooled = keras.Model(backbone.input, keras.layers.GlobalAveragePooling2D()(backbone.output))
    features: Features = {}
    for split in SPLITS:
        chosen = [each for each in (learnt if split == "train" else samples) if each.split == split]
        pictures = load_pictures(faces_dir, chosen, cache_dir=RUNS_DIR)
        found = [
            pooled.predict(np.stack([evaluation_input(each) for each in chunk]) / np.float32(127.5) - 1, verbose=0)
            for chunk in (pictures[start : start + 256] for start in range(0, len(pictures), 256))
        ]
        features[split] = pictures, np.concatenate(found)
    return features


def frozen_head(features: Features) -> dict[str, Any]:
    """Returns the overall rows of `test` and `test_unseen` for a frozen backbone with a new head."""
    head = _fitted_head(*features["train"])
    return {
        split: {**_row(head, *_chosen(features[split], _served(features[split]))), "n_train": len(features["train"][0])}
        for split in ("test", "test_unseen")
    }


def frozen_folds(features: Features) -> dict[str, Any]:
    """Returns the row of each fold of `training.leave_one_out` for such a head."""
    rows = {}
    for name in folds():
        left_out, _measured = masks(name, [each.sample for each in features["train"][0]])
        _left_out, measured = masks(name, [each.sample for each in features["val"][0]])
        head = _fitted_head(*_chosen(features["train"], ~left_out))
        rows[name] = _row(head, *_chosen(features["val"], measured & _served(features["val"])))
    return rows


def _served(found: tuple[list[FacePicture], NDArray[np.float32]]) -> NDArray[np.bool_]:
    """Returns (n,) which pictures the model judges, too: in the others serving finds no face."""
    return np.array([each.served for each in found[0]])


def _chosen(
    found: tuple[list[FacePicture], NDArray[np.float32]], mask: NDArray[np.bool_]
) -> tuple[list[FacePicture], NDArray[np.float32]]:
    return [each for each, use in zip(found[0], mask, strict=True) if use], found[1][mask]


def _fitted_head(pictures: list[FacePicture], features: NDArray[np.float32]) -> Pipeline:
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500, class_weight="balanced"))
    return head.fit(features, [each.sample.label for each in pictures])


def _row(head: Pipeline, pictures: list[FacePicture], features: NDArray[np.float32]) -> dict[str, Any]:
    labels = np.array([each.sample.label for each in pictures])
    groups = [f"{each.sample.source}/{each.sample.group}" for each in pictures]
    return table_row(labels, head.predict_proba(features)[:, 1], groups, rule=DecisionRule(), prior=0.5)


def main(arguments: list[str] | None = None) -> None:
    """Measures, stores and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-dir", type=Path, default=MODEL_DIR)
    parser.add_argument("--limit-per-source", type=int)
    options = parser.parse_args(arguments)
    features = frozen_features(FACES_DIR, limit_per_source=options.limit_per_source)
    rows, left_out = frozen_head(features), frozen_folds(features)
    path = options.model_dir / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["baseline"] = {"frozen_head": rounded(rows), "command": "python -m training.baseline"}
    metrics.setdefault("leave_one_out", {})[BASELINE_FOLDS] = rounded(left_out)
    write_atomically(path, (json.dumps(metrics, indent=1) + "\n").encode())
    write_card(options.model_dir)
    for name, row in (rows | left_out).items():
        print(name, {key: row[key] for key in ("n", "auc", "acc", "real_acc", "fake_acc", "eer", "ece")})


if __name__ == "__main__":
    main()
