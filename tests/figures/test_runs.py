from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from unlearn_lib import score
from unlearn_lib.figures import result_figures, training_figures


def make_run(k, forget):
    before = torch.full((k, k), 1) + 9 * torch.eye(k, dtype=torch.int)
    after = before.clone()
    after[forget] = after[forget].roll(1, 1)
    blocks = {"original": score(before, forget), "unlearned": score(after, forget)}
    return SimpleNamespace(blocks=blocks, metrics=blocks, config={"method": "distill"}, history={})


def make_experiment(k, forget):
    return SimpleNamespace(
        title="tiny on drawn",
        dataset=SimpleNamespace(classes=[f"class {c}" for c in range(k)]),
        forget_classes=forget,
        original=lambda: None,
        load=lambda run: nn.Sequential(nn.Flatten(), nn.Linear(4, k)),
    )


def test_few_classes_are_bars_and_many_are_changes_losers_and_histograms():
    forget = [1, 3]
    figures = result_figures(make_experiment(30, forget), make_run(30, forget))
    assert list(figures) == ["per_class"]
    figures = result_figures(make_experiment(31, forget), make_run(31, forget))
    assert list(figures) == ["changes", "lost_most", "histograms"]
    assert all(
        "tiny on drawn, unlearned by distill" in f.get_suptitle() + f.axes[0].get_title() for f in figures.values()
    )
    lost = np.sort(sum(patch.get_data().values for patch in figures["changes"].axes[0].patches))
    assert lost[:2] == pytest.approx([-22.5, -22.5]) and not lost[2:].any()


def test_weights_taken_as_they_came_have_no_training_curve():
    parts = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
    trained = SimpleNamespace(history={key: [0.5, 0.25] for key in parts})
    taken = SimpleNamespace(history={})
    experiment = SimpleNamespace(title="tiny")
    assert training_figures(experiment, {"original": taken}) == {}
    figure = training_figures(experiment, {"original": taken, "golden": trained})["training"]
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"golden, training", "golden, validation"}
