"""The network that an unlearning panel drives: what is shown live, and the same once more as a run that is kept."""

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from unlearn_lib.common import UserError, redirect_progress
from unlearn_lib.data import iterate_batches
from unlearn_lib.evaluation import SMALL, confusion_matrix, score
from unlearn_lib.experiment import Experiment
from unlearn_lib.figures import MANY
from unlearn_lib.networks import Run, split
from unlearn_lib.panels.base import png
from unlearn_lib.zeroshot import ZeroShotUnlearner, default_recipe, make_impressions, mask


class Stopped(Exception):
    """Raised inside the slow functions when Stop was pressed before there was a result."""


class LiveNetwork:
    """An experiment's original; impressions, and what enters a layer for the test pictures, are made once a layer.

    A choice holds forget, layer, method and all numbers of unlearning; both `unlearn` and `save` take it as it is.
    All raise UserError where the original has been made anew since: what is kept would be another network's.
    """

    def __init__(self, experiment: Experiment, original: Run):
        self.experiment, self.data, self.model = experiment, experiment.dataset, experiment.load(original)
        self._file, self._impressions, self._features, self._logits = original.fingerprint(), {}, {}, {}
        self._variants: dict[tuple, Experiment] = {}

    def unlearn(self, choice: dict, on_step: Callable) -> tuple[nn.Module, dict, float]:
        """Unlearn the choice; raises Stopped where `on_step` returns False before there is a result."""
        layer, method = choice["layer"], choice["method"]
        if method == "mask":
            begin, masked = time.perf_counter(), mask(self.model, choice["forget"])
            return masked, {"forget_loss": [], "retain_loss": []}, time.perf_counter() - begin

        def watch(step: int, x: torch.Tensor) -> None:  # the bar goes round: in how many chunks is not known here
            if not on_step({"doing": f"Running: making impressions at {layer}", "epoch": step % 101, "epochs": 100}):
                raise Stopped

        key = layer, default_recipe(method)
        if key not in self._impressions:
            self._impressions[key] = self._variant(choice["forget"]).impressions(layer, recipe=key[1], on_step=watch)
        with redirect_progress(lambda *bar: None):
            return ZeroShotUnlearner(self.model, self._impressions[key], **choice, seed=self.experiment.seed).unlearn(
                on_step
            )

    def judge(self, unlearned: nn.Module, choice: dict) -> tuple[dict, float | None]:
        """`score` of original, masked, unlearned and, where it is trained, golden; and the seconds golden took."""
        forget, layer = choice["forget"], choice["layer"]
        if layer not in self._logits:
            self._logits[layer] = self._answer(self.model, layer)
        original = self._logits[layer]
        masked = original.clone()
        masked[:, forget] = -torch.inf
        logits = {"original": original, "masked": masked, "unlearned": self._answer(unlearned, layer)}
        good = self.data.test.readable
        labels, k = self.data.test.labels[good], self.data.num_classes
        blocks = {name: score(confusion_matrix(z[good].argmax(1), labels, k), forget) for name, z in logits.items()}
        golden = self._variant(forget).finished_golden()
        if golden is None:
            return blocks | {"golden": None}, None
        metrics = golden.metrics
        return blocks | {"golden": score(metrics["golden"]["confusion"], forget)}, metrics["seconds"]["golden"]

    def save(self, choice: dict, epochs: int) -> str:
        """Keep the choice's model as a run of the experiment; returns its folder.

        epochs: those that were reached. Raises UserError where it was stopped before: the learning rate falls over all
        the epochs asked for, so that fewer give another model (but for `published`).
        """
        if epochs < choice["epochs"] and choice["method"] not in ("mask", "published"):
            raise UserError(
                f"epochs: stopped after {epochs}; a run that went to its end can be saved: press Run, or ask for fewer"
            )
        code = f"panel-{choice['layer']}"
        if choice["method"] != "mask":
            rate = "auto" if choice["lr"] is None else f"{choice['lr']:.4g}"
            code += f"-lr{rate}-w{choice['forget_weight']:g}-e{epochs}"
        version = "-".join(filter(None, (self.experiment.version, code)))
        numbers = {name: value for name, value in choice.items() if name != "forget"} | {"epochs": epochs}
        with redirect_progress(lambda *bar: None):
            return str(self._variant(choice["forget"]).unlearn(**numbers, version=version).path)

    def train_golden(self, choice: dict, on_step: Callable) -> None:
        """Train the golden model for the choice's classes; raises Stopped where `on_step` returns False."""

        def tell(description: str, done: int, total: int | None) -> None:
            if not on_step({"doing": f"Golden: {description}", "epoch": done, "epochs": total or 100}):
                raise Stopped

        with redirect_progress(tell):
            self._variant(choice["forget"]).golden()

    def thumbnails(self) -> list[bytes] | None:
        """An impression of each class in pixels, as PNG; None for more than MANY classes."""
        if self.data.num_classes > MANY:
            return None
        steps = 100 if torch.Size(self.data.shape).numel() <= SMALL else 30
        made = make_impressions(self.model, "input", samples=1, steps=steps, recipe="calibrated")  # the clearest
        return [png(x) for x in made.x]

    def _variant(self, forget: list[int]) -> Experiment:
        key = tuple(forget)
        if key not in self._variants:
            self._variants[key] = replace(self.experiment, forget=forget, force=False)
            vars(self._variants[key])["dataset"] = self.data  # which is not read again
        if (original := self._variants[key].original()).fingerprint() != self._file:
            raise UserError(f"run: {original.name} was made anew since this panel was; run the panel's cell again")
        return self._variants[key]

    @torch.no_grad()
    def _answer(self, net: nn.Module, layer: str) -> torch.Tensor:
        """Logits [N, K] of a network whose body, before `layer`, is the original's."""
        if layer not in self._features:
            body, _ = split(self.model, layer)
            parts = iterate_batches(self.model, self.data.test.images, self.data)
            with redirect_progress(lambda *bar: None):
                self._features[layer] = [body(part).clone() for part in parts]
        _, tail = split(net, layer)
        return torch.cat([tail(part).float().cpu() for part in self._features[layer]])
