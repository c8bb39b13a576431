"""The lab of the published unlearner: four peculiarities, mended one by one and together, sixteen combinations.

The published code goes down on the forget loss and up on the retain loss (its prose says the reverse), smooths the
labels by 0.1, trains the head's bias alone, and feeds it impressions that have gone uphill for 1,000 steps.
"""

import html
from collections.abc import Callable

import ipywidgets as w
import pandas as pd

from unlearn_lib.experiment import Experiment
from unlearn_lib.figures import plot_lab
from unlearn_lib.panels.base import NAMED, large, png
from unlearn_lib.presets import CHOICES, lab_grid, lab_run


class LabPanel:
    """Four switches over the sixteen combinations: what came out is shown, and any one can be run live.

    grid: as `lab_grid` makes it. run(impressions, weights, signs, smoothing) -> a block of `evaluate`.
    """

    def __init__(self, title: str, grid: pd.DataFrame, *, run: Callable, font: int = 14):
        self.title, self.grid, self._run = title, grid, run
        self.switches = {
            name: w.ToggleButtons(options=options, description=name, style=NAMED) for name, options in CHOICES.items()
        }
        self.live = w.Button(description="Run this one live", icon="play", layout=w.Layout(width="auto"))
        self.words, self.result = w.HTML(), w.HTML()
        self.picture = w.Image(format="png", layout=w.Layout(max_width="100%"))
        for name, switch in self.switches.items():
            switch.add_class(f"lab-{name}")
            switch.observe(lambda change: self.show(), "value")
        for name in ("live", "words", "result", "picture"):
            getattr(self, name).add_class(f"lab-{name}")
        self.live.on_click(lambda button: self.run_live())
        heading = w.HTML(f"<b>{html.escape(title)}</b>: the published update, mended switch by switch")
        rows = [large(font), heading, *self.switches.values(), self.words, self.live, self.result, self.picture]
        self.widget = w.VBox(rows).add_class(f"unlearn-panel-{font}")
        self.show()

    def chosen(self) -> tuple:
        """The combination that the switches say."""
        return tuple(switch.value for switch in self.switches.values())

    def show(self) -> None:
        """The chosen combination's outcome, in words and marked in the grid."""
        row = self.grid.loc[self.chosen()]
        self.words.value = f"<b>Computed before: forget accuracy {row['FA']:.1%}, retain accuracy {row['RA']:.1%}.</b>"
        self.result.value = ""
        self.picture.value = png(plot_lab(self.grid, self.title, self.chosen()))

    def run_live(self) -> None:
        """Run the chosen combination now and put the outcome beside the one computed before."""
        self.live.disabled, self.result.value = True, "Running ..."
        try:
            block = self._run(*self.chosen())
            fa, ra = block["forget_accuracy"], block["retain_accuracy"]
            self.result.value = f"<b>Live: forget accuracy {fa:.1%}, retain accuracy {ra:.1%}.</b>"
        except (ValueError, OSError, RuntimeError) as error:
            self.result.value = html.escape(f"Not run. {error}.")
        finally:
            self.live.disabled = False


def lab_panel(lab: Experiment, *, samples: int = 50, epochs: int = 100, font: int = 14) -> LabPanel:
    """The lab's panel for an experiment, over its grid."""
    grid = lab_grid(lab, samples=samples, epochs=epochs)

    def run(*chosen) -> dict:
        return lab_run(lab, *chosen, samples=samples, epochs=epochs)

    return LabPanel(lab.title, grid, run=run, font=font)
