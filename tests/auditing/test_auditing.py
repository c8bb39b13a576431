"""The audit: metrics and attacks on numbers that a hand computes, verdicts, and the audit of a run as a whole."""

import copy
import json
import math
import shutil
import sys
from dataclasses import replace
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
import torch
from filelock import FileLock, Timeout
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import Lab, changed, on_disk, tiny_data, tiny_network
from torch import nn
from torch.nn import functional as F
from unlearn_lib.shell import brief_json

from unlearn_lib import (
    Data,
    Split,
    UserError,
    agreement,
    anamnesis_index,
    audit,
    audit_run,
    audit_table,
    evaluate,
    extract_features,
    find_head,
    fit,
    js_divergence,
    lab_grid,
    linear_probe,
    mask,
    membership,
    misplaced_answers,
    open_experiment,
    open_run,
    predict_logits,
    probe_forget_classes,
    relearn_curve,
    relearn_time,
    trained_seeds,
    verdict,
    weight_changes,
    zrf,
)
from unlearn_lib.__main__ import main
from unlearn_lib.auditing import golden_band, membership_forget
from unlearn_lib.auditing.verdict import ROWS

ONE_HOTS = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]])
HALVES = torch.zeros(3, 2)
MIXED = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [0.0, -torch.inf]])  # three pictures: 1/2, 3/4 and 1 on class 0

logits = st.lists(st.floats(-30, 30), min_size=4, max_size=4).map(lambda row: torch.tensor([row]))


def test_js_of_disjoint_one_hots_is_ln_2():
    assert js_divergence(ONE_HOTS[:1], ONE_HOTS[1:]).item() == pytest.approx(math.log(2))


@given(logits, logits)
def test_js_is_symmetric_and_lies_between_0_and_ln_2(first, second):
    there, back = js_divergence(first, second).item(), js_divergence(second, first).item()
    assert there == pytest.approx(back, abs=1e-12)
    assert 0 <= there <= math.log(2)
    assert js_divergence(first, first).item() == pytest.approx(0, abs=1e-12)


def test_js_of_three_pictures_is_what_the_hand_computes():
    def entropy(*p):
        return -sum(x * math.log(x) for x in p if x)

    by_hand = [0.0] + [
        entropy(m, 1 - m) - (entropy(0.5, 0.5) + entropy(p, 1 - p)) / 2 for p, m in ((0.75, 0.625), (1.0, 0.75))
    ]
    assert js_divergence(HALVES, MIXED).tolist() == pytest.approx(by_hand)
    assert zrf(HALVES, MIXED) == pytest.approx(1 - sum(by_hand) / 3)


@pytest.mark.parametrize("bad", [[math.nan, 0.0], [math.inf, 0.0], [-math.inf, -math.inf]])
def test_js_of_what_is_no_distribution_is_refused(bad):
    with pytest.raises(ValueError, match="logits: NaN or .inf given"):
        js_divergence(torch.tensor([bad]), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="logits: NaN or .inf given"):
        zrf(torch.zeros(1, 2), torch.tensor([bad]))


def test_agreement_of_three_pictures():
    first, second = torch.tensor([[1, 0], [0, 1], [1, 0]]), torch.tensor([[2, 1], [3, 1], [5, 0]])
    assert agreement(first, second) == pytest.approx(2 / 3)
    assert agreement(first, first) == 1


def test_misplaced_counts_the_answers_that_would_have_to_change():
    labels, golden = torch.tensor([0, 0, 1]), torch.tensor([2, 3, 3])
    assert misplaced_answers(torch.tensor([2, 2, 3]), golden, labels, 4) == pytest.approx(0.25)
    assert misplaced_answers(torch.tensor([3, 2, 3]), golden, labels, 4) == 0
    assert misplaced_answers(torch.tensor([0, 0, 1]), golden, labels, 4) == 1


def test_relearn_time_is_the_first_batch_that_reaches_the_target():
    assert relearn_time([0.0, 0.5, 0.9, 0.4], 0.5) == 1
    assert relearn_time([0.9], 0.5) == 0
    assert relearn_time([0.0, 0.4], 0.5) is None


def test_ain_of_golden_against_itself_is_1_and_needs_both_times():
    assert anamnesis_index(38, 38) == 1
    assert anamnesis_index(19, 38) == 0.5
    assert anamnesis_index(None, 38) is anamnesis_index(38, None) is anamnesis_index(3, 0) is None


def test_membership_in_one_distribution_is_a_coins_toss_and_in_two_apart_certain():
    noise = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    standard_error = math.sqrt(0.25 / 4000)
    assert membership(noise[:2000], noise[2000:]) == pytest.approx(0.5, abs=4 * standard_error)
    assert membership(noise[:200], noise[2000:2500] + 100) == 1


@pytest.mark.parametrize("count, accuracy", [(4, None), (5, 1.0), (15, 1.0)])
def test_membership_needs_five_pictures_of_either_kind(count, accuracy):
    low, high = torch.linspace(0, 1, count), torch.linspace(9, 10, 15)
    assert membership(low, high) == membership(high, low) == accuracy


def test_a_probe_of_separable_features_is_right_and_of_shuffled_labels_at_chance():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(1500) % 3
    features = 20 * torch.eye(3)[labels] + torch.randn(1500, 3, generator=generator)
    assert linear_probe(features[:900], labels[:900], features[900:], labels[900:]) == 1
    shuffled = labels[torch.randperm(1500, generator=generator)]
    chance = linear_probe(features[:900], shuffled[:900], features[900:], shuffled[900:])
    assert chance == pytest.approx(1 / 3, abs=4 * math.sqrt(2 / 9 / 600))


def test_a_probe_of_three_pictures():
    train, labels = torch.tensor([[0.0], [0.1], [5.0], [5.1]]), torch.tensor([0, 0, 1, 1])
    assert linear_probe(train, labels, torch.tensor([[0.2], [4.0], [6.0]]), torch.tensor([0, 1, 0])) == pytest.approx(
        2 / 3
    )


@settings(max_examples=50)
@given(st.integers(0, 2**20), st.sets(st.integers(0, 5), min_size=1, max_size=5))
def test_masking_never_lowers_retain_accuracy(seed, forget):
    generator = torch.Generator().manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(4, 6))
    x, labels = torch.randn(60, 4, generator=generator), torch.randint(0, 6, (60,), generator=generator)
    retain = ~torch.isin(labels, torch.tensor(sorted(forget)))
    right, right_masked = (m(x).argmax(1)[retain] == labels[retain] for m in (net, mask(net, forget)))
    assert bool((right_masked >= right).all())


@pytest.fixture(scope="module")
def data():
    return tiny_data()


@pytest.fixture(scope="module")
def trained(data):
    """A tiny network that has learned all four classes."""
    net = tiny_network(5)
    fit(net, data, epochs=4, lr=0.02, batch_size=32, seed=5)
    return net


def test_moved_names_what_changed_and_by_how_much(trained):
    other = copy.deepcopy(trained)
    with torch.no_grad():
        other.head.bias.mul_(1.5)
        other.norm.running_mean.mul_(0)
    assert weight_changes(trained, trained) == {}
    assert weight_changes(other, trained) == {"head.bias": pytest.approx(0.5, rel=1e-5), "norm.running_mean": 1.0}


def test_the_probe_learns_from_training_pictures_and_is_judged_on_those_of_the_test(trained, data):
    shifted = changed(data, "test", labels=(data.test.labels + 1) % 4)
    assert probe_forget_classes(trained, data, [1, 2], "head") > 0.8
    assert probe_forget_classes(trained, shifted, [1, 2], "head") < 0.2


def test_the_probe_sees_no_picture_of_the_test_but_those_to_forget_and_none_of_the_validation(trained, data):
    images = data.test.images.clone()
    images[~torch.isin(data.test.labels, torch.tensor([1, 2]))] = 255
    other = changed(changed(data, "test", images=images), "val", images=255 - data.val.images)
    assert probe_forget_classes(trained, other, [1, 2], "head") == probe_forget_classes(trained, data, [1, 2], "head")


def test_the_probe_takes_as_many_pictures_of_each_class_as_it_is_told_drawn_from_its_seed(trained, data):
    net, values = tiny_network(9).eval(), set()
    for seed in range(6):
        values.add(probe_forget_classes(net, data, [1, 2], "head", samples=3, seed=seed))
    assert len(values) > 1
    assert probe_forget_classes(net, data, [1, 2], "head", samples=40, seed=1) == probe_forget_classes(
        net, data, [1, 2], "head"
    )


def test_a_probe_finds_the_class_behind_a_mask_as_well_as_before(trained, data):
    first, second = (probe_forget_classes(net, data, [1, 2], "head") for net in (trained, mask(trained, [1, 2])))
    assert first == second > 0.8


@pytest.mark.parametrize(
    "attack", [lambda *args: probe_forget_classes(*args, "head"), lambda *args: relearn_curve(*args, 0.9)]
)
def test_a_forget_class_without_training_pictures_can_be_neither_probed_nor_relearned(trained, data, attack):
    without = replace(data, train=data.train.without([2]))
    with pytest.raises(ValueError, match="data: tiny has no training picture of .'south-west'. that opens"):
        attack(trained, without, [1, 2])


def test_a_retain_class_without_training_pictures_does_not_stop_the_probe(trained, data):
    without = replace(data, train=data.train.without([3]))
    assert probe_forget_classes(trained, without, [1, 2], "head") > 0.8


def test_members_are_training_pictures_of_the_forget_classes(trained, data):
    forgotten = torch.isin(data.train.labels, torch.tensor([1, 2]))[:, None, None, None]
    other_retain = changed(data, "train", images=torch.where(forgotten, data.train.images, 255 - data.train.images))
    other_forget = changed(data, "train", images=torch.where(forgotten, 255 - data.train.images, data.train.images))
    assert membership_forget(trained, other_retain, [1, 2], seed=3) == membership_forget(trained, data, [1, 2], seed=3)
    assert membership_forget(trained, other_forget, [1, 2], seed=3) > 0.9


def test_those_held_against_members_are_test_pictures_of_the_forget_classes(trained, data):
    forgotten = torch.isin(data.test.labels, torch.tensor([1, 2]))[:, None, None, None]
    other_retain = changed(data, "test", images=torch.where(forgotten, data.test.images, 255 - data.test.images))
    other_forget = changed(data, "test", images=torch.where(forgotten, 255 - data.test.images, data.test.images))
    assert membership_forget(trained, other_retain, [1, 2], seed=3) == membership_forget(trained, data, [1, 2], seed=3)
    assert membership_forget(trained, other_forget, [1, 2], seed=3) > 0.9


class Biases(nn.Module):
    """Two logits: the first pixel as it is and 0, each with a bias; nothing else is to be learned."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return torch.stack([x.flatten(1)[:, 0], torch.zeros(len(x))], 1) + self.bias


def test_relearning_by_hand_each_step_of_adam_moves_a_bias_by_a_thousandth():
    """Class 1 alone is shown, so that its bias goes up and the other down: 0.002 a batch between them, Adam's first
    steps being as long as its rate. A test picture of value v needs v / 10,000: every batch 20 of a hundred more."""
    images = torch.arange(100, dtype=torch.uint8)[:, None, None, None]
    test = Split(images[5::10], torch.ones(10, dtype=torch.int64))
    train = Split(torch.zeros(300, 1, 1, 1, dtype=torch.uint8), torch.ones(300, dtype=torch.int64))
    data = Data("bias", "bias", "", ["a", "b"], train, train, test, False, mean=0.0, std=10_000 / 255)
    assert relearn_curve(Biases(), data, [1], 1.0, seed=2) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert relearn_curve(Biases(), data, [1], 0.5, seed=2) == pytest.approx([0, 0.2, 0.4, 0.6])
    assert relearn_curve(Biases(), data, [1], 0.5, limit=2) == pytest.approx([0, 0.2, 0.4])


@pytest.mark.parametrize("seed", [0, 7])
def test_relearning_goes_through_all_training_pictures_in_the_order_of_its_seed(data, seed):
    generator, net = torch.Generator().manual_seed(seed), tiny_network(3)
    torch.randperm(30, generator=generator)  # of the fixed test pictures, all thirty here
    test, optimiser, curve = data.test.only([1]), torch.optim.Adam(net.parameters(), lr=1e-3), []
    for _ in range(3):
        for index in torch.randperm(160, generator=generator).split(128):
            logits = net.train()(data.normalise(data.train.images[index]))
            optimiser.zero_grad()
            F.cross_entropy(logits, data.train.labels[index]).backward()
            optimiser.step()
            answers = net.eval()(data.normalise(test.images)).argmax(1)
            curve.append((answers == 1).double().mean().item())
    found = relearn_curve(tiny_network(3), data, [1], 2.0, seed=seed, limit=6)
    assert found[1:] == pytest.approx(curve, abs=1 / 30 + 1e-9)  # where a network computes in half precision
    assert len(found) == 7


def test_relearning_draws_no_more_epochs_than_it_uses(trained, data, monkeypatch):
    randperm, drawn = torch.randperm, []
    monkeypatch.setattr(torch, "randperm", lambda n, **rest: drawn.append(n) or randperm(n, **rest))
    relearn_curve(trained, data, [1], 2.0, limit=5)
    assert drawn == [30, 160, 160, 160]


@pytest.mark.parametrize("count", [2, 127, 129, 130])
def test_a_last_batch_of_one_picture_stops_no_relearning(count):
    data = tiny_data(train=33)
    data = replace(data, train=data.train.take(torch.arange(count)))
    assert len(relearn_curve(tiny_network(), data, [1], 2.0, limit=5)) == 6


def test_a_batch_of_which_one_picture_opens_is_no_step(data, tmp_path):
    lazy = on_disk(replace(data, train=data.train.take(torch.arange(4))), tmp_path)
    for i in (0, 2, 3):
        (tmp_path / f"train-{i}.png").write_bytes(b"")
    assert len(relearn_curve(tiny_network(), lazy, [1], 2.0, limit=3)) == 1


def test_relearning_begins_at_the_present_accuracy_and_leaves_the_model_alone(trained, data):
    net, now = copy.deepcopy(trained), evaluate(trained, data, [1])["forget_accuracy"]
    with torch.no_grad():
        net.head.bias[1] -= 5
    before, begin = copy.deepcopy(net.state_dict()), evaluate(net, data, [1])["forget_accuracy"]
    curve = relearn_curve(net, data, [1], 0.9, seed=1)
    assert curve[0] == begin < 0.5
    assert curve[-1] >= 0.9 > max(curve[:-1])
    assert curve == relearn_curve(net, data, [1], 0.9, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values(), strict=True))
    assert relearn_curve(trained, data, [1], now) == [now]


def audit_of(net, data, golden=None, **more):
    common = {"golden": golden or tiny_network(8), "stranger": tiny_network(9), "target": 0.0, "layer": "head"}
    return audit(net, data, [1, 2], **common | more)


def test_the_audit_is_seeded_and_touches_no_model_and_no_random_state(trained, data):
    golden = tiny_network(8)
    before, state = [copy.deepcopy(net.state_dict()) for net in (trained, golden)], torch.random.get_rng_state()
    assert audit_of(trained, data, golden, seed=4) == audit_of(trained, data, golden, seed=4)
    assert torch.equal(state, torch.random.get_rng_state())
    for old, net in zip(before, (trained, golden), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(old.values(), net.state_dict().values(), strict=True))


def test_the_audit_consists_of_its_attacks_and_of_what_the_evaluation_says(trained, data):
    numbers = audit_of(trained, data, target=0.5, seed=4)
    block = evaluate(trained, data, [1, 2])
    assert numbers["forget_accuracy"] == block["forget_accuracy"]
    assert numbers["retain_accuracy"] == block["retain_accuracy"]
    first, random = (predict_logits(net, data.test.only([1, 2]).images, data) for net in (trained, tiny_network(9)))
    assert numbers["zrf"] == zrf(first, random)
    assert numbers["membership"] == membership_forget(trained, data, [1, 2], seed=4)
    assert numbers["probe"] == probe_forget_classes(trained, data, [1, 2], "head", seed=4)
    assert numbers["curve"] == relearn_curve(trained, data, [1, 2], 0.5, seed=4)


def test_golden_beside_itself_agrees_in_everything(trained, data):
    numbers = audit_of(trained, data, golden=trained)
    assert numbers["agreement_forget"] == numbers["agreement_retain"] == 1
    assert numbers["js_forget"] == pytest.approx(0, abs=1e-9)
    assert numbers["misplaced"] == 0


def test_an_audit_of_pictures_that_stay_on_disk_is_that_of_pictures_in_memory(trained, data, tmp_path):
    assert audit_of(trained, on_disk(data, tmp_path), target=0.5) == audit_of(trained, data, target=0.5)


def test_what_does_not_open_is_left_out_of_every_part_of_the_audit(trained, data, tmp_path):
    lazy = on_disk(data, tmp_path)
    for part, places in {"train": [1, 5, 7], "test": [2, 3, 9]}.items():
        split = getattr(data, part)
        for i in places:
            (tmp_path / f"{part}-{i}.png").write_bytes(b"")
        good = torch.tensor([i not in places for i in range(len(split))])
        data = replace(data, **{part: split.take(good)})
    broken, whole = audit_of(trained, lazy), audit_of(trained, data)
    assert broken == whole
    assert len(relearn_curve(trained, lazy, [1, 2], 2.0, limit=3)) == 4


def test_an_audit_without_test_pictures_of_the_retain_classes_is_refused(trained, data):
    with pytest.raises(ValueError, match="data: tiny has no test picture of the retain classes"):
        audit_of(trained, replace(data, test=data.test.only([1, 2])))


def test_a_network_in_half_precision_is_audited(trained, data):
    half = copy.deepcopy(trained).to(torch.bfloat16)
    whole, rounded = audit_of(trained, data), audit_of(half, data)
    assert rounded["probe"] == pytest.approx(whole["probe"], abs=0.1)
    assert extract_features(half, data.test.images[:3], data, "input").dtype == torch.float32


def test_a_network_of_nan_has_no_audit(trained, data):
    broken = copy.deepcopy(trained)
    with torch.no_grad():
        broken.head.bias[0] = math.nan
    with pytest.raises(ValueError, match="model: its logits are not numbers"):
        audit_of(broken, data)


@pytest.mark.parametrize(
    "value, band, word",
    [
        (5.0, {"mean": 5.5, "std": 0.5, "n": 5}, "inside"),
        (3.0, {"mean": 5.0, "std": 0.5, "n": 5}, "outside by -4.0 sd"),
        (None, {"mean": 50.0, "std": 5.0, "n": 5}, "outside by +190.0 sd"),
        (0.1, {"mean": 0.0, "std": 0.0, "n": 5}, "outside"),
        (0.0, {"mean": 0.0, "std": 0.0, "n": 5}, "inside"),
        (0.0, {"mean": 0.0, "std": 0.0, "n": 1}, "no band"),
        (7.8, {"mean": 3.0, "std": 1.5811, "n": 5}, "inside"),
        (7.82, {"mean": 3.0, "std": 1.5811, "n": 5}, "outside by +3.0 sd"),
        (-1.82, {"mean": 3.0, "std": 1.5811, "n": 5}, "outside by -3.0 sd"),
        (14.0, {"mean": 0.0, "std": 1.0, "n": 2}, "inside"),  # t(1, 0.975) = 12.706
        (15.6, {"mean": 0.0, "std": 1.0, "n": 2}, "outside by +15.6 sd"),
    ],
)
def test_a_verdict_says_inside_or_by_how_many_standard_deviations_outside(value, band, word):
    assert verdict(value, band) == word


def test_a_band_by_hand():
    band = golden_band([1.0, 2.0, 3.0, 4.0, 5.0])  # t(4, 0.975) = 2.7764, s = sqrt(10 / 4), sqrt(1 + 1/5) = 1.0954
    assert (band["mean"], band["n"]) == (3.0, 5)
    assert band["std"] == pytest.approx(math.sqrt(2.5))
    assert band["high"] == pytest.approx(3 + 2.776445 * 1.581139 * 1.095445, abs=1e-4)
    assert band["low"] == pytest.approx(3 - 2.776445 * 1.581139 * 1.095445, abs=1e-4)


def test_a_band_of_equal_values_is_a_point_and_of_one_value_none():
    assert (golden_band([0.5] * 3)["low"], golden_band([0.5] * 3)["high"]) == (0.5, 0.5)
    assert (golden_band([0.5])["low"], golden_band([0.5])["n"]) == (None, 1)
    assert golden_band([None, None])["n"] == 0


@pytest.mark.parametrize("n", [3, 5, 10])
def test_a_true_golden_network_is_refused_in_one_case_of_twenty(n):
    draws = torch.randn(3000, n + 1, generator=torch.Generator().manual_seed(n), dtype=torch.double)
    refused = sum(verdict(row[0], golden_band(row[1:])) != "inside" for row in (70 + 3 * draws).tolist())
    assert refused / 3000 == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 3000))


def give_up_early(monkeypatch, batches=160):
    """After 160 mini-batches: nothing here takes longer but the mask."""
    for room in ("attacks", "verdict"):
        monkeypatch.setattr(sys.modules[f"unlearn_lib.auditing.{room}"], "LIMIT", batches)


@pytest.fixture(scope="module")
def tiny_once(tmp_path_factory):
    experiment = Lab(tmp_path_factory.mktemp("tiny"), seed=3)
    experiment.train()
    with pytest.MonkeyPatch.context() as monkeypatch:
        give_up_early(monkeypatch)
        return experiment, audit_run(experiment, experiment.unlearn(), seeds=[3, 4, 6])


@pytest.fixture
def tiny(tiny_once, tmp_path, monkeypatch):
    """The tiny network's lab of seed 3, an unlearned run, and its audit beside golden networks of three seeds."""
    give_up_early(monkeypatch)
    experiment, audited = tiny_once
    experiment = replace(experiment, root=Path(shutil.copytree(experiment.root, tmp_path / "runs")))
    audited = open_run(experiment.root, audited.name)
    return experiment, audited, audited.metrics["audit"]


def test_an_audit_lands_in_metrics_json_with_all_its_parts(tiny):
    _, audited, block = tiny
    assert {"probe", "relearn", "membership", "js", "agreement", "zrf", "moved"} <= set(block)
    assert block["seeds"] == [3, 4, 6]
    assert block["layer"] == "head"
    assert block["target"] == pytest.approx(0.95 * block["forget_accuracy"]["original"])
    assert set(block["moved"]["unlearned"]) == {"head.weight", "head.bias"}
    assert block["probe"]["unlearned"] == block["probe"]["masked"] == block["probe"]["original"]
    assert block["relearn"]["ain"]["golden"] == 1
    assert block["js"]["forget"]["golden"] == pytest.approx(0, abs=1e-9)
    assert block["probe"]["gap"] == pytest.approx(block["probe"]["unlearned"] - block["probe"]["golden"])
    assert audited.metrics["unlearned"]["forget_accuracy"] == block["forget_accuracy"]["unlearned"] == 0


def test_each_metric_has_the_band_of_the_golden_networks_and_its_verdict(tiny):
    experiment, _, block = tiny
    goldens = [replace(experiment, seed=seed) for seed in (3, 4, 6)]
    retain = [evaluate(g.load(g.finished_golden()), experiment.dataset, [1])["retain_accuracy"] for g in goldens]
    band = block["retain_accuracy"]["band"]["golden"]
    assert band == json.loads(json.dumps(golden_band(retain)))
    assert block["retain_accuracy"]["verdict"] == verdict(block["retain_accuracy"]["unlearned"], band)
    assert block["js"]["forget"]["band"]["golden"]["n"] == 2  # golden to itself is left out


def test_golden_networks_that_did_not_relearn_stand_at_the_limit_in_their_band(tmp_path, monkeypatch):
    give_up_early(monkeypatch, 1)
    experiment = Lab(tmp_path)
    experiment.train()
    times = audit_run(experiment, experiment.unlearn(), seeds=[0, 1]).metrics["audit"]["relearn"]
    assert times["golden"] is None
    assert times["band"]["golden"]["values"] == [1, 1]


def test_the_networks_that_an_audit_trained_are_found_again_and_those_of_other_classes_not(tiny):
    experiment, _, _ = tiny
    replace(experiment, seed=7).train()  # without a golden network
    assert trained_seeds(experiment) == [3, 4, 6]
    far = replace(experiment, seed=2026)
    far.train(), far.golden()
    assert trained_seeds(experiment) == [3, 4, 6, 2026]


def test_an_audit_made_before_is_read_again_without_a_word(tiny, caplog):
    experiment, audited, block = tiny
    caplog.set_level("INFO", "unlearn_lib")
    assert audit_run(experiment, audited).metrics["audit"] == block
    assert caplog.messages == []


def test_with_force_everything_is_audited_anew(tiny, caplog):
    experiment, audited, block = tiny
    caplog.set_level("INFO", "unlearn_lib")
    assert (
        audit_run(experiment, audited, seeds=[3], force=True).metrics["audit"]["probe"]["golden"]
        == block["probe"]["golden"]
    )
    assert caplog.messages == [
        "tiny-tiny-s3: audited",
        "tiny-tiny-golden-1-s3: audited",
        "tiny-tiny-s3-masked: audited",
        "tiny-tiny-unlearned-s3: audited",
    ]


def test_no_other_network_takes_the_place_of_a_run_while_it_is_audited(tiny, monkeypatch):
    experiment, audited, _ = tiny

    def audit(*args, **numbers):
        with pytest.raises(Timeout):
            FileLock(experiment.root / ".locks" / f"{audited.name}.lock").acquire(blocking=False)
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["unlearn_lib.auditing.verdict"], "audit", audit)
    with pytest.raises(KeyboardInterrupt):
        audit_run(experiment, audited, seeds=[3], force=True)


def test_numbers_of_other_test_pictures_or_another_layer_are_not_taken(tiny):
    experiment, audited, block = tiny
    other = replace(experiment, data=changed(experiment.dataset, "test", images=255 - experiment.dataset.test.images))
    inverted = audit_run(other, audited, seeds=[3]).metrics["audit"]
    assert inverted["retain_accuracy"]["original"] != block["retain_accuracy"]["original"]
    deeper = audit_run(experiment, audited, seeds=[3], layer="input").metrics["audit"]
    assert deeper["layer"] == "input"
    found = probe_forget_classes(experiment.load(audited), experiment.dataset, [1], "input")
    assert deeper["probe"]["unlearned"] == found != block["probe"]["unlearned"]


def test_a_run_of_another_original_than_there_is_now_is_not_audited(tmp_path):
    experiment = Lab(tmp_path)
    experiment.train()
    run = experiment.unlearn()
    replace(experiment, data=tiny_data(train=20)).train()
    with pytest.raises(
        ValueError, match="run: tiny-tiny-unlearned-s0 was unlearned from another network than tiny-tiny-s0 is now"
    ):
        audit_run(experiment, run)


def test_an_original_that_never_knew_the_classes_leaves_nothing_to_audit(tmp_path):
    experiment = Lab(tmp_path)
    experiment._write("original", experiment._trained(experiment.forget_classes), ())
    with pytest.raises(ValueError, match="run: tiny-tiny-s0 is right on no test picture of .1.; it knows"):
        audit_run(experiment, experiment.unlearn())


def test_an_audit_without_test_pictures_of_the_classes_says_so(tmp_path):
    data = tiny_data()
    experiment = Lab(tmp_path, data=replace(data, test=data.test.without([1])))
    experiment.train()
    with pytest.raises(ValueError, match="data: tiny has no test picture to forget that opens"):
        audit_run(experiment, experiment.unlearn())


def test_the_table_has_a_column_a_model_and_a_verdict_a_run(tiny):
    _, _, block = tiny
    table = audit_table({"last": block, "again": block})
    assert list(table.columns[:6]) == ["original", "masked", "last", "again", "golden", "golden band"]
    assert table.loc["AIN", "golden"] == "1.00"
    assert table.loc["retain accuracy, %", "golden band"].endswith("(n = 3)")
    assert table.loc["JS to golden on F, nats", "golden band"].endswith("(n = 2)")
    assert table.loc["forget accuracy, %", "verdict, last"] in ("inside", "outside")
    assert table.loc["relearn time, batches", "masked"] == "> 160"


def test_what_the_table_shows_of_each_model_is_the_audits_number(tiny):
    _, _, block = tiny
    table = audit_table({"last": block})
    for path, (title, _, digits) in ROWS.items():
        metric, factor = reduce(getitem, path, block), 100 if title.endswith("%") else 1
        columns = {"original": "original", "masked": "masked", "unlearned": "last", "golden": "golden"}
        seen = {model: table.loc[title, column] for model, column in (columns | {"gap": "gap, last"}).items()}
        for name, shown in seen.items():
            if metric[name] is None:
                assert shown == ("> 160" if path == ("relearn",) and name != "gap" else "-")
            else:
                assert float(shown) == pytest.approx(factor * metric[name], abs=0.51 * 10**-digits)
        assert table.loc[title, "golden band"].startswith(f"{factor * metric['band']['golden']['mean']:.{digits}f} ±")


@pytest.mark.parametrize("other", [{"layer": "hidden"}, {"seeds": [3, 4]}])
def test_audits_that_do_not_belong_side_by_side_stand_in_no_table(tiny, other):
    _, _, block = tiny
    with pytest.raises(UserError, match=f"audits: {next(iter(other))} .* given; audits of one"):
        audit_table({"last": block, "other": block | other})


def test_too_few_pictures_for_a_membership_attack_are_a_dash_in_the_table(tmp_path, monkeypatch):
    give_up_early(monkeypatch)
    experiment = Lab(tmp_path, data=tiny_data(test=4))
    experiment.train()
    block = audit_run(experiment, experiment.unlearn(), seeds=[0, 1]).metrics["audit"]
    row = audit_table({"last": block}).loc["membership inference, %"]
    assert row["original"] == row["last"] == row["golden band"] == "-"
    assert row["verdict, last"] == "no band"


SOON = 10  # mini-batches of LeNet5, of which the tests of the shell read no result


@pytest.fixture(scope="module")
def audited_once(experiment):
    run = experiment.unlearn("distill")
    with pytest.MonkeyPatch.context() as monkeypatch:
        give_up_early(monkeypatch, SOON)
        assert main(["audit", "--run", run.name, "--runs-root", str(experiment.root), "--seeds", "1"]) == 0
    return run


@pytest.fixture
def audited(audited_once, monkeypatch):
    """LeNet5 on digits: an audit of one seed, as the shell makes it."""
    give_up_early(monkeypatch, SOON)
    return audited_once


def test_the_shell_audits_a_run_by_its_name(experiment, audited, capsys):
    assert main(["audit", "--run", audited.name, "--runs-root", str(experiment.root), "--seeds", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["audit"] == json.loads(brief_json(audited.metrics))["audit"]
    assert (audited.path / "relearning.png").is_file()


def test_the_shells_table_names_the_data_and_what_moved(experiment, audited, capsys):
    assert main(["audit", "--run", audited.name, "--runs-root", str(experiment.root), "--seeds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "lenet5 on digits" in printed
    assert "linear probe on F, %" in printed
    assert "fc3.weight" in printed


@pytest.mark.parametrize("name, word", [("nothing", "no 'nothing'"), ("lenet5-digits-s0", "an unlearned run")])
def test_what_cannot_be_audited_is_a_sentence(experiment, name, word, capsys):
    assert main(["audit", "--run", name, "--runs-root", str(experiment.root)]) == 2
    assert word in capsys.readouterr().err


def test_a_run_that_forgot_other_classes_is_not_audited_as_this_one(experiment, audited):
    other = open_experiment(audited, forget=[5])
    with pytest.raises(ValueError, match="forget: .5. given, but"):
        audit_run(other, audited)


def test_an_unknown_layer_is_refused_before_any_audit(experiment, audited):
    with pytest.raises(ValueError, match="layer: 'fc9' given"):
        audit_run(experiment, audited, layer="fc9")


def test_the_lab_has_sixteen_outcomes_and_reads_them_again(experiment):
    grid = lab_grid(experiment, samples=5, epochs=3)
    assert len(grid) == 16
    assert grid.index.is_unique
    assert lab_grid(experiment, samples=5, epochs=3).equals(grid)
    assert find_head(experiment.load(experiment.original())) == "fc3"
