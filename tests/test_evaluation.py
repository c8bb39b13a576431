import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import changed, on_disk, tiny_data, tiny_network

import unlearn_lib.evaluation as evaluation
from unlearn_lib import Run, confusion_matrix, evaluate, mask, predict_classes, predict_logits, score, table
from unlearn_lib.evaluation import evaluate_tail, load_activations

CONFUSION = [[3, 1, 0], [0, 2, 2], [1, 0, 1]]  # 4, 4 and 2 pictures


def test_a_score_by_hand():
    block = score(CONFUSION, forget=[1])
    assert block["overall_accuracy"] == pytest.approx(6 / 10)
    assert block["forget_accuracy"] == pytest.approx(2 / 4)
    assert block["retain_accuracy"] == pytest.approx(4 / 6)
    assert block["per_class_accuracy"] == pytest.approx([3 / 4, 2 / 4, 1 / 2])
    assert block["confusion"] == CONFUSION


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1), st.sets(st.integers(0, 4), max_size=4))
def test_shares_are_of_pictures_not_of_classes(pairs, forget):
    labels, predicted = (torch.tensor(column) for column in zip(*pairs, strict=True))
    block = score(confusion_matrix(predicted, labels, 5), forget)
    assert block["overall_accuracy"] == pytest.approx((labels == predicted).float().mean().item())
    forgotten = torch.isin(labels, torch.tensor(sorted(forget), dtype=torch.int64))
    for name, chosen in (("forget_accuracy", forgotten), ("retain_accuracy", ~forgotten)):
        right = (labels == predicted)[chosen]
        assert block[name] == (pytest.approx(right.float().mean().item()) if len(right) else None)


def test_labels_in_bytes_are_counted_where_they_belong():
    labels = torch.arange(30)
    assert torch.equal(confusion_matrix(labels, labels.byte(), 30), torch.eye(30, dtype=torch.int64))


def test_the_table_is_in_percent_and_leaves_absent_models_out():
    shown = table({"original": score(CONFUSION, [1]), "golden": None}, ["a", "b", "c"])
    assert list(shown.index) == ["original"]
    assert shown.loc["original"].tolist() == pytest.approx([60, 50, 66.67, 75, 50, 50], abs=0.01)


def test_a_head_that_does_not_fit_the_data_is_refused():
    for refused in (evaluate, predict_classes):
        with pytest.raises(ValueError, match="model: its head has 7 outputs, tiny has 4 classes"):
            refused(tiny_network(classes=7), tiny_data())


def test_evaluation_leaves_the_model_alone():
    net, data = tiny_network(), tiny_data()
    before = copy.deepcopy(net.state_dict())
    assert evaluate(net, data) == evaluate(net, data)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values(), strict=True))


def test_a_table_keeps_two_classes_of_one_name_and_one_called_retain_apart():
    shown = table({"original": score(CONFUSION, [1])}, ["crane", "crane", "retain"])
    assert list(shown.columns) == ["overall", "forget", "retain", "crane", "crane", "retain"]
    assert shown.loc["original"].tolist() == pytest.approx([60, 50, 66.67, 75, 50, 50], abs=0.01)


def test_a_network_of_nan_has_no_accuracy():
    net = tiny_network()
    with torch.no_grad():
        net.head.bias[2] = math.nan
    for refused in (lambda: evaluate(net, tiny_data()), lambda: predict_classes(net, tiny_data())):
        with pytest.raises(ValueError, match="model: its logits are not numbers"):
            refused()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_networks_of_other_precision_are_evaluated_in_theirs(kind):
    net, data = tiny_network(4).eval(), tiny_data()
    other = copy.deepcopy(net).to(kind)
    logits = predict_logits(other, data.test.images, data)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, predict_logits(net, data.test.images, data), atol=0.05)
    assert next(other.parameters()).dtype == kind


def test_what_does_not_open_counts_for_no_accuracy(tmp_path):
    net, data = tiny_network(4), tiny_data()
    lazy = on_disk(data, tmp_path)
    assert evaluate(net, lazy, [1]) == evaluate(net, data, [1])
    (tmp_path / "test-1.png").write_bytes(b"")
    confusion = torch.tensor(evaluate(net, lazy, [1])["confusion"])
    assert confusion.sum(1).tolist() == [30, 29, 30, 30]


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    return Run(tmp_path / "run", {})


def test_kept_activations_judge_a_tail_as_the_whole_is_judged(run, tmp_path):
    net, data = tiny_network(4).eval(), on_disk(tiny_data(), tmp_path)
    (tmp_path / "test-1.png").write_bytes(b"")
    x, labels = load_activations(run, net, data, "hidden")
    assert (len(x), len(labels)) == (119, 119)
    masked = mask(net, [1])
    assert evaluate_tail(masked, "hidden", x, labels, data, [1]) == evaluate(masked, data, [1])


def test_kept_activations_come_from_the_same_network_and_pictures_or_are_made_anew(run, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "SMALL", 0)
    net, data = tiny_network(4).eval(), tiny_data()
    x, _ = load_activations(run, net, data, "hidden")
    monkeypatch.setattr(evaluation, "_activations", lambda *args: pytest.fail("made anew"))
    again, _ = load_activations(run, net, data, "hidden")
    assert torch.equal(x, again)
    monkeypatch.undo()
    monkeypatch.setattr(evaluation, "SMALL", 0)
    moved, _ = load_activations(run, tiny_network(5).eval(), data, "hidden")
    assert not torch.equal(x, moved)
    inverted = changed(data, "test", images=255 - data.test.images)
    other, _ = load_activations(run, tiny_network(5).eval(), inverted, "hidden")
    assert not torch.equal(moved, other)


def test_activations_that_would_be_too_large_are_not_kept(run, tmp_path, monkeypatch):
    net, data = tiny_network(4).eval(), on_disk(tiny_data(), tmp_path)
    monkeypatch.setattr(evaluation, "KEPT_BYTES", 4 * 120 * 64 - 1)  # of 120 pictures, 64 numbers each
    assert load_activations(run, net, data, "hidden") is None
    monkeypatch.setattr(evaluation, "KEPT_BYTES", 4 * 120 * 64)
    assert load_activations(run, net, data, "hidden") is not None


def test_what_was_kept_tells_which_pictures_do_not_open(run, tmp_path):
    net = tiny_network(4).eval()
    lazy = on_disk(tiny_data(), tmp_path)
    (tmp_path / "test-7.png").write_bytes(b"")
    load_activations(run, net, lazy, "hidden")
    lazy.test.images.readable[:] = True  # nobody has looked yet
    load_activations(run, net, lazy, "hidden")
    assert (~lazy.test.readable).nonzero().flatten().tolist() == [7]
