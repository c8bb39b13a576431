"""Ten of torchvision's classifiers and five of timm's with random weights, each at a small picture.

`CI_FULL=1` makes impressions at their inner layers too.
"""

import os

import pytest
import torch

from unlearn_lib import ZeroShotUnlearner, find_head, make_impressions, make_model, split, splittable_layers
from unlearn_lib.networks import layer_bounds

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
    "timm/resnet18": (32, "layer4.1"),
    "timm/vit_tiny_patch16_224": (32, "blocks.5"),
    "timm/convnext_atto": (32, "stages.2.blocks.3"),
    "timm/efficientnet_lite0": (32, "blocks.5.1"),
    "timm/mobilenetv3_small_050": (32, "blocks.4.1"),
}
PLACES = ["head", "inner layer"] if os.environ.get("CI_FULL") == "1" else ["head"]


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    size, inner = NETWORKS[request.param]
    if request.param.startswith("timm/"):
        pytest.importorskip("timm")
    return make_model(request.param, 6, size=size).eval(), inner


@torch.no_grad()
def test_body_and_tail_together_equal_the_whole_inside_its_bounds(network):
    model, inner = network
    layers = splittable_layers(model)
    assert layers[-1] == find_head(model)
    assert len(layers) >= 12
    for batch in (1, 3):
        x = torch.randn(batch, *model.input_shape, generator=torch.Generator().manual_seed(0))
        whole = model(x)
        for layer in (layers[-1], inner):
            body, tail = split(model, layer)
            entering, (low, high) = body(x), layer_bounds(model, layer)
            assert torch.equal(tail(entering), whole), layer
            assert low <= entering.min() <= entering.max() <= high, layer


@pytest.mark.parametrize("place", PLACES)
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
