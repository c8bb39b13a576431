"""How an impression grows out of noise. The slow function is an argument; all works without a front end."""

import functools
from collections.abc import Callable, Collection
from dataclasses import dataclass

import ipywidgets as w
import matplotlib.pyplot as plt
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
    class_dropdown,
    frame_panel,
    hide,
    mark,
    observe,
    picture_png,
    say,
    show_errors,
    trainable_layers,
    two_columns,
)
from unlearn_lib.zeroshot import RECIPES, check_recipe, follow_impression

Growth = tuple[pd.DataFrame, torch.Tensor]


@dataclass(eq=False)
class ImpressionExplorer:
    """A class, a layer and a recipe, and a slider through the optimisation from noise to impression.

    Args:
        layers: names, or pairs of a text and a name.
        follow: (class index, layer, recipe) -> (growth, states): confidence and norm at each step, and the states
            [steps + 1, *shape] of the impression.
    """

    title: str
    classes: list[str]
    layers: list
    follow: Callable[[int, str, str], Growth]
    recipes: Collection[str] = tuple(RECIPES)
    font: int = 14

    def __post_init__(self):
        self.label = class_dropdown(self.classes)
        self.layer = w.Dropdown(options=self.layers, description="layer", **LABELLED)
        self.recipe = w.ToggleButtons(options=self.recipes, description="recipe", style=LABELLED["style"])
        self.step = w.IntSlider(description="step", max=1, **LABELLED)
        self.play = w.Play(interval=120, max=1)
        self._link = w.jslink((self.play, "value"), (self.step, "value"))
        self.status = w.HTML()
        self.picture = w.Image(format="png", width=256, height=256)
        self.curves = w.Image(format="png", layout=w.Layout(max_width="min(100%, 540px)", height="auto"))
        mark(self, "explore")
        observe([self.label, self.layer, self.recipe], self.grow)
        observe([self.step], self.draw)
        controls = [self.label, self.layer, self.recipe, self.step, self.play, self.status]
        columns = two_columns(controls, [self.picture, self.curves])
        self.widget = frame_panel(self.title, "from noise to a class impression", [columns], self.font)
        self.grow()

    def grow(self) -> None:
        """Follow the chosen impression and show its end."""
        say(self.status, "Optimising ...")
        self.growth = None
        hide(self.picture, self.curves)
        with show_errors(self.status, "Not made"):
            growth, self.states = self.follow(self.label.value, self.layer.value, self.recipe.value)
            self._draw_curves = make_curves(growth)
            last = len(growth) - 1
            self.step.max = last
            self.play.max = last
            self.play.step = max(1, last // 100)
            self.play.value = last  # the page links both values, and would start at 0 otherwise
            self.step.value = last
            self.growth = growth
        self.draw()

    def draw(self) -> None:
        """Show the impression at the slider's step, and the step as a line in the curves."""
        if self.growth is None:
            return
        with show_errors(self.status, "Not shown"):
            step = self.step.value
            self.picture.value = picture_png(self.states[step], side=256)
            self.curves.value = picture_png(self._draw_curves(step))
            self.picture.layout.display = ""
            self.curves.layout.display = ""
            now = self.growth.loc[step]
            say(
                self.status,
                f"Step {step} of {self.step.max}, {self.recipe.value}: the network sees "
                f"{self.label.label} with {100 * now['confidence']:.1f} % confidence; norm {now['norm']:.1f}.",
            )


def make_curves(growth: pd.DataFrame) -> Callable[[int], np.ndarray]:
    """Draw the curves once; return a function that draws a line at a step into a copy, as RGB [H, W, 3].

    Only the lines are drawn for each step (blitting): a whole figure is too slow for a slider.
    """
    figure = plot_growth_curves(growth)
    plt.close(figure)  # otherwise the notebook prints it
    figure.set_dpi(SHARP)
    lines = [axis.axvline(0, color="black", lw=1.5, animated=True) for axis in figure.axes]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    background = canvas.copy_from_bbox(figure.bbox)

    def draw(step: int) -> np.ndarray:
        canvas.restore_region(background)
        for axis, line in zip(figure.axes, lines, strict=True):
            line.set_xdata([step, step])
            axis.draw_artist(line)
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    return draw


def impression_explorer(experiment: Experiment, font: int = 14) -> ImpressionExplorer:
    """Return the explorer for an experiment's original model; it holds the impressions followed last.

    Example:
        >>> impression_explorer(experiment).widget
    """
    model = experiment.load(experiment.train())

    @functools.lru_cache(maxsize=16)
    def follow(label: int, layer: str, recipe: str) -> Growth:
        return follow_impression(model, label, layer, recipe=recipe)

    def suits(recipe: str) -> bool:
        try:
            check_recipe(model, "input", recipe)
        except UserError:
            return False
        return RECIPES[recipe].optimise is not None

    layers = [("pixels", "input"), *((name, name) for name in trainable_layers(model))]
    return ImpressionExplorer(
        experiment.title,
        experiment.dataset.classes,
        layers,
        follow=follow,
        recipes=[*filter(suits, RECIPES)],
        font=font,
    )
