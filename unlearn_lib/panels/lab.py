"""The lab of the published unlearner: its four peculiarities (`presets`), corrected one by one and together."""

from collections.abc import Callable
from dataclasses import dataclass

import ipywidgets as w
import pandas as pd

from unlearn_lib.experiment import Experiment
from unlearn_lib.figures import plot_lab
from unlearn_lib.panels.base import (
    LABELLED,
    frame_panel,
    hide_progress,
    make_button,
    make_chart,
    mark,
    observe,
    percent,
    say,
    show,
    show_errors,
    side_by_side,
)
from unlearn_lib.presets import CHOICES, lab_grid, lab_run


@dataclass(eq=False)
class LabPanel:
    """Four switches over the sixteen combinations: the computed results are shown, and any one runs live.

    Args:
        grid: as `lab_grid` makes it.
        run: (impressions, weights, signs, smoothing) -> a block of `evaluate`.
    """

    title: str
    grid: pd.DataFrame
    run: Callable[..., dict]
    font: int = 14

    def __post_init__(self):
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
        mark(self, "lab")
        switches = [*self.switches.values()]
        observe(switches, self.show)
        rows = [side_by_side(switches), self.summary, side_by_side([self.live, self.result]), self.picture]
        self.widget = frame_panel(self.title, "the published update, corrected switch by switch", rows, self.font)
        self.show()

    def chosen(self) -> tuple:
        """Return the chosen combination."""
        return tuple(switch.value for switch in self.switches.values())

    def show(self) -> None:
        """Show the computed result of the chosen combination, in words and marked in the grid."""
        self.result.value = ""
        with show_errors(self.result, "Not shown"):
            row = self.grid.loc[self.chosen()]
            say(self.summary, f"Computed before: {describe(row['FA'], row['RA'])}.")
            show(self.picture, plot_lab(self.grid, self.title, self.chosen()))

    def run_live(self) -> None:
        """Run the chosen combination now and show its result next to the one computed before."""
        self.live.disabled = True
        say(self.result, "Running ...")
        with show_errors(self.result, "Not run"), hide_progress():
            block = self.run(*self.chosen())
            say(self.result, f"Live: {describe(block['forget_accuracy'], block['retain_accuracy'])}.")
        self.live.disabled = False


def describe(forget: float | None, retain: float | None) -> str:
    """Return forget and retain accuracy in words."""
    return f"forget accuracy {percent(forget)}, retain accuracy {percent(retain)}"


def lab_panel(experiment: Experiment, *, samples: int = 50, epochs: int = 100, font: int = 14) -> LabPanel:
    """Return the lab's panel for an experiment, over its grid. samples: impressions a class."""
    numbers = {"samples": samples, "epochs": epochs}
    grid = lab_grid(experiment, **numbers)
    return LabPanel(experiment.title, grid, run=lambda *chosen: lab_run(experiment, *chosen, **numbers), font=font)
