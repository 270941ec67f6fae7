"""Figures as a page shows them."""

import math

import pytest

from detector.predictor import DecisionRule
from detector.templatetags import display


@pytest.mark.parametrize(
    ("probability", "expected"),
    [
        (None, ""),
        (0.0, "under 0.1 %"),
        (0.0009, "under 0.1 %"),
        (0.001, "0.1 %"),
        (0.5, "50.0 %"),
        (0.7004, "70.0 %"),
        (0.999, "99.9 %"),
        (0.9995, "over 99.9 %"),
        (1.0, "over 99.9 %"),
    ],
)
def test_percent_never_promises_certainty(probability: float | None, expected: object) -> None:
    assert display.percent(probability).replace("\N{NO-BREAK SPACE}", " ") == expected


@pytest.mark.parametrize(
    ("probability", "expected"),
    [
        (0.7, "70.0 %"),  # Fake: Real takes more
        (0.6996, "70.0 %"),
        (0.70004, "70.004 %"),
        (0.7004, "70.04 %"),
        (0.7005, "70.05 %"),
        (0.70000003, "70.000003 %"),
        (0.29996, "30.0 %"),
        (0.3004, "30.04 %"),
        (0.9469, "94.7 %"),
        (0.9474, "94.74 %"),
        (0.5, "50.0 %"),
        (0.0004, "under 0.1 %"),
        (0.9995, "over 99.9 %"),
    ],
)
def test_beside_a_mark_a_percentage_stands_on_its_side(probability: float, expected: str) -> None:
    rule = DecisionRule(0.7, uncertain_above=0.3, uncertain_up_to=0.947)
    assert display.percent_by(probability, rule).replace("\N{NO-BREAK SPACE}", " ") == expected


@pytest.mark.parametrize(
    ("probability", "expected"), [(0.98674, "98.67 %"), (0.98676, "98.7 %"), (0.98646, "98.6 %"), (0.9866, "98.66 %")]
)
def test_so_it_does_beside_marks_of_another_prior(probability: float, expected: str) -> None:
    rule = DecisionRule(0.7, uncertain_above=0.3, uncertain_up_to=0.986758881)
    assert display.percent_by(probability, rule).replace("\N{NO-BREAK SPACE}", " ") == expected


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        *[(0.7, "70 %"), (0.29, "29 %"), (0.725, "72.5 %"), (0.986758881, "98.68 %"), (1.0, "100 %"), (0.0, "0 %")],
        # The band at FAKE_PRIOR=0.0001 and 0.9999: nothing is more than 100 % likely.
        *[(0.999974461, "99.997 %"), (0.000094, "0.01 %"), (0.00004, "0.004 %")],
    ],
)
def test_mark_has_decimals_only_where_the_setting_has_them(threshold: float, expected: object) -> None:
    assert display.mark(threshold).replace("\N{NO-BREAK SPACE}", " ") == expected


@pytest.mark.parametrize(("probability", "expected"), [(None, 0), (0.0, 0), (0.7, 700), (0.12345, 123), (1.0, 1000)])
def test_permille_places_a_probability_on_the_scale(probability: float | None, expected: object) -> None:
    assert display.permille(probability) == expected


@pytest.mark.parametrize(
    ("length", "whole", "expected"), [(0, 640, "0.000%"), (160, 640, "25.000%"), (1, 3, "33.333%"), (5, 0, "0%")]
)
def test_share_of_is_a_percentage_for_svg(length: float, whole: float, expected: object) -> None:
    assert display.share_of(length, whole) == expected


def test_minus_measures_the_uncertain_zone() -> None:
    assert display.minus(0.75, 0.25) == 0.5


@pytest.mark.parametrize(
    ("left", "limit", "expected"),
    [(5, 5, [True] * 5), (2, 3, [True, True, False]), (0, 2, [False, False]), (9, 13, []), (0, 0, [])],
)
def test_pips_show_the_allowance_when_it_fits_a_line(left: int, limit: int, expected: object) -> None:
    assert display.pips(left, limit) == expected


@pytest.mark.parametrize(
    ("seconds_count", "this", "one"),
    [
        (60, "this minute", "a minute"),
        (3600, "this hour", "an hour"),
        (86400, "this day", "a day"),
        (30, "these 30 seconds", "30 seconds"),
        (900, "these 15 minutes", "15 minutes"),
        (7200, "these 2 hours", "2 hours"),
    ],
)
def test_a_period_names_the_span_of_a_limit(seconds_count: int, this: str, one: str) -> None:
    assert (display.this_period(seconds_count), display.a_period(seconds_count)) == (this, one)


@pytest.mark.parametrize(
    ("value", "expected"), [(None, "not measured"), (4.23, "4.2 ms"), (38.4, "38 ms"), (1300, "1.30 s")]
)
def test_milliseconds_reads_like_a_stopwatch(value: float | None, expected: object) -> None:
    assert display.milliseconds(value) == expected


@pytest.mark.parametrize(
    ("byte_count", "expected"), [(15 * 1024**2, "15 MB"), (1024**2 + 1024**2 // 2, "1.5 MB"), (9_999_999, "9.5 MB")]
)
def test_megabytes_drops_needless_decimals(byte_count: int, expected: object) -> None:
    assert display.megabytes(byte_count) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [(("JPEG", "PNG", "WEBP"), "JPEG, PNG or WebP"), (("PNG", "JPEG"), "PNG or JPEG"), (("WEBP",), "WebP"), ((), "")],
)
def test_formats_are_listed_in_words(names: tuple[str, ...], expected: object) -> None:
    assert display.format_list(names) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((None, "1 second"), (0, "1 second"), (1, "1 second"), (1.2, "2 seconds"), (120, "120 seconds")),
        *((120.5, "2 min 1 s"), (2713, "45 min 13 s"), (3600, "1 h"), (3601, "1 h 1 min"), (86_399, "24 h")),
    ],
)
def test_seconds_are_rounded_up(value: float | None, expected: object) -> None:
    assert display.seconds(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "not measured"),
        ("", "not measured"),
        (math.nan, "not measured"),
        (True, "not measured"),
        (0.91234, "0.912"),
        (1, "1.000"),
    ],
)
def test_a_figure_that_is_absent_says_so(value: object, expected: object) -> None:
    assert display.figure(value) == expected


@pytest.mark.parametrize(("bounds", "expected"), [(None, ""), ([], ""), ([0.9, 0.95], "0.900 to 0.950")])
def test_an_interval_is_shown_when_there_is_one(bounds: list[float] | None, expected: object) -> None:
    assert display.interval(bounds) == expected


@pytest.mark.parametrize(
    ("seconds_count", "expected"),
    [(0, "0 s"), (59, "59 s"), (125, "2 min 5 s"), (900, "15 min"), (3600, "1 h"), (4325, "1 h 12 min")],
)
def test_duration_has_two_units_at_most(seconds_count: int, expected: object) -> None:
    assert display.duration(seconds_count) == expected
