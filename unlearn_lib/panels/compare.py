"""What two saved runs answer differently."""

import functools
import html
from collections.abc import Callable

import ipywidgets as w
import torch

from unlearn_lib.evaluation import confusion_matrix, predict_classes, score
from unlearn_lib.experiment import Experiment
from unlearn_lib.figures import MANY, plot_confusions, plot_histograms, plot_per_class, plot_pictures
from unlearn_lib.networks import find_framing, open_run, run_names
from unlearn_lib.panels.base import LABELLED, bold, chart, frame_panel, mark, show, show_errors, two_columns

SHOWN = 12  # changed pictures


class ComparisonPanel:
    """Two saved runs side by side: per class, as confusions, or the test pictures whose answer changed.

    answers(run) -> the run's answer to every test picture [N]; images and labels are those pictures and their classes;
    forget(run) -> the classes that it forgot; names() -> the runs that there are.
    """

    def __init__(
        self,
        title: str,
        classes: list[str],
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        names: Callable[[], list[str]],
        answers: Callable[[str], torch.Tensor],
        forget: Callable[[str], list[int]],
        font: int = 14,
    ):
        self.title, self.classes, self.images, self.labels = title, classes, images, labels
        self._names, self._answers, self._forget = names, answers, forget
        wide = {"style": LABELLED["style"], "layout": w.Layout(width="auto", max_width="640px")}
        self.first, self.second = (w.Dropdown(description=name, **wide) for name in ("first run", "second run"))
        self.label = w.Dropdown(options=[(name, c) for c, name in enumerate(classes)], description="class", **wide)
        self.refresh = w.Button(description="Look for new runs", layout=w.Layout(width="auto", align_self="flex-start"))
        self.status, self.summary = w.HTML(), w.HTML()
        views = ["per class", "confusion", "pictures"] if len(classes) <= MANY else ["per class", "pictures"]
        self.view = w.ToggleButtons(options=views, style={"button_width": "auto"})
        self.chart, self.pictures = chart(), chart()
        self.shown = w.Stack([self.chart, self.pictures], selected_index=0)
        mark(self, "compare", "first second label refresh status summary view chart pictures")
        self._look()
        self.label.value = next(iter(self._forgotten()), 0)
        for control in (self.first, self.second):
            control.observe(lambda change: self.compare(), "value")
        self.label.observe(lambda change: self._moved(self.changed), "value")
        self.view.observe(lambda change: self._moved(self.draw), "value")
        self.refresh.on_click(lambda button: self.renew())
        controls = [self.refresh, self.status, self.label, self.summary]
        rows = [self.first, self.second, two_columns(controls, [self.view, self.shown], least=13)]
        self.widget = frame_panel(title, "two runs side by side", rows, font)
        self.compare()

    def renew(self) -> None:
        """Look for new runs, and judge the chosen two again, which may have been made anew."""
        with show_errors(self._tell, "Not found"):
            self._look()
            self.compare()

    def _look(self) -> None:
        """Read anew which runs there are; the chosen two stay chosen."""
        names = self._names()
        for control, default in ((self.first, names[0]), (self.second, names[-1])):
            if control.options != tuple(names):
                chosen = control.value
                control.options = names
                control.value = chosen if chosen in names else default

    def _forgotten(self) -> list[int]:
        return sorted({*self._forget(self.first.value), *self._forget(self.second.value)})

    def compare(self) -> None:
        """Judge both runs and draw them; where that does not work, nothing of an earlier pair stays in sight."""
        self.given = None
        for image in (self.chart, self.pictures):
            image.layout.display = "none"
        self.summary.value = ""
        self._tell("Looking at the test pictures ...")
        with show_errors(self._tell, "Not compared"):
            names = (self.first.value, self.second.value)
            forget = self._forgotten()
            given = [self._answers(name) for name in names]
            confusions = [confusion_matrix(answers, self.labels, len(self.classes)) for answers in given]
            self.blocks = {name: score(c, forget) for name, c in zip(names, confusions, strict=True)}
            accuracies = [f"{100 * self.blocks[name]['overall_accuracy']:.2f} %" for name in names]
            self.given = given
            self._tell(
                f"{(given[0] != given[1]).sum().item():,} of {len(self.labels):,} test pictures changed their answer; "
                f"right: {accuracies[0]} in the first run, {accuracies[1]} in the second."
            )
            self.draw()
            self.changed()

    def _moved(self, redraw: Callable[[], None]) -> None:
        with show_errors(self._tell, "Not shown"):
            if self.given is not None:
                redraw()

    def draw(self) -> None:
        """Show the view that is chosen: of many classes, `per class` is how the accuracies are spread."""
        self.shown.selected_index = int(self.view.value == "pictures")
        if self.view.value == "pictures":  # which `changed` has drawn
            return
        forget = self._forgotten()
        if len(self.classes) > MANY:
            figure = plot_histograms(self.blocks, forget, self.title)
        elif self.view.value == "confusion":
            figure = plot_confusions(self.blocks, self.classes, self.title, width=3.6)
        else:
            figure = plot_per_class(self.blocks, self.classes, forget, self.title, size=(5.2, 3.0))
        show(self.chart, figure)

    def changed(self) -> None:
        """Count the test pictures of the chosen class that changed their answer; `pictures` shows them, with both."""
        first, second = self.given
        of_class = self.labels == self.label.value
        found = (of_class & (first != second)).nonzero().flatten()
        shown = found[:SHOWN]
        self.summary.value = html.escape(
            f"{self.label.label}: {len(found):,} of {of_class.sum().item():,} test pictures changed their answer"
            + (f", the first {len(shown)} under pictures (first run → second run)." if len(found) else ".")
        )
        if not len(found):
            self.pictures.layout.display = "none"
        else:
            pairs = zip(first[shown], second[shown], strict=True)
            gap = " → " if max(map(len, self.classes)) < 4 else " →\n"
            names = [f"{self.classes[a]}{gap}{self.classes[b]}" for a, b in pairs]
            title = f"{self.label.label}: changed answers"
            show(self.pictures, plot_pictures(self.images[shown], names, title, columns=4))

    def _tell(self, sentence: str) -> None:
        self.status.value = bold(sentence)


def comparison_panel(experiment: Experiment, font: int = 14) -> ComparisonPanel:
    """The comparison for the runs of an experiment's model on its data, whatever they forgot.

    Those whose weights want their pictures cut or normalised in another way are left out.
    """
    original, data = experiment.train(), experiment.dataset

    def likeness(config: dict) -> list:
        framing = (
            find_framing(experiment.model, config.get("weights")) if config.get("model") == experiment.model else None
        )
        return [framing, *(config.get(key) for key in ("model", "data", "size", "classes"))]

    def names() -> list[str]:
        configs = {name: open_run(experiment.root, name).config for name in run_names(experiment.root)}
        fit = [name for name, config in configs.items() if likeness(config) == likeness(original.config)]
        return [original.name, *(name for name in fit if name != original.name)]

    @functools.lru_cache(maxsize=32)
    def answers_at(name: str, fingerprint: str) -> torch.Tensor:
        return predict_classes(experiment.load(open_run(experiment.root, name)), data)

    def answers(name: str) -> torch.Tensor:
        return answers_at(name, open_run(experiment.root, name).fingerprint())[opened]

    answers_at(original.name, original.fingerprint())  # now it is known which pictures open
    opened = data.test.readable.nonzero().flatten()
    test = data.test.take(opened)
    return ComparisonPanel(
        experiment.title,
        data.classes,
        test.images,
        test.labels,
        names=names,
        answers=answers,
        forget=lambda name: open_run(experiment.root, name).config.get("forget") or [],
        font=font,
    )
