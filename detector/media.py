"""Pictures of a detection as they leave the server: re-encoded, private, and inert in any browser."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.cache import get_conditional_response
from django.utils.http import quote_etag

from detector import ratelimits
from detector.exceptions import InvalidImage, Overloaded
from detector.images import DISPLAY_SIDE, decode_again, encode_jpeg
from detector.models import Detection
from detector.ratelimits import LimiterUnavailable
from detector.room import get_room
from detector.templatetags.display import seconds

logger = logging.getLogger(__name__)

CONTENT_SECURITY_POLICY = "default-src 'none'; sandbox"
# Where nginx finds MEDIA_ROOT for answers of ours, and for nobody else.
X_ACCEL_PREFIX = "/protected-media/"


@dataclass(frozen=True, slots=True)
class Medium:
    name: str
    content_type: str
    encode: Callable[[Detection], bytes]


def _display_picture(detection: Detection) -> bytes:
    with detection.image.open("rb") as file:
        data = file.read()
    # Decoding takes as much as a detection does, and anybody can ask for it as often as they like.
    room = get_room()
    with room.place(), room.turn():
        # As large as it was decoded: to interpolate it down would take longer than decoding it.
        image = decode_again(data, pixel_count=detection.width * detection.height, least_side=DISPLAY_SIDE)
        return encode_jpeg(image.picture)


def _thumbnail(detection: Detection) -> bytes:
    with detection.thumbnail.open("rb") as file:
        return bytes(file.read())


DISPLAY = Medium("image", "image/jpeg", _display_picture)
THUMBNAIL = Medium("thumbnail", "image/jpeg", _thumbnail)


def respond(request: HttpRequest, detection: Detection, medium: Medium) -> HttpResponse:
    """The medium, or 304 for a browser that has it; each use is asked for anew, so a deletion or log-out counts."""
    if not detection.has_picture:
        raise Http404(f"The picture of {detection.pk} was not kept.")
    etag = quote_etag(f"{detection.pk}-{medium.name}-{detection.model_version}")
    response = get_conditional_response(request, etag=etag)
    if response is None and medium is DISPLAY and (refusal := _refusal(request)):
        return refusal
    if response is None:
        response = _sent_by_nginx(detection, medium) or _sent_by_us(detection, medium)
    response["ETag"] = etag
    response["Cache-Control"] = "private, no-cache"
    response["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response["Cross-Origin-Resource-Policy"] = "same-origin"
    return response


def _refusal(request: HttpRequest) -> HttpResponse | None:
    """429 for somebody who would keep everybody else's uploads waiting by looking at one picture over and over."""
    try:
        allowance = ratelimits.take_copy(request)
    except LimiterUnavailable:
        return None  # then no uploads are taken that it could hold up
    if not allowance.is_exceeded:
        return None
    sentence = f"That was one picture too many. The next one can be seen in {seconds(allowance.seconds_left)}."
    headers = {"Retry-After": str(allowance.seconds_left), "Cache-Control": "no-store"}
    return HttpResponse(sentence, status=HTTPStatus.TOO_MANY_REQUESTS, content_type="text/plain", headers=headers)


def _sent_by_nginx(detection: Detection, medium: Medium) -> HttpResponse | None:
    """An answer into which nginx puts the file, if that may be sent as it is stored: the thumbnail was encoded anew."""
    if medium is not THUMBNAIL or not settings.MEDIA_X_ACCEL:
        return None
    address = f"{X_ACCEL_PREFIX}{detection.thumbnail.name}"
    return HttpResponse(content_type=medium.content_type, headers={"X-Accel-Redirect": address})


def _sent_by_us(detection: Detection, medium: Medium) -> HttpResponse:
    try:
        content = medium.encode(detection)
    except FileNotFoundError as error:
        raise Http404(f"The file of {detection.pk} is gone.") from error
    except InvalidImage as error:
        if isinstance(error.__cause__, MemoryError):
            raise Overloaded("There is not enough memory to show a picture.") from error
        logger.error("The file of %s cannot be read any more: %s", detection.pk, error)
        raise Http404(f"The file of {detection.pk} is damaged.") from error
    return HttpResponse(content, content_type=medium.content_type)
