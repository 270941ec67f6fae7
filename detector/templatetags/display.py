"""How figures read on a page: probabilities, measurements and places on a picture."""

import math
from collections.abc import Sequence
from decimal import Decimal

from django import template
from django.utils.safestring import mark_safe

from detector.heatmaps import heatmap_uri
from detector.images import limit_megabytes
from detector.models import Detection
from detector.predictor import DecisionRule

register = template.Library()

PERCENT = "\N{NO-BREAK SPACE}%"
FORMAT_NAMES = {"WEBP": "WebP"}
NOT_MEASURED = "not measured"
PERIODS = {1: "second", 60: "minute", 3600: "hour", 86400: "day"}
MOST_SECONDS = 120  # of a wait; more of them nobody takes for minutes (app.js says the same)
MOST_DECIMALS = 6  # of a percentage: finer than float32 tells a probability from a mark
MOST_PIPS = 12  # more than a dozen dots nobody counts, the number beside them is enough


@register.filter
def percent(probability: float | None) -> str:
    """The probability as "82.4 %", with a space that does not break; never 0 % or 100 %, which no model can promise."""
    if probability is None:
        return ""
    if probability > 0.999:
        return f"over 99.9{PERCENT}"
    if probability < 0.001:
        return f"under 0.1{PERCENT}"
    return f"{probability * 100:.1f}{PERCENT}"


@register.filter
def percent_by(real_probability: float, rule: DecisionRule) -> str:
    """The same with as many decimals as it takes to stand on the side of each of the rule's marks on which it lies."""
    shown = percent(real_probability)
    decimals = 1
    while shown[:1].isdigit() and decimals < MOST_DECIMALS and _is_beyond_a_mark(shown, real_probability, rule):
        decimals += 1
        shown = f"{real_probability * 100:.{decimals}f}{PERCENT}"
    return shown


def _is_beyond_a_mark(shown: str, real_probability: float, rule: DecisionRule) -> bool:
    figure = Decimal(shown.removesuffix(PERCENT)) / 100
    marks = (rule.real_threshold, rule.uncertain_above, rule.uncertain_up_to)
    return any((figure > Decimal(str(each))) != (real_probability > each) for each in marks)


@register.filter
def mark(threshold: float) -> str:
    """A threshold as "70 %", with decimals only where it has them; 0 % and 100 % only where it is that."""
    decimals = 2
    while 0 < threshold < 1 and round(threshold * 100, decimals) in {0, 100} and decimals < MOST_DECIMALS:
        decimals += 1
    return f"{round(threshold * 100, decimals):.9g}{PERCENT}"


@register.filter
def permille(probability: float | None) -> int:
    """The place of a probability on a scale of 1000 units."""
    return round(1000 * (probability or 0.0))


@register.filter
def share_of(length: float, whole: float) -> str:
    """A length as the percentage of `whole` that SVG coordinates take."""
    return f"{100 * length / whole:.3f}%" if whole else "0%"


@register.filter
def heatmap(detection: Detection) -> str:
    """The heat map, as the source of an image."""
    return mark_safe(heatmap_uri(detection.faces, width=detection.width, height=detection.height))  # noqa: S308 (base64)


@register.filter
def minus(value: float, other: float) -> float:
    """The distance between two places on a scale."""
    return value - other


@register.filter
def pips(left: int, limit: int) -> list[bool]:
    """One truth value per upload of the allowance, the unused ones first; nothing when they would not fit a line."""
    return [place < left for place in range(limit)] if 0 < limit <= MOST_PIPS else []


@register.filter
def this_period(seconds_count: int) -> str:
    """The span of a rate limit as "this minute" or "these 30 seconds"."""
    number, unit = _span(seconds_count)
    return f"this {unit}" if number == 1 else f"these {number} {unit}s"


@register.filter
def a_period(seconds_count: int) -> str:
    """The span of a rate limit as "a minute" or "30 seconds"."""
    number, unit = _span(seconds_count)
    return f"{'an' if unit == 'hour' else 'a'} {unit}" if number == 1 else f"{number} {unit}s"


def _span(seconds_count: int) -> tuple[int, str]:
    """The number of the largest unit of which it is a multiple, and that unit."""
    unit_s = max(each for each in PERIODS if seconds_count % each == 0)
    return seconds_count // unit_s, PERIODS[unit_s]


@register.filter
def milliseconds(value: float | None) -> str:
    """A duration as "38 ms", "4.2 ms" or "1.30 s"."""
    if value is None:
        return NOT_MEASURED
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


@register.filter
def megabytes(byte_count: int) -> str:
    """A limit in bytes as "15 MB" (binary, as the setting counts)."""
    return f"{limit_megabytes(byte_count)} MB"


@register.filter
def format_name(name: str) -> str:
    """A picture format as people write it."""
    return FORMAT_NAMES.get(name, name)


@register.filter
def format_list(names: Sequence[str]) -> str:
    """The accepted formats as "JPEG, PNG or WebP"."""
    shown = [format_name(name) for name in names]
    return " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


@register.filter
def seconds(value: float | None) -> str:
    """A waiting time as "1 second", "23 seconds" or "45 min 13 s", rounded up so that nobody comes back too early."""
    whole = max(1, math.ceil(value or 0))
    if whole > MOST_SECONDS:
        return duration(whole if whole < 3600 else math.ceil(whole / 60) * 60)
    return f"{whole} second" if whole == 1 else f"{whole} seconds"


@register.filter
def duration(seconds_count: int) -> str:
    """A span of time as "8 s", "2 min 5 s" or "1 h 12 min", and "15 min" where nothing is left over."""
    minutes, rest_s = divmod(seconds_count, 60)
    hours, rest_minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {rest_minutes} min" if rest_minutes else f"{hours} h"
    if minutes:
        return f"{minutes} min {rest_s} s" if rest_s else f"{minutes} min"
    return f"{rest_s} s"


@register.filter
def figure(value: object) -> str:
    """A measured figure with three decimals, or the words for one that is absent."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return NOT_MEASURED
    return f"{value:.3f}"


@register.filter
def interval(bounds: Sequence[float] | None) -> str:
    """A confidence interval as "0.912 to 0.934", empty when there is none."""
    if not bounds or len(bounds) != 2:
        return ""
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}"
