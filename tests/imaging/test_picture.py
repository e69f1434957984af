import io
import os
import struct
import threading
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin, features

from img2img.imaging import picture as module
from img2img.imaging.picture import KEEPS, READABLE, WRITABLE, Picture, UnreadableImage, frames, read, size, write

AVIF = features.check("avif")
EXTENSION = {"PNG": ".png", "TIFF": ".tif", "JPEG": ".jpg", "WEBP": ".webp", "AVIF": ".avif", "BMP": ".bmp"}
FORMATS = [
    pytest.param(name, marks=[] if AVIF or name != "AVIF" else pytest.mark.skip("Pillow lacks AVIF")) for name in KEEPS
]
LOSSLESS = ("PNG", "TIFF", "BMP")
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:Description tiff:Orientation=\"1\">photo</rdf:Description></x:xmpmeta>"
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY_ICC = SRGB[:16] + b"GRAY" + SRGB[20:]


def exif_of(orientation=1, **more):
    exif = Image.Exif()
    exif[271], exif[272], exif[315] = "Maker", "Model X", "Someone"
    if orientation:
        exif[274] = orientation
    exif.get_ifd(34665)[33434] = 0.01
    exif.get_ifd(34665)[36867] = "2020:01:02 03:04:05"
    exif.get_ifd(34853)[1] = "N"
    for tag, value in more.items():
        exif[int(tag[1:])] = value
    return exif.tobytes()


def tags_of(exif):
    found = Image.Exif()
    found.load(exif)
    return found


def smooth(height=24, width=36, channels=3, kind=np.uint8):
    """A picture that lossy codecs hardly change, in which no two corners are alike."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x / width, y / height, (x + y) / (width + height), 0.4 + 0.6 * x / width]
    pixels = np.stack(planes, axis=2)[:, :, {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]]
    return (pixels * np.iinfo(kind).max).round().astype(kind)


def noise(height=9, width=13, channels=3, kind=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(kind).max, (height, width, channels), kind, endpoint=True)


def whole(**more):
    return Picture(smooth(), exif=exif_of()[6:], icc=SRGB, xmp=XMP, dpi=(300, 240), **more)


def through(tmp_path, name, picture, quality=95):
    path = tmp_path / f"picture{EXTENSION[name]}"
    write(path, picture, quality=quality)
    return path, read(path)


def near(name):
    return 0 if name in LOSSLESS else 10


# What each format keeps


@pytest.mark.parametrize("name", FORMATS)
def test_eight_bit_colour_is_kept(tmp_path, name):
    path, back = through(tmp_path, name, Picture(smooth()))
    assert back.pixels.dtype == np.uint8 and back.pixels.shape == (24, 36, 3)
    assert np.abs(back.pixels.astype(int) - smooth()).max() <= near(name)
    other = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if other is not None:  # another library sees the same; OpenCV may lack AVIF
        assert np.abs(other[:, :, ::-1].astype(int) - back.pixels).max() <= (2 if near(name) else 0)
    assert Image.open(path).format == name
    assert back.exif is back.icc is back.xmp is back.dpi is None


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit(tmp_path, name, channels):
    pixels = noise(channels=channels, kind=np.uint16) if name in LOSSLESS else smooth(channels=channels, kind=np.uint16)
    if KEEPS[name]["16 bit"] == "kept":
        path, back = through(tmp_path, name, Picture(pixels))
        if name == "TIFF" and channels == 2:
            pixels = pixels[:, :, [0, 0, 0, 1]]
        assert back.pixels.dtype == np.uint16 and np.array_equal(back.pixels, pixels)
        other = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        other = other.reshape(*other.shape[:2], -1)[:, :, [0] if channels == 1 else [2, 1, 0, 3][: max(3, other.ndim)]]
        assert np.array_equal(other[:, :, 0], pixels[:, :, 0])
        return
    assert KEEPS[name]["16 bit"] == "rounded to 8"
    _, back = through(tmp_path, name, Picture(pixels))
    eight = (pixels / 257).round().astype(np.uint8)
    _, wanted = through(tmp_path, name, Picture(eight))
    assert back.pixels.dtype == np.uint8
    # flattening happens before rounding: half a level between the two orders
    assert np.abs(back.pixels.astype(int) - wanted.pixels).max() <= (0 if channels in (1, 3) else near(name) + 1)


def test_rounding_from_16_to_8_is_to_the_nearest():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    assert np.array_equal(module._to8(values), np.floor(values / 257 + 0.5).astype(np.uint8))


@pytest.mark.parametrize("name", FORMATS)
def test_grey(tmp_path, name):
    path, back = through(tmp_path, name, Picture(smooth(channels=1)))
    if KEEPS[name]["grey"] == "kept":
        assert Image.open(path).mode == "L" and back.pixels.shape[2] == 1
    else:
        assert KEEPS[name]["grey"] == "becomes RGB" and back.pixels.shape[2] == 3
    assert np.abs(back.pixels.astype(int) - smooth(channels=1)).max() <= near(name)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("channels", [2, 4])
def test_alpha(tmp_path, name, channels):
    pixels = smooth(channels=channels)
    path, back = through(tmp_path, name, Picture(pixels))
    if KEEPS[name]["alpha"] == "kept":
        assert back.alpha and np.abs(back.pixels[:, :, -1].astype(int) - pixels[:, :, -1]).max() <= near(name)
        assert np.abs(back.pixels[:, :, 0].astype(int) - pixels[:, :, 0]).max() <= near(name) * 2
        assert "A" in Image.open(path).mode
    else:
        assert KEEPS[name]["alpha"] == "flattened on white" and not back.alpha
        alpha = pixels[:, :, -1:] / 255
        flat = (pixels[:, :, :-1] * alpha + 255 * (1 - alpha)).round()
        assert np.abs(back.pixels - flat).max() <= near(name)


@pytest.mark.parametrize("name", FORMATS)
def test_exif(tmp_path, name):
    path, back = through(tmp_path, name, whole())
    if KEEPS[name]["exif"] == "lost":
        assert back.exif is None
        return
    for tags in (tags_of(back.exif), Image.open(path).getexif()):
        assert (tags[271], tags[272], tags[315]) == ("Maker", "Model X", "Someone")
        assert tags.get_ifd(34665)[36867] == "2020:01:02 03:04:05" and float(tags.get_ifd(34665)[33434]) == 0.01
        assert tags.get_ifd(34853)[1] == "N"
    if name in ("PNG", "JPEG"):
        assert back.exif == whole().exif  # byte for byte


@pytest.mark.parametrize("name", FORMATS)
def test_icc(tmp_path, name):
    path, back = through(tmp_path, name, whole())
    wanted = SRGB if KEEPS[name]["icc"] == "kept" else None
    assert back.icc == wanted and Image.open(path).info.get("icc_profile") == wanted


@pytest.mark.parametrize("name", FORMATS)
def test_xmp(tmp_path, name):
    path, back = through(tmp_path, name, whole())
    wanted = XMP if KEEPS[name]["xmp"] == "kept" else None
    assert back.xmp == wanted and Image.open(path).info.get("xmp") == wanted


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("exif", [None, exif_of()[6:]])
def test_dpi(tmp_path, name, exif):
    path, back = through(tmp_path, name, Picture(smooth(), exif=exif, dpi=(299.5, 240)))
    assert back.dpi == pytest.approx((299.5, 240), abs=0.51 if "whole" in KEEPS[name]["dpi"] else 0.02)
    if "EXIF" in KEEPS[name]["dpi"]:
        assert float(tags_of(back.exif)[282]) == pytest.approx(299.5)
    else:
        assert Image.open(path).info["dpi"] == pytest.approx((299.5, 240), abs=0.51)


@pytest.mark.parametrize("name", FORMATS)
def test_largest_side(tmp_path, name):
    most = int(KEEPS[name]["largest side"])
    path = tmp_path / f"wide{EXTENSION[name]}"
    if most > 10**6:
        write(path, Picture(np.zeros((1, 120_000, 1), np.uint8)))
        assert read(path).width == 120_000
        return
    if name != "AVIF":  # its encoder needs minutes for such a strip
        write(path, Picture(np.zeros((1, most, 1), np.uint8)))
        assert read(path).width == most
    path.unlink(missing_ok=True)
    with pytest.raises(ValueError, match=f"{name} holds {most} a side"):
        write(path, Picture(np.zeros((1, most + 1, 1), np.uint8)))
    assert not list(tmp_path.iterdir())


def test_every_cell_of_the_table_has_a_test():
    cells = {"16 bit", "grey", "alpha", "exif", "icc", "xmp", "dpi", "largest side"}
    assert all(set(row) == cells for row in KEEPS.values())
    assert {EXTENSION[name] for name in KEEPS} - {".avif"} <= set(WRITABLE) <= set(READABLE)


def test_profiles_that_do_not_fit_are_dropped(tmp_path):
    grey = Picture(smooth(channels=1), icc=GREY_ICC)
    assert through(tmp_path, "PNG", grey)[1].icc == GREY_ICC
    assert through(tmp_path, "WEBP", grey)[1].icc is None
    assert through(tmp_path, "PNG", Picture(smooth(), icc=GREY_ICC))[1].icc is None


def test_webp_of_quality_100_is_lossless(tmp_path):
    pixels = noise(channels=4)
    assert np.array_equal(through(tmp_path, "WEBP", Picture(pixels), quality=100)[1].pixels, pixels)


def test_jpeg_is_not_subsampled_and_obeys_quality(tmp_path):
    path, _ = through(tmp_path, "JPEG", Picture(noise(64, 64)))
    image = Image.open(path)
    assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3
    large = path.stat().st_size
    assert through(tmp_path, "JPEG", Picture(noise(64, 64)), quality=50)[0].stat().st_size < large / 2
    for quality in (0, 101):
        with pytest.raises(ValueError, match=f"quality {quality} is not"):
            write(path, Picture(noise()), quality=quality)


def test_exif_too_large_for_jpeg_loses_the_maker_note_first(tmp_path):
    exif = Image.Exif()
    exif[271] = "Maker"
    exif.get_ifd(34665)[36867] = "2020:01:02 03:04:05"
    exif.get_ifd(34665)[37500] = bytes(70_000)
    _, back = through(tmp_path, "JPEG", Picture(smooth(), exif=exif.tobytes()[6:]))
    kept = tags_of(back.exif)
    assert kept[271] == "Maker" and 36867 in kept.get_ifd(34665) and 37500 not in kept.get_ifd(34665)
    exif[315] = "x" * 70_000
    picture = Picture(smooth(), exif=exif.tobytes()[6:], xmp=b"x" * 70_000)
    _, back = through(tmp_path, "JPEG", picture)
    assert back.exif is None and back.xmp is None
    _, back = through(tmp_path, "PNG", picture)
    assert back.exif == picture.exif and back.xmp == picture.xmp


# PNG, chunk by chunk


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (128, 3), (129, 5), (300, 7)])
def test_png_at_the_borders_of_its_bands(tmp_path, kind, channels, height, width):
    pixels = noise(height, width, channels, kind)
    path, back = through(tmp_path, "PNG", Picture(pixels))
    assert np.array_equal(back.pixels, pixels)
    if channels != 2:
        other = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).reshape(height, width, channels)
        assert np.array_equal(other[:, :, 0], pixels[:, :, 0 if channels == 1 else 2])


def test_png_chunks_are_in_order_with_right_checksums(tmp_path):
    path, _ = through(tmp_path, "PNG", whole())
    data, names, at = path.read_bytes(), [], 8
    while at < len(data):
        length, name = struct.unpack_from(">L4s", data, at)
        assert struct.unpack_from(">L", data, at + 8 + length)[0] == zlib.crc32(data[at + 4 : at + 8 + length])
        names.append(name)
        at += 12 + length
    assert names[:5] == [b"IHDR", b"iCCP", b"pHYs", b"eXIf", b"iTXt"] and names[-1] == b"IEND"
    assert set(names[5:-1]) == {b"IDAT"}


def test_png_is_no_larger_than_opencvs(tmp_path):
    photo = cv2.resize(noise(60, 60), (480, 480), interpolation=cv2.INTER_CUBIC)
    path, _ = through(tmp_path, "PNG", Picture(photo))
    assert path.stat().st_size < len(cv2.imencode(".png", photo)[1])


# Reading


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "deep PNG", "deep TIFF"])
def test_orientation_is_applied_and_reset(tmp_path, orientation, name):
    pixels = smooth(kind=np.uint16 if "deep" in name else np.uint8)
    upright = np.array(Image.fromarray(smooth()))
    image = Image.fromarray(upright)
    image.getexif()[274] = orientation
    from PIL import ImageOps

    wanted = np.asarray(ImageOps.exif_transpose(image))
    path = tmp_path / "turned"
    if "deep" in name:
        extension = EXTENSION[name[5:]]
        write(tmp_path / f"plain{extension}", Picture(pixels, exif=exif_of(0)[6:]))
        data = (tmp_path / f"plain{extension}").read_bytes()
        if extension == ".png":  # insert another eXIf before the first
            write(tmp_path / "plain.png", Picture(pixels, exif=exif_of(orientation)[6:]))
            data = (tmp_path / "plain.png").read_bytes()
        else:  # the tag after 273 in the directory; 284 (planar) stands for it, being optional
            start = struct.unpack_from("<L", data, 4)[0]
            count = struct.unpack_from("<H", data, start)[0]
            directory = sorted(
                (274, *entry[1:2], 1, orientation) if entry[0] == 284 else entry
                for entry in struct.iter_unpack("<HHLL", data[start + 2 : start + 2 + 12 * count])
            )
            packed = b"".join(struct.pack("<HHLL", *entry) for entry in directory)
            data = data[: start + 2] + packed + data[start + 2 + 12 * count :]
        path.write_bytes(data)
    else:
        image.save(path, name, exif=exif_of(orientation), **({"lossless": True} if name == "WEBP" else {}))
    back = read(path)
    shown = back.pixels // 257 if back.pixels.dtype == np.uint16 else back.pixels
    assert back.pixels.dtype == pixels.dtype and shown.shape == wanted.shape
    assert np.abs(shown.astype(int) - wanted).max() <= (10 if name == "JPEG" else 1)
    tags = tags_of(back.exif)
    assert tags.get(274, 1) == 1 and tags[271] == "Maker"


def test_orientation_changes_no_other_byte_of_exif(tmp_path):
    path = tmp_path / "a.jpg"
    exif = exif_of(6)
    Image.new("RGB", (4, 2)).save(path, exif=exif)
    back = read(path).exif
    assert len(back) == len(exif) - 6 and sum(one != two for one, two in zip(back, exif[6:], strict=True)) == 1


@pytest.mark.parametrize("form", [b'tiff:Orientation="6"', b"<tiff:Orientation>6</tiff:Orientation>"])
def test_orientation_in_xmp_alone(tmp_path, form):
    path = tmp_path / "a.webp"
    Image.new("RGB", (4, 2)).save(path, xmp=b"<x>" + form + b"</x>")
    back = read(path)
    assert back.pixels.shape == (4, 2, 3) and b"6" not in back.xmp


def saved(tmp_path, image, kind, **options):
    path = tmp_path / "file"
    image.save(path, kind, **options)
    return path


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_palettes_are_resolved(tmp_path, kind):
    image = Image.fromarray(smooth()).quantize(17)
    assert np.array_equal(read(saved(tmp_path, image, kind)).pixels, np.asarray(image.convert("RGB")))


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    back = read(saved(tmp_path, image, "PNG", transparency=bytes([255, 128, 0])))
    assert back.pixels[0].tolist() == [[255, 0, 0, 255], [0, 255, 0, 128], [0, 0, 255, 0]]
    assert read(saved(tmp_path, image, "GIF", transparency=1)).pixels[0, :, 3].tolist() == [255, 0, 255]


@pytest.mark.parametrize("mode", ["L", "RGB", "1"])
def test_png_transparent_colour(tmp_path, mode):
    image = Image.fromarray(np.array([[0, 255, 255]], np.uint8)).convert(mode)
    key = (255, 255, 255) if mode == "RGB" else 255 if mode == "L" else 1
    back = read(saved(tmp_path, image, "PNG", transparency=key)).pixels
    assert back[0, :, -1].tolist() == [255, 0, 0] and back[0, :, 0].tolist() == [0, 255, 255]


def png(bits, kind, rows, *chunks):
    """A PNG made by hand, without filters."""
    height, width = len(rows), len(rows[0]) * 8 // bits // {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    file = io.BytesIO()
    file.write(b"\x89PNG\r\n\x1a\n")
    module._chunk(file, b"IHDR", struct.pack(">LLBBBBB", width, height, bits, kind, 0, 0, 0))
    for name, data in chunks:
        module._chunk(file, name, data)
    module._chunk(file, b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    module._chunk(file, b"IEND", b"")
    return file.getvalue()


def test_png_transparent_colour_in_few_bits_and_in_many(tmp_path):
    back = module.decode(png(2, 0, [bytes([0b00011011])], (b"tRNS", b"\0\2"))).pixels
    assert back[0].tolist() == [[0, 255], [85, 255], [170, 0], [255, 255]]
    back = module.decode(png(16, 0, [b"\1\2\1\3"], (b"tRNS", b"\1\3"))).pixels
    assert back.dtype == np.uint16 and back[0].tolist() == [[258, 65535], [259, 0]]
    back = module.decode(png(16, 2, [b"\1\2\1\2\1\2\1\3\1\3\1\3"], (b"tRNS", b"\1\2" * 3))).pixels
    assert back.dtype == np.uint16 and back[0].tolist() == [[258, 258, 258, 0], [259, 259, 259, 65535]]


def test_exif_and_xmp_behind_the_pixels(tmp_path):
    data = png(8, 0, [b"ab"])
    tail = io.BytesIO()
    module._chunk(tail, b"eXIf", exif_of(6)[6:])
    back = module.decode(data[:-12] + tail.getvalue() + data[-12:])
    assert back.pixels.shape == (2, 1, 1) and tags_of(back.exif)[271] == "Maker"


def test_one_bit_and_low_bit_greys(tmp_path):
    checks = (np.indices((5, 7)).sum(0) % 2).astype(bool)
    for kind in ("PNG", "TIFF", "BMP", "PPM"):
        back = read(saved(tmp_path, Image.fromarray(checks), kind)).pixels
        assert np.array_equal(back[:, :, 0] if back.shape[2] == 1 else back[:, :, 1], checks * 255)


def test_cmyk_becomes_srgb(tmp_path):
    image = Image.fromarray(smooth()).convert("CMYK")
    for kind in ("JPEG", "TIFF"):
        back = read(saved(tmp_path, image, kind, icc_profile=SRGB))  # a profile that is not of CMYK does not help
        assert np.abs(back.pixels.astype(int) - smooth()).max() <= 12 and back.icc is None


def test_lab_becomes_srgb(tmp_path):
    image = ImageCms.profileToProfile(
        Image.fromarray(smooth()), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert np.abs(read(saved(tmp_path, image, "TIFF")).pixels.astype(int) - smooth()).mean() <= 3


@pytest.mark.parametrize("mode", ["F", "I"])
def test_samples_of_32_bits_are_refused(tmp_path, mode):
    path = saved(tmp_path, Image.new(mode, (3, 3)), "TIFF")
    with pytest.raises(UnreadableImage, match=f"{path}: samples of .* save it as 8 or 16 bit first"):
        read(path)


def test_the_first_of_several_frames_is_read(tmp_path):
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    for kind in ["GIF", "PNG", "WEBP", "TIFF", "MPO"] + ["AVIF"] * AVIF:
        back = read(saved(tmp_path, frames[0], kind, save_all=True, append_images=frames[1:]))
        assert back.pixels.shape == (4, 5, 3) and np.abs(back.pixels.astype(int) - (255, 0, 0)).max() < 12


def test_opencv_is_silent_while_it_decodes(tmp_path, capfd, monkeypatch):
    tifffile = pytest.importorskip("tifffile")
    log = pytest.importorskip("cv2.utils").logging
    monkeypatch.setattr(module, "_opencv_log", log)
    before = log.getLogLevel()
    options = {"extrasamples": ["unassalpha"], "extratags": [(65000, 3, 1, 5, False)]}  # a tag that libtiff warns of
    tifffile.imwrite(tmp_path / "a.tif", smooth(channels=4, kind=np.uint16), photometric="rgb", **options)
    read(tmp_path / "a.tif")
    assert capfd.readouterr().err == "" and log.getLogLevel() == before
    monkeypatch.setattr(module, "_opencv_log", None)  # as with OPENCV_LOG_LEVEL set
    read(tmp_path / "a.tif")
    assert "65000" in capfd.readouterr().err


def test_frames_of_what_cannot_be_read_are_one(tmp_path):
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    assert frames(tmp_path / "a.gif") == frames(tmp_path / "none.gif") == frames(tmp_path) == 1


@pytest.mark.parametrize("associated", [True, False])
def test_tiff_with_associated_alpha(tmp_path, associated):
    tifffile = pytest.importorskip("tifffile")
    pixels = smooth(channels=4, kind=np.uint16)
    stored = pixels.copy()
    if associated:
        stored[:, :, :3] = (pixels[:, :, :3] * (pixels[:, :, 3:] / 65535)).round()
    kind = "assocalpha" if associated else "unassalpha"
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=[kind])
    assert np.abs(read(tmp_path / "a.tif").pixels.astype(int) - pixels).max() <= (2 if associated else 0)


@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"planarconfig": "separate"}, {"bigtiff": True}])
def test_tiffs_of_another_writer(tmp_path, byteorder, options):
    tifffile = pytest.importorskip("tifffile")
    for channels, kind in ((1, np.uint16), (3, np.uint16), (3, np.uint8)):
        pixels = smooth(channels=channels, kind=kind)
        stored = pixels[:, :, 0] if channels == 1 else pixels
        separate = channels == 3 and "planarconfig" in options
        more = options if channels == 3 else {key: value for key, value in options.items() if key != "planarconfig"}
        tifffile.imwrite(
            tmp_path / "a.tif",
            np.moveaxis(stored, 2, 0) if separate else stored,
            byteorder=byteorder,
            photometric="rgb" if channels == 3 else "minisblack",
            **more,
        )
        if options.get("bigtiff") and byteorder == ">":  # Pillow does not know these
            with pytest.raises(UnreadableImage, match="a damaged TIFF, or one of a sample layout"):
                read(tmp_path / "a.tif")
        elif separate and kind == np.uint16:
            with pytest.raises(UnreadableImage, match="separate planes"):
                read(tmp_path / "a.tif")
        else:
            assert np.array_equal(read(tmp_path / "a.tif").pixels, pixels)


def test_another_reader_sees_what_we_write_as_tiff(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    for channels in (1, 3, 4):
        for kind in (np.uint8, np.uint16):
            pixels = noise(channels=channels, kind=kind)
            write(tmp_path / "a.tif", Picture(pixels, exif=exif_of()[6:], icc=SRGB, xmp=XMP, dpi=(72, 72)))
            with tifffile.TiffFile(tmp_path / "a.tif") as file:
                assert np.array_equal(file.asarray().reshape(pixels.shape), pixels)
                tags = file.pages[0].tags
                assert tags[700].value == XMP and tags[282].value == (72, 1) and tags[271].value == "Maker"
                assert tags[34665].value["DateTimeOriginal"] == "2020:01:02 03:04:05"


def test_the_content_decides_not_the_extension(tmp_path):
    image = Image.fromarray(smooth())
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP"):
        path = tmp_path / "wrong.png"
        image.save(path, kind)
        assert np.abs(read(path).pixels.astype(int) - smooth()).max() <= 40
        assert size(path) == (36, 24)


def test_names_that_are_not_ascii(tmp_path):
    path = tmp_path / "bäume 木 \U0001f333" / "ö.png"
    for kind in (np.uint8, np.uint16):
        write(path, Picture(smooth(kind=kind)))
        assert np.array_equal(read(path).pixels, smooth(kind=kind))


# Bad files


def refused(path, match, **options):
    with pytest.raises(UnreadableImage) as caught:
        read(path, **options)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and match in text and "\n" not in text


@pytest.mark.parametrize("extension", READABLE)
def test_bad_files_are_one_clear_line(tmp_path, extension):
    path = tmp_path / f"a{extension}"
    refused(path, "No such file")
    path.write_bytes(b"")
    refused(path, "empty")
    for text in (b"\n", b"hello, I am no image\n" * 50, bytes(1000), b"<svg/>"):
        path.write_bytes(text)
        refused(path, "")
        assert size(path) is None
    path.unlink()
    path.mkdir()
    refused(path, "a folder")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_truncated_files(tmp_path, name, part, kind):
    path, _ = through(tmp_path, name, Picture(noise(40, 50, kind=kind)))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    refused(path, "")


def test_pipes_are_not_waited_for(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes here")
    os.mkfifo(tmp_path / "a.png")
    refused(tmp_path / "a.png", "not a regular file")


def test_bombs_are_refused_by_their_header(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(8, 0, [b"ab"]).replace(struct.pack(">LL", 2, 1), struct.pack(">LL", 40_000, 40_000)))
    data = bytearray(path.read_bytes())
    data[29:33] = struct.pack(">L", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    assert size(path) == (40_000, 40_000)
    refused(path, "40000 x 40000 pixels are more than the limit of 1000000000")
    data[16:24] = struct.pack(">LL", 30_000, 30_000)
    data[29:33] = struct.pack(">L", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    refused(path, f"30000 x 30000 pixels cannot be in {len(data)} bytes")
    write(path, Picture(smooth()))
    refused(path, "more than the limit of 863", limit=24 * 36 - 1)
    assert read(path, limit=24 * 36).width == 36


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "GIF", "WEBP", "BMP"])
def test_large_images_of_one_colour_are_no_bombs(tmp_path, kind):
    options = {"compression": "group4"} if kind == "TIFF" else {"lossless": True} if kind == "WEBP" else {}
    image = Image.new("RGB" if kind == "WEBP" else "1", (6000, 5000), "white")
    assert read(saved(tmp_path, image, kind, **options)).pixels.min() == 255


def test_large_images_pass_without_pillows_warning(tmp_path):
    before = Image.MAX_IMAGE_PIXELS
    for name in ("PNG", "TIFF"):
        path = tmp_path / f"a{EXTENSION[name]}"
        write(path, Picture(np.zeros((1000, 1000, 1), np.uint8)))
        Image.MAX_IMAGE_PIXELS = 1000
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert read(path).width == 1000 and size(path) == (1000, 1000)
            assert Image.MAX_IMAGE_PIXELS == 1000  # ours did not stay
        finally:
            Image.MAX_IMAGE_PIXELS = before


def test_threads_read_at_once(tmp_path):
    path = tmp_path / "a.png"
    write(path, Picture(smooth(kind=np.uint16)))
    before, results = Image.MAX_IMAGE_PIXELS, []
    threads = [threading.Thread(target=lambda: results.append(read(path))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(each.pixels, smooth(kind=np.uint16)) for each in results) and len(results) == 16
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("exif", [b"II*\0" + bytes(20), b"Exif\0\0rubbish", b"MM\0*\xff\xff\xff\xff" + bytes(9)])
def test_damaged_exif_costs_no_image(tmp_path, exif):
    path = tmp_path / "a.png"
    write(path, Picture(smooth(), exif=exif))
    back = read(path)
    assert np.array_equal(back.pixels, smooth())
    for extension in WRITABLE:
        write(tmp_path / f"b{extension}", Picture(smooth(), exif=back.exif, dpi=(72, 72)))
        assert read(tmp_path / f"b{extension}").width == 36


# Pictures


@pytest.mark.parametrize("bad", [np.zeros((3, 3, 5), np.uint8), np.zeros((0, 3, 3), np.uint8), np.zeros((3, 3, 3))])
def test_pictures_of_other_shapes_are_refused(bad):
    with pytest.raises(ValueError, match="pixels must be"):
        Picture(bad)


def test_grey_of_two_dimensions_is_taken():
    assert Picture(np.zeros((3, 4), np.uint16)).pixels.shape == (3, 4, 1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_pil_and_back(channels, kind):
    picture = Picture(smooth(channels=channels, kind=kind), exif=exif_of()[6:], icc=SRGB, xmp=XMP, dpi=(72, 72))
    image = picture.to_pil()
    assert image.size == (36, 24)
    back = Picture.from_pil(image)
    exact = kind == np.uint8 or channels == 1
    wanted = picture.pixels if exact else module._to8(picture.pixels)
    assert np.array_equal(back.pixels, wanted)
    assert (back.exif, back.icc, back.xmp, back.dpi) == (picture.exif, SRGB, XMP, (72, 72))


def test_unknown_extensions_are_told(tmp_path):
    for name in ("a.gif", "a", "a.pgn"):
        with pytest.raises(ValueError, match=r"unknown extension '.*'; use one of \.png"):
            write(tmp_path / name, Picture(smooth()))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", FORMATS)
def test_a_write_that_fails_leaves_the_old_file(tmp_path, name, monkeypatch):
    path, _ = through(tmp_path, name, Picture(smooth()))
    before = path.read_bytes()

    def fail(file, picture, quality):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(module._ENCODERS, name, fail)
    with pytest.raises(OSError, match="No space left"):
        write(path, whole())
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_broken_pngs_of_imagemagick(tmp_path):
    info = PngImagePlugin.PngInfo()
    body = exif_of(6)
    text = body.hex()
    lines = "\n".join(text[at : at + 72] for at in range(0, len(text), 72))
    info.add_text("Raw profile type exif", f"\nexif\n{len(body):8}\n{lines}\n", zip=True)
    back = read(saved(tmp_path, Image.fromarray(smooth()), "PNG", pnginfo=info))
    assert back.pixels.shape == (36, 24, 3) and tags_of(back.exif)[271] == "Maker"


# Mutations


def seeds(name):
    """Small files of a format: several modes, all metadata."""
    makers = []
    if name in EXTENSION:
        for channels, kind in ((3, np.uint8), (4, np.uint8), (3, np.uint16), (1, np.uint8)):
            picture = Picture(smooth(9, 11, channels, kind), exif=exif_of(6)[6:], icc=SRGB, xmp=XMP, dpi=(72, 72))
            makers.append(picture)
            makers.append(Picture(noise(7, 6, channels, kind)))
    return makers


def mutated(data, other, random):
    data = bytearray(data)
    for _ in range(random.integers(1, 4)):
        kind, at = random.integers(0, 6), int(random.integers(0, max(1, len(data))))
        if kind == 0:
            del data[at:]
        elif kind == 1 and data:
            for place in random.integers(0, len(data), random.integers(1, 9)):
                data[place] = random.integers(0, 256)
        elif kind == 2:
            data[at : at + int(random.integers(1, 40))] = other[at : at + int(random.integers(1, 40))]
        elif kind == 3:
            del data[at : at + int(random.integers(1, 60))]
        elif kind == 4 and data:  # near the head, where the sizes are
            data[int(random.integers(0, min(64, len(data))))] = random.choice([0, 1, 127, 128, 255])
        else:
            data[at:at] = random.bytes(int(random.integers(1, 9)))
    return bytes(data)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*FORMATS, "GIF", "PPM"])
def test_mutated_files_are_read_or_refused(tmp_path, name):
    random = np.random.default_rng(sum(map(ord, name)))
    files = []
    for number, picture in enumerate(seeds(name)):
        path = tmp_path / f"{number}{EXTENSION[name]}"
        write(path, picture)
        files.append(path.read_bytes())
    if name in ("GIF", "PPM"):
        images = [Image.fromarray(smooth(9, 11)).convert(mode) for mode in ("L", "RGB")]
        files = [saved(tmp_path, image, name).read_bytes() for image in images]
    good = bad = 0
    for _ in range(2000):
        data = mutated(files[random.integers(len(files))], files[random.integers(len(files))], random)
        try:
            assert isinstance(module.decode(data, limit=10**6), Picture)
            good += 1
        except UnreadableImage as error:
            assert "\n" not in str(error)
            bad += 1
    assert good > 20 and bad > 200


@pytest.mark.parametrize("bits", [8, 16])
def test_white_is_zero(bits, tmp_path):
    """As scanners write TIFFs: the largest number is black."""
    tifffile = pytest.importorskip("tifffile")
    values = np.arange(0, 2**bits, 2**bits // 64).astype(f"uint{bits}").reshape(8, 8)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    found = read(tmp_path / "a.tif").pixels[..., 0]
    assert found.dtype == values.dtype and np.array_equal(found, 2**bits - 1 - values)
