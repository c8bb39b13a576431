"""Every computation, on a pretended device that raises the errors of CUDA and MPS."""

import pytest
import torch
from devices import on_device, pretended
from tiny import on_disk, tiny_data, tiny_network
from torch import nn

import unlearn_lib.evaluation as evaluation
from unlearn_lib import (
    Run,
    ZeroShotUnlearner,
    agreement,
    audit,
    diagnose,
    evaluate,
    fit,
    follow_impression,
    js_divergence,
    linear_probe,
    make_impressions,
    mask,
    membership,
    misplaced_answers,
    responsive_layers,
    weight_changes,
    zrf,
)
from unlearn_lib.common import get_device


@pytest.fixture(params=["cuda", "mps"])
def device(request):
    with pretended(request.param) as device:
        yield device


def test_the_pretended_device_refuses_what_the_real_one_refuses(device):
    here, there = torch.ones(3), torch.ones(3).to(device)
    assert there.device == device
    assert not on_device(there.cpu())
    assert on_device(there[1:] * 2 + torch.tensor(1.0))
    assert on_device(torch.zeros(2, device=device))
    assert on_device(nn.Linear(2, 2).to(device).weight)
    for refused in (
        lambda: here + there,
        lambda: here[torch.tensor([0]).to(device)],
        lambda: torch.cat([here, there]),
        lambda: there.index_copy_(0, torch.tensor([0]), here[:1]),
        lambda: torch.rand(2, device=device, generator=torch.Generator()),
        lambda: nn.Linear(3, 2)(there),
    ):
        with pytest.raises(RuntimeError):
            refused()
    for refused in [there.numpy, *([there.double] if device.type == "mps" else [])]:
        with pytest.raises(TypeError):
            refused()
    assert torch.equal(there[torch.tensor([0, 2])].cpu(), here[:2])


def test_gradients_and_updates_stay_on_the_device(device):
    model = nn.Linear(2, 2).to(device)
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.ones(4, 2, device=device)).sum().backward()
    optimiser.step()
    assert on_device(model.weight)
    assert on_device(model.weight.grad)
    assert all(on_device(state["exp_avg"]) for state in optimiser.state.values())


@pytest.fixture
def network(device):
    """A tiny network, trained on the device."""
    net = tiny_network(seed=1)
    fit(net, tiny_data(), epochs=3, lr=0.02, batch_size=32, seed=1, device=device.type)
    return net.to(device)


def test_training_takes_a_device(device):
    history = fit(tiny_network(), tiny_data(), epochs=2, lr=0.02, batch_size=32, device=device.type)
    assert history["val_accuracy"][-1] > 0.5


def test_training_and_audit_on_the_device_take_images_on_disk(device, tmp_path):
    net, data = tiny_network(), on_disk(tiny_data(), tmp_path)
    history = fit(net, data, epochs=2, lr=0.02, batch_size=32, device=device.type)
    assert history["val_accuracy"][-1] > 0.5
    others = {"golden": tiny_network(2).to(device), "stranger": tiny_network(3).to(device)}
    assert audit(net.to(device), data, [1], **others, target=0.9, layer="head")["probe"] > 0.5


def test_training_continues_from_a_checkpoint_on_the_device(device, tmp_path):
    whole, stopped = tiny_network(), tiny_network()
    numbers = {"epochs": 3, "lr": 0.02, "batch_size": 32, "device": device.type}
    fit(whole, tiny_data(), **numbers, checkpoint=tmp_path / "whole.safetensors")
    (tmp_path / "whole.safetensors").rename(tmp_path / "rest.safetensors")
    fit(stopped, tiny_data(), **numbers, checkpoint=tmp_path / "rest.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), stopped.parameters(), strict=True))


@pytest.mark.parametrize("layer, recipe", [("head", "calibrated"), ("head", "published"), ("input", "calibrated")])
def test_impressions_are_made_and_diagnosed_on_the_device(network, layer, recipe):
    impressions = make_impressions(network, layer, samples=4, recipe=recipe, steps=3)
    assert not on_device(impressions.x)
    assert len(diagnose(network, impressions)) == 4


def test_deepinversion_reads_the_statistics_on_the_device(network):
    assert len(make_impressions(network, "input", samples=4, recipe="deepinversion", steps=3).x) == 16


def test_responsive_layers_are_found_on_the_device(network):
    assert list(responsive_layers(network, tries=2, layers=["head"]).index) == ["head"]
    growth, _ = follow_impression(network, 1, steps=2)
    assert len(growth) == 3


@pytest.mark.parametrize("method", ["neggrad+", "distill", "published", "mask"])
def test_unlearning_stays_on_the_device(network, method):
    impressions = make_impressions(network, "head", samples=8)
    numbers = {"epochs": 2, "lr": 1e-3}
    unlearned, _, _ = ZeroShotUnlearner(network, impressions, [1], method=method, **numbers).unlearn()
    assert on_device(unlearned.head.weight)
    assert evaluate(unlearned, tiny_data(), [1])["retain_accuracy"] > 0.3


def test_evaluation_and_its_tail_agree_on_the_device(network, monkeypatch, tmp_path):
    monkeypatch.setattr(evaluation, "SMALL", 0)
    data, run = tiny_data(), Run(tmp_path, {})
    kept = evaluation.load_activations(run, network, data, "hidden")
    assert evaluation.evaluate_tail(network, "hidden", *kept, data, [1]) == evaluate(network, data, [1])
    again = evaluation.load_activations(run, network, data, "hidden")
    assert torch.equal(kept[0], again[0])


def test_an_audit_runs_on_the_device(network):
    golden, stranger = tiny_network(2).to(get_device(network)), tiny_network(3).to(get_device(network))
    numbers = audit(network, tiny_data(), [1], golden=golden, stranger=stranger, target=0.9, layer="head")
    assert numbers["probe"] > 0.5
    assert numbers["retain_accuracy"] > 0.5


def test_metrics_take_tensors_on_the_device(network):
    there, labels = torch.rand(12, 4, device=get_device(network)), torch.arange(12, device=get_device(network)) % 4
    assert js_divergence(there, there).max() < 1e-6
    assert agreement(there, there) == 1
    assert zrf(there, there) == pytest.approx(1)
    assert misplaced_answers(there.argmax(1), there.argmax(1), labels, 4) == 0
    assert 0 <= membership(there[:, 0], there[:, 1]) <= 1
    assert 0 <= linear_probe(there, labels, there, labels) <= 1
    assert weight_changes(network, network) == {}
    assert set(weight_changes(mask(network, [1]), network)) == {"head.weight", "head.bias"}
