"""What a file says of how it was made, in its metadata: no Django.

Image generators and editors that work with AI leave notes: Content Credentials (C2PA, "Coalition for Content Provenance
and Authenticity", technical specification 2.1, appendix A on embedding), the IPTC's digital source type in XMP (IPTC
Photo Metadata Standard 2023.1), or the settings with which the picture was generated. Anybody can write, copy or remove
them and no signature is checked here, so a note is a claim: it changes no verdict, and that there is none says nothing.
"""

import contextlib
import zlib
from collections.abc import Iterator
from enum import StrEnum

from detector.exceptions import InvalidImage
from detector.images import jpeg_segments, png_chunks

# What is unpacked of one compressed text, in bytes; and how much of all texts is looked at.
MAX_TEXT_BYTES = 1024 * 1024
MAX_TEXTS_BYTES = 4 * MAX_TEXT_BYTES

# Terms of http://cv.iptc.org/newscodes/digitalsourcetype/ for what a trained model made: the whole picture, or parts of
# it. C2PA has one of its own for other data.
_TRAINED = (
    b"trainedAlgorithmicMedia",
    b"compositeWithTrainedAlgorithmicMedia",
    b"compositeSynthetic",
    b"trainedAlgorithmicData",
)
_XMP_IN_JPEG = (b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0")
_XMP_IN_PNG = b"XML:com.adobe.xmp"
# Keywords of PNG texts, and what has to stand in the text.
_STEPS = ("Steps: ", "Sampler: ")
_SETTINGS: dict[bytes, tuple[bytes, ...]] = {
    b"parameters": tuple(word.encode() for word in _STEPS),  # Stable Diffusion web UI and its kin
    b"prompt": (b'"class_type"',),  # ComfyUI
    b"invokeai_metadata": (b"{",),
    b"sd-metadata": (b"{",),
    b"Software": (b"NovelAI",),
}
# In EXIF the settings are a comment, as bytes or as UTF-16.
_STEPS_IN_EXIF = [tuple(word.encode(code) for word in _STEPS) for code in ("latin-1", "utf-16-be", "utf-16-le")]
_APP1, _APP11 = 0xE1, 0xEB
_RIFF_HEADER_LENGTH = 12


class Declaration(StrEnum):
    """Where a file says that a generative model took part in making it; the most telling place comes first."""

    CREDENTIALS = "c2pa"
    SOURCE_TYPE = "iptc"
    SETTINGS = "settings"
    NONE = "none"


def ai_declaration(data: bytes, picture_format: str) -> Declaration:
    """Returns where the file says that AI made it, or parts of it; NONE where it says nothing of that.

    Args:
        data: A file that `detector.images.decode_image` accepted. In a damaged one less is found; nothing is raised.
        picture_format: One of `detector.images.ACCEPTED_FORMATS`.
    """
    notes = {"JPEG": _in_jpeg, "PNG": _in_png, "WEBP": _in_webp}[picture_format]
    found = {Declaration.NONE}
    with contextlib.suppress(InvalidImage):
        found.update(notes(data))
    return next(each for each in Declaration if each in found)


def _in_jpeg(data: bytes) -> Iterator[Declaration]:
    credentials: list[bytes] = []
    for marker, begin, end in jpeg_segments(data):
        segment = data[begin + 2 : end] if marker in (_APP1, _APP11) else b""
        if marker == _APP11 and segment.startswith(b"JP"):
            # A box that is too long for one segment goes on in the next, behind eight bytes and its own header again.
            credentials.append(segment[8:] if not credentials else segment[16:])
        elif marker == _APP1 and segment.startswith(_XMP_IN_JPEG):
            yield from _said_by(segment, Declaration.SOURCE_TYPE)
        elif marker == _APP1 and segment.startswith(b"Exif\0\0"):
            yield from _settings_in_exif(segment)
    yield from _said_by(b"".join(credentials), Declaration.CREDENTIALS)


def _in_png(data: bytes) -> Iterator[Declaration]:
    left = MAX_TEXTS_BYTES
    for kind, begin, end in png_chunks(data):
        if kind == b"caBX":
            yield from _said_by(data[begin:end], Declaration.CREDENTIALS)
        elif kind == b"eXIf":
            yield from _settings_in_exif(data[begin:end])
        elif kind in (b"tEXt", b"zTXt", b"iTXt") and left > 0:
            keyword, text = _png_text(kind, data[begin:end])
            left -= len(text)
            if keyword == _XMP_IN_PNG:
                yield from _said_by(text, Declaration.SOURCE_TYPE)
            elif keyword in _SETTINGS and all(each in text for each in _SETTINGS[keyword]):
                yield Declaration.SETTINGS


def _png_text(kind: bytes, content: bytes) -> tuple[bytes, bytes]:
    """Returns keyword and text of a PNG's text chunk; of a text that cannot be unpacked, what there is before that."""
    keyword, _, text = content.partition(b"\0")
    is_packed = kind == b"zTXt"
    if kind == b"zTXt":
        text = text[1:]  # the method, of which there is one
    elif kind == b"iTXt":
        is_packed = text[:1] == b"\1"
        text = text[2:].partition(b"\0")[2].partition(b"\0")[2]  # behind the language and the translated keyword
    if not is_packed:
        return keyword, text[:MAX_TEXT_BYTES]
    try:
        return keyword, zlib.decompressobj().decompress(text, MAX_TEXT_BYTES)
    except zlib.error:
        return keyword, b""


def _in_webp(data: bytes) -> Iterator[Declaration]:
    position = _RIFF_HEADER_LENGTH
    while position + 8 <= len(data):
        kind, begin = data[position : position + 4], position + 8
        end = begin + int.from_bytes(data[position + 4 : begin], "little")
        if kind == b"C2PA":
            yield from _said_by(data[begin:end], Declaration.CREDENTIALS)
        elif kind == b"XMP ":
            yield from _said_by(data[begin:end], Declaration.SOURCE_TYPE)
        elif kind == b"EXIF":
            yield from _settings_in_exif(data[begin:end])
        position = end + end % 2


def _said_by(content: bytes, place: Declaration) -> Iterator[Declaration]:
    if any(term in content for term in _TRAINED):
        yield place


def _settings_in_exif(content: bytes) -> Iterator[Declaration]:
    if any(all(word in content for word in words) for words in _STEPS_IN_EXIF):
        yield Declaration.SETTINGS
