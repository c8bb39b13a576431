"""Kinds of pictures that users have: of any depth, transparent, animated, turned, damaged."""

import itertools
import struct
import zlib

import numpy as np
import pytest
import torch
from folders import write_pets, write_picture
from PIL import Image

from unlearn_lib import load_data
from unlearn_lib.data.pictures import Pictures, choose_framing, open_picture
from unlearn_lib.networks import Framing

GREY16 = Image.fromarray(np.full((4, 4), 20_000, np.uint16))


def tiff(data, order="<", **tags):
    """A TIFF of 4x4 pixels, uncompressed, written by hand: what Pillow reads and does not write."""
    known = {256: 4, 257: 4, 258: 8, 259: 1, 262: 1, 277: 1, 278: 4, 279: len(data)}
    known |= {int(tag[1:]): value for tag, value in tags.items()}
    known[273] = 8 + 2 + 12 * (len(known) + 1) + 4 + 8
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(known))
    for tag, value in sorted(known.items()):
        several = value if isinstance(value, tuple) else (value,)
        packed = struct.pack(f"{order}{len(several)}H", *several)
        if len(packed) > 4:  # beside the directory
            packed, extra = struct.pack(order + "I", known[273] - 8), packed
        head += struct.pack(order + "HHI", tag, 3, len(several)) + packed.ljust(4, b"\0")
    return (head + b"\0" * 4 + locals().get("extra", b"")).ljust(known[273], b"\0") + data


# Depth: each picture is grey, and its value known.

PALETTE = Image.new("P", (4, 4), 1)
PALETTE.putpalette([0, 0, 0, 78, 78, 78] + [0] * 762)


def png(bits, kind, row, transparent):
    """A PNG of 4x4 pixels with a transparent value, written by hand: Pillow writes no depth of its own but eight."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header, rows = struct.pack(">IIBBBBB", 4, 4, bits, kind, 0, 0, 0), zlib.compress((b"\0" + row) * 4)
    parts = {b"IHDR": header, b"tRNS": transparent, b"IDAT": rows, b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts.items() if part[0] != b"tRNS" or transparent)


CASES = {
    "16 bits in a PNG": (GREY16, "png", {}, 78),
    "16 bits in a TIFF": (GREY16, "tif", {}, 78),
    "16 bits in a PGM": (GREY16, "pgm", {}, 78),
    "16 bits in a JPEG 2000": (GREY16, "jp2", {}, 78),
    "16 bits in a TIFF of the other byte order": (tiff(b"\x4e\x20" * 16, ">", t258=16), "tif", {}, 78),
    "16 bits, of which 0 is white": (tiff(b"\x20\x4e" * 16, t258=16, t262=0), "tif", {}, 177),
    "16 bits, the value itself transparent": (GREY16, "png", {"transparency": 20_000}, 255),
    "12 bits in a TIFF": (tiff(bytes.fromhex("4e24e2") * 8, t258=12), "tif", {}, 78),
    "10 bits in a PGM": (b"P5 4 4 1023\n" + struct.pack(">16H", *[500] * 16), "pgm", {}, 125),
    "16 bits a colour": (png(16, 2, b"\x4e\x20" * 12, b""), "png", {}, 78),
    "16 bits a colour, it is transparent": (png(16, 2, b"\x4e\x20" * 12, b"\x4e\x20" * 3), "png", {}, 255),
    "16 bits a colour, another is transparent": (png(16, 2, b"\x4e\x20" * 12, b"\x20\x4e" * 3), "png", {}, 78),
    "16 bits, half transparent": (png(16, 4, b"\x4e\x20\x80\0" * 4, b""), "png", {}, 166),
    "4 bits": (png(4, 0, b"\x55\x55", b""), "png", {}, 85),
    "4 bits, the value itself transparent": (png(4, 0, b"\x55\x55", b"\0\x05"), "png", {}, 255),
    "4 bits, another value transparent": (png(4, 0, b"\x55\x55", b"\0\x06"), "png", {}, 85),
    "2 bits": (png(2, 0, b"\x55", b""), "png", {}, 85),
    "2 bits, the value itself transparent": (png(2, 0, b"\x55", b"\0\x01"), "png", {}, 255),
    "1 bit, the value itself transparent": (png(1, 0, b"\0", b"\0\0"), "png", {}, 255),
    "4 bits in a TIFF": (tiff(b"\x55" * 8, t258=4), "tif", {}, 85),
    "8 bits, of which 0 is white": (tiff(b"\x4e" * 16, t262=0), "tif", {}, 177),
    "a grey scale of 100 steps": (b"P5 4 4 100\n" + b"\x32" * 16, "pgm", {}, 128),
    "10 bits a colour": (b"P6 4 4 1023\n" + struct.pack(">48H", *[313] * 48), "ppm", {}, 78),
    "colours and a channel that means nothing": (
        tiff(b"\x4e\x4e\x4e\0" * 16, t258=(8,) * 4, t262=2, t277=4, t338=0),
        "tif",
        {},
        78,
    ),
    "floats in a TIFF": (Image.fromarray(np.full((4, 4), 0.25, np.float32)), "tif", {}, 64),
    "floats in a PFM": (Image.fromarray(np.full((4, 4), 0.25, np.float32)), "pfm", {}, 64),
    "1 bit, white": (Image.new("1", (4, 4), 1), "png", {}, 255),
    "1 bit, black": (Image.new("1", (4, 4), 0), "bmp", {}, 0),
    "CMYK": (Image.new("CMYK", (4, 4), (0, 0, 0, 100)), "tif", {}, 155),
    "CMYK in a JPEG": (Image.new("CMYK", (16, 16), (0, 0, 0, 100)), "jpg", {}, 155),
    "LAB": (Image.new("LAB", (4, 4), (128, 128, 128)), "tif", {}, 119),
    "a palette": (PALETTE, "png", {}, 78),
    "a palette, transparency by index": (PALETTE, "gif", {"transparency": 1}, 255),
    "a palette, transparency by bytes": (PALETTE, "png", {"transparency": b"\xff\x00"}, 255),
    "a palette, half transparent": (PALETTE, "png", {"transparency": b"\xff\x80"}, 166),
    "grey, half transparent": (Image.new("LA", (4, 4), (78, 128)), "png", {}, 166),
    "colour, half transparent": (Image.new("RGBA", (4, 4), (78, 78, 78, 128)), "png", {}, 166),
    "colour, one of them transparent": (Image.new("RGB", (4, 4), (9, 9, 9)), "png", {"transparency": (9, 9, 9)}, 255),
    "grey, premultiplied": (tiff(b"\x32\x64" * 16, t258=(8, 8), t277=2, t338=1), "tif", {}, 205),
    "colour, premultiplied": (tiff(b"\x32\x32\x32\x64" * 16, t258=(8,) * 4, t262=2, t277=4, t338=1), "tif", {}, 205),
}


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_open_picture_of_any_depth_keeps_its_grey(tmp_path, case, colour):
    content, ending, options, expected = CASES[case]
    path = tmp_path / f"one.{ending}"
    path.write_bytes(content) if isinstance(content, bytes) else content.save(path, **options)
    pixels = np.asarray(open_picture(path, colour)[0]).astype(int)
    assert abs(pixels - expected).max() <= 1 if "premultiplied" in case else (pixels == expected).all()


NO_DEPTH = {
    "floats above 1": np.full((4, 4), 100, np.float32),
    "floats below 0": np.full((4, 4), -0.5, np.float32),
    "floats that are no numbers": np.full((4, 4), np.nan, np.float32),
    "infinite floats": np.full((4, 4), np.inf, np.float32),
    "integers of 32 bits": np.full((4, 4), 20_000, np.int32),
}


@pytest.mark.parametrize("case", NO_DEPTH)
def test_load_data_leaves_out_pictures_of_unknown_depth(tmp_path, log_text, case):
    Image.fromarray(NO_DEPTH[case]).save(write_pets(tmp_path / "pets") / "ant" / "odd.tif")
    data = load_data(tmp_path / "pets")
    assert data.unreadable == ["ant/odd.tif"]
    assert "1 picture does not open and is left out: ant/odd.tif" in log_text()


@pytest.mark.parametrize("bits, kind", [(8, "b"), (16, "h")])
def test_load_data_leaves_out_signed_pictures(tmp_path, bits, kind):
    data = tiff(struct.pack(f"<16{kind}", *[-98] * 16), t258=bits, t339=2)
    write_picture(write_pets(tmp_path / "pets") / "ant" / "odd.tif", data)
    assert load_data(tmp_path / "pets").unreadable == ["ant/odd.tif"]


@pytest.mark.parametrize("on_disk", [False, True])
def test_unreadable_names_the_folders_of_pictures_with_the_same_name(tmp_path, monkeypatch, log_text, on_disk):
    for part, name in itertools.product(("train", "test"), ("ant", "bee")):
        write_picture(write_pets(tmp_path / "pets" / part) / name / "deep" / "x.png", b"no picture")
    monkeypatch.setattr("unlearn_lib.data.folders.IN_MEMORY", 0 if on_disk else 2**31)
    data = load_data(tmp_path / "pets")
    for part in (data.train, data.val, data.test):
        part.batch(torch.arange(len(part)))
    assert sorted(data.unreadable) == [
        f"{part}/{name}/deep/x.png" for part in ("test", "train") for name in ("ant", "bee")
    ]


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_load_data_takes_the_first_frame_of_an_animation_and_logs_it(tmp_path, log_text, ending):
    path = write_pets(tmp_path / "pets") / "ant" / f"moving.{ending}"
    frames = [Image.new("L", (6, 5), value).convert("RGB") for value in (78, 255, 0)]
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    assert abs(np.asarray(open_picture(path)[0]).astype(int) - 78).max() <= 1
    load_data(tmp_path / "pets")
    assert f"the first is taken: 1 (ant/moving.{ending})" in log_text()


def test_load_data_does_not_take_a_photograph_with_a_second_picture_for_an_animation(tmp_path, log_text):
    path = write_pets(tmp_path / "pets") / "ant" / "phone.jpg"
    Image.new("RGB", (6, 5)).save(path, format="MPO", save_all=True, append_images=[Image.new("RGB", (6, 5))])
    load_data(tmp_path / "pets")
    assert "frames" not in log_text()


@pytest.mark.parametrize("kind", ["L", "I;16", "RGB"])
@pytest.mark.parametrize("orientation, size", [(1, (6, 4)), (6, (4, 6)), (8, (4, 6))])
def test_choose_framing_takes_the_shape_of_the_first_picture_upright(tmp_path, kind, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new(kind, (6, 4)).save(tmp_path / "a.png", exif=exif)
    framing = choose_framing([tmp_path / "a.png"])
    assert framing.shape == (3 if kind == "RGB" else 1, *size[::-1])


@pytest.mark.parametrize(
    "kinds, channels",
    [(["L", "1", "I;16", "LA"], 1), (["L", "RGB"], 3), (["P"], 3), (["RGBA", "L"], 3), (["CMYK"], 3)],
)
def test_choose_framing_is_grey_where_no_picture_has_colours(tmp_path, kinds, channels):
    paths = [tmp_path / f"{i}.{'tif' if kind == 'CMYK' else 'png'}" for i, kind in enumerate(kinds)]
    for path, kind in zip(paths, kinds, strict=True):
        Image.new(kind, (6, 5)).save(path)
    assert choose_framing(paths).shape == (channels, 5, 6)


@pytest.mark.parametrize("ending", sorted(Image.registered_extensions()))
@pytest.mark.parametrize("content", [b"", b"neither picture nor sense", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"])
def test_open_picture_refuses_damaged_files_of_every_ending(tmp_path, ending, content):
    path = write_picture(tmp_path / f"bad{ending}", content)
    with pytest.raises(ValueError, match=f"bad{ending} does not open"):
        open_picture(path)


@pytest.mark.parametrize("kind, ending", [("RGB", "png"), ("RGB", "jpg"), ("L", "tif"), ("P", "gif"), ("RGB", "webp")])
def test_load_data_leaves_out_truncated_pictures(tmp_path, kind, ending):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    whole = write_picture(tmp_path / f"whole.{ending}", Image.fromarray(noise).convert(kind)).read_bytes()
    write_picture(write_pets(tmp_path / "pets") / "bee" / f"half.{ending}", whole[: len(whole) // 2])
    assert load_data(tmp_path / "pets").unreadable == [f"bee/half.{ending}"]


def test_load_data_leaves_out_a_decompression_bomb(tmp_path):
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
    png += struct.pack(">I", zlib.crc32(b"IHDR" + header)) + b"\0\0\0\0IDAT" + b"\0\0\0\0"
    write_picture(write_pets(tmp_path / "pets") / "ant" / "bomb.png", png)
    assert load_data(tmp_path / "pets").unreadable == ["ant/bomb.png"]


@pytest.mark.parametrize("size", [(1, 1_000_000), (1_000_000, 1)])
def test_pictures_crop_a_very_thin_picture_before_scaling_it(tmp_path, size):
    Image.new("L", size, 78).save(tmp_path / "thin.png")  # 256 GB once its shorter side is scaled to 500
    assert (Pictures([tmp_path / "thin.png"], Framing((1, 480, 480), 500))[0] == 78).all()
