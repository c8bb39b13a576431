import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_data
from torch import nn
from torch.nn import functional as F

from unlearn_lib import (
    ZeroShotUnlearner,
    default_layer,
    distill_loss,
    evaluate,
    fit,
    make_impressions,
    make_model,
    mask,
    retain_mass_loss,
)
from unlearn_lib.common import UserError
from unlearn_lib.networks import shares_weights, split
from unlearn_lib.zeroshot import METHODS, Impressions, Switches, Unlearning, carry_over, carrying, describe_carry_over
from unlearn_lib.zeroshot.carrying import held_out
from unlearn_lib.zeroshot.methods import default_learning_rate, published_losses

FORGET = [1, 2, 3, 4]
SHORT = {"lr": 1e-3, "epochs": 2}


@pytest.fixture(scope="module")
def published_impressions(experiment):
    return make_impressions(experiment.load(experiment.original()), samples=20, recipe="published")


@given(st.integers(2, 12), st.data())
def test_masking_never_lowers_retain_accuracy(k, data):
    """The theorem behind the baseline: taking wrong answers away can only mend a retain picture's answer."""
    forget = data.draw(st.sets(st.integers(0, k - 1), min_size=1, max_size=k - 1))
    retain = sorted(set(range(k)) - forget)
    seed = data.draw(st.integers(0, 10_000))
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(50, k, generator=generator)
    labels = torch.tensor(retain)[torch.randint(len(retain), (50,), generator=generator)]
    masked = logits.clone()
    masked[:, sorted(forget)] = -1e4
    assert (masked.argmax(1) == labels).sum() >= (logits.argmax(1) == labels).sum()
    assert not set(masked.argmax(1).tolist()) & forget


def test_the_mask_never_answers_with_a_forget_class_and_leaves_the_other_logits_alone(model):
    x = torch.randn(30, 1, 28, 28)
    whole, masked = model(x), mask(model, FORGET)(x)
    assert (masked[:, FORGET] == -1e4).all()
    assert torch.equal(masked[:, [0, 5, 6, 7, 8, 9]], whole[:, [0, 5, 6, 7, 8, 9]])


@pytest.mark.parametrize("method", ["neggrad+", "distill"])
def test_the_forget_classes_are_gone_and_the_retain_classes_stay(experiment, model, impressions, digits, method):
    unlearned, history, seconds = ZeroShotUnlearner(model, impressions, FORGET, method=method).unlearn()
    baseline, result = (evaluate(m, digits, FORGET) for m in (mask(model, FORGET), unlearned))
    assert result["forget_accuracy"] <= 0.02
    assert result["retain_accuracy"] >= baseline["retain_accuracy"] - 0.02
    assert history["forget_loss"][-1] < history["forget_loss"][0]
    assert seconds > 0
    assert type(unlearned) is type(model)


@pytest.mark.parametrize("method", ["neggrad+", "distill"])
def test_a_network_whose_features_are_of_either_sign_forgets_too(method):
    """Of such features impressions tell little; what the bias learns holds for all of them."""
    torch.manual_seed(0)
    parts = nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 4)
    net, data = nn.Sequential(*parts), tiny_data(noise=90.0)
    net.input_shape = (1, 8, 8)
    fit(net, data, epochs=6, lr=0.01, batch_size=32)
    unlearned, _, _ = ZeroShotUnlearner(net, make_impressions(net, "4", samples=50), [1], method=method).unlearn()
    before, masked, after = (evaluate(m, data, [1]) for m in (net, mask(net, [1]), unlearned))
    assert before["forget_accuracy"] > 0.8
    assert after["forget_accuracy"] <= 0.02
    assert after["retain_accuracy"] >= masked["retain_accuracy"] - 0.02


def test_distilling_from_a_deeper_layer_works_too(model, digits):
    made = make_impressions(model, "fc2", samples=100)
    unlearned, _, _ = ZeroShotUnlearner(model, made, FORGET, method="distill", epochs=40).unlearn()
    result = evaluate(unlearned, digits, FORGET)
    assert result["forget_accuracy"] <= 0.05
    assert result["retain_accuracy"] >= 0.9


@pytest.mark.parametrize("method", ["neggrad+", "distill", "mask"])
def test_only_the_tail_changes_and_the_input_model_keeps_its_bits(model, impressions, method):
    before = copy.deepcopy(model.state_dict())
    unlearned, _, _ = ZeroShotUnlearner(model, impressions, FORGET, method=method, **SHORT).unlearn()
    after = unlearned.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"fc3.weight", "fc3.bias"}
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_published_changes_the_heads_bias_alone(model, published_impressions):
    before = copy.deepcopy(model.state_dict())
    unlearned, _, _ = ZeroShotUnlearner(model, published_impressions, FORGET, method="published", epochs=2).unlearn()
    changed = {name for name, tensor in unlearned.state_dict().items() if not torch.equal(before[name], tensor)}
    assert changed == {"fc3.bias"}


def by_hand(tail, batches, lr, decay, clip=float("inf"), faster=None):
    """AdamW, a step a batch: the parameters after minimising `loss(tail)` for each of the losses in `batches`.

    lr: the rate of each step, or of all. faster: by what factor a parameter learns faster.
    """
    rates, faster = lr if isinstance(lr, list) else [lr] * len(batches), faster or {}
    parameters = {name: p.detach().double() for name, p in tail.items()}
    m = {name: torch.zeros_like(p) for name, p in parameters.items()}
    v = copy.deepcopy(m)
    for t, (loss, lr) in enumerate(zip(batches, rates, strict=True), 1):
        for p in parameters.values():
            p.requires_grad_(True)
        g = dict(zip(parameters, torch.autograd.grad(loss(**parameters), [*parameters.values()]), strict=True))
        norm = sum(part.square().sum() for part in g.values()).sqrt()
        for name, part in g.items():
            part = part * (clip / norm).clamp(max=1)
            m[name], v[name] = 0.9 * m[name] + 0.1 * part, 0.999 * v[name] + 0.001 * part**2
            step = (m[name] / (1 - 0.9**t)) / ((v[name] / (1 - 0.999**t)).sqrt() + 1e-8)
            parameters[name] = (parameters[name] * (1 - lr * decay) - lr * faster.get(name, 1) * step).detach()
    return {name: p.float() for name, p in parameters.items()}


def test_published_is_one_adamw_step_a_batch_forget_first_with_decay_and_clipped(model, published_impressions):
    """Descent on the forget batch, ascent on the retain batch, in the bias; weights so large that clipping bites."""
    x, y = published_impressions.x.double(), published_impressions.labels
    is_forget, weight = torch.isin(y, torch.tensor(FORGET)), model.fc3.weight.detach().double()

    def loss(part, factor):
        return lambda bias: factor * F.cross_entropy(F.linear(x[part], weight, bias), y[part], label_smoothing=0.1)

    numbers = {"lr": 0.1, "epochs": 1, "batch_size": 1000, "forget_weight": 400.0, "retain_weight": 9.0}
    unlearned, _, _ = ZeroShotUnlearner(model, published_impressions, FORGET, method="published", **numbers).unlearn()
    losses = [loss(is_forget, 400.0), loss(~is_forget, -9.0)]
    expected = by_hand({"bias": model.fc3.bias}, losses, lr=0.1, decay=0.01, clip=5.0)["bias"]
    assert torch.allclose(unlearned.fc3.bias, expected, atol=1e-5)
    for other in ({"decay": 0.0, "clip": 5.0}, {"decay": 0.01}):
        assert not torch.allclose(by_hand({"bias": model.fc3.bias}, losses, 0.1, **other)["bias"], expected, atol=1e-5)


@pytest.mark.parametrize("method", ["neggrad+", "distill"])
def test_each_batch_is_an_adamw_step_at_a_falling_rate_on_the_weighted_losses_at_temperature_four(
    model, impressions, method
):
    x, y = impressions.x.double(), impressions.labels
    forget = torch.isin(torch.arange(10), torch.tensor(FORGET))
    f, r = forget[y], ~forget[y]
    z0 = F.linear(x, model.fc3.weight.double(), model.fc3.bias.double()).detach()

    def loss(weight, bias):
        z = F.linear(x, weight, bias) / 4
        target = (z0 / 4).masked_fill(forget, -torch.inf).softmax(1)
        terms = (target * (target.clamp(min=1e-300).log() - z.log_softmax(1))).sum(1)
        held = torch.where(forget, z, z.detach())  # the forget term moves the logits of F alone
        gone = terms[f] if method == "distill" else -held[f].softmax(1)[:, ~forget].sum(1).log()
        return 16 * (2.0 * gone.mean() + 0.5 * terms[r].mean())

    numbers = {"lr": 1e-2, "epochs": 4, "batch_size": 1000, "forget_weight": 2.0, "retain_weight": 0.5}
    unlearned, _, _ = ZeroShotUnlearner(model, impressions, FORGET, method=method, **numbers).unlearn()
    numbers = {"faster": {"bias": 84}, "lr": [1e-2, 7.5e-3, 5e-3, 2.5e-3], "decay": 0.0}  # 84 inputs of fc3
    expected = by_hand({"weight": model.fc3.weight, "bias": model.fc3.bias}, 4 * [loss], **numbers)
    assert torch.allclose(unlearned.fc3.bias, expected["bias"], atol=1e-5)
    close = torch.isclose(unlearned.fc3.weight, expected["weight"], atol=1e-5)
    assert close.float().mean() > 0.95  # where a gradient is all but zero, its sign is rounding


def test_published_forgets_though_its_signs_are_reversed(model, published_impressions, digits):
    numbers = {"lr": 3e-2, "epochs": 150}
    unlearned, _, _ = ZeroShotUnlearner(model, published_impressions, FORGET, method="published", **numbers).unlearn()
    assert evaluate(unlearned, digits, FORGET)["forget_accuracy"] <= 0.02


def test_no_buffer_moves_and_no_batch_norm_switches_to_training():
    model = make_model("resnet18", 4, size=32).eval()
    made = make_impressions(model, "layer4.1", samples=4, steps=2)
    before = copy.deepcopy(dict(model.named_buffers()))
    unlearned, _, _ = ZeroShotUnlearner(model, made, [1], **SHORT).unlearn()
    assert all(torch.equal(before[name], tensor) for name, tensor in unlearned.named_buffers())
    assert not any(m.training for m in unlearned.modules())
    assert not torch.equal(unlearned.layer4[1].conv1.weight, model.layer4[1].conv1.weight)


def test_the_same_seed_gives_the_same_bits(model, impressions):
    first, second, other = (
        ZeroShotUnlearner(model, impressions, FORGET, seed=seed, **SHORT).unlearn()[0].fc3.weight for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_watcher_sees_every_epoch_and_can_stop(model, impressions):
    seen = []

    def watch(state):
        seen.append(state["epoch"])
        return state["epoch"] < 3

    _, history, _ = ZeroShotUnlearner(model, impressions, FORGET).unlearn(on_step=watch)
    assert seen == [1, 2, 3]
    assert len(history["forget_loss"]) == len(history["retain_loss"]) == 3


def test_it_stops_early_once_the_loss_on_the_impressions_has_settled(model, impressions):
    _, history, _ = ZeroShotUnlearner(model, impressions, FORGET, method="distill", lr=0.02, epochs=500).unlearn()
    assert len(history["forget_loss"]) < 500


def test_a_parameter_that_the_caller_froze_comes_back_frozen(model, impressions):
    model.conv1.weight.requires_grad_(False)
    unlearned, _, _ = ZeroShotUnlearner(model, impressions, FORGET, **SHORT).unlearn()
    assert not unlearned.conv1.weight.requires_grad
    assert unlearned.fc3.weight.requires_grad


@given(st.integers(0, 10_000))
def test_the_ascent_is_bounded_by_zero_and_reaches_it_when_no_mass_is_left(seed):
    logits = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed)) * 10
    forget = torch.tensor([True, False, False, True, False, False])
    assert retain_mass_loss(logits, forget) >= -1e-6
    p = logits.softmax(1)[:, ~forget].sum(1)
    assert retain_mass_loss(logits, forget).item() == pytest.approx(-p.log().mean().item(), abs=1e-4)
    assert retain_mass_loss(logits.masked_fill(forget, -1e4), forget).item() == pytest.approx(0, abs=1e-6)


@given(st.integers(0, 10_000))
def test_the_distillation_target_is_the_masked_original(seed):
    logits = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed))
    forget = torch.tensor([True, False, False, True, False, False])
    assert distill_loss(logits.masked_fill(forget, -1e4), logits, forget).item() == pytest.approx(0, abs=1e-6)
    assert distill_loss(logits, logits, forget) > 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"method": "scrub"}, "method: got 'scrub'"),
        ({"layer": "fc9"}, "layer: got 'fc9'"),
        ({"layer": "fc2"}, "the impressions are inputs of 'fc3'"),
        ({"lr": 0.0}, "lr: got 0.0"),
        ({"lr": float("nan")}, "lr: got nan"),
        ({"lr": float("inf")}, "lr: got inf"),
        ({"epochs": 0}, "epochs: got 0"),
        ({"forget_weight": -1.0}, "forget_weight: got -1.0"),
        ({"forget": []}, "forget: got none"),
        ({"forget": range(10)}, "forget: got all"),
        ({"forget": [10]}, r"forget: got \[10\]"),
    ],
)
def test_what_it_does_not_accept_is_named_before_any_work(model, impressions, arguments, message):
    with pytest.raises(ValueError, match=message):
        ZeroShotUnlearner(model, impressions, **({"forget": FORGET} | arguments))


def test_published_is_refused_before_the_head(model):
    with pytest.raises(UserError, match="layer: got 'fc2'; published works at the head"):
        ZeroShotUnlearner(model, make_impressions(model, "fc2", samples=2), FORGET, method="published")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_runs_with_its_own_numbers_where_none_are_given(name):
    assert Unlearning(name).numbers == METHODS[name].numbers
    assert Unlearning(name).recipe == METHODS[name].recipe
    assert Unlearning("published").epochs != Unlearning("deep").epochs != Unlearning("neggrad+").epochs


def test_zero_is_the_name_of_a_layer(model):
    assert Unlearning(layer=0).layer == "0"
    assert Unlearning(layer=0).find_layer(model) == "0"


def test_the_mask_is_the_same_unlearning_for_any_numbers(caplog):
    caplog.set_level("INFO")
    assert Unlearning("mask", epochs=5) == Unlearning("mask")
    assert "mask trains nothing; epochs has no effect" in caplog.text


def test_forgetting_a_class_without_impressions_is_refused(model):
    some = make_impressions(model, samples=2, classes=[0, 1, 5])
    with pytest.raises(ValueError, match=r"forget: got \[1, 3\], but there are no impressions of \[3\]"):
        ZeroShotUnlearner(model, some, [1, 3])
    ZeroShotUnlearner(model, some, [1])


def test_a_learning_rate_that_diverges_says_so(model, impressions, published_impressions):
    with pytest.raises(ValueError, match="lr: got 1000.0, with which the loss diverges"):
        ZeroShotUnlearner(model, impressions, FORGET, lr=1e3).unlearn()
    with pytest.raises(ValueError, match="lr: got 10000000000.0, with which the loss diverges"):
        ZeroShotUnlearner(model, published_impressions, FORGET, method="published", lr=1e10).unlearn()


def test_a_loss_that_is_no_number_says_so_also_beside_one_that_is(model):
    labels = torch.arange(10).repeat_interleave(20)[:180]  # drawn pictures may miss a class, here 9
    drawn = Impressions("fc3", torch.full((180, 84), float("nan")), labels, "drawn", 0.0)
    with pytest.raises(ValueError, match="the loss diverges"):
        ZeroShotUnlearner(model, drawn, [9]).unlearn()


@given(st.floats(0.1, 10), st.integers(2, 40))
def test_the_default_rate_follows_the_length_of_a_row_and_the_number_of_inputs(length, n):
    head = torch.nn.Linear(n, 3)
    torch.nn.init.constant_(head.weight, length / n**0.5)
    assert default_learning_rate(head) == pytest.approx(length / n, rel=1e-4)


def test_many_impressions_end_after_six_hundred_updates(model):
    made = make_impressions(model, samples=50)
    _, history, _ = ZeroShotUnlearner(model, made, FORGET, batch_size=1, epochs=20).unlearn()
    assert len(history["forget_loss"]) == 2  # of 500 updates each


def test_a_network_that_forgot_nothing_is_warned_of_and_the_mask_is_not(model):
    untouched, masked = (carry_over(model, net, "fc3", FORGET) for net in (model, mask(model, FORGET)))
    assert untouched == {"forget_mass": 1.0, "retain_agreement": 1.0}
    assert masked == {"forget_mass": 0.0, "retain_agreement": 1.0}
    assert not describe_carry_over(untouched)[0]
    assert describe_carry_over(masked)[0]


def test_a_network_that_answers_retain_inputs_otherwise_is_warned_of(model):
    broken = mask(model, FORGET)
    with torch.no_grad():
        broken.fc3.bias[0] = 1e3
    shares = carry_over(model, broken, "fc3", FORGET)
    assert shares["forget_mass"] == 0
    assert shares["retain_agreement"] < 0.6
    assert not describe_carry_over(shares)[0]


def test_unlearning_that_was_too_short_does_not_carry_over_though_the_default_does(model, impressions):
    shares = []
    for numbers in ({}, {"lr": 1e-4, "epochs": 5}):
        unlearned, _, _ = ZeroShotUnlearner(model, impressions, FORGET, **numbers).unlearn()
        shares.append(carry_over(model, unlearned, "fc3", FORGET))
    assert [describe_carry_over(share)[0] for share in shares] == [True, False]


@pytest.mark.parametrize("layer", ["fc2", "conv2"])
def test_carry_over_asks_at_the_layer_that_was_unlearned_from(model, layer):
    shares = carry_over(model, mask(model, FORGET), layer, FORGET)
    assert shares["forget_mass"] == 0
    assert shares["retain_agreement"] == 1


def common_features(bias=True):
    """A network whose features have much in common for all pictures: its first layer's bias outweighs the picture."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.LayerNorm(32), nn.Linear(32, 6, bias=bias)).eval()
    nn.init.normal_(net[1].bias, std=2.0)
    net.input_shape, net.input_range = (1, 8, 8), (-1.0, 1.0)
    return net


@pytest.mark.parametrize("told", [True, False])
def test_a_network_that_gives_f_what_all_pictures_have_in_common_is_warned_of(told):
    net = common_features()
    spoiled = mask(net, [0, 1])
    with torch.no_grad():
        common = net[:3](torch.zeros(1, *net.input_shape))[0]
        spoiled[3].weight[0], spoiled[3].bias[0] = 100 * common, -50 * common.square().sum()
    if not told:
        del net.input_range
    assert describe_carry_over(carry_over(net, mask(net, [0, 1]), "3", [0, 1]))[0]
    assert not describe_carry_over(carry_over(net, spoiled, "3", [0, 1]))[0]
    kept = [split(net, "3")[1](x).argmax(1) == split(spoiled, "3")[1](x).argmax(1) for x in held_out(net, "3", [0, 1])]
    assert all(same.float().mean() > 0.4 for same in kept)  # nearly all of R, about half of the inputs


@pytest.mark.parametrize(("bias", "lines"), [(True, 0), (False, 1)])
def test_a_tail_without_a_bias_on_features_of_either_sign_is_warned_of(bias, lines, caplog):
    net = common_features(bias)
    ZeroShotUnlearner(net, make_impressions(net, "3", samples=5), [0], epochs=1).unlearn()
    assert caplog.text.count("from 3 on there is no bias") == lines


def test_a_scale_behind_the_head_is_no_layer_to_unlearn_at():
    class Gain(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return x * self.gain

    net = common_features().append(Gain())
    assert default_layer(net) == "3"
    with pytest.raises(UserError, match="no matrix is left to learn"):
        ZeroShotUnlearner(net, make_impressions(net, "4", samples=5), [0]).unlearn()


def test_a_head_with_weight_norm_is_where_unlearning_takes_place_by_default():
    net = common_features()
    nn.utils.parametrizations.weight_norm(net[3])
    assert default_layer(net) == "3"


@pytest.mark.parametrize("layer", ["1", "3"])
@pytest.mark.parametrize("normed", [False, True])
def test_the_head_alone_has_a_faster_bias_whatever_its_weight_is_made_of(layer, normed):
    net = common_features()
    if normed:
        nn.utils.parametrizations.weight_norm(net[3])
    made = make_impressions(net, layer, samples=5, steps=5)
    unlearned, _, _ = ZeroShotUnlearner(net, made, [0], lr=1e-4, epochs=1, batch_size=1000).unlearn()
    moved = [(unlearned[i].bias - net[i].bias).abs().max().item() for i in (1, 3)]
    assert moved[1] == pytest.approx(32e-4, rel=0.01)  # one step of AdamW, 32 inputs
    assert moved[0] == pytest.approx(1e-4 if layer == "1" else 0.0, rel=0.01)


def test_what_cannot_be_told_is_no_pass():
    assert not describe_carry_over({"forget_mass": None, "retain_agreement": 1.0})[0]


def test_the_proses_signs_are_the_published_ones_turned_round():
    z, y = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 0, 1])
    forget = torch.tensor([True, False, False, True])
    losses = (published_losses(Switches(prose_signs=prose)) for prose in (False, True))
    published, prose = ([loss(z, z, y, forget) for loss in pair] for pair in losses)
    assert published[0] > 0 > published[1]
    assert [-loss for loss in published] == prose


def test_hard_inputs_come_from_the_seed_alone(model):
    first = held_out(model, "fc3", FORGET)
    torch.rand(7)
    assert all(torch.equal(*pair) for pair in zip(first, held_out(model, "fc3", FORGET), strict=True))
    assert not torch.equal(first[0], held_out(model, "fc3", FORGET, seed=1)[0])


@pytest.mark.parametrize("few, told", [(19, None), (20, 1.0)])
def test_a_share_of_few_drawn_pictures_is_not_told(model, monkeypatch, few, told):
    like = {"samples": 25, "recipe": "calibrated"}
    retained, forgotten = (make_impressions(model, "fc3", classes=[c], **like).x for c in (0, 1))
    monkeypatch.setattr(carrying, "_asked", lambda *given: [retained, torch.cat([retained, forgotten[:few]])])
    assert carry_over(model, model, "fc3", [1]) == {"forget_mass": told, "retain_agreement": 1.0}


def test_hard_inputs_are_made_once_for_all_methods_and_anew_for_another_network_or_forget_set(model, monkeypatch):
    asked = []
    monkeypatch.setattr(
        carrying, "held_out", lambda *given, made=carrying.held_out: asked.append(given) or made(*given)
    )
    masked = mask(model, [1, 2])
    first = carry_over(model, masked, "fc3", [1, 2])
    assert carry_over(copy.deepcopy(model), masked, "fc3", [2, 1]) == first
    assert len(asked) == 1
    carry_over(model, masked, "fc3", [1, 2], seed=1)
    carry_over(model, masked, "fc3", [1], seed=1)
    with torch.no_grad():
        model.fc3.weight[0] += 0.1
    carry_over(model, masked, "fc3", [1], seed=1)
    assert len(asked) == 4


def test_hard_inputs_of_one_network_at_two_sizes_are_not_taken_for_each_other():
    tail = [nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), *tail)
    for side in (8, 12):
        net.input_shape = (1, side, side)
        assert carrying._asked(net, "2", [1], seed=0)[0].shape[1:] == (4, side, side)


class Tempered(nn.Sequential):
    temperature = 1.0

    def forward(self, x):
        return super().forward(x) / self.temperature


def test_hard_inputs_of_a_network_at_two_temperatures_are_not_taken_for_each_other():
    net = Tempered(nn.Flatten(), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    net.input_shape = (1, 2, 4)
    cold = carrying._asked(net, "3", [1], seed=0)
    net.temperature = 0.1
    assert not torch.equal(carrying._asked(net, "3", [1], seed=0)[0], cold[0])


def test_weights_that_are_used_before_and_behind_the_layer_are_refused():
    net = nn.Sequential(nn.Flatten(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    net.input_shape, net[3].weight = (1, 2, 4), net[1].weight
    at_head, inside = (make_impressions(net, layer, samples=2) for layer in ("5", "3"))
    ZeroShotUnlearner(net, at_head, [1])
    with pytest.raises(UserError, match="layer: got '3', but some weights are used both before and behind it"):
        ZeroShotUnlearner(net, inside, [1])


def test_a_scale_that_is_looked_up_before_the_layer_is_none_of_its_weights():
    net = make_model("convnext_tiny", 3, size=32).eval()  # x + layer_scale * block(x)
    assert not shares_weights(net, "features.5.2.block")
