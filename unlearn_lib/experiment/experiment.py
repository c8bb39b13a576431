"""Experiment: the specification of one model on one data set, and the one path from it to finished runs.

experiment = Experiment("lenet5", "digits", forget=[1, 2, 3, 4])
original, golden = experiment.train(), experiment.golden()
table(experiment.unlearn("distill").blocks)
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from unlearn_lib import networks
from unlearn_lib.common import UserError, as_list, check_forget, check_number, log, pick_device
from unlearn_lib.data import NAMES, Data, data_name, load_data
from unlearn_lib.evaluation import Judge, evaluate, score
from unlearn_lib.experiment.steps import (
    AS_GIVEN,
    FRESH,
    NEW_HEAD,
    TUNED,
    Stopped,
    Unlearned,
    find_start,
    load_backbone,
    log_accuracy,
    log_carry_over,
    with_golden,
)
from unlearn_lib.networks import Framing, Run
from unlearn_lib.options import PLACES, check_options, option
from unlearn_lib.store import cached, digest, lock_folder
from unlearn_lib.training import PRECISIONS, fit
from unlearn_lib.zeroshot import (
    RECIPE_VERSION,
    Impressions,
    Unlearning,
    carry_over,
    check_recipe,
    optimise_impressions,
    unlearn,
)

TRAINING = {  # of training from scratch, by data set
    "digits": {"epochs": 25, "lr": 3e-3, "batch_size": 64},
    "shapes": {"epochs": 12, "lr": 4e-3, "batch_size": 64},
    "mnist": {"epochs": 5, "lr": 3e-3, "batch_size": 128},
    "cifar10": {"epochs": 15, "lr": 3e-3, "batch_size": 128},
}
BOUNDED = ("deepinversion", "drawn")  # recipes that make other impressions with less memory
FINE_TUNING = {"epochs": 10, "lr": 3e-4, "batch_size": 32}
ELSEWHERE = {"epochs": 10, "lr": 1e-3, "batch_size": 64}


def _defaults(name: str) -> str:
    """Describe the default of one of training's numbers, for the shell's help."""
    named = ", ".join(f"{numbers[name]:g} on {data}" for data, numbers in TRAINING.items())
    return f"by default {named}, fine-tuning {FINE_TUNING[name]:g}, else {ELSEWHERE[name]:g}"


@dataclass(frozen=True)
class Experiment:
    """One model on one data set with the classes to forget: what to do, and where its runs lie.

    Every argument is checked when the experiment is built; no network is built and no data are read. Each step is kept
    in a run folder and is not repeated. The log `unlearn_lib` says what is done and what is reused.

    Args:
        forget: names, indices and ranges of classes, wnids, and files with them.
        weights: a start by name or from the file of a state dict. Data without training pictures take it as it is.
        size, weights, flip: where none of them is given, those of the trained original are used.
        version: is appended to the names of the run folders.
        force: repeat every step that is called.
        memory: MiB for making impressions, besides the result.

    Example:
        >>> Experiment("lenet5", "digits", forget=[1, 2]).title
        'lenet5 on digits'
    """

    model: str = option(
        "text",
        metavar="NAME",
        help="lenet5, karpathynet, efficientnet_lite0, a torchvision name, timm/NAME or package.module:factory",
    )
    data: str = option("text", metavar="NAME|DIR", help="digits, shapes, mnist, cifar10, imagenet or an image folder")
    forget: Iterable[str | int] = ()
    seed: int = option(
        "whole", 0, least=0, below=2**32, metavar="N", help="of training, impressions and unlearning; by default 0"
    )
    train_epochs: int | None = option(
        "whole", None, least=1, metavar="N", help=f"passes over the training pictures; {_defaults('epochs')}"
    )
    train_lr: float | None = option(
        "number", None, above=0, below=1e30, metavar="RATE", help=f"top learning rate of training; {_defaults('lr')}"
    )
    train_batch_size: int | None = option(
        "whole", None, least=1, metavar="PICTURES", help=f"of training; {_defaults('batch_size')}"
    )
    dropout: float | None = option(
        "number", None, least=0, below=1, metavar="RATE", help="by default the network's own"
    )
    label_smoothing: float = option("number", 0.0, least=0, below=1, metavar="SHARE", help="in training; by default 0")
    size: int | None = option(
        "whole",
        None,
        least=1,
        metavar="PIXELS",
        help="height and width of a picture, for others' networks; by default that of the weights, else the network's",
    )
    weights: str | None = option(
        "text", None, metavar="NAME|FILE", help="to start from: by name (IMAGENET1K_V1), or the file of a state dict"
    )
    fine_tune: bool = option(
        "switch", False, help="train on from weights that fit the data's classes; by default they are taken as they are"
    )
    golden_weights: str | None = option(
        "text",
        None,
        metavar="NAME|FILE",
        help="backbone that golden starts from, without its head; by default that of --weights, or fresh weights where "
        "their head knows the forget classes",
    )
    flip: bool | None = option(
        "switch", None, help="mirror half of the pictures in training; by default all data but digits"
    )
    device: str | None = option("text", None, **PLACES["device"])
    data_root: str | Path | None = option("text", None, **PLACES["data_root"])
    runs_root: str | Path | None = option("text", None, **PLACES["runs_root"])
    version: str | None = option("text", None, **PLACES["version"])
    force: bool = option("switch", False, help="repeat every step; by default finished steps are reused")
    save_every: int = option(
        "whole", 1, least=1, metavar="EPOCHS", help="between two checkpoints of training; by default 1"
    )
    precision: str | None = option(
        "text",
        None,
        choices=PRECISIONS,
        metavar="TYPE",
        help="float32 or bfloat16, of training's arithmetic; by default bfloat16 where the processor has it",
    )
    memory: float = option("number", 512.0, above=0, metavar="MIB", help="for making impressions; by default 512")

    def __post_init__(self):
        check_options(self)
        object.__setattr__(self, "forget", tuple(as_list(self.forget)))  # an iterator serves variants too
        pick_device(self.device)
        networks.check_model_name(self.model)
        networks.run_name(self.model, "data", self.seed, version=self.version)

    def variant(self, **changes) -> "Experiment":
        """Return a copy with `changes`; it shares the data already read, where no change concerns them."""
        other = dataclasses.replace(self, **changes)
        another = {name for name, value in changes.items() if name not in self.start or self.start[name] != value}
        if "dataset" in vars(self) and not another & {"model", "data", "data_root", "size", "weights", "flip"}:
            vars(other)["dataset"] = self.dataset
        return other

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
                config = networks.open_run(self.root, name).config
                start = {key: config.get(key) for key in start}
        return start

    @functools.cached_property
    def training(self) -> dict:
        """Epochs, learning rate and batch size of training."""
        is_tuned = self.start_kind in (TUNED, NEW_HEAD)
        defaults = FINE_TUNING if is_tuned else TRAINING.get(self.data, ELSEWHERE)
        given = {"epochs": self.train_epochs, "lr": self.train_lr, "batch_size": self.train_batch_size}
        return defaults | {name: value for name, value in given.items() if value is not None}

    @functools.cached_property
    def start_kind(self) -> str:
        """What the original starts from: FRESH, AS_GIVEN, TUNED or NEW_HEAD."""
        if self.start["weights"] is None:
            return FRESH
        return find_start(self.new_model(), self.model, self.start["weights"], fine_tune=self.fine_tune)

    @functools.cached_property
    def framing(self) -> Framing:
        """How a picture becomes what the network takes. Raises UserError for a size that the network has not."""
        return networks.find_framing(self.model, self.start["weights"], self.start["size"])

    @functools.cached_property
    def dataset(self) -> Data:
        """The data set, read when it is first needed, in the network's shape."""
        return load_data(self.data, self.data_root, framing=self.framing, flip=self.start["flip"])

    @functools.cached_property
    def forget_classes(self) -> list[int]:
        """The classes to forget, as sorted indices. Raises UserError for an unknown class."""
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
        """Return the name of a run folder of this experiment: the original's without `parts`."""
        return networks.run_name(self.model, self.dataset.name, self.seed, *parts, version=version or self.version)

    def trained_name(self, forget: list[int]) -> str:
        """Return the name of the original's run folder, or of golden's where classes are left out."""
        return self.run_name(*(["golden", networks.class_code(forget)] if forget else []))

    def new_model(self, seed: int = 0) -> nn.Module:
        """Return a freshly initialised network, on the CPU."""
        return networks.make_model(
            self.model,
            self.dataset.num_classes,
            size=self.framing.shape[-1],
            dropout=self.dropout,
            seed=seed,
            pretrained=self.start["weights"] is not None,
        )

    def load(self, run: Run) -> nn.Module:
        """Return a run's model, on this experiment's device."""
        model = run.load_model().to(pick_device(self.device))
        model.input_range = self.dataset.pixel_range
        return model

    def train(self) -> Run:
        """Return the model trained on all classes."""
        return self._train([])

    def golden(self) -> Run:
        """Return the model trained from the same start without the forget classes; it keeps all K outputs."""
        if not len(self.dataset.train):
            raise UserError(f"golden: {self.dataset.name} has no training pictures here to train one on")
        return self._train(self.checked_forget)

    def _train(self, forget: list[int]) -> Run:
        """Return the original's run, or golden's where classes are left out: found, or trained and evaluated."""
        name = self.trained_name(forget)
        arguments = self.arguments(forget)
        with lock_folder(self.root / name):
            run = None if self.force else networks.find_run(self.root, name, arguments)
            if run is not None:
                log_accuracy(run, forget, "reused")
                return run
            checkpoint = self.root / name / "checkpoint.safetensors"
            if self.force:
                checkpoint.unlink(missing_ok=True)
            model = self.new_model(self.seed)
            kind = self._load_start(model, forget)
            history = {}
            if kind != AS_GIVEN:
                history = fit(
                    model,
                    self.dataset,
                    forget=forget,
                    label_smoothing=self.label_smoothing,
                    seed=self.seed,
                    device=self.device,
                    checkpoint=checkpoint,
                    save_every=self.save_every,
                    precision=self.precision,
                    **self.training,
                )
            seconds = sum(history.get("seconds", []))
            metrics = dict.fromkeys(("original", "masked", "unlearned", "golden", "carry_over", "audit"))
            block = evaluate(model.to(pick_device(self.device)), self.dataset, forget)
            metrics["golden" if forget else "original"] = block
            metrics["seconds"] = dict.fromkeys(("train", "golden", "impressions", "unlearn"))
            metrics["seconds"]["golden" if forget else "train"] = seconds
            run = networks.write_run(
                self.root, name, arguments, model.cpu(), history, metrics, **self.notes(), started_from=kind
            )
        done = "weights taken as they are" if kind == AS_GIVEN else f"trained in {seconds:.1f} s"
        log_accuracy(run, forget, done)
        return run

    def _load_start(self, model: nn.Module, forget: list[int]) -> str:
        """Load what a training starts from into a new model, and return what that is.

        Golden never starts from a head that knows the forget classes.
        """
        weights = self.start["weights"]
        kind = self.start_kind
        if forget and self.golden_weights:
            kind = NEW_HEAD
            load_backbone(model, self.model, self.golden_weights)
        elif forget and kind in (AS_GIVEN, TUNED):
            log.info("golden: it starts from fresh weights, since %s knows the forget classes", weights)
            kind = FRESH
        elif kind != FRESH:
            networks.apply_weights(model, networks.read_weights(self.model, weights), weights)
        if kind != AS_GIVEN and not len(self.dataset.train):
            reasons = {FRESH: "none given", NEW_HEAD: f"{weights} is for other classes", TUNED: "fine-tuning asked for"}
            raise UserError(f"weights: {reasons[kind]}, and {self.dataset.name} has no training pictures here")
        if kind in (AS_GIVEN, TUNED, NEW_HEAD):
            log.info("%s starts from %s", "golden" if forget else "original", kind)
        return kind

    @functools.cached_property
    def checked_forget(self) -> list[int]:
        """The classes to forget. Raises UserError where none or all are given."""
        return check_forget(self.forget_classes, self.dataset.num_classes)

    def original(self) -> Run:
        """Return the trained model's run as it stands, for any numbers that it was trained with.

        Raises:
            NotFound: the model has not been trained.
            UserError: it was trained on other pictures or at another size.
        """
        run = networks.check_run(networks.open_run(self.root, self.run_name()))
        if run.config["classes"] != self.dataset.classes:
            raise UserError(
                f"data: {self.dataset.name} has the classes {self.dataset.classes[:5]}..., "
                f"but the head of {run.name} was trained for {run.config['classes'][:5]}..."
            )
        given = {
            "size": self.framing.shape[-1],
            "data_digest": self.dataset.fingerprint,
            "weights": self.weights,
            "dropout": self.dropout,
        }
        return networks.check_run(run, run.arguments | {name: v for name, v in given.items() if v is not None})

    def finished_original(self) -> Run | None:
        """Return the original's run if it was trained as this experiment says; log nothing."""
        return self._find_trained(self.arguments([]))

    def finished_golden(self) -> Run | None:
        """Return the golden run if it was trained just as the original was; log nothing."""
        return self._find_trained(self.original().arguments | {"forget": self.forget_classes} | self._golden_start())

    def impressions(
        self,
        layer: str | None = None,
        *,
        samples: int = 100,
        recipe: str | None = None,
        steps: int | None = None,
        on_step: Callable | None = None,
    ) -> Impressions:
        """Return impressions of every class, made once and kept in the model's run folder.

        on_step: is called with the step and the impressions of a chunk; an exception that it raises ends the work.
        """
        asked = Unlearning(layer=layer, samples=samples, recipe=recipe)
        steps = None if steps is None else check_number("steps", steps, whole=True, least=0)
        run = self.original()
        model = self.load(run)
        layer = asked.find_layer(model)
        check_recipe(model, layer, asked.recipe)
        return self._impressions(run, model, layer, asked, steps=steps, on_step=on_step)

    def _impressions(
        self,
        original: Run,
        model: nn.Module,
        layer: str,
        asked: Unlearning,
        *,
        steps: int | None = None,
        on_step: Callable | None = None,
    ) -> Impressions:
        """Return impressions of every class of the original at a layer, from its run folder where they are there."""
        path = original.path / f"impressions-{layer}-{asked.recipe}.safetensors"
        numbers = {"samples": asked.samples, "recipe": asked.recipe, "steps": steps, "seed": self.seed}
        key = {
            **numbers,
            "model": original.fingerprint(),
            "version": RECIPE_VERSION,
            "input_range": list(model.input_range),
        }
        if asked.recipe in BOUNDED:
            key["memory"] = self.memory

        def make() -> tuple[dict, dict]:
            made = optimise_impressions(model, layer, **numbers, memory=round(self.memory * 2**20), on_step=on_step)
            log.info("impressions at %s, %s: %s made in %.1f s", layer, asked.recipe, f"{len(made.x):,}", made.seconds)
            return {"x": made.x, "labels": made.labels}, {"seconds": made.seconds}

        if asked.recipe == "drawn":  # as large as a data set, and quick to draw again
            tensors, facts = make()
        else:
            tensors, facts = cached(path, key, make, force=self.force)
        return Impressions(layer, tensors["x"], tensors["labels"], asked.recipe, facts["seconds"])

    @networks.traced_once()
    def unlearn(
        self,
        method: str | Unlearning = "neggrad+",
        *,
        version: str | None = None,
        on_step: Callable[[dict], bool | None] | None = None,
        **choices,
    ) -> Run:
        """Unlearn the forget classes and compare with original, mask and golden; a finished run is reused.

        Args:
            method: its name, or a whole `Unlearning`.
            choices: the other fields of `Unlearning`: layer, samples, recipe, epochs, lr, ...
            version: is appended to this run's name; by default the experiment's.
            on_step: gets the state of each step, see `compute`.

        Raises:
            UserError: an argument is not accepted, before any work; or the run was made with other arguments.
        """
        unlearning = method if isinstance(method, Unlearning) else Unlearning(method, **choices)
        with lock_folder(self.root / self.unlearned_name(unlearning, version)):
            run = None if self.force else self.find_unlearned(unlearning, version)
            if run is None:
                return self.keep(self.compute(unlearning, on_step), version)
        log.info("%s: reused", run.name)
        log_carry_over(run.metrics["carry_over"])
        return run

    def unlearned_name(self, unlearning: Unlearning, version: str | None = None) -> str:
        """Return the name of an unlearned run's folder."""
        return self.run_name("unlearned", networks.class_code(self.checked_forget), unlearning.method, version=version)

    def find_unlearned(self, unlearning: Unlearning, version: str | None = None) -> Run | None:
        """Return the finished run of an unlearning; a run is found by what was asked for.

        Raises:
            UserError: a run of that name was made with other arguments.
        """
        original = self.original()
        name, arguments = self.describe_unlearned(original, unlearning, version)
        if not networks.has_run(self.root, name):
            return None
        run = networks.open_run(self.root, name)
        if unlearning.layer is None and run.config.get("asked_layer", "") is None:
            arguments["layer"] = run.config["layer"]
        elif unlearning.layer is None:  # the run was asked for with a layer, perhaps the one that None means
            arguments["layer"] = unlearning.find_layer(self.load(original))
        return with_golden(self, networks.check_run(run, arguments))

    @networks.traced_once()
    def compute(
        self, unlearning: Unlearning, on_step: Callable[[dict], bool | None] | None = None, judge: Judge | None = None
    ) -> Unlearned:
        """Unlearn and evaluate, without a run folder.

        Args:
            on_step: gets {"stage": "impressions", "step", "layer"} and {"stage": "unlearning", "epoch", "epochs",
                "forget_loss", "retain_loss", "model"}. Returning False stops: unlearning ends as it stands.
            judge: the one of an earlier call at the same layer, which saves its activations.

        Raises:
            Stopped: `on_step` returned False before there was a result.
        """
        forget = self.checked_forget
        original = self.original()
        model = self.load(original)
        layer = unlearning.find_layer(model)
        unlearning.check_network(model)
        is_complete = True  # also where there are no epochs

        def watch(state: dict) -> bool:
            nonlocal is_complete
            is_complete = state["epoch"] == state["epochs"]
            return on_step is None or on_step(state) is not False

        def watch_impressions(step: int, x) -> None:
            if on_step is not None and on_step({"stage": "impressions", "step": step, "layer": layer}) is False:
                raise Stopped

        impressions = None
        if unlearning.rules.needs_impressions:
            impressions = self._impressions(original, model, layer, unlearning, on_step=watch_impressions)
        network, history, seconds = unlearn(
            unlearning, model, impressions, forget, layer=layer, seed=self.seed, on_step=watch
        )
        log.info("%s: unlearned in %.1f s", unlearning.method, seconds)
        if judge is None or judge.layer != layer:
            judge = Judge.of_original(original, model, self.dataset, layer)
        metrics = {
            "original": score(original.metrics["original"]["confusion"], forget),
            "masked": judge.masked_block(forget),
            "unlearned": judge.block(network, forget),
            "golden": None,
            "seconds": {
                "train": original.metrics["seconds"]["train"],
                "golden": None,
                "impressions": impressions.seconds if impressions else 0.0,
                "unlearn": seconds,
            },
            "carry_over": None,
            "audit": None,
        }
        return Unlearned(unlearning, layer, network, history, metrics, original, original.fingerprint(), is_complete)

    @networks.traced_once()
    def keep(self, unlearned: "Unlearned", version: str | None = None) -> Run:
        """Write what `compute` returned as a run, with its carry-over and golden's figures.

        Raises:
            UserError: it was stopped before its end, or the original was trained again since.
        """
        if not unlearned.is_complete:
            raise UserError(
                f"epochs: stopped after {len(unlearned.history['forget_loss'])}; only a run that ended can be saved"
            )
        name, arguments = self.describe_unlearned(unlearned.original, unlearned.unlearning, version)
        arguments["layer"] = unlearned.layer
        if arguments["original_file"] != unlearned.original_file:
            raise UserError(f"run: {unlearned.original.name} was trained again since this unlearning; compute it again")
        with lock_folder(self.root / name):
            if not self.force and (run := networks.find_run(self.root, name, arguments)):
                return with_golden(self, run)  # another process was faster
            model = self.load(unlearned.original)
            shares = carry_over(model, unlearned.model, unlearned.layer, self.forget_classes, seed=self.seed)
            log_carry_over(shares)
            run = networks.write_run(
                self.root,
                name,
                arguments,
                unlearned.model,
                unlearned.history,
                unlearned.metrics | {"carry_over": shares},
                **self.notes(),
                golden_run=None,
                asked_layer=unlearned.unlearning.layer,
            )
            return with_golden(self, run)

    def describe_unlearned(
        self, original: Run, unlearning: Unlearning, version: str | None
    ) -> tuple[str, dict[str, object]]:
        """Return the name of an unlearned run and what it is made from; the layer as it was asked for."""
        version = version or self.version or None
        arguments = {
            **{name: value for name, value in original.arguments.items() if name not in ELSEWHERE},
            "forget": self.checked_forget,
            "method": unlearning.method,
            "layer": unlearning.layer,
            "version": version,
            "samples": unlearning.samples,
            "recipe": unlearning.recipe,
            "recipe_version": RECIPE_VERSION,
            **unlearning.numbers,
            "original_run": original.name,
            "original_file": original.fingerprint(),
        }
        if unlearning.recipe in BOUNDED:
            arguments["memory"] = self.memory
        return self.unlearned_name(unlearning, version), arguments

    def check_unlearning(self, unlearning: Unlearning) -> None:
        """Raise UserError for an unlearning that does not suit the network; no trained network is needed."""
        self.checked_forget  # noqa: B018, raises for none and for all
        unlearning.check_network(self.new_model().eval())

    def arguments(self, forget: list[int]) -> dict:
        """Return what a training of this experiment is made from: pictures, start, and numbers."""
        weights = self.start["weights"]
        file = Path(weights).expanduser() if weights and networks.is_file(weights) else None
        return {
            "model": self.model,
            "data": self.dataset.name,
            "data_digest": self.dataset.fingerprint,
            "seed": self.seed,
            "version": self.version or None,
            "dropout": self.dropout,
            "weights_digest": file and digest(file),
            **self.start,
            "fine_tune": self.fine_tune if weights else None,
            "size": self.framing.shape[-1],
            "precision": self.precision,
            "code_digest": networks.code_digest(self.model, self.new_model),
            "forget": forget,
            "label_smoothing": self.label_smoothing,
            **self.training,
            **(self._golden_start() if forget else {}),
        }

    def _golden_start(self) -> dict:
        """Return what identifies golden's own start, where one is given."""
        weights = self.golden_weights
        if weights is None:
            return {}
        file = Path(weights).expanduser()
        return {"golden_weights": weights, "golden_weights_digest": digest(file) if networks.is_file(weights) else None}

    def notes(self) -> dict:
        """Return what config.json records besides the arguments."""
        folder = os.path.expanduser(self.data)
        is_folder = self.data not in NAMES and os.path.isdir(folder)
        notes = {
            "device": str(pick_device(self.device)),
            "source": self.dataset.source,
            "classes": self.dataset.classes,
            "data_given": os.path.abspath(folder) if is_folder else self.data,  # audits may start elsewhere
            "preprocessing": dataclasses.asdict(self.framing)
            | {"interpolation": self.framing.interpolation.value, "mean": self.dataset.mean, "std": self.dataset.std},
        }
        left_out = {"unreadable": self.dataset.unreadable, "passed_over": list(self.dataset.passed_over)}
        return notes | {name: names for name, names in left_out.items() if names}

    def _find_trained(self, arguments: dict) -> Run | None:
        try:
            return networks.find_run(self.root, self.trained_name(arguments["forget"]), arguments)
        except UserError:  # made with other arguments
            return None


def open_experiment(run: Run, **changes) -> Experiment:
    """Return the experiment that an unlearned run came from, with its original's training numbers, and `changes`.

    Raises:
        UserError: the run is not an unlearned one, or it is damaged.

    Example:
        >>> experiment = open_experiment(run, device="cpu")
    """
    if "original_run" not in run.config:
        raise UserError(f"run: got {run.name}; expected an unlearned run")
    config = run.verify().config
    trained = networks.open_run(run.path.parent, config["original_run"]).config
    arguments = {name: config[name] for name in ("model", "seed", "size", "forget", "dropout")}
    arguments |= {"data": config.get("data_given", config["data"]), "runs_root": run.path.parent}
    arguments |= {f"train_{name}": trained[name] for name in ("epochs", "lr", "batch_size")}
    names = ("label_smoothing", "version", "weights", "flip", "precision", "fine_tune")
    arguments |= {name: trained[name] for name in names if trained.get(name) is not None}
    if config["golden_run"] and networks.has_run(run.path.parent, config["golden_run"]):
        golden = networks.open_run(run.path.parent, config["golden_run"])
        arguments["golden_weights"] = golden.config.get("golden_weights")
    return Experiment(**arguments | {name: value for name, value in changes.items() if value is not None})
