"""The controls of the unlearning panel: the classes to forget, the method, its layer and its numbers."""

import html
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import ipywidgets as w

from unlearn_lib.figures import MANY
from unlearn_lib.panels.base import LABELLED, mark, observe, side_by_side
from unlearn_lib.zeroshot import METHODS, Unlearning

AUTOMATIC = 0.0  # the slider's value for None, which a widget cannot hold as an option
RATES = {float(f"{digit}e{power}") for power in range(-4, 0) for digit in (1, 2, 3, 5)} | {1.0}
MOST_EPOCHS = 200  # of the slider, unless the method's own are more
PAINTED = "Above each class: what the network itself paints for it (no photograph)."


@dataclass(eq=False)
class Controls:
    """One toggle per class, a slider from the first to the last of them, and the fields of an `Unlearning`.

    The toggles and the slider always agree.

    Args:
        layers: where unlearning can begin; the last is chosen first.
        start: indices of the classes that are chosen first.
        thumbnails: a PNG per class.
        layer_of: the layers of the methods that have one of their default.
        seed: is only shown.
        on_change: is called whenever the choice may have changed.
    """

    classes: list[str]
    layers: list[str]
    start: Collection[int]
    thumbnails: list[bytes] | None = None
    layer_of: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    on_change: Callable[[], None] = lambda: None

    def __post_init__(self):
        self._is_setting = False
        wide = w.Layout(width=f"{max(3.8, 0.6 * max(map(len, self.classes)) + 2.6):.1f}em")
        self.toggles = [
            w.ToggleButton(description=name, layout=wide).add_class("unlearn-class") for name in self.classes
        ]
        self.summary = w.HTML()
        slider = {"continuous_update": False, **LABELLED}
        self.range = w.IntRangeSlider(max=len(self.classes) - 1, description="first, last", **slider)
        self.method = w.Dropdown(options=[*METHODS], description="method", **LABELLED)
        self.layer = w.Dropdown(options=self.layers, description="layer", **LABELLED)
        rates = sorted(RATES | {method.numbers["lr"] for method in METHODS.values()} - {None})
        rates = [("the method's", AUTOMATIC), *((f"{rate:g}", rate) for rate in rates)]
        self.lr = w.SelectionSlider(options=rates, description="learning rate", **slider)
        self.epochs = w.IntSlider(min=1, max=MOST_EPOCHS, description="epochs", **slider)
        self.forget_weight = w.FloatSlider(min=0, max=5, step=0.1, description="forget weight", **slider)
        self.fixed = w.HTML()
        mark(self, "unlearn")
        self.class_box = self._make_class_box()
        numbers = [self.lr, self.epochs, self.forget_weight]
        self.rows = [self.summary, self.range, self.method, self.layer, *numbers, self.fixed]
        observe(self.toggles, self._follow_toggles)
        observe([self.range], self._follow_range)
        observe([self.method], self._take_method)
        observe([self.layer, *numbers], lambda: self.on_change())

    def _make_class_box(self) -> w.VBox:
        cells = self.toggles
        note = []
        if self.thumbnails:
            column = w.Layout(align_items="center")
            pictures = [w.Image(value=png, width=50, height=50) for png in self.thumbnails]
            cells = [w.VBox(pair, layout=column) for pair in zip(pictures, self.toggles, strict=True)]
            note = [w.HTML(PAINTED)]
        box = side_by_side(cells)
        if len(cells) > MANY:
            box.layout.max_height = "160px"
            box.layout.overflow = "auto"
        return w.VBox([box, *note], layout=w.Layout(min_width="0"))

    def forget(self) -> list[int]:
        """Return the indices of the chosen classes."""
        return [c for c, toggle in enumerate(self.toggles) if toggle.value]

    def chosen(self) -> tuple[Unlearning, list[int]]:
        """Return what the controls say: the unlearning and the classes to forget."""
        numbers = {}
        if METHODS[self.method.value].needs_impressions:
            numbers["lr"] = None if self.lr.value == AUTOMATIC else self.lr.value
            numbers["epochs"] = self.epochs.value
            numbers["forget_weight"] = self.forget_weight.value
        return Unlearning(self.method.value, self.layer.value, **numbers), self.forget()

    def set_back(self) -> None:
        """Set all controls as they were at the start."""
        self._choose(self.start)
        self.layer.value = self.layer.options[-1]
        self.method.value = Unlearning().method
        self._take_method()

    def _choose(self, forget: Collection[int]) -> None:
        self._is_setting = True
        for c, toggle in enumerate(self.toggles):
            toggle.value = c in forget
        self._is_setting = False
        self._follow_toggles()

    def _follow_range(self) -> None:
        if not self._is_setting:
            first, last = self.range.value
            self._choose(range(first, last + 1))

    def _follow_toggles(self) -> None:
        if self._is_setting:
            return
        forget = self.forget()
        for toggle in self.toggles:
            toggle.icon = "check" if toggle.value else ""
        self._is_setting = True
        self.range.layout.visibility = "visible" if forget else "hidden"
        if forget:
            self.range.value = (forget[0], forget[-1])
        self._is_setting = False
        names = html.escape(", ".join(self.classes[c] for c in forget) or "none")
        self.summary.value = f"Forget {len(forget)} of {len(self.classes)}: {names}."
        self.on_change()

    def _take_method(self) -> None:
        """Show the method's own numbers; those without a control are shown as text."""
        default = Unlearning(self.method.value)
        has_numbers = default.rules.needs_impressions
        self.epochs.max = max(MOST_EPOCHS, default.epochs)
        self.epochs.value = default.epochs
        self.lr.value = default.lr or AUTOMATIC
        self.forget_weight.value = default.forget_weight
        for control in (self.lr, self.epochs, self.forget_weight):
            control.disabled = not has_numbers
        self.layer.value = self.layer_of.get(default.method, self.layer.value)
        fixed = f"Fixed: retain weight {default.retain_weight:g}, batch size {default.batch_size}, seed {self.seed}."
        self.fixed.value = fixed if has_numbers else f"The {default.method} needs no numbers."
        self.on_change()
