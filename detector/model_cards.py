"""What `models/<name>/` says about its model, in the form the About page shows."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

TITLES = {
    "test": "Pictures kept back from training, from the sources it learned from",
    "test_unseen": "Sources or generators it has never seen",
    "val": "Pictures its settings were chosen on",
}
FIGURES = ("auc", "ap", "eer", "acc", "real_acc", "fake_acc", "ece", "decided", "decided_error")
COLUMNS = ("n", "n_real", "n_fake", *FIGURES)


DELIVERIES = {
    "jpeg_75": "Saved again as JPEG, quality 75",
    "jpeg_50": "Saved again as JPEG, quality 50",
    "jpeg_30": "Saved again as JPEG, quality 30",
    "halved": "Half the width and height",
    "quartered": "A quarter of the width and height, faces about 35 px wide",
    "screenshot": "Rescaled twice, as by a screenshot",
    "blur": "Blurred",
    "brightness_0.7": "Darker",
    "brightness_1.3": "Brighter",
}
FOLDS = {
    "fake_diffusion": "Fakes by diffusion models",
    "fake_edit": "Fakes by retouching by hand",
    "fake_gan": "Fakes by GANs",
    "fake_swap": "Swapped faces",
    "real_conference": "Genuine photos of speakers",
    "real_ffhq": "Genuine photos framed as FFHQ",
    "real_professional": "Genuine professional portraits",
    "real_video": "Genuine video frames",
    "real_web": "Genuine photos from the web",
    "new_sources": "Generators and genuine photos, several sources of each",
}
# Ways of training with folds in metrics.json: the nearest to what ships that has all of them, and the frozen head's.
SHIPPED_FOLDS, BASELINE_FOLDS = "sources", "frozen_head"


@dataclass(frozen=True, slots=True)
class ModelCard:
    spec: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def tables(self) -> list[dict[str, Any]]:
        """One table per test set: the overall row first, then one per source; a figure not measured is None."""
        tables = self.metrics.get("tables", {})
        # Known sets in the order above, whatever else was measured behind them.
        names = [name for name in TITLES if name in tables] + [name for name in tables if name not in TITLES]
        return [
            {"name": name, "title": TITLES.get(name, name), "rows": _rows(tables[name])}
            for name in names
            if tables[name]
        ]

    @property
    def deliveries(self) -> list[dict[str, Any]]:
        """What is left of the figures after what happens to pictures on their way, one row for each; may be empty."""
        measured = self.metrics.get("delivery_test") or {}
        return [
            {**_row(DELIVERIES.get(name, name), figures, is_overall=False), "auc_change": figures.get("auc_change")}
            for name, figures in measured.items()
        ]

    @property
    def folds(self) -> list[dict[str, Any]]:
        """Leave one source out: one row for each part of the data that a network was trained without; may be empty."""
        measured = (self.metrics.get("leave_one_out") or {}).get(SHIPPED_FOLDS) or {}
        return [
            _row(FOLDS[name], measured[name], is_overall=False)
            for name in FOLDS
            if isinstance(measured.get(name), dict)
        ]


def read_model_card(model_dir: Path, *, version: str | None = None) -> ModelCard:
    """The card with what can be read; the page says of the rest that it was not measured.

    Args:
        model_dir: Holds spec.json and metrics.json.
        version: Of the model in use, where one is; figures of another one are left out. Whoever trains anew replaces
            the folder's files one after the other, while this process goes on with the network that it has loaded.
    """
    spec, metrics = _read_json(model_dir / "spec.json"), _read_json(model_dir / "metrics.json")
    in_use = version or spec.get("version")
    measured = metrics.get("model_version")
    if in_use and measured != in_use and metrics:
        logger.warning("The figures in %s are of %s, but %s is in use", model_dir, measured, in_use)
        metrics = {}
    return ModelCard(spec=spec, metrics=metrics)


def _rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [_row("All", table["overall"], is_overall=True)] if table.get("overall") else []
    by_source = table.get("by_source") or {}
    return rows + [_row(source, by_source[source], is_overall=False) for source in sorted(by_source)]


def _row(source: str, figures: dict[str, Any], *, is_overall: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"source": source, "is_overall": is_overall}
    for column in COLUMNS:
        row[column] = figures.get(column)
        row[f"{column}_ci"] = figures.get(f"{column}_ci")
    return row


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        logger.exception("Cannot read %s", path)
        return {}
    return content if isinstance(content, dict) else {}
