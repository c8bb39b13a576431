"""How an impression grows out of noise: the slow function is handed in, and all works without a front end."""

import functools
from collections.abc import Callable, Collection

import ipywidgets as w
import numpy as np
import pandas as pd
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from unlearn_lib.common import UserError
from unlearn_lib.experiment import Experiment
from unlearn_lib.figures import plot_growth_curves
from unlearn_lib.panels.base import (
    LABELLED,
    SHARP,
    bold,
    frame_panel,
    mark,
    png,
    show_errors,
    trainable_layers,
    two_columns,
)
from unlearn_lib.zeroshot import RECIPES, check_recipe, follow_impression


class ImpressionExplorer:
    """A class, a layer and a recipe; a slider that scrubs through the optimisation from noise to impression.

    follow(label, layer, recipe) -> (growth, states): confidence and norm by step, and the impression at each step.
    """

    def __init__(
        self,
        title: str,
        classes: list[str],
        layers: list[str],
        *,
        follow: Callable,
        recipes: Collection[str] = RECIPES,
        font: int = 14,
    ):
        self._follow = follow
        self.label = w.Dropdown(options=[(name, c) for c, name in enumerate(classes)], description="class", **LABELLED)
        self.layer = w.Dropdown(options=layers, description="layer", **LABELLED)
        self.recipe = w.ToggleButtons(options=recipes, description="recipe", style=LABELLED["style"])
        self.step = w.IntSlider(description="step", max=1, **LABELLED)
        self.play = w.Play(interval=120, max=1)
        self._link = w.jslink((self.play, "value"), (self.step, "value"))
        self.status, self.picture = w.HTML(), w.Image(format="png", width=256, height=256)
        self.curves = w.Image(format="png", layout=w.Layout(max_width="min(100%, 540px)", height="auto"))
        mark(self, "explore", "label layer recipe step status picture curves")
        for control in (self.label, self.layer, self.recipe):
            control.observe(lambda change: self.grow(), "value")
        self.step.observe(lambda change: self._moved(), "value")
        controls = [self.label, self.layer, self.recipe, self.step, self.play, self.status]
        rows = [two_columns(controls, [self.picture, self.curves])]
        self.widget = frame_panel(title, "from noise to a class impression", rows, font)
        self.grow()

    def grow(self) -> None:
        """Follow the chosen impression and show its end."""
        self._tell("Optimising ...")
        self.growth = None
        for image in (self.picture, self.curves):
            image.layout.display = "none"
        with show_errors(self._tell, "Not made"):
            growth, self.states = self._follow(self.label.value, self.layer.value, self.recipe.value)
            self._base, self._axes = _drawn(growth)
            last = len(growth) - 1
            self.step.max = self.play.max = last
            self.play.step = max(1, last // 100)
            self.step.value = self.play.value = last  # the page links them, and would start at 0 else
            self.growth = growth
            self.draw()

    def _moved(self) -> None:
        with show_errors(self._tell, "Not shown"):
            self.draw()

    def draw(self) -> None:
        """Show the impression at the slider's step, and the step as a line in the curves."""
        if self.growth is None:
            return
        step = self.step.value
        self.picture.layout.display = self.curves.layout.display = ""
        self.picture.value = png(self.states[step], side=256)
        curves = self._base.copy()
        for left, right, top, bottom in self._axes:
            place = left + (right - left) * step / max(1, len(self.growth) - 1)
            curves[top:bottom, round(place) - 1 : round(place) + 2] = 0
        self.curves.value = png(curves)
        now = self.growth.loc[step]
        self._tell(
            f"Step {step} of {len(self.growth) - 1}, {self.recipe.value}: the network sees "
            f"{self.label.label} with {100 * now['confidence']:.1f} % confidence; norm {now['norm']:.1f}."
        )

    def _tell(self, sentence: str) -> None:
        self.status.value = bold(sentence)


def _drawn(growth: pd.DataFrame) -> tuple[np.ndarray, list[tuple]]:
    """The curves as a picture, and in it the pixels of each axis: first step, last step, top, bottom."""
    figure = plot_growth_curves(growth)
    figure.set_dpi(SHARP)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    base, axes = np.asarray(canvas.buffer_rgba())[..., :3], []
    for axis in figure.axes:
        (left, _), (right, _) = axis.transData.transform([(growth.index[0], 0), (growth.index[-1], 0)])
        box = axis.get_window_extent()
        axes.append((left, right, round(len(base) - box.y1), round(len(base) - box.y0)))
    png(figure)  # closes it
    return base, axes


def impression_explorer(experiment: Experiment, font: int = 14) -> ImpressionExplorer:
    """The explorer for an experiment's original model; the ways it has followed last are kept."""
    model = experiment.load(experiment.train())

    @functools.lru_cache(maxsize=16)
    def follow(label: int, layer: str, recipe: str) -> tuple[pd.DataFrame, torch.Tensor]:
        return follow_impression(model, label, layer, recipe=recipe)

    def works(recipe: str) -> bool:
        try:
            check_recipe(model, "input", recipe)
        except UserError:
            return False
        return RECIPES[recipe].optimise is not None

    recipes = tuple(filter(works, RECIPES))
    layers = [("pixels", "input"), *((name, name) for name in trainable_layers(model))]
    return ImpressionExplorer(
        experiment.title, experiment.dataset.classes, layers, follow=follow, recipes=recipes, font=font
    )
