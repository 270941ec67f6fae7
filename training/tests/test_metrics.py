"""Figures worked out by hand, and refusals where a figure would mean nothing."""

import numpy as np
import pytest

from detector.predictor import DecisionRule
from training.metrics import (
    METRICS,
    class_figures,
    evaluate,
    expected_calibration_error,
    intervals,
    prior_weights,
    reliability,
    roc_points,
    table_row,
)

RULE = DecisionRule()
# Four reals, four fakes; at 0.3 one real is called Fake (0.4) and one fake Real (0.2).
Y_TRUE = np.array([0, 0, 0, 0, 1, 1, 1, 1])
Y_SCORE = np.array([0.05, 0.1, 0.25, 0.4, 0.2, 0.5, 0.8, 0.95])


def test_figures_of_a_small_table() -> None:
    figures = evaluate(Y_TRUE, Y_SCORE, rule=RULE)

    # 16 pairs; the fake at 0.2 lies below the reals at 0.25 and 0.4.
    assert figures["auc"] == pytest.approx(14 / 16)
    assert figures["real_acc"] == pytest.approx(3 / 4)
    assert figures["fake_acc"] == pytest.approx(3 / 4)
    assert figures["acc"] == pytest.approx(6 / 8)
    assert figures["eer"] == pytest.approx(0.25)
    # Precision at each fake from the top: 1, 1, 1, 4/6.
    assert figures["ap"] == pytest.approx((1 + 1 + 1 + 4 / 6) / 4)
    # The real at 0.25 and the fake at 0.2 share a bin, of which 0.225 is the mean and a half are fakes. The others are
    # alone, the reals 0.05, 0.1 and 0.4 off, the fakes 0.5, 0.2 and 0.05.
    assert figures["ece"] == pytest.approx(0.275 * 2 / 8 + (0.55 + 0.75) / 8)
    assert figures.keys() == set(METRICS)


def test_a_row_weighs_its_calibration_error_alone_to_the_prior() -> None:
    groups = list("abcdefgh")
    even, rare = (table_row(Y_TRUE, Y_SCORE, groups, rule=RULE, prior=prior, repeats=20) for prior in (0.5, 0.1))
    # Each real weighs 0.225 and each fake 0.025; the bin of two has a mean of 0.245, and a tenth of it are fakes.
    assert rare["ece"] == pytest.approx(0.145 * 0.25 + 0.225 * 0.55 + 0.025 * 0.75)
    assert {**rare, "ece": even["ece"]} == even


def test_the_curve_of_a_small_table() -> None:
    points = roc_points(Y_TRUE, Y_SCORE, count=9)
    assert [fpr for fpr, _tpr in points] == [number / 8 for number in range(9)]
    # Three fakes lie above all reals, the fourth above two of the four. Between the steps, which are at 0, 1/4 and 1/2:
    assert [tpr for _fpr, tpr in points[1::2]] == [0.75, 0.75, 1.0, 1.0]


def test_a_score_at_the_threshold_is_fake() -> None:
    figures = class_figures(np.array([1]), np.array([0.3]), rule=RULE)
    assert (figures["acc"], figures["fake_acc"]) == (1.0, 1.0)


def test_only_answers_outside_the_band_are_decided() -> None:
    rule = DecisionRule(real_threshold=0.7, uncertain_above=0.3, uncertain_up_to=0.85)
    # Decided: the reals at 0.05 and 0.1, the fakes at 0.8 and 0.95, and a real at 0.9, wrongly.
    y_true, y_score = np.append(Y_TRUE, 0), np.append(Y_SCORE, 0.9)

    figures = evaluate(y_true, y_score, rule=rule)

    # Both classes weigh the same: 3 of 5 reals and 2 of 4 fakes, of which one real in five is wrong.
    assert figures["decided"] == pytest.approx((3 / 5 + 2 / 4) / 2)
    assert figures["decided_error"] == pytest.approx((1 / 5 / 2) / ((3 / 5 + 2 / 4) / 2))
    assert figures["real_error"] == 0.0
    assert figures["fake_error"] == pytest.approx((1 / 5) / (1 / 5 + 2 / 4))


@pytest.mark.parametrize("fake_probability", [0.75, 0.5, 0.125, 0.0625])
def test_serving_decides_the_same_at_the_edges_of_the_band(fake_probability: float) -> None:
    """With halves, quarters and eighths, of which floating point makes nothing else."""
    rule = DecisionRule(0.5, uncertain_above=0.25, uncertain_up_to=0.875)
    figures = class_figures(np.array([1]), np.array([fake_probability]), rule=rule)
    assert figures["decided"] == (not rule.is_uncertain(fake_probability))


def test_what_is_too_small_is_not_decided() -> None:
    rule = DecisionRule(real_threshold=0.7, uncertain_above=0.3, uncertain_up_to=0.85)
    y_true, y_score = np.append(Y_TRUE, 0), np.append(Y_SCORE, 0.9)
    undecided = np.isin(y_score, [0.9, 0.05])

    figures = evaluate(y_true, y_score, rule=rule, undecided=undecided)

    assert figures["decided"] == pytest.approx((1 / 5 + 2 / 4) / 2)
    assert figures["decided_error"] == figures["real_error"] == figures["fake_error"] == 0.0
    row = table_row(y_true, y_score, [str(n) for n in range(9)], rule=rule, prior=0.5, undecided=undecided, repeats=50)
    assert row["decided"] == figures["decided"]
    assert row["decided_ci"][0] < figures["decided"] < row["decided_ci"][1]
    bounds = intervals(
        y_true, y_score, list("abcdefghi"), rule=rule, prior=0.5, undecided=np.ones(9, np.bool_), repeats=50
    )
    assert bounds.keys() == {"auc_ci", "ap_ci", "eer_ci", "acc_ci", "real_acc_ci", "fake_acc_ci"}


def test_where_nothing_is_decided_there_is_no_error() -> None:
    figures = class_figures(np.array([0, 1]), np.array([0.5, 0.5]), rule=RULE)
    assert figures["decided"] == 0.0
    assert "decided_error" not in figures


def test_one_class_has_no_auc() -> None:
    with pytest.raises(ValueError, match="Both classes"):
        evaluate(np.zeros(3, int), np.zeros(3), rule=RULE)
    with pytest.raises(ValueError, match="both classes"):
        roc_points(np.ones(3, int), np.zeros(3))
    figures = class_figures(np.zeros(4, int), np.array([0.1, 0.2, 0.3, 0.9]), rule=RULE)
    assert figures == {
        "acc": 0.5,
        "real_acc": 0.5,
        "decided": pytest.approx(3 / 4),
        "decided_error": pytest.approx(1 / 3),
    }


def test_nothing_is_no_figure() -> None:
    with pytest.raises(ValueError, match="nothing"):
        class_figures(np.array([], int), np.array([]), rule=RULE)


def test_the_calibration_error_of_known_scores() -> None:
    # Scores of 0.9 that are right half of the time: off by 0.4.
    assert expected_calibration_error(np.array([0, 1]), np.array([0.9, 0.9])) == pytest.approx(0.4)
    assert expected_calibration_error(np.array([0, 1]), np.array([0.0, 1.0])) == pytest.approx(0.0)
    # With a tenth of fakes, 0.9 is off by 0.8.
    assert expected_calibration_error(np.array([0, 1]), np.array([0.9, 0.9]), prior=0.1) == pytest.approx(0.8)


def test_scores_fall_into_fifteen_bins() -> None:
    # The edges are at 1/15, 2/15 ...: 0.06 and 0.07 lie on two sides of the first, and 1.0 belongs to the last.
    y_true, y_score = np.array([0, 1, 0, 1]), np.array([0.06, 0.07, 1.0, 0.98])
    rows = reliability(y_true, y_score, prior=0.1)
    assert len(rows) == 15
    found = {index: row for index, row in enumerate(rows) if row[0] > 0}
    assert found.keys() == {0, 1, 14}
    assert found[0] == pytest.approx((0.45, 0.06, 0.0))
    assert found[1] == pytest.approx((0.05, 0.07, 1.0))
    assert found[14] == pytest.approx((0.5, 0.9 * 1.0 + 0.1 * 0.98, 0.1))
    assert rows[2] == pytest.approx((0.0, 2.5 / 15, 0.0)), "an empty one is drawn in its middle"


@pytest.mark.parametrize("score", [-0.2, 1.2])
def test_scores_outside_0_to_1_are_refused(score: float) -> None:
    with pytest.raises(ValueError, match="0 to 1"):
        reliability(np.array([0, 1]), np.array([0.5, score]))


def test_weights_follow_the_prior() -> None:
    weights = prior_weights(np.array([0, 0, 0, 1]), 0.2)
    assert weights.tolist() == pytest.approx([0.8 / 3, 0.8 / 3, 0.8 / 3, 0.2])


def test_a_share_without_a_miss_gets_wilson_s_interval() -> None:
    y_true, y_score = np.zeros(20, int), np.full(20, 0.1)
    groups = [str(index // 2) for index in range(20)]
    bounds = intervals(y_true, y_score, groups, rule=RULE, prior=0.5, repeats=50)
    # Ten groups, all right: z squared is 3.84, and 10 / (10 + 3.84) is the lower end.
    for share in ("acc", "real_acc"):
        assert bounds[f"{share}_ci"] == pytest.approx([10 / (10 + 1.959964**2), 1.0])
    # Of these no draw can tell how sure they are.
    assert bounds.keys() == {"acc_ci", "real_acc_ci"}


def test_the_calibration_error_has_no_interval() -> None:
    bounds = intervals(Y_TRUE, Y_SCORE, list("abcdefgh"), rule=RULE, prior=0.5, repeats=50)
    assert {"auc_ci", "real_acc_ci", "fake_acc_ci"} <= bounds.keys()
    assert "ece_ci" not in bounds


def test_intervals_draw_groups_not_pictures() -> None:
    copies = 50
    y_true, y_score = np.repeat(Y_TRUE, copies), np.repeat(Y_SCORE, copies)
    by_picture = intervals(y_true, y_score, [str(i) for i in range(len(y_true))], rule=RULE, prior=0.5, repeats=100)
    groups = [str(i // copies) for i in range(len(y_true))]
    by_group = intervals(y_true, y_score, groups, rule=RULE, prior=0.5, repeats=100)

    def width(interval: list[float]) -> float:
        return interval[1] - interval[0]

    # 400 copies of 8 pictures know no more than the 8.
    assert width(by_group["auc_ci"]) > 3 * width(by_picture["auc_ci"])
    assert by_group["auc_ci"][0] <= 14 / 16 <= by_group["auc_ci"][1]


def test_a_row_of_one_class_leaves_out_what_it_can_t_tell() -> None:
    row = table_row(np.zeros(4, int), np.full(4, 0.1), ["a", "a", "b", "c"], rule=RULE, prior=0.5, repeats=10)
    assert (row["n"], row["n_real"], row["n_fake"], row["n_groups"]) == (4, 4, 0, 3)
    assert row["real_acc"] == 1.0
    assert row["auc"] is None
    assert row["fake_acc"] is None
    assert row["decided"] == 1.0


def test_a_row_of_one_class_leaves_small_faces_undecided_too() -> None:
    undecided = np.array([True, False, False, False])
    row = table_row(np.zeros(4, int), np.full(4, 0.1), list("abcd"), rule=RULE, prior=0.5, undecided=undecided)
    assert row["decided"] == 0.75
