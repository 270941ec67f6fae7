"""Writes the model card. Its tables and marks come from metrics.json and spec.json; what it tells of runs is typed."""

import json
from pathlib import Path
from string import Template
from typing import Any

from training.calibration import BAND_ERROR, PROMISED_ERROR, REAL_ACC_TARGET
from training.figures import draw
from training.metrics import METRICS

_TEMPLATE = Path(__file__).resolve().parent / "card.md"
# One table row for each model that shipped or was tried, with its figures; written by hand from metrics.json.
_HISTORY = Path(__file__).resolve().parent / "history.md"
_COLUMNS = METRICS


def write_card(model_dir: Path) -> None:
    """Writes README.md and its drawings from the folder's spec.json and metrics.json."""
    spec = json.loads((model_dir / "spec.json").read_text(encoding="utf-8"))
    metrics = json.loads((model_dir / "metrics.json").read_text(encoding="utf-8"))
    draw(model_dir, metrics)
    tables = metrics["tables"]
    text = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        version=spec["version"],
        prior=f"{spec['calibration']['prior']:.0%}",
        real_acc_target=f"{REAL_ACC_TARGET:.0%}",
        band_error=f"{BAND_ERROR:.0%}",
        band_low=f"{spec['uncertain_band'][0]:.1%}",
        band_high=f"{spec['uncertain_band'][1]:.1%}",
        temperature=f"{spec['calibration']['temperature']:.3f}",
        **_networks(spec.get("second_opinion")),
        sources=_sources(spec["config"]),
        views=_views(spec["config"]),
        blends=_blends(spec["config"]),
        n_train=f"{metrics['n_train']:,}" if "n_train" in metrics else "an unknown number of",
        copies=_copies(metrics.get("n_copies", 0)),
        delivered=_delivered(metrics.get("delivery_test", {})),
        data_version=spec["data_version"][:12],
        code_version=spec["code_version"],
        overall=_overall(tables, metrics.get("baseline", {})),
        test_sources=_rows(tables.get("test", {}).get("by_source", {})),
        unseen_sources=_rows(tables.get("test_unseen", {}).get("by_source", {})),
        group_photos=_group_photos(tables),
        kinds=_kinds(tables),
        leave_one_out=_leave_one_out(metrics.get("leave_one_out", {})),
        deliveries=_deliveries(metrics.get("delivery_test", {})),
        history=_HISTORY.read_text(encoding="utf-8").strip(),
        no_face="; ".join(
            f"{split}: {table['overall']['n_no_face']} of {table['overall']['n'] + table['overall']['n_no_face']}"
            for split, table in tables.items()
        ),
    )
    (model_dir / "README.md").write_text(text, encoding="utf-8")


def _networks(second: dict[str, Any] | None) -> dict[str, str]:
    """Returns what the card says of one network, or of several."""
    if second is None:
        return {"second": "", "weights": "`model.tflite`", "classifier": "the classifier", "joined": ""}
    low, high = second["asked_between"]
    third, weights = "", "`model.tflite` and `second.tflite`"
    if second.get("third"):
        third = (
            "  A third is ImageNet's as it is, with classifiers of its own: it was never trained on faces, which\n"
            "  makes its errors others still, and is asked with the second.\n"
        )
        weights = "`model.tflite`, `second.tflite` and `third.tflite`"
    return {
        "second": (
            "- **A second opinion:** another network of the same architecture, trained from the same start with\n"
            "  another seed and schedule, errs on other pictures. Where it is asked, the mean of all logits counts,\n"
            "  and the mean of all maps. It is asked where the first says between "
            f"{low:.1%} and {high:.1%}, which is so for\n"
            f"  {second['asked_of_reals']:.0%} of the reals and {second['asked_of_fakes']:.0%} of the fakes of `val`.\n"
            f"{third}"
        ),
        "weights": weights,
        "classifier": "each network's classifier",
        "joined": ", joined as in use",
    }


def _sources(config: dict[str, Any]) -> str:
    """Returns what the card says of the classifier of the sources, if there is one."""
    if not config.get("refit_sources"):
        return ""
    return ", and\n  another of the sources, genuine and fake pictures apart (the mean of both log odds counts)"


def _views(config: dict[str, Any]) -> str:
    """Returns how the last fit sees each picture."""
    views = ["as served", "mirrored"] if config.get("refit_as_served") else []
    count = config.get("refit_views", 1)
    views += {0: [], 1: ["once lightly augmented"]}.get(count, [f"{count} times lightly augmented"])
    *others, last = views
    return f"{', '.join(others)} and {last}" if others else last


def _blends(config: dict[str, Any]) -> str:
    """Which share of the real draws is blended, stage by stage."""

    def shares(stages: list[dict[str, Any]]) -> str:
        own = [each["pseudo_fake_share"] for each in stages]
        each_share = [f"{(config['pseudo_fake_share'] if share is None else share) * 100:g}" for share in own]
        return f"{', '.join(each_share[:-1])} and {each_share[-1]} %" if len(own) > 1 else f"{each_share[0]} %"

    first = f"{shares(config['stages'])} in its stages"
    second = config.get("second_stages")
    return f"{first}, {shares(second)} in the second network's" if second else first


def _overall(tables: dict[str, Any], baseline: dict[str, Any]) -> str:
    rows = []
    for split, table in tables.items():
        rows.append((f"**{split}**", table["overall"]))
        if "without_copies" in table:
            left_out = table["overall"]["n"] - table["without_copies"]["n"]
            rows.append(
                (f"{split} without {left_out} pictures that match one of training or `val`", table["without_copies"])
            )
    rows += [(f"frozen backbone, new head: {split}", row) for split, row in baseline.get("frozen_head", {}).items()]
    return _table(rows, intervals=True)


def _copies(count: int) -> str:
    """Returns what the card says of pictures of `test` that match others."""
    if not count:
        return ""
    return (
        "**Copies:** groups keep in one split what is known to belong together. Local features (`python -m\n"
        f"training.overlaps`) find that {count} of the pictures of `test` match one of training or `val` all\n"
        "the same: recordings of DFDC that are in several videos, portraits of CIPLab that were edited into\n"
        "another group, photos that came into a source twice, and some generated portraits that are merely\n"
        "alike. That is a lower bound. The row without them shows what they do.\n\n"
    )


def _delivered(deliveries: dict[str, Any]) -> str:
    """Returns after which deliveries more decided answers are wrong than are promised."""
    errors = {name: row["decided_error"] for name, row in deliveries.items() if row["decided_error"] is not None}
    if not errors:
        return "more may be wrong"
    beyond = [f"{error:.1%} after {name}" for name, error in errors.items() if error > PROMISED_ERROR]
    span = f"between {min(errors.values()):.1%} and {max(errors.values()):.1%} is wrong"
    return f"{span} (more than one in twenty: {', '.join(beyond)})" if beyond else span


def _group_photos(tables: dict[str, Any]) -> str:
    """How many genuine photos of so many people would be called Real if their faces erred independently."""
    shares = {split: tables.get(split, {}).get("overall", {}).get("real_acc") for split in ("test", "test_unseen")}
    parts = [
        f"{', '.join(f'{share**count:.0%} ({count})' for count in (2, 5, 10, 20))} with faces of `{split}`"
        for split, share in shares.items()
        if share is not None
    ]
    return "; ".join(parts)


def _rows(by_source: dict[str, Any]) -> str:
    return _table(list(by_source.items()))


def _kinds(tables: dict[str, Any]) -> str:
    return _table(
        [
            (f"{split}: {name}", row)
            for split in ("test", "test_unseen")
            for part in ("by_kind", "by_generator")
            for name, row in tables.get(split, {}).get(part, {}).items()
        ]
    )


def _leave_one_out(variants: dict[str, Any]) -> str:
    """The mean of each variant, and every fold's row."""
    if not variants:
        return "Not measured for this version."
    rows = [
        (f"{variant}: without {name}", row)
        for variant, folds in sorted(variants.items())
        for name, row in folds.items()
        if name != "config"
    ]
    lines = []
    for variant, folds in sorted(variants.items()):
        aucs = [row["auc"] for name, row in folds.items() if name.startswith("fake_")]
        if not aucs:
            continue
        lines.append(f"- {variant}: mean AUC over {len(aucs)} kinds of fakes {sum(aucs) / len(aucs):.3f}")
    more = [
        (name, row["auc_same_sources"], row["auc_change"])
        for name, row in rows
        if "auc_same_sources" in row and "auc_change" in row
    ]
    return "\n\n".join(["\n".join(lines), _table(rows, intervals=True), *([_folds_in_depth(more)] if more else [])])


def _folds_in_depth(rows: list[tuple[str, float | None, dict[str, float | None]]]) -> str:
    """Against the same sources alone, and what deliveries change in the AUC."""
    deliveries = list(dict.fromkeys(each for _name, _beside, change in rows for each in change))
    head = ["", "AUC against the same sources", *(f"AUC, change by {name}" for name in deliveries)]
    lines = [_line(head), _line(["---"] * len(head))]
    for name, beside, change in rows:
        changes = (_changed(change.get(each)) for each in deliveries)
        lines.append(_line([name, "–" if beside is None else f"{beside:.3f}", *changes]))
    return "\n".join(lines)


def _changed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"


def _deliveries(deliveries: dict[str, Any]) -> str:
    if not deliveries:
        return "Not measured for this version."
    lines = [
        _line(["delivery", "n", *(f"{metric}, change" for metric in _COLUMNS)]),
        _line(["---"] * (2 + len(_COLUMNS))),
    ]
    for name, row in deliveries.items():
        lines.append(_line([name, str(row["n"]), *(_delivered_cell(row, metric) for metric in _COLUMNS)]))
    return "\n".join(lines)


def _delivered_cell(row: dict[str, Any], metric: str) -> str:
    value, change = row.get(metric), row.get(f"{metric}_change")
    return "–" if value is None or change is None else f"{value:.3f} ({change:+.3f})"


def _table(rows: list[tuple[str, dict[str, Any]]], *, intervals: bool = False) -> str:
    lines = [_line(["", "n", "groups", "real", "fake", *_COLUMNS]), _line(["---"] * (5 + len(_COLUMNS)))]
    for name, row in rows:
        counts = [str(row[key]) for key in ("n", "n_groups", "n_real", "n_fake")]
        lines.append(_line([name, *counts, *(_cell(row, metric, intervals) for metric in _COLUMNS)]))
    return "\n".join(lines)


def _cell(row: dict[str, Any], metric: str, intervals: bool) -> str:
    if row.get(metric) is None:
        return "–"
    interval = row.get(f"{metric}_ci")
    suffix = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if intervals and interval else ""
    return f"{row[metric]:.3f}{suffix}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
