"""Folders of pictures as users have them: read rightly, or refused in a sentence."""

import os

import numpy as np
import pytest
import torch
from folders import write_pets, write_picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from unlearn_lib import load_data
from unlearn_lib.common import UserError, join_names, printable


def test_load_data_reads_folders_below_a_class(tmp_path):
    root = write_pets(tmp_path / "pets")
    write_picture(root / "ant" / "red" / "small" / "7.png")
    data = load_data(root)
    assert len(data.train) + len(data.val) + len(data.test) == 13


@pytest.mark.parametrize(
    "ending", ["jfif", "JPE", "tga", "gif", "jp2", "dib", "pcx", "ico", "qoi", "sgi", "PbM", "mpo"]
)
def test_load_data_reads_every_ending_that_pillow_opens(tmp_path, log_text, ending):
    path = write_pets(tmp_path / "pets") / "ant" / f"7.{ending}"
    Image.new("1" if ending == "PbM" else "RGB", (6, 5)).save(path)
    data = load_data(tmp_path / "pets")
    assert len(data.train) + len(data.val) + len(data.test) == 13
    assert "7." not in log_text()


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
def test_load_data_names_files_passed_over(tmp_path, log_text, name):
    write_picture(write_pets(tmp_path / "pets") / name, b"something")
    data = load_data(tmp_path / "pets")
    assert list(data.passed_over) == [name]
    assert f"passed over: 1 ({name})" in log_text()
    assert len(data.train) + len(data.val) + len(data.test) == 12


@pytest.mark.parametrize("name", ["__MACOSX", "@eaDir", ".git", ".ipynb_checkpoints", "ant/__MACOSX", "ant/.cache"])
def test_load_data_names_system_folders_passed_over(tmp_path, name):
    write_picture(write_pets(tmp_path / "pets") / name / "0.png")
    data = load_data(tmp_path / "pets")
    assert (data.classes, list(data.passed_over)) == (["ant", "bee"], [f"{name}/"])


@pytest.mark.parametrize("beside", ["val", "extra", "Meta"])
def test_load_data_names_folders_passed_over_next_to_train_and_test(tmp_path, beside):
    for part in ("train", "test", beside):
        write_pets(tmp_path / "pets" / part)
    assert list(load_data(tmp_path / "pets").passed_over) == [f"{beside}/"]


@pytest.mark.parametrize("target", [".", "..", "../..", "../ant"])
def test_load_data_does_not_follow_links_in_circles(tmp_path, target):
    root = write_pets(tmp_path / "pets")
    (root / "ant" / "again").symlink_to(target, target_is_directory=True)
    data = load_data(root)
    assert list(data.passed_over) == ["ant/again/"]
    assert len(data.train) + len(data.val) + len(data.test) == 12


def test_load_data_reads_a_class_folder_that_is_a_link(tmp_path):
    root = write_pets(tmp_path / "pets")
    write_pets(tmp_path / "elsewhere")
    (root / "cat").symlink_to(tmp_path / "elsewhere" / "ant")
    assert load_data(root).classes == ["ant", "bee", "cat"]


def test_load_data_names_broken_links(tmp_path):
    (write_pets(tmp_path / "pets") / "ant" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert list(load_data(tmp_path / "pets").passed_over) == ["ant/gone.png"]


def test_load_data_does_not_wait_for_a_pipe(tmp_path):
    os.mkfifo(write_pets(tmp_path / "pets") / "ant" / "pipe.png")
    assert list(load_data(tmp_path / "pets").passed_over) == ["ant/pipe.png"]


@pytest.mark.parametrize("below", [(), ("notes.txt",), ("deep/deeper/notes.txt",), (".hidden.png",)])
@pytest.mark.parametrize("part", ["", "train/"])
def test_load_data_refuses_a_class_without_pictures(tmp_path, part, below):
    root = tmp_path / "pets"
    write_pets(root / part)
    if part:
        write_pets(root / "test")
    (root / part / "cow").mkdir()
    for name in below:
        write_picture(root / part / "cow" / name, b"something")
    with pytest.raises(ValueError, match=f"no pictures in .*{part}cow"):
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
def test_load_data_refuses_folders_that_look_like_splits(tmp_path, names):
    for name in names:
        write_pets(tmp_path / "signs" / name)
    with pytest.raises(ValueError, match=f"the folders .*{names[0]}.* look like splits"):
        load_data(tmp_path / "signs")


def test_load_data_refuses_two_such_folders_without_classes(tmp_path):
    for name in ("Train/0.png", "Train/1.png", "Test/0.png", "Test/1.png", "cow/0.png", "cow/1.png"):
        write_picture(tmp_path / "signs" / name, "L")
    with pytest.raises(ValueError, match="the folders Test, Train in .* look like splits"):
        load_data(tmp_path / "signs")


def test_load_data_reads_a_class_called_like_a_split(tmp_path):
    root = write_pets(tmp_path / "vehicles")
    write_picture(root / "Train" / "0.png")
    write_picture(root / "Train" / "1.png")
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
def test_load_data_refuses_a_folder_that_is_not_a_data_set(tmp_path, files, sentence):
    (tmp_path / "pets").mkdir()
    for name in files:
        write_picture(tmp_path / "pets" / name, "L")
    with pytest.raises(ValueError, match=sentence):
        load_data(tmp_path / "pets")


@pytest.mark.parametrize("name", ["", " ", "nowhere", "~nobody/x", "x" * 300, "a\0b", "pets.zip", "notes.txt"])
def test_load_data_refuses_an_unknown_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_picture(tmp_path / "notes.txt", b"no folder")
    with pytest.raises(FileNotFoundError, match="data: got"):
        load_data(name)


@pytest.mark.parametrize("name", ["digits", "mnist", "MNIST", "Shapes"])
def test_data_name_of_a_folder_differs_from_every_known_set(tmp_path, name):
    data = load_data(write_pets(tmp_path / name))
    assert data.name == data.title == f"folder-{name}"
    assert data.source == f"the image folder folder-{name}"
    assert (data.mean, data.std) == (0.5, 0.25)


def test_load_data_prefers_a_known_set_to_a_folder_of_its_name(tmp_path, monkeypatch):
    write_pets(tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    assert load_data("digits").num_classes == 10
    assert load_data("./digits").name == "folder-digits"


def test_load_data_logs_classes_without_test_pictures(tmp_path, log_text):
    for part in ("train", "test"):
        write_pets(tmp_path / "pets" / part)
    for path in (tmp_path / "pets" / "test" / "bee").iterdir():
        path.unlink()
    data = load_data(tmp_path / "pets")
    assert "without test pictures cannot be measured: 1 (bee)" in log_text()
    assert data.untested == [1]
    assert data.choose("bee") == [1]
    assert "forget: no test pictures of 1 (bee)" in log_text()


def test_load_data_logs_that_there_is_one_class_alone(tmp_path, log_text):
    write_pets(tmp_path / "download" / "pets")
    load_data(tmp_path / "download")
    assert "holds one class alone, pets; is" in log_text()


@pytest.mark.parametrize("count, splits", [(1, (1, 0)), (2, (1, 1)), (5, (4, 1)), (6, (5, 1)), (20, (18, 2))])
def test_load_data_holds_out_a_picture_of_two(tmp_path, count, splits):
    for name in ("ant", "bee"):
        for i in range(count):
            write_picture(tmp_path / "pets" / "train" / name / f"{i}.png", "L")
        write_picture(tmp_path / "pets" / "test" / name / "0.png", "L")
    data = load_data(tmp_path / "pets")
    assert (len(data.train), len(data.val)) == tuple(2 * n for n in splits)


def test_load_data_makes_printable_class_names(tmp_path):
    write_pets(tmp_path / "pets")
    os.rename(tmp_path / "pets" / "bee", os.fsencode(tmp_path / "pets") + b"/b\xe9")
    classes = load_data(tmp_path / "pets").classes
    assert classes == ["ant", "b\\udce9"]
    assert printable(classes[1]) == classes[1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("place", ["", "ant", "bee/0.png"])
def test_load_data_names_what_may_not_be_read(tmp_path, place):
    locked = write_pets(tmp_path / "pets") / place
    locked.chmod(0)
    try:
        data = load_data(tmp_path / "pets")
        assert place in data.unreadable
    except UserError as error:
        assert str(locked) in str(error)
    finally:
        locked.chmod(0o700)


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
def test_load_data_reads_or_names_every_file_of_a_random_folder(tmp_path_factory, specs, splits, loop):
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


def test_join_names_of_bytes_that_are_not_text():
    assert join_names(["a", "b\udcff"]).encode() == b"a, b?"
