"""The student that learns from drawn pictures, with features that reveal nothing of F."""

import copy
from collections import OrderedDict

import pytest
import torch
from tiny import tiny_data, tiny_network
from torch import nn
from torchvision.models import VisionTransformer

from unlearn_lib import (
    ZeroShotUnlearner,
    deep_layer,
    evaluate,
    fit,
    make_impressions,
    mask,
    probe_forget_classes,
)
from unlearn_lib.common import UserError
from unlearn_lib.zeroshot import Impressions, inner_layers
from unlearn_lib.zeroshot.deep import (
    HINGE,
    code_loss,
    hinge_loss,
    make_codes,
    reinitialised_from,
    student_losses,
    train_student,
)

FORGET = [1]


@pytest.fixture(scope="module")
def data():
    return tiny_data()


@pytest.fixture(scope="module")
def net(data):
    net = tiny_network()
    fit(net, data, epochs=6, lr=0.02, batch_size=32)
    net.input_range = data.pixel_range
    return net.eval()


@pytest.fixture(scope="module")
def drawn(net):
    return make_impressions(net, "hidden", recipe="drawn", samples=25)


@pytest.fixture(scope="module")
def student(net, drawn):
    return ZeroShotUnlearner(net, drawn, FORGET, method="deep", epochs=15, batch_size=32).unlearn()


def test_student_forgets_and_keeps_the_other_answers(student, net, data):
    masked, deep = (evaluate(m, data, FORGET) for m in (mask(net, FORGET), student[0]))
    assert deep["forget_accuracy"] <= 0.01
    assert deep["retain_accuracy"] >= masked["retain_accuracy"] - 0.08


def test_student_features_reveal_less_of_the_forget_class_than_the_masks(student, net, data):
    before, after = (probe_forget_classes(m, data, FORGET, "head", samples=40) for m in (mask(net, FORGET), student[0]))
    assert after < before - 0.05


def test_student_keeps_the_bits_before_the_layer_alone(student, net, drawn):
    old, new = net.state_dict(), student[0].state_dict()
    same = {name.partition(".")[0] for name in old if torch.equal(old[name], new[name])}
    assert same == {"conv", "norm"}
    assert all(p.requires_grad for p in student[0].parameters())
    assert student[1]["retain_loss"][-1] < student[1]["retain_loss"][0]
    numbers = {"method": "deep", "epochs": 1, "batch_size": 32}
    first, again = (ZeroShotUnlearner(net, drawn, FORGET, **numbers).unlearn()[0].state_dict() for _ in range(2))
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())


def test_make_codes_gives_each_retain_class_equally_many_features_and_the_forget_class_none(net, drawn):
    forget = torch.tensor([False, True, False, False])
    x = drawn.x[:1000]
    code, size = make_codes(net, "hidden", x, forget)["head"]
    assert code.sum(1).tolist() == [5, 0, 5, 5] and code.sum(0).max() == 1
    with torch.no_grad():
        h = net.act(net.hidden(x))
    assert size == pytest.approx((3 * h.square().mean()).sqrt().item(), rel=1e-4)


def test_code_loss_is_zero_at_the_code_and_weaker_where_the_original_sees_no_forget_class():
    code, q = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0], [0, 1.0, 0, 0]]), torch.tensor([[0.25, 0, 0.75]])
    assert code_loss(3 * q @ code, q, torch.ones(1), 0.4, code, 3.0) == 0
    off = 3 * (q @ code + torch.tensor([[0, 0, 1.0, 0]]))
    assert code_loss(off, q, torch.ones(1), 0.4, code, 3.0).item() == pytest.approx(2 * 1 / 4)
    assert code_loss(off, q, torch.zeros(1), 0.4, code, 3.0).item() == pytest.approx(0.4 * 2 * 1 / 4)


def test_hinge_loss_is_zero_two_below_all_others():
    forget = torch.tensor([False, True, False])
    assert hinge_loss(torch.tensor([[1.0, -1.0, 5.0]]), forget) == 0
    assert hinge_loss(torch.tensor([[1.0, 0.0, 5.0]]), forget) == 1


def test_student_features_reveal_more_without_the_code(net, drawn, data, student):
    numbers = {"method": "deep", "epochs": 15, "batch_size": 32}
    free, _, _ = ZeroShotUnlearner(net, drawn, FORGET, **numbers, forget_weight=0.0).unlearn()
    probes = [probe_forget_classes(m, data, FORGET, "head", samples=40) for m in (free, student[0])]
    assert probes[1] < probes[0]


def test_deep_layer_is_the_third_from_the_end_and_never_the_head(net, drawn):
    assert deep_layer(net) == "conv" and inner_layers(net, "conv") == ["hidden", "head"]
    assert inner_layers(net, "hidden") == ["head"]
    for layer in ("head", "act"):
        before = make_impressions(net, layer, samples=2)
        with pytest.raises(UserError, match="deep needs a layer before the head"):
            ZeroShotUnlearner(net, before, FORGET, method="deep")


@pytest.mark.parametrize(
    "layer, inner", [("input", ["hidden", "head"]), ("norm", ["hidden", "head"]), ("relu", ["head"])]
)
def test_inner_layers_from_pixels_and_from_layers_without_weights(net, layer, inner):
    assert inner_layers(net, layer) == inner
    drawn = make_impressions(net, layer, recipe="drawn", samples=1)
    history = ZeroShotUnlearner(net, drawn, FORGET, method="deep", epochs=1).unlearn()[1]
    assert history["forget_loss"][0] > 0


class Unbiased(nn.Module):
    """A head that has a weight and no name for a bias."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 16))

    def forward(self, x):
        return x @ self.weight.T


class TwoHeads(nn.Module):
    """As some transformers that were distilled: the mean of two heads."""

    def __init__(self, net, act):
        super().__init__()
        self.act = act
        self.body, self.one, self.other, self.input_shape = net[:-1], net.head, Unbiased(), net.input_shape

    def forward(self, x):
        x = self.body(x)
        return (self.one(x) + self.other(self.act(x))) / 2


@pytest.mark.parametrize("act", [nn.Sequential(), nn.Tanh()])
def test_a_head_without_a_code_is_named(net, caplog, act):
    two = TwoHeads(copy.deepcopy(net), act)
    x = Impressions("body.conv", torch.rand(3, 1, 8, 8), torch.arange(3), "drawn", 0.0)
    ZeroShotUnlearner(two, x, FORGET, method="deep", epochs=1).unlearn()
    assert ("no code is learned at other" in caplog.text) == isinstance(act, nn.Tanh)


class OwnLinear(nn.Linear):
    """As timm has its own: not of torch.nn, so that its operations are traced."""


class OwnNorm(nn.BatchNorm1d):
    """The same for a norm."""


def test_custom_layers_are_reinitialised_and_have_codes():
    parts = {"conv": nn.Conv2d(1, 4, 3), "flat": nn.Flatten(), "hidden": OwnLinear(144, 9, bias=False)}
    net = nn.Sequential(OrderedDict(parts | {"norm": OwnNorm(9), "act": nn.ReLU(), "head": OwnLinear(9, 3)})).eval()
    net.input_shape, x = (1, 8, 8), torch.rand(20, 144)
    for tensor in (net.norm.weight.data, net.norm.running_var):
        tensor += 1
    old, new = net.state_dict(), reinitialised_from(net, "hidden").state_dict()
    same = {name for name in old if torch.equal(old[name], new[name])}
    assert same - {"norm.bias", "norm.running_mean", "norm.num_batches_tracked"} == {"conv.weight", "conv.bias"}
    assert inner_layers(net, "hidden") == ["head"]
    code, _ = make_codes(net, "hidden", x, torch.tensor([False, True, False]))["head"]
    assert code.shape == (3, 9)


def test_attention_is_reinitialised_and_parameters_without_a_layer_are_named(caplog):
    net = VisionTransformer(16, 16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=32, num_classes=3).eval()
    net.input_shape = (3, 16, 16)
    student = reinitialised_from(net, "conv_proj", 1)
    kept = {name for name, p in net.named_parameters() if p.dim() > 1 and torch.equal(p, student.get_parameter(name))}
    assert kept == {"class_token", "encoder.pos_embedding"}
    x = Impressions("conv_proj", torch.rand(3, 3, 16, 16), torch.arange(3), "drawn", 0.0)
    unlearner = ZeroShotUnlearner(net, x, FORGET, method="deep", epochs=1)
    with caplog.at_level("INFO", "unlearn_lib"):
        unlearner.unlearn()
    assert "start as they were: class_token, encoder.pos_embedding" in caplog.text


def test_reinitialised_from_and_train_student_depend_on_their_seed(net, drawn):
    one, again, other = (reinitialised_from(net, "hidden", seed).head.weight for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    forget = torch.tensor([False, True, False, False])
    numbers = {"lr": 4e-3, "epochs": 1, "batch_size": 64}
    runs = [
        list(train_student(net, reinitialised_from(net, "hidden"), "hidden", drawn.x, forget, seed=s, **numbers))
        for s in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_deep_makes_and_trains_its_student_from_the_seed_of_the_unlearning(net, drawn, monkeypatch):
    seen = {}

    def catch(teacher, student, layer, x, forget, **numbers):
        seen.update(numbers, student=copy.deepcopy(student))
        yield 0.0, 0.0

    monkeypatch.setattr("unlearn_lib.zeroshot.methods.train_student", catch)
    ZeroShotUnlearner(net, drawn, FORGET, method="deep", seed=5).unlearn()
    expected, other = (reinitialised_from(net, "hidden", seed).head.weight for seed in (5, 0))
    assert seen["seed"] == 5
    assert torch.equal(seen["student"].head.weight, expected)
    assert not torch.equal(expected, other)


@pytest.mark.parametrize("sees_forget, is_pulled", [(True, True), (False, False)])
def test_features_are_pulled_where_the_teacher_sees_a_forget_class(sees_forget, is_pulled):
    forget = torch.tensor([False, True, False, True])
    logits = torch.where(forget == sees_forget, 20.0, -20.0).expand(6, 4)
    features = torch.ones(6, 8)
    codes = {"head": (torch.zeros(4, 8).index_fill(0, torch.tensor([0, 2]), 1.0), 1.0)}
    answers = torch.zeros(6, 4)
    losses = student_losses(lambda x: logits, lambda x: (answers, {"head": 3 * features}), features, forget, codes, 0.0)
    pull = losses[0] - HINGE * hinge_loss(answers, forget)
    assert (pull > 1) == is_pulled


def test_inputs_are_drawn_by_the_inverse_root_of_how_many_share_their_answer(net, drawn, monkeypatch):
    chances = []

    def catch(weights, *given, multinomial=torch.multinomial, **named):
        chances.append(weights)
        return multinomial(weights, *given, **named)

    monkeypatch.setattr(torch, "multinomial", catch)
    ZeroShotUnlearner(net, drawn, FORGET, method="deep", epochs=1).unlearn()
    counts = net.head(net.act(net.hidden(drawn.x))).argmax(1).bincount().double()
    answers = net.head(net.act(net.hidden(drawn.x))).argmax(1)
    assert torch.allclose(chances[0], counts[answers] ** -0.5)
