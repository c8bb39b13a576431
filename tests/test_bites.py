"""What a reader would check by hand in networks, data, training and runs, where a wrong line would say nothing."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unlearn_lib import (
    Experiment,
    Split,
    ZeroShotUnlearner,
    find_head,
    fit,
    make_impressions,
    make_model,
    predict_logits,
    split,
)
from unlearn_lib.data import iterate_batches
from unlearn_lib.networks import Framing, Run, find_run, first_difference, layer_bounds, write_run
from unlearn_lib.store import write_json


class Untouchable:
    """Pictures that are there and may not be looked at."""

    def __init__(self, pictures):
        self.shape = pictures.shape

    def __getattr__(self, name):
        raise AssertionError(f"the test pictures were asked for {name}")

    def __getitem__(self, index):
        raise AssertionError("the test pictures were looked at")


@pytest.fixture
def little(digits):
    """The first 100 training digits."""
    return dataclasses.replace(digits, train=digits.train.take(torch.arange(100)))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def trained(data, **arguments):
    model = make_model("lenet5", 10)
    history = fit(model, data, **{"epochs": 3} | arguments)
    return weights(model), {name: values for name, values in history.items() if name != "seconds"}


@pytest.mark.parametrize("forget", [(), (3,)])
def test_training_and_the_choice_of_its_best_epoch_look_at_no_test_picture(little, forget):
    poisoned = dataclasses.replace(little, test=Split(Untouchable(little.test.images), little.test.labels))
    assert torch.equal(trained(poisoned, forget=forget)[0], trained(little, forget=forget)[0])


def test_golden_is_not_chosen_by_validation_pictures_of_the_forget_classes(little):
    images = little.val.images.clone()
    images[little.val.labels == 3] = 255
    poisoned = dataclasses.replace(little, val=Split(images, little.val.labels))
    assert trained(poisoned, forget=[3])[1] == trained(little, forget=[3])[1]
    assert trained(poisoned)[1] != trained(little)[1]


def test_the_learning_rate_rises_to_its_top_and_ends_near_zero(little):
    rates = trained(little, epochs=10, lr=2e-3, batch_size=10)[1]["lr"]
    top = rates.index(max(rates))
    assert 1.5e-3 < rates[top] <= 2e-3
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 1e-5


def test_weight_decay_makes_the_weights_smaller(little):
    free, decayed = (trained(little, weight_decay=decay)[0].norm() for decay in (0.0, 10.0))
    assert decayed < 0.98 * free


class Watcher(nn.Module):
    """A linear network that remembers the pictures it was trained on."""

    def __init__(self, inputs):
        super().__init__()
        self.linear, self.seen = nn.Linear(inputs, 10), []

    def forward(self, x):
        if self.training:
            self.seen.extend(x.clone())
        return self.linear(x.flatten(1))


def shown(data, epochs):
    """All pictures that training shows to a network."""
    watcher = Watcher(data.test.images[0].numel())
    fit(watcher, data, epochs=epochs)
    return torch.stack(watcher.seen)


def test_pictures_that_keep_their_class_are_shown_mirrored_and_moved_by_up_to_two_pixels(digits):
    one = digits.train.take(torch.zeros(8, dtype=torch.int64))
    data = dataclasses.replace(digits, train=one, flip=True)
    seen = shown(data, epochs=60)
    padded = F.pad(digits.normalise(one.images[:1]), (2, 2, 2, 2), mode="replicate")[0]
    places = [(m, y, x) for m in (False, True) for y in range(5) for x in range(5)]
    versions = [(padded.flip(-1) if m else padded)[:, y : y + 28, x : x + 28] for m, y, x in places]
    same = torch.stack([(seen == version).flatten(1).all(1) for version in versions])
    found = [place for place, times in zip(places, same.sum(1).tolist(), strict=True) if times]
    assert same.any(0).all()
    assert {m for m, _, _ in found} == {False, True}
    assert {y for _, y, _ in found} == {x for _, _, x in found} == set(range(5))


def test_pictures_that_would_change_their_class_are_shown_as_they_are(little):
    seen = shown(little, epochs=1)
    expected = little.normalise(little.train.images)
    assert sorted(seen.flatten(1).sum(1).tolist()) == pytest.approx(sorted(expected.flatten(1).sum(1).tolist()))
    assert (seen[:, None] == expected).flatten(2).all(2).any(1).all()


def test_a_seed_reaches_the_start_the_training_the_impressions_and_the_unlearning(tmp_path):
    def experiment(seed):
        return Experiment("lenet5", "digits", [1, 2], seed=seed, train_epochs=1, runs_root=tmp_path)

    three = experiment(3)
    original = three.train()
    model = original.load_model()
    model.input_range = three.dataset.pixel_range
    expected = make_model("lenet5", 10, seed=3)
    fit(expected, three.dataset, seed=3, **{name: original.config[name] for name in ("epochs", "lr", "batch_size")})
    assert torch.equal(weights(model), weights(expected))
    assert not torch.equal(weights(make_model("lenet5", 10, seed=3)), weights(make_model("lenet5", 10, seed=0)))

    head = find_head(model)
    made = three.impressions(head, samples=5)
    assert torch.equal(made.x, make_impressions(model, head, samples=5, seed=3).x)
    assert not torch.equal(made.x, make_impressions(model, head, samples=5, seed=0).x)

    run = three.unlearn("distill", samples=5, epochs=2, batch_size=7)
    numbers = {name: run.config[name] for name in ("lr", "epochs", "batch_size")}
    same, other = (
        ZeroShotUnlearner(model, made, [1, 2], method="distill", seed=seed, **numbers).unlearn()[0] for seed in (3, 0)
    )
    assert torch.equal(weights(run.load_model()), weights(same))
    assert run.metrics["masked"]["forget_accuracy"] == 0 < run.metrics["original"]["forget_accuracy"]
    assert not torch.equal(weights(same), weights(other))


@pytest.mark.parametrize("last", [nn.ReLU(), nn.Softmax(1), nn.BatchNorm1d(10)])
def test_a_network_that_ends_in_anything_but_a_linear_layer_has_no_head(last):
    assert find_head(nn.Sequential(nn.Flatten(), nn.Linear(4, 10))) == "1"
    with pytest.raises(ValueError, match="does not end in a linear layer"):
        find_head(nn.Sequential(nn.Flatten(), nn.Linear(4, 10), last))


class Scaled(nn.Module):
    """Takes a parameter up early and uses it late."""

    def __init__(self):
        super().__init__()
        self.scale, self.one, self.two = nn.Parameter(torch.tensor(3.0)), nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x):
        scale = self.scale
        return self.two(self.one(x)) * scale


def test_a_parameter_that_is_used_behind_the_cut_does_not_cross_it():
    model, x = Scaled(), torch.randn(3, 4)
    body, tail = split(model, "two")
    assert torch.equal(tail(body(x)), model(x))


class Joined(nn.Module):
    """Two branches, of which one or both end in a ReLU, added before the head."""

    def __init__(self, both):
        super().__init__()
        self.both, self.one, self.two, self.head = both, nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x):
        one, two = self.one(x).relu(), self.two(x)
        return self.head(one + (two.relu() if self.both else two))


@pytest.mark.parametrize("both", [True, False])
def test_a_sum_is_never_negative_only_where_no_part_is(both):
    assert (layer_bounds(Joined(both), "head")[0] >= 0) is both


@pytest.mark.parametrize(
    "old, new, expected",
    [
        ({"lr": 1, "size": None}, {"lr": 1, "size": None}, None),
        ({"lr": 1}, {"lr": 2}, ("lr", 1, 2)),
        ({"lr": 1}, {"lr": 1, "weights": "a.pth"}, ("weights", None, "a.pth")),
        ({"lr": 1, "weights": "a.pth"}, {"lr": 1}, ("weights", "a.pth", None)),
        ({"lr": 1, "device": "cuda"}, {"lr": 1}, None),
    ],
)
def test_two_runs_differ_in_any_argument_that_one_of_them_has_and_in_no_note(old, new, expected):
    assert first_difference(Run(Path("run"), old), new) == (expected or (None, None, None))


def test_a_run_that_does_not_tell_its_format_is_of_an_older_one(tmp_path):
    run = write_run(tmp_path, "lenet5-digits-s0", {"lr": 1}, make_model("lenet5", 10), {}, {})
    assert find_run(tmp_path, run.name, {"lr": 1}) == run
    write_json(run.path / "config.json", {name: value for name, value in run.config.items() if name != "format"})
    with pytest.raises(ValueError, match="older format.*--force makes it again, --version-name keeps both"):
        find_run(tmp_path, run.name, {"lr": 1})


@pytest.mark.parametrize("mean, std", [(0.13, 0.31), ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))])
def test_pictures_are_normalised_value_by_value_and_stay_within_the_range_that_is_told(digits, mean, std):
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    data = dataclasses.replace(digits, mean=mean, std=std, framing=None)
    x, (low, high) = data.normalise(images), data.pixel_range
    for channel in range(3):
        m, s = (value if isinstance(value, float) else value[channel] for value in (mean, std))
        assert x[0, channel, 0, :2].tolist() == pytest.approx([-m / s, (1 / 255 - m) / s], abs=1e-5)
        assert x[1, channel, -1, -1].item() == pytest.approx((1 - m) / s, abs=1e-5)
    assert (x.min().item(), x.max().item()) == pytest.approx((low, high), abs=1e-5)


def test_logits_are_those_of_the_network_at_rest_however_it_was_left(digits):
    model, pictures = make_model("lenet5", 10, dropout=0.9), digits.test.images[:20]
    at_rest = predict_logits(model.eval(), pictures, digits)
    assert torch.equal(predict_logits(model.train(), pictures, digits), at_rest)
    assert not model.training


@pytest.mark.parametrize(("side", "sizes"), [(28, [500, 200]), (224, [13] * 2 + [4])])
def test_large_pictures_pass_through_a_network_in_small_batches(digits, side, sizes):
    large = dataclasses.replace(digits, framing=Framing((3, side, side)))
    batches = list(
        iterate_batches(make_model("lenet5", 10), digits.test.images[:1].expand(sum(sizes), -1, -1, -1), large)
    )
    assert [len(batch) for batch in batches] == sizes
    assert {tuple(batch.shape[1:]) for batch in batches} == {(3, side, side)}
