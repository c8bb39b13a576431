import copy
import importlib

import pytest
import torch
from torch import nn

from unlearn_lib import ZeroShotUnlearner, carry_over, make_impressions, mask
from unlearn_lib.networks import split
from unlearn_lib.zeroshot import HeldOutInputs, describe_carry_over, make_held_out_inputs

FORGET = [1, 2, 3, 4]
carry_over_room = importlib.import_module("unlearn_lib.zeroshot.carry_over")  # its function has the same name


def network_with_common_features():
    """A network whose features have much in common for all pictures: its first layer's bias outweighs the picture."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.LayerNorm(32), nn.Linear(32, 6)).eval()
    nn.init.normal_(net[1].bias, std=2.0)
    net.input_shape = (1, 8, 8)
    net.input_range = (-1.0, 1.0)
    return net


def has_passed(shares):
    return describe_carry_over(shares)[0]


def test_carry_over_of_an_unchanged_network_fails_and_of_the_mask_passes(model):
    unchanged = carry_over(model, model, "fc3", FORGET)
    masked = carry_over(model, mask(model, FORGET), "fc3", FORGET)
    assert unchanged == {"forget_mass": 1.0, "retain_agreement": 1.0}
    assert masked == {"forget_mass": 0.0, "retain_agreement": 1.0}
    assert has_passed(masked) and not has_passed(unchanged)


def test_carry_over_fails_where_retain_inputs_get_other_answers(model):
    broken = mask(model, FORGET)
    with torch.no_grad():
        broken.fc3.bias[0] = 1e3
    shares = carry_over(model, broken, "fc3", FORGET)
    assert shares["forget_mass"] == 0
    assert shares["retain_agreement"] < 0.6
    assert not has_passed(shares)


@pytest.mark.parametrize("numbers, is_enough", [({}, True), ({"lr": 1e-4, "epochs": 5}, False)])
def test_carry_over_fails_after_too_short_an_unlearning(model, impressions, numbers, is_enough):
    unlearned, _, _ = ZeroShotUnlearner(model, impressions, FORGET, **numbers).unlearn()
    assert has_passed(carry_over(model, unlearned, "fc3", FORGET)) == is_enough


@pytest.mark.parametrize("layer", ["fc2", "conv2"])
def test_carry_over_measures_at_the_layer_of_the_unlearning(model, layer):
    shares = carry_over(model, mask(model, FORGET), layer, FORGET)
    assert shares == {"forget_mass": 0.0, "retain_agreement": 1.0}


@pytest.mark.parametrize("has_range", [True, False])
def test_carry_over_fails_where_f_gets_what_all_pictures_have_in_common(has_range):
    net = network_with_common_features()
    spoiled = mask(net, [0, 1])
    with torch.no_grad():
        common = net[:3](torch.zeros(1, *net.input_shape))[0]
        spoiled[3].weight[0] = 100 * common
        spoiled[3].bias[0] = -50 * common.square().sum()
    if not has_range:
        del net.input_range
    assert has_passed(carry_over(net, mask(net, [0, 1]), "3", [0, 1]))
    assert not has_passed(carry_over(net, spoiled, "3", [0, 1]))
    for x in make_held_out_inputs(net, "3", [0, 1]).hard:
        is_same = split(net, "3")[1](x).argmax(1) == split(spoiled, "3")[1](x).argmax(1)
        assert is_same.float().mean() > 0.4  # nearly all of R, about half of the inputs


@pytest.mark.parametrize("few, mass", [(19, None), (20, 1.0)])
def test_carry_over_leaves_out_a_share_of_fewer_than_twenty_drawn_pictures(model, few, mass):
    numbers = {"samples": 25, "recipe": "calibrated"}
    retained, forgotten = (make_impressions(model, "fc3", classes=[c], **numbers).x for c in (0, 1))
    inputs = HeldOutInputs([retained], torch.cat([retained, forgotten[:few]]))
    shares = carry_over(model, model, "fc3", [1], inputs=inputs)
    assert shares == {"forget_mass": mass, "retain_agreement": 1.0}


def test_carry_over_takes_given_inputs_in_place_of_its_own(model):
    masked = mask(model, [1, 2])
    with torch.no_grad():
        masked.fc3.weight[3] += 0.2
    inputs = make_held_out_inputs(model, "fc3", [1, 2], seed=3)
    assert carry_over(model, masked, "fc3", [2, 1], seed=3) == carry_over(model, masked, "fc3", [1, 2], inputs=inputs)


def test_carry_over_leaves_training_mode_as_it_was(model):
    unlearned = mask(model, FORGET)
    model.train()
    unlearned.fc2.train()
    carry_over(model, unlearned, "fc3", FORGET)
    assert all(part.training for part in model.modules())
    assert [name for name, part in unlearned.named_modules() if part.training] == ["fc2"]


@pytest.mark.parametrize("arguments", [{"forget": [10]}, {"forget": []}, {"seed": -1}, {"layer": "fc9"}])
def test_carry_over_names_an_argument_that_is_not_accepted(model, arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"{name}: "):
        carry_over(model, model, **({"layer": "fc3", "forget": FORGET} | arguments))


def test_describe_carry_over_does_not_pass_what_was_not_measured():
    assert not has_passed({"forget_mass": None, "retain_agreement": 1.0})


@pytest.mark.parametrize("mass, agreement, passes", [(0.05, 0.85, True), (0.051, 1.0, False), (0.0, 0.849, False)])
def test_describe_carry_over_passes_at_both_limits(mass, agreement, passes):
    assert has_passed({"forget_mass": mass, "retain_agreement": agreement}) == passes


def test_make_held_out_inputs_depends_on_the_seed_alone(model):
    first = make_held_out_inputs(model, "fc3", FORGET)
    torch.rand(7)
    again = make_held_out_inputs(copy.deepcopy(model), "fc3", FORGET)
    other = make_held_out_inputs(model, "fc3", FORGET, seed=1)
    for one, two, three in zip(*([*made.hard, made.drawn] for made in (first, again, other)), strict=True):
        assert torch.equal(one, two) and not torch.equal(one, three)


def test_make_held_out_inputs_differ_from_impressions_of_the_same_seed(model):
    made = make_impressions(model, "fc3", samples=30, noise=0.1)
    hard = make_held_out_inputs(model, "fc3", FORGET).hard[2]
    assert torch.cdist(hard, made.x).min() > 1e-3


@pytest.mark.parametrize("side", [8, 12])
def test_make_held_out_inputs_have_the_shape_of_the_layers_inputs(side):
    tail = [nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), *tail)
    net.input_shape = (1, side, side)
    made = make_held_out_inputs(net, "2", [1])
    assert all(x.shape[1:] == (4, side, side) for x in (*made.hard, made.drawn))


def test_held_out_inputs_share_no_draw_with_impressions_or_drawn_pictures_of_their_seed(model, monkeypatch):
    seeds = []

    def watch(name, place):
        original = getattr(carry_over_room, name)

        def run(*args, **kwargs):
            seeds.append(kwargs["seed"] if place is None else args[place])
            return original(*args, **kwargs)

        monkeypatch.setattr(carry_over_room, name, run)

    watch("optimise_impressions", None)
    watch("draw_pictures", 2)
    make_held_out_inputs(model, "fc3", [1, 3], seed=5)
    assert seeds == [10_012] * 3


def test_carry_over_is_the_worst_over_all_batches():
    original = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    original.input_shape = (1, 1, 2)
    unlearned = copy.deepcopy(original)
    original[1].weight.data = torch.eye(2)
    unlearned[1].weight.data = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    forget, unsure, retain = torch.tensor([[[1.0, 3.0]], [[3.0, 2.0]], [[3.0, 1.0]]]).view(3, 1, 1, 1, 2)
    batches = [torch.cat([forget, retain]), torch.cat([forget, unsure]), torch.cat([forget, retain, unsure])]
    shares = carry_over(original, unlearned, "input", [1], inputs=HeldOutInputs(batches, retain.expand(25, 1, 1, 2)))
    assert shares == {"forget_mass": 1.0, "retain_agreement": 0.0}
    shares = carry_over(unlearned, original, "input", [1], inputs=HeldOutInputs(batches, retain.expand(25, 1, 1, 2)))
    assert shares == {"forget_mass": 1.0, "retain_agreement": 1.0}
