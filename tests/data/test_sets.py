import gzip
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unlearn_lib import Split, check_forget, load_data, parse_classes
from unlearn_lib.data import folders, imagenet_classes, sets
from unlearn_lib.data.shapes import SHAPE_CLASSES, draw_shapes
from unlearn_lib.data.sources import read_idx
from unlearn_lib.data.splits import hold_out
from unlearn_lib.networks import Framing

labels = st.lists(st.integers(0, 9), min_size=1, max_size=60).map(torch.tensor)
classes = st.sets(st.integers(0, 9))


def split_of(labels):
    return Split(torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1), labels)


def idx(array, dtype=8):
    return bytes([0, 0, dtype, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_mnist(folder, train=20, mark="-", end="", compress=False, shape=(4, 4)):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", 10)):
        pictures = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        for kind, code, array in (
            ("images", "idx3", pictures),
            ("labels", "idx1", np.arange(count, dtype=np.uint8) % 10),
        ):
            pack = gzip.compress if compress else bytes
            (folder / f"{part}-{kind}{mark}{code}-ubyte{end}").write_bytes(pack(idx(array)))
    return folder


def write_folder(root, parts=("train", "test"), count=10, suffix=".png"):
    rng = np.random.default_rng(0)
    for part in parts:
        for name in ("ant", "bee"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)).save(folder / f"{i}{suffix}")
    return root


@given(labels, classes)
def test_forget_and_retain_pictures_are_a_partition(labels, forget):
    whole = split_of(labels)
    only, rest = whole.only(forget), whole.without(forget)
    assert sorted([*only.images.flatten().tolist(), *rest.images.flatten().tolist()]) == list(range(len(labels)))
    assert set(only.labels.tolist()) <= forget
    assert not set(rest.labels.tolist()) & forget


@given(labels, st.floats(0, 1), st.integers(0, 5))
def test_a_held_out_split_takes_the_same_share_of_every_class(labels, share, seed):
    kept, held = hold_out(split_of(labels), share, seed)
    assert len(kept) + len(held) == len(labels)
    for label in labels.unique():
        count = (labels == label).sum().item()
        least = 1 if share > 0 and count > 1 else 0
        assert (held.labels == label).sum() == max(least, round(share * count))
    again = hold_out(split_of(labels), share, seed)[1]
    assert torch.equal(held.images, again.images)


@given(st.sets(st.integers(0, 29), min_size=1))
def test_classes_can_be_given_by_name_index_or_range(chosen):
    names = [f"c{i}" for i in range(30)]
    expected = sorted(chosen)
    assert parse_classes([f"c{i}" for i in chosen], names) == expected
    assert parse_classes(chosen, names) == expected
    assert parse_classes([f"{min(chosen)}-{max(chosen)}"], names) == list(range(min(chosen), max(chosen) + 1))


def test_a_name_is_read_before_an_index():
    assert parse_classes(["1"], ["a", "b", "1"]) == [2]
    assert parse_classes(["0"], ["2", "1", "0"]) == [2]


@given(st.lists(st.integers(0, 40).map(str), min_size=1, max_size=20, unique=True), st.data())
def test_classes_that_were_read_once_stay_the_same_when_they_are_read_again(names, data):
    chosen = parse_classes(data.draw(st.lists(st.sampled_from(names))), names)
    assert parse_classes(chosen, names) == chosen


def test_a_single_word_is_one_class_and_not_its_letters():
    assert parse_classes("cat", ["ant", "cat"]) == [1]
    assert parse_classes(1, ["ant", "cat"]) == [1]


@pytest.mark.parametrize("word", ["", "cat", "10", "-1", "3-1", "0-10", "1.5", "3-x"])
def test_a_class_that_there_is_not_is_refused_with_what_is_accepted(word):
    with pytest.raises(ValueError, match="forget: no class .* is accepted"):
        parse_classes([word], [f"c{i}" for i in range(10)])


def test_hundreds_of_classes_can_be_given_by_ranges_wnids_names_and_a_file(tmp_path):
    names, wnids = imagenet_classes()
    (tmp_path / "list.txt").write_text("390-439\n\n n01443537 \n")
    words = ["0-49", "950-999", "tench", str(tmp_path / "list.txt")]
    chosen = parse_classes(words, names, wnids=wnids)
    assert chosen == [*range(50), *range(390, 440), *range(950, 1000)]


def test_a_name_that_two_classes_have_is_refused_with_their_indices():
    with pytest.raises(ValueError, match="'crane' is the name of the classes [0, 2]".replace("[", r"\[")):
        parse_classes("crane", ["crane", "cat", "crane"])


@pytest.mark.parametrize("forget", [[], range(10), [10], [-1]])
def test_none_all_and_unknown_classes_cannot_be_forgotten(forget):
    with pytest.raises(ValueError, match="forget: got .*; expected 1 to 9"):
        check_forget(forget, 10)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.booleans())
def test_an_idx_file_reads_back_gzipped_or_not(tmp_path_factory, shape, compress):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path_factory.mktemp("idx") / ("x.gz" if compress else "x")
    path.write_bytes(gzip.compress(idx(array)) if compress else idx(array))
    assert np.array_equal(read_idx(path), array)


@given(st.data(), st.booleans())
def test_a_truncated_idx_file_is_named(tmp_path_factory, data, compress):
    whole = idx(np.zeros((3, 4), np.uint8))
    whole = gzip.compress(whole) if compress else whole
    path = tmp_path_factory.mktemp("idx") / ("x.gz" if compress else "x")
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ValueError, match=str(path)):
        read_idx(path)


def test_an_idx_file_of_another_type_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(idx(np.zeros(8, np.uint8), dtype=0x0D))
    with pytest.raises(ValueError, match="not a whole IDX file of bytes"):
        read_idx(tmp_path / "x")


@pytest.mark.parametrize("below", ["MNIST", "MNIST/raw"])
@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize("compress", [True, False])
def test_mnist_is_found_wherever_and_however_it_is_named(tmp_path, below, mark, compress):
    write_mnist(tmp_path / below, 100, mark, ".gz" if compress else "", compress)
    data = load_data("mnist", tmp_path)
    assert (len(data.train), len(data.val), len(data.test)) == (90, 10, 10)
    assert data.train.images.dtype == torch.uint8
    assert data.shape == (1, 4, 4)


def test_labels_out_of_range_are_refused(tmp_path):
    folder = write_mnist(tmp_path / "MNIST")
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.full(10, 11, np.uint8)))
    with pytest.raises(ValueError, match="labels outside 0 to 9"):
        load_data("mnist", tmp_path)


def test_images_and_labels_of_different_number_are_refused(tmp_path):
    folder = write_mnist(tmp_path / "MNIST")
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(9, np.uint8)))
    with pytest.raises(ValueError, match="do not belong together"):
        load_data("mnist", tmp_path)


def test_cifar10_is_read_from_an_image_folder(tmp_path):
    data = load_data("cifar10", write_folder(tmp_path / "CIFAR10").parent)
    assert data.classes == ["ant", "bee"]
    assert (len(data.train), len(data.val), len(data.test)) == (18, 2, 20)
    assert data.shape == (3, 6, 5)


def test_cifar10_batches_that_fail_their_checksum_are_not_read(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"something else")
    with pytest.raises(FileNotFoundError, match="no sound CIFAR-10"):
        load_data("cifar10", tmp_path)


def test_val_serves_as_test_where_there_is_none(tmp_path):
    data = load_data(str(write_folder(tmp_path / "pets", ("train", "val"))))
    assert data.name == "pets"
    assert len(data.test) == 20


def test_a_folder_without_splits_is_split_in_the_same_way_every_time(tmp_path):
    shutil.move(write_folder(tmp_path / "whole", ("all",)) / "all", tmp_path / "pets")
    first, second = load_data(str(tmp_path / "pets")), load_data(str(tmp_path / "pets"))
    assert (len(first.train) + len(first.val), len(first.test)) == (16, 4)
    assert torch.equal(first.test.images, second.test.images)


def test_suffixes_count_in_any_case(tmp_path):
    assert len(load_data(str(write_folder(tmp_path / "pets", suffix=".PNG"))).test) == 20


def test_a_picture_that_does_not_open_is_left_out_counted_and_named(tmp_path):
    broken = write_folder(tmp_path / "pets") / "test" / "bee" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    data = load_data(str(tmp_path / "pets"))
    assert data.unreadable == ["test/bee/3.png"]
    assert data.test.labels.bincount().tolist() == [10, 9]


def test_a_class_of_which_no_picture_opens_is_refused(tmp_path):
    for broken in (write_folder(tmp_path / "pets") / "train" / "bee").iterdir():
        broken.write_bytes(b"")
    with pytest.raises(ValueError, match="no picture of bee"):
        load_data(str(tmp_path / "pets"))


def test_pictures_are_brought_to_the_networks_shape(tmp_path):
    assert load_data(str(write_folder(tmp_path / "pets")), shape=(1, 28, 28)).shape == (1, 28, 28)
    assert load_data("digits", shape=(3, 32, 32)).shape == (3, 32, 32)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 24), (3, 6, 9)])
def test_pictures_too_large_for_memory_are_brought_to_their_shape_batch_by_batch_to_the_same_bits(monkeypatch, shape):
    whole = load_data("shapes1000", shape=shape)
    monkeypatch.setattr(sets, "IN_MEMORY", 1000)
    small = load_data("shapes1000", shape=shape)
    assert small.train.images.shape[1:] == (3, 32, 32)
    assert (small.shape, small.source) == (whole.shape, whole.source) == (shape, whole.source)
    for split in ("train", "val", "test"):
        ours, theirs = getattr(small, split).images[:9], getattr(whole, split).images[:9]
        assert torch.equal(small.normalise(ours), whole.normalise(theirs))


def test_cifar10_for_a_large_network_takes_no_more_memory_than_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(sets, "IN_MEMORY", 2**28)  # an eighth of the bound, for an eightieth of the pictures
    pictures = torch.zeros(900, 3, 32, 32, dtype=torch.uint8)
    split = Split(pictures, torch.arange(900) % 10)
    known = {"title": "", "source": "", "classes": list("abcdefghij"), "flip": False, "train": split, "test": split}
    monkeypatch.setitem(sets.OFFICIAL, "cifar10", lambda root, framing: known)
    data = load_data("cifar10", tmp_path, shape=(3, 224, 224))
    assert sum(part.images.numel() for part in (data.train, data.val, data.test)) == 2 * pictures.numel()
    assert data.normalise(data.train.images[:2]).shape == (2, 3, 224, 224)


FINGERPRINTS = {
    "a pixel changed": lambda root: repaint(root / "train" / "ant" / "0.png"),
    "a test pixel changed": lambda root: repaint(root / "test" / "ant" / "0.png"),
    "a picture added": lambda root: shutil.copy(root / "train" / "ant" / "0.png", root / "train" / "ant" / "new.png"),
    "a picture taken away": lambda root: (root / "train" / "ant" / "0.png").unlink(),
    "a class renamed": lambda root: [(root / part / "bee").rename(root / part / "cow") for part in ("train", "test")],
    "a picture in another class": lambda root: (root / "train/ant/0.png").rename(root / "train/bee/new.png"),
    "another shape": lambda root: {"shape": (3, 5, 5)},
    "grey": lambda root: {"shape": (1, 6, 5)},
    "not mirrored": lambda root: {"flip": False},
    "another validation split": lambda root: {"seed": 1},
    "another normalisation": lambda root: {"framing": Framing((3, 6, 5), mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))},
    "another way to cut": lambda root: {"framing": Framing((3, 6, 5), resize=8)},
}


def test_pictures_are_normalised_as_the_framing_says(tmp_path):
    framing = Framing((3, 6, 5), mean=(0.1, 0.2, 0.3), std=(1.0, 0.5, 2.0))
    data = load_data(write_folder(tmp_path / "pets"), framing=framing)
    white = data.normalise(torch.full((1, 3, 6, 5), 255, dtype=torch.uint8))
    assert white[0, :, 0, 0].tolist() == pytest.approx([0.9, 1.6, 0.35])


def repaint(path):
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("change", FINGERPRINTS)
def test_other_pictures_or_preprocessing_have_another_fingerprint(tmp_path, monkeypatch, change, on_disk):
    monkeypatch.setattr(folders, "IN_MEMORY", 0 if on_disk else 2**31)
    root = write_folder(tmp_path / "pets")
    first = load_data(root, shape=(3, 6, 5))
    before = (first.fingerprint, first.test_fingerprint)
    options = FINGERPRINTS[change](root)
    data = load_data(root, **{"shape": (3, 6, 5)} | (options if isinstance(options, dict) else {}))
    assert data.fingerprint != before[0]
    of_test = {"a test pixel changed", "another shape", "grey", "another normalisation", "another way to cut"}
    of_test |= {"a class renamed"} if on_disk else set()  # its folder is part of the pictures' names
    assert (data.test_fingerprint != before[1]) == (change in of_test)


def test_the_same_pictures_with_other_labels_have_another_fingerprint():
    assert split_of(torch.tensor([0, 1])).fingerprint != split_of(torch.tensor([1, 0])).fingerprint


def test_the_same_pictures_elsewhere_have_the_same_fingerprint(tmp_path):
    first = load_data(write_folder(tmp_path / "pets"))
    second = load_data(write_folder(tmp_path / "elsewhere" / "pets"))
    assert first.fingerprint == second.fingerprint


def test_the_fingerprint_of_pictures_on_disk_tells_names_but_not_the_root(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "IN_MEMORY", 0)
    first = load_data(write_folder(tmp_path / "pets"))
    shutil.copytree(tmp_path / "pets", tmp_path / "copy")  # with their times
    assert load_data(tmp_path / "copy").fingerprint == first.fingerprint
    (tmp_path / "copy" / "train" / "ant" / "0.png").rename(tmp_path / "copy" / "train" / "ant" / "00.png")
    assert load_data(tmp_path / "copy").fingerprint != first.fingerprint


def test_the_fingerprint_of_pictures_on_disk_opens_none(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "IN_MEMORY", 0)
    data = load_data(write_folder(tmp_path / "pets"), shape=(3, 6, 5))
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    assert len(data.fingerprint) == 16
    assert data.train.readable.all()


def test_an_unknown_data_set_is_refused():
    with pytest.raises(FileNotFoundError, match="data: got 'imagnet'"):
        load_data("imagnet")


def test_digits_are_all_1797_and_no_picture_is_in_two_splits(digits):
    parts = [digits.train, digits.val, digits.test]
    assert sum(map(len, parts)) == 1797
    pictures = torch.cat([p.images for p in parts]).flatten(1)
    assert len(pictures.unique(dim=0)) >= 1796  # the original holds one picture twice


def test_shapes_are_the_same_pictures_for_the_same_seed_and_others_for_another():
    images, labels = draw_shapes(3, seed=1)
    again, other = draw_shapes(3, seed=1)[0], draw_shapes(3, seed=2)[0]
    assert torch.equal(images, again)
    assert not torch.equal(images, other)
    assert images.shape == (30, 3, 32, 32)
    assert labels.bincount().tolist() == [3] * len(SHAPE_CLASSES)
