"""Behind a LayerNorm features lie on a known surface: impressions and held-out inputs lie there too."""

import pytest
import torch
from torch import nn

from unlearn_lib import diagnose, make_impressions
from unlearn_lib.networks import feasible_inputs, split
from unlearn_lib.zeroshot import make_held_out_inputs

N = 12


class Tokens(nn.Module):
    """Sixteen tokens of N numbers, a norm over them, `what` happens to them, a head."""

    def __init__(self, what, norm=nn.LayerNorm):
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.norm, self.drop = nn.Conv2d(3, N, 2, 2), norm(N), nn.Dropout(0.5)
        self.head, self.what = nn.Linear(N, 5), what
        nn.init.uniform_(self.norm.weight, -0.1, 2)
        if getattr(self.norm, "bias", None) is not None:
            nn.init.normal_(self.norm.bias)
        self.input_shape = (3, 8, 8)

    def forward(self, x):
        x = self.norm(self.patches(x).flatten(2).transpose(1, 2))
        return self.head(self.drop(self.what(x)))


def first(x):
    return x[:, 0]


def mean(x):
    return x.mean(1)


WAYS = {"first": (first, True), "mean": (mean, False)}


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize("way", WAYS)
def test_features_are_feasible_and_others_are_not(way, norm):
    net, pictures = Tokens(WAYS[way][0], norm), 5 * torch.randn(50, 3, 8, 8)
    feasible, body = feasible_inputs(net, "head"), split(net, "head")[0]
    assert feasible.surface.exact == WAYS[way][1]
    assert feasible.surface.centred == (norm is nn.LayerNorm)
    with torch.no_grad():
        x = body(pictures)
    assert not feasible.is_infeasible(x).any()
    assert feasible.is_infeasible(feasible.to_inputs(3 * feasible.from_inputs(x) + 1)).float().mean() > 0.5


@pytest.mark.parametrize("what", [lambda x: x[:, 0].relu(), lambda x: x.amax(1), lambda x: 2 * x[:, 0]])
def test_what_leaves_the_surface_is_not_taken_for_it(what):
    assert feasible_inputs(Tokens(what), "head").surface is None


def test_the_axis_of_the_channels_is_found():
    class Moved(Tokens):
        def forward(self, x):
            x = self.norm(self.patches(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            return self.head(self.drop(x).mean((2, 3)))

    net = Moved(first)
    surface = feasible_inputs(net, "drop").surface
    assert (surface.axis, surface.exact) == (1, True)
    assert surface.scale.shape == (1, N, 1, 1)
    assert diagnose(net, make_impressions(net, "drop", samples=3, steps=5))["infeasible"].max() == 0


@pytest.mark.parametrize("recipe", ["natural", "calibrated"])
@pytest.mark.parametrize("way", WAYS)
def test_impressions_and_held_out_inputs_lie_on_the_surface(way, recipe):
    net = Tokens(WAYS[way][0])
    made = make_impressions(net, "head", samples=10, recipe=recipe)
    assert diagnose(net, made)["infeasible"].max() == 0
    feasible = feasible_inputs(net, "head")
    for x in make_held_out_inputs(net, "head", [0, 1]).hard:
        assert not feasible.is_infeasible(x).any()


def test_a_norms_scale_moved_into_the_head_changes_no_logit_of_an_impression():
    net, other = Tokens(first), Tokens(first)
    with torch.no_grad():
        other.head.weight.mul_(net.norm.weight)
        other.head.bias.add_(net.head.weight @ net.norm.bias)
        other.norm.weight.fill_(1)
        other.norm.bias.zero_()
    # soft targets come from the head's rows, which differ: calibrated ones have none
    one, two = (n.head(make_impressions(n, "head", samples=5, recipe="calibrated").x) for n in (net, other))
    assert torch.allclose(one, two, atol=1e-2)


def test_the_published_recipe_knows_no_surface_and_is_seen_to_leave_it():
    net = Tokens(first)
    assert (
        diagnose(net, make_impressions(net, "head", samples=3, recipe="published", steps=100))["infeasible"].min() > 0.3
    )
