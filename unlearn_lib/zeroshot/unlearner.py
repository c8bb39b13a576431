"""The unlearner: a copy of the network is trained on impressions alone, in its tail; the body stays as it is.

It reaches forget accuracy 0.00 at the mask's retain accuracy on LeNet5/MNIST {1, 2, 3, 4}, KarpathyNet/CIFAR-10
{3, 4, 8} (three seeds each) and EfficientNet-Lite0 with 150 of ImageNet's 1,000 classes; and on five small networks
with features of either sign (tanh, GroupNorm, LayerNorm, none, leaky ReLU) on shapes {1, 5, 7}.
"""

import math
import time
from collections.abc import Callable, Collection
from dataclasses import KW_ONLY, dataclass, field

from torch import nn

from unlearn_lib.common import UserError, check_forget, check_seed, log, progress
from unlearn_lib.networks import shares_weights, traced_once, unwrap
from unlearn_lib.options import check_options, option
from unlearn_lib.zeroshot.impressions import Impressions, check_recipe, default_layer
from unlearn_lib.zeroshot.methods import METHODS, NUMBERS, RUNAWAY, Method, Switches, Task, count_classes
from unlearn_lib.zeroshot.recipes import RECIPES

LARGEST = 1e30  # float32 still divides by it
OnStep = Callable[[dict], bool | None]


@dataclass(frozen=True)
class Unlearning:
    """One unlearning as it is asked for. None stands for the method's own choice and is filled in, but for two fields.

    `layer` None needs the network to be resolved, see `find_layer`. `lr` None is `default_learning_rate` of the tail.

    Example:
        >>> Unlearning("published").epochs
        1000
    """

    method: str = option("text", "neggrad+", choices=METHODS, metavar="NAME", help="; ".join(METHODS))
    layer: str | None = option(
        "text",
        None,
        metavar="LAYER",
        help="first layer of the tail, `input` for pixels; by default the last one that responds",
    )
    samples: int = option("whole", 100, least=1, metavar="N", help="impressions a class")
    recipe: str | None = option(
        "text",
        None,
        choices=RECIPES,
        metavar="NAME",
        help=f"of the impressions: {', '.join(RECIPES)}; by default the method's own",
    )
    epochs: int | None = option(
        "whole", None, least=1, metavar="N", help="passes over the impressions; by default the method's own"
    )
    lr: float | None = option(
        "number",
        None,
        above=0,
        below=LARGEST,
        metavar="RATE",
        help="learning rate; by default derived from the size of the weights, or the method's own",
    )
    batch_size: int | None = option(
        "whole", None, least=1, metavar="IMPRESSIONS", help="per step; by default the method's own"
    )
    forget_weight: float | None = option(
        "number", None, least=0, metavar="FACTOR", help="of the forget loss; by default the method's own"
    )
    retain_weight: float | None = option(
        "number", None, least=0, metavar="FACTOR", help="of the retain loss; by default the method's own"
    )

    def __post_init__(self):
        check_options(self)
        method = METHODS[self.method]
        given = {name: value for name, value in self.numbers.items() if value is not None}
        if given and not method.needs_impressions:
            log.info("%s trains nothing; %s has no effect", self.method, ", ".join(given))
            given = {}
        for name, value in {"recipe": self.recipe or method.recipe, **method.numbers, **given}.items():
            object.__setattr__(self, name, value)

    @property
    def numbers(self) -> dict[str, float | None]:
        """lr, epochs, batch_size, forget_weight and retain_weight."""
        return {name: getattr(self, name) for name in NUMBERS}

    @property
    def rules(self) -> Method:
        """What the table of methods holds for its method."""
        return METHODS[self.method]

    def find_layer(self, model: nn.Module) -> str:
        """Return the layer that was given, or the one that the method takes in this trained network."""
        if self.layer is not None:
            return self.layer
        return (self.rules.find_layer or default_layer)(model)

    def check_network(self, model: nn.Module) -> None:
        """Raise UserError where this unlearning does not suit the network, which need not be trained."""
        needs_training = self.layer is None and self.rules.find_layer is None
        layer = "input" if needs_training else self.find_layer(model)
        if self.rules.needs_impressions:
            check_recipe(model, layer, self.recipe)
        check_layer(model, self.rules, layer)


def check_layer(model: nn.Module, method: Method, layer: str) -> None:
    """Raise UserError where a method cannot unlearn this network from `layer` on."""
    if shares_weights(model, layer):
        raise UserError(
            f"layer: got {layer!r}, but some weights are used both before and behind it; expected one where none are"
        )
    method.check(model, layer)


@traced_once()
def unlearn(
    unlearning: Unlearning,
    model: nn.Module,
    impressions: Impressions | None,
    forget: list[int],
    *,
    layer: str,
    seed: int = 0,
    switches: Switches | None = None,
    on_step: OnStep | None = None,
) -> tuple[nn.Module, dict, float]:
    """Unlearn in a copy of the model; the arguments have been checked.

    Args:
        forget: sorted class indices.
        layer: the first layer of the tail, whose inputs the impressions are.
        on_step: gets {"stage", "epoch", "epochs", "forget_loss", "retain_loss", "model"} after each epoch. False stops.

    Returns:
        (model, history, seconds): a model of the same class; forget and retain loss of each epoch.

    Raises:
        UserError: the learning rate makes the loss diverge.
    """
    begin = time.perf_counter()
    trainable = [parameter.requires_grad for parameter in unwrap(model).parameters()]
    switches = switches or Switches()
    student = unlearning.rules.start(
        Task(model, impressions, forget, layer, seed=seed, switches=switches, **unlearning.numbers)
    )
    history = {"forget_loss": [], "retain_loss": []}
    limit = RUNAWAY if unlearning.rules.is_bounded else math.inf
    for epoch, losses in enumerate(progress(student.losses, f"unlearning, {unlearning.method}", student.epochs), 1):
        losses = dict(zip(history, losses, strict=True))
        for name, loss in losses.items():
            history[name].append(loss)
        if not all(abs(loss) < limit for loss in losses.values()):
            raise UserError(f"lr: got {student.lr}, with which the loss diverges in epoch {epoch}; give a smaller one")
        state = {"stage": "unlearning", "epoch": epoch, "epochs": student.epochs, "model": student.model, **losses}
        if on_step is not None and on_step(state) is False:
            break
    for parameter, was_trainable in zip(student.model.parameters(), trainable, strict=True):
        parameter.requires_grad_(was_trainable)
    return student.model, history, time.perf_counter() - begin


@dataclass
class ZeroShotUnlearner:
    """Unlearn `forget` in a copy of `model`, from `impressions` alone; `unlearn()` does it.

    Args:
        layer: the first layer of the tail; that of the impressions.
        lr, epochs, batch_size, forget_weight, retain_weight: None means the method's own, see `Unlearning`. Training
            ends earlier where `UPDATES` updates are reached.
        switches: corrections of the published update; the other methods ignore them.

    Raises:
        UserError: an argument is not accepted; before any work.

    Example:
        >>> unlearned, history, seconds = ZeroShotUnlearner(model, make_impressions(model), forget=[1, 2]).unlearn()
    """

    model: nn.Module
    impressions: Impressions
    forget: Collection[int]
    _: KW_ONLY
    method: str = "neggrad+"
    layer: str | None = None
    lr: float | None = None
    epochs: int | None = None
    forget_weight: float | None = None
    retain_weight: float | None = None
    batch_size: int | None = None
    seed: int = 0
    switches: Switches = field(default_factory=Switches)

    def __post_init__(self):
        layer = self.impressions.layer
        if self.layer is not None and str(self.layer) != layer:
            raise UserError(f"layer: got {self.layer!r}, but the impressions are inputs of {layer!r}")
        self.unlearning = Unlearning(self.method, layer, **{name: getattr(self, name) for name in NUMBERS})
        for name, value in self.unlearning.numbers.items():
            setattr(self, name, value)
        self.seed = check_seed(self.seed)
        check_layer(self.model, self.unlearning.rules, layer)
        self.forget = check_forget(self.forget, count_classes(self.model))
        missing = sorted({*self.forget} - {*self.impressions.labels.tolist()})
        if missing and self.impressions.recipe != "drawn":  # drawn pictures may lack a class
            raise UserError(f"forget: got {self.forget}, but there are no impressions of {missing}; make them too")

    def unlearn(self, on_step: OnStep | None = None) -> tuple[nn.Module, dict, float]:
        """Return (model, history, seconds): a model of the same class, and forget and retain loss of each epoch.

        on_step: gets {"epoch", "epochs", "forget_loss", "retain_loss", "model"} after each epoch; False stops.
        Raises UserError where the learning rate makes the loss diverge.
        """
        return unlearn(
            self.unlearning,
            self.model,
            self.impressions,
            self.forget,
            layer=self.impressions.layer,
            seed=self.seed,
            switches=self.switches,
            on_step=on_step,
        )
