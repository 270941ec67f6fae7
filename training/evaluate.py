"""Measures the exported model: `python -m training.evaluate` (`make evaluate`).

Every picture goes through the code that serves: decoding, face detection, cropping, the LiteRT networks and the rule of
small faces. Nothing here chooses anything.
"""

import argparse
import io
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from detector.images import MIN_SIDE, decode_image
from detector.predictor import DecisionRule, Predictor, load_predictor
from training.card import write_card
from training.data import KINDS, Sample, limited, manifest_sha256, overlapping, read_manifest, without_copies
from training.metrics import METRICS, reliability, roc_points, table_row
from training.paths import FACES_DIR, MODEL_DIR, write_atomically

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of the pictures in which serving finds a face.

    Attributes:
        samples: (n) what was scored.
        values: (n,) fake_probability of the most fake face.
        is_small: (n,) whether the verdict rests on a face too small to decide.
        no_face: How many pictures got no verdict; they are counted, not scored.
    """

    samples: list[Sample]
    values: NDArray[np.float64]
    is_small: NDArray[np.bool_]
    no_face: int

    @property
    def y_true(self) -> NDArray[np.int_]:
        """(n,) labels, FAKE = 1."""
        return np.array([sample.label for sample in self.samples])

    @property
    def groups(self) -> list[str]:
        """(n) source and group: what the bootstrap draws."""
        return [f"{sample.source}/{sample.group}" for sample in self.samples]

    def without(self, paths: set[str]) -> "Scores":
        """Returns the scores of the other pictures."""
        kept = [index for index, sample in enumerate(self.samples) if sample.path not in paths]
        return Scores([self.samples[index] for index in kept], self.values[kept], self.is_small[kept], self.no_face)

    def row(
        self, chosen: NDArray[np.bool_] | slice = slice(None), *, rule: DecisionRule, prior: float, draws: int
    ) -> dict[str, Any]:
        """Returns the figures of the chosen ones, with intervals from so many bootstrap samples."""
        groups = np.array(self.groups, object)[chosen].tolist()
        return table_row(
            self.y_true[chosen],
            self.values[chosen],
            groups,
            rule=rule,
            prior=prior,
            undecided=self.is_small[chosen],
            repeats=draws,
        )


def _jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def deliver(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    return deliver


def _reduced(factor: int) -> Callable[[Image.Image], Image.Image]:
    def deliver(image: Image.Image) -> Image.Image:
        by = min(factor, min(image.size) / MIN_SIDE)  # smaller pictures are refused
        width, height = (max(MIN_SIDE, int(side / by)) for side in image.size)
        return image.resize((width, height), Image.Resampling.BICUBIC)

    return deliver


def _screenshot(image: Image.Image) -> Image.Image:
    grown = image.resize((round(image.width * 1.3), round(image.height * 1.3)), Image.Resampling.BILINEAR)
    return grown.resize((round(image.width * 0.8), round(image.height * 0.8)), Image.Resampling.BILINEAR)


def _blurred(image: Image.Image) -> Image.Image:
    return Image.fromarray(cv2.GaussianBlur(np.asarray(image), (0, 0), 1.0).astype(np.uint8))


def _brightness(factor: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.point(lambda value: min(255, round(value * factor)))


# Bootstrap samples of a split's own intervals.
DRAWS = 1000

# What happens to a picture on its way: social networks, messengers, screenshots.
DELIVERIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg_75": _jpeg(75),
    "jpeg_50": _jpeg(50),
    "jpeg_30": _jpeg(30),
    "halved": _reduced(2),
    "quartered": _reduced(4),
    "screenshot": _screenshot,
    "blur": _blurred,
    "brightness_0.7": _brightness(0.7),
    "brightness_1.3": _brightness(1.3),
}


def score(
    predictor: Predictor,
    faces_dir: Path,
    samples: Sequence[Sample],
    *,
    deliver: Callable[[Image.Image], Image.Image] | None = None,
    title: str = "",
) -> Scores:
    """Returns the scores that serving gives to the samples' files.

    Args:
        predictor: The exported model.
        faces_dir: The folder with manifest.csv.
        samples: What to score.
        deliver: What happens to each picture first; the result is sent as a lossless PNG.
        title: The progress bar's label.
    """
    kept, values, is_small, no_face = [], [], [], 0
    for sample in tqdm(samples, desc=title, unit="img", disable=None):
        data = (faces_dir / sample.path).read_bytes()
        if deliver is not None:
            buffer = io.BytesIO()
            deliver(Image.fromarray(decode_image(data).pixels)).save(buffer, "PNG", compress_level=0)
            data = buffer.getvalue()
        prediction = predictor.predict(decode_image(data))
        if prediction.fake_probability is None:
            no_face += 1
        else:
            kept.append(sample)
            values.append(prediction.fake_probability)
            is_small.append(prediction.rule != predictor.fitted_rule)
    return Scores(kept, np.array(values, np.float64), np.array(is_small, bool), no_face)


def table(scores: Scores, *, rule: DecisionRule, prior: float, draws: int = DRAWS) -> dict[str, Any]:
    """Returns the figures overall, by source, by generator and by kind of manipulation.

    A generator or kind of fakes is measured against all reals of the table; a source that holds one class has only the
    figures that one class can give. The overall intervals come from `draws` bootstrap samples, others from a fifth.
    """

    row = partial(scores.row, rule=rule, prior=prior, draws=draws // 5)

    def against_reals(name_of: Callable[[Sample], str]) -> dict[str, Any]:
        names = sorted({name_of(each) for each in scores.samples if each.label == 1})
        own = np.array([name_of(each) for each in scores.samples])
        return {name: row((own == name) | (scores.y_true == 0)) for name in names}

    sources = np.array([each.source for each in scores.samples])
    both = len(set(scores.y_true.tolist())) == 2
    return {
        "overall": {**row(draws=draws), "n_no_face": scores.no_face},
        "by_source": {source: row(sources == source) for source in sorted(set(sources))},
        "by_generator": against_reals(lambda sample: sample.generator),
        "by_kind": against_reals(lambda sample: KINDS.get(sample.generator, "unknown")),
        "roc": roc_points(scores.y_true, scores.values) if both else [],
        "reliability": [
            {"weight": weight, "mean_score": mean, "share_fake": share}
            for weight, mean, share in reliability(scores.y_true, scores.values, prior=prior)
        ],
    }


def evaluate_model(
    model_dir: Path,
    faces_dir: Path,
    *,
    limit_per_source: int | None = None,
    deliveries: bool = True,
    held_out: Scores | None = None,
    keep: bool = True,
) -> dict[str, Any]:
    """Measures the model in model_dir, writes its metrics.json and card, and returns the metrics.

    A split without pictures has no table. Where the classifier was fitted to `val` too, that table is not measured
    here: training leaves it, from fits that did not see the pictures, and it stays, of training's data, whatever is
    measured.

    Args:
        model_dir: Holds model.tflite and spec.json; keys of metrics.json that are not measured here are kept.
        faces_dir: The folder with manifest.csv.
        limit_per_source: Scores at most this many pictures of each split, source and label, with intervals from a
            tenth of the draws.
        deliveries: Also measures `test` after each of `DELIVERIES`; else what was measured of the same network and
            pictures stays.
        held_out: Scores of `val` to use instead of what the model gives.
        keep: Whether the figures are written.
    """
    predictor = load_predictor(model_dir)
    spec = predictor.spec
    rule = predictor.fitted_rule
    prior = spec.calibration["prior"]
    samples = limited(read_manifest(faces_dir), limit_per_source)
    path = model_dir / "metrics.json"
    metrics = json.loads(path.read_text()) if path.is_file() else {}
    copies = {test for test, _other in overlapping(faces_dir)}
    data_version = manifest_sha256(faces_dir)
    is_known = (metrics.get("model_version"), metrics.get("data_version")) == (spec.version, data_version)
    tables: dict[str, Any] = {}
    change: dict[str, Any] = metrics.get("delivery_test", {}) if keep and is_known and not deliveries else {}
    draws = DRAWS if limit_per_source is None else DRAWS // 10
    splits = ["val", "test", "test_unseen"]
    if "val" in spec.config.get("refit_splits", ()):
        splits.remove("val")
        if held_out:
            tables["val"] = table(held_out, rule=rule, prior=prior, draws=draws)
        elif metrics.get("model_version") == spec.version and "val" in metrics["tables"]:
            tables["val"] = metrics["tables"]["val"]
    for split in splits:
        chosen = [sample for sample in samples if sample.split == split]
        if not chosen:
            continue
        scores = score(predictor, faces_dir, chosen, title=split)
        tables[split] = table(scores, rule=rule, prior=prior, draws=draws)
        others = scores.without(copies)
        if len(others.samples) < len(scores.samples):
            tables[split]["without_copies"] = others.row(rule=rule, prior=prior, draws=draws)
    chosen = [sample for sample in samples if sample.split == "test"]
    if deliveries and chosen:
        for name, deliver in DELIVERIES.items():
            scores = score(predictor, faces_dir, chosen, deliver=deliver, title=name)
            row = scores.row(rule=rule, prior=prior, draws=1)
            clean = tables["test"]["overall"]
            change[name] = {
                "n": row["n"],
                "n_no_face": scores.no_face,
                **{metric: row[metric] for metric in METRICS},
                **{f"{metric}_change": difference(row[metric], clean[metric]) for metric in METRICS},
            }
    metrics.update(
        model_version=spec.version,
        data_version=data_version,
        n_copies=sum(sample.path in copies for sample in samples),
        command="make evaluate",
        prior=prior,
        tables=tables,
        delivery_test=change,
    )
    if data_version == spec.data_version:  # of other data nothing is known about training
        metrics["n_train"] = sum(sample.split == "train" for sample in without_copies(samples, faces_dir))
    if keep:
        write_atomically(path, (json.dumps(rounded(metrics), indent=1) + "\n").encode())
        write_card(model_dir)
    return metrics


def difference(value: float | None, reference: float | None) -> float | None:
    """Returns value - reference; None where either was not measured."""
    return None if value is None or reference is None else value - reference


def rounded(value: Any) -> Any:
    """Returns the figures with six decimals, so that tables of three do not show what was rounded twice."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return value


def print_tables(metrics: dict[str, Any]) -> None:
    """Prints one line for each row of each table."""
    columns = ("n", "n_real", "n_fake", *METRICS)
    for split, one in metrics["tables"].items():
        rows = {"overall": one["overall"]}
        rows |= {"without copies": one["without_copies"]} if "without_copies" in one else {}
        rows |= one["by_source"]
        rows |= {f"{part[3:]}: {name}": row for part in ("by_generator", "by_kind") for name, row in one[part].items()}
        print(f"\n{split:38}" + "".join(f"{column[:13]:>14}" for column in columns))
        for name, row in rows.items():
            print(f"{name:38}" + "".join(_cell(row.get(column)) for column in columns))
    grouped: dict[str, dict[str, Any]] = defaultdict(dict, metrics.get("delivery_test", {}))
    if grouped:
        print(f"\n{'test, delivered (change)':38}" + "".join(f"{metric:>14}" for metric in METRICS))
        for name, row in grouped.items():
            print(f"{name:38}" + "".join(_cell(row.get(f"{metric}_change")) for metric in METRICS))


def _cell(value: float | None) -> str:
    if value is None:
        return f"{'-':>14}"
    return f"{value:>14}" if isinstance(value, int) else f"{value:>14.3f}"


def main(arguments: list[str] | None = None) -> None:
    """Evaluates and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-dir", type=Path, default=MODEL_DIR)
    parser.add_argument("--limit-per-source", type=int, help="score at most so many pictures a source; keeps nothing")
    parser.add_argument("--no-deliveries", action="store_true", help="leave the degraded copies of test as measured")
    options = parser.parse_args(arguments)
    metrics = evaluate_model(
        options.model_dir,
        FACES_DIR,
        limit_per_source=options.limit_per_source,
        deliveries=not options.no_deliveries,
        keep=options.limit_per_source is None,
    )
    print_tables(metrics)


if __name__ == "__main__":
    main()
