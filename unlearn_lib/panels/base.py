"""What the panels share: layout, buttons, sentences for errors, pictures as PNG."""

import html
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import ipywidgets as w
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from unlearn_lib.common import UserError, log, redirect_progress
from unlearn_lib.figures import as_picture
from unlearn_lib.networks import input_shape_of, splittable_layers

LABELLED = {"style": {"description_width": "6.8em"}, "layout": w.Layout(width="auto", max_width="480px")}
SHARP = 144  # dots an inch: charts are drawn larger than they are shown
MOST = 4096  # numbers that enter a layer for one image, up to which a panel offers the layer


def trainable_layers(model: torch.nn.Module) -> list[str]:
    """Return the layers with weights where a tail can begin: the last, and those with at most MOST input numbers."""
    names = [name for name in splittable_layers(model) if list(model.get_submodule(name).parameters())]
    return [name for name in names if name == names[-1] or torch.Size(input_shape_of(model, name)).numel() <= MOST]


def make_button(description: str, icon: str, on_click: Callable[[], None], **options) -> w.Button:
    """Return a button that keeps the width of its text. options: of the widget."""
    layout = w.Layout(width="auto", min_width="5em", flex="0 0 auto", align_self="flex-start")
    button = w.Button(description=description, icon=icon, layout=layout, **options)
    button.on_click(lambda _: on_click())
    return button


def class_dropdown(classes: list[str]) -> w.Dropdown:
    """Return a dropdown of class names whose values are class indices."""
    return w.Dropdown(options=[(name, c) for c, name in enumerate(classes)], description="class", **LABELLED)


def observe(controls: list[w.Widget], react: Callable[[], None]) -> None:
    """Call `react` whenever one of the controls has another value."""
    for control in controls:
        control.observe(lambda change: react(), "value")


def side_by_side(widgets: list[w.Widget]) -> w.Box:
    """Return the widgets side by side, in as many lines as the window needs."""
    return w.Box(widgets, layout=w.Layout(flex_flow="row wrap", min_width="0"))


def two_columns(left: list[w.Widget], right: list[w.Widget], least: int = 18) -> w.Box:
    """Return controls on the left, results on the right; one below the other where the page is too narrow.

    least: em that the left column needs.
    """
    columns = [
        w.VBox(left, layout=w.Layout(flex=f"1 1 {least}em", max_width="36em", min_width="0", padding="0 0.6em 0 0")),
        w.VBox(right, layout=w.Layout(flex="2.5 1 21em", min_width="0")),
    ]
    return w.Box(columns, layout=w.Layout(flex_flow="row wrap", align_items="flex-start", min_width="0"))


def frame_panel(title: str, what: str, rows: list[w.Widget], font: int) -> w.VBox:
    """Return a panel: a heading and its rows, in letters of `font` pixels, controls to match."""
    style = w.HTML(f"""<style>
        .unlearn-panel-{font} {{
            --jp-widgets-font-size: {font}px; --jp-widgets-inline-height: {2 * font + 2}px; font-size: {font}px;
        }}
        .unlearn-panel-{font} .widget-readout {{min-width: 7em;}}
        .unlearn-panel-{font} .widget-html-content {{line-height: 1.35; white-space: normal;}}
    </style>""")
    style.layout.display = "none"
    heading = w.HTML(f"<b>{html.escape(title)}</b>: {html.escape(what)}")
    return w.VBox([style, heading, *rows], layout=w.Layout(min_width="0")).add_class(f"unlearn-panel-{font}")


def mark(panel: object, prefix: str) -> None:
    """Give each widget that is an attribute of the panel the class `<prefix>-<name>`, by which a page can find it."""
    for name, widget in vars(panel).items():
        if isinstance(widget, w.DOMWidget):
            widget.add_class(f"{prefix}-{name}")


def make_chart() -> w.Image:
    """Return the place of a chart; it is hidden until `show` puts a chart there."""
    return w.Image(format="png", layout=w.Layout(max_width="100%", height="auto", margin="0", display="none"))


def show(image: w.Image, figure: Figure) -> None:
    """Put a figure, which is closed, into a place; it is not shown larger than a notebook shows it."""
    image.layout.max_width = f"min(100%, {100 * figure.get_figwidth():.0f}px)"
    image.value = figure_png(figure)
    image.layout.display = ""


def hide(*images: w.Image) -> None:
    """Hide charts until they are shown again."""
    for image in images:
        image.layout.display = "none"


def say(place: w.HTML, sentence: str) -> None:
    """Show a sentence in bold, its characters as they are."""
    place.value = f"<b>{html.escape(sentence)}</b>"


def percent(share: float | None) -> str:
    """Return an accuracy in words."""
    return "no test pictures" if share is None else f"{100 * share:.1f} %"


@contextmanager
def show_errors(place: w.HTML, failure: str) -> Iterator[None]:
    """Show errors as a sentence: a UserError in its own words, others with their type and a traceback in the log."""
    try:
        yield
    except UserError as error:
        say(place, f"{failure}. {error}.")
    except (Exception, SystemExit) as error:
        log.exception("%s", failure)
        say(place, f"{failure}: {type(error).__name__}: {error}.")


def hide_progress() -> AbstractContextManager:
    """Draw no progress bar in this thread."""
    return redirect_progress(lambda *bar: None)


def figure_png(figure: Figure) -> bytes:
    """Return a figure as PNG, and close it."""
    plt.close(figure)  # first: the notebook would print it, in its own size, while it is saved here
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=SHARP)
    return buffer.getvalue()


def picture_png(picture: torch.Tensor | np.ndarray, side: int = 0) -> bytes:
    """Return an impression, or RGB [H, W, 3], as PNG; enlarged in whole steps to at least `side` pixels."""
    shown = Image.fromarray(picture if isinstance(picture, np.ndarray) else as_picture(picture))
    times = max(1, -(-side // shown.height))
    buffer = io.BytesIO()
    shown.resize((shown.width * times, shown.height * times), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()
