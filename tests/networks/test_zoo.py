import sys

import pytest
import torch
from torch import nn

from unlearn_lib import find_head, make_model, pick_device, split, splittable_layers
from unlearn_lib.networks import (
    Framing,
    check_model_name,
    find_framing,
    input_shape,
    input_shape_of,
    layer_bounds,
    model_code,
    takes_pixels,
    zoo,
)

LENET5 = ["conv1", "pool1", "conv2", "pool2", "flatten", "fc1", "fc2", "fc3"]
KARPATHYNET = ["conv11", "conv12", "pool1", "conv21", "conv22", "pool2", "conv31", "conv32", "pool3", "flatten", "fc1"]


@pytest.mark.parametrize("name, layers", [("lenet5", LENET5), ("karpathynet", KARPATHYNET)])
def test_both_networks_can_be_split_at_every_module(name, layers):
    assert splittable_layers(make_model(name, 10)) == layers


@pytest.mark.parametrize("name", ["lenet5", "karpathynet", "alexnet", "resnet18"])
def test_body_then_tail_is_the_whole_model_to_the_bit(name):
    model = make_model(name, 10).eval()
    x = torch.randn(3, *model.input_shape)
    with torch.no_grad():
        whole = model(x)
        for layer in ["input", *splittable_layers(model)]:
            body, tail = split(model, layer)
            assert torch.equal(tail(body(x)), whole), layer


def test_an_in_place_relu_in_the_tail_leaves_cached_activations_alone():
    model = make_model("alexnet", 10)
    body, tail = split(model, "features.1")  # an in-place ReLU
    cached = body(torch.randn(2, 3, 64, 64))
    before = cached.clone()
    tail(cached)
    assert torch.equal(cached, before)


def test_a_layer_where_two_tensors_cross_is_refused_with_those_that_work():
    with pytest.raises(
        ValueError, match=r"layer: got 'layer1.0.conv2' \(more than one tensor.*expected one of .*layer1.0"
    ):
        split(make_model("resnet18", 10), "layer1.0.conv2")


def test_an_unknown_layer_is_refused():
    with pytest.raises(ValueError, match="layer: got 'fc9' .*expected one of input, conv1"):
        split(make_model("lenet5", 10), "fc9")


def test_the_tail_shares_the_models_parameters_and_holds_no_others():
    model = make_model("lenet5", 10)
    _, tail = split(model, "fc2")
    assert {id(p) for p in tail.parameters()} == {id(p) for m in (model.fc2, model.fc3) for p in m.parameters()}


@pytest.mark.parametrize(
    "name, head",
    [
        ("lenet5", "fc3"),
        ("karpathynet", "fc1"),
        ("alexnet", "classifier.6"),
        ("resnet18", "fc"),
        ("vit_b_16", "heads.head"),
    ],
)
def test_the_head_is_the_last_linear_layer(name, head):
    assert find_head(make_model(name, 7)) == head


def test_a_network_that_ends_in_a_relu_has_no_head():
    with pytest.raises(ValueError, match="does not end in a linear layer"):
        find_head(make_model("squeezenet1_1", 10))


def test_what_comes_out_of_a_relu_is_known_to_be_feasible_only_from_zero_on():
    lenet = make_model("lenet5", 10)
    assert [layer for layer in LENET5 if layer_bounds(lenet, layer)[0] == 0] == LENET5[1:]
    assert layer_bounds(make_model("resnet18", 10), "fc")[0] == 0
    assert layer_bounds(make_model("vit_b_16", 10, size=16), "heads.head")[0] == -torch.inf


def test_efficientnet_lite0_is_cut_at_every_block_and_its_features_lie_between_0_and_6():
    model = make_model("efficientnet_lite0", 10, size=64).eval()
    layers = splittable_layers(model)
    blocks = [f"_blocks.{i}" for i in range(16)]
    assert {"_conv_stem.static_padding", *blocks, "_conv_head", "_avg_pooling", "_dropout", "_fc"} <= set(layers)
    assert layer_bounds(model, "_fc") == layer_bounds(model, "_avg_pooling") == (0, 6)
    with torch.no_grad():
        for batch in (1, 3):
            x = torch.randn(batch, *model.input_shape)
            whole = model(x)
            for layer in [*blocks[::4], "_conv_head", "_fc"]:
                body, tail = split(model, layer)
                assert torch.equal(tail(body(x)), whole), layer


def test_pixels_enter_the_first_layer_and_no_other():
    lenet = make_model("lenet5", 10)
    assert [layer for layer in ["input", *LENET5] if takes_pixels(lenet, layer)] == ["input", "conv1"]


def test_layer_shapes_need_no_data():
    assert input_shape_of(make_model("lenet5", 10), "conv2") == (6, 14, 14)
    assert input_shape_of(make_model("karpathynet", 10), "fc1") == (256,)


def test_the_same_seed_gives_the_same_start():
    first, second = make_model("karpathynet", 10, seed=3), make_model("karpathynet", 10, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_making_a_model_leaves_the_random_numbers_alone():
    state = torch.random.get_rng_state()
    make_model("lenet5", 10)
    assert torch.equal(state, torch.random.get_rng_state())


def test_dropout_acts_in_training_only_and_reaches_torchvisions_layers():
    lenet = make_model("lenet5", 10, dropout=0.5)
    x = torch.randn(2, 1, 28, 28)
    assert not torch.equal(lenet.train()(x), lenet.train()(x))
    assert torch.equal(lenet.eval()(x), lenet.eval()(x))
    assert {m.p for m in make_model("alexnet", 10, dropout=0.2).modules() if isinstance(m, nn.Dropout)} == {0.2}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "lenet6"}, "model: got 'lenet6'"),
        ({"name": "lenet5", "dropout": 1.0}, "dropout: got 1.0"),
        ({"name": "lenet5", "size": 64}, "size: got 64; lenet5 takes 28"),
        ({"name": "alexnet", "size": 16}, "size: alexnet does not take"),
        ({"name": "resnet18", "dropout": 0.5}, "has no dropout layer"),
        ({"name": "timm/resnet1"}, "model: got 'timm/resnet1'; timm has .*resnet"),
        ({"name": "no_such_place:net"}, "model: no_such_place:net makes no network \\(ModuleNotFoundError"),
        ({"name": "no such place:net"}, "model: got 'no such place:net'"),
        ({"name": "torch.nn:no_such"}, "makes no network \\(AttributeError"),
        ({"name": "torch.nn:Linear"}, "makes no network \\(TypeError"),
        ({"name": "collections:Counter"}, "returns a Counter; expected a function"),
    ],
)
def test_a_model_that_cannot_be_made_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_model(num_classes=10, **arguments)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="device: got 'gpu'; this machine has: .*cpu"):
        pick_device("gpu")


FACTORIES = """
import torch
from torch import nn

def fixed():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6))

def flexible(num_classes, size=16):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, num_classes))
    model.input_shape = (3, size, size)
    model.framing = {"resize": 20, "mean": (0.5,) * 3, "std": (0.25,) * 3, "interpolation": "bicubic"}
    return model

def framed():
    model = fixed()
    model.input_shape, model.framing = (1, 32, 32), {"resize": 40}
    return model

class Broken(nn.Linear):
    input_shape = (1, 4, 4)
    def __init__(self, num_classes):
        super().__init__(16, num_classes)
    def forward(self, x):
        return super().forward(x.flatten(1)) + self.scale

class Greedy(Broken):
    def forward(self, x):
        raise MemoryError("too much")

def badly_framed():
    model = fixed()
    model.framing = {"resizing": 40}
    return model

class Pair(nn.Linear):
    input_shape = (1, 4, 4)
    def __init__(self, num_classes):
        super().__init__(16, num_classes)
    def forward(self, x):
        return super().forward(x.flatten(1)), x
"""


@pytest.fixture
def here(tmp_path, monkeypatch, request):
    place = f"nets_{abs(hash(request.node.name))}"
    (tmp_path / f"{place}.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    return place


def test_a_network_of_the_users_own_is_found_from_the_current_folder(here):
    assert make_model(f"{here}:flexible", 3).input_shape == (3, 16, 16)
    assert make_model(f"{here}:flexible", 3, size=24)[1].weight.shape == (3, 3 * 24 * 24)
    assert make_model(f"{here}:fixed", 6).input_shape == (1, 64, 64)
    assert make_model(f"{here}:fixed", None, size=32).input_shape == (1, 32, 32)


def test_its_preprocessing_travels_with_it(here):
    framing = find_framing(f"{here}:flexible", None, 24)
    assert (framing.shape, framing.resize, framing.mean) == ((3, 24, 24), 20, (0.5,) * 3)
    assert framing.plain()["interpolation"] == "bicubic"
    assert find_framing(f"{here}:fixed", None) == Framing((1, 64, 64))
    assert find_framing(f"{here}:framed", None).resize == 40
    assert find_framing(f"{here}:framed", None, 16).resize == 20


def test_a_network_with_other_outputs_than_classes_is_refused(here):
    with pytest.raises(ValueError, match="fixed has 6 outputs; expected 10"):
        make_model(f"{here}:fixed", 10)
    with pytest.raises(ValueError, match="Pair returns a tuple"):
        make_model(f"{here}:Pair", 10)


def test_a_users_network_that_does_not_take_the_size_is_refused(here):
    with pytest.raises(ValueError, match="size: .*fixed does not take pictures of 2x2"):
        make_model(f"{here}:fixed", 6, size=2)


def test_timm_networks_tell_their_size_and_preprocessing():
    pytest.importorskip("timm")
    assert make_model("timm/resnet18", 5).input_shape == (3, 64, 64)
    assert make_model("timm/vit_tiny_patch16_224", 5).input_shape == (3, 224, 224)
    assert make_model("timm/vit_tiny_patch16_224", 5, size=32).input_shape == (3, 32, 32)
    framing = find_framing("timm/vit_tiny_patch16_224", "imagenet")
    assert (framing.resize, framing.mean, framing.interpolation.value) == (248, (0.5,) * 3, "bicubic")
    assert find_framing("timm/vit_base_patch16_224", "imagenet").mean == (0.5,) * 3
    assert find_framing("timm/vit_base_patch16_224", "dino").mean == (0.485, 0.456, 0.406)
    assert find_framing("timm/resnet18", "tv_in1k").interpolation.value == "bilinear"


def test_absent_timm_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="timm/resnet18, but timm is not installed; pip install timm"):
        make_model("timm/resnet18", 5)


def test_efficientnet_lite0_wants_its_pictures_as_it_was_trained():
    framing = find_framing("efficientnet_lite0", "imagenet")
    assert (framing.shape, framing.resize) == ((3, 224, 224), 256)
    assert torch.tensor(framing.mean[0] * 255) == 127
    assert torch.tensor(framing.std[0] * 255) == 128
    assert find_framing("efficientnet_lite0", "imagenet", 112).resize == 128


def test_a_networks_name_in_a_folders_name():
    assert [model_code(name) for name in ("timm/resnet18", "lenet5", "pkg.mod:make", "resnet18")] == [
        "timm_resnet18",
        "lenet5",
        "pkg.mod_make",
        "resnet18",
    ]


@pytest.mark.parametrize(
    "name, size",
    [
        ("lenet5", None),
        ("karpathynet", None),
        ("resnet18", None),
        ("resnet18", 96),
        ("efficientnet_lite0", None),
        ("timm/resnet18", None),
        ("timm/vit_tiny_patch16_224", None),
    ],
)
def test_the_shape_of_a_networks_pictures_is_known_without_building_it(name, size, monkeypatch):
    shape = make_model(name, 4, size=size).input_shape
    monkeypatch.setattr(zoo, "_build", None)
    assert input_shape(name, size) == find_framing(name, None, size).shape == shape


def test_the_shape_of_a_users_network_is_its_own(here):
    assert input_shape(f"{here}:framed") == (1, 32, 32)
    assert input_shape(f"{here}:framed", 16) == (1, 16, 16)


def test_a_size_that_a_network_does_not_take_is_refused_without_building_it():
    with pytest.raises(ValueError, match="size: got 64; lenet5 takes 28"):
        find_framing("lenet5", None, 64)
    with pytest.raises(ValueError, match="size: got 0"):
        input_shape("resnet18", 0)


@pytest.mark.parametrize("name", ["lenet5", "resnet18", "timm/resnet18", "no_such_place:net"])
def test_a_known_name_passes(name):
    check_model_name(name)


@pytest.mark.parametrize("name", ["lenet6", "timm/resnet1", "place:", ":net", "a b:net"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(ValueError, match="model: got"):
        check_model_name(name)


def test_an_error_in_a_network_is_reported_as_it_is(here):
    with pytest.raises(ValueError, match="Broken fails on a picture .AttributeError: .*scale") as raised:
        make_model(f"{here}:Broken", 3)
    assert "224" not in str(raised.value)
    with pytest.raises(MemoryError, match="too much"):
        make_model(f"{here}:Greedy", 3)


def test_a_wrong_framing_is_refused(here):
    with pytest.raises(ValueError, match="framing of .*badly_framed is .*resizing"):
        find_framing(f"{here}:badly_framed", None)


def test_nothing_is_written_onto_a_users_network_but_its_shape(here):
    assert set(vars(make_model(f"{here}:fixed", 6))) - set(vars(nn.Sequential())) == {"input_shape"}
