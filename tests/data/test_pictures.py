import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import AlexNet_Weights, EfficientNet_B0_Weights, ViT_B_16_Weights

from unlearn_lib.data import Data, Split, folders
from unlearn_lib.data.folders import read_folder
from unlearn_lib.data.pictures import Pictures, open_picture
from unlearn_lib.data.splits import resize_pictures
from unlearn_lib.networks import Framing, find_framing

FRAMING = Framing((3, 12, 12))


@pytest.fixture
def paths(tmp_path):
    """Thirty pictures of different sizes, the eighth of them damaged."""
    random = np.random.default_rng(0)
    for i in range(30):
        pixels = random.integers(0, 256, (random.integers(8, 40), random.integers(8, 40), 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i:02}.png")
    (tmp_path / "07.png").write_bytes((tmp_path / "07.png").read_bytes()[:50])
    return sorted(tmp_path.iterdir())


@pytest.mark.parametrize(
    "model, weights",
    [
        ("alexnet", AlexNet_Weights.IMAGENET1K_V1),
        ("efficientnet_b0", EfficientNet_B0_Weights.IMAGENET1K_V1),
        ("vit_b_16", ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1),
    ],
)
def test_a_picture_is_framed_as_the_weights_own_preprocessing_does_it(tmp_path, model, weights):
    pixels = np.random.default_rng(1).integers(0, 256, (300, 451, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    framing = find_framing(model, weights.name)
    ours = Pictures([tmp_path / "one.png"], framing)[0]
    fields = dict.fromkeys(("name", "title", "source", "classes", "train", "val", "test", "flip"))
    normalised = Data(**fields, mean=framing.mean, std=framing.std).normalise(ours[None])[0]
    assert torch.equal(normalised, weights.transforms()(Image.open(tmp_path / "one.png")))


def test_pictures_on_disk_read_as_those_in_memory_do(paths, tmp_path_factory, monkeypatch):
    root = tmp_path_factory.mktemp("pictures")
    for part in ("train", "test"):
        (root / part).mkdir()
        (root / part / "noise").symlink_to(paths[0].parent)
    fields = read_folder(root, FRAMING)
    assert fields["damaged"] == ["train/noise/07.png", "test/noise/07.png"]
    eager = fields["train"]
    monkeypatch.setattr(folders, "IN_MEMORY", 0)
    fields = read_folder(root, FRAMING)
    assert fields["damaged"] == []
    lazy = fields["train"]
    kept = torch.arange(30) != 7
    assert torch.equal(lazy.images[kept], eager.images)
    assert torch.equal(torch.cat(list(lazy.images.take(kept).split(9))), eager.images)


class Elsewhere(torch.Tensor):
    """An index as it is on another device: it can be moved, and asked where it is; whatever else it meets, it fails."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func not in (torch.Tensor.cpu, torch.Tensor.to):
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        return args[0].as_subclass(torch.Tensor)


@pytest.mark.parametrize("index", [torch.tensor([8, 2, 7, 2]), torch.arange(30) % 3 == 1, torch.tensor([], dtype=int)])
@pytest.mark.parametrize("lazy", [True, False])
def test_pictures_are_found_by_an_index_on_any_device(paths, index, lazy):
    split = Split(Pictures(paths, FRAMING)[:] if not lazy else Pictures(paths, FRAMING), torch.arange(30))
    there = index.as_subclass(Elsewhere)
    if lazy:
        assert torch.equal(split.images[there], split.images[index])
    assert torch.equal(split.take(there).labels, split.labels[index])
    images, labels = split.batch(there)
    assert labels.tolist() == [i for i in split.labels[index].tolist() if i != 7 or not lazy]
    assert torch.equal(images, split.images[labels])


def test_pictures_on_disk_that_are_cut_otherwise_have_another_fingerprint(paths):
    assert Pictures(paths, FRAMING).fingerprint() != Pictures(paths, Framing((3, 12, 12), 14)).fingerprint()


def test_pictures_on_disk_are_indexed_as_a_tensor_is(paths):
    lazy = Pictures(paths, FRAMING)
    whole = lazy[:]
    for index in (
        3,
        -1,
        slice(2, 9, 3),
        [1, 5],
        torch.tensor(4),
        torch.tensor([[1, 2], [3, 4]]),
        whole[:, 0, 0, 0] > 90,
    ):
        assert torch.equal(lazy[index], whole[index])


def test_a_picture_on_disk_that_does_not_open_is_known_once_it_was_read(paths):
    lazy = Pictures(paths, FRAMING)
    assert lazy.readable.all()
    assert not lazy[torch.arange(6, 9)][1].any()
    assert (~lazy.readable).nonzero().flatten().tolist() == [7]


def test_large_files_are_decoded_by_threads_in_the_same_order(tmp_path):
    for i in range(6):
        noise = np.random.default_rng(i).integers(0, 256, (120, 120, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{i}.png")
    paths = sorted(tmp_path.iterdir())
    one_by_one = torch.stack([Pictures([path], FRAMING)[0] for path in paths])
    assert torch.equal(Pictures(paths, FRAMING)[:], one_by_one)


def test_what_is_transparent_becomes_white(tmp_path):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:, :2, 3] = 255  # the left half is black and opaque
    Image.fromarray(pixels).save(tmp_path / "half.png")
    colour = np.asarray(open_picture(tmp_path / "half.png")[0])
    assert (colour[:, :2] == 0).all()
    assert (colour[:, 2:] == 255).all()


def test_a_grey_picture_gets_three_equal_channels(tmp_path):
    Image.fromarray(np.arange(144, dtype=np.uint8).reshape(12, 12)).save(tmp_path / "grey.png")
    pixels = Pictures([tmp_path / "grey.png"], FRAMING)[0]
    assert (pixels == torch.arange(144).view(12, 12)).all()


def test_a_picture_taken_on_its_side_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.new("RGB", (10, 20)).save(tmp_path / "side.jpg", exif=exif)
    assert open_picture(tmp_path / "side.jpg")[0].size == (20, 10)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\xff\xd8\xff\xe0 nor this"])
def test_what_is_no_picture_is_named(tmp_path, content):
    (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(ValueError, match="bad.jpg does not open"):
        open_picture(tmp_path / "bad.jpg")
    bad = Pictures([tmp_path / "bad.jpg"], FRAMING)
    assert not bad[0].any()
    assert not bad.readable.any()


def test_colours_become_grey_by_their_luminance():
    colours = torch.zeros(3, 3, 2, 2, dtype=torch.uint8)
    for i in range(3):
        colours[i, i] = 255  # red, green, blue
    assert resize_pictures(colours, (1, 2, 2))[:, 0, 0, 0].tolist() == [76, 150, 29]
