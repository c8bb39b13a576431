"""The lab of the published unlearner: the four peculiarities of `presets`, mended one by one and together."""

from collections.abc import Callable

import ipywidgets as w
import pandas as pd

from unlearn_lib.common import redirect_progress
from unlearn_lib.experiment import Experiment
from unlearn_lib.figures import plot_lab
from unlearn_lib.panels.base import LABELLED, bold, chart, frame_panel, mark, show, show_errors, side_by_side
from unlearn_lib.presets import CHOICES, lab_grid, lab_run


class LabPanel:
    """Four switches over the sixteen combinations: what came out is shown, and any one can be run live.

    grid: as `lab_grid` makes it. run(impressions, weights, signs, smoothing) -> a block of `evaluate`.
    """

    def __init__(self, title: str, grid: pd.DataFrame, *, run: Callable, font: int = 14):
        self.title, self.grid, self._run = title, grid, run
        style = LABELLED["style"]
        self.switches = {
            name: w.ToggleButtons(options=options, description=name, style=style) for name, options in CHOICES.items()
        }
        self.live = w.Button(description="Run this one live", icon="play", layout=w.Layout(width="auto"))
        self.summary, self.result, self.picture = w.HTML(), w.HTML(), chart()
        for name, switch in self.switches.items():
            switch.add_class(f"lab-{name}").observe(lambda change: self.show(), "value")
            switch.style.button_width = "7em"
        mark(self, "lab", "live summary result picture")
        self.live.on_click(lambda button: self.run_live())
        rows = [
            side_by_side([*self.switches.values()]),
            self.summary,
            side_by_side([self.live, self.result]),
            self.picture,
        ]
        self.widget = frame_panel(title, "the published update, mended switch by switch", rows, font)
        self.show()

    def chosen(self) -> tuple:
        """The combination that the switches say."""
        return tuple(switch.value for switch in self.switches.values())

    def show(self) -> None:
        """The chosen combination's outcome, in words and marked in the grid."""
        self.result.value = ""
        with show_errors(self._tell, "Not shown"):
            row = self.grid.loc[self.chosen()]
            fa, ra = _percent(row["FA"]), _percent(row["RA"])
            self.summary.value = bold(f"Computed before: forget accuracy {fa}, retain accuracy {ra}.")
            show(self.picture, plot_lab(self.grid, self.title, self.chosen()))

    def run_live(self) -> None:
        """Run the chosen combination now and put the outcome beside the one computed before."""
        self.live.disabled = True
        self._tell("Running ...")
        with show_errors(self._tell, "Not run"):
            block = self._run(*self.chosen())
            fa, ra = (_percent(block[f"{part}_accuracy"]) for part in ("forget", "retain"))
            self._tell(f"Live: forget accuracy {fa}, retain accuracy {ra}.")
        self.live.disabled = False

    def _tell(self, sentence: str) -> None:
        self.result.value = bold(sentence)


def _percent(share: float | None) -> str:
    return "of no test pictures" if share is None else f"{100 * share:.1f} %"


def lab_panel(experiment: Experiment, *, samples: int = 50, epochs: int = 100, font: int = 14) -> LabPanel:
    """The lab's panel for an experiment, over its grid."""
    grid = lab_grid(experiment, samples=samples, epochs=epochs)

    def run(*chosen) -> dict:
        with redirect_progress(lambda *bar: None):
            return lab_run(experiment, *chosen, samples=samples, epochs=epochs)

    return LabPanel(experiment.title, grid, run=run, font=font)
