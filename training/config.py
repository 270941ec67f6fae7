"""Every knob of training in one place, with a default and a why; unknown keys raise."""

import dataclasses
import json
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the schedule.

    Attributes:
        epochs: Epochs of `Config.draws_per_epoch` pictures; 0 leaves the weights as they are.
        size: Side of the network's input in px. The network is fully convolutional up to its pooling, so most epochs
            can run at a smaller, cheaper size; the last stage has to run at the size that is served.
        learning_rate: Peak of the cosine schedule.
        train_from: Share of the backbone's layers, from the input, that stays frozen: 0.0 trains all of it.
        lowest_rate: What the learning rate is multiplied by at the input; it rises with the depth, by the same factor
            from layer to layer, to the whole rate at the classifier (Howard & Ruder, "Universal Language Model
            Fine-tuning for Text Classification", ACL 2018, section 3.2). 1.0 has all layers learn alike.
        augmentation: Scales the probability of every change to a file's history, 0 to 1. Strong ones first are
            to teach what survives them, fewer in the end to come closer to what is served; not compared.
        pair_share: Share of the draws that bring their counterpart into the same batch, with the same framing and file
            history: the other class of the same video or identity, or the real face that a blended fake was made of.
            What differs between the two is then the manipulation alone.
        margins: Lowest and highest side of the random crop, as a multiple of the face box; pictures that show less than
            that around the face are cropped tighter still, so that they too are seen at several scales.
        matched_boost: Multiplies the share of the sources that hold both classes: there the source gives nothing away.
        real_share: Share of the draws that are real faces, before some of them are blended.
        pseudo_fake_share: Share of the real draws that are turned into blended fakes (Shiohara & Yamasaki, "Detecting
            Deepfakes with Self-Blended Images", CVPR 2022), labelled fake; None takes the config's. At a half, each
            source of real photos is real as often as fake, so that its look says nothing.
        fake_donors: Whether fakes lend their faces to blends too; a generated face in a real photo is no less fake.
        source_loss: If not 0, the network learns to tell the sources apart as well, genuine pictures and fakes of each,
            and blends as one more: the logit is then the log odds of all fakes, and this the weight of the
            cross-entropy over the classes beside that of real and fake. The classifier starts anew where a stage
            learns them and the one before did not, or the other way round. What the last stage learns from them is
            served only through `refit`.
    """

    epochs: int
    size: int
    learning_rate: float
    train_from: float = 0.0
    lowest_rate: float = 1.0
    augmentation: float = 1.0
    pair_share: float = 0.0
    matched_boost: float = 1.0
    margins: tuple[float, float] = (1.2, 2.0)
    real_share: float = 0.5
    pseudo_fake_share: float | None = None
    fake_donors: bool = False
    source_loss: float = 0.0


@dataclass(frozen=True, slots=True)
class Config:
    """A training run.

    Attributes:
        seed: Seeds sampling, augmentation and the head's start values.
        batch_size: Pictures a step. 32 keeps a step under a second on two cores.
        draws_per_epoch: Pictures drawn an epoch, with replacement. Small, so that a checkpoint comes every few minutes.
        stages: One after the other. With all normalisation folded a high rate on all layers at once collapses: there
            the head and the top third come first.
        weight_decay: AdamW's; small, because the schedule is short.
        clip_norm: Bounds a step's gradient; where normalisation is folded, nothing else would.
        normalized_from: The first block of the backbone (0 to 16) whose batch normalisation learns along; None folds
            all. With it a rate three times as high goes well (training/history.md). The first three blocks have the
            largest maps: normalised as well, they take a third of the time.
        settling_batches: From so many batches batch normalisation takes its means and variances in the end, which are
            those of the averaged weights then.
        ema_momentum: Weights are averaged over about 1 / (1 - momentum) steps (stochastic weight averaging).
        dropout: Before the classifier.
        label_smoothing: Keeps the logits of the easy sources from growing without bound.
        source_power: A source of n pictures is drawn in proportion to n ** source_power within its class: 1.0 lets the
            large sources rule, 0.0 wears out the small ones.
        pseudo_fake_share: What a stage's is where it says nothing.
        average: (number of a stage, share) of the weights whose mean is the result, shares adding up to 1; empty: the
            last stage's. Those stages learn sources, or they do not, as the last one does. Between two stages of one
            run lie networks that keep much of what either learnt (Wortsman et al., "Robust fine-tuning of zero-shot
            models", CVPR 2022).
        refit: If not None, the classifier is fitted anew in the end, by logistic regression of the kinds on what all
            blocks hold; this is the inverse strength of its L2 penalty.
        refit_sources: Whether another one is fitted to the sources, genuine and fake, and the mean of both log odds
            counts: one that knows the source knows what tells its fakes, one that does not finds more for new ones.
        refit_views: How often each picture is seen by that fit, each time framed and treated anew. Each view of all
            pictures takes 1.7 GB of memory.
        refit_as_served: Whether it is seen as serving would crop it, and that mirrored, besides: two views more.
        refit_splits: What it is fitted to. The network knows its training pictures by heart, so those of `val` say more
            of what its features are worth on others. With them, calibration rests on `refit_folds` more fits, each
            without a part of `val`.
        refit_folds: In how many parts.
        refit_iterations: At most so many steps of the fit to `train` alone, and of those that begin where it ended.
        second_stages: The schedule of a second network, whose errors differ because its seed and its stages do; it is
            asked where the first is not sure, and their mean counts (Lakshminarayanan et al., "Simple and Scalable
            Predictive Uncertainty Estimation using Deep Ensembles", NeurIPS 2017). Empty: there is none.
        second_seed: Its seed.
        second_asked: Between which uncalibrated logits of the first it is asked.
        third_pretrained: Whether a third network is asked with the second: ImageNet's as it is, only its classifiers
            fitted. Never trained on faces, it errs on others still.
        third_seed: Its seed.
        limit_per_source: Uses at most this many pictures of each source and split; None uses all.
    """

    seed: int = 20261122
    batch_size: int = 32
    draws_per_epoch: int = 16384
    stages: tuple[Stage, ...] = field(
        default=(
            Stage(
                epochs=7,
                size=160,
                learning_rate=1e-3,
                lowest_rate=1 / 4,
                augmentation=0.6,
                pair_share=0.4,
                matched_boost=1.5,
                margins=(1.0, 2.0),
                real_share=0.6,
                pseudo_fake_share=0.4,
                fake_donors=True,
            ),
            Stage(
                epochs=4,
                size=192,
                learning_rate=8e-4,
                lowest_rate=1 / 4,
                augmentation=0.4,
                pair_share=0.4,
                matched_boost=1.4,
                margins=(0.95, 2.0),
                real_share=0.6,
                pseudo_fake_share=0.35,
                fake_donors=True,
            ),
            Stage(
                epochs=4,
                size=224,
                learning_rate=5e-4,
                lowest_rate=1 / 4,
                augmentation=0.3,
                pair_share=0.3,
                matched_boost=1.3,
                margins=(1.2, 2.0),
                real_share=0.55,
                pseudo_fake_share=0.3,
                fake_donors=True,
            ),
        )
    )
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    normalized_from: int | None = None
    settling_batches: int = 100
    ema_momentum: float = 0.998
    dropout: float = 0.2
    label_smoothing: float = 0.05
    source_power: float = 0.5
    pseudo_fake_share: float = 0.15
    average: tuple[tuple[int, float], ...] = ()
    refit: float | None = None
    refit_sources: bool = False
    refit_views: int = 1
    refit_as_served: bool = False
    refit_splits: tuple[str, ...] = ("train",)
    refit_folds: int = 3
    refit_iterations: tuple[int, int] = (150, 60)
    second_stages: tuple[Stage, ...] = ()
    second_seed: int = 0
    second_asked: tuple[float, float] = (-4.0, 5.0)
    third_pretrained: bool = False
    third_seed: int = 0
    limit_per_source: int | None = None

    def __post_init__(self) -> None:
        """Refuses shares that would scale the weights, and a fit that is missing, to nothing or to test pictures."""
        if self.average and abs(sum(share for _stage, share in self.average) - 1.0) > 1e-9:
            raise ValueError(f"The shares of the average add up to {sum(share for _stage, share in self.average)}.")
        if missing := [number for number, _share in self.average if not 0 <= number < len(self.stages)]:
            raise ValueError(f"The average is of stages that there are not: {missing}.")
        teaches = bool(self.stages[-1].source_loss)
        if any(bool(self.stages[number].source_loss) != teaches for number, _share in self.average):
            raise ValueError("The average is of stages that learn sources and of stages that do not.")
        if teaches and self.refit is None:
            raise ValueError("A classifier that is trained on sources is not served: another has to be fitted.")
        if self.refit is not None and not (self.refit_views or self.refit_as_served):
            raise ValueError("The classifier would be fitted to no view of any picture.")
        if self.third_pretrained and not (self.second_stages and self.refit is not None):
            raise ValueError("A third network is asked with a second, and says nothing unless its classifier is fit.")
        if self.refit_splits not in (("train",), ("train", "val")):
            raise ValueError(f"The classifier can be fitted to train, or train and val, not {self.refit_splits}.")

    def networks(self) -> tuple["Config", ...]:
        """Returns the settings of each network, as those of a run of its own."""
        alone = Config()
        first = replace(
            self,
            second_stages=(),
            second_seed=alone.second_seed,
            second_asked=alone.second_asked,
            third_pretrained=False,
            third_seed=alone.third_seed,
        )
        if not self.second_stages:
            return (first,)
        second = replace(first, seed=self.second_seed, stages=self.second_stages, average=())
        if not self.third_pretrained:
            return first, second
        # Nothing is trained, so no normalisation has to learn along.
        third = replace(
            first,
            seed=self.third_seed,
            stages=(replace(self.stages[-1], epochs=0, source_loss=0.0),),
            average=(),
            normalized_from=None,
        )
        return first, second, third

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, fit for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """Returns the config that `to_dict` described.

        Raises:
            ValueError: A key that this version does not know, or one that is gone with another value than its default.
        """
        values = _known(cls, json.loads(text))
        # JSON knows lists only; equal settings have to compare equal.
        for key in {"stages", "second_stages"} & set(values):
            stages = [Stage(**_known(Stage, stage)) for stage in values[key]]
            values[key] = tuple(replace(stage, margins=(stage.margins[0], stage.margins[1])) for stage in stages)
        if "average" in values:
            values["average"] = tuple((number, share) for number, share in values["average"])
        for key in {"refit_splits", "refit_iterations", "second_asked"} & set(values):
            values[key] = tuple(values[key])
        return cls(**values)


# Settings that are gone, with their defaults as in JSON: run folders and models of before name them.
_GONE: dict[type[Config | Stage], dict[str, Any]] = {
    Config: {
        "precision": "float32",
        "source_loss": 0.0,
        "distilled_stages": [],
        "distilled_seed": 0,
        "distilled_share": 0.8,
    },
    Stage: {"mixed_share": 0.0, "batch_size": None, "draws_per_epoch": None},
}


def _known(cls: type[Config | Stage], values: dict[str, Any]) -> dict[str, Any]:
    """Returns the values less those that are gone and had their default, which is what is done without them."""
    gone = _GONE[cls]
    left = {key: value for key, value in values.items() if key not in gone or value != gone[key]}
    unknown = set(left) - {each.name for each in dataclasses.fields(cls)}
    if unknown:
        raise ValueError(f"Unknown training settings: {', '.join(sorted(unknown))}.")
    return left


# What `make train` runs: the three stages above, then the last two once more, longer, and again, shorter, learning the
# sources as well; but for those two, the same for another network that sees more of the sources with both classes, more
# of their counterparts and tighter crops; and ImageNet's as a third.
_STAGES = Config().stages
_TAUGHT = (
    replace(_STAGES[1], epochs=2, source_loss=0.5),
    replace(_STAGES[2], epochs=4, learning_rate=6e-4, source_loss=0.5),
)
_SECOND_LARGER = (
    replace(_STAGES[1], matched_boost=1.7),
    replace(
        _STAGES[2],
        epochs=6,
        learning_rate=6e-4,
        augmentation=0.35,
        pair_share=0.4,
        matched_boost=1.6,
        margins=(1.0, 2.0),
    ),
)
FULL = Config(
    seed=20261129,
    stages=(*_STAGES, replace(_STAGES[1], epochs=5), replace(_STAGES[2], epochs=8, learning_rate=6e-4), *_TAUGHT),
    normalized_from=3,
    refit=1e-3,
    refit_sources=True,
    refit_views=1,
    refit_as_served=True,
    refit_splits=("train", "val"),
    second_stages=(
        replace(_STAGES[0], epochs=6, matched_boost=1.8),
        *_SECOND_LARGER,
        replace(_SECOND_LARGER[0], epochs=5),
        replace(_SECOND_LARGER[1], epochs=8),
    ),
    second_seed=20261130,
    second_asked=(-5.0, 5.0),
    third_pretrained=True,
    third_seed=20261201,
)

# Every stage of a run on a few pictures, in a few minutes: shows that the code works, not that the model does.
# It has to learn a little all the same, since calibration refuses a network whose logits do not rise with fakeness;
# with the default average over 500 steps its dozen would leave the head at its random start.
SMOKE = Config(
    draws_per_epoch=192,
    batch_size=16,
    normalized_from=3,
    settling_batches=4,
    ema_momentum=0.5,
    stages=(
        Stage(epochs=5, size=96, learning_rate=1e-3, train_from=0.66, augmentation=0.1),
        Stage(epochs=1, size=96, learning_rate=1e-4, augmentation=0.1, source_loss=0.5),
        Stage(
            epochs=1,
            size=224,
            learning_rate=2e-5,
            augmentation=0.1,
            pair_share=0.5,
            matched_boost=1.5,
            margins=(0.95, 1.8),
            real_share=0.6,
            pseudo_fake_share=0.4,
            fake_donors=True,
            source_loss=0.5,
        ),
    ),
    average=((1, 0.25), (2, 0.75)),
    refit=1e-3,
    refit_sources=True,
    refit_views=1,
    refit_as_served=True,
    refit_splits=("train", "val"),
    refit_iterations=(30, 10),
    second_stages=(
        Stage(epochs=4, size=96, learning_rate=1e-3, train_from=0.66, augmentation=0.1),
        Stage(epochs=1, size=224, learning_rate=2e-5, augmentation=0.1),
    ),
    second_seed=1,
    third_pretrained=True,
    third_seed=2,
    limit_per_source=3,
)
