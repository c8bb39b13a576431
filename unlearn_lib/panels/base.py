"""What the panels share: layout, letters, pictures as PNG."""

import io

import ipywidgets as w
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from unlearn_lib.figures import as_picture
from unlearn_lib.networks import find_head, layer_shape, splittable_layers

WIDE = w.Layout(width="480px")
NAMED = {"description_width": "8.5em"}


def trainable_layers(model: torch.nn.Module, numbers: int = 4096) -> list[str]:
    """The layers with weights where a tail can begin, those whose input holds at most so many numbers."""
    names = [name for name in splittable_layers(model) if list(model.get_submodule(name).parameters())]
    return [name for name in names if torch.Size(layer_shape(model, name)).numel() <= numbers] or [find_head(model)]


def row_of(widgets: list[w.Widget]) -> w.Box:
    """Side by side, in as many lines as the window needs."""
    return w.Box(widgets, layout=w.Layout(flex_flow="row wrap"))


def png(shown: Figure | torch.Tensor | np.ndarray, side: int = 0) -> bytes:
    """A figure (which is closed) or a picture as PNG, a picture enlarged in whole steps to at least `side` pixels."""
    buffer = io.BytesIO()
    if isinstance(shown, Figure):
        shown.savefig(buffer, format="png", dpi=90)
        plt.close(shown)
    else:
        shown = Image.fromarray(shown if isinstance(shown, np.ndarray) else as_picture(shown))
        times = max(1, -(-side // shown.height))
        shown.resize((shown.width * times, shown.height * times), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def large(font: int) -> w.HTML:
    """The style of a panel of class `unlearn-panel-<font>`: letters of `font` pixels, controls to match."""
    size = f"--jp-widgets-font-size: {font}px; --jp-widgets-inline-height: {2 * font + 2}px; font-size: {font}px;"
    wide = f".unlearn-panel-{font} .widget-readout {{min-width: 6em;}}"
    return w.HTML(f"<style>.unlearn-panel-{font} {{{size}}} {wide}</style>", layout=w.Layout(display="none"))
