"""Bytes become upright RGB pixels, or one clear sentence."""

import hashlib
import io
import warnings
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from detector.exceptions import InvalidImage
from detector.images import (
    LEAST_SIDE,
    WORKING_SIDE,
    decode_again,
    decode_image,
    encode_jpeg,
    fitted,
    part_length,
    png_chunks,
)
from detector.tests.factories import make_picture
from detector.tests.hostile.workshop import GREY, GREY_ALPHA, PALETTE, RGB, RGBA, blank_png, chunk, chunks_of


def saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def quadrants(width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """Red, green / blue, white: every turn and flip of it looks different."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = (255, 255, 255)
    return pixels


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_accepted_formats_are_decoded_with_their_facts(file_format: str) -> None:
    data = make_picture(320, 240, file_format=file_format)

    image = decode_image(data)

    assert (image.format, image.width, image.height) == (file_format, 320, 240)
    assert image.pixels.shape == (240, 320, 3)
    assert image.pixels.dtype == np.uint8
    assert image.byte_count == len(data)
    assert image.sha256 == hashlib.sha256(data).hexdigest()
    assert image.decode_ms > 0


def test_multi_picture_jpegs_of_phones_are_photos() -> None:
    first, second = (Image.fromarray(quadrants()) for _ in range(2))
    data = saved(first, "MPO", save_all=True, append_images=[second])
    assert Image.open(io.BytesIO(data)).format == "MPO"

    assert decode_image(data).format == "JPEG"


# What EXIF says was done to the upright picture when it was stored; decoding has to undo it.
STORED_AS = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_pictures_come_out_upright(file_format: str, orientation: int) -> None:
    upright = quadrants()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED_AS[orientation](upright)))
    options = {"quality": 95, "subsampling": 0} if file_format == "JPEG" else {"lossless": True}

    image = decode_image(saved(stored, file_format, exif=exif, **options))

    assert (image.width, image.height) == (96, 64)
    assert np.abs(image.pixels.astype(int) - upright).mean() < 4


def test_an_unknown_orientation_changes_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    assert decode_image(saved(Image.fromarray(quadrants()), "PNG", exif=exif)).pixels[0, 0].tolist() == [255, 0, 0]


def grey_16_bit() -> Image.Image:
    return Image.fromarray(np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16))


def transparent(mode: str) -> Image.Image:
    """Black and wholly transparent: white paper shows through."""
    return Image.new(mode, (64, 64), (0, 0) if mode == "LA" else (0, 0, 0, 0))


def transparent_palette() -> Image.Image:
    image = Image.new("P", (64, 64), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.info["transparency"] = 0
    return image


@pytest.mark.parametrize(
    ("image", "file_format", "expected"),
    [
        (Image.new("L", (64, 64), 90), "JPEG", (90, 90, 90)),
        (Image.new("1", (64, 64), 1), "PNG", (255, 255, 255)),
        (Image.new("P", (64, 64), 0), "PNG", (0, 0, 0)),
        (Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG", (255, 0, 0)),
        (transparent("LA"), "PNG", (255, 255, 255)),
        (transparent("RGBA"), "PNG", (255, 255, 255)),
        (transparent("RGBA"), "WEBP", (255, 255, 255)),
        (transparent_palette(), "PNG", (255, 255, 255)),
    ],
    ids=["grey", "bilevel", "palette", "cmyk", "grey-alpha", "rgba", "rgba-webp", "palette-alpha"],
)
def test_every_colour_mode_becomes_rgb(image: Image.Image, file_format: str, expected: tuple[int, int, int]) -> None:
    pixels = decode_image(saved(image, file_format)).pixels

    assert pixels.shape == (64, 64, 3)
    assert np.abs(pixels[32, 32].astype(int) - expected).max() <= 3


def test_16_bit_grey_keeps_its_range() -> None:
    pixels = decode_image(saved(grey_16_bit(), "PNG")).pixels

    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert pixels[-1, -1].tolist() == [255, 255, 255]
    assert abs(int(pixels[32, 0, 0]) - 128) <= 1


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_large_pictures_are_kept_at_working_size(file_format: str) -> None:
    image = decode_image(saved(Image.fromarray(quadrants(4000, 3000)), file_format))

    assert (image.width, image.height) == (4000, 3000)
    assert LEAST_SIDE <= max(image.pixels.shape) <= WORKING_SIDE
    assert image.pixels.shape[1] / image.pixels.shape[0] == pytest.approx(4 / 3, rel=0.01)
    assert np.abs(image.pixels[10, 10].astype(int) - (255, 0, 0)).max() < 8


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("size", "kept"),
    [
        ((1200, 500), (1200, 500)),
        ((600, 6000), (600, 6000)),  # of which parts of 600 x 1200 are looked at
        ((9000, 1000), (4500, 500)),
        ((50, 40_000), {"JPEG": (13, 10_000), "PNG": (17, 13_334)}),
    ],
)
def test_of_long_pictures_more_is_kept(
    file_format: str, size: tuple[int, int], kept: tuple[int, int] | dict[str, tuple[int, int]]
) -> None:
    image = decode_image(saved(Image.new("RGB", size, "red"), file_format))

    assert image.picture.size == (kept[file_format] if isinstance(kept, dict) else kept)
    assert part_length(*image.picture.size) >= min(LEAST_SIDE, part_length(*size))
    assert image.picture.width * image.picture.height <= WORKING_SIDE**2


def test_a_long_jpeg_is_not_decoded_larger_than_any_other() -> None:
    """Whole it would take 150 MB for faces that its parts, at a half, show as well."""
    image = decode_image(saved(Image.new("RGB", (1660, 30_000), "red"), "JPEG"))
    asked = []

    def draft(self: JpegImageFile, mode: str, size: tuple[int, int]) -> object:
        asked.append(size)
        return original(self, mode, size)

    original = JpegImageFile.draft
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JpegImageFile, "draft", draft)
        fine = image.finer()

    assert (image.picture.size, asked, fine and fine.size) == ((415, 7500), [(830, 15_000)], (830, 15_000))


@pytest.mark.parametrize(
    ("side", "kept", "finer"),
    [(600, 600, None), (1919, 1919, None), (1920, 960, 1920), (4000, 1000, 2000), (7700, 963, 1925)],
)
def test_a_jpeg_is_decoded_at_the_least_scale_that_will_do(side: int, kept: int, finer: int | None) -> None:
    # Turned, as phones store it: 6 is a quarter turn.
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.fromarray(quadrants(side // 2, side))
    image = decode_image(saved(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif))

    assert (image.width, image.height) == (side // 2, side)
    assert image.picture.height == kept
    fine = image.finer()
    assert (fine and fine.height) == finer
    if fine:
        assert fine.info == {}
        coarse = np.asarray(fine.resize(image.picture.size, Image.Resampling.BOX)).astype(int)
        assert np.abs(coarse - image.pixels).mean() < 2


@pytest.mark.parametrize("step", ["load", "transpose"])
def test_too_little_memory_for_any_step_is_an_invalid_image(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(quadrants(2000, 1000)), "JPEG", exif=exif)
    image = decode_image(data)

    def fail(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr(JpegImageFile if step == "load" else Image.Image, step, fail)
    for decode in (lambda: decode_image(data), image.finer):
        with pytest.raises(InvalidImage) as raised:
            decode()
        assert raised.value.code == "too_many_pixels"


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_what_was_decoded_whole_is_not_decoded_again(file_format: str) -> None:
    image = decode_image(saved(Image.fromarray(quadrants(4000, 2000)), file_format))

    assert image.picture.width == 2000
    assert image.finer() is None


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("percent", range(5, 100, 5))
def test_truncated_files_are_refused(file_format: str, percent: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise), file_format)

    with pytest.raises(InvalidImage) as caught:
        decode_image(data[: len(data) * percent // 100])

    assert caught.value.code in {"truncated", "format", "broken"}


OTHER_FORMATS = {
    "TIFF": saved(Image.fromarray(quadrants()), "TIFF"),
    "EPS": saved(Image.fromarray(quadrants()), "EPS"),
    "PPM": saved(Image.fromarray(quadrants()), "PPM"),
    "BMP": saved(Image.fromarray(quadrants()), "BMP"),
    "GIF": saved(Image.fromarray(quadrants()), "GIF"),
    "ICO": saved(Image.fromarray(quadrants()), "ICO"),
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "HTML": b"<!doctype html><script>alert(1)</script>",
    "PDF": b"%PDF-1.7\n",
    "ZIP": b"PK\x03\x04" + bytes(100),
    "text": b"not a picture",
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_other_formats_are_refused_whatever_they_are_called(name: str) -> None:
    with pytest.raises(InvalidImage, match="not a JPEG, PNG or WebP") as caught:
        decode_image(OTHER_FORMATS[name])
    assert caught.value.code == "format"


ISO_MEDIA = b"\0\0\0\x20ftyp%b\0\0\0\0mif1%b" + bytes(100)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (OTHER_FORMATS["GIF"], "a GIF picture"),
        (OTHER_FORMATS["TIFF"], "a TIFF picture"),
        (OTHER_FORMATS["BMP"], "a BMP picture"),
        (ISO_MEDIA % (b"heic", b"miaf"), "a HEIC picture"),
        (ISO_MEDIA % (b"mif1", b"heic"), "a HEIC picture"),
        (ISO_MEDIA % (b"avif", b"miaf"), "an AVIF picture"),
        (ISO_MEDIA % (b"mif1", b"avif"), "an AVIF picture"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100), "a JPEG 2000 picture"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100), "a JPEG XL picture"),
        (ISO_MEDIA % (b"isom", b"mp42"), None),
        (b"BMX is my hobby, not a picture.", None),
        (OTHER_FORMATS["text"], None),
    ],
)
def test_a_format_that_can_be_told_is_named(data: bytes, name: str | None) -> None:
    with pytest.raises(InvalidImage) as caught:
        decode_image(data)
    sentence = str(caught.value)
    assert sentence.startswith(f"This is {name}, not a" if name else "This is not a JPEG, PNG or WebP picture.")
    assert "Save or export" in sentence


def test_a_png_whose_pixels_have_a_wrong_checksum_is_refused() -> None:
    """They are others than were stored, of which the decoder says nothing."""
    data = saved(Image.fromarray(quadrants(64, 64)), "PNG")
    (end,) = (end for kind, _begin, end in png_chunks(data) if kind == b"IDAT")
    with pytest.raises(InvalidImage, match="damaged or incomplete"):
        decode_image(data[:end] + bytes([data[end] ^ 1]) + data[end + 1 :])


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_animations_are_refused(file_format: str) -> None:
    frames = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    data = saved(frames[0], file_format, save_all=True, append_images=frames[1:])

    with pytest.raises(InvalidImage, match="Animated") as caught:
        decode_image(data)
    assert caught.value.code == "animated"


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header claims more than its few bytes hold."""
    data = bytearray(saved(Image.new("L", (1, 1)), "PNG"))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(("width", "height"), [(10_000, 5_001), (12_000, 9_000), (60_000, 60_000)])
def test_decompression_bombs_are_refused_by_their_header(width: int, height: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(InvalidImage, match="pixels") as caught:
            decode_image(bomb(width, height))
    assert caught.value.code == "too_many_pixels"


@pytest.mark.parametrize(
    ("data", "limits", "code", "sentence"),
    [
        (b"", {}, "empty", "empty"),
        (b"x" * 2_000_000, {"max_bytes": 1_048_576}, "too_large", "2 MB; at most 1 MB"),
        (bytes(1_048_577), {"max_bytes": 1_048_576}, "too_large", "1.1 MB; at most 1 MB"),
        (bytes(10_000_001), {"max_bytes": 10_000_000}, "too_large", "9.6 MB; at most 9.5 MB"),
        (make_picture(200, 100), {"max_pixels": 19_999}, "too_many_pixels", "0.1 megapixels; at most 0.019999"),
        (bomb(8160, 6144), {}, "too_many_pixels", "50.2 megapixels; at most 50"),  # as some phones take them
        (bomb(5000, 2501), {"max_pixels": 12_500_000}, "too_many_pixels", "12.6 megapixels; at most 12.5"),
        (make_picture(640, 31), {}, "too_small", "640 x 31"),
    ],
)
def test_limits_are_named_in_the_message(data: bytes, limits: dict[str, int], code: str, sentence: str) -> None:
    with pytest.raises(InvalidImage, match=sentence) as caught:
        decode_image(data, **limits)
    assert caught.value.code == code


def test_pictures_at_the_limits_pass() -> None:
    data = make_picture(200, 100)
    assert decode_image(data, max_bytes=len(data), max_pixels=20_000).width == 200


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((200, 150), (200, 150)),
        ((257, 200), (256, 199)),
        ((300, 447), (172, 256)),
        # A whole fraction of the original's size where that is nearly as large: then whole blocks are averaged.
        ((300, 448), (150, 224)),
        ((768, 512), (256, 171)),
        ((769, 513), (256, 170)),
        ((1154, 866), (231, 174)),
        ((1000, 2048), (125, 256)),
        ((2048, 32), (256, 4)),
    ],
)
def test_encoded_jpegs_carry_no_metadata_and_fit(size: tuple[int, int], expected: tuple[int, int]) -> None:
    data = encode_jpeg(fitted(quadrants(*size), 256))

    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("JPEG", expected)
        assert not image.getexif()
        assert "icc_profile" not in image.info
        assert "comment" not in image.info


def in_one_go(image: Image.Image, blocks: tuple[int, int]) -> NDArray[np.uint8]:
    paper = Image.new("RGBA", image.size, "white")
    paper.alpha_composite(image.convert("RGBA"))
    return np.asarray(paper.convert("RGB").reduce(blocks))


@pytest.mark.parametrize("mode", ["P", "1", "LA", "RGBA"])
def test_converting_in_tiles_gives_the_same_picture_as_in_one_go(mode: str) -> None:
    """4100 is no multiple of a tile, nor of the three pixels that become one."""
    photo = Image.open(io.BytesIO(make_picture(4100, 1701, file_format="PNG")))
    alpha = Image.linear_gradient("L").resize(photo.size)
    image = photo.convert("RGB").quantize(64) if mode == "P" else photo.convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(alpha)

    pixels = decode_image(saved(image, "PNG")).pixels

    assert pixels.shape == (567, 1367, 3)
    assert np.abs(pixels.astype(int) - in_one_go(image, (3, 3))).max() <= 1


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"subsampling": 0}])
def test_a_picture_that_really_is_grey_at_its_end_is_complete(options: dict[str, object]) -> None:
    pixels = quadrants(640, 480)
    pixels[200:] = 128

    assert decode_image(saved(Image.fromarray(pixels), "JPEG", **options)).pixels[-1, -1].tolist() == [128, 128, 128]


def test_a_photo_with_a_film_behind_it_has_no_more_scans_for_that() -> None:
    """Phones put films behind photos; in 15 MB of them the bytes of a scan's marker come up by chance."""
    film = b"\0\0\0\x20ftypisom" + b"\xff\xda\0\x08" * 2_000

    assert decode_image(make_picture(progressive=True) + film).format == "JPEG"


@pytest.mark.parametrize("progressive", [False, True], ids=["sequential", "progressive"])
@pytest.mark.parametrize("damage", ["no samples", "scan of nothing", "scan of less than nothing"])
def test_a_jpeg_whose_headers_make_no_sense_is_refused(progressive: bool, damage: str) -> None:
    data = make_picture(progressive=progressive)
    if damage == "no samples":
        frame = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
        for component in range(3):
            data = data[: frame + 11 + 3 * component] + b"\0" + data[frame + 12 + 3 * component :]
    else:
        data = data[: data.index(b"\xff\xda") + 2] + (b"\0\2" if damage == "scan of nothing" else b"\0\0")

    with pytest.raises(InvalidImage, match="damaged or incomplete"):
        decode_image(data)


@pytest.mark.parametrize(
    ("image", "options", "sentence"),
    [
        (
            Image.new("RGB", (4001, 4001)),
            {"file_format": "WEBP", "method": 0},
            "at most 16 megapixels are accepted of a WebP, 50 of a JPEG or PNG",
        ),
        (
            Image.new("RGB", (6_100, 6_100)),
            {"file_format": "JPEG", "progressive": True, "subsampling": 0},
            "Saved as an ordinary JPEG it is accepted",
        ),
    ],
    ids=["webp", "progressive"],
)
def test_what_takes_more_memory_may_have_fewer_pixels(
    image: Image.Image, options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(InvalidImage, match=sentence) as caught:
        decode_image(saved(image, **options))  # type: ignore[arg-type]
    assert caught.value.code == "too_many_pixels"


def test_a_stored_picture_is_read_whatever_the_limits_are_now() -> None:
    data = saved(Image.new("RGB", (4001, 4001), "navy"), "WEBP", method=0)

    assert decode_again(data, pixel_count=4001 * 4001).width == 4001


def test_a_decoded_picture_brings_nothing_of_the_file_along() -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken in a secret place"
    data = saved(
        Image.fromarray(quadrants(900, 600)),
        "JPEG",
        comment=b"a secret place",
        exif=exif,
        icc_profile=b"a secret profile",
        dpi=(301, 301),
    )
    assert data.count(b"secret") == 3

    picture = decode_image(data).picture

    assert picture.info == {}
    for max_side in (2000, 900, 256):  # as it is, and with every way of making it smaller
        copy = encode_jpeg(fitted(picture, max_side))
        assert b"secret" not in copy
        with Image.open(io.BytesIO(copy)) as found:
            assert not found.getexif()
            assert "dpi" not in found.info
    assert picture.size == (900, 600), "encoding a small copy left the picture as it was"


@pytest.mark.parametrize(("size", "expected_size"), [((800, 500), (256, 160)), ((900, 600), (225, 150))])
def test_a_small_copy_shows_the_same(size: tuple[int, int], expected_size: tuple[int, int]) -> None:
    pixels = quadrants(*size)
    with Image.open(io.BytesIO(encode_jpeg(fitted(pixels, 256), quality=95))) as found:
        assert found.size == expected_size
        expected = np.asarray(Image.fromarray(pixels).resize(found.size, Image.Resampling.BICUBIC)).astype(int)
        assert np.abs(np.asarray(found.convert("RGB")) - expected).mean() < 2


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("height", [63, 64])
@pytest.mark.parametrize(
    ("colour", "depth"),
    [(GREY, 1), (GREY, 8), (GREY, 16), (RGB, 8), (RGB, 16), (PALETTE, 1), (PALETTE, 8), (GREY_ALPHA, 8), (RGBA, 16)],
)
def test_a_png_whose_pixels_end_one_byte_early_is_refused(colour: int, depth: int, height: int, interlace: int) -> None:
    """In good order, with a right sum: Pillow would leave the row as black as the rest of this picture."""
    whole = blank_png(64, height, colour=colour, depth=depth, interlace=interlace)
    decode_image(whole)
    begin, end = next((begin, end) for kind, begin, end in chunks_of(whole) if kind == b"IDAT")
    pixels = zlib.decompress(whole[begin + 8 : end - 4])
    with pytest.raises(InvalidImage) as error:
        decode_image(whole[:begin] + chunk(b"IDAT", zlib.compress(pixels[:-1])) + whole[end:])
    assert error.value.code == "truncated"
