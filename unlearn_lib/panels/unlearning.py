"""The unlearning panel: choose classes and numbers, press Run, see what the network still recognises.

A panel gets its slow functions as arguments; its state and its callbacks work without a front end. Work runs in a
thread, so that Stop is heard meanwhile; `wait()` waits for it.
"""

import functools
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import ipywidgets as w
import torch

from unlearn_lib.common import UserError, redirect_progress
from unlearn_lib.data import Data
from unlearn_lib.evaluation import SMALL, Judge
from unlearn_lib.experiment import Experiment, Stopped, Unlearned
from unlearn_lib.figures import MANY, plot_histograms, plot_per_class
from unlearn_lib.networks import Run
from unlearn_lib.panels.base import (
    frame_panel,
    hide,
    hide_progress,
    make_button,
    make_chart,
    mark,
    percent,
    picture_png,
    say,
    show,
    show_errors,
    side_by_side,
    trainable_layers,
    two_columns,
)
from unlearn_lib.panels.controls import Controls
from unlearn_lib.zeroshot import METHODS, Unlearning, make_impressions

CHART = (5.2, 3.0)  # inches: shown in half a window, its letters stay as large as the page's
JUDGES = 8  # layers whose activations are held at a time
OnStep = Callable[[dict], bool]
Choice = tuple[Unlearning, list[int]]


@dataclass(eq=False)
class UnlearningPanel:
    """The controls of an unlearning, and next to them the result as a picture and in numbers.

    Args:
        compute: (unlearning, forget classes, on_step) -> `Unlearned`, golden's figures in its metrics where golden is
            trained. on_step gets the states of `Experiment.compute`, and returns False once Stop is pressed.
        keep: (unlearned, forget classes) -> where it is saved.
        train_golden: forget classes -> golden's run.
        font: size of the letters in pixels.

    Attributes:
        unlearned, choice: the result that is shown, and the unlearning and forget classes that it was made from.
    """

    title: str
    controls: Controls
    compute: Callable[[Unlearning, list[int], OnStep], Unlearned]
    keep: Callable[[Unlearned, list[int]], object]
    train_golden: Callable[[list[int]], Run]
    font: int = 14

    def __post_init__(self):
        self._stop = threading.Event()
        self._thread = threading.Thread()
        self.run = make_button("Run", "play", self.start, button_style="primary")
        self.stop = make_button("Stop", "stop", self._stop.set)
        self.reset = make_button("Reset", "undo", self.set_back)
        self.save = make_button("Save model", "save", self.start_saving)
        tooltip = "Train the same network without these classes, to compare with"
        self.golden = make_button("Train golden", "star", self.start_golden, tooltip=tooltip)
        self.progress = w.IntProgress(layout=w.Layout(flex="1 1 8em", max_width="30em"))
        self.event = w.HTML()
        self.stale = w.HTML()
        self.status = w.VBox([self.event, self.stale])
        self.picture = make_chart()
        self.numbers = w.HTML()
        mark(self, "unlearn")
        buttons = side_by_side([self.run, self.stop, self.reset, self.save, self.golden, self.progress])
        columns = two_columns(self.controls.rows, [self.status, self.picture, self.numbers])
        what = "choose the classes to forget, then press Run"
        self.widget = frame_panel(self.title, what, [self.controls.class_box, buttons, columns], self.font)
        self.set_back()
        self.controls.on_change = self._compare_choices

    @property
    def blocks(self) -> dict[str, dict | None]:
        """The evaluated models side by side: original, masked, unlearned and golden; None where there is none."""
        return self.unlearned.blocks

    def set_back(self) -> None:
        """Set all controls as they were at the start, and show no result."""
        self.unlearned = None
        self.choice = None
        self.controls.set_back()
        hide(self.picture)
        self.numbers.value = ""
        self.stale.value = ""
        self.progress.value = 0
        self._set_buttons(is_idle=True)
        say(self.event, "Ready. Choose and press Run.")

    def start(self) -> None:
        """Unlearn what the controls say, in a thread."""
        choice = self.controls.chosen()

        def work() -> None:
            begin = time.perf_counter()
            unlearned = self.compute(*choice, self._follow_steps)
            self._show(unlearned, choice)
            done = "Done" if unlearned.is_complete else "Stopped; this is what it had reached"
            say(self.event, f"{done}, {time.perf_counter() - begin:.1f} s with the evaluation.")

        self._begin(work, "Running: looking at the test pictures ...", "Not run", "Stopped before there was a result.")

    def start_saving(self) -> None:
        """Save the network that is shown, in a thread."""

        def work() -> None:
            say(self.event, f"Saved in {self.keep(self.unlearned, self.choice[1])}.")

        self._begin(work, "Saving ...", "Not saved")

    def start_golden(self) -> None:
        """Train golden for the classes of the result that is shown, in a thread."""

        def work() -> None:
            with redirect_progress(self._follow_training):
                golden = self.train_golden(self.choice[1])
            add_golden(self.unlearned, golden)
            self._show(self.unlearned, self.choice)
            say(self.event, "Golden is trained; the picture and the numbers show it too.")

        self._begin(work, "Golden ...", "Golden not trained", "Stopped; golden goes on from there the next time.")

    def wait(self, seconds: float = 60) -> None:
        """Wait until the work that was started ends."""
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _begin(self, work: Callable[[], None], event: str, failure: str, stopped: str = "") -> None:
        """Do the work in a thread, unless one works already; every end is a sentence and frees the buttons."""

        def work_safely() -> None:
            with show_errors(self.event, failure), hide_progress():
                try:
                    work()
                except Stopped:
                    say(self.event, stopped)
            self._set_buttons(is_idle=True)

        if not self._thread.is_alive():
            self._stop.clear()
            self._set_buttons(is_idle=False)
            self.progress.value = 0
            say(self.event, event)
            self._thread = threading.Thread(target=work_safely, daemon=True)
            self._thread.start()

    def _set_buttons(self, is_idle: bool) -> None:
        self.run.disabled = not is_idle
        self.reset.disabled = not is_idle
        self.stop.disabled = is_idle
        self.save.disabled = not is_idle or self.unlearned is None
        self.golden.disabled = self.save.disabled or self.blocks["golden"] is not None

    def _follow_steps(self, state: dict) -> bool:
        if state["stage"] == "impressions":  # in how many chunks is not known: the bar starts again at its end
            return self._show_progress(f"Running: making impressions at {state['layer']}", state["step"] % 101, 100)
        return self._show_progress("Running: unlearning", state["epoch"], state["epochs"])

    def _follow_training(self, description: str, done: int, total: int | None) -> None:
        if not self._show_progress(f"Golden: {description}", done, total or 100):
            raise Stopped

    def _show_progress(self, doing: str, done: int, total: int) -> bool:
        """Show how far the work is; return whether it should go on."""
        say(self.event, f"{doing} ...")
        self.progress.max = total
        self.progress.value = done
        return not self._stop.is_set()

    def _show(self, unlearned: Unlearned, choice: Choice) -> None:
        """Show a result in place of the one before; an error leaves that one as it was."""
        numbers = describe_result(unlearned)
        blocks = unlearned.blocks
        forget = choice[1]
        if len(self.controls.classes) > MANY:
            figure = plot_histograms(blocks, forget, self.title)
        else:
            figure = plot_per_class(blocks, self.controls.classes, forget, self.title, size=CHART)
        show(self.picture, figure)
        self.numbers.value = numbers
        self.unlearned = unlearned
        self.choice = choice
        self._compare_choices()

    def _compare_choices(self) -> None:
        """Say whether the controls have moved since the result that is shown."""
        is_stale = self.choice not in (None, self.controls.chosen())
        say(self.stale, "The controls have moved since the run that is shown." if is_stale else "")


def describe_result(unlearned: Unlearned) -> str:
    """Return a result in words: accuracies before and after, and what it cost."""
    metrics = unlearned.metrics

    def accuracy(name: str, part: str) -> str:
        return percent(metrics[name][f"{part}_accuracy"])

    sentences = [
        f"Forget accuracy {accuracy('original', 'forget')} → {accuracy('unlearned', 'forget')}.",
        f"Retain accuracy {accuracy('original', 'retain')} → {accuracy('unlearned', 'retain')} "
        f"(masked {accuracy('masked', 'retain')}).",
    ]
    if not unlearned.is_complete:
        reached = len(unlearned.history["forget_loss"])
        sentences.append(f"Stopped after {reached} epochs.")
    seconds = metrics["seconds"]
    took = seconds["impressions"] + seconds["unlearn"]
    cost = f"Impressions and unlearning took {took:.2f} s"
    if seconds["golden"] is None:
        sentences.append(f"{cost}; golden has not been trained for these classes.")
    else:
        times = seconds["golden"] / max(took, 1e-3)
        sentences.append(f"{cost}, golden {seconds['golden']:.1f} s: {times:{'.0f' if times >= 10 else '.2g'}} times.")
    return " ".join(sentences)


def add_golden(unlearned: Unlearned, golden: Run) -> None:
    """Put golden's figures into the metrics of an unlearning."""
    metrics = golden.metrics
    unlearned.metrics["golden"] = metrics["golden"]
    unlearned.metrics["seconds"]["golden"] = metrics["seconds"]["golden"]


def name_version(unlearning: Unlearning) -> str:
    """Return the part of a saved run's name that says what the panel's controls were."""
    code = f"panel-{unlearning.layer}"
    if unlearning.rules.needs_impressions:
        rate = "auto" if unlearning.lr is None else f"{unlearning.lr:.4g}"
        code += f"-lr{rate}-w{unlearning.forget_weight:g}-e{unlearning.epochs}"
    return code


def find_own_layers(model: torch.nn.Module) -> dict[str, str]:
    """Return the layers of the methods that have one of their own in this network."""
    found = {}
    for name, method in METHODS.items():
        with suppress(UserError):  # the method does not suit the network
            if method.find_layer is not None:
                found[name] = method.find_layer(model)
    return found


def draw_thumbnails(model: torch.nn.Module, data: Data) -> list[bytes] | None:
    """Return an impression of each class in pixels, as PNG; None for more than MANY classes."""
    if data.num_classes > MANY:
        return None
    steps = 100 if torch.Size(data.shape).numel() <= SMALL else 30
    made = make_impressions(model, "input", samples=1, steps=steps, recipe="calibrated")  # the clearest recipe
    return [picture_png(x) for x in made.x]


def unlearning_panel(experiment: Experiment, font: int = 14) -> UnlearningPanel:
    """Return the panel for an experiment's original model; the model is trained first if necessary.

    font: size of the letters in pixels; 18 is readable on a projector.

    Example:
        >>> unlearning_panel(experiment).widget
    """
    original = experiment.train()
    fingerprint = original.fingerprint()
    model = experiment.load(original)
    data = experiment.dataset
    layers = trainable_layers(model)
    layer_of = find_own_layers(model)

    @functools.lru_cache(JUDGES)
    def judge_at(layer: str) -> Judge:
        return Judge.of_original(original, model, data, layer)

    def variant(forget: list[int]) -> Experiment:
        if original.fingerprint() != fingerprint:  # of the file as it is now
            raise UserError(
                f"run: {original.name} was trained again since the panel was made; run the panel's cell again"
            )
        return experiment.variant(forget=forget, force=False)

    def compute(unlearning: Unlearning, forget: list[int], on_step: OnStep) -> Unlearned:
        chosen = variant(forget)
        chosen.checked_forget  # noqa: B018, raises for none and for all
        unlearned = chosen.compute(unlearning, on_step, judge_at(unlearning.layer))
        if golden := chosen.finished_golden():
            add_golden(unlearned, golden)
        return unlearned

    def keep(unlearned: Unlearned, forget: list[int]) -> object:
        version = "-".join(filter(None, (experiment.version, name_version(unlearned.unlearning))))
        return variant(forget).keep(unlearned, version).path

    controls = Controls(
        data.classes,
        [*dict.fromkeys(layer for layer in layer_of.values() if layer not in layers), *layers],
        experiment.forget_classes,
        thumbnails=draw_thumbnails(model, data),
        layer_of=layer_of,
        seed=experiment.seed,
    )
    return UnlearningPanel(
        experiment.title, controls, compute, keep, train_golden=lambda forget: variant(forget).golden(), font=font
    )
