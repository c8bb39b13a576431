"""Two panels to look with: how an impression grows out of noise, and what two saved runs answer differently.

As in `widgets`, the slow functions are handed in, and everything works without a front end.
"""

import functools
import html
from collections.abc import Callable

import ipywidgets as w
import numpy as np
import pandas as pd
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image, ImageDraw

from unlearn_lib.experiment import Experiment
from unlearn_lib.figures import plot_growth_curves
from unlearn_lib.panels.base import NAMED, WIDE, large, png, row_of, trainable_layers
from unlearn_lib.zeroshot import RECIPES, follow_impression


class ImpressionExplorer:
    """A class, a layer and a recipe; a slider that scrubs through the optimisation from noise to impression.

    follow(label, layer, recipe) -> (growth, states): confidence and norm by step, and the impression at each step.
    """

    def __init__(self, title: str, classes: list[str], layers: list[str], *, follow: Callable, font: int = 14):
        self._follow = follow
        own = {"style": NAMED, "layout": WIDE}
        self.label = w.Dropdown(options=[(name, c) for c, name in enumerate(classes)], description="class", **own)
        self.layer = w.Dropdown(options=layers, description="layer", **own)
        self.recipe = w.ToggleButtons(options=RECIPES, description="recipe", style=NAMED)
        self.step = w.IntSlider(description="step", max=1, **own)
        self.play = w.Play(interval=120, max=1)
        self._link = w.jslink((self.play, "value"), (self.step, "value"))
        self.status, self.picture = w.HTML(), w.Image(format="png", width=256, height=256)
        self.curves = w.Image(format="png", layout=w.Layout(max_width="640px"))
        for name in ("label", "layer", "recipe", "step", "status", "picture", "curves"):
            getattr(self, name).add_class(f"explore-{name}")
        for control in (self.label, self.layer, self.recipe):
            control.observe(lambda change: self.grow(), "value")
        self.step.observe(lambda change: self.draw(), "value")
        heading = w.HTML(f"<b>{html.escape(title)}</b>: from noise to a class impression")
        controls = [self.label, self.layer, self.recipe, row_of([self.step, self.play])]
        shown = row_of([self.picture, self.curves])
        self.widget = w.VBox([large(font), heading, *controls, self.status, shown])
        self.widget.add_class(f"unlearn-panel-{font}")
        self.grow()

    def grow(self) -> None:
        """Follow the chosen impression and show its end."""
        self._tell("Optimising ...")
        try:
            self.growth, self.states = self._follow(self.label.value, self.layer.value, self.recipe.value)
        except (ValueError, RuntimeError) as error:
            self._tell(f"Not made. {error}.")
            return
        self._base, self._axes = _drawn(self.growth)
        last = len(self.growth) - 1
        self.step.max = self.play.max = last
        self.play.step = max(1, last // 100)
        self.step.value = last
        self.draw()

    def draw(self) -> None:
        """Show the impression at the slider's step, and the step as a line in the curves."""
        step = self.step.value
        self.picture.value = png(self.states[step], side=256)
        curves = self._base.copy()
        for left, right, top, bottom in self._axes:
            place = left + (right - left) * step / max(1, len(self.growth) - 1)
            ImageDraw.Draw(curves).line([(place, top), (place, bottom)], fill="black", width=2)
        self.curves.value = png(np.asarray(curves))
        now = self.growth.loc[step]
        self._tell(
            f"Step {step} of {len(self.growth) - 1}, {self.recipe.value}: the network sees "
            f"{self.label.label} with {100 * now['confidence']:.1f} % confidence; norm {now['norm']:.1f}."
        )

    def _tell(self, sentence: str) -> None:
        self.status.value = f"<b>{html.escape(sentence)}</b>"


def _drawn(growth: pd.DataFrame) -> tuple[Image.Image, list[tuple]]:
    """The curves as a picture, and in it the pixels of each axis: first step, last step, top, bottom."""
    figure = plot_growth_curves(growth)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    base, axes = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"), []
    for axis in figure.axes:
        (left, _), (right, _) = axis.transData.transform([(growth.index[0], 0), (growth.index[-1], 0)])
        box = axis.get_window_extent()
        axes.append((left, right, base.height - box.y1, base.height - box.y0))
    png(figure)  # closes it
    return base, axes


def impression_explorer(lab: Experiment, font: int = 14) -> ImpressionExplorer:
    """The explorer for an experiment's original model; the ways it has followed last are kept."""
    model = lab.load(lab.train())

    @functools.lru_cache(maxsize=16)
    def follow(label: int, layer: str, recipe: str) -> tuple[pd.DataFrame, torch.Tensor]:
        return follow_impression(model, label, layer, recipe=recipe)

    layers = [("pixels", "input"), *((name, name) for name in trainable_layers(model))]
    return ImpressionExplorer(lab.title, lab.dataset.classes, layers, follow=follow, font=font)
