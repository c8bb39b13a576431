"""What two saved runs answer differently."""

import functools
import html
from collections.abc import Callable

import ipywidgets as w
import torch

from unlearn_lib.evaluation import answers_of, confusion_of, score
from unlearn_lib.experiment import Experiment
from unlearn_lib.figures import plot_confusions, plot_per_class, plot_pictures
from unlearn_lib.networks import open_run, run_names
from unlearn_lib.panels.base import NAMED, large, png


class ComparisonPanel:
    """Two saved runs side by side: per class, confusion, and the test pictures whose answer changed.

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
        own = {"style": NAMED, "layout": w.Layout(width="640px")}
        self.first, self.second = (w.Dropdown(description=name, **own) for name in ("first run", "second run"))
        self.label = w.Dropdown(options=[(name, c) for c, name in enumerate(classes)], description="class", **own)
        self.refresh = w.Button(description="Look for new runs", layout=w.Layout(width="auto", align_self="flex-start"))
        self.status, self.words = w.HTML(), w.HTML()
        images = [w.Image(format="png", layout=w.Layout(max_width="100%", display="none")) for _ in range(3)]
        self.per_class, self.confusions, self.pictures = images
        for name in ("first", "second", "label", "refresh", "status", "words", "per_class", "confusions", "pictures"):
            getattr(self, name).add_class(f"compare-{name}")
        self._look()
        self.label.value = next(iter(self._forgotten()), 0)
        for control in (self.first, self.second):
            control.observe(lambda change: self.compare(), "value")
        self.label.observe(lambda change: self.changed(), "value")
        self.refresh.on_click(lambda button: self._look())
        heading = w.HTML(f"<b>{html.escape(title)}</b>: two runs side by side")
        rows = [heading, self.first, self.second, self.refresh, self.status, self.per_class, self.confusions]
        self.widget = w.VBox([large(font), *rows, self.label, self.words, self.pictures])
        self.widget.add_class(f"unlearn-panel-{font}")
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
        """Judge both runs and draw them."""
        self._tell("Looking at the test pictures ...")
        names = f"1: {self.first.value}", f"2: {self.second.value}"
        forget = self._forgotten()
        try:
            self.given = [self._answers(name) for name in (self.first.value, self.second.value)]
        except (ValueError, OSError, RuntimeError) as error:
            self._tell(f"Not compared. {error}.")
            return
        confusions = [confusion_of(given, self.labels, len(self.classes)) for given in self.given]
        blocks = {name: score(c, forget) for name, c in zip(names, confusions, strict=True)}
        _show(self.per_class, plot_per_class(blocks, self.classes, forget, self.title))
        _show(self.confusions, plot_confusions(blocks, self.classes, self.title))
        accuracies = [f"{100 * block['overall_accuracy']:.2f} %" for block in blocks.values()]
        changed = (self.given[0] != self.given[1]).sum().item()
        self._tell(
            f"{changed:,} of {len(self.labels):,} test pictures changed their answer; "
            f"right: {accuracies[0]} in the first run, {accuracies[1]} in the second."
        )
        self.changed()

    def changed(self) -> None:
        """Show the test pictures of the chosen class that changed their answer, with both answers."""
        first, second = self.given
        of_class = self.labels == self.label.value
        found = (of_class & (first != second)).nonzero().flatten()
        self.words.value = html.escape(
            f"{self.label.label}: {len(found):,} of {of_class.sum().item():,} test pictures changed their answer"
            + (f", the first {min(20, len(found))} below (first run → second run)." if len(found) else ".")
        )
        self.pictures.layout.display = "none"
        if len(found):
            few = found[:20]
            gap = " → " if max(map(len, self.classes)) < 4 else " →\n"
            words = [gap.join((self.classes[a], self.classes[b])) for a, b in zip(first[few], second[few], strict=True)]
            _show(self.pictures, plot_pictures(self.images[few], words, f"{self.label.label}: changed answers"))

    def _tell(self, sentence: str) -> None:
        self.status.value = f"<b>{html.escape(sentence)}</b>"


def _show(image: w.Image, figure) -> None:
    image.value, image.layout.display = png(figure), ""


def comparison_panel(lab: Experiment, font: int = 14) -> ComparisonPanel:
    """The comparison for the runs of an experiment's model on its data, whatever they forgot."""
    original, data = lab.train(), lab.dataset

    def names() -> list[str]:
        configs = {name: open_run(lab.root, name).config for name in run_names(lab.root)}
        own = [lab.model, data.name, lab.size]
        fit = [name for name, c in configs.items() if [c[key] for key in ("model", "data", "size")] == own]
        return [original.name, *(name for name in fit if name != original.name)]

    @functools.lru_cache(maxsize=32)
    def answers_at(name: str, fingerprint: str) -> torch.Tensor:
        return answers_of(lab.load(open_run(lab.root, name)), data)

    return ComparisonPanel(
        lab.title,
        data.classes,
        data.test.images,
        data.test.labels,
        names=names,
        answers=lambda name: answers_at(name, open_run(lab.root, name).fingerprint()),
        forget=lambda name: open_run(lab.root, name).config.get("forget") or [],
        font=font,
    )
