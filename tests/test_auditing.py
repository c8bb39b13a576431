import copy
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_lib import (
    agreement,
    ain,
    audit,
    audit_run,
    audit_table,
    experiment_of,
    find_head,
    js_divergence,
    lab_grid,
    make_model,
    mask,
    membership,
    misplaced,
    moved,
    open_run,
    probe,
    probe_forget,
    relearn_curve,
    relearn_time,
    verdict,
    zrf,
)
from unlearn_lib.__main__ import main

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


def test_agreement_of_three_pictures():
    first, second = torch.tensor([[1, 0], [0, 1], [1, 0]]), torch.tensor([[2, 1], [3, 1], [5, 0]])
    assert agreement(first, second) == pytest.approx(2 / 3)
    assert agreement(first, first) == 1


def test_misplaced_counts_the_answers_that_would_have_to_change():
    labels, golden = torch.tensor([0, 0, 1]), torch.tensor([2, 3, 3])
    assert misplaced(torch.tensor([2, 2, 3]), golden, labels, 4) == pytest.approx(0.25)
    assert misplaced(torch.tensor([3, 2, 3]), golden, labels, 4) == 0
    assert misplaced(torch.tensor([0, 0, 1]), golden, labels, 4) == 1


def test_relearn_time_is_the_first_batch_that_reaches_the_target():
    assert relearn_time([0.0, 0.5, 0.9, 0.4], 0.5) == 1
    assert relearn_time([0.9], 0.5) == 0
    assert relearn_time([0.0, 0.4], 0.5) is None


def test_ain_of_golden_against_itself_is_1_and_needs_both_times():
    assert ain(38, 38) == 1
    assert ain(19, 38) == 0.5
    assert ain(None, 38) is ain(38, None) is ain(3, 0) is None


def test_membership_in_one_distribution_is_a_coins_toss_and_in_two_apart_certain():
    noise = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    standard_error = math.sqrt(0.25 / 4000)
    assert membership(noise[:2000], noise[2000:]) == pytest.approx(0.5, abs=4 * standard_error)
    assert membership(noise[:200], noise[2000:2500] + 100) == 1


def test_membership_of_three_and_three_pictures_that_lie_apart():
    low, high = torch.tensor([0.0, 0.1, 0.2] * 5), torch.tensor([9.0, 9.1, 9.2] * 5)
    assert membership(low, high) == 1


def test_a_probe_of_separable_features_is_right_and_of_shuffled_labels_at_chance():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(1500) % 3
    features = 20 * torch.eye(3)[labels] + torch.randn(1500, 3, generator=generator)
    assert probe(features[:900], labels[:900], features[900:], labels[900:]) == 1
    shuffled = labels[torch.randperm(1500, generator=generator)]
    chance = probe(features[:900], shuffled[:900], features[900:], shuffled[900:])
    assert chance == pytest.approx(1 / 3, abs=4 * math.sqrt(2 / 9 / 600))


def test_a_probe_of_three_pictures():
    train, labels = torch.tensor([[0.0], [0.1], [5.0], [5.1]]), torch.tensor([0, 0, 1, 1])
    assert probe(train, labels, torch.tensor([[0.2], [4.0], [6.0]]), torch.tensor([0, 1, 0])) == pytest.approx(2 / 3)


def test_moved_names_what_changed_and_by_how_much(model):
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.fc3.bias.mul_(1.5)
    assert moved(model, model) == {}
    assert moved(other, model) == {"fc3.bias": pytest.approx(0.5, rel=1e-5)}


@settings(max_examples=50)
@given(st.integers(0, 2**20), st.sets(st.integers(0, 5), min_size=1, max_size=5))
def test_masking_never_lowers_retain_accuracy(seed, forget):
    generator = torch.Generator().manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(4, 6))
    x, labels = torch.randn(60, 4, generator=generator), torch.randint(0, 6, (60,), generator=generator)
    retain = ~torch.isin(labels, torch.tensor(sorted(forget)))
    right, right_masked = (m(x).argmax(1)[retain] == labels[retain] for m in (net, mask(net, forget)))
    assert bool((right_masked >= right).all())


def test_relearning_begins_at_the_present_accuracy_and_leaves_the_model_alone(lab, digits, model):
    unlearned = lab.load(lab.unlearn("distill"))
    before = copy.deepcopy(unlearned.state_dict())
    curve = relearn_curve(unlearned, digits, lab.forget, 0.9, limit=200)
    assert curve[0] <= 0.02
    assert curve[-1] >= 0.9
    assert max(curve[:-1]) < 0.9
    assert curve == relearn_curve(unlearned, digits, lab.forget, 0.9, limit=200)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), unlearned.state_dict().values(), strict=True))
    assert len(relearn_curve(model, digits, lab.forget, 0.9, limit=3)) == 1


def test_a_probe_finds_the_class_behind_a_mask_as_well_as_before(lab, digits, model):
    first, second = (probe_forget(m, digits, lab.forget, "fc3") for m in (model, mask(model, lab.forget)))
    assert first == second > 0.9


def test_the_audit_is_seeded_and_touches_no_model_and_no_random_state(lab, digits, model):
    golden, stranger = lab.load(lab.golden()), make_model("lenet5", 10, seed=9)
    models = (model, golden, stranger)
    before = [copy.deepcopy(m.state_dict()) for m in models]
    state = torch.random.get_rng_state()
    common = {"golden": golden, "stranger": stranger, "target": 0.0, "layer": "fc3"}
    numbers = [audit(model, digits, lab.forget, **common) for _ in range(2)]
    assert numbers[0] == numbers[1]
    assert torch.equal(state, torch.random.get_rng_state())
    for old, m in zip(before, models, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(old.values(), m.state_dict().values(), strict=True))


def test_golden_beside_itself_agrees_in_everything(lab, digits):
    golden, stranger = lab.load(lab.golden()), make_model("lenet5", 10, seed=9)
    numbers = audit(golden, digits, lab.forget, golden=golden, stranger=stranger, target=0.0, layer="fc3")
    assert numbers["agreement_forget"] == numbers["agreement_retain"] == 1
    assert numbers["js_forget"] == pytest.approx(0, abs=1e-9)
    assert numbers["misplaced"] == 0


@pytest.mark.parametrize(
    "value, band, word",
    [
        (5.0, {"mean": 5.5, "std": 0.5, "n": 5}, "inside"),
        (3.0, {"mean": 5.0, "std": 0.5, "n": 5}, "outside by -4.0 sd"),
        (None, {"mean": 50.0, "std": 5.0, "n": 5}, "outside by +190.0 sd"),
        (0.1, {"mean": 0.0, "std": 0.0, "n": 5}, "outside"),
        (0.0, {"mean": 0.0, "std": 0.0, "n": 5}, "inside"),
        (0.0, {"mean": 0.0, "std": 0.0, "n": 1}, "no band"),
    ],
)
def test_a_verdict_says_inside_or_by_how_many_standard_deviations_outside(value, band, word):
    assert verdict(value, band) == word


@pytest.fixture(scope="module")
def audited(lab):
    return audit_run(lab, lab.unlearn("distill"), seeds=range(2))


def test_an_audit_lands_in_metrics_json_with_all_its_parts(audited):
    block = audited.metrics["audit"]
    assert {"probe", "relearn", "membership", "js", "agreement", "zrf", "moved"} <= set(block)
    assert block["seeds"] == [0, 1]
    assert set(block["moved"]["unlearned"]) == {"fc3.weight", "fc3.bias"}
    assert block["probe"]["unlearned"] == block["probe"]["masked"] == block["probe"]["original"]
    assert block["relearn"]["ain"]["golden"] == 1
    assert block["js"]["forget"]["golden"] == pytest.approx(0, abs=1e-9)
    assert block["probe"]["band"]["golden"]["n"] == 2
    assert block["js"]["forget"]["band"]["golden"]["n"] == 1  # golden to itself is left out
    assert block["probe"]["gap"] == pytest.approx(block["probe"]["unlearned"] - block["probe"]["golden"])
    assert audited.metrics["unlearned"]["forget_accuracy"] == block["forget_accuracy"]["unlearned"]


def test_an_audit_made_before_is_read_again_and_gives_the_same(lab, audited):
    before, news = audited.metrics["audit"], []
    mine = experiment_of(audited, say=news.append)
    assert audit_run(mine, open_run(lab.root, audited.name)).metrics["audit"] == before
    assert news == []


def test_the_table_has_a_column_a_model_and_a_verdict_a_run(audited):
    block = audited.metrics["audit"]
    table = audit_table({"last": block, "again": block})
    assert list(table.columns[:6]) == ["original", "masked", "last", "again", "golden", "golden band"]
    assert table.loc["AIN", "golden"] == "1.00"
    assert table.loc["forget accuracy, %", "verdict, last"] in ("inside", "outside")
    masked = block["relearn"]["masked"]
    assert table.loc["relearn time, batches", "masked"] == ("> 1000" if masked is None else str(masked))


def test_the_shell_audits_a_run_by_its_name(lab, audited, capsys):
    assert main(["audit", "--run", audited.name, "--runs-root", str(lab.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["audit"] == audited.metrics["audit"]
    assert (audited.path / "relearning.png").is_file()


def test_the_shells_table_names_the_data_and_what_moved(lab, audited, capsys):
    assert main(["audit", "--run", audited.name, "--runs-root", str(lab.root)]) == 0
    printed = capsys.readouterr().out
    assert "lenet5 on digits" in printed
    assert "linear probe on F, %" in printed
    assert "fc3.weight" in printed


@pytest.mark.parametrize("name, word", [("nothing", "no 'nothing'"), ("lenet5-digits-s0", "an unlearned run")])
def test_what_cannot_be_audited_is_a_sentence(lab, name, word, capsys):
    assert main(["audit", "--run", name, "--runs-root", str(lab.root)]) == 2
    assert word in capsys.readouterr().err


def test_a_run_that_forgot_other_classes_is_not_audited_as_this_one(lab, audited):
    other = experiment_of(audited, forget=[5])
    with pytest.raises(ValueError, match="forget: .5. given, but"):
        audit_run(other, audited)


def test_an_unknown_layer_is_refused_before_any_audit(lab, audited):
    with pytest.raises(ValueError, match="layer: 'fc9' given"):
        audit_run(lab, audited, layer="fc9")


def test_the_lab_has_sixteen_outcomes_and_reads_them_again(lab):
    grid = lab_grid(lab, samples=5, epochs=3)
    assert len(grid) == 16
    assert grid.index.is_unique
    assert lab_grid(lab, samples=5, epochs=3).equals(grid)
    assert find_head(lab.load(lab.original())) == "fc3"
