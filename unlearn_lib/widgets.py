"""Panels: unlearning with a hand on a slider.

A panel is handed the slow functions; its state and its callbacks work without a front end. The work runs in a thread,
so that Stop is heard while it goes on; `wait()` waits for it.
"""

import copy
import html
import io
import threading
import time
from collections.abc import Callable

import ipywidgets as w
import matplotlib.pyplot as plt
import torch
from PIL import Image

from unlearn_lib.data import check_forget
from unlearn_lib.evaluation import confusion_of, score
from unlearn_lib.experiment import Experiment, default_recipe
from unlearn_lib.impressions import make_impressions
from unlearn_lib.models import find_head, layer_shape, split, splittable_layers
from unlearn_lib.plots import plot_per_class
from unlearn_lib.unlearning import METHODS, PUBLISHED, ZeroShotUnlearner

WIDE = w.Layout(width="460px")
CHANGED = "Changed: what stands below is still the run before. Press Run."
NAMED = {"description_width": "110px"}


class UnlearningPanel:
    """Controls, a picture of the result, and its numbers in words.

    unlearn(choice, on_step) -> (model, history, seconds); judge(model, choice) -> blocks by name;
    save(choice, epochs) -> where it was saved; golden_seconds(choice) -> seconds or None; thumbnails: PNG by class.
    A choice holds forget (indices), lr, epochs, forget_weight, layer and method.
    """

    def __init__(
        self,
        title: str,
        classes: list[str],
        layers: list[str],
        forget: list[int],
        *,
        unlearn: Callable[[dict, Callable], tuple],
        judge: Callable[[object, dict], dict],
        save: Callable[[dict, int], str],
        golden_seconds: Callable[[dict], float | None] = lambda choice: None,
        thumbnails: list[bytes] | None = None,
    ):
        self.title, self.classes, self.start_forget = title, classes, forget
        self._unlearn, self._judge, self._save, self._golden_seconds = unlearn, judge, save, golden_seconds
        self.model, self.history, self.blocks, self.choice = None, None, None, None
        self._stop, self._thread = threading.Event(), None

        self.toggles = [w.ToggleButton(description=name, layout=w.Layout(width="96px")) for name in classes]
        pictures = [[w.Image(value=png, width=48, height=48)] for png in thumbnails or []] or [[] for _ in classes]
        cells = [w.VBox([*picture, toggle]) for picture, toggle in zip(pictures, self.toggles, strict=True)]
        last = len(classes) - 1
        self.range = w.IntRangeSlider(
            value=(0, 0), max=last, description="forget from, to", style=NAMED, layout=WIDE, continuous_update=False
        )
        self.lr = w.FloatLogSlider(
            value=1e-3, min=-5, max=0, step=0.1, description="learning rate", style=NAMED, layout=WIDE
        )
        self.epochs = w.IntSlider(value=20, min=1, max=200, description="epochs", style=NAMED, layout=WIDE)
        self.forget_weight = w.FloatSlider(
            value=1, min=0, max=5, step=0.1, description="forget weight", style=NAMED, layout=WIDE
        )
        self.layer = w.Dropdown(options=layers, value=layers[-1], description="layer", style=NAMED, layout=WIDE)
        self.method = w.Dropdown(options=METHODS, description="method", style=NAMED, layout=WIDE)
        self.run = w.Button(description="Run", button_style="primary", icon="play")
        self.stop = w.Button(description="Stop", disabled=True, icon="stop")
        self.reset = w.Button(description="Reset", icon="undo")
        self.save = w.Button(description="Save model", disabled=True, icon="save")
        self.progress = w.IntProgress(layout=w.Layout(width="460px"))
        self.status, self.numbers = w.HTML(), w.HTML()
        self.picture = w.Image(format="png", layout=w.Layout(max_width="980px", display="none"))
        for control in (self.lr, self.epochs, self.forget_weight):
            control.continuous_update = False
        for name in ("range", "lr", "epochs", "layer", "method", "run", "stop", "reset", "save", "status", "numbers"):
            getattr(self, name).add_class(f"unlearn-{name}")

        self.run.on_click(lambda button: self.start())
        self.stop.on_click(lambda button: self._stop.set())
        self.reset.on_click(lambda button: self.set_back())
        self.save.on_click(lambda button: self.keep())
        self.range.observe(self._range_moved, "value")
        self.method.observe(self._method_chosen, "value")
        for control in (*self.toggles, self.lr, self.epochs, self.forget_weight, self.layer, self.method):
            control.observe(lambda change: self._changed(), "value")
        grid = w.Box(cells, layout=w.Layout(flex_flow="row wrap"))
        sliders = w.VBox([self.range, self.lr, self.epochs, self.forget_weight, self.layer, self.method])
        buttons = w.HBox([self.run, self.stop, self.reset, self.save])
        parts = [w.HTML(f"<b>{html.escape(title)}</b>: choose the classes to forget"), grid, sliders, buttons]
        self.widget = w.VBox([*parts, self.progress, self.status, self.numbers, self.picture])
        self.set_back()

    def chosen(self) -> dict:
        """What the controls say now."""
        forget = [c for c, toggle in enumerate(self.toggles) if toggle.value]
        values = {name: getattr(self, name).value for name in ("lr", "epochs", "forget_weight", "layer", "method")}
        return {"forget": forget, **values}

    def start(self) -> None:
        """Unlearn what the controls say, in a thread; a choice that cannot be run ends in a sentence."""
        if self._thread is not None and self._thread.is_alive():
            return
        choice = self.chosen()
        self._stop.clear()
        self.run.disabled, self.stop.disabled, self.save.disabled = True, False, True
        self.progress.max, self.progress.value = choice["epochs"], 0
        self._tell("Running ...")
        self._thread = threading.Thread(target=self._work, args=(choice,), daemon=True)
        self._thread.start()

    def wait(self, seconds: float = 60) -> None:
        """Wait for the run to end."""
        self._thread.join(seconds)

    def _work(self, choice: dict) -> None:
        try:
            check_forget(choice["forget"], len(self.classes))
            begin = time.perf_counter()
            model, history, seconds = self._unlearn(choice, self._step)
            blocks = self._judge(model, choice)
            self.model, self.history, self.blocks, self.choice = model, history, blocks, choice
            self._draw()
            stopped = "Stopped; this is what it had reached" if self._stop.is_set() else "Done"
            self.numbers.value = self._in_words(seconds, choice)
            self._tell(f"{stopped}, {time.perf_counter() - begin:.1f} s with the evaluation.")
            self.save.disabled = False
            if self.chosen() != choice:
                self._tell(CHANGED)
        except (ValueError, OSError, RuntimeError) as error:
            self._tell(f"Not run. {error}")
        finally:
            self.run.disabled, self.stop.disabled = False, True

    def _step(self, state: dict) -> bool:
        self.progress.value = state["epoch"]
        return not self._stop.is_set()

    def keep(self) -> None:
        """Save the last result in a run folder and say where."""
        try:
            epochs = len(self.history["forget_loss"]) or self.choice["epochs"]
            self._tell(f"Saved in {self._save(self.choice, epochs)}.")
        except (ValueError, OSError) as error:
            self._tell(f"Not saved. {error}")

    def set_back(self) -> None:
        """All controls as at the start, no result."""
        for c, toggle in enumerate(self.toggles):
            toggle.value = c in self.start_forget
        self.method.value, self.layer.value = METHODS[0], self.layer.options[-1]
        self.lr.value, self.epochs.value, self.forget_weight.value = 1e-3, 20, 1.0
        self.model, self.history, self.blocks, self.choice = None, None, None, None
        self.picture.layout.display, self.numbers.value, self.save.disabled = "none", "", True
        self.progress.value = 0
        self._tell("Ready. Choose and press Run.")

    def _range_moved(self, change: dict) -> None:
        low, high = change["new"]
        for c, toggle in enumerate(self.toggles):
            toggle.value = low <= c <= high

    def _method_chosen(self, change: dict) -> None:
        if change["new"] == "published":
            self.lr.value, self.layer.value = PUBLISHED["lr"], self.layer.options[-1]

    def _changed(self) -> None:
        if self.choice is not None and not self.run.disabled:
            same = self.chosen() == self.choice
            self._tell("Done." if same else CHANGED)

    def _tell(self, sentence: str) -> None:
        self.status.value = f"<b>{html.escape(sentence)}</b>"

    def _draw(self) -> None:
        figure = plot_per_class(self.blocks, self.classes, self.choice["forget"], self.title)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=90)
        plt.close(figure)
        self.picture.value, self.picture.layout.display = buffer.getvalue(), ""

    def _in_words(self, seconds: float, choice: dict) -> str:
        def percent(name: str, part: str) -> str:
            return f"{100 * self.blocks[name][f'{part}_accuracy']:.1f} %"

        words = (
            f"Forget accuracy {percent('original', 'forget')} → {percent('unlearned', 'forget')}. "
            f"Retain accuracy {percent('original', 'retain')} → {percent('unlearned', 'retain')} "
            f"(masked {percent('masked', 'retain')})."
        )
        golden = self._golden_seconds(choice)
        if golden:
            words += (
                f" Unlearning took {seconds:.2f} s, golden {golden:.1f} s: {golden / max(seconds, 1e-3):.0f} times."
            )
        else:
            words += f" Unlearning took {seconds:.2f} s; golden has not been trained for these classes."
        return words


def unlearning_panel(lab: Experiment) -> UnlearningPanel:
    """The panel for an experiment's original model, whose body is run over the test pictures once a layer."""
    original = lab.train()
    model, data = lab.load(original), lab.dataset
    layers = [
        name
        for name in splittable_layers(model)
        if list(model.get_submodule(name).parameters()) and torch.Size(layer_shape(model, name)).numel() <= 4096
    ]
    quiet = copy.copy(lab)
    quiet.say = lambda sentence: None
    features, impressions = {}, {}

    def unlearn(choice: dict, on_step: Callable) -> tuple:
        key = choice["layer"], default_recipe(choice["method"])
        if key not in impressions:
            impressions[key] = quiet.impressions(key[0], recipe=key[1])
        return ZeroShotUnlearner(model, impressions[key], **choice).unlearn(on_step)

    @torch.no_grad()
    def answers(of, layer: str) -> torch.Tensor:
        if layer not in features:
            body, _ = split(model, layer)
            device = next(model.parameters()).device
            parts = [body(data.normalise(part.to(device))).clone() for part in data.test.images.split(500)]
            features[layer] = parts
        _, tail = split(of, layer)
        return torch.cat([tail(part) for part in features[layer]]).cpu()

    def judge(unlearned, choice: dict) -> dict:
        forget, layer = choice["forget"], choice["layer"]
        whole = answers(model, layer)
        masked = whole.clone()
        masked[:, forget] = -torch.inf
        logits = {"original": whole, "masked": masked, "unlearned": answers(unlearned, layer)}
        blocks = {
            name: score(confusion_of(z.argmax(1), data.test.labels, data.num_classes), forget)
            for name, z in logits.items()
        }
        golden = with_classes(choice).finished_golden()
        return blocks | {"golden": golden and score(golden.metrics["golden"]["confusion"], forget)}

    def with_classes(choice: dict) -> Experiment:
        mine = copy.copy(quiet)
        mine.forget, mine.force = choice["forget"], False
        return mine

    def golden_seconds(choice: dict) -> float | None:
        golden = with_classes(choice).finished_golden()
        return golden and golden.metrics["seconds"]["golden"]

    def save(choice: dict, epochs: int) -> str:
        numbers = {name: choice[name] for name in ("lr", "forget_weight", "layer", "method")}
        code = "panel" if choice["method"] == "mask" else f"panel-lr{choice['lr']:.0e}-e{epochs}"
        return with_classes(choice).unlearn(**numbers, epochs=epochs, version=code).name

    pixels = make_impressions(model, "input", samples=1, steps=30).x
    return UnlearningPanel(
        lab.title,
        data.classes,
        layers or [find_head(model)],
        list(lab.forget),
        unlearn=unlearn,
        judge=judge,
        save=save,
        golden_seconds=golden_seconds,
        thumbnails=[_png(x) for x in pixels],
    )


def _png(x: torch.Tensor) -> bytes:
    """One picture [C, H, W] of any range as PNG."""
    x = ((x - x.min()) / (x.max() - x.min() + 1e-9) * 255).to(torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(x.expand(3, -1, -1).permute(1, 2, 0).cpu().numpy()).save(buffer, "PNG")
    return buffer.getvalue()
