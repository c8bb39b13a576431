import itertools

import matplotlib.pyplot as plt
import pytest
import torch
from reading import look

from unlearn_lib import (
    class_changes,
    plot_changes,
    plot_confusions,
    plot_history,
    plot_per_class,
    plot_pictures,
    save_figure,
    score,
)
from unlearn_lib.common import UserError
from unlearn_lib.figures.style import FORGET, LOOKS, RETAIN, choose_styles

BLOCK = score([[3, 1], [0, 2]], [1])


def test_a_model_looks_the_same_with_all_neighbours():
    def bar(name, *others):
        axis = plot_per_class(dict.fromkeys([*others, name], BLOCK), ["cat", "dog"], [1], "models").axes[0]
        return look(axis.containers[-1].patches[0])

    names = [name for name in LOOKS if name != "mask"]
    alone = {name: bar(name) for name in names}
    assert len({colour for colour, _ in alone.values()}) == len({hatch for _, hatch in alone.values()}) == len(names)
    for name in names:
        others = [other for other in names if other != name]
        assert bar(name, "mine", *others) == bar(name, *reversed(others)) == alone[name]


def test_lines_and_markers_tell_the_known_models_apart_without_colour():
    looks = {name: known for name, known in LOOKS.items() if name != "mask"}
    assert len({known.line for known in looks.values()}) == len({known.marker for known in looks.values()}) == 8
    assert LOOKS["mask"] is LOOKS["masked"]


def test_other_models_differ_from_each_other_and_from_the_known():
    looks = choose_styles(["original", "mine", "yours", "golden"])
    assert len({known.colour for known in looks.values()}) == 4
    assert looks["mine"] == choose_styles(["mine"])["mine"]
    many = choose_styles([*LOOKS, *(f"setting {i}" for i in range(20))]).values()
    assert len({(known.colour, known.marker) for known in many}) == len({(x.colour, x.hatch) for x in many}) == 28


def test_forget_and_retain_classes_have_colours_of_their_own():
    assert FORGET != RETAIN
    assert not {FORGET, RETAIN} & {known.colour for known in LOOKS.values()}


@pytest.mark.parametrize(
    "name", ["a$b$c", "$\\bad{$", "_under_", "100 % <b>", r"back\\slash", "x^2_i", "数字", "two\nlines"]
)
def test_names_are_drawn_as_they_are(name, tmp_path):
    classes = [name, "dog"]
    blocks = {"original": BLOCK, name: BLOCK}
    changes = class_changes(*blocks.values(), classes, [1])
    figures = [plot_per_class(blocks, classes, [0], name), plot_confusions(blocks, classes, name)]
    figures += [plot_changes(changes, name), plot_pictures(torch.zeros(1, 1, 8, 8), [name], name)]
    for figure in figures:
        figure.savefig(tmp_path / "drawn.png")
        texts = [text for text in figure.findobj(plt.Text) if name in text.get_text()]
        assert texts and not any(text.get_parse_math() for text in texts)
    assert name in [text.get_text() for text in figures[0].legends[0].get_texts()]


@pytest.mark.parametrize("size", [None, (6.8, 4.4)])
@pytest.mark.parametrize("classes", [[str(c) for c in range(11)], [f"rectangle {c}" for c in range(11)]])
def test_names_under_the_bars_do_not_overlap(size, classes):
    blocks = {"original": score(torch.eye(11, dtype=torch.int), [1])}
    figure = plot_per_class(blocks, classes, [1, 3], "eleven", size=size)
    figure.canvas.draw()
    labels = figure.axes[0].get_xticklabels()
    assert [label.get_text() for label in labels] == classes
    assert all(label.get_fontsize() >= 9 for label in labels)
    boxes = [label.get_window_extent() for label in labels if not label.get_rotation()]
    assert not any(left.overlaps(right) for left, right in itertools.pairwise(boxes))


def test_a_style_ends_with_its_figure():
    before = dict(plt.rcParams)
    history = {key: [0.5] for key in ("train_loss", "val_loss", "train_accuracy", "val_accuracy")}
    plot_history({"original": history}, "one epoch")
    assert dict(plt.rcParams) == before


def test_a_figure_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "no folder").write_text("a file")
    with pytest.raises(UserError, match=r"figure: .*one\.png"):
        save_figure(plt.figure(), "one", tmp_path / "no folder")


def test_a_figure_is_saved_under_its_name(tmp_path):
    path = save_figure(plt.figure(), "01_nothing", tmp_path)
    assert path == tmp_path / "01_nothing.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_figure_goes_among_the_runs_where_no_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_RUNS", str(tmp_path))
    monkeypatch.delenv("UNLEARN_FIGURES", raising=False)
    assert save_figure(plt.figure(), "01_nothing") == tmp_path / "figures" / "01_nothing.png"
