"""Leave-one-source-out: `python -m training.leave_one_out`.

For each kind of manipulation and each group of real sources, trains without it on a shorter schedule, the same for all,
and measures on the pictures of `val` how the left-out ones fare against the other class; and once without some sources
of both classes, which are then measured against one another. This is what ideas are chosen
by: neither `test` nor `test_unseen` is looked at. Resumable: each fold is a run folder of its own.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score

from detector.model_cards import SHIPPED_FOLDS
from detector.predictor import DecisionRule
from detector.preprocessing import scaled
from training.calibration import fit, fit_band
from training.card import write_card
from training.config import Config, Stage
from training.data import FAKE, KINDS, REAL, FacePicture, Sample, limited, load_pictures, read_manifest
from training.evaluate import DELIVERIES, difference, rounded
from training.metrics import table_row
from training.paths import FACES_DIR, MODEL_DIR, RUNS_DIR, write_atomically
from training.train import network_logits, train

REAL_GROUPS = {
    "conference": (
        "conf_djangocon",
        "conf_fossasia",
        "conf_gdgcz",
        "conf_rladies",
        "conf_ropensci",
        "conf_writethedocs",
    ),
    "professional": ("mebeauty", "us_house"),
    "web": ("nomask_web", "muxspace", "utkface", "aaf_asian"),
    "ffhq": ("ffhq_sg1_140k",),
    "video": ("dfdc_faces224", "ffpp"),
}
# Generators of kinds that stay, and photos of groups that stay, left out together: what `test_unseen` is like.
NEW_SOURCES = {
    FAKE: ("t2i_montage", "omi_sg2", "omi_val_sg2", "sg2_avatars"),
    REAL: ("mebeauty", "conf_djangocon", "conf_fossasia", "conf_gdgcz"),
}
SHORT = Config(
    draws_per_epoch=4096,
    stages=(
        Stage(epochs=1, size=160, learning_rate=5e-4, train_from=0.66),
        Stage(epochs=4, size=160, learning_rate=3e-4, augmentation=0.5),
    ),
)


def _changed(config: Config, **values: Any) -> Config:
    """Returns the config with other values in its second stage."""
    first, second = config.stages
    return replace(config, stages=(first, replace(second, **values)))


BLENDS = _changed(SHORT, pair_share=0.5, matched_boost=1.5, real_share=0.65, pseudo_fake_share=0.5, fake_donors=True)
REFIT = replace(BLENDS, refit=1e-3, refit_views=2)
NORMALIZED = replace(_changed(REFIT, learning_rate=1e-3, lowest_rate=1 / 4), normalized_from=3)
# What is compared, each with one more idea than the one above.
VARIANTS = {
    "plain": SHORT,
    "paired": _changed(SHORT, pair_share=0.5, matched_boost=1.5),
    "blends": BLENDS,
    "refit": REFIT,
    "layerwise": _changed(REFIT, lowest_rate=1 / 64),
    "normalized": NORMALIZED,
    "sources": replace(NORMALIZED, refit_sources=True),
    "taught": replace(
        NORMALIZED, refit_sources=True, stages=tuple(replace(each, source_loss=0.5) for each in NORMALIZED.stages)
    ),
    "served": replace(NORMALIZED, refit_views=0, refit_as_served=True),
}


def folds() -> dict[str, tuple[int | None, Callable[[Sample], bool]]]:
    """Returns name -> (label of what is left out, None if both are; whether a sample is left out)."""
    kinds = sorted(set(KINDS.values()) - {"real"})
    return {
        **{f"fake_{kind}": (FAKE, _is_kind(kind)) for kind in kinds},
        **{f"real_{group}": (REAL, _is_of(REAL, sources)) for group, sources in REAL_GROUPS.items()},
        "new_sources": (None, lambda each: each.source in NEW_SOURCES[each.label]),
    }


def _is_kind(kind: str) -> Callable[[Sample], bool]:
    return lambda each: KINDS.get(each.generator) == kind


def _is_of(label: int, sources: tuple[str, ...]) -> Callable[[Sample], bool]:
    return lambda each: each.label == label and each.source in sources


def masks(name: str, samples: Sequence[Sample]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns two (n,) masks: what the fold leaves out, and what it is measured on if they are those of `val`."""
    label, is_left_out = folds()[name]
    left_out = np.array([is_left_out(each) for each in samples])
    if label is None:
        return left_out, left_out
    return left_out, left_out | np.array([each.label != label for each in samples])


def measure_fold(name: str, config: Config, runs_dir: Path, faces_dir: Path) -> dict[str, Any]:
    """Returns the table row of one fold: the left-out pictures of `val` against the other class of `val`, or against
    one another where both classes are left out.

    Besides, `auc_same_sources`: against those of the other class that come from the same sources, None where there are
    none; and `auc_change`: what each delivery changes in the AUC.

    Args:
        name: A key of `folds`.
        config: The schedule; its last stage's size is the one measured at.
        runs_dir: The fold trains in a folder of its own in it.
        faces_dir: The folder with manifest.csv.
    """
    model = train(config, runs_dir / name, faces_dir=faces_dir, leave_out=folds()[name][1])
    samples = [each for each in limited(read_manifest(faces_dir), config.limit_per_source) if each.split == "val"]
    pictures = [each for each in load_pictures(faces_dir, samples, cache_dir=runs_dir, progress=False) if each.served]
    labels = np.array([each.sample.label for each in pictures])
    left_out, measured = masks(name, [each.sample for each in pictures])
    sizes = {"size": config.stages[-1].size, "batch_size": config.batch_size}
    logits = network_logits(model, pictures, **sizes)
    calibration = fit(logits[~left_out], labels[~left_out], rule=DecisionRule())
    known = calibration.probabilities(logits[~left_out])
    band = fit_band(known, labels[~left_out], rule=DecisionRule())
    sources = np.array([each.sample.source for each in pictures])
    beside = measured & np.isin(sources, list(set(sources[left_out])))
    judged = [each for each, use in zip(pictures, measured, strict=True) if use]
    clean = _auc(labels[measured], logits[measured])
    change = {}
    for delivery, deliver in DELIVERIES.items():
        after = network_logits(model, [_delivered(each, deliver) for each in judged], **sizes)
        change[delivery] = difference(_auc(labels[measured], after), clean)
    return {
        **table_row(
            labels[measured],
            calibration.probabilities(logits[measured]),
            [f"{each.sample.source}/{each.sample.group}" for each, use in zip(pictures, measured, strict=True) if use],
            rule=DecisionRule(DecisionRule().real_threshold, *band),
            prior=calibration.prior,
        ),
        "prior": calibration.prior,
        "auc_same_sources": _auc(labels[beside], logits[beside]),
        "auc_change": change,
    }


def _auc(labels: NDArray[np.int_], logits: NDArray[np.float64]) -> float | None:
    return float(roc_auc_score(labels, logits)) if len(set(labels)) == 2 else None


def _delivered(picture: FacePicture, deliver: Callable[[Image.Image], Image.Image]) -> FacePicture:
    """The picture after its way, with the box where it was: what a lost face costs is in the evaluation of `test`."""
    pixels = np.asarray(deliver(Image.fromarray(picture.pixels)))
    (height, width), (old_height, old_width) = pixels.shape[:2], picture.pixels.shape[:2]
    return replace(picture, pixels=pixels, bbox=scaled(picture.bbox, width / old_width, height / old_height))


def mean_over_kinds(rows: Mapping[str, Any]) -> float | None:
    """Returns the mean AUC of the folds that leave out a kind of fakes; None unless all of them were measured."""
    kinds = [name for name, (label, _) in folds().items() if label == FAKE]
    return float(np.mean([rows[name]["auc"] for name in kinds])) if set(kinds) <= set(rows) else None


def main(arguments: list[str] | None = None) -> None:
    """Measures the folds, stores them in metrics.json after each, and prints them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(folds()), nargs="+", help="some folds")
    parser.add_argument("--variant", choices=sorted(VARIANTS), default=SHIPPED_FOLDS)
    parser.add_argument("--limit-per-source", type=int, help="at most so many pictures of each source, for a trial")
    parser.add_argument("--draws-per-epoch", type=int, default=SHORT.draws_per_epoch)
    parser.add_argument("--runs-dir", type=Path, default=RUNS_DIR / "leave_one_out")
    parser.add_argument("--model-dir", type=Path, default=MODEL_DIR)
    options = parser.parse_args(arguments)
    config = replace(
        VARIANTS[options.variant],
        limit_per_source=options.limit_per_source,
        draws_per_epoch=options.draws_per_epoch,
    )
    path = options.model_dir / "metrics.json"
    for name in options.only or folds():
        row = measure_fold(name, config, options.runs_dir / options.variant, FACES_DIR)
        metrics = json.loads(path.read_text())
        stored = metrics.setdefault("leave_one_out", {}).setdefault(options.variant, {})
        stored[name] = rounded(row)
        stored["config"] = config.to_dict()
        write_atomically(path, (json.dumps(metrics, indent=1) + "\n").encode())
        figures = ("auc", "auc_same_sources", "real_acc", "fake_acc")
        shown = (f"{key} {row[key]:.3f}" for key in figures if row[key] is not None)
        print(f"{name:20} n {row['n']:5}", *shown, flush=True)
    mean = mean_over_kinds(stored)
    if mean is not None:
        print(f"mean AUC over the kinds of fakes: {mean:.3f}")
    write_card(options.model_dir)


if __name__ == "__main__":
    main()
