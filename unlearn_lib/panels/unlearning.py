"""The unlearning panel: unlearning with a hand on a slider.

A panel is handed the slow functions; its state and its callbacks work without a front end. The work runs in a thread,
so that Stop is heard while it goes on; `wait()` waits for it.
"""

import threading
import time
from collections.abc import Callable

import ipywidgets as w

from unlearn_lib.common import check_forget
from unlearn_lib.experiment import Experiment
from unlearn_lib.figures import MANY, plot_histograms, plot_per_class
from unlearn_lib.panels.base import (
    bold,
    chart,
    frame_panel,
    mark,
    show,
    show_errors,
    side_by_side,
    trainable_layers,
    two_columns,
)
from unlearn_lib.panels.controls import Controls
from unlearn_lib.panels.live import LiveNetwork, Stopped
from unlearn_lib.zeroshot import deep_layer

CHART = (5.2, 3.0)  # inches: shown in half a window, its letters stay as large as the page's
STALE = "The controls have moved since the run that is shown."


class UnlearningPanel:
    """Controls, and beside them a picture of the result and its numbers.

    unlearn(choice, on_step) -> (model, history, seconds); judge(model, choice) -> (blocks by name, golden's seconds or
    None); save(choice, epochs reached) -> where it was saved; golden(choice, on_step) trains the golden model, where
    that can be done; thumbnails: PNG by class; layer_of: the layers that methods were made for; seed: of all runs. A
    choice holds forget (indices), layer, method and every number of `unlearning_numbers`, so that what is saved is what
    was shown. on_step gets {"epoch", "epochs"}, with "doing" where that is not unlearning, and returns False where Stop
    was pressed.
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
        golden: Callable[[dict, Callable], object] | None = None,
        thumbnails: list[bytes] | None = None,
        layer_of: dict[str, str] | None = None,
        seed: int = 0,
        font: int = 14,
    ):
        self.title, self.classes = title, classes
        self._unlearn, self._judge, self._save, self._golden = unlearn, judge, save, golden
        self.model, self.history, self.blocks, self.choice = None, None, None, None
        self._event, self._seconds, self._asked, self._reached = "Ready. Choose and press Run.", 0.0, 0, 0
        self._stop, self._telling, self._thread = threading.Event(), threading.Lock(), None
        self.controls = Controls(classes, layers, forget, thumbnails, seed, layer_of or {"published": layers[-1]})
        self.toggles, self.summary = self.controls.toggles, self.controls.summary
        for name, control in self.controls.named.items():
            setattr(self, name, control)
        buttons = self._buttons()
        mark(self, "unlearn", "run stop reset save golden progress status numbers picture")
        self.controls.on_change = self._tell
        right = [self.status, self.picture, self.numbers]
        rows = [self.controls.classes, side_by_side([*buttons, self.progress]), two_columns(self.controls.rows, right)]
        self.widget = frame_panel(title, "choose the classes to forget, then press Run", rows, font)
        self.set_back()

    def _buttons(self) -> list[w.Button]:
        fits = {"layout": w.Layout(width="auto", min_width="5em", flex="0 0 auto")}
        self.run = w.Button(description="Run", button_style="primary", icon="play", **fits)
        self.stop = w.Button(description="Stop", disabled=True, icon="stop", **fits)
        self.reset = w.Button(description="Reset", icon="undo", **fits)
        self.save = w.Button(description="Save model", icon="save", **fits)
        self.golden = w.Button(description="Train golden", icon="star", **fits)
        self.golden.tooltip = "Train the same network without these classes, to compare with"
        self.golden.layout.display = "" if self._golden else "none"
        self.progress = w.IntProgress(layout=w.Layout(flex="1 1 8em", max_width="30em"))
        self.status, self.numbers, self.picture = w.HTML(), w.HTML(), chart()
        self.run.on_click(lambda button: self.start())
        self.stop.on_click(lambda button: self._stop.set())
        self.reset.on_click(lambda button: self.set_back())
        self.save.on_click(lambda button: self._begin(self._keep, "Saving ...", "Not saved"))
        self.golden.on_click(lambda button: self._begin(self._train_golden, "Golden ...", "Golden not trained"))
        return [self.run, self.stop, self.reset, self.save, self.golden]

    def chosen(self) -> dict:
        """What the controls say now, with all that follows from it."""
        return self.controls.chosen()

    def start(self) -> None:
        """Unlearn what the controls say, in a thread; a choice that cannot be run ends in a sentence."""
        choice = self.chosen()
        self._begin(lambda: self._run(choice), "Running ...", "Not run")

    def wait(self, seconds: float = 60) -> None:
        """Wait for the thread at work to end."""
        self._thread.join(seconds)

    def _begin(self, work: Callable[[], None], event: str, failure: str) -> None:
        """Do the work in a thread, unless one is at work; whatever happens ends in a sentence and frees the buttons."""

        def guarded() -> None:
            with show_errors(self._tell, failure):
                work()
            self._free(True)

        if self._thread is None or not self._thread.is_alive():
            self._stop.clear()
            self._free(False)
            self.progress.value = 0
            self._tell(event)
            self._thread = threading.Thread(target=guarded, daemon=True)
            self._thread.start()

    def _free(self, idle: bool) -> None:
        self.run.disabled, self.reset.disabled, self.stop.disabled = not idle, not idle, idle
        self.save.disabled = not idle or self.choice is None
        self.golden.disabled = self.save.disabled or self.blocks.get("golden") is not None

    def _run(self, choice: dict) -> None:
        begin = time.perf_counter()
        check_forget(choice["forget"], len(self.classes))
        self._asked = 0
        try:
            model, history, seconds = self._unlearn(choice, self._step)
        except Stopped:
            self._tell("Stopped before there was a result.")
            return
        self._tell("Running: looking at the test pictures ...")
        self._show(model, history, choice, seconds)
        reached = len(history["forget_loss"])
        self._reached = choice["epochs"] if reached >= self._asked else reached
        self.progress.value = self.progress.max
        stopped = "Stopped; this is what it had reached" if self._stop.is_set() else "Done"
        self._tell(f"{stopped}, {time.perf_counter() - begin:.1f} s with the evaluation.")

    def _show(self, model: object, history: dict, choice: dict, seconds: float) -> None:
        """Judge a model and put it in the place of the one before, all of it or nothing."""
        blocks, golden_seconds = self._judge(model, choice)
        if len(self.classes) > MANY:
            figure = plot_histograms(blocks, choice["forget"], self.title)
        else:
            figure = plot_per_class(blocks, self.classes, choice["forget"], self.title, size=CHART)
        numbers = _in_words(blocks, seconds, golden_seconds)
        show(self.picture, figure)
        self.numbers.value = numbers
        self.model, self.history, self.blocks, self.choice = model, history, blocks, choice
        self._seconds = seconds

    def _step(self, state: dict) -> bool:
        doing = state.get("doing", "Running: unlearning")
        if self._event != f"{doing} ...":
            self._tell(f"{doing} ...")
        if "doing" not in state:
            self._asked = state["epochs"]
        self.progress.max, self.progress.value = state["epochs"], state["epoch"]
        return not self._stop.is_set()

    def _keep(self) -> None:
        self._tell(f"Saved in {self._save(self.choice, self._reached)}.")

    def _train_golden(self) -> None:
        try:
            self._golden(self.choice, self._step)
        except Stopped:
            self._tell("Stopped; golden goes on from there the next time.")
            return
        self._show(self.model, self.history, self.choice, self._seconds)
        self._tell("Golden is trained and stands beside the others.")

    def set_back(self) -> None:
        """All controls as at the start, no result."""
        self.model, self.history, self.blocks, self.choice = None, None, None, None
        self.controls.set_back()
        self.picture.layout.display, self.numbers.value, self.progress.value = "none", "", 0
        self._free(True)
        self._tell("Ready. Choose and press Run.")

    def _tell(self, event: str | None = None) -> None:
        """What happened last, and whether what is shown is of other choices than the controls'."""
        with self._telling:  # a control may move while the thread has something to say
            self._event = event or self._event
            stale = self.choice is not None and self.chosen() != self.choice
            self.status.value = bold(f"{self._event} {STALE if stale else ''}")


def _in_words(blocks: dict, seconds: float, golden_seconds: float | None) -> str:
    def percent(name: str, part: str) -> str:
        share = blocks[name][f"{part}_accuracy"]
        return "no test pictures" if share is None else f"{100 * share:.1f} %"

    sentence = (
        f"Forget accuracy {percent('original', 'forget')} → {percent('unlearned', 'forget')}. "
        f"Retain accuracy {percent('original', 'retain')} → {percent('unlearned', 'retain')} "
        f"(masked {percent('masked', 'retain')}). Unlearning took {seconds:.2f} s"
    )
    if golden_seconds is None:
        return f"{sentence}; golden has not been trained for these classes."
    times = golden_seconds / max(seconds, 1e-3)
    return f"{sentence}, golden {golden_seconds:.1f} s: {times:{'.0f' if times >= 10 else '.2g'}} times."


def unlearning_panel(experiment: Experiment, font: int = 14) -> UnlearningPanel:
    """The panel for an experiment's original model, which is trained where that has not been done.

    font: size of the letters in pixels; 18 is readable on a projector.
    """
    live = LiveNetwork(experiment, experiment.train())
    layers, deep = trainable_layers(live.model), deep_layer(live.model)
    return UnlearningPanel(
        experiment.title,
        experiment.dataset.classes,
        layers if deep in layers else [deep, *layers],
        list(experiment.forget_classes),
        unlearn=live.unlearn,
        judge=live.judge,
        save=live.save,
        golden=live.train_golden,
        thumbnails=live.thumbnails(),
        layer_of={"published": layers[-1], "deep": deep},
        seed=experiment.seed,
        font=font,
    )
