"""Calibration recovers what it was made from, and suits the decision rule."""

import numpy as np
import pytest

from detector.predictor import Classifier, DecisionRule, SeveralNetworks
from training.calibration import BAND_ERROR, REAL_ACC_TARGET, Calibration, fit, fit_band, joined
from training.metrics import expected_calibration_error

RULE = DecisionRule()


def logits_and_labels(spread: float, *, n: int = 20_000, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """True log odds of two normal classes with equal weight, made overconfident by 1 / temperature."""
    rng = np.random.default_rng(0)
    y_true = (np.arange(n) % 2).astype(int)
    x = rng.normal(np.where(y_true == 1, spread, -spread), 1.0)
    return 2 * spread * x / temperature, y_true


def test_an_overconfident_network_is_cooled() -> None:
    logits, y_true = logits_and_labels(2.0, temperature=0.25)

    calibration = fit(logits, y_true, rule=RULE)

    assert calibration.temperature == pytest.approx(4.0, rel=0.05)
    probabilities = calibration.probabilities(logits)
    assert expected_calibration_error(y_true, probabilities, prior=calibration.prior) < 0.01


def test_the_prior_keeps_real_photos_real() -> None:
    logits, y_true = logits_and_labels(1.2)

    calibration = fit(logits, y_true, rule=RULE)

    assert calibration.prior < 0.5
    called_real = 1 - calibration.probabilities(logits[y_true == 0]) > RULE.real_threshold
    assert called_real.mean() >= REAL_ACC_TARGET


@pytest.mark.parametrize("threshold", [0.6, 0.7])
def test_the_prior_is_the_largest_that_keeps_them_real(threshold: float) -> None:
    """To the hundredth that is said, also of a network whose logits lie to one side."""
    rule = DecisionRule(real_threshold=threshold)
    logits, y_true = logits_and_labels(1.2)
    calibration = fit(logits + 1.5, y_true, rule=rule)
    at_half = calibration.bias - np.log(calibration.prior / (1 - calibration.prior))
    for prior, is_kept in ((calibration.prior, True), (calibration.prior + 0.01, False)):
        assumed = Calibration(calibration.temperature, at_half + np.log(prior / (1 - prior)), prior)
        called_real = 1 - assumed.probabilities(logits[y_true == 0] + 1.5) > threshold
        assert (called_real.mean() >= REAL_ACC_TARGET) == is_kept


def test_both_classes_weigh_the_same_whatever_there_is_more_of() -> None:
    logits, y_true = logits_and_labels(1.2)
    calibration = fit(logits, y_true, rule=RULE)
    reals = y_true == 0
    repeated = np.concatenate([logits, *[logits[reals]] * 3]), np.concatenate([y_true, *[y_true[reals]] * 3])
    uneven = fit(*repeated, rule=RULE)
    assert (uneven.temperature, uneven.bias) == pytest.approx((calibration.temperature, calibration.bias), abs=1e-3)
    assert uneven.prior == calibration.prior


def test_a_good_network_assumes_at_most_a_half() -> None:
    logits, y_true = logits_and_labels(4.0)
    assert fit(logits, y_true, rule=RULE).prior == 0.5


def test_a_network_that_learnt_nothing_is_refused() -> None:
    logits, y_true = logits_and_labels(2.0)
    with pytest.raises(ValueError, match="learnt nothing"):
        fit(-logits, y_true, rule=RULE)


def test_one_class_can_t_be_calibrated() -> None:
    with pytest.raises(ValueError, match="both classes"):
        fit(np.zeros(3), np.zeros(3, int), rule=RULE)


def test_probabilities_of_a_known_calibration() -> None:
    probabilities = Calibration(temperature=2.0, bias=1.0, prior=0.5).probabilities(np.array([-2.0, 0.0]))
    assert probabilities.tolist() == pytest.approx([0.5, 0.7310586])


def test_outside_the_band_one_answer_in_twenty_is_wrong() -> None:
    logits, y_true = logits_and_labels(1.2)
    calibration = fit(logits, y_true, rule=RULE)
    fake_probability = calibration.probabilities(logits)

    low, high = fit_band(fake_probability, y_true, rule=RULE)

    assert low <= RULE.uncertain_above < RULE.real_threshold < high < 1
    real_probability = 1 - fake_probability
    for decided, wrong in ((real_probability <= low, 0), (real_probability > high, 1)):
        assert decided.any()
        assert (y_true[decided] == wrong).mean() <= BAND_ERROR  # as many fakes as reals, so plain shares are balanced
    # A narrower band would not do: just inside its upper edge the answers are worse.
    wider = real_probability > high - 0.02
    assert (y_true[wider] == 1).mean() > BAND_ERROR


def test_the_edges_of_a_band_worked_out_by_hand() -> None:
    """Of 1,000 reals and 100 fakes, which weigh the same: three in a hundred of the answers may be wrong."""
    fakes = {0.95: 50, 0.85: 40, 0.28: 7, 0.1105: 1, 0.1: 2}
    # Called Fake are 5 % of the reals for 90 % of the fakes; down to 0.8005 it is 2.7 %, and 2.7 / 92.7 is 2.91 %.
    # Called Real are 10 % of the fakes for 95 % of the reals; down to 1 - 0.1105 it is 3 %, and 3 / 98 is 3.06 %.
    reals = {0.9: 15, 0.8005: 12, 0.75: 23, 0.05: 950}
    scores = np.concatenate([np.full(n, score) for table in (reals, fakes) for score, n in table.items()])
    y_true = np.repeat([0, 1], [1000, 100])
    assert fit_band(scores, y_true, rule=RULE) == (0.199, 0.9)


def test_where_no_answer_is_safe_all_are_uncertain() -> None:
    rng = np.random.default_rng(0)
    y_true = rng.integers(0, 2, 2000)
    fake_probability = np.round(rng.random(2000))  # says nothing about the label
    assert fit_band(fake_probability, y_true, rule=RULE) == (0.0, 1.0)


@pytest.mark.parametrize("count", [2, 3])
def test_serving_joins_networks_as_their_calibration_did(count: int) -> None:
    logits = np.array([[-6.0, 3.0, 1.0], [-2.0, 3.0, -4.0], [1.0, -4.0, 9.0], [4.9, 0.0, 2.0], [5.5, -9.0, -9.0]])
    networks = list(logits[:, :count].T)
    calibration = Calibration(temperature=1.7, bias=-1.9, prior=0.13)
    between = (-4.0, 5.0)
    low, high = calibration.probabilities(np.array(between)).tolist()

    def network(logit: float) -> Classifier:
        probability = float(calibration.probabilities(np.array([logit]))[0])
        return lambda face: (probability, np.zeros((7, 7), np.float32))

    served = [
        SeveralNetworks(*(network(each) for each in row), asked_between=(low, high))(np.zeros((64, 64, 3), np.uint8))[0]
        for row in zip(*networks, strict=True)
    ]

    together = joined(*networks, between=between)
    assert served == pytest.approx(calibration.probabilities(together).tolist())
    expected = {2: [-6.0, 0.5, -1.5, 2.45, 5.5], 3: [-6.0, -1.0, 2.0, 2.3, 5.5]}
    assert together.tolist() == pytest.approx(expected[count])
