import dataclasses
import math
import signal
import sys
import time

import pytest
import torch
from tiny import START, large_network, on_disk, tiny_data, tiny_network
from torch import nn
from torch.nn import functional as F

from unlearn_lib import (
    Experiment,
    Split,
    UserError,
    evaluate,
    fit,
    make_impressions,
    make_model,
    open_run,
    predict_logits,
    relearn_curve,
)
from unlearn_lib.__main__ import main
from unlearn_lib.networks import find_memory_format
from unlearn_lib.training import smooth_labels


def course(history):
    """Return the history without its seconds, the only part that a seed does not fix."""
    return {name: values for name, values in history.items() if name != "seconds"}


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture
def small_set(digits):
    """The first 300 training digits, for tests in which only the course of training matters."""
    return dataclasses.replace(digits, train=Split(digits.train.images[:300], digits.train.labels[:300]))


def test_fit_gives_the_same_bits_for_the_same_seed_only(small_set):
    models = [make_model("lenet5", 10, dropout=0.3) for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        fit(model, small_set, epochs=2, seed=seed)
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert not torch.equal(weights(models[0]), weights(models[2]))


def test_the_history_has_the_training_accuracy(small_set):
    model = make_model("lenet5", 10)
    history = fit(model, small_set, epochs=1, lr=1e-12, precision="float32")  # the network stays as it is
    right = predict_logits(model, small_set.train.images, small_set).argmax(1) == small_set.train.labels
    assert history["train_accuracy"] == [pytest.approx(right.double().mean().item())]


def test_an_interrupted_training_ends_with_the_same_bits(small_set, tmp_path, monkeypatch):
    whole, resumed = (make_model("lenet5", 10, dropout=0.3) for _ in range(2))
    history = fit(whole, small_set, epochs=4)

    def stop_at_third(steps, *_):
        for step in steps:
            if step == 2:
                raise KeyboardInterrupt
            yield step

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("unlearn_lib.training.progress", stop_at_third)
        fit(resumed, small_set, epochs=4, checkpoint=tmp_path / "checkpoint.safetensors")
    fresh = make_model("lenet5", 10, dropout=0.3)
    again = fit(fresh, small_set, epochs=4, checkpoint=tmp_path / "checkpoint.safetensors")
    assert course(again) == course(history)
    assert len(again["seconds"]) == 4  # those before the stop too
    assert torch.equal(weights(whole), weights(fresh))


def test_an_interrupted_training_of_a_large_network_ends_with_the_same_bits(tmp_path):
    whole, again, data = large_network(), large_network(), tiny_data()
    numbers = {"epochs": 3, "batch_size": 32, "checkpoint": tmp_path / "checkpoint.safetensors", "save_every": 2}
    history = fit(whole, data, **numbers)
    assert course(fit(again, data, **numbers)) == course(history)  # from the checkpoint after the second epoch
    assert torch.equal(weights(whole), weights(again))


def test_a_killed_run_continues_from_its_checkpoint(tmp_path):
    words = "train --model lenet5 --data digits --epochs 8 --runs-root".split()

    def train():
        process = START.Process(target=lambda: sys.exit(main([*words, str(tmp_path / "killed")])))
        process.start()
        return process

    process = train()
    checkpoint = tmp_path / "killed" / "lenet5-digits-s0" / "checkpoint.safetensors"
    while not checkpoint.exists():
        assert process.is_alive(), "training ended before it wrote a checkpoint"
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (checkpoint.parent / "model.safetensors").exists()
    process = train()
    process.join()
    assert process.exitcode == 0
    Experiment("lenet5", "digits", train_epochs=8, runs_root=tmp_path / "whole").train()
    killed, whole = (open_run(tmp_path / name, "lenet5-digits-s0") for name in ("killed", "whole"))
    assert killed.fingerprint() == whole.fingerprint()
    assert course(killed.history) == course(whole.history)
    assert killed.metrics["seconds"]["train"] == pytest.approx(sum(killed.history["seconds"]))
    assert not checkpoint.exists()


@pytest.mark.parametrize(
    "other",
    [
        {"epochs": 3},
        {"lr": 1e-3},
        {"seed": 1},
        {"network": {"dropout": 0.5}},
        {"network": {"seed": 1}},
        {"data": lambda data: dataclasses.replace(data, train=Split(255 - data.train.images, data.train.labels))},
    ],
    ids=["epochs", "lr", "seed", "dropout", "weights", "pictures"],
)
def test_a_checkpoint_of_another_training_is_not_used(small_set, tmp_path, other):
    path = tmp_path / "checkpoint.safetensors"
    numbers = {"epochs": 2, "lr": 3e-3, "seed": 0}
    another = numbers | {name: value for name, value in other.items() if name in numbers}
    pictures = other.get("data", lambda data: data)(small_set)
    fit(make_model("lenet5", 10, **other.get("network", {})), pictures, checkpoint=path, **another)
    first, second = (make_model("lenet5", 10) for _ in range(2))
    fit(first, small_set, checkpoint=path, **numbers)
    fit(second, small_set, **numbers)
    assert torch.equal(weights(first), weights(second))


def test_golden_never_sees_a_forget_class(small_set):
    poisoned = small_set.train.images.clone()
    poisoned[small_set.train.labels == 3] = 255
    models = [make_model("lenet5", 10) for _ in range(2)]
    for model, images in zip(models, (small_set.train.images, poisoned), strict=True):
        data = dataclasses.replace(small_set, train=Split(images, small_set.train.labels))
        fit(model, data, forget={3}, epochs=1, label_smoothing=0.1)
    assert torch.equal(weights(models[0]), weights(models[1]))


def test_label_smoothing_spreads_over_the_allowed_classes_only():
    target = smooth_labels(torch.tensor([0]), torch.tensor([True, False, True, True, False]), 0.3)
    assert target[0].tolist() == pytest.approx([0.8, 0, 0.1, 0.1, 0])


def test_the_best_epoch_by_validation_is_kept(small_set, monkeypatch):
    """Validation that gets worse from the second epoch on: the weights of the first are the result."""
    after_first, kept = make_model("lenet5", 10), make_model("lenet5", 10)
    seen = []

    def worse_and_worse(model, images, data):
        seen.append(weights(model).clone())
        logits = torch.zeros(len(images), 10)
        logits[:, 0 if len(seen) == 1 else 1] = 1.0
        return logits

    monkeypatch.setattr("unlearn_lib.training.predict_logits", worse_and_worse)
    labels = torch.zeros_like(small_set.val.labels)
    fit(kept, dataclasses.replace(small_set, val=Split(small_set.val.images, labels)), epochs=3)
    assert torch.equal(weights(kept), seen[0])
    assert not torch.equal(weights(kept), weights(after_first))


def test_validation_images_that_cannot_be_opened_count_as_absent(tmp_path):
    data, net = on_disk(tiny_data(), tmp_path), tiny_network()
    for path in tmp_path.glob("val-*"):
        path.write_bytes(b"")
    assert fit(net, data, epochs=1, batch_size=32)["val_accuracy"] == [None]
    assert not torch.equal(weights(net), weights(tiny_network()))


def test_a_batch_size_of_one_is_refused_with_batchnorm_only():
    data, net = tiny_data(train=10), tiny_network()
    with pytest.raises(UserError, match="batch_size: got 1; expected at least 2"):
        fit(net, data, epochs=1, batch_size=1)
    del net.norm
    losses = fit(net, data, epochs=3, lr=1e-3, batch_size=1)["train_loss"]
    assert losses[-1] < losses[0]


def test_the_history_has_one_value_an_epoch_and_the_loss_falls(small_set):
    history = fit(make_model("lenet5", 10), small_set, epochs=5)
    assert {len(values) for values in history.values()} == {5}
    assert history["train_loss"][-1] < 0.7 * history["train_loss"][0]


@pytest.mark.parametrize(
    "argument",
    [{"lr": 0}, {"lr": float("nan")}, {"lr": float("inf")}, {"epochs": 0}, {"batch_size": -1}, {"label_smoothing": 1}],
)
def test_a_number_out_of_range_is_refused_before_any_work(small_set, argument):
    model = make_model("lenet5", 10)
    before = weights(model)
    with pytest.raises(ValueError, match=next(iter(argument))):
        fit(model, small_set, **argument)
    assert torch.equal(weights(model), before)


def test_a_training_that_ends_with_an_enormous_loss_is_refused_and_a_smaller_lr_proposed():
    with pytest.raises(UserError, match="lr: got 1000, .* such as 100"):
        fit(large_network(), tiny_data(), epochs=2, lr=1000, batch_size=32)


def test_a_loss_that_is_enormous_before_the_last_epoch_only_is_accepted():
    net = tiny_network()
    with torch.no_grad():
        net.head.weight *= 1e4
    history = fit(net, tiny_data(), epochs=12, lr=0.5, batch_size=32)
    assert history["train_loss"][0] > 100 * math.log(4) > history["train_loss"][-1]


class Textbook(nn.Module):
    """A network that flattens with `view`, so that it fails on images in channels-last memory order."""

    input_range = (0.0, 1.0)

    def __init__(self, channels=1):
        super().__init__()
        torch.manual_seed(0)
        self.input_shape = (channels, 8, 8)
        self.conv, self.head = nn.Conv2d(channels, 8, 3, padding=1), nn.Linear(8 * 4 * 4, 4)

    def forward(self, x):
        return self.head(F.max_pool2d(F.relu(self.conv(x)), 2).view(-1, 8 * 4 * 4))


def test_a_network_that_flattens_with_view_is_trained_and_relearns():
    model, data = Textbook(), tiny_data()
    history = fit(model, data, forget=[1], epochs=4, lr=0.02, batch_size=32)
    assert history["val_accuracy"][-1] > 0.8
    assert relearn_curve(model, data, [1], 0.5, limit=300)[-1] >= 0.5


def test_a_network_that_flattens_with_view_is_evaluated_on_colours():
    grey = tiny_data()
    parts = {name: getattr(grey, name) for name in ("train", "val", "test")}
    parts = {name: Split(part.images.expand(-1, 3, -1, -1), part.labels) for name, part in parts.items()}
    assert evaluate(Textbook(channels=3), dataclasses.replace(grey, **parts))["overall_accuracy"] > 0


def test_a_network_that_flattens_with_view_takes_drawn_images():
    made = make_impressions(Textbook(channels=3), "head", samples=1, recipe="drawn")
    assert made.x.shape[1:] == (8 * 4 * 4,)


def test_other_networks_take_images_channels_last():
    assert find_memory_format(make_model("karpathynet", 10).eval(), torch.rand(2, 3, 32, 32)) == torch.channels_last
    assert find_memory_format(Textbook(channels=3), torch.rand(2, 3, 8, 8)) == torch.contiguous_format
