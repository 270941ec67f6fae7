"""How often the machine is right, judged by reviews, and how far the figures can be trusted. No Django, no database.

Reviews are no fair sample of the uploads: every uncertain verdict is queued, but of the decided ones only the random
sample, and objections and what its own file contradicts besides. So each stratum of the machine's verdicts is estimated
from what was queued without regard to its answer, weighted with how likely that was, and scaled to the stratum's number
of uploads (Hajek's estimator, post-stratified). Of the sample, what its uploader objects to is reviewed first: while a
part of it waits, those with an objection and the others stand for as many as were drawn of each, reviewed or not.
Intervals are Wilson's with Kish's effective sample size.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

REAL, FAKE = "real", "fake"
UNCERTAIN_REAL, UNCERTAIN_FAKE = "uncertain_real", "uncertain_fake"
UNCERTAIN = (UNCERTAIN_REAL, UNCERTAIN_FAKE)
# Parts of what the machine called Real, and of what it called Fake.
STRATA_OF = {REAL: (REAL, UNCERTAIN_REAL), FAKE: (FAKE, UNCERTAIN_FAKE)}
DECIDED = (REAL, FAKE)
STRATA = (*STRATA_OF[REAL], *STRATA_OF[FAKE])
Z_95 = 1.959964

# How many uploads those of the sample stand for that wait for their first review, by stratum and by whether their
# uploader objected.
Waiting = Mapping[tuple[str, bool], float]
NONE_WAITING: Waiting = {}

BINS = 10
MOST_CHANCE = 0.18  # of the stability index that chance alone is expected to make: two times 100 uploads, or 60 and 300


@dataclass(frozen=True, slots=True)
class Subject:
    """Reviewed uploads that are alike in all that the estimates ask for; often it is one.

    Attributes:
        stratum: What the machine said: real, uncertain_real, uncertain_fake or fake.
        truth: What most of the reviewers say: real, fake, cant_tell, or "" where as many say real as fake.
        fake_probability: 0 to 1; of several the mean, and all of them are in one tenth of the scale.
        sample_percent: How many in a hundred of the decided were drawn; 0 where this one was not drawn.
        count: How many uploads they are.
        is_appealed: Whether their uploaders had objected before the first review.
    """

    stratum: str
    truth: str
    fake_probability: float
    sample_percent: float
    count: int = 1
    is_appealed: bool = False

    @property
    def verdict(self) -> str:
        return REAL if self.stratum in STRATA_OF[REAL] else FAKE

    @property
    def is_usable(self) -> bool:
        """Whether the estimates rest on it: its truth is known, and it came to review without regard to its answer."""
        return self.weight is not None and self.truth in (REAL, FAKE)

    @property
    def weight(self) -> float | None:
        """How many uploads each stands for; None where it came to review by its answer's looks and not by chance."""
        if self.stratum in UNCERTAIN:
            return 1.0
        return 100.0 / self.sample_percent if self.sample_percent > 0 else None


@dataclass(frozen=True, slots=True)
class Share:
    """An estimated share with its 95 % interval; `n` is the number of reviewed uploads behind it."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Weighted:
    """Reviewed uploads and how many uploads each of them stands for."""

    subject: Subject
    weight: float

    @property
    def total(self) -> float:
        return self.weight * self.subject.count


@dataclass(frozen=True, slots=True)
class Bin:
    """One tenth of the scale from 0 to 1: what was predicted there and what turned out."""

    start: float
    predicted: float
    share: Share


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of reviewers of the same uploads.

    Attributes:
        same: How many say the same.
        different: How many do not.
        squares: The square of each upload's number of pairs, summed.
    """

    same: int = 0
    different: int = 0
    squares: int = 0

    def __add__(self, other: "Pairs") -> "Pairs":
        return Pairs(self.same + other.same, self.different + other.different, self.squares + other.squares)


def wilson(share: float, n: float) -> tuple[float, float]:
    """Returns the 95 % score interval of a share that was seen in n (perhaps fractional) cases (Wilson, 1927).

    Raises:
        ValueError: There are no cases.
    """
    if n <= 0:
        raise ValueError("A share of nothing has no interval.")
    centre = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    reach = Z_95 / (1 + Z_95**2 / n) * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2))
    return max(0.0, centre - reach), min(1.0, centre + reach)


def share_of(cases: Sequence[Weighted], hit: Callable[[Subject], bool]) -> Share | None:
    """Returns the weighted share of hits, None without cases."""
    total = sum(case.total for case in cases)
    if total == 0:
        return None
    value = sum(case.total for case in cases if hit(case.subject)) / total
    effective_n = total**2 / sum(case.weight**2 * case.subject.count for case in cases)
    low, high = wilson(value, effective_n)
    return Share(value, low, high, sum(case.subject.count for case in cases))


def weighted(subjects: Iterable[Subject], totals: Mapping[str, int], waiting: Waiting = NONE_WAITING) -> list[Weighted]:
    """Returns the usable subjects, their weights scaled so that each stratum sums to its number of uploads."""
    drawn = [(each, weight) for each in subjects if (weight := each.weight) is not None]
    reviewed: dict[tuple[str, bool], float] = defaultdict(float)
    for each, weight in drawn:
        reviewed[each.stratum, each.is_appealed] += weight * each.count
    parts = {part: 1 + waiting.get(part, 0.0) / number for part, number in reviewed.items()}
    usable = [(each, weight * parts[each.stratum, each.is_appealed]) for each, weight in drawn if each.is_usable]
    sums: dict[str, float] = defaultdict(float)
    for each, weight in usable:
        sums[each.stratum] += weight * each.count
    return [Weighted(each, weight * totals[each.stratum] / sums[each.stratum]) for each, weight in usable]


def unmeasured(cases: Iterable[Weighted], totals: Mapping[str, int], waiting: Waiting = NONE_WAITING) -> set[str]:
    """Returns the strata that have uploads but no usable review: what rests on them cannot be said.

    Nor can it where there are reviews of objections alone while the rest of the sample waits.
    """
    measured = {(case.subject.stratum, case.subject.is_appealed) for case in cases}
    return {
        stratum
        for stratum in STRATA
        if totals[stratum]
        and (stratum, False) not in measured
        and ((stratum, True) not in measured or waiting.get((stratum, False)))
    }


def confusion(cases: Iterable[Weighted]) -> dict[tuple[str, str], float]:
    """Returns the estimated number of uploads per (machine's verdict, truth)."""
    counts = dict.fromkeys([(said, truth) for said in (REAL, FAKE) for truth in (REAL, FAKE)], 0.0)
    for case in cases:
        counts[case.subject.verdict, case.subject.truth] += case.total
    return counts


def precision(cases: Sequence[Weighted], verdict: str, missing: set[str]) -> Share | None:
    """Returns how often a verdict is right; None where a stratum of it has no review."""
    if missing & set(STRATA_OF[verdict]):
        return None
    return share_of([case for case in cases if case.subject.verdict == verdict], lambda each: each.truth == verdict)


def recall(cases: Sequence[Weighted], truth: str, missing: set[str]) -> Share | None:
    """Returns how much of what is real (or fake) is called so; None where any stratum has no review."""
    if missing:
        return None
    return share_of([case for case in cases if case.subject.truth == truth], lambda each: each.verdict == truth)


def reliability(cases: Sequence[Weighted]) -> list[Bin]:
    """Returns, for each tenth of the scale that has cases, the mean prediction and the share that is fake."""
    by_bin: dict[int, list[Weighted]] = defaultdict(list)
    for case in cases:
        by_bin[tenth(case.subject.fake_probability)].append(case)
    bins = []
    for number, members in sorted(by_bin.items()):
        share = share_of(members, lambda each: each.truth == FAKE)
        if share is not None:
            total = sum(case.total for case in members)
            predicted = sum(case.total * case.subject.fake_probability for case in members) / total
            bins.append(Bin(number / BINS, predicted, share))
    return bins


def tenth(fake_probability: float) -> int:
    """Returns in which tenth of the scale it lies, 0 to 9; 1.0 belongs to the last."""
    return min(BINS - 1, int(fake_probability * BINS))


def pairs(opinions: Iterable[str]) -> Pairs:
    """Returns the pairs of reviewers of one upload."""
    found = Counter(one == other for one, other in combinations(opinions, 2))
    return Pairs(found[True], found[False], found.total() ** 2)


def agreement(found: Pairs) -> Share | None:
    """Returns how often two reviewers of one upload say the same; None where nothing was reviewed twice.

    The pairs of one upload are no independent evidence: each upload is one case, with the weight of its pairs.
    """
    n = found.same + found.different
    return Share(found.same / n, *wilson(found.same / n, n**2 / found.squares), n) if n else None


def population_stability(counts: Sequence[int], reference: Sequence[int]) -> float | None:
    """Returns the population stability index of two histograms: under 0.1 little, over 0.25 much has changed.

    Half a case is added to every bin, so that an empty one does not make it infinite. None without cases.
    """
    if not sum(counts) or not sum(reference):
        return None
    smooth = [[count + 0.5 for count in histogram] for histogram in (counts, reference)]
    now, then = ([count / sum(histogram) for count in histogram] for histogram in smooth)
    return sum((a - b) * math.log(a / b) for a, b in zip(now, then, strict=True))


def drift(counts: Sequence[int], reference: Sequence[int]) -> float | None:
    """Returns the population stability index less what chance alone is expected to make of it, never under 0.

    Two samples of n and m cases from one distribution in B bins differ by (B - 1) (1/n + 1/m) on average (Yurdakul and
    Naranjo, 2020). None where that is over MOST_CHANCE: drift could not be told from chance there. Simulated without
    any drift on three shapes of scores, at most 1.3 % of what is left was over 0.25, and 0.1 % at 100 against 500.
    """
    index = population_stability(counts, reference)
    if index is None:
        return None
    chance = (len(counts) - 1) * (1 / sum(counts) + 1 / sum(reference))
    return max(0.0, index - chance) if chance <= MOST_CHANCE else None
