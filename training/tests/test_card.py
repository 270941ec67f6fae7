"""The card says of a model what its spec.json holds."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from training.card import write_card
from training.paths import MODEL_DIR


def card(folder: Path, **values: Any) -> str:
    """The card of the model that ships, with other values in its spec."""
    shutil.copy(MODEL_DIR / "metrics.json", folder)
    spec = json.loads((MODEL_DIR / "spec.json").read_text(encoding="utf-8"))
    (folder / "spec.json").write_text(json.dumps({**spec, **values}), encoding="utf-8")
    write_card(folder)
    return (folder / "README.md").read_text(encoding="utf-8")


def test_copies_are_not_said_to_be_learnt_from(tmp_path: Path) -> None:
    """Training leaves out the other copy; only earlier runs did not."""
    assert "| test without 59 pictures that match one of training or `val` |" in card(tmp_path)


@pytest.mark.parametrize("is_pair", [False, True])
def test_a_second_network_is_spoken_of_where_there_is_one(tmp_path: Path, is_pair: bool) -> None:
    second = {"asked_between": [0.017, 0.723], "asked_of_reals": 0.41, "asked_of_fakes": 0.38}
    stage = {"pseudo_fake_share": 0.25}
    config = {"stages": [stage, {"pseudo_fake_share": None}], "pseudo_fake_share": 0.15, "second_stages": []}

    text = card(
        tmp_path,
        second_opinion=second if is_pair else None,
        config={**config, "second_stages": [stage] if is_pair else []},
    )

    assert ("`second.tflite`" in text) is is_pair
    assert ("**A second opinion:**" in text) is is_pair
    assert ("between 1.7% and 72.3%" in text) is is_pair
    assert f"three fits of {'each network' if is_pair else 'the classifier'}" in text
    assert "real draws (25 and 15 % in its stages" in text
    assert ("25 % in the second network's)" in text) is is_pair


@pytest.mark.parametrize("is_trio", [False, True])
def test_a_third_network_is_spoken_of_where_there_is_one(tmp_path: Path, is_trio: bool) -> None:
    second = {"asked_between": [0.017, 0.723], "asked_of_reals": 0.41, "asked_of_fakes": 0.38}
    third = {"weights_sha256": "0" * 64, "golden_fake_probability": 0.5}

    text = card(tmp_path, second_opinion={**second, "third": third if is_trio else None})

    assert ("`model.tflite`, `second.tflite` and `third.tflite`" in text) is is_trio
    assert ("A third is ImageNet's as it is" in text) is is_trio


@pytest.mark.parametrize(
    ("as_served", "others", "said"),
    [
        (False, 2, "2 times lightly augmented"),
        (True, 0, "as served and mirrored"),
        (True, 1, "as served, mirrored and once lightly augmented"),
    ],
)
def test_how_the_last_fit_saw_the_pictures_is_said(tmp_path: Path, as_served: bool, others: int, said: str) -> None:
    config = {"stages": [{"pseudo_fake_share": 0.3}], "pseudo_fake_share": 0.15}

    text = card(tmp_path, config={**config, "refit_as_served": as_served, "refit_views": others})

    assert f"each picture of training and `val`, {said}." in text


@pytest.mark.parametrize("are_told_apart", [False, True])
def test_a_classifier_of_the_sources_is_spoken_of_where_there_is_one(tmp_path: Path, are_told_apart: bool) -> None:
    config = {"stages": [{"pseudo_fake_share": 0.3}], "pseudo_fake_share": 0.15, "refit_sources": are_told_apart}
    assert ("another of the sources" in card(tmp_path, config=config)) is are_told_apart
