import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from unlearn_lib import class_changes, plot_changes, plot_histograms, plot_losers, score
from unlearn_lib.figures import plot_scaling


def blocks_of(k, forget, seed=0):
    """Scores of two models of ten pictures a class: the second never answers with a forget class."""
    random = np.random.default_rng(seed)
    before = torch.from_numpy(np.diag(random.integers(5, 11, k)))
    before[:, 0] += 10 - before.sum(1)
    after = before.clone()
    after[:, -1] += after[:, forget].sum(1)
    after[:, forget] = 0
    return score(before, forget), score(after, forget)


@pytest.fixture
def model():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 1000))


def test_the_change_of_a_class_is_the_difference_of_its_accuracies():
    before, after = blocks_of(4, [1])
    changes = class_changes(before, after, list("abcd"), [1])
    assert changes["change"].tolist() == pytest.approx(
        [y - x for x, y in zip(before["per_class_accuracy"], after["per_class_accuracy"], strict=True)]
    )
    assert changes["forget"].tolist() == [False, True, False, False]


def test_a_class_without_pictures_has_no_change():
    before = score(torch.tensor([[2, 0], [0, 0]]), [0])
    assert class_changes(before, before, ["a", "b"], [0]).index.tolist() == [0]


def test_the_most_alike_forget_class_is_that_of_the_largest_cosine():
    head = nn.Linear(2, 4)
    head.weight.data = torch.tensor([[1.0, 0], [0, 2], [3, 3.1], [-1, 0.1]])
    before, after = blocks_of(4, [0, 1])
    changes = class_changes(before, after, list("abcd"), [0, 1], nn.Sequential(nn.Flatten(), head))
    assert changes["nearest"].tolist()[2:] == ["b", "b"]
    assert changes["cosine"][2] == pytest.approx(3.1 / (3**2 + 3.1**2) ** 0.5)
    assert changes["cosine"][:2].isna().all()


@pytest.mark.parametrize("k", [10, 100, 1000])
def test_every_class_has_its_line_and_every_forget_class_a_tick(k, model):
    forget = list(range(0, k, 7))[1:]
    before, after = blocks_of(k, forget)
    changes = class_changes(before, after, [f"class {i}" for i in range(k)], forget)
    axis = plot_changes(changes, "many").axes[0]
    assert sum(len(lines.get_segments()) for lines in axis.collections) == k
    assert len(axis.lines[2].get_xdata()) == len(forget)
    heights = np.concatenate([[segment[-1][1] for segment in lines.get_segments()] for lines in axis.collections])
    assert sorted(heights) == pytest.approx(sorted(changes["change"]))


def test_those_that_lost_most_are_named_with_what_they_are_like(model):
    forget = list(range(150))
    before, after = blocks_of(1000, forget)
    changes = class_changes(before, after, [f"c{i}" for i in range(1000)], forget, model)
    left, right = plot_losers(changes, "lost", shown=8).axes
    worst = changes[~changes["forget"]].sort_values("change", kind="stable").head(8)
    assert [tick.get_text() for tick in left.get_yticklabels()][::-1] == worst["class"].tolist()
    assert [text.get_text().split("like ")[1].split()[0] for text in left.texts][::-1] == worst["nearest"].tolist()
    assert len(right.collections[0].get_offsets()) == 850


def test_histograms_hold_every_class_once_a_model():
    forget = [1, 2]
    before, after = blocks_of(20, forget)
    figure = plot_histograms({"original": before, "unlearned": after, "golden": None}, forget, "many")
    assert len(figure.axes) == 2
    for axis in figure.axes:
        assert sum(bar.get_height() for bar in axis.patches) == pytest.approx(2)  # all of R and all of F


def test_the_fitted_cost_is_the_line_it_was_made_of():
    rows = [(k, n, 0.5 + 0.002 * k * n) for k in (10, 100, 1000) for n in (5, 25)]
    figure = plot_scaling(pd.DataFrame(rows, columns=["classes", "samples", "seconds"]), "cost")
    assert "0.5 s + 2 s a thousand" in figure.axes[0].get_title()


def test_a_class_that_gained_is_not_among_those_that_lost_most():
    after = [0.4, 0.5, 0.9, 0.5]
    changes = pd.DataFrame({"class": list("abcd"), "after": after, "forget": False, "nearest": "e", "cosine": 0.1})
    left, right = plot_losers(changes.assign(before=0.5, change=changes["after"] - 0.5), "lost").axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["d", "b", "a"]
    assert len(right.collections[0].get_offsets()) == 4
