"""Other people's pictures, folders and lists of classes, one case a test: read rightly, or refused in a sentence."""

import logging
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from unlearn_lib import load_data, parse_classes
from unlearn_lib.common import listed
from unlearn_lib.data.pictures import decode, first_framing, open_picture
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
    assert (decode(tmp_path / "thin.png", Framing((1, 480, 480), 500)) == 78).all()


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


@pytest.mark.parametrize("name", ["__MACOSX", ".git", ".ipynb_checkpoints", "ant/__MACOSX", "ant/.cache"])
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
folders = st.lists(st.sampled_from(["a", "b", "Deep", ".dot", "__MACOSX", "d.png", "é"]), max_size=3)
stems = st.sampled_from(["f", ".f", "f.png.", "ü "])
endings = st.sampled_from([".png", ".PNG", ".jpg", ".tif", ".gif", ".bmp", ".webp", ".txt", "", ".heic", ".npy"])
contents = st.sampled_from(["L", "RGB", "RGBA", "P", "LA", "I;16", "cut", "empty", "text", "link", "gone", "folder"])
files = st.tuples(folders, stems, endings, contents, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def scatter(path, content, size, grey):
    """One file or link whose picture, if it is one, is as grey as its class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if content == "folder":
        path.mkdir()
    elif content == "text":
        path.write_text("no picture")
    elif content == "gone":
        path.symlink_to("nowhere")
    elif content == "link":
        target = scatter(path.with_name(f"{path.name}.target"), "L", size, grey)
        path.symlink_to(target.name)
    else:
        image, form = Image.new("L", size, grey), FORMATS.get(path.suffix.lower(), "PNG")
        if content == "I;16" and form in ("PNG", "TIFF"):
            image = Image.fromarray(np.full(size[::-1], grey * 257, np.uint16))
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
                written.append(scatter(path, content, size, 40 + 80 * label))
            if loop:
                (root / part / f"class{label}" / "round").symlink_to("..")
    written = [path for path in written if not path.is_dir()]
    data = load_data(root, shape=(1, 4, 4))
    splits = (data.train, data.val, data.test)
    for split in splits:
        greys = (split.images.float().mean((1, 2, 3)) - 40) / 80
        assert torch.equal(greys.round().long(), split.labels)
    assert sum(map(len, splits)) == sum(not named(path.relative_to(root), data) for path in written)


def named(path, data):
    """Whether a file is named as unreadable or passed over, itself or a folder that it lies in."""
    above = {f"{folder}/" for folder in path.parents}
    return str(path) in data.unreadable or bool({str(path), *above} & set(data.passed_over))


def test_names_that_are_no_text_can_be_listed():
    assert listed(["a", "b\udcff"]).encode() == b"a, b?"
