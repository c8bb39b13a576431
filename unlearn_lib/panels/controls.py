"""The controls of the unlearning panel: which classes, which method at which layer, with which numbers."""

import html
from collections.abc import Callable, Collection

import ipywidgets as w

from unlearn_lib.figures import MANY
from unlearn_lib.panels.base import LABELLED, mark, side_by_side
from unlearn_lib.zeroshot import METHODS, unlearning_numbers

NUMBERS = ("lr", "epochs", "forget_weight")  # those that have a control; the method decides on the others
AUTOMATIC = 0.0  # stands for None, which no option can be
RATES = [float(f"{digit}e{power}") for power in range(-4, 0) for digit in (1, 2, 3, 5)] + [1.0]
PAINTED = "Above each class: what the network itself paints for it (no photograph)."


class Controls:
    """A toggle a class and a slider from the first to the last, which always agree; a control for all the rest.

    layer_of: the layers that methods were made for. on_change is called whenever what is chosen may have changed.
    """

    def __init__(
        self,
        classes: list[str],
        layers: list[str],
        forget: list[int],
        thumbnails: list[bytes] | None,
        seed: int,
        layer_of: dict[str, str],
    ):
        self.names, self._start, self._seed, self._layer_of, self._setting = classes, forget, seed, layer_of, False
        self.on_change: Callable[[], None] = lambda: None
        wide = f"{max(3.8, 0.6 * max(map(len, classes)) + 2.6):.1f}em"
        self.toggles = [w.ToggleButton(description=c, layout=w.Layout(width=wide)) for c in classes]
        self.classes = self._class_box(thumbnails)
        self.range = w.IntRangeSlider(max=len(classes) - 1, description="first, last", **LABELLED)
        rates = sorted({*RATES, *(unlearning_numbers(method, {})["lr"] or 1.0 for method in METHODS)})
        rates = [("the method's", AUTOMATIC), *((f"{rate:g}", rate) for rate in rates)]
        self.lr = w.SelectionSlider(options=rates, description="learning rate", **LABELLED)
        self.epochs = w.IntSlider(min=1, max=200, description="epochs", **LABELLED)
        self.forget_weight = w.FloatSlider(min=0, max=5, step=0.1, description="forget weight", **LABELLED)
        self.layer = w.Dropdown(options=layers, description="layer", **LABELLED)
        self.method = w.Dropdown(options=METHODS, description="method", **LABELLED)
        self.summary, self.fixed = w.HTML(), w.HTML()
        mark(self, "unlearn", "range method layer lr epochs forget_weight summary fixed")
        self.named = {name: getattr(self, name) for name in ("range", "method", "layer", *NUMBERS)}
        self.rows = [self.summary, *self.named.values(), self.fixed]
        for control in (self.range, self.lr, self.epochs, self.forget_weight):
            control.continuous_update = False
        self.range.observe(self._range_moved, "value")
        self.method.observe(lambda change: self._take_numbers(), "value")
        for control in (*self.toggles, *self.named.values()):
            control.observe(lambda change: self._changed(), "value")

    def _class_box(self, thumbnails: list[bytes] | None) -> w.VBox:
        cells, note = [toggle.add_class("unlearn-class") for toggle in self.toggles], []
        if thumbnails:
            pictures = [w.Image(value=data, width=50, height=50) for data in thumbnails]
            column = w.Layout(align_items="center")
            cells = [w.VBox([*pair], layout=column) for pair in zip(pictures, cells, strict=True)]
            note = [w.HTML(PAINTED)]
        box = side_by_side(cells)
        if len(cells) > MANY:
            box.layout.max_height, box.layout.overflow = "160px", "auto"
        return w.VBox([box, *note], layout=w.Layout(min_width="0"))

    def forget(self) -> list[int]:
        """The indices of the classes that are chosen."""
        return [c for c, toggle in enumerate(self.toggles) if toggle.value]

    def chosen(self) -> dict:
        """forget, layer, method, and all numbers of unlearning: those of the controls and those the method decides."""
        method, numbers = self.method.value, {name: getattr(self, name).value for name in NUMBERS}
        numbers["lr"] = None if numbers["lr"] == AUTOMATIC else numbers["lr"]
        numbers = unlearning_numbers(method, {} if method == "mask" else numbers)  # which does without any
        return {"forget": self.forget(), "layer": self.layer.value, "method": method, **numbers}

    def set_back(self) -> None:
        """All as at the start."""
        self._choose(self._start)
        self.method.value, self.layer.value = METHODS[0], self.layer.options[-1]
        self._take_numbers()

    def _choose(self, forget: Collection[int]) -> None:
        self._setting = True
        for c, toggle in enumerate(self.toggles):
            toggle.value = c in forget
        self._setting = False
        self._changed()

    def _range_moved(self, change: dict) -> None:
        if not self._setting:
            self._choose(range(change["new"][0], change["new"][1] + 1))

    def _take_numbers(self) -> None:
        """The controls at the method's own numbers, and the numbers without a control said."""
        method = self.method.value
        numbers = unlearning_numbers(method, {})
        self.epochs.max = max(200, numbers["epochs"])
        for name in NUMBERS:
            control = getattr(self, name)
            control.value, control.disabled = AUTOMATIC if numbers[name] is None else numbers[name], method == "mask"
        self.layer.value = self._layer_of.get(method, self.layer.value)
        self.fixed.value = (
            f"Fixed: retain weight {numbers['retain_weight']:g}, batch size {numbers['batch_size']}, seed {self._seed}."
            if method != "mask"
            else "The mask needs no numbers."
        )

    def _changed(self) -> None:
        if self._setting:
            return
        forget = self.forget()
        for toggle in self.toggles:
            toggle.icon = "check" if toggle.value else ""
        self._setting = True  # the slider follows: from the first to the last that is chosen
        self.range.layout.visibility = "visible" if forget else "hidden"
        self.range.value = (forget[0], forget[-1]) if forget else self.range.value
        self._setting = False
        names = html.escape(", ".join(self.names[c] for c in forget) or "none")
        self.summary.value = f"Forget {len(forget)} of {len(self.names)}: {names}."
        self.on_change()
