"""The figures of a run: how it was trained, and its result class by class."""

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
    """Return the training curves of runs, keyed by model. Weights taken as they came have no curve."""
    histories = {name: run.history for name, run in runs.items() if run.history}
    return {"training": plot_history(histories, experiment.title)} if histories else {}


def result_figures(experiment: Experiment, run: Run) -> dict[str, Figure]:
    """Return bars of every class, or the figures for many classes where there are more than MANY."""
    title = f"{experiment.title}, unlearned by {run.config['method']}"
    classes = experiment.dataset.classes
    forget = experiment.forget_classes
    if len(classes) <= MANY:
        return {"per_class": plot_per_class(run.blocks, classes, forget, title)}
    original = experiment.load(experiment.original())
    changes = class_changes(run.metrics["original"], run.metrics["unlearned"], classes, forget, original)
    return {
        "changes": plot_changes(changes, title),
        "lost_most": plot_losers(changes, title),
        "histograms": plot_histograms(run.blocks, forget, title),
    }
