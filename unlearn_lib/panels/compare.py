"""What two saved runs answer differently."""

import functools
import html
from collections.abc import Callable
from dataclasses import dataclass

import ipywidgets as w
import torch

from unlearn_lib.evaluation import confusion_matrix, predict_classes, score
from unlearn_lib.experiment import Experiment
from unlearn_lib.figures import MANY, plot_confusions, plot_histograms, plot_per_class, plot_pictures
from unlearn_lib.networks import find_framing, open_run, run_names
from unlearn_lib.panels.base import (
    LABELLED,
    class_dropdown,
    frame_panel,
    hide,
    make_button,
    make_chart,
    mark,
    observe,
    say,
    show,
    show_errors,
    two_columns,
)

SHOWN = 12  # pictures with another answer


@dataclass(eq=False)
class ComparisonPanel:
    """Two saved runs side by side: per class, as confusions, or the test pictures whose answer changed.

    Args:
        images, labels: test pictures [N, C, H, W] and their classes [N].
        names: () -> the names of the runs.
        answers: run's name -> its answers [N] to the test pictures.
        forget: run's name -> the classes that it forgot.
    """

    title: str
    classes: list[str]
    images: torch.Tensor
    labels: torch.Tensor
    names: Callable[[], list[str]]
    answers: Callable[[str], torch.Tensor]
    forget: Callable[[str], list[int]]
    font: int = 14

    def __post_init__(self):
        wide = LABELLED | {"layout": w.Layout(width="auto", max_width="640px")}
        self.first = w.Dropdown(description="first run", **wide)
        self.second = w.Dropdown(description="second run", **wide)
        self.label = class_dropdown(self.classes)
        self.refresh = make_button("Look for new runs", "refresh", self.renew)
        self.status = w.HTML()
        self.summary = w.HTML()
        views = ["per class", "confusion", "pictures"] if len(self.classes) <= MANY else ["per class", "pictures"]
        self.view = w.ToggleButtons(options=views, style={"button_width": "auto"})
        self.chart = make_chart()
        mark(self, "compare")
        self._find_runs()
        self.label.value = next(iter(self._forgotten()), 0)
        observe([self.first, self.second], self.compare)
        observe([self.label, self.view], self.draw)
        columns = two_columns([self.refresh, self.status, self.label, self.summary], [self.view, self.chart], least=13)
        rows = [self.first, self.second, columns]
        self.widget = frame_panel(self.title, "two runs side by side", rows, self.font)
        self.compare()

    def renew(self) -> None:
        """Look for new runs, and judge the chosen two again, since they may have been repeated."""
        with show_errors(self.status, "Not found"):
            self._find_runs()
            self.compare()

    def _find_runs(self) -> None:
        """Offer the runs that exist now; the chosen two stay chosen."""
        names = self.names()
        for control, default in ((self.first, names[0]), (self.second, names[-1])):
            if control.options != tuple(names):
                chosen = control.value
                control.options = names
                control.value = chosen if chosen in names else default

    def _forgotten(self) -> list[int]:
        return sorted({*self.forget(self.first.value), *self.forget(self.second.value)})

    def compare(self) -> None:
        """Judge both runs and draw them; where that fails, nothing of an earlier pair stays in sight."""
        self.given = None
        hide(self.chart)
        self.summary.value = ""
        say(self.status, "Looking at the test pictures ...")
        with show_errors(self.status, "Not compared"):
            names = (self.first.value, self.second.value)
            forget = self._forgotten()
            given = [self.answers(name) for name in names]
            confusions = [confusion_matrix(answers, self.labels, len(self.classes)) for answers in given]
            self.blocks = {name: score(c, forget) for name, c in zip(names, confusions, strict=True)}
            accuracies = [f"{100 * self.blocks[name]['overall_accuracy']:.2f} %" for name in names]
            say(
                self.status,
                f"{(given[0] != given[1]).sum().item():,} of {len(self.labels):,} test pictures changed their answer; "
                f"right: {accuracies[0]} in the first run, {accuracies[1]} in the second.",
            )
            self.given = given
        self.draw()

    def draw(self) -> None:
        """Count the test pictures of the chosen class whose answer changed, and draw the chosen view."""
        if self.given is None:
            return
        hide(self.chart)
        with show_errors(self.status, "Not shown"):
            first, second = self.given
            is_of_class = self.labels == self.label.value
            changed = (is_of_class & (first != second)).nonzero().flatten()
            shown = changed[:SHOWN]
            where = f", the first {len(shown)} under pictures (first run → second run)" if len(shown) else ""
            self.summary.value = html.escape(
                f"{self.label.label}: {len(changed):,} of {is_of_class.sum().item():,} test pictures changed their "
                f"answer{where}."
            )
            forget = self._forgotten()
            if self.view.value == "pictures":
                if not len(shown):
                    return
                gap = " → " if max(map(len, self.classes)) < 4 else " →\n"
                names = [self.classes[first[i]] + gap + self.classes[second[i]] for i in shown]
                title = f"{self.label.label}: changed answers"
                figure = plot_pictures(self.images[shown], names, title, columns=4)
            elif len(self.classes) > MANY:
                figure = plot_histograms(self.blocks, forget, self.title)
            elif self.view.value == "confusion":
                figure = plot_confusions(self.blocks, self.classes, self.title, width=3.6)
            else:
                figure = plot_per_class(self.blocks, self.classes, forget, self.title, size=(5.2, 3.0))
            show(self.chart, figure)


def comparison_panel(experiment: Experiment, font: int = 14) -> ComparisonPanel:
    """Return the comparison of an experiment's runs of one model on its data, whichever classes they forgot.

    Runs whose weights need other pictures, cut or normalised in another way, are left out.

    Example:
        >>> comparison_panel(experiment).widget
    """
    original = experiment.train()
    data = experiment.dataset

    def describe_inputs(config: dict) -> list:
        described = [config.get(key) for key in ("model", "data", "size", "classes")]
        if described[0] == experiment.model:
            described.append(find_framing(experiment.model, config.get("weights")))
        return described

    def open_config(name: str) -> dict:
        return open_run(experiment.root, name).config

    def names() -> list[str]:
        expected = describe_inputs(original.config)
        others = [name for name in run_names(experiment.root) if name != original.name]
        return [original.name, *(name for name in others if describe_inputs(open_config(name)) == expected)]

    @functools.lru_cache(maxsize=32)
    def predict(name: str, fingerprint: str) -> torch.Tensor:
        return predict_classes(experiment.load(open_run(experiment.root, name)), data)

    def answers(name: str) -> torch.Tensor:
        return predict(name, open_run(experiment.root, name).fingerprint())[readable]

    predict(original.name, original.fingerprint())  # reads every picture, and so finds those that do not open
    readable = data.test.readable.nonzero().flatten()
    test = data.test.take(readable)
    return ComparisonPanel(
        experiment.title,
        data.classes,
        test.images,
        test.labels,
        names=names,
        answers=answers,
        forget=lambda name: open_config(name).get("forget") or [],
        font=font,
    )
