"""The lab of the published unlearner: its four peculiarities (`presets`), corrected one by one and together."""

from collections.abc import Callable

import ipywidgets as w
import pandas as pd

from unlearn_lib.experiment import Experiment
from unlearn_lib.figures import plot_lab
from unlearn_lib.panels.base import (
    LABELLED,
    bold,
    frame_panel,
    hide_progress,
    make_button,
    make_chart,
    mark,
    observe,
    percent,
    show,
    show_errors,
    side_by_side,
)
from unlearn_lib.presets import CHOICES, lab_grid, lab_run


class LabPanel:
    """Four switches over the sixteen combinations: the computed results are shown, and any one runs live.

    Args:
        grid: as `lab_grid` makes it.
        run: (impressions, weights, signs, smoothing) -> a block of `evaluate`.
    """

    def __init__(self, title: str, grid: pd.DataFrame, *, run: Callable[..., dict], font: int = 14):
        self.title = title
        self.grid = grid
        self._run = run
        self.switches = {}
        for name, options in CHOICES.items():
            style = LABELLED["style"] | {"button_width": "7em"}
            self.switches[name] = w.ToggleButtons(options=options, description=name, style=style).add_class(
                f"lab-{name}"
            )
        self.live = make_button("Run this one live", "play", self.run_live)
        self.summary = w.HTML()
        self.result = w.HTML()
        self.picture = make_chart()
        mark(self, "lab", "live summary result picture")
        switches = [*self.switches.values()]
        observe(switches, self.show)
        rows = [side_by_side(switches), self.summary, side_by_side([self.live, self.result]), self.picture]
        self.widget = frame_panel(title, "the published update, corrected switch by switch", rows, font)
        self.show()

    def chosen(self) -> tuple:
        """Return the chosen combination."""
        return tuple(switch.value for switch in self.switches.values())

    def show(self) -> None:
        """Show the computed result of the chosen combination, in words and marked in the grid."""
        self.result.value = ""
        with show_errors(self._tell, "Not shown"):
            row = self.grid.loc[self.chosen()]
            self.summary.value = bold(f"Computed before: {describe(row['FA'], row['RA'])}.")
            show(self.picture, plot_lab(self.grid, self.title, self.chosen()))

    def run_live(self) -> None:
        """Run the chosen combination now and show its result next to the one computed before."""
        self.live.disabled = True
        self._tell("Running ...")
        with show_errors(self._tell, "Not run"), hide_progress():
            block = self._run(*self.chosen())
            self._tell(f"Live: {describe(block['forget_accuracy'], block['retain_accuracy'])}.")
        self.live.disabled = False

    def _tell(self, sentence: str) -> None:
        self.result.value = bold(sentence)


def describe(forget: float | None, retain: float | None) -> str:
    """Return forget and retain accuracy in words."""
    return f"forget accuracy {percent(forget)}, retain accuracy {percent(retain)}"


def lab_panel(experiment: Experiment, *, samples: int = 50, epochs: int = 100, font: int = 14) -> LabPanel:
    """Return the lab's panel for an experiment, over its grid. samples: impressions a class."""
    numbers = {"samples": samples, "epochs": epochs}
    grid = lab_grid(experiment, **numbers)
    return LabPanel(experiment.title, grid, run=lambda *chosen: lab_run(experiment, *chosen, **numbers), font=font)
