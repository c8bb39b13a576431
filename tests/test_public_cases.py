"""Other people's pictures, folders and lists of classes, one case a test: read rightly, or refused in a sentence."""

import itertools
import logging
import os
import struct
import sys
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from tiny import tiny_data, tiny_network

from unlearn_lib import (
    Experiment,
    ZeroShotUnlearner,
    evaluate,
    fit,
    load_data,
    make_impressions,
    make_model,
    mask,
    parse_classes,
    score,
    split,
)
from unlearn_lib.__main__ import main
from unlearn_lib.common import UserError, as_number, join_names, printable
from unlearn_lib.data.pictures import Pictures, first_framing, open_picture
from unlearn_lib.networks import Framing

GREY16 = Image.fromarray(np.full((4, 4), 20_000, np.uint16))


@pytest.fixture(autouse=True)
def heard(caplog):
    """What the log says, as one text."""
    caplog.set_level(logging.INFO, "unlearn_lib")
    logging.getLogger("unlearn_lib").propagate = True
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


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


def write(path, content="RGB", value=90):
    """A picture (its mode, or an Image) or bytes at `path`, whose folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        image = Image.new(content, (6, 5), value) if isinstance(content, str) else content
        image.save(path, "PNG" if path.suffix in ("", ".txt") else None)
    return path


def pets(root):
    """Two classes of six pictures each."""
    for name, value in (("ant", 30), ("bee", 200)):
        for i in range(6):
            write(root / name / f"{i}.png", "L", value + i)
    return root


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
def test_a_picture_of_any_depth_has_its_own_grey(tmp_path, case, colour):
    content, ending, options, expected = CASES[case]
    path = tmp_path / f"one.{ending}"
    path.write_bytes(content) if isinstance(content, bytes) else content.save(path, **options)
    pixels = np.asarray(open_picture(path, colour)).astype(int)
    assert abs(pixels - expected).max() <= 1 if "premultiplied" in case else (pixels == expected).all()


NO_DEPTH = {
    "floats above 1": np.full((4, 4), 100, np.float32),
    "floats below 0": np.full((4, 4), -0.5, np.float32),
    "floats that are no numbers": np.full((4, 4), np.nan, np.float32),
    "infinite floats": np.full((4, 4), np.inf, np.float32),
    "integers of 32 bits": np.full((4, 4), 20_000, np.int32),
}


@pytest.mark.parametrize("case", NO_DEPTH)
def test_a_picture_of_unknown_depth_is_left_out_by_name(tmp_path, heard, case):
    Image.fromarray(NO_DEPTH[case]).save(pets(tmp_path / "pets") / "ant" / "odd.tif")
    data = load_data(tmp_path / "pets")
    assert data.unreadable == ["ant/odd.tif"]
    assert "1 picture does not open and is left out: ant/odd.tif" in heard()


@pytest.mark.parametrize("bits, kind", [(8, "b"), (16, "h")])
def test_a_picture_with_signs_is_left_out_by_name(tmp_path, bits, kind):
    data = tiff(struct.pack(f"<16{kind}", *[-98] * 16), t258=bits, t339=2)
    write(pets(tmp_path / "pets") / "ant" / "odd.tif", data)
    assert load_data(tmp_path / "pets").unreadable == ["ant/odd.tif"]


@pytest.mark.parametrize("on_disk", [False, True])
def test_two_damaged_pictures_of_one_name_are_told_apart(tmp_path, monkeypatch, heard, on_disk):
    for part, name in itertools.product(("train", "test"), ("ant", "bee")):
        write(pets(tmp_path / "pets" / part) / name / "deep" / "x.png", b"no picture")
    monkeypatch.setattr("unlearn_lib.data.folders.IN_MEMORY", 0 if on_disk else 2**31)
    data = load_data(tmp_path / "pets")
    for part in (data.train, data.val, data.test):
        part.batch(torch.arange(len(part)))
    assert sorted(data.unreadable) == [
        f"{part}/{name}/deep/x.png" for part in ("test", "train") for name in ("ant", "bee")
    ]


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_of_an_animated_file_the_first_frame_is_taken_and_that_is_said(tmp_path, heard, ending):
    path = pets(tmp_path / "pets") / "ant" / f"moving.{ending}"
    frames = [Image.new("L", (6, 5), value).convert("RGB") for value in (78, 255, 0)]
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    assert abs(np.asarray(open_picture(path)).astype(int) - 78).max() <= 1
    load_data(tmp_path / "pets")
    assert f"the first is taken: 1 (ant/moving.{ending})" in heard()


def test_a_photograph_with_a_second_picture_inside_is_no_animation(tmp_path, heard):
    path = pets(tmp_path / "pets") / "ant" / "phone.jpg"
    Image.new("RGB", (6, 5)).save(path, format="MPO", save_all=True, append_images=[Image.new("RGB", (6, 5))])
    load_data(tmp_path / "pets")
    assert "frames" not in heard()


@pytest.mark.parametrize("kind", ["L", "I;16", "RGB"])
@pytest.mark.parametrize("orientation, size", [(1, (6, 4)), (6, (4, 6)), (8, (4, 6))])
def test_the_shape_is_that_of_the_first_picture_upright(tmp_path, kind, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new(kind, (6, 4)).save(tmp_path / "a.png", exif=exif)
    framing = first_framing([tmp_path / "a.png"])
    assert framing.shape == (3 if kind == "RGB" else 1, *size[::-1])


@pytest.mark.parametrize(
    "kinds, channels",
    [(["L", "1", "I;16", "LA"], 1), (["L", "RGB"], 3), (["P"], 3), (["RGBA", "L"], 3), (["CMYK"], 3)],
)
def test_pictures_are_grey_where_none_has_colours(tmp_path, kinds, channels):
    paths = [tmp_path / f"{i}.{'tif' if kind == 'CMYK' else 'png'}" for i, kind in enumerate(kinds)]
    for path, kind in zip(paths, kinds, strict=True):
        Image.new(kind, (6, 5)).save(path)
    assert first_framing(paths).shape == (channels, 5, 6)


# Files that are no pictures, or damaged ones.


@pytest.mark.parametrize("ending", sorted(Image.registered_extensions()))
@pytest.mark.parametrize("content", [b"", b"neither picture nor sense", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"])
def test_a_file_that_is_no_picture_is_left_out_whatever_its_ending(tmp_path, ending, content):
    path = write(tmp_path / f"bad{ending}", content)
    with pytest.raises(ValueError, match=f"bad{ending} does not open"):
        open_picture(path)


@pytest.mark.parametrize("kind, ending", [("RGB", "png"), ("RGB", "jpg"), ("L", "tif"), ("P", "gif"), ("RGB", "webp")])
def test_a_picture_that_was_cut_short_is_left_out_by_name(tmp_path, kind, ending):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    whole = write(tmp_path / f"whole.{ending}", Image.fromarray(noise).convert(kind)).read_bytes()
    write(pets(tmp_path / "pets") / "bee" / f"half.{ending}", whole[: len(whole) // 2])
    assert load_data(tmp_path / "pets").unreadable == [f"bee/half.{ending}"]


def test_a_picture_of_more_pixels_than_memory_is_left_out_by_name(tmp_path):
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
    png += struct.pack(">I", zlib.crc32(b"IHDR" + header)) + b"\0\0\0\0IDAT" + b"\0\0\0\0"
    write(pets(tmp_path / "pets") / "ant" / "bomb.png", png)
    assert load_data(tmp_path / "pets").unreadable == ["ant/bomb.png"]


@pytest.mark.parametrize("size", [(1, 1_000_000), (1_000_000, 1)])
def test_a_very_thin_picture_does_not_fill_the_memory(tmp_path, size):
    Image.new("L", size, 78).save(tmp_path / "thin.png")  # 256 GB once its shorter side is scaled to 500
    assert (Pictures([tmp_path / "thin.png"], Framing((1, 480, 480), 500))[0] == 78).all()


# Folders.


def test_pictures_in_folders_below_a_class_are_read(tmp_path):
    root = pets(tmp_path / "pets")
    write(root / "ant" / "red" / "small" / "7.png")
    data = load_data(root)
    assert len(data.train) + len(data.val) + len(data.test) == 13


@pytest.mark.parametrize(
    "ending", ["jfif", "JPE", "tga", "gif", "jp2", "dib", "pcx", "ico", "qoi", "sgi", "PbM", "mpo"]
)
def test_every_ending_that_pillow_opens_is_read(tmp_path, heard, ending):
    path = pets(tmp_path / "pets") / "ant" / f"7.{ending}"
    Image.new("1" if ending == "PbM" else "RGB", (6, 5)).save(path)
    data = load_data(tmp_path / "pets")
    assert len(data.train) + len(data.val) + len(data.test) == 13
    assert "7." not in heard()


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "ant/notes.txt",
        "ant/picture",
        "ant/picture.heic.txt",
        "ant/Thumbs.db",
        "ant/.hidden.png",
        "ant/._0.png",
        ".DS_Store",
        "ant/deep/labels.csv",
        "picture.png",
    ],
)
def test_a_file_that_is_not_read_is_named(tmp_path, heard, name):
    write(pets(tmp_path / "pets") / name, b"something")
    data = load_data(tmp_path / "pets")
    assert list(data.passed_over) == [name]
    assert f"passed over: 1 ({name})" in heard()
    assert len(data.train) + len(data.val) + len(data.test) == 12


@pytest.mark.parametrize("name", ["__MACOSX", "@eaDir", ".git", ".ipynb_checkpoints", "ant/__MACOSX", "ant/.cache"])
def test_a_folder_that_is_no_class_is_named(tmp_path, name):
    write(pets(tmp_path / "pets") / name / "0.png")
    data = load_data(tmp_path / "pets")
    assert (data.classes, list(data.passed_over)) == (["ant", "bee"], [f"{name}/"])


@pytest.mark.parametrize("beside", ["val", "extra", "Meta"])
def test_a_folder_beside_train_and_test_is_named(tmp_path, beside):
    for part in ("train", "test", beside):
        pets(tmp_path / "pets" / part)
    assert list(load_data(tmp_path / "pets").passed_over) == [f"{beside}/"]


@pytest.mark.parametrize("target", [".", "..", "../..", "../ant"])
def test_a_link_back_to_where_it_lies_is_not_followed(tmp_path, target):
    root = pets(tmp_path / "pets")
    (root / "ant" / "again").symlink_to(target, target_is_directory=True)
    data = load_data(root)
    assert list(data.passed_over) == ["ant/again/"]
    assert len(data.train) + len(data.val) + len(data.test) == 12


def test_a_class_folder_that_is_a_link_is_read(tmp_path):
    root = pets(tmp_path / "pets")
    pets(tmp_path / "elsewhere")
    (root / "cat").symlink_to(tmp_path / "elsewhere" / "ant")
    assert load_data(root).classes == ["ant", "bee", "cat"]


def test_a_link_to_nothing_is_named(tmp_path):
    (pets(tmp_path / "pets") / "ant" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert list(load_data(tmp_path / "pets").passed_over) == ["ant/gone.png"]


def test_a_pipe_does_not_hold_the_reading_up(tmp_path):
    os.mkfifo(pets(tmp_path / "pets") / "ant" / "pipe.png")
    assert list(load_data(tmp_path / "pets").passed_over) == ["ant/pipe.png"]


@pytest.mark.parametrize("below", [(), ("notes.txt",), ("deep/deeper/notes.txt",), (".hidden.png",)])
@pytest.mark.parametrize("part", ["", "train/"])
def test_a_class_without_pictures_is_refused_by_name(tmp_path, part, below):
    root = tmp_path / "pets"
    pets(root / part)
    if part:
        pets(root / "test")
    (root / part / "cow").mkdir()
    for name in below:
        write(root / part / "cow" / name, b"something")
    with pytest.raises(ValueError, match=f"no pictures in .*{part}cow; put some there or take it away"):
        load_data(root)


SPLITS = [
    ("Train", "Test", "Meta"),
    ("training", "validation"),
    ("training", "test"),
    ("Train", "val"),
    ("TRAIN", "VAL"),
    ("train_images", "test_images"),
    ("trainset", "testset"),
    ("train2017", "val2017"),
    ("Training", "docs"),
]


@pytest.mark.parametrize("names", SPLITS)
def test_folders_that_look_like_splits_in_other_words_are_asked_about(tmp_path, names):
    for name in names:
        pets(tmp_path / "signs" / name)
    with pytest.raises(ValueError, match=f"the folders .*{names[0]}.* look like splits; are they"):
        load_data(tmp_path / "signs")


def test_two_such_folders_are_asked_about_also_where_they_hold_pictures_alone(tmp_path):
    for name in ("Train/0.png", "Train/1.png", "Test/0.png", "Test/1.png", "cow/0.png", "cow/1.png"):
        write(tmp_path / "signs" / name, "L")
    with pytest.raises(ValueError, match="the folders Test, Train in .* look like splits"):
        load_data(tmp_path / "signs")


def test_a_class_may_be_called_like_a_split(tmp_path):
    root = pets(tmp_path / "vehicles")
    write(root / "Train" / "0.png")
    write(root / "Train" / "1.png")
    assert load_data(root).classes == ["Train", "ant", "bee"]


@pytest.mark.parametrize(
    "files, sentence",
    [
        ([], "has no pictures"),
        (["notes.txt"], "has no pictures"),
        (["0.png", "1.png"], "has no pictures"),
        (["train/ant/0.png"], "a folder train, but neither test nor val"),
        (["train/ant/0.png", "Test/ant/0.png"], "a folder train, but neither test nor val"),
        (["train/ant/0.png", "test/0.png"], "test has no pictures"),
        (["train/ant/0.png", "test/cow/0.png"], "classes that train has not: cow"),
        (["train/0.png", "test/ant/0.png"], "train has no pictures"),
        (["ant/0.png", "bee/0.png"], "has no test pictures; at least two pictures of some class"),
        (["test/notes.txt"], "test has no pictures"),
    ],
)
def test_a_folder_that_is_no_data_set_is_refused(tmp_path, files, sentence):
    (tmp_path / "pets").mkdir()
    for name in files:
        write(tmp_path / "pets" / name, "L")
    with pytest.raises(ValueError, match=sentence):
        load_data(tmp_path / "pets")


@pytest.mark.parametrize("name", ["", " ", "nowhere", "~nobody/x", "x" * 300, "a\0b", "pets.zip", "notes.txt"])
def test_a_data_set_that_there_is_not_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "notes.txt", b"no folder")
    with pytest.raises(FileNotFoundError, match="neither a data set"):
        load_data(name)


@pytest.mark.parametrize("name", ["digits", "mnist", "MNIST", "Shapes"])
def test_a_folder_called_like_a_known_set_has_another_name(tmp_path, name):
    data = load_data(pets(tmp_path / name))
    assert data.name == data.title == f"folder-{name}"
    assert data.source == f"the image folder folder-{name}"
    assert (data.mean, data.std) == (0.5, 0.25)


def test_a_known_set_is_itself_beside_a_folder_of_its_name(tmp_path, monkeypatch):
    pets(tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    assert load_data("digits").num_classes == 10
    assert load_data("./digits").name == "folder-digits"


def test_a_class_without_test_pictures_is_named(tmp_path, heard):
    for part in ("train", "test"):
        pets(tmp_path / "pets" / part)
    for path in (tmp_path / "pets" / "test" / "bee").iterdir():
        path.unlink()
    data = load_data(tmp_path / "pets")
    assert "classes without test pictures, of which nothing can be measured: 1 (bee)" in heard()
    assert data.untested == [1]
    assert data.choose("bee") == [1]
    assert "forget: no test pictures of 1 (bee)" in heard()


def test_one_class_alone_is_wondered_at(tmp_path, heard):
    pets(tmp_path / "download" / "pets")
    load_data(tmp_path / "download")
    assert "holds one class alone, pets; is" in heard()


@pytest.mark.parametrize("count, splits", [(1, (1, 0)), (2, (1, 1)), (5, (4, 1)), (6, (5, 1)), (20, (18, 2))])
def test_few_pictures_a_class_are_enough_to_validate_on(tmp_path, count, splits):
    for name in ("ant", "bee"):
        for i in range(count):
            write(tmp_path / "pets" / "train" / name / f"{i}.png", "L")
        write(tmp_path / "pets" / "test" / name / "0.png", "L")
    data = load_data(tmp_path / "pets")
    assert (len(data.train), len(data.val)) == tuple(2 * n for n in splits)


# Mirroring.


def arrows(root, count=15):
    random = np.random.default_rng(0)
    for name, sign in (("left", 1), ("right", -1)):
        for i in range(count):
            image = Image.new("L", (24, 24), 255)
            x, y = 12 + random.uniform(-2, 2, 2)
            outline = [(-9, 0), (0, -7), (0, -3), (9, -3), (9, 3), (0, 3), (0, 7)]
            ImageDraw.Draw(image).polygon([(x + sign * right, y + down) for right, down in outline], fill=0)
            write(root / name / f"{i}.png", image)
    return root


def test_arrows_to_the_left_and_to_the_right_are_hinted_at(tmp_path, heard):
    assert load_data(arrows(tmp_path / "arrows")).flip
    assert "mirrored, pictures of left look like right; --no-flip (flip=False) mirrors none" in heard()


def test_arrows_are_not_mirrored_where_that_is_switched_off(tmp_path, heard):
    assert not load_data(arrows(tmp_path / "arrows"), flip=False).flip
    assert "mirrored" not in heard()


def test_shapes_look_like_themselves_in_the_mirror(heard):
    assert load_data("shapes").flip
    assert "mirrored" not in heard()


def test_digits_look_like_no_digit_in_the_mirror(heard):
    assert load_data("digits", flip=True).flip  # the nearest to a mirrored 3 is an 8, from afar
    assert "mirrored" not in heard()


# Classes.

TO_TEN = sorted(map(str, range(1, 11)))  # a folder of classes 1 to 10: 1, 10, 2, ...


@pytest.mark.parametrize(
    "given, classes, expected",
    [
        ("2", ["0", "1", "10", "11", "2"], [4]),
        ("10", TO_TEN, [1]),
        (["1", "10"], TO_TEN, [0, 1]),
        ("0", TO_TEN, [0]),  # no class has that name
        (2, ["0", "1", "10", "11", "2"], [2]),  # an int is an index
        (np.int64(2), TO_TEN, [2]),
        (torch.tensor([0, 2]), TO_TEN, [0, 2]),
        (range(2), TO_TEN, [0, 1]),
        ("1-2", ["1-2", "3-4", "5"], [0]),
        ("0-1", ["1-2", "3-4", "5"], [0, 1]),
        ("1-3", TO_TEN, [1, 2, 3]),
        ("01", ["00", "01", "1"], [1]),
        ("-1", ["0", "-1"], [1]),
        ("1.5", ["1", "1.5"], [1]),
        ("a b", ["a", "a b"], [1]),
        ("~", ["a", "~"], [1]),
        ("n01440764", ["tench", "n01440764"], [1]),
        ("", ["", "a"], [0]),
        (("3", "3", 3), ["a", "b", "c", "d"], [3]),
    ],
)
def test_an_exact_name_wins_and_a_number_is_an_index_where_there_is_none(given, classes, expected):
    assert parse_classes(given, classes, wnids=["n01440764", *classes[1:]]) == expected
    assert parse_classes(expected, classes) == expected


@pytest.mark.parametrize(
    "given, said",
    [
        ("0", "0 was read as an index: class 1 (1)"),
        (1, "1 was read as an index: class 1 (10)"),
        ("0-2", "0-2 was read as an index: class 3 (1, 10, 2)"),
    ],
)
def test_the_log_says_which_class_a_number_took_where_names_are_numbers(heard, given, said):
    parse_classes(given, TO_TEN)
    assert said in heard()


@pytest.mark.parametrize("given", ["1", ["10", "2"]])
def test_the_log_says_nothing_where_a_name_was_meant(heard, given):
    parse_classes(given, TO_TEN)
    assert not heard()


@pytest.mark.parametrize(
    "given",
    [
        *["11", "11-12", "5-4", "-1", "0--1", "1.0", "1e0", "²", "ant", "1,2", "[1]", "~nobody", ".", "/", "-", ""],
        *[" 1", "1 ", "x" * 300, "a\0b", None, 1.0, -1, 10, [None], [[1]], [b"1"]],
    ],
)
def test_what_means_no_class_is_refused_with_what_is_accepted(given):
    with pytest.raises(ValueError, match="forget: no class .* is accepted"):
        parse_classes(given, TO_TEN)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_list_of_classes_is_read_whichever_editor_wrote_it(tmp_path, encoding, end):
    (tmp_path / "list.txt").write_bytes(end.join(["élan", " bee ", "", "0-1"]).encode(encoding))
    assert parse_classes(str(tmp_path / "list.txt"), ["ant", "bee", "cow", "élan"]) == [0, 1, 3]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le", "utf-32"])
def test_a_list_of_classes_in_no_known_encoding_is_refused(tmp_path, encoding):
    (tmp_path / "list.txt").write_bytes("élan\n".encode(encoding))
    with pytest.raises(ValueError, match="forget: .*list.txt is not text in UTF-8 or UTF-16"):
        parse_classes(str(tmp_path / "list.txt"), ["ant", "élan"])


def test_a_list_that_names_itself_is_refused(tmp_path):
    path = write(tmp_path / "list.txt", str(tmp_path / "list.txt").encode())
    with pytest.raises(ValueError, match="forget: no class .*list.txt"):
        parse_classes(str(path), ["ant", "bee"])


# Folders at random: every picture is read with the right class, or named.

FORMATS = {".jpg": "JPEG", ".tif": "TIFF", ".gif": "GIF", ".bmp": "BMP", ".webp": "WEBP"}
GREYS = (0, 120, 255)  # of the classes
folders = st.lists(st.sampled_from(["a", "b", "Deep", ".dot", "__MACOSX", "d.png", "é"]), max_size=3)
stems = st.sampled_from(["f", ".f", "f.png.", "ü "])
endings = st.sampled_from([".png", ".PNG", ".jpg", ".tif", ".gif", ".bmp", ".webp", ".txt", "", ".heic", ".npy"])
MODES = ["1", "L", "RGB", "RGBA", "P", "LA", "CMYK", "LAB", "F", "I", "I;16"]
contents = st.sampled_from([*MODES, "cut", "empty", "text", "link", "linked folder", "gone", "folder"])
sizes = st.tuples(st.integers(1, 9), st.integers(1, 9)) | st.sampled_from([(1, 400), (400, 1), (70, 50)])
files = st.tuples(folders, stems, endings, contents, sizes)


def scatter(path, content, size, grey):
    """One file or link whose picture, if it is one, is as grey as its class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if content == "folder":
        path.mkdir()
    elif content == "text":
        path.write_text("no picture")
    elif content == "linked folder":
        scatter(path.with_name(f".{path.name}") / "f.png", "L", size, grey)  # passed over itself, being hidden
        path.symlink_to(f".{path.name}", target_is_directory=True)
        return path / "f.png"
    elif content == "gone":
        path.symlink_to("nowhere")
    elif content == "link":
        target = scatter(path.with_name(f"{path.name}.target"), "L", size, grey)
        path.symlink_to(target.name)
    else:
        image, form = Image.new("L", size, grey), FORMATS.get(path.suffix.lower(), "PNG")
        deep = {"I;16": (257, np.uint16), "F": (1 / 255, np.float32), "I": (257, np.int32)}
        if content in deep and (form == "TIFF" or (content, form) == ("I;16", "PNG")):
            times, kind = deep[content]
            image = Image.fromarray(np.full(size[::-1], grey * times, kind))
        elif content == "CMYK" and form in ("TIFF", "JPEG"):
            image = Image.new("CMYK", size, (0, 0, 0, 255 - grey))
        elif content == "LAB" and form == "TIFF":
            image = Image.new("LAB", size, (grey, 128, 128))
        elif content == "1" and grey in (0, 255):
            image = image.convert("1", dither=Image.Dither.NONE)
        elif content in ("RGB", "RGBA", "P", "LA") and form in ("PNG", "GIF", "TIFF"):
            image = image.convert(content)
        image.save(path, form)
        whole = path.read_bytes()
        path.write_bytes({"cut": whole[: len(whole) // 3], "empty": b""}.get(content, whole))
    return path


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(files, max_size=5), min_size=2, max_size=3), st.booleans(), st.booleans())
def test_in_a_folder_at_random_every_picture_is_read_with_its_class_or_named(tmp_path_factory, specs, splits, loop):
    root = tmp_path_factory.mktemp("random") / "pets"
    written = []
    for part in ("train", "test") if splits else ("",):
        for label, chosen in enumerate(specs):
            sound = [([], "sound", ".png", "L", (4, 4))] * 3
            for below, stem, ending, content, size in [*sound, *chosen]:
                path = root.joinpath(part, f"class{label}", *below, f"{stem}{len(written)}{ending}")
                written.append(scatter(path, content, size, GREYS[label]))
            if loop:
                (root / part / f"class{label}" / "round").symlink_to("..")
    written = [path for path in written if not path.is_dir()]
    data = load_data(root, shape=(1, 4, 4))
    splits = (data.train, data.val, data.test)
    for part in splits:
        distance = (part.images.float().mean((1, 2, 3))[:, None] - torch.tensor(GREYS)).abs()
        assert torch.equal(distance.argmin(1), part.labels)
    assert sum(map(len, splits)) == sum(not named(path.relative_to(root), data) for path in written)


def named(path, data):
    """Whether a file is named as unreadable or passed over, itself or a folder that it lies in."""
    above = {f"{folder}/" for folder in path.parents}
    return str(path) in data.unreadable or bool({str(path), *above} & set(data.passed_over))


def test_names_that_are_no_text_can_be_listed():
    assert join_names(["a", "b\udcff"]).encode() == b"a, b?"


# Bad input: what people type, and the sentence that they get. None ends in a traceback, none in a number.


@pytest.fixture(scope="module")
def reach(tmp_path_factory):
    """What the lists below call: the program's functions, at the tiny network where they need one."""
    folder, data, net = tmp_path_factory.mktemp("bad"), tiny_data(8, 4), tiny_network()
    pets(folder / "pets")
    drawn = make_impressions(net, "head", samples=2)
    spec = {"model": "lenet5", "data": "digits", "forget": [1], "runs_root": folder / "runs"}
    return {
        "Experiment": lambda **given: Experiment(**spec | given),
        "choose": lambda given: Experiment(**spec | {"forget": given}).forget_classes,
        "classes": lambda given: parse_classes(given, ["cat", "dog", "3", "1"]),
        "load": lambda name="digits", **given: load_data(name, folder, **given),
        "make": lambda name="lenet5", classes=10, **given: make_model(name, classes, **given),
        "fit": lambda **given: fit(given.pop("model", None) or tiny_network(), data, **{"epochs": 1} | given),
        "impressions": lambda **given: make_impressions(net, **{"layer": "head", "samples": 1} | given),
        "unlearner": lambda forget=1, **given: ZeroShotUnlearner(net, drawn, forget, **given),
        "mask": lambda forget: mask(net, forget),
        "evaluate": lambda forget, model=net: evaluate(model, data, forget),
        "score": lambda forget: score(torch.eye(4, dtype=torch.int64), forget),
        "split": lambda layer: split(net, layer),
        "net": tiny_network,
        "nan": float("nan"),
        "inf": float("inf"),
        "np": np,
        "torch": torch,
        "folder": folder,
    }


BAD = """
Experiment(seed="abc")                     seed: 'abc' given; a whole number from 0 to
Experiment(seed="")                        seed: '' given
Experiment(seed=None)                      seed: None given
Experiment(seed=1.5)                       seed: 1.5 given
Experiment(seed=-1)                        seed: -1 given
Experiment(seed=2**70)                     seed: 1180591620717411303424 given
Experiment(seed=True)                      seed: True given
Experiment(train_epochs="x")               train_epochs: 'x' given; a whole number is accepted
Experiment(train_epochs=1.5)               train_epochs: 1.5 given; a whole number is accepted
Experiment(train_epochs="0")               epochs: 0 given; a positive, finite number is accepted
Experiment(train_epochs=nan)               epochs: nan given
Experiment(train_epochs=True)              train_epochs: True given
Experiment(train_lr="fast")                train_lr: 'fast' given; a number is accepted
Experiment(train_lr="0,003")               train_lr: '0,003' given
Experiment(train_lr=b"1")                  train_lr: b'1' given
Experiment(train_lr="nan")                 lr: nan given; a positive, finite number is accepted
Experiment(train_lr="-inf")                lr: -inf given
Experiment(train_lr=[0.1, 0.2])            train_lr: [0.1, 0.2] given
Experiment(train_batch_size="")            train_batch_size: '' given
Experiment(train_batch_size="64.5")        train_batch_size: '64.5' given
Experiment(train_batch_size="-3")          batch_size: -3 given
Experiment(dropout="x")                    dropout: 'x' given; a number is accepted
Experiment(dropout="1.0")                  dropout: 1.0 given; a rate from 0 up to, not including, 1
Experiment(dropout=nan)                    dropout: nan given
Experiment(label_smoothing="much")         label_smoothing: 'much' given
Experiment(size="28.5")                    size: '28.5' given
Experiment(size="28 px")                   size: '28 px' given
Experiment(size=0)                         size: 0 given; at least 1 is accepted
Experiment(size="32")                      size: 32 given; lenet5 takes 28
Experiment(save_every="never")             save_every: 'never' given
Experiment(save_every=0)                   save_every: 0 given
Experiment(memory="512 MB")                memory: '512 MB' given
Experiment(memory=nan)                     memory: nan given
Experiment(flip="no")                      flip: 'no' given; True or False is accepted
Experiment(flip=2)                         flip: 2 given
Experiment(force="perhaps")                force: 'perhaps' given
Experiment(weights="").train()             weights: '' given; for lenet5 the file of a state dict is accepted
Experiment(weights={}).train()             weights: '{}' given
Experiment(device="gpu")                   device: 'gpu' is not to be had here
Experiment(device=0)                       device: '0' is not to be had here
Experiment(version="a/b")                  version-name: 'a/b' given
Experiment(version="a\\nb")                version-name: 'a\\nb' given
Experiment(version="a\\0b")                version-name: 'a\\x00b' given
Experiment(model="LeNet5")                 model: 'LeNet5' given; lenet5, karpathynet
Experiment(model="")                       model: '' given
Experiment(model=None)                     model: 'None' given
Experiment(model="timm/nothing")           model: 'timm/nothing' given; timm has
Experiment(model=":")                      model: : makes no network
Experiment(model="no.such:thing")          model: no.such:thing makes no network
Experiment(data=None).dataset              data: 'None' is neither a data set
Experiment(data=3).dataset                 data: '3' is neither a data set
Experiment(data="Digits").dataset          data: 'Digits' is neither a data set
Experiment().unlearn(layer="")             layer: '' given (no such layer)
Experiment().unlearn(layer=3)              layer: '3' given (no such layer)
Experiment().unlearn(layer="FC3")          layer: 'FC3' given (no such layer)
Experiment().unlearn("NegGrad+")           method: 'NegGrad+' given
Experiment().unlearn(None)                 method: None given
Experiment().unlearn(recipe="")            recipe: '' given
Experiment().unlearn(samples="many")       samples: 'many' given
Experiment().unlearn(samples="1.5")        samples: '1.5' given
Experiment().unlearn(samples=0)            samples, steps: 0, None given
Experiment().unlearn(lr="x")               lr: 'x' given
Experiment().unlearn(epochs="2.5")         epochs: '2.5' given
Experiment().unlearn(forget_weight="-1")   forget_weight: -1.0 given
Experiment().unlearn(retain_weight="inf")  retain_weight: inf given
Experiment().unlearn(rate=1)               rate: no such number
choose("1 2")                              forget: no class '1 2'
choose("1,2")                              forget: no class '1,2'
choose("[1, 2]")                           forget: no class '[1, 2]'
choose("all")                              forget: no class 'all'
choose(None)                               forget: no class 'None'
choose(b"1")                               forget: no class "b'1'"
choose(True)                               forget: no class 'True'
choose([True, False])                      forget: no class 'True'
choose(np.arange(10) == 3)                 forget: no class 'False'
choose(torch.arange(10) == 3)              forget: no class 'tensor(False)'
choose([1.0])                              forget: no class '1.0'
choose("10")                               forget: no class '10'
classes("Cat")                             forget: no class 'Cat'
classes("cat,dog")                         forget: no class 'cat,dog'
classes(["cat", ["dog"]])                  forget: no class "['dog']"
classes({"cat": 1, "cow": 2})              forget: no class 'cow'
load(seed="x")                             seed: 'x' given
load(shape="28")                           shape: 28 given; channels (1 or 3), height and width are accepted
load(shape=(28, 28))                       shape: (28, 28) given
load(shape=(4, 28, 28))                    shape: (4, 28, 28) given
load(shape=(1, 0, 28))                     shape: (1, 0, 28) given
load(shape=(1, "a", 28))                   size: 'a' given
load(flip="yes")                           flip: 'yes' given
load(None)                                 data: 'None' is neither a data set
load("")                                   data: '' is neither a data set
load("pets")                               data: 'pets' is neither a data set
make(classes="ten")                        num_classes: 'ten' given
make(classes=0)                            num_classes: 0 given; at least 1 is accepted
make(classes=-1)                           num_classes: -1 given
make(classes=2.5)                          num_classes: 2.5 given
make(dropout="x")                          dropout: 'x' given
make(seed=None)                            seed: None given
make(3)                                    model: '3' given
fit(epochs="many")                         epochs: got 'many'
fit(lr="x")                                lr: got 'x'
fit(seed="x")                              seed: got 'x'
fit(weight_decay=nan)                      weight_decay: got nan
fit(weight_decay="-1")                     weight_decay: got '-1'
fit(label_smoothing="1")                   label_smoothing: got '1'
fit(forget=[9])                            classes: [9] given; at least one from 0 to 3 is accepted
fit(forget="cat")                          classes: 'cat' given
fit(model=net(classes=3))                  model: 3 outputs given; 4 are wanted, one a class
fit(model=net(classes=9))                  model: 9 outputs given
impressions(samples="x")                   samples: 'x' given
impressions(steps="2.5")                   steps: '2.5' given
impressions(steps=-1)                      samples, steps: 1, -1 given
impressions(seed="x")                      seed: 'x' given
impressions(classes="7")                   classes: [7] given
impressions(layer="")                      layer: '' given
unlearner("12")                            forget: [12] given
unlearner("cat")                           forget: 'cat' given
unlearner(1.7)                             forget: 1.7 given; a whole number is accepted
unlearner([])                              forget: none given
unlearner([True])                          forget: True given
unlearner(epochs="x")                      epochs: 'x' given
unlearner(lr="")                           lr: '' given
unlearner(seed="x")                        seed: 'x' given
unlearner(layer="")                        layer: '' given
mask([1.5])                                classes: 1.5 given
mask("12")                                 classes: [12] given
mask([])                                   classes: [] given
mask(torch.tensor([True, False]))          classes: tensor(True) given
evaluate([11])                             classes: [11] given
evaluate("cat")                            classes: 'cat' given
evaluate([1], net(classes=3))              model: its head has 3 outputs, tiny has 4 classes
score([-1])                                classes: [-1] given
score(4)                                   classes: [4] given
split("")                                  layer: '' given (no such layer); accepted: input, conv
split(None)                                layer: 'None' given
"""
BAD = [tuple(part.strip() for part in line.split("  ", 1)) for line in BAD.strip().splitlines()]


@pytest.mark.parametrize("typed, sentence", BAD, ids=[typed for typed, _ in BAD])
def test_bad_input_ends_in_one_sentence(reach, typed, sentence):
    with pytest.raises(UserError) as raised:
        eval(typed, reach)
    assert str(raised.value).startswith(sentence)
    assert "\n" not in str(raised.value)
    assert not list(reach["folder"].glob("runs/lenet5*"))  # before any work


def test_at_least_eighty_bad_inputs_are_tried():
    assert len({typed for typed, _ in BAD}) >= 80


SAME = """
Experiment(seed="3")                       Experiment(seed=3)
Experiment(seed=" 3.0 ")                   Experiment(seed=3)
Experiment(seed=np.int64(3))               Experiment(seed=3)
Experiment(train_epochs="2")               Experiment(train_epochs=2)
Experiment(train_epochs=2.0)               Experiment(train_epochs=2)
Experiment(train_lr="3e-3")                Experiment(train_lr=0.003)
Experiment(train_lr=torch.tensor(0.5))     Experiment(train_lr=0.5)
Experiment(train_batch_size="64")          Experiment(train_batch_size=64)
Experiment(dropout="0.25")                 Experiment(dropout=0.25)
Experiment(size="28")                      Experiment(size=28)
Experiment(memory="256")                   Experiment(memory=256)
Experiment(flip="False")                   Experiment(flip=False)
Experiment(flip="true")                    Experiment(flip=True)
Experiment(flip=0)                         Experiment(flip=False)
Experiment(force="False")                  Experiment(force=False)
Experiment(version=3)                      Experiment(version="3")
choose("2")                                choose(2)
choose(torch.tensor(2))                    choose([2])
load(seed="3").train.fingerprint           load(seed=3).train.fingerprint
load(flip="false").flip                    False
load(shape=("1", "8", "8")).shape          (1, 8, 8)
fit(epochs="2", lr="0.01")["lr"]           fit(epochs=2, lr=0.01)["lr"]
fit(forget="1")["train_loss"]              fit(forget=[1])["train_loss"]
impressions(samples="2").labels.tolist()   [0, 0, 1, 1, 2, 2, 3, 3]
impressions(classes="2").labels.tolist()   [2]
unlearner("2").forget                      [2]
unlearner(2, epochs="3").epochs            3
score("1")                                 score([1])
"""
SAME = [tuple(part.strip() for part in line.split("  ", 1)) for line in SAME.strip().splitlines()]


@pytest.mark.parametrize("text, number", SAME, ids=[text for text, _ in SAME])
def test_a_number_given_as_text_is_that_number(reach, text, number):
    assert eval(text, reach) == eval(number, reach)


@pytest.mark.parametrize("given", ["7", 7, 7.0, np.int32(7), np.float64(7), torch.tensor(7), torch.tensor([7.0])])
def test_whole_numbers_are_ints_whatever_they_come_as(given):
    assert type(as_number("epochs", given)) is int
    assert as_number("epochs", given) == 7


@pytest.mark.parametrize("layer", [3, "3"])
def test_a_layer_of_nn_sequential_may_be_given_as_its_number(layer):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    net.input_shape = (1, 2, 2)
    assert make_impressions(net, layer, samples=1).layer == "3"


@pytest.mark.parametrize(
    "words", ["--seed x", "--epochs 1.5", "--lr fast", "--batch-size", "--dropout none", "--size 28px"]
)
def test_a_number_that_is_none_is_refused_by_the_shell(tmp_path, capsys, words):
    with pytest.raises(SystemExit) as raised:
        main(["train", "--model", "lenet5", "--data", "digits", "--runs-root", str(tmp_path), *words.split()])
    assert raised.value.code == 2
    assert f"argument {words.split()[0]}" in capsys.readouterr().err.replace("-b/", "").replace("-e/", "").replace(
        "-d/", ""
    )


def test_a_class_folder_whose_name_is_no_text_has_a_name_that_can_be_drawn(tmp_path):
    pets(tmp_path / "pets")
    os.rename(tmp_path / "pets" / "bee", os.fsencode(tmp_path / "pets") + b"/b\xe9")
    classes = load_data(tmp_path / "pets").classes
    assert classes == ["ant", "b\\udce9"]
    assert printable(classes[1]) == classes[1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("place", ["", "ant", "bee/0.png"])
def test_what_may_not_be_read_is_named(tmp_path, place):
    locked = pets(tmp_path / "pets") / place
    locked.chmod(0)
    try:
        data = load_data(tmp_path / "pets")
        assert place in data.unreadable
    except UserError as error:
        assert str(locked) in str(error)
    finally:
        locked.chmod(0o700)


# Networks of another form, each a factory in a file of the user's.

FORMS = """
from torch import nn, compile, jit
from torch.nn import Linear, Flatten, Sequential
class Net(nn.Module):
    input_shape, end = (1, 28, 28), staticmethod(lambda y, x, training: y)
    def __init__(self, num_classes=10, end=None, bias=True):
        super().__init__()
        self.conv, self.fc, self.end = nn.Conv2d(1, 4, 3, stride=4), Linear(196, num_classes, bias), end or self.end
    def forward(self, x):
        return self.end(self.fc(self.conv(x).relu().flatten(1)), x, self.training)
class Shared(Net):
    def __init__(self, num_classes=10):
        super().__init__(num_classes)
        self.one = self.two = Linear(196, 196)
    def forward(self, x):
        return self.fc(self.two(self.one(self.conv(x).relu().flatten(1))).relu())
class Still(nn.Module):
    input_shape = (1, 28, 28)
    def forward(self, x):
        return x.flatten(1)[:, :10]
def pair(num_classes=10): return Net(num_classes, lambda y, x, training: (y, x))
def named(num_classes=10): return Net(num_classes, lambda y, x, training: {"logits": y})
def pair_in_training(num_classes=10): return Net(num_classes, lambda y, x, training: (y, x) if training else y)
def squeezed(num_classes=10): return Net(num_classes, lambda y, x, training: y.squeeze())
def softmax(num_classes=10): return Net(num_classes, lambda y, x, training: y.softmax(1))
def sigmoid(num_classes=10): return Net(num_classes, lambda y, x, training: y.sigmoid())
def tanh(num_classes=10): return Net(num_classes, lambda y, x, training: y.tanh())
def maps(num_classes=10): return Net(num_classes, lambda y, x, training: y[:, :, None, None])
def seven(num_classes=10): return Net(7)
def half(num_classes=10): return Net(num_classes).half()
def double(num_classes=10): return Net(num_classes).double()
def parallel(num_classes=10): return nn.DataParallel(Net(num_classes))
def scripted(num_classes=10): return jit.script(Sequential(Flatten(), Linear(784, num_classes)))
def compiled(num_classes=10): return compile(Net(num_classes))
def no_bias(num_classes=10): return Net(num_classes, bias=False)
def frozen(num_classes=10): return Net(num_classes).requires_grad_(False)
def nothing(num_classes=10): return None
"""


@pytest.fixture
def forms(tmp_path, monkeypatch):
    """An experiment with one of the networks above, trained for one epoch where it can be."""
    (tmp_path / "forms.py").write_text(FORMS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "forms", raising=False)
    where = {"forget": [1], "train_epochs": 1, "runs_root": tmp_path / "runs"}
    return lambda name: Experiment(f"forms:{name}", "digits", **where)


def test_a_network_whose_code_has_changed_is_another_though_its_weights_fit(forms, tmp_path, monkeypatch):
    run = forms("no_bias").train()
    assert forms("no_bias").train().fingerprint() == run.fingerprint()
    edited = FORMS.replace(".relu()", ".tanh()") + "\n"  # of another length: Python tells files of one second by it
    (tmp_path / "forms.py").write_text(edited)
    monkeypatch.delitem(sys.modules, "forms")
    for use in (forms("no_bias").train, forms("no_bias").unlearn, run.load_model):
        with pytest.raises(UserError, match="model: its code does something else than that which forms_no_bias"):
            use()


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("pair", "model: Net returns a tuple; one that returns its logits"),
        ("named", "model: Net returns a dict; one that returns its logits"),
        ("pair_in_training", "model: it returns a tuple in training; one that returns its logits is accepted"),
        (
            "squeezed",
            "model: forms:squeezed answers a single picture with (10,), (1, 10) is wanted; flatten(1) instead",
        ),
        ("softmax", "model: forms:softmax returns probabilities (softmax); one that returns its logits is accepted"),
        ("sigmoid", "model: forms:sigmoid returns numbers between 0 and 1; one that returns its logits is accepted"),
        ("tanh", "model: forms:tanh returns numbers between -1 and 1; one that returns its logits is accepted"),
        ("maps", "model: forms:maps has 10x1x1 outputs"),
        ("seven", "model: forms:seven has 7 outputs; 10 are wanted"),
        ("half", "model: its weights are torch.float16; float32 is accepted"),
        ("double", "model: its weights are torch.float64; float32 is accepted"),
        ("parallel", "model: a DataParallel given; the network in it, its .module, is accepted"),
        ("scripted", "model: a scripted network given; the nn.Module that was scripted is accepted"),
        ("frozen", "model: none of its parameters requires a gradient"),
        ("nothing", "model: forms:nothing returns a NoneType"),
        ("Still", "model: forms:Still has no parameters"),
        ("absent", "model: forms:absent makes no network"),
    ],
)
def test_a_network_of_another_form_is_refused_in_a_sentence(forms, tmp_path, name, sentence):
    with pytest.raises(UserError) as raised:
        forms(name).train()
    assert str(raised.value).startswith(sentence)
    assert not list(tmp_path.glob("runs/forms*/config.json"))


@pytest.mark.parametrize("name", ["Net", "Shared", "compiled", "no_bias"])
def test_a_network_of_another_form_is_kept_and_opened_again(forms, name):
    experiment = forms(name)
    run = experiment.train()
    again = evaluate(experiment.load(run), experiment.dataset, [1])
    assert again["confusion"] == run.metrics["original"]["confusion"]
    assert (experiment.unlearn(samples=10).blocks["masked"] is None) == (name == "no_bias")
    if name == "no_bias":
        with pytest.raises(UserError, match="its head has no bias, which published needs"):
            experiment.unlearn("published")
