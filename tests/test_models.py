import pytest
import torch
from torch import nn

from unlearn_lib import find_head, make_model, pick_device, split, splittable_layers
from unlearn_lib.networks import at_pixels, behind_relu, layer_shape

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
    with pytest.raises(ValueError, match=r"layer: 'layer1.0.conv2' given \(more than one tensor.*accepted: .*layer1.0"):
        split(make_model("resnet18", 10), "layer1.0.conv2")


def test_an_unknown_layer_is_refused():
    with pytest.raises(ValueError, match="layer: 'fc9' given .*accepted: input, conv1"):
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
    assert [layer for layer in LENET5 if behind_relu(lenet, layer)] == LENET5[1:]
    assert behind_relu(make_model("resnet18", 10), "fc")
    assert not behind_relu(make_model("vit_b_16", 10), "heads.head")


def test_pixels_enter_the_first_layer_and_no_other():
    lenet = make_model("lenet5", 10)
    assert [layer for layer in ["input", *LENET5] if at_pixels(lenet, layer)] == ["input", "conv1"]


def test_layer_shapes_need_no_data():
    assert layer_shape(make_model("lenet5", 10), "conv2") == (6, 14, 14)
    assert layer_shape(make_model("karpathynet", 10), "fc1") == (256,)


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
        ({"name": "lenet6"}, "model: 'lenet6' given"),
        ({"name": "lenet5", "dropout": 1.0}, "dropout: 1.0 given"),
        ({"name": "lenet5", "size": 64}, "size: 64 given; lenet5 takes 28"),
        ({"name": "alexnet", "size": 16}, "size: alexnet does not take"),
        ({"name": "resnet18", "dropout": 0.5}, "has no dropout layer"),
    ],
)
def test_a_model_that_cannot_be_made_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_model(num_classes=10, **arguments)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="device: 'gpu' is not to be had here; accepted: .*cpu"):
        pick_device("gpu")
