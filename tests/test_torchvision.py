"""Ten of torchvision's classifiers with random weights, each at the smallest picture it takes."""

import pytest
import torch

from unlearn_lib import ZeroShotUnlearner, find_head, make_impressions, make_model, split, splittable_layers

FORGET = [1, 4]
NETWORKS = {  # the smallest size, and an inner layer
    "alexnet": (63, "classifier.4"),
    "resnet18": (32, "layer4.1"),
    "resnet50": (32, "layer4.2"),
    "vgg11_bn": (32, "classifier.3"),
    "mobilenet_v3_small": (32, "features.11"),
    "densenet121": (32, "features.denseblock4"),
    "convnext_tiny": (32, "features.7.2"),
    "efficientnet_b0": (32, "features.7.0"),
    "vit_b_16": (16, "encoder.layers.encoder_layer_11"),
    "swin_t": (32, "features.7.1"),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    size, inner = NETWORKS[request.param]
    return make_model(request.param, 6, size=size).eval(), inner


@torch.no_grad()
def test_body_and_tail_together_equal_the_whole(network):
    model, inner = network
    x = torch.randn(2, *model.input_shape, generator=torch.Generator().manual_seed(0))
    whole = model(x)
    for layer in (find_head(model), inner):
        body, tail = split(model, layer)
        assert torch.equal(tail(body(x)), whole)


def test_the_network_can_be_split_at_its_blocks(network):
    model, inner = network
    layers = splittable_layers(model)
    assert layers[-1] == find_head(model)
    assert inner in layers
    assert len(layers) >= 12


@pytest.mark.parametrize("place", ["head", "inner layer"])
def test_impressions_made_there_make_it_forget(network, place):
    model, inner = network
    layer = find_head(model) if place == "head" else inner
    made = make_impressions(model, layer, samples=3, steps=40)
    assert made.x.isfinite().all()
    numbers = {"lr": 3e-3, "epochs": 20, "batch_size": 9} if place == "head" else {"lr": 1e-3, "epochs": 10}
    unlearned, _, _ = ZeroShotUnlearner(model, made, FORGET, method="distill", **numbers).unlearn()
    before, after = (split(net, layer)[1](made.x).softmax(1)[:, FORGET].sum(1) for net in (model, unlearned))
    assert after.mean() < 0.2 * before.mean()
    body = {name for name, _ in split(model, layer)[0].named_parameters()}
    old, new = model.state_dict(), unlearned.state_dict()
    assert all(torch.equal(old[name], new[name]) for name in body)
