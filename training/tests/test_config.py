"""The settings survive their file, and a mistyped one is refused."""

import json
from dataclasses import replace
from typing import Any

import pytest

from training.config import FULL, SMOKE, Config, Stage
from training.paths import MODEL_DIR


@pytest.mark.parametrize("config", [FULL, SMOKE], ids=["full", "smoke"])
def test_a_config_survives_json(config: Config) -> None:
    assert Config.from_json(json.dumps(config.to_dict())) == config


@pytest.mark.parametrize("text", ['{"learning_rat": 1}', '{"second_stages": [{"epochs": 1, "learning_rat": 1}]}'])
def test_an_unknown_setting_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"settings: learning_rat\."):
        Config.from_json(text)


def test_stages_are_read() -> None:
    config = Config.from_json('{"stages": [{"epochs": 2, "size": 160, "learning_rate": 0.1}]}')
    assert config.stages == (Stage(epochs=2, size=160, learning_rate=0.1),)


@pytest.mark.parametrize("config", [FULL, SMOKE], ids=["full", "smoke"])
def test_the_last_stage_trains_what_is_served(config: Config) -> None:
    for each in config.networks():
        assert each.stages[-1].size == 224
        # A high rate needs batch normalisation, or to leave the lower layers alone.
        is_trained = any(stage.epochs for stage in each.stages)
        assert each.normalized_from is not None or each.stages[0].train_from > 0 or not is_trained


def test_margins_survive_json() -> None:
    stage = Stage(epochs=1, size=96, learning_rate=0.1, margins=(0.9, 1.5))
    assert Config.from_json(json.dumps(Config(stages=(stage,)).to_dict())).stages == (stage,)


def test_shares_of_an_average_add_up() -> None:
    with pytest.raises(ValueError, match="add up"):
        Config(average=((0, 0.5), (1, 0.6)))


def test_an_average_is_of_stages_that_there_are() -> None:
    stage = Stage(epochs=1, size=96, learning_rate=0.1)
    for number in (1, -1):
        with pytest.raises(ValueError, match="there are not"):
            Config(stages=(stage,), average=((number, 1.0),))


def test_a_network_that_learns_sources_needs_a_fit() -> None:
    taught, other = (Stage(epochs=1, size=96, learning_rate=0.1, source_loss=each) for each in (0.5, 0.0))
    with pytest.raises(ValueError, match="not served"):
        Config(stages=(other, taught))
    assert Config(stages=(taught, other)).refit is None


def test_an_average_is_of_stages_that_learn_the_same() -> None:
    taught, other = (Stage(epochs=1, size=96, learning_rate=0.1, source_loss=each) for each in (0.5, 0.0))
    for stages in ((other, taught), (taught, other)):
        with pytest.raises(ValueError, match="learn sources"):
            Config(stages=stages, refit=1e-3, average=((0, 0.5), (1, 0.5)))
        assert Config(stages=stages, refit=1e-3, average=((1, 1.0),)).stages == stages


def test_a_fit_to_no_view_is_refused() -> None:
    with pytest.raises(ValueError, match="no view"):
        Config(refit=1e-3, refit_views=0)
    assert Config(refit=1e-3, refit_views=0, refit_as_served=True).refit_views == 0


def test_a_second_network_has_its_own_seed_and_stages_and_nothing_else_of_its_own() -> None:
    stage, other = Stage(epochs=1, size=96, learning_rate=0.1), Stage(epochs=2, size=224, learning_rate=0.2)
    config = Config(stages=(stage,), average=((0, 1.0),), refit=1e-3, second_stages=(other,), second_seed=7)
    assert Config.from_json(json.dumps(config.to_dict())) == config

    first, second = config.networks()

    assert first == Config(stages=(stage,), average=((0, 1.0),), refit=1e-3)
    assert second == replace(first, seed=7, stages=(other,), average=())
    assert first.networks() == (first,)


def test_a_third_network_is_never_trained_but_fitted_like_the_others() -> None:
    stage, other = (
        Stage(epochs=1, size=96, learning_rate=0.1),
        Stage(epochs=2, size=224, learning_rate=0.2, source_loss=0.5),
    )
    config = Config(
        stages=(stage, other),
        normalized_from=3,
        refit=1e-3,
        refit_views=2,
        second_stages=(other,),
        second_seed=7,
        third_pretrained=True,
        third_seed=9,
    )
    assert Config.from_json(json.dumps(config.to_dict())) == config

    first, second, third = config.networks()

    assert (first, second) == replace(config, third_pretrained=False, third_seed=0).networks()
    assert third == replace(
        first,
        seed=9,
        stages=(replace(other, epochs=0, source_loss=0.0),),
        normalized_from=None,
    )


def test_a_third_network_needs_a_second_and_a_fit() -> None:
    stage = Stage(epochs=1, size=96, learning_rate=0.1)
    for lacking in ({"refit": 1e-3}, {"second_stages": (stage,)}):
        with pytest.raises(ValueError, match="third"):
            Config(third_pretrained=True, **lacking)


@pytest.mark.parametrize(
    ("stage", "others"),
    [
        ({"mixed_share": 0.0, "batch_size": None, "draws_per_epoch": None}, {}),
        (
            {},
            {
                "precision": "float32",
                "source_loss": 0.0,
                "distilled_stages": [],
                "distilled_seed": 0,
                "distilled_share": 0.8,
            },
        ),
    ],
)
def test_settings_that_are_gone_may_have_their_default(stage: dict[str, Any], others: dict[str, Any]) -> None:
    """Or no run folder of before could be gone on from."""
    config = FULL.to_dict()
    config |= {key: [{**each, **stage} for each in config[key]] for key in ("stages", "second_stages")}
    assert Config.from_json(json.dumps({**config, **others})) == FULL


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"precision": "mixed_bfloat16"}', "precision"),
        ('{"source_loss": 0.5}', "source_loss"),
        ('{"distilled_stages": [{"epochs": 1}]}', "distilled_stages"),
        ('{"stages": [{"epochs": 1, "size": 96, "learning_rate": 0.1, "batch_size": 16}]}', "batch_size"),
        ('{"second_stages": [{"epochs": 1, "size": 96, "learning_rate": 0.1, "mixed_share": 0.5}]}', "mixed_share"),
    ],
)
def test_settings_that_are_gone_are_refused_where_they_did_something(text: str, key: str) -> None:
    with pytest.raises(ValueError, match=rf"settings: {key}\."):
        Config.from_json(text)


def test_what_ships_was_trained_as_a_run_is_now() -> None:
    spec = json.loads((MODEL_DIR / "spec.json").read_text(encoding="utf-8"))
    assert Config.from_json(json.dumps(spec["config"])) == FULL
