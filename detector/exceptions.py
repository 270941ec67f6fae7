"""The errors that the detector raises on purpose; their texts are sentences for people."""


class DetectorError(Exception):
    """Base of all errors that this application raises itself."""


class InvalidImage(DetectorError):
    """The uploaded bytes are not a picture that can be judged.

    Attributes:
        code: A stable machine-readable reason, such as ``too_large`` or ``truncated``.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class ModelUnavailable(DetectorError):
    """A model file is missing, altered, or does not compute what its spec says."""


class AnalysisFailed(DetectorError):
    """Inference broke on a valid picture: there is no verdict and no probability."""


class StaleReview(DetectorError):
    """Somebody else reviewed the detection after the page was opened; nothing was stored.

    Attributes:
        seen_count: How many reviews there were on the page.
    """

    def __init__(self, message: str, *, seen_count: int) -> None:
        super().__init__(message)
        self.seen_count = seen_count


class AppealRefused(DetectorError):
    """There is nothing to object to, or somebody has objected already."""


class DetectionGone(DetectorError):
    """The detection was deleted in the meantime; nothing was stored."""


class AccountGone(DetectorError):
    """The account was deleted in the meantime; nothing was stored."""


class NameTaken(DetectorError):
    """Another account has that name, in whatever case; nothing was stored."""


class LastAdministrator(DetectorError):
    """Without this account nobody could manage the others; nothing was deleted."""


class PictureGone(DetectorError):
    """The detection has no picture any more, so nobody can review it."""


class OwnUpload(DetectorError):
    """Nobody reviews what they uploaded themselves."""


class Overloaded(DetectorError):
    """There is more to do than fits; nothing of it was begun."""
