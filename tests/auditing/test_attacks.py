"""Attacks: membership, probe and relearning, on tensors and on a tiny network; the audit of one network."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from tiny import changed, on_disk, tiny_data, tiny_network
from torch import nn
from torch.nn import functional as F

from unlearn_lib import (
    Data,
    Split,
    agreement,
    anamnesis_index,
    audit,
    evaluate,
    extract_features,
    fit,
    js_divergence,
    linear_probe,
    mask,
    membership,
    misplaced_answers,
    predict_logits,
    probe_forget_classes,
    relearn_curve,
    relearn_time,
    zrf,
)
from unlearn_lib.auditing import membership_forget

FORGET = [1, 3]


@pytest.fixture(scope="module")
def data():
    return tiny_data()


@pytest.fixture(scope="module")
def trained(data):
    """A tiny network that has learned all four classes."""
    net = tiny_network(5)
    fit(net, data, epochs=4, lr=0.02, batch_size=32, seed=5)
    return net


def is_forget(split):
    return torch.isin(split.labels, torch.tensor(FORGET))


def invert(data, part, chosen):
    """Invert the chosen pictures (bool [N]) of one split."""
    images = getattr(data, part).images
    return changed(data, part, images=torch.where(chosen[:, None, None, None], 255 - images, images))


def tensors_equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True))


def test_membership_is_chance_in_one_distribution_and_certain_in_two():
    noise = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    standard_error = math.sqrt(0.25 / 4000)
    assert membership(noise[:2000], noise[2000:]) == pytest.approx(0.5, abs=4 * standard_error)
    assert membership(noise[:200], noise[2000:2500] + 100) == 1


@pytest.mark.parametrize("count, accuracy", [(4, None), (5, 1.0), (15, 1.0)])
def test_membership_needs_five_pictures_of_either_kind(count, accuracy):
    low = torch.linspace(0, 1, count)
    high = torch.linspace(9, 10, 15)
    assert membership(low, high) == membership(high, low) == accuracy


def test_membership_draws_from_its_seed():
    noise = torch.randn(120, generator=torch.Generator().manual_seed(0))
    values = [membership(noise[:40], noise[40:], seed=seed) for seed in (0, 0, 1, 2)]
    assert values[0] == values[1]
    assert len(set(values)) > 1


def test_members_are_training_pictures_of_the_forget_classes(trained, data):
    forget = is_forget(data.train)
    before = membership_forget(trained, data, FORGET, seed=3)
    assert membership_forget(trained, invert(data, "train", ~forget), FORGET, seed=3) == before
    assert membership_forget(trained, invert(data, "train", forget), FORGET, seed=3) > 0.9


def test_members_are_compared_with_test_pictures_of_the_forget_classes(trained, data):
    forget = is_forget(data.test)
    before = membership_forget(trained, data, FORGET, seed=3)
    assert membership_forget(trained, invert(data, "test", ~forget), FORGET, seed=3) == before
    assert membership_forget(trained, invert(data, "test", forget), FORGET, seed=3) > 0.9


def test_a_probe_is_right_on_separable_features_and_at_chance_on_shuffled_labels():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(1500) % 3
    features = 20 * torch.eye(3)[labels] + torch.randn(1500, 3, generator=generator)
    assert linear_probe(features[:900], labels[:900], features[900:], labels[900:]) == 1
    shuffled = labels[torch.randperm(1500, generator=generator)]
    chance = linear_probe(features[:900], shuffled[:900], features[900:], shuffled[900:])
    assert chance == pytest.approx(1 / 3, abs=4 * math.sqrt(2 / 9 / 600))


def test_a_probe_of_three_pictures():
    train = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    test = torch.tensor([[0.2], [4.0], [6.0]])
    found = linear_probe(train, torch.tensor([1, 1, 3, 3]), test, torch.tensor([1, 3, 1]))
    assert found == pytest.approx(2 / 3)


def test_the_probe_is_fitted_on_training_and_judged_on_test_pictures(trained, data):
    shifted = changed(data, "test", labels=(data.test.labels + 1) % 4)
    assert probe_forget_classes(trained, data, FORGET, "head") > 0.8
    assert probe_forget_classes(trained, shifted, FORGET, "head") < 0.2


def test_the_probe_uses_no_validation_picture_and_no_test_picture_of_a_retain_class(trained, data):
    other = invert(data, "test", ~is_forget(data.test))
    other = changed(other, "val", images=255 - data.val.images)
    found = probe_forget_classes(trained, other, FORGET, "head")
    assert found == probe_forget_classes(trained, data, FORGET, "head")


def test_the_probe_draws_samples_of_each_class_from_its_seed(data):
    net = tiny_network(9).eval()
    values = {probe_forget_classes(net, data, FORGET, "head", samples=3, seed=seed) for seed in range(6)}
    assert len(values) > 1
    every = probe_forget_classes(net, data, FORGET, "head")
    assert probe_forget_classes(net, data, FORGET, "head", samples=40, seed=1) == every


def test_the_probe_finds_a_class_behind_a_mask_as_well_as_before(trained, data):
    before = probe_forget_classes(trained, data, FORGET, "head")
    assert probe_forget_classes(mask(trained, FORGET), data, FORGET, "head") == before > 0.8


@pytest.mark.parametrize(
    "attack", [lambda *args: probe_forget_classes(*args, "head"), lambda *args: relearn_curve(*args, 0.9)]
)
def test_a_forget_class_without_training_pictures_is_refused(trained, data, attack):
    without = replace(data, train=data.train.without([3]))
    with pytest.raises(ValueError, match="data: tiny has no training picture of .'south-east'. "):
        attack(trained, without, FORGET)


def test_a_retain_class_without_training_pictures_does_not_stop_the_probe(trained, data):
    without = replace(data, train=data.train.without([2]))
    assert probe_forget_classes(trained, without, FORGET, "head") > 0.8


class Biases(nn.Module):
    """Two logits: the first pixel and 0, each with a bias. Nothing else learns."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return torch.stack([x.flatten(1)[:, 0], torch.zeros(len(x))], 1) + self.bias


def test_each_step_of_relearning_moves_a_bias_by_adams_rate():
    """All training pictures are of class 1: its bias rises and the other falls, 0.002 a batch between them, since
    Adam's first steps are as long as its rate. A test picture of value v needs v / 10,000: each batch, 20 % more."""
    images = torch.arange(100, dtype=torch.uint8)[:, None, None, None]
    test = Split(images[5::10], torch.ones(10, dtype=torch.int64))
    train = Split(torch.zeros(300, 1, 1, 1, dtype=torch.uint8), torch.ones(300, dtype=torch.int64))
    data = Data("bias", "bias", "", ["a", "b"], train, train, test, False, mean=0.0, std=10_000 / 255)
    assert relearn_curve(Biases(), data, [1], 1.0, seed=2) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert relearn_curve(Biases(), data, [1], 0.5, seed=2) == pytest.approx([0, 0.2, 0.4, 0.6])
    assert relearn_curve(Biases(), data, [1], 0.5, limit=2) == pytest.approx([0, 0.2, 0.4])


@pytest.mark.parametrize("seed", [0, 7])
def test_relearning_trains_on_all_training_pictures_in_the_order_of_its_seed(data, seed):
    generator = torch.Generator().manual_seed(seed)
    torch.randperm(60, generator=generator)  # draws the fixed test pictures, here all sixty
    net = tiny_network(3)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    test = data.test.only(FORGET)
    curve = []
    for _ in range(3):
        for index in torch.randperm(160, generator=generator).split(128):
            logits = net.train()(data.normalise(data.train.images[index]))
            optimiser.zero_grad()
            F.cross_entropy(logits, data.train.labels[index]).backward()
            optimiser.step()
            answers = net.eval()(data.normalise(test.images)).argmax(1)
            curve.append((answers == test.labels).double().mean().item())
    found = relearn_curve(tiny_network(3), data, FORGET, 2.0, seed=seed, limit=6)
    assert found[1:] == pytest.approx(curve, abs=1 / 30 + 1e-9)  # where a network computes in half precision
    assert len(found) == 7


def test_relearning_draws_no_more_epochs_than_it_uses(trained, data, monkeypatch):
    randperm, drawn = torch.randperm, []
    monkeypatch.setattr(torch, "randperm", lambda n, **rest: drawn.append(n) or randperm(n, **rest))
    relearn_curve(trained, data, [3], 2.0, limit=5)
    assert drawn == [30, 160, 160, 160]


@pytest.mark.parametrize("count", [4, 127, 129, 130])
def test_a_last_batch_of_one_picture_joins_the_one_before(count):
    data = tiny_data(train=33)
    data = replace(data, train=data.train.take(torch.arange(count)))
    assert len(relearn_curve(tiny_network(), data, FORGET, 2.0, limit=5)) == 6


def test_a_batch_with_one_picture_that_opens_is_no_step(data, tmp_path):
    lazy = on_disk(replace(data, train=data.train.take(torch.arange(4))), tmp_path)
    for i in (0, 2, 3):
        (tmp_path / f"train-{i}.png").write_bytes(b"")
    assert len(relearn_curve(tiny_network(), lazy, [1], 2.0, limit=3)) == 1


def test_dropout_in_relearning_is_drawn_from_the_seed(data):
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 4))
    curves = []
    for state in (1, 2):
        torch.manual_seed(state)
        curves.append(relearn_curve(net, data, FORGET, 2.0, limit=20))
    assert curves[0] == curves[1]


def test_relearning_begins_at_the_present_accuracy_and_changes_a_copy(trained, data):
    net = copy.deepcopy(trained)
    with torch.no_grad():
        net.head.bias[FORGET] -= 5
    before = copy.deepcopy(net.state_dict())
    begin = evaluate(net, data, FORGET)["forget_accuracy"]
    curve = relearn_curve(net, data, FORGET, 0.9, seed=1)
    assert curve[0] == begin < 0.5
    assert curve[-1] >= 0.9 > max(curve[:-1])
    assert curve == relearn_curve(net, data, FORGET, 0.9, seed=1)
    assert tensors_equal(before, net.state_dict())


def test_a_network_at_the_target_learns_nothing(trained, data):
    now = evaluate(trained, data, FORGET)["forget_accuracy"]
    assert relearn_curve(trained, data, FORGET, now) == [now]


def test_relearn_time_is_the_first_batch_that_reaches_the_target():
    assert relearn_time([0.0, 0.5, 0.9, 0.4], 0.5) == 1
    assert relearn_time([0.9], 0.5) == 0
    assert relearn_time([0.0, 0.4], 0.5) is None


def test_the_anamnesis_index_is_a_ratio_and_needs_both_times():
    assert anamnesis_index(38, 38) == 1
    assert anamnesis_index(19, 38) == 0.5
    assert anamnesis_index(None, 38) is anamnesis_index(38, None) is anamnesis_index(3, 0) is None


def audit_of(net, data, golden=None, **more):
    common = {"golden": golden or tiny_network(8), "stranger": tiny_network(9), "target": 0.0, "layer": "head"}
    return audit(net, data, FORGET, **common | more)


def test_the_audit_is_seeded_and_changes_no_model_and_no_random_state(trained, data):
    golden = tiny_network(8)
    before = [copy.deepcopy(net.state_dict()) for net in (trained, golden)]
    state = torch.random.get_rng_state()
    assert audit_of(trained, data, golden, seed=4) == audit_of(trained, data, golden, seed=4)
    assert torch.equal(state, torch.random.get_rng_state())
    assert tensors_equal(before[0], trained.state_dict())
    assert tensors_equal(before[1], golden.state_dict())


def test_the_audit_consists_of_its_attacks_and_of_the_evaluations_accuracies(trained, data):
    numbers = audit_of(trained, data, target=0.5, seed=4)
    block = evaluate(trained, data, FORGET)
    assert numbers["forget_accuracy"] == block["forget_accuracy"]
    assert numbers["retain_accuracy"] == block["retain_accuracy"]
    assert numbers["membership"] == membership_forget(trained, data, FORGET, seed=4)
    assert numbers["probe"] == probe_forget_classes(trained, data, FORGET, "head", seed=4)
    assert numbers["curve"] == relearn_curve(trained, data, FORGET, 0.5, seed=4)
    assert numbers["relearn"] == relearn_time(numbers["curve"], 0.5)


def test_the_audit_compares_with_golden_part_by_part(trained, data):
    golden = tiny_network(8)
    numbers = audit_of(trained, data, golden)
    for part, pictures in {"forget": data.test.only(FORGET), "retain": data.test.without(FORGET)}.items():
        ours = predict_logits(trained, pictures.images, data)
        others = predict_logits(golden, pictures.images, data)
        assert numbers[f"js_{part}"] == pytest.approx(sum(js_divergence(ours, others).tolist()) / 60)
        assert numbers[f"agreement_{part}"] == agreement(ours, others)


def test_the_audit_compares_forget_pictures_with_golden_and_with_the_stranger(trained, data):
    golden = tiny_network(8)
    numbers = audit_of(trained, data, golden)
    pictures = data.test.only(FORGET)
    ours, others, random = (predict_logits(net, pictures.images, data) for net in (trained, golden, tiny_network(9)))
    assert numbers["zrf"] == zrf(ours, random)
    assert numbers["misplaced"] == misplaced_answers(ours.argmax(1), others.argmax(1), pictures.labels, 4)


def test_golden_compared_with_itself_agrees_in_everything(trained, data):
    numbers = audit_of(trained, data, golden=trained)
    assert numbers["agreement_forget"] == numbers["agreement_retain"] == 1
    assert numbers["js_forget"] == pytest.approx(0, abs=1e-9)
    assert numbers["misplaced"] == 0


def test_pictures_on_disk_have_the_audit_of_pictures_in_memory(trained, data, tmp_path):
    assert audit_of(trained, on_disk(data, tmp_path), target=0.5) == audit_of(trained, data, target=0.5)


def test_pictures_that_do_not_open_are_left_out_of_every_part_of_the_audit(trained, data, tmp_path):
    lazy = on_disk(data, tmp_path)
    for part, places in {"train": [1, 5, 7], "test": [2, 3, 9]}.items():
        split = getattr(data, part)
        for i in places:
            (tmp_path / f"{part}-{i}.png").write_bytes(b"")
        opens = torch.tensor([i not in places for i in range(len(split))])
        data = replace(data, **{part: split.take(opens)})
    assert audit_of(trained, lazy) == audit_of(trained, data)
    assert len(relearn_curve(trained, lazy, FORGET, 2.0, limit=3)) == 4


@pytest.mark.parametrize("part, left", [("retain", FORGET), ("forget", [0, 2])])
def test_an_audit_without_test_pictures_of_either_part_is_refused(trained, data, part, left):
    with pytest.raises(ValueError, match=f"data: tiny has no test picture of the {part} classes"):
        audit_of(trained, replace(data, test=data.test.only(left)))


def test_a_network_in_half_precision_is_audited(trained, data):
    half = copy.deepcopy(trained).to(torch.bfloat16)
    assert audit_of(half, data)["probe"] == pytest.approx(audit_of(trained, data)["probe"], abs=0.1)
    assert extract_features(half, data.test.images[:3], data, "input").dtype == torch.float32


def test_a_network_of_nan_has_no_audit(trained, data):
    broken = copy.deepcopy(trained)
    with torch.no_grad():
        broken.head.bias[0] = math.nan
    with pytest.raises(ValueError, match="model: its logits are not numbers"):
        audit_of(broken, data)


def test_membership_of_forget_classes_passes_its_seed_on(monkeypatch):
    seeds = []
    monkeypatch.setattr("unlearn_lib.auditing.attacks.membership", lambda *losses, seed=0: seeds.append(seed))
    membership_forget(tiny_network().eval(), tiny_data(), [1, 3], seed=7)
    assert seeds == [7]
