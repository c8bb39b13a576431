"""The whole story of one model, each step kept in a run folder and not done again.

experiment = Experiment("lenet5", "digits", forget=[1, 2, 3, 4])
original, golden = experiment.train(), experiment.golden()
table(experiment.unlearn("distill").blocks)
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from unlearn_lib import networks
from unlearn_lib.common import UserError, as_list, check_forget, check_positive, pick_device, settle
from unlearn_lib.data import Data, data_name, load_data
from unlearn_lib.experiment.steps import impressions_of, trained_run, unlearned_run
from unlearn_lib.networks import Framing, Run
from unlearn_lib.store import digest
from unlearn_lib.zeroshot import Impressions, check_choice

TRAINING = {  # what training takes where nothing else is asked for, by data set
    "digits": {"epochs": 25, "lr": 3e-3, "batch_size": 64},
    "shapes": {"epochs": 12, "lr": 4e-3, "batch_size": 64},
    "mnist": {"epochs": 5, "lr": 3e-3, "batch_size": 128},
    "cifar10": {"epochs": 15, "lr": 3e-3, "batch_size": 128},
}
FINE_TUNING = {"epochs": 10, "lr": 3e-4, "batch_size": 32}
ELSEWHERE = {"epochs": 10, "lr": 1e-3, "batch_size": 64}


@dataclass(frozen=True)
class Experiment:
    """One model on one data set, with the classes to forget: a specification, and where its runs lie.

    forget: names, indices and ranges of classes, wnids and files with them; `forget_classes` has their indices.
    weights: torchvision's by name or the file of a state dict, to start from; data without training pictures takes
    them as they come. Where neither weights nor size nor flip are given, the original's are taken.
    train_*: training's numbers, where they are not to be those of `TRAINING`. version: goes behind the names of the
    run folders. force: do everything anew, once in the life of this object. memory: MiB that making impressions takes,
    besides the result. Everything else as in `make_model`, `load_data` and `fit`. What is done and what is reused is
    told to the log `unlearn_lib`. Variants are made by `dataclasses.replace`.
    """

    model: str
    data: str
    forget: Iterable[str | int] = ()
    seed: int = 0
    train_epochs: int | None = None
    train_lr: float | None = None
    train_batch_size: int | None = None
    dropout: float | None = None
    label_smoothing: float = 0.0
    size: int | None = None
    weights: str | None = None
    flip: bool | None = None
    device: str | None = None
    data_root: str | Path | None = None
    runs_root: str | Path | None = None
    version: str | None = None
    force: bool = False
    save_every: int = 1
    precision: str | None = None
    memory: float = 512.0
    _forced: set = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self):
        settle(self, but="forget")
        object.__setattr__(self, "forget", tuple(as_list(self.forget)))  # variants ask for them again
        check_positive(**self.training, save_every=self.save_every, memory=self.memory)
        pick_device(self.device)
        networks.run_name(self.model, "data", self.seed, version=self.version)
        self.framing  # noqa: B018, an unknown network, size or dropout is refused here

    @functools.cached_property
    def root(self) -> Path:
        """The folder of the runs."""
        return networks.runs_root(self.runs_root)

    @functools.cached_property
    def start(self) -> dict:
        """Size, weights and mirroring: those given, else those that the original was trained with."""
        start = {"size": self.size, "weights": self.weights, "flip": self.flip}
        if not self.force and set(start.values()) == {None}:
            name = networks.run_name(self.model, data_name(self.data), self.seed, version=self.version)
            if networks.has_run(self.root, name):
                start = {key: networks.open_run(self.root, name).config.get(key) for key in start}
        return start

    @functools.cached_property
    def training(self) -> dict:
        """Epochs, learning rate and batch size of training."""
        tuned = self.start["weights"] is not None
        defaults = FINE_TUNING if tuned else TRAINING.get(self.data, ELSEWHERE)
        given = {"epochs": self.train_epochs, "lr": self.train_lr, "batch_size": self.train_batch_size}
        return defaults | {name: value for name, value in given.items() if value is not None}

    @functools.cached_property
    def framing(self) -> Framing:
        """How a picture becomes what the network takes. Raises UserError for a network, a size that there is not."""
        framing, size = networks.find_framing(self.model, self.start["weights"], self.start["size"]), self.start["size"]
        if framing is not None:
            size = framing.shape[-1]
        model = networks.make_model(self.model, None, size=size, dropout=self.dropout)
        return framing or Framing(tuple(model.input_shape))

    @functools.cached_property
    def dataset(self) -> Data:
        """The data set, read once, when it is first needed, in the network's shape."""
        return load_data(self.data, self.data_root, framing=self.framing, flip=self.start["flip"])

    @functools.cached_property
    def forget_classes(self) -> list[int]:
        """The classes to forget, as sorted indices. Raises UserError for a class that there is not."""
        return self.dataset.choose(self.forget)

    @property
    def forget_names(self) -> list[str]:
        """The names of the classes to forget."""
        return [self.dataset.classes[c] for c in self.forget_classes]

    @property
    def title(self) -> str:
        """Model and data set, for figures and tables."""
        return f"{self.model} on {self.dataset.title}"

    def run_name(self, *parts: str, version: str | None = None) -> str:
        """The name of this experiment's run folder of one kind: of the original without `parts`."""
        return networks.run_name(self.model, self.dataset.name, self.seed, *parts, version=version or self.version)

    def trained_name(self, forget: list[int]) -> str:
        """The name of the original's run folder, or of golden's where there are classes to leave out."""
        return self.run_name(*(["golden", networks.class_code(forget)] if forget else []))

    def new_model(self, seed: int = 0) -> nn.Module:
        """A freshly initialised network, on the CPU."""
        start = {"size": self.framing.shape[-1], "pretrained": self.start["weights"] is not None}
        return networks.make_model(self.model, self.dataset.num_classes, dropout=self.dropout, seed=seed, **start)

    def load(self, run: Run) -> nn.Module:
        """A run's model, on this experiment's device."""
        model = run.load_model().to(pick_device(self.device))
        model.input_range = self.dataset.pixel_range
        return model

    def train(self) -> Run:
        """The model trained on all classes."""
        return trained_run(self, [])

    def golden(self) -> Run:
        """The model trained, from the same start, without the forget classes; it keeps all K outputs."""
        if not len(self.dataset.train):
            raise UserError(f"golden: {self.dataset.name} has no training pictures here to train one on")
        return trained_run(self, check_forget(self.forget_classes, self.dataset.num_classes))

    def original(self) -> Run:
        """The trained model's run as it stands, whatever numbers it was trained with.

        Raises NotFound where there is none, UserError where it was trained on other pictures or at another size.
        """
        run = networks.check_run(networks.open_run(self.root, self.run_name()))
        if run.config["classes"] != self.dataset.classes:
            raise UserError(
                f"data: {self.dataset.name} has the classes {self.dataset.classes[:5]}..., "
                f"the head of {run.name} was trained for {run.config['classes'][:5]}..."
            )
        given = {"size": self.framing.shape[-1], "data_digest": self.dataset.fingerprint}
        given |= {"weights": self.weights, "dropout": self.dropout}
        return networks.check_run(run, run.arguments | {name: v for name, v in given.items() if v is not None})

    def finished_original(self) -> Run | None:
        """The original's run, where it has been trained as this experiment says; nothing is logged."""
        return self._finished(self.arguments([]))

    def finished_golden(self) -> Run | None:
        """The golden model's run, where it was trained just as the original was; nothing is logged."""
        return self._finished(self.original().arguments | {"forget": self.forget_classes})

    def impressions(
        self,
        layer: str | None = None,
        *,
        samples: int = 100,
        recipe: str | None = None,
        steps: int | None = None,
        on_step: Callable | None = None,
    ) -> Impressions:
        """Impressions of every class, made once and kept in the model's run folder; what `on_step` raises ends it."""
        return impressions_of(self, layer, samples, recipe, steps, on_step)

    def unlearn(
        self,
        method: str = "neggrad+",
        *,
        layer: str | None = None,
        samples: int = 100,
        recipe: str | None = None,
        version: str | None = None,
        **numbers: float,
    ) -> Run:
        """Unlearn the forget classes and evaluate the result beside original, mask and golden where there is one.

        numbers: lr, epochs, batch_size, forget_weight, retain_weight where they are not to be the method's own.
        version: goes behind this run's name, where it is not to be the experiment's.
        """
        self.check_unlearning(method, layer=layer, samples=samples, recipe=recipe, **numbers)
        return unlearned_run(self, method, layer, samples, recipe, version, numbers)

    def check_unlearning(self, method: str, *, layer=None, samples: int = 100, recipe=None, **numbers: float) -> None:
        """Raise UserError for what `unlearn` does not accept; no trained model is needed for it."""
        check_forget(self.forget_classes, self.dataset.num_classes)
        check_choice(self.new_model().eval(), method, layer, samples, recipe, numbers)

    def arguments(self, forget: list[int]) -> dict:
        """What a training of this experiment is made from: pictures, start, and numbers."""
        weights, data = self.start["weights"], self.dataset
        file = Path(weights).expanduser() if weights and networks.is_file(weights) else None
        arguments = {"model": self.model, "data": data.name, "data_digest": data.fingerprint, "seed": self.seed}
        arguments |= {"version": self.version or None, "dropout": self.dropout, "weights_digest": file and digest(file)}
        arguments |= self.start | {"size": self.framing.shape[-1], "precision": self.precision}
        arguments |= {"code_digest": networks.code_digest(self.model, self.new_model)}
        return arguments | {"forget": forget, "label_smoothing": self.label_smoothing, **self.training}

    def anew(self, name: str) -> bool:
        """Whether `force` asks for this now: once in the life of an experiment."""
        anew = self.force and name not in self._forced
        self._forced.add(name)
        return anew

    def _finished(self, arguments: dict) -> Run | None:
        try:
            return networks.find_run(self.root, self.trained_name(arguments["forget"]), arguments)
        except UserError:  # made with other arguments
            return None


def open_experiment(run: Run, **changes) -> Experiment:
    """The experiment that an unlearned run came from, its original trained as it has been; `changes` put in place.

    Raises UserError where the run is no unlearned one, or damaged.
    """
    if "original_run" not in run.config:
        raise UserError(f"run: {run.name} given; an unlearned run is accepted")
    c, trained = run.verify().config, networks.open_run(run.path.parent, run.config["original_run"]).config
    arguments = {"model": c["model"], "data": c.get("data_given", c["data"]), "seed": c["seed"], "size": c["size"]}
    arguments |= {"forget": c["forget"], "dropout": c["dropout"], "runs_root": run.path.parent}
    arguments |= {f"train_{name}": trained[name] for name in ("epochs", "lr", "batch_size")}
    arguments |= {name: trained.get(name) for name in ("label_smoothing", "version", "weights", "flip", "precision")}
    return Experiment(**arguments | {name: value for name, value in changes.items() if value is not None})
