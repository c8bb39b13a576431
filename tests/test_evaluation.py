"""Evaluation: scores on numbers that a hand computes, tables, and judging from kept activations."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import changed, on_disk, tiny_data, tiny_network
from torch import nn

import unlearn_lib.evaluation as evaluation
from unlearn_lib import Run, confusion_matrix, evaluate, fit, mask, predict_classes, predict_logits, score, table
from unlearn_lib.evaluation import Judge, evaluate_tail, load_activations, logits_and_labels, masked_score

CONFUSION = [[3, 1, 0], [0, 2, 2], [1, 0, 1]]  # 4, 4 and 2 pictures
FORGET = [1, 3]


def test_a_confusion_matrix_has_a_row_a_label_and_a_column_an_answer():
    confusion = confusion_matrix(torch.tensor([2, 2, 0]), torch.tensor([1, 1, 3]), 4)
    assert confusion[1].tolist() == [0, 0, 2, 0]
    assert confusion[3].tolist() == [1, 0, 0, 0]
    assert confusion.sum() == 3


def test_a_confusion_matrix_counts_answers_in_bytes():
    labels = torch.arange(30)
    assert torch.equal(confusion_matrix(labels, labels.byte(), 30), torch.eye(30, dtype=torch.int64))


def test_score_by_hand():
    block = score(CONFUSION, forget=[1])
    assert block["overall_accuracy"] == pytest.approx(6 / 10)
    assert block["forget_accuracy"] == block["any_forget"] == pytest.approx(2 / 4)
    assert block["retain_accuracy"] == pytest.approx(4 / 6)
    assert block["per_class_accuracy"] == pytest.approx([3 / 4, 2 / 4, 1 / 2])
    assert block["confusion"] == CONFUSION


def test_score_of_classes_that_are_not_the_first():
    confusion = [[1, 0, 0, 1, 0], [0, 2, 1, 4, 1], [0, 0, 3, 0, 0], [0, 1, 0, 1, 0], [0, 2, 0, 0, 3]]
    block = score(confusion, forget=[3, 1])
    assert block["forget_accuracy"] == pytest.approx(3 / 10)
    assert block["retain_accuracy"] == pytest.approx(7 / 10)
    assert block["any_forget"] == pytest.approx(8 / 10)


def test_shares_of_no_pictures_are_none():
    block = score([[2, 1], [0, 0]], forget=[1])
    assert block["forget_accuracy"] is block["any_forget"] is block["per_class_accuracy"][1] is None
    assert score(CONFUSION)["any_forget"] is score(CONFUSION)["forget_accuracy"] is None


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1), st.sets(st.integers(0, 4), max_size=4))
def test_shares_are_of_pictures_and_not_of_classes(pairs, forget):
    labels, predicted = (torch.tensor(column) for column in zip(*pairs, strict=True))
    block = score(confusion_matrix(predicted, labels, 5), forget)
    assert block["overall_accuracy"] == pytest.approx((labels == predicted).float().mean().item())
    classes = torch.tensor(sorted(forget), dtype=torch.int64)
    is_forget = torch.isin(labels, classes)
    right = labels == predicted
    shares = {"forget_accuracy": right[is_forget], "retain_accuracy": right[~is_forget]}
    shares["any_forget"] = torch.isin(predicted, classes)[is_forget]
    for name, hits in shares.items():
        assert block[name] == (pytest.approx(hits.float().mean().item()) if len(hits) else None)


@pytest.fixture(scope="module")
def trained():
    net = tiny_network(5)
    fit(net, tiny_data(), epochs=4, lr=0.02, batch_size=32, seed=5)
    return net


def test_a_head_with_permuted_rows_still_answers_with_forget_classes(trained):
    permuted = copy.deepcopy(trained)
    with torch.no_grad():
        for part in (permuted.head.weight, permuted.head.bias):
            part[[1, 3]] = part[[3, 1]].clone()
    block = evaluate(permuted, tiny_data(), FORGET)
    assert block["forget_accuracy"] < 0.05
    assert block["any_forget"] > 0.95


def test_masked_score_is_the_evaluation_of_the_masked_network(trained):
    for net in (trained, tiny_network(4)):
        logits, labels = logits_and_labels(net, tiny_data().test, tiny_data())
        before = logits.clone()
        assert masked_score(logits, labels, FORGET) == evaluate(mask(net, FORGET), tiny_data(), FORGET)
        assert torch.equal(logits, before)


@settings(max_examples=50)
@given(st.integers(0, 2**20), st.sets(st.integers(0, 5), min_size=1, max_size=5))
def test_masking_never_lowers_retain_accuracy(seed, forget):
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 6))
    x = torch.randn(60, 4, generator=generator)
    labels = torch.randint(0, 6, (60,), generator=generator)
    retain = ~torch.isin(labels, torch.tensor(sorted(forget)))
    right, right_masked = (m(x).argmax(1)[retain] == labels[retain] for m in (net, mask(net, forget)))
    assert bool((right_masked >= right).all())


def test_the_table_is_in_percent_and_leaves_absent_models_out():
    shown = table({"original": score(CONFUSION, [1]), "golden": None}, ["a", "b", "c"])
    assert list(shown.index) == ["original"]
    assert shown.loc["original"].tolist() == pytest.approx([60, 50, 66.67, 75, 50, 50], abs=0.01)


def test_the_table_keeps_two_classes_of_one_name_and_one_called_retain_apart():
    shown = table({"original": score(CONFUSION, [1])}, ["crane", "crane", "retain"])
    assert list(shown.columns) == ["overall", "forget", "retain", "crane", "crane", "retain"]
    assert shown.loc["original"].tolist() == pytest.approx([60, 50, 66.67, 75, 50, 50], abs=0.01)


def test_the_table_leaves_a_cell_without_pictures_empty():
    shown = table({"original": score([[2, 0], [0, 0]], [1]), "golden": score([[1, 1], [0, 0]], [1])})
    assert shown["overall"].tolist() == [100, 50]
    assert shown["forget"].isna().all()


@pytest.mark.parametrize("function", [evaluate, predict_classes])
def test_a_head_that_does_not_fit_the_data_is_refused(function):
    with pytest.raises(ValueError, match="model: its head has 7 outputs, tiny has 4 classes"):
        function(tiny_network(classes=7), tiny_data())


@pytest.mark.parametrize("function", [evaluate, predict_classes])
def test_a_network_of_nan_is_refused(function):
    net = tiny_network()
    with torch.no_grad():
        net.head.bias[2] = math.nan
    with pytest.raises(ValueError, match="model: its logits are not numbers"):
        function(net, tiny_data())


def test_evaluation_changes_no_weight_and_no_buffer():
    net = tiny_network()
    before = copy.deepcopy(net.state_dict())
    assert evaluate(net, tiny_data()) == evaluate(net, tiny_data())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values(), strict=True))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_networks_of_other_precision_are_evaluated_in_theirs(kind):
    net = tiny_network(4).eval()
    data = tiny_data()
    other = copy.deepcopy(net).to(kind)
    logits = predict_logits(other, data.test.images, data)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, predict_logits(net, data.test.images, data), atol=0.05)
    assert next(other.parameters()).dtype == kind


def test_pictures_that_do_not_open_count_for_no_accuracy(tmp_path):
    net = tiny_network(4)
    data = tiny_data()
    lazy = on_disk(data, tmp_path)
    assert evaluate(net, lazy, FORGET) == evaluate(net, data, FORGET)
    (tmp_path / "test-1.png").write_bytes(b"")
    confusion = torch.tensor(evaluate(net, lazy, FORGET)["confusion"])
    assert confusion.sum(1).tolist() == [30, 29, 30, 30]


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    return Run(tmp_path / "run", {})


def test_a_tail_on_kept_activations_has_the_evaluation_of_the_whole_network(run, tmp_path):
    net = tiny_network(4).eval()
    data = on_disk(tiny_data(), tmp_path)
    (tmp_path / "test-1.png").write_bytes(b"")
    x, labels = load_activations(run, net, data, "hidden")
    assert (len(x), len(labels)) == (119, 119)
    masked = mask(net, FORGET)
    assert evaluate_tail(masked, "hidden", x, labels, data, FORGET) == evaluate(masked, data, FORGET)


@pytest.mark.parametrize("limit, keeps", [(evaluation.KEPT_BYTES, True), (0, False)])
def test_a_judge_has_the_evaluation_of_the_whole_network(run, monkeypatch, limit, keeps):
    monkeypatch.setattr(evaluation, "KEPT_BYTES", limit)
    net = tiny_network(4).eval()
    data = tiny_data()
    judge = Judge.of_original(run, net, data, "hidden")
    assert (judge.activations is not None) == keeps
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.head.weight[0] *= 2
    assert judge.block(net, FORGET) == evaluate(net, data, FORGET)
    assert judge.block(other, FORGET) == evaluate(other, data, FORGET)
    assert judge.masked_block(FORGET) == evaluate(mask(net, FORGET), data, FORGET)


def test_kept_activations_are_read_again(run, monkeypatch):
    monkeypatch.setattr(evaluation, "SMALL", 0)
    net = tiny_network(4).eval()
    x, labels = load_activations(run, net, tiny_data(), "hidden")
    monkeypatch.setattr(evaluation, "_compute_activations", lambda *args: pytest.fail("computed again"))
    again, labels_again = load_activations(run, net, tiny_data(), "hidden")
    assert torch.equal(x, again)
    assert torch.equal(labels, labels_again)


def test_kept_activations_of_another_network_or_other_pictures_are_not_used(run, monkeypatch):
    monkeypatch.setattr(evaluation, "SMALL", 0)
    data = tiny_data()
    inverted = changed(data, "test", images=255 - data.test.images)
    found = [
        load_activations(run, tiny_network(seed).eval(), each, "hidden")[0]
        for seed, each in ((4, data), (5, data), (5, inverted))
    ]
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])


def test_activations_that_are_too_large_are_not_kept(run, tmp_path, monkeypatch):
    net = tiny_network(4).eval()
    data = on_disk(tiny_data(), tmp_path)
    monkeypatch.setattr(evaluation, "KEPT_BYTES", 4 * 120 * 64 - 1)  # 120 pictures, 64 numbers each
    assert load_activations(run, net, data, "hidden") is None
    monkeypatch.setattr(evaluation, "KEPT_BYTES", 4 * 120 * 64)
    assert load_activations(run, net, data, "hidden") is not None


def test_kept_activations_know_which_pictures_do_not_open(run, tmp_path):
    net = tiny_network(4).eval()
    lazy = on_disk(tiny_data(), tmp_path)
    (tmp_path / "test-7.png").write_bytes(b"")
    load_activations(run, net, lazy, "hidden")
    lazy.test.images.readable[:] = True  # as in a new process, before any picture is read
    load_activations(run, net, lazy, "hidden")
    assert (~lazy.test.readable).nonzero().flatten().tolist() == [7]


def test_activations_of_two_layers_are_kept_side_by_side(run, monkeypatch):
    monkeypatch.setattr(evaluation, "SMALL", 0)
    for layer in ("hidden", "head"):
        load_activations(run, tiny_network(4).eval(), tiny_data(), layer)
    assert len([*run.path.glob("activations-*.safetensors")]) == 2
