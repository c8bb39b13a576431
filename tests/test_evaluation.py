import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearn_lib import confusion_of, evaluate, make_model, score, table

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
    block = score(confusion_of(predicted, labels, 5), forget)
    assert block["overall_accuracy"] == pytest.approx((labels == predicted).float().mean().item())
    mine = torch.isin(labels, torch.tensor(sorted(forget), dtype=torch.int64))
    for name, chosen in (("forget_accuracy", mine), ("retain_accuracy", ~mine)):
        right = (labels == predicted)[chosen]
        assert block[name] == (pytest.approx(right.float().mean().item()) if len(right) else None)


def test_the_table_is_in_percent_and_leaves_absent_models_out():
    shown = table({"original": score(CONFUSION, [1]), "golden": None}, ["a", "b", "c"])
    assert list(shown.index) == ["original"]
    assert shown.loc["original"].tolist() == pytest.approx([60, 50, 66.67, 75, 50, 50], abs=0.01)


def test_a_head_that_does_not_fit_the_data_is_refused(digits):
    with pytest.raises(ValueError, match="model: its head has 7 outputs, digits has 10 classes"):
        evaluate(make_model("lenet5", 7), digits)


def test_evaluation_leaves_the_model_alone(model, digits):
    before = [p.clone() for p in model.parameters()]
    assert evaluate(model, digits) == evaluate(model, digits)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
