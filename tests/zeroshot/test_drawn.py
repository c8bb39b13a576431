import copy

import pytest
import torch
from tiny import tiny_data, tiny_network

from unlearn_lib import ZeroShotUnlearner, draw_pictures, evaluate, fit, make_impressions
from unlearn_lib.common import UserError
from unlearn_lib.zeroshot import drawn as drawn_room
from unlearn_lib.zeroshot.drawn import turn_towards_classes


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


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 20, 31), (4, 9, 9)])
def test_draw_pictures_depends_on_the_seed_alone(shape):
    first = draw_pictures(7, shape, 3)
    assert first.shape == (7, *shape) and first.dtype == torch.uint8
    assert torch.equal(first, draw_pictures(7, shape, 3))
    assert torch.equal(first, draw_pictures(12, shape, 3)[:7])
    assert not torch.equal(first, draw_pictures(7, shape, 4))
    assert len(first.flatten(1).unique(dim=0)) == 7


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_draw_pictures_uses_the_whole_range_and_is_neither_flat_nor_noise(shape):
    x = draw_pictures(300, shape).float() / 255
    assert x.min() < 0.05 and x.max() > 0.95
    assert (x.flatten(1).std(1) > 0.02).all()
    neighbours = (x[..., 1:] - x[..., :-1]).square().mean() / (2 * x.flatten(1).var(1).mean())
    assert neighbours < 0.5  # independent pixels would differ by 1


def test_drawn_inputs_have_every_class_and_the_networks_answers(net, drawn):
    assert drawn.layer == "hidden" and drawn.x.shape[1:] == (64,)
    assert torch.equal(drawn.labels, drawn.labels.sort().values)
    with torch.no_grad():
        answers = net.head(net.act(net.hidden(drawn.x))).argmax(1)
    assert (answers == drawn.labels).float().mean() > 0.999
    assert drawn.labels.bincount(minlength=4).min() > 0.05 * len(drawn.labels)


def test_drawn_inputs_are_40_and_12_pictures_per_sample_and_class(net):
    assert len(make_impressions(net, "hidden", recipe="drawn", samples=2).x) == (40 + 12) * 2 * 4


def test_drawn_inputs_stay_within_the_memory(net):
    made = make_impressions(net, "hidden", recipe="drawn", samples=2, memory=64 * 104)  # 104 pictures of 8x8
    assert len(made.x) == 104


def test_drawn_inputs_need_the_range_of_pixels(net):
    blind = copy.deepcopy(net)
    del blind.input_range
    with pytest.raises(UserError, match="input_range"):
        make_impressions(blind, "hidden", recipe="drawn", samples=1)


def test_turn_towards_classes_makes_the_network_see_them(net):
    pictures = draw_pictures(200, (1, 8, 8))
    low, high = net.input_range

    def answer(pictures):
        with torch.no_grad():
            return net(low + pictures.float() / 255 * (high - low)).softmax(1)

    seen = []
    turned = turn_towards_classes(
        net, pictures, answer(pictures).log(), 10, net.input_range, 0, lambda step, x: seen.append(step)
    )
    assert seen == [1, 2, 3, 4, 5, 6]
    assert turned.shape == (40, 1, 8, 8) and turned.dtype == torch.uint8
    assert answer(turned).argmax(1).bincount(minlength=4).min() >= 5
    assert answer(turned).amax(1).quantile(0.2) < 0.9  # about half lie between two classes


@pytest.mark.parametrize("method", ["neggrad+", "distill"])
def test_other_methods_accept_drawn_inputs_too(net, drawn, data, method):
    unlearned, _, _ = ZeroShotUnlearner(net, drawn, [1], method=method).unlearn()
    assert evaluate(unlearned, data, [1])["forget_accuracy"] <= 0.05


def test_drawn_inputs_pass_their_seed_on(net, monkeypatch):
    seeds = []

    def watch(name, place):
        original = getattr(drawn_room, name)
        monkeypatch.setattr(drawn_room, name, lambda *args: seeds.append((name, args[place])) or original(*args))

    watch("draw_pictures", 2)
    watch("turn_towards_classes", 5)
    drawn_room.drawn_inputs(net, "hidden", 1, seed=7)
    assert seeds == [("draw_pictures", 7), ("turn_towards_classes", 7)]
