import matplotlib.pyplot as plt
import pytest

from unlearn_lib import diagnose, plot_history, plot_impressions, plot_per_class, save_figure, score


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_bars_of_every_model_and_class_at_their_height():
    blocks = {"original": score([[3, 1], [0, 2]], [1]), "masked": score([[4, 0], [2, 0]], [1]), "golden": None}
    axis = plot_per_class(blocks, ["cat", "dog"], [1], "two models").axes[0]
    assert [bar.get_height() for bar in axis.patches[:4]] == [0.75, 1.0, 1.0, 0.0]
    assert len({bar.get_hatch() for bar in axis.patches[:4]}) == 2
    assert [label.get_text() for label in axis.get_xticklabels()] == ["cat", "dog\n(forget)"]


def test_training_curves_of_every_model():
    history = {name: [0.5, 0.7] for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr")}
    figure = plot_history({"original": history, "golden": history}, "curves")
    assert [len(axis.lines) for axis in figure.axes] == [4, 4]
    assert figure.axes[0].lines[0].get_linestyle() != figure.axes[0].lines[1].get_linestyle()


@pytest.mark.parametrize("layer", ["input", "conv2", "fc3"])
def test_impressions_are_drawn_with_their_diagnostics(lab, layer):
    made = lab.impressions(layer, samples=3)
    diagnosis = diagnose(lab.load(lab.original()), made)
    figure = plot_impressions(made, diagnosis, lab.dataset.classes, "impressions")
    assert len(figure.axes) == 10 + 4


def test_a_figure_is_saved_under_its_name(tmp_path):
    path = save_figure(plt.figure(), "01_nothing", tmp_path)
    assert path == tmp_path / "01_nothing.png"
    assert path.read_bytes().startswith(b"\x89PNG")
