"""The figures of a run: how it was trained, and what came out, class by class."""

from matplotlib.figure import Figure

from unlearn_lib.experiment import Experiment
from unlearn_lib.figures.classes import (
    MANY,
    class_changes,
    plot_changes,
    plot_histograms,
    plot_losers,
    plot_per_class,
)
from unlearn_lib.figures.networks import plot_history
from unlearn_lib.networks import Run


def training_figures(experiment: Experiment, runs: dict[str, Run]) -> dict[str, Figure]:
    """Training curves of runs, by the model's name; none where weights were taken as they came."""
    histories = {name: run.history for name, run in runs.items() if run.history}
    return {"training": plot_history(histories, experiment.title)} if histories else {}


def result_figures(experiment: Experiment, run: Run) -> dict[str, Figure]:
    """Bars of every class, or where they are too many to stand side by side the figures for many."""
    title, classes = f"{experiment.title}, unlearned by {run.config['method']}", experiment.dataset.classes
    if len(classes) <= MANY:
        return {"per_class": plot_per_class(run.blocks, classes, experiment.forget_classes, title)}
    original, model = run.metrics["original"], experiment.load(experiment.original())
    changes = class_changes(original, run.metrics["unlearned"], classes, experiment.forget_classes, model)
    drawn = {"changes": plot_changes(changes, title), "lost_most": plot_losers(changes, title)}
    return drawn | {"histograms": plot_histograms(run.blocks, experiment.forget_classes, title)}
