"""The unlearning panel: unlearning with a hand on a slider.

A panel is handed the slow functions; its state and its callbacks work without a front end. The work runs in a thread,
so that Stop is heard while it goes on; `wait()` waits for it.
"""

import copy
import html
import threading
import time
from collections.abc import Callable

import ipywidgets as w
import torch

from unlearn_lib.common import check_forget
from unlearn_lib.evaluation import confusion_of, score
from unlearn_lib.experiment import Experiment, default_recipe
from unlearn_lib.figures import plot_per_class
from unlearn_lib.networks import split
from unlearn_lib.panels.base import NAMED, WIDE, large, png, row_of, trainable_layers
from unlearn_lib.zeroshot import METHODS, PUBLISHED, ZeroShotUnlearner, make_impressions

BELOW = "What stands below is still the run before."
START = {"lr": 1e-3, "epochs": 20, "forget_weight": 1.0}


class Stopped(Exception):
    """Raised inside `unlearn` when Stop was pressed before there was a result."""


class UnlearningPanel:
    """Controls, a picture of the result, and its numbers in words.

    unlearn(choice, on_step) -> (model, history, seconds); judge(model, choice) -> (blocks by name, golden's seconds or
    None); save(choice, epochs) -> where it was saved; thumbnails: PNG by class. A choice holds forget (indices), lr,
    epochs, forget_weight, layer and method. on_step gets {"epoch"} (0: impressions are being made) and returns False
    where Stop was pressed.
    """

    def __init__(
        self,
        title: str,
        classes: list[str],
        layers: list[str],
        forget: list[int],
        *,
        unlearn: Callable[[dict, Callable], tuple],
        judge: Callable[[object, dict], tuple[dict, float | None]],
        save: Callable[[dict, int], str],
        thumbnails: list[bytes] | None = None,
        font: int = 14,
    ):
        self.title, self.classes, self.start_forget = title, classes, forget
        self._unlearn, self._judge, self._save = unlearn, judge, save
        self.model, self.history, self.blocks, self.choice = None, None, None, None
        self._stop, self._thread = threading.Event(), None

        wide = f"{max(5, 0.75 * max(map(len, classes)) + 3):.0f}em"
        self.toggles = [
            w.ToggleButton(description=name, layout=w.Layout(width=wide)).add_class("unlearn-class") for name in classes
        ]
        pictures = [[w.Image(value=png, width=48, height=48)] for png in thumbnails or []] or [[] for _ in classes]
        column = w.Layout(align_items="center")
        cells = [w.VBox([*p, toggle], layout=column) for p, toggle in zip(pictures, self.toggles, strict=True)]
        own = {"style": NAMED, "layout": WIDE}
        self.range = w.IntRangeSlider(max=len(classes) - 1, description="forget from, to", **own)
        self.lr = w.FloatLogSlider(min=-5, max=0, step=0.1, description="learning rate", **own)
        self.epochs = w.IntSlider(min=1, max=200, description="epochs", **own)
        self.forget_weight = w.FloatSlider(min=0, max=5, step=0.1, description="forget weight", **own)
        self.layer = w.Dropdown(options=layers, description="layer", **own)
        self.method = w.Dropdown(options=METHODS, description="method", **own)
        fits = {"layout": w.Layout(width="auto", min_width="6em", flex="0 0 auto")}
        self.run = w.Button(description="Run", button_style="primary", icon="play", **fits)
        self.stop = w.Button(description="Stop", disabled=True, icon="stop", **fits)
        self.reset = w.Button(description="Reset", icon="undo", **fits)
        self.save = w.Button(description="Save model", disabled=True, icon="save", **fits)
        self.progress = w.IntProgress(layout=w.Layout(width="360px"))
        self.words, self.status, self.numbers = w.HTML(), w.HTML(), w.HTML()
        self.picture = w.Image(format="png", layout=w.Layout(max_width="100%", display="none"))
        for control in (self.range, self.lr, self.epochs, self.forget_weight):
            control.continuous_update = False
        names = "range lr epochs forget_weight layer method run stop reset save words status numbers picture"
        for name in names.split():
            getattr(self, name).add_class(f"unlearn-{name}")

        self.run.on_click(lambda button: self.start())
        self.stop.on_click(lambda button: self._stop.set())
        self.reset.on_click(lambda button: self.set_back())
        self.save.on_click(lambda button: self.keep())
        self.range.observe(self._range_moved, "value")
        self.method.observe(self._method_chosen, "value")
        for control in (*self.toggles, self.lr, self.epochs, self.forget_weight, self.layer, self.method):
            control.observe(lambda change: self._changed(), "value")
        sliders = [self.range, self.lr, self.epochs, self.forget_weight, self.layer, self.method]
        columns = [w.VBox(sliders[:3]), w.VBox(sliders[3:])]
        buttons = [self.run, self.stop, self.reset, self.save, self.progress]
        heading = w.HTML(f"<b>{html.escape(title)}</b>: choose the classes to forget, then press Run")
        below = [row_of(buttons), self.status, self.numbers, self.picture]
        rows = [large(font), heading, row_of(cells), self.words, row_of(columns), *below]
        self.widget = w.VBox(rows).add_class(f"unlearn-panel-{font}")
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
            blocks, golden_seconds = self._judge(model, choice)
            self.model, self.history, self.blocks, self.choice = model, history, blocks, choice
            self.picture.value = png(plot_per_class(blocks, self.classes, choice["forget"], self.title))
            self.picture.layout.display = ""
            self.numbers.value = self._in_words(seconds, golden_seconds)
            stopped = "Stopped; this is what it had reached" if self._stop.is_set() else "Done"
            changed = "" if self.chosen() == choice else f" Changed since. {BELOW}"
            self._tell(f"{stopped}, {time.perf_counter() - begin:.1f} s with the evaluation.{changed}")
        except Stopped:
            self._tell(f"Stopped before there was a result. {BELOW if self.choice else ''}")
        except (ValueError, OSError, RuntimeError) as error:
            self._tell(f"Not run. {error}. {BELOW if self.choice else ''}")
        finally:
            self.run.disabled, self.stop.disabled, self.save.disabled = False, True, self.choice is None

    def _step(self, state: dict) -> bool:
        if state["epoch"] == 0 and "impressions" not in self.status.value:
            self._tell("Running: making impressions ...")
        self.progress.value = state["epoch"]
        return not self._stop.is_set()

    def keep(self) -> None:
        """Save the last result in a run folder and say where."""
        try:
            epochs = len(self.history["forget_loss"]) or self.choice["epochs"]
            self._tell(f"Saved in {self._save(self.choice, epochs)}.")
        except (ValueError, OSError) as error:
            self._tell(f"Not saved. {error}.")

    def set_back(self) -> None:
        """All controls as at the start, no result."""
        self.model, self.history, self.blocks, self.choice = None, None, None, None
        self.range.value = min(self.start_forget), max(self.start_forget)
        for c, toggle in enumerate(self.toggles):
            toggle.value = c in self.start_forget
        self.method.value, self.layer.value = METHODS[0], self.layer.options[-1]
        for name, value in START.items():
            getattr(self, name).value = value
        self.picture.layout.display, self.numbers.value, self.save.disabled = "none", "", True
        self.progress.value = 0
        self._changed()
        self._tell("Ready. Choose and press Run.")

    def _range_moved(self, change: dict) -> None:
        low, high = change["new"]
        for c, toggle in enumerate(self.toggles):
            toggle.value = low <= c <= high

    def _method_chosen(self, change: dict) -> None:
        if change["new"] == "published":
            self.lr.value, self.layer.value = PUBLISHED["lr"], self.layer.options[-1]

    def _changed(self) -> None:
        forget = [toggle.description for toggle in self.toggles if toggle.value]
        for toggle in self.toggles:
            toggle.icon = "check" if toggle.value else ""
        self.words.value = f"Forget {len(forget)} of {len(self.classes)}: {html.escape(', '.join(forget) or 'none')}."
        if self.choice is not None and not self.run.disabled:
            self._tell("Done." if self.chosen() == self.choice else f"Changed. {BELOW} Press Run.")

    def _tell(self, sentence: str) -> None:
        self.status.value = f"<b>{html.escape(sentence.strip())}</b>"

    def _in_words(self, seconds: float, golden_seconds: float | None) -> str:
        def percent(name: str, part: str) -> str:
            return f"{100 * self.blocks[name][f'{part}_accuracy']:.1f} %"

        words = (
            f"Forget accuracy {percent('original', 'forget')} → {percent('unlearned', 'forget')}. "
            f"Retain accuracy {percent('original', 'retain')} → {percent('unlearned', 'retain')} "
            f"(masked {percent('masked', 'retain')}). Unlearning took {seconds:.2f} s"
        )
        if golden_seconds is None:
            return f"{words}; golden has not been trained for these classes."
        return f"{words}, golden {golden_seconds:.1f} s: {golden_seconds / max(seconds, 1e-3):.0f} times."


def unlearning_panel(lab: Experiment, font: int = 14) -> UnlearningPanel:
    """The panel for an experiment's original model, whose body is run over the test pictures once a layer.

    font: size of the letters in pixels; 18 is readable on a projector.
    """
    original = lab.train()
    model, data = lab.load(original), lab.dataset
    quiet = copy.copy(lab)
    quiet.say = lambda sentence: None
    features, originals, impressions = {}, {}, {}

    def unlearn(choice: dict, on_step: Callable) -> tuple:
        def watch(step: int, x: torch.Tensor) -> None:
            if not on_step({"epoch": 0}):
                raise Stopped

        key = choice["layer"], default_recipe(choice["method"])
        if key not in impressions:
            impressions[key] = quiet.impressions(key[0], recipe=key[1], on_step=watch)
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

    def judge(unlearned, choice: dict) -> tuple[dict, float | None]:
        forget, layer = choice["forget"], choice["layer"]
        if layer not in originals:
            originals[layer] = answers(model, layer)
        whole = originals[layer]
        masked = whole.clone()
        masked[:, forget] = -torch.inf
        logits = {"original": whole, "masked": masked, "unlearned": answers(unlearned, layer)}
        blocks = {
            name: score(confusion_of(z.argmax(1), data.test.labels, data.num_classes), forget)
            for name, z in logits.items()
        }
        golden = with_classes(choice).finished_golden()
        if golden is None:
            return blocks | {"golden": None}, None
        metrics = golden.metrics
        return blocks | {"golden": score(metrics["golden"]["confusion"], forget)}, metrics["seconds"]["golden"]

    def with_classes(choice: dict) -> Experiment:
        mine = copy.copy(quiet)
        mine.forget, mine.force = choice["forget"], False
        return mine

    def save(choice: dict, epochs: int) -> str:
        numbers = {name: choice[name] for name in ("lr", "forget_weight", "layer", "method")}
        code = f"panel-{choice['layer']}"
        if choice["method"] != "mask":
            code += f"-lr{choice['lr']:.4g}-w{choice['forget_weight']:g}-e{epochs}"
        return with_classes(choice).unlearn(**numbers, epochs=epochs, version=code).name

    pixels = make_impressions(model, "input", samples=1, steps=30).x
    return UnlearningPanel(
        lab.title,
        data.classes,
        trainable_layers(model),
        list(lab.forget),
        unlearn=unlearn,
        judge=judge,
        save=save,
        thumbnails=[png(x) for x in pixels],
        font=font,
    )
