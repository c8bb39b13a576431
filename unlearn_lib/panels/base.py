"""What the panels share: layout, letters, sentences for what goes wrong, pictures as PNG."""

import html
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ipywidgets as w
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from unlearn_lib.common import UserError, log
from unlearn_lib.figures import as_picture
from unlearn_lib.networks import input_shape_of, splittable_layers

LABELLED = {"style": {"description_width": "6.8em"}, "layout": w.Layout(width="auto", max_width="480px")}
SHARP = 144  # dots an inch: charts are drawn larger than they are shown
MOST = 4096  # numbers that enter a layer for one picture, up to which a panel offers it


def trainable_layers(model: torch.nn.Module) -> list[str]:
    """The layers with weights where a tail can begin: the last, and those whose input holds at most MOST numbers."""
    names = [name for name in splittable_layers(model) if list(model.get_submodule(name).parameters())]
    return [name for name in names if name == names[-1] or torch.Size(input_shape_of(model, name)).numel() <= MOST]


def side_by_side(widgets: list[w.Widget]) -> w.Box:
    """Side by side, in as many lines as the window needs."""
    return w.Box(widgets, layout=w.Layout(flex_flow="row wrap", min_width="0"))


def two_columns(left: list[w.Widget], right: list[w.Widget], least: int = 18) -> w.Box:
    """Two columns, the right one for what comes out; one under the other where the page is too narrow for both.

    least: em that the left one needs.
    """
    columns = [
        w.VBox(left, layout=w.Layout(flex=f"1 1 {least}em", max_width="36em", min_width="0", padding="0 0.6em 0 0")),
        w.VBox(right, layout=w.Layout(flex="2.5 1 21em", min_width="0")),
    ]
    return w.Box(columns, layout=w.Layout(flex_flow="row wrap", align_items="flex-start", min_width="0"))


def frame_panel(title: str, what: str, rows: list[w.Widget], font: int) -> w.VBox:
    """A panel: a heading and its rows, in letters of `font` pixels, controls to match."""
    size = f"--jp-widgets-font-size: {font}px; --jp-widgets-inline-height: {2 * font + 2}px; font-size: {font}px;"
    readout = f".unlearn-panel-{font} .widget-readout {{min-width: 7em;}}"
    wrap = f".unlearn-panel-{font} .widget-html-content {{line-height: 1.35; white-space: normal;}}"
    style = w.HTML(f"<style>.unlearn-panel-{font} {{{size}}} {readout} {wrap}</style>")
    style.layout.display = "none"
    heading = w.HTML(f"<b>{html.escape(title)}</b>: {html.escape(what)}")
    return w.VBox([style, heading, *rows], layout=w.Layout(min_width="0")).add_class(f"unlearn-panel-{font}")


def chart() -> w.Image:
    """The place of a chart, which is nowhere to be seen until `show` puts one there."""
    return w.Image(format="png", layout=w.Layout(max_width="100%", height="auto", margin="0", display="none"))


def show(image: w.Image, figure: Figure) -> None:
    """Put a figure, which is closed, into the place of the one before, not larger than a notebook shows it."""
    image.layout.max_width = f"min(100%, {100 * figure.get_figwidth():.0f}px)"
    image.value, image.layout.display = png(figure), ""


def mark(panel: object, prefix: str, names: str) -> None:
    """Give the panel's widgets of these names the classes `<prefix>-<name>`, by which a page can find them."""
    for name in names.split():
        getattr(panel, name).add_class(f"{prefix}-{name}")


def bold(sentence: str) -> str:
    """A sentence as HTML, its characters as they are."""
    return f"<b>{html.escape(sentence.strip())}</b>"


@contextmanager
def show_errors(tell: Callable[[str], None], failure: str) -> Iterator[None]:
    """Whatever goes wrong inside is told: a UserError in its own words, all else by its type, its traceback logged."""
    try:
        yield
    except UserError as error:
        tell(f"{failure}. {error}.")
    except (Exception, SystemExit) as error:
        log.exception("%s", failure)
        tell(f"{failure}: {type(error).__name__}: {error}.")


def png(shown: Figure | torch.Tensor | np.ndarray, side: int = 0) -> bytes:
    """A figure (which is closed) or a picture as PNG, a picture enlarged in whole steps to at least `side` pixels."""
    buffer = io.BytesIO()
    if isinstance(shown, Figure):
        plt.close(shown)  # first, lest the notebook prints it, in its own size, while it is saved here
        shown.savefig(buffer, format="png", dpi=SHARP)
    else:
        shown = Image.fromarray(shown if isinstance(shown, np.ndarray) else as_picture(shown))
        times = max(1, -(-side // shown.height))
        shown.resize((shown.width * times, shown.height * times), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()
