"""The model card's drawings, as SVG: they diff, and need no viewer."""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot as plt

plt.switch_backend("svg")
# The same figures give the same bytes.
matplotlib.rcParams.update({"svg.hashsalt": "model-card", "svg.fonttype": "none", "font.size": 9})

_METADATA = {"Date": None}
_SPLITS = {"test": "#1f5fa8", "test_unseen": "#c2571a"}


def draw(model_dir: Path, metrics: dict[str, Any]) -> None:
    """Writes roc.svg, reliability.svg and sources.svg into model_dir.

    Args:
        model_dir: The model's folder.
        metrics: Contents of its metrics.json.
    """
    _roc(model_dir / "roc.svg", metrics["tables"])
    _reliability(model_dir / "reliability.svg", metrics["tables"])
    _sources(model_dir / "sources.svg", metrics["tables"])


def _roc(path: Path, tables: dict[str, Any]) -> None:
    figure, axes = plt.subplots(figsize=(4.2, 3.8), layout="constrained")
    for split, color in _SPLITS.items():
        if not tables.get(split, {}).get("roc"):
            continue
        row = tables[split]["overall"]
        fpr, tpr = zip(*tables[split]["roc"], strict=True)
        axes.plot(fpr, tpr, color=color, label=f"{split}: AUC {row['auc']:.3f}, n = {row['n']}")
    axes.plot([0, 1], [0, 1], color="#888888", linestyle=":", label="chance")
    axes.set(xlabel="reals scored higher (fpr)", ylabel="fakes found (tpr)", title="ROC")
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, metadata=_METADATA)
    plt.close(figure)


def _reliability(path: Path, tables: dict[str, Any]) -> None:
    figure, axes = plt.subplots(figsize=(4.2, 3.8), layout="constrained")
    axes.plot([0, 1], [0, 1], color="#888888", linestyle=":", label="perfect")
    for split, color in _SPLITS.items():
        if tables.get(split, {}).get("overall", {}).get("ece") is None:
            continue
        bins = [each for each in tables[split]["reliability"] if each["weight"] > 0]
        axes.plot(
            [each["mean_score"] for each in bins],
            [each["share_fake"] for each in bins],
            color=color,
            marker="o",
            markersize=3,
            label=f"{split}: ECE {tables[split]['overall']['ece']:.3f}",
        )
    axes.set(xlabel="fake_probability given", ylabel="share of fakes there", title="Reliability")
    axes.legend(loc="upper left", frameon=False)
    figure.savefig(path, metadata=_METADATA)
    plt.close(figure)


def _sources(path: Path, tables: dict[str, Any]) -> None:
    rows = [
        (f"{source} ({row['n']})", row["acc"], row.get("acc_ci", [row["acc"]] * 2), color)
        for split, color in _SPLITS.items()
        for source, row in tables.get(split, {}).get("by_source", {}).items()
    ]
    figure, axes = plt.subplots(figsize=(6, 0.2 * len(rows) + 0.9), layout="constrained")
    positions = range(len(rows), 0, -1)
    for position, (_name, acc, (low, high), color) in zip(positions, rows, strict=True):
        axes.barh(position, acc, color=color, height=0.7)
        axes.plot([low, high], [position, position], color="black", linewidth=0.8)
    axes.set_yticks(list(positions), [row[0] for row in rows])
    axes.set(xlim=(0, 1), xlabel="share of right verdicts, with 95 % interval", title="By source: test, test_unseen")
    figure.savefig(path, metadata=_METADATA)
    plt.close(figure)
