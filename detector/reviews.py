"""What reviews mean together, and what the page on which somebody reviews remembers. No database."""

import hashlib
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from django.core import signing

from detector.exceptions import DetectorError

SALT = "detector.review"
REAL, FAKE, CANT_TELL = "real", "fake", "cant_tell"
SAMPLE_BUCKETS = 1_000_000


class UnreadableLook(DetectorError):
    """The form did not come from the page that this server made."""


@dataclass(frozen=True, slots=True)
class Look:
    """One opening of the review page, as the form sends it back; signed, so that nobody can make one up.

    Attributes:
        seen_count: How many reviews there were on the page.
        is_blind: Whether the page withheld the machine's answer.
        opened_at: Seconds since 1970.
    """

    detection_key: UUID
    seen_count: int
    is_blind: bool
    opened_at: int

    @classmethod
    def begin(cls, detection_key: UUID, *, seen_count: int, is_blind: bool) -> "Look":
        return cls(detection_key, seen_count, is_blind, int(time.time()))

    @classmethod
    def read(cls, text: str) -> "Look":
        """The look that `sign` wrote.

        Raises:
            UnreadableLook: It is not one of ours.
        """
        try:
            key, seen_count, is_blind, opened_at = signing.loads(text, salt=SALT)
        except signing.BadSignature as error:
            raise UnreadableLook("The form is not one that this server made.") from error
        return cls(UUID(key), seen_count, is_blind, opened_at)

    def sign(self) -> str:
        return signing.dumps([str(self.detection_key), self.seen_count, self.is_blind, self.opened_at], salt=SALT)

    @property
    def seconds_spent(self) -> int:
        return max(0, int(time.time()) - self.opened_at)


def opinions_of(reviews: Iterable[tuple[int | None, int, str]]) -> tuple[str, ...]:
    """One verdict per reviewer, each one's newest.

    Args:
        reviews: The reviewer's key, the review's key and the verdict of each, oldest first.
    """
    # Of an unknown reviewer (only from before there were Review rows) no two reviews are known to be one person's.
    return tuple({reviewer or f"review {key}": verdict for reviewer, key, verdict in reviews}.values())


def agreed_verdict(machine_verdict: str, opinions: Iterable[str], *, reviewers_needed: int) -> str:
    """What the reviewers say together: real, fake, cant_tell, or "" while it is open.

    Args:
        machine_verdict: What the machine said; "real" or "fake", anything else is no verdict.
        opinions: One per reviewer, each one's newest.
        reviewers_needed: How many have to agree before the machine is overruled; one is enough to confirm it.
    """
    counts = Counter(opinions)
    for verdict, opposite in ((REAL, FAKE), (FAKE, REAL)):
        overrules = machine_verdict == opposite
        if counts[verdict] > counts[opposite] and counts[verdict] >= (reviewers_needed if overrules else 1):
            return verdict
    only_doubts = counts[CANT_TELL] and not counts[REAL] and not counts[FAKE]
    return CANT_TELL if only_doubts else ""


def majority_verdict(opinions: Iterable[str]) -> str:
    """What most of the reviewers say so far: real, fake, cant_tell, or "" where as many say real as fake.

    Figures take this for the truth. By `agreed_verdict` one reviewer confirms the machine and a single one's
    disagreement is open: the machine's errors would vanish from them.
    """
    return agreed_verdict("", opinions, reviewers_needed=1)


def is_drawn(detection_key: UUID, percent: float) -> bool:
    """Whether a detection belongs to the random sample: by its random id alone, so anybody can check the draw."""
    digest = hashlib.sha256(b"review sample " + detection_key.bytes).digest()
    return int.from_bytes(digest[:8]) % SAMPLE_BUCKETS < percent / 100 * SAMPLE_BUCKETS
