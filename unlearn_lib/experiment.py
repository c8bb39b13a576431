"""The whole story of one model, each step kept in a run folder and not done again.

lab = Experiment("lenet5", "digits", forget=[1, 2, 3, 4])
original, golden = lab.train(), lab.golden()
run = lab.unlearn("distill")
table(run.metrics)
"""

import functools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from unlearn_lib.common import UserError, check_forget, check_positive, pick_device
from unlearn_lib.data import Data, load_data, parse_classes
from unlearn_lib.evaluation import evaluate, evaluate_tail, kept_activations, score
from unlearn_lib.networks import (
    Framing,
    Run,
    apply_weights,
    class_code,
    find_head,
    find_run,
    framing_of,
    make_model,
    open_run,
    outputs_of,
    read_weights,
    run_name,
    runs_root,
    write_run,
)
from unlearn_lib.store import read_json, write_json
from unlearn_lib.training import fit
from unlearn_lib.zeroshot import (
    PUBLISHED,
    Impressions,
    ZeroShotUnlearner,
    check_impressions,
    check_method,
    check_numbers,
    default_layer,
    load_impressions,
    make_impressions,
    mask,
    save_impressions,
)

TRAINING = {  # what training takes where nothing else is asked for, by data set
    "digits": {"epochs": 25, "lr": 3e-3, "batch_size": 64},
    "shapes": {"epochs": 12, "lr": 4e-3, "batch_size": 64},
    "mnist": {"epochs": 5, "lr": 3e-3, "batch_size": 128},
    "cifar10": {"epochs": 15, "lr": 3e-3, "batch_size": 128},
}
FINE_TUNING = {"epochs": 10, "lr": 3e-4, "batch_size": 32}
UNLEARNING = {"lr": 1e-3, "epochs": 20, "batch_size": 128, "forget_weight": 1.0, "retain_weight": 1.0}


@dataclass
class Experiment:
    """One model on one data set, with the classes to forget.

    forget: names, indices and ranges of classes, wnids and files with them. weights: torchvision's by name or the file
    of a state dict, to start from; data without training pictures takes them as they come. Where neither weights nor
    size are given, those that the original was trained with are taken. train_*: training's numbers, where they are
    not to be those of `TRAINING`. version: goes behind the names of the run folders. force: do everything anew.
    memory: MiB that the making of impressions may take, besides the result. say: gets a sentence for each step that is
    done or reused. Everything else as in `make_model`, `load_data` and `fit`.
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
    device: str | None = None
    data_root: str | Path | None = None
    runs_root: str | Path | None = None
    version: str | None = None
    force: bool = False
    save_every: int = 1
    memory: float = 512.0
    say: Callable[[str], None] = print

    def __post_init__(self):
        self.root = runs_root(self.runs_root)
        self._take_over()
        tuned = self.weights is not None
        defaults = FINE_TUNING if tuned else TRAINING.get(self.data, {"epochs": 10, "lr": 1e-3, "batch_size": 64})
        given = {"epochs": self.train_epochs, "lr": self.train_lr, "batch_size": self.train_batch_size}
        self._training = defaults | {name: value for name, value in given.items() if value is not None}
        check_positive(**self._training, save_every=self.save_every, memory=self.memory)
        pick_device(self.device)
        self._framing = framing_of(self.model, self.weights, self.size)
        if self._framing is not None:
            self.size = self._framing.shape[-1]
        shape = make_model(self.model, 2, size=self.size, dropout=self.dropout).input_shape
        self._framing = self._framing or Framing(shape)
        run_name(self.model, "data", self.seed, version=self.version)
        self.forget = parse_classes(self.forget, self.dataset.classes, wnids=self.dataset.wnids)
        self._done = set()  # with `force`, what has been made anew already

    @functools.cached_property
    def dataset(self) -> Data:
        """The data set, read once, in the network's shape."""
        data = load_data(self.data, self.data_root, framing=self._framing)
        self._say_unreadable(data)
        return data

    @property
    def title(self) -> str:
        """Model and data set, for figures and tables."""
        return f"{self.model} on {self.dataset.title}"

    def train(self) -> Run:
        """The model trained on all classes."""
        return self._fit([])

    def golden(self) -> Run:
        """The model trained, from the same start, without the forget classes; it keeps all K outputs.

        Raises ValueError where there are no training pictures.
        """
        if not len(self.dataset.train):
            raise UserError(f"golden: {self.dataset.name} has no training pictures here to train one on")
        return self._fit(check_forget(self.forget, self.dataset.num_classes))

    def finished_golden(self) -> Run | None:
        """The golden model's run for the forget classes, where it has been trained."""
        name = self.run_name("golden", class_code(self.forget))
        return open_run(self.root, name) if (self.root / name / "config.json").is_file() else None

    def original(self) -> Run:
        """The trained model's run as it stands, whatever numbers it was trained with."""
        run = open_run(self.root, self.run_name())
        if run.config["classes"] != self.dataset.classes:
            raise UserError(
                f"data: {self.dataset.name} has the classes {self.dataset.classes[:5]}..., "
                f"the head of {run.name} was trained for {run.config['classes'][:5]}..."
            )
        return run

    def load(self, run: Run) -> nn.Module:
        """A run's model, on this experiment's device."""
        model = run.load_model().to(pick_device(self.device))
        model.input_range = self.dataset.pixel_range
        return model

    def impressions(
        self,
        layer: str | None = None,
        *,
        samples: int = 100,
        recipe: str = "calibrated",
        steps: int | None = None,
        on_step: Callable | None = None,
    ) -> Impressions:
        """Impressions of every class, made once and kept in the model's run folder; what `on_step` raises ends it."""
        run = self.original()
        model = self.load(run)
        layer = check_impressions(model, layer, samples, recipe, steps) or default_layer(model)
        path = run.path / f"impressions-{layer}-{recipe}.safetensors"
        words = {"samples": samples, "steps": steps, "seed": self.seed, "model_file": run.fingerprint()}
        kept = None if self._anew(path.name) else load_impressions(path, words)
        if kept is not None:
            self.say(f"impressions at {layer}, {recipe}: reused from {run.name}")
            return kept
        memory = round(self.memory * 2**20)
        made = make_impressions(
            model, layer, samples=samples, recipe=recipe, steps=steps, seed=self.seed, memory=memory, on_step=on_step
        )
        save_impressions(path, made, words)
        self.say(f"impressions at {layer}, {recipe}: {len(made.x):,} made in {made.seconds:.1f} s")
        return made

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
        original = self.original()
        model = self.load(original)
        recipe = recipe or default_recipe(method)
        layer = layer or (find_head(model) if method in ("mask", "published") else default_layer(model))
        numbers = unlearning_numbers(method, numbers)
        version = version or self.version
        name = run_name(
            self.model, self.dataset.name, self.seed, "unlearned", class_code(self.forget), method, version=version
        )
        arguments = self._arguments(original.config) | {"forget": self.forget, "method": method, "layer": layer}
        arguments |= {"samples": samples, "recipe": recipe, "version": version, **numbers}
        arguments |= {"original_run": original.name, "original_file": original.fingerprint()}
        golden = self.finished_golden()
        run = None if self._anew(name) else find_run(self.root, name, arguments)
        if run is not None:
            self.say(f"{name}: reused")
            return self._with_golden(run, golden)

        impressions = self.impressions(layer, samples=samples, recipe=recipe)
        unlearner = ZeroShotUnlearner(
            model, impressions, self.forget, method=method, layer=layer, seed=self.seed, **numbers
        )
        unlearned, history, seconds = unlearner.unlearn()
        self.say(f"{name}: unlearned in {seconds:.1f} s")
        kept = kept_activations(original, model, self.dataset, layer)

        def judge(net: nn.Module) -> dict:
            if kept is None:
                return evaluate(net, self.dataset, self.forget)
            return evaluate_tail(net, layer, *kept, self.dataset, self.forget)

        metrics = {
            "original": score(original.metrics["original"]["confusion"], self.forget),
            "masked": None if not _has_head(model) else judge(mask(model, self.forget)),
            "unlearned": judge(unlearned),
            "golden": None,
            "seconds": {"train": original.metrics["seconds"]["train"], "golden": None},
            "audit": None,
        }
        metrics["seconds"] |= {"impressions": impressions.seconds, "unlearn": seconds}
        run = write_run(self.root, name, arguments, unlearned, history, metrics, **self._notes(), golden_run=None)
        return self._with_golden(run, golden)

    def check_unlearning(self, method: str, *, layer=None, samples: int = 100, recipe=None, **numbers: float) -> None:
        """Raise ValueError for what `unlearn` does not accept; no trained model is needed for it."""
        check_forget(self.forget, self.dataset.num_classes)
        untrained = make_model(self.model, self.dataset.num_classes, size=self.size, dropout=self.dropout)
        untrained.eval()
        unknown = set(numbers) - set(UNLEARNING)
        if unknown:
            raise UserError(f"{min(unknown)}: no such number; {', '.join(UNLEARNING)} are accepted")
        layer = layer or (find_head(untrained) if method in ("mask", "published") else "input")
        check_method(untrained, method, layer)
        check_impressions(untrained, layer, samples, recipe or default_recipe(method), None)
        check_numbers(**unlearning_numbers(method, numbers))

    def _fit(self, forget: list[int]) -> Run:
        kind = "golden" if forget else "original"
        name = self.run_name(*(["golden", class_code(forget)] if forget else []))
        arguments = self._arguments() | {"forget": forget, "label_smoothing": self.label_smoothing, **self._training}
        anew = self._anew(name)
        run = None if anew else find_run(self.root, name, arguments)
        if run is not None:
            self.say(f"{name}: reused")
            return run
        checkpoint = self.root / name / "checkpoint.safetensors"
        if anew:
            checkpoint.unlink(missing_ok=True)
        model = make_model(self.model, self.dataset.num_classes, size=self.size, dropout=self.dropout, seed=self.seed)
        ready = self._start(model)
        begin, history = time.perf_counter(), {}
        if not ready:
            history = fit(
                model,
                self.dataset,
                forget=forget,
                label_smoothing=self.label_smoothing,
                seed=self.seed,
                device=self.device,
                checkpoint=checkpoint,
                save_every=self.save_every,
                **self._training,
            )
        seconds = time.perf_counter() - begin
        metrics = dict.fromkeys(("original", "masked", "unlearned", "golden", "audit"))
        metrics[kind] = evaluate(model.to(pick_device(self.device)), self.dataset, forget)
        metrics["seconds"] = dict.fromkeys(("train", "golden", "impressions", "unlearn"))
        metrics["seconds"]["golden" if forget else "train"] = seconds
        run = write_run(self.root, name, arguments, model.cpu(), history, metrics, **self._notes())
        accuracy = metrics[kind]["retain_accuracy" if forget else "overall_accuracy"]
        done = "weights taken as they come" if ready else f"trained in {seconds:.1f} s"
        self.say(f"{name}: {done}, {accuracy:.2%} of {'retain' if forget else 'test'} pictures right")
        return run

    def _start(self, model: nn.Module) -> bool:
        """Put the weights into a new model; whether it is ready, there being nothing to train it on.

        Raises ValueError where there is neither, or where the weights are for other classes than the data's.
        """
        empty, model_classes = not len(self.dataset.train), self.dataset.num_classes
        if self.weights is None:
            if empty:
                raise UserError(f"weights: none given, and {self.dataset.name} has no training pictures here")
            return False
        state = read_weights(self.model, self.weights)
        apply_weights(model, state, self.weights)
        if empty and outputs_of(model, state) != model_classes:
            raise UserError(
                f"weights: {self.weights} has {outputs_of(model, state)} outputs, {self.dataset.name} {model_classes} "
                "classes and no training pictures here"
            )
        if empty:
            model.eval()
        return empty

    def _take_over(self) -> None:
        """Weights and size of the original that there is, where none are given."""
        folder = Path(self.data).expanduser()
        name = self.model + "-" + (folder.resolve().name if folder.is_dir() else self.data)
        path = self.root / f"{name}-s{self.seed}{f'-{self.version}' if self.version else ''}" / "config.json"
        if self.size is None and self.weights is None and not self.force and path.is_file():
            config = read_json(path)
            self.size, self.weights = config.get("size"), config.get("weights")

    def _say_unreadable(self, data: Data) -> None:
        names = data.unreadable
        if names:
            few = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            what = "1 picture does not open and is" if len(names) == 1 else f"{len(names)} pictures do not open and are"
            self.say(f"{data.name}: {what} left out: {few}")

    def run_name(self, *parts: str) -> str:
        """The name of this experiment's run folder of one kind: of the original without `parts`."""
        return run_name(self.model, self.dataset.name, self.seed, *parts, version=self.version)

    def _arguments(self, trained: dict | None = None) -> dict:
        """What every run of this experiment is made with; of an unlearned run as the original was `trained`."""
        own = {"model": self.model, "data": self.dataset.name, "seed": self.seed, "version": self.version}
        words = vars(self) if trained is None else trained
        own |= {"weights": words["weights"]} if words.get("weights") else {}  # runs without weights are as they were
        return own | {key: words[key] for key in ("size", "dropout")}

    def _notes(self) -> dict:
        device = str(pick_device(self.device))
        given = str(self.data)  # a folder's path, of which `data` keeps the name
        notes = {"device": device, "source": self.dataset.source, "classes": self.dataset.classes, "data_given": given}
        return notes | ({"unreadable": self.dataset.unreadable} if self.dataset.unreadable else {})

    def _anew(self, name: str) -> bool:
        """Whether `force` asks for this now: once in the life of an experiment."""
        if not self.force or name in self._done:
            return False
        self._done.add(name)
        return True

    def _with_golden(self, run: Run, golden: Run | None) -> Run:
        """The unlearned run with the golden model's figures beside its own, where that has been trained."""
        metrics = run.metrics
        if golden is not None:
            block = score(golden.metrics["golden"]["confusion"], self.forget)
            seconds = metrics["seconds"] | {"golden": golden.metrics["seconds"]["golden"]}
            if metrics["golden"] != block or run.config["golden_run"] != golden.name:
                write_json(run.path / "metrics.json", metrics | {"golden": block, "seconds": seconds})
                run = Run(run.path, run.config | {"golden_run": golden.name})
                write_json(run.path / "config.json", run.config)
        return run


def experiment_of(run: Run, **changes) -> Experiment:
    """The experiment that an unlearned run came from, its original trained as it has been; `changes` put in place.

    Raises ValueError where the run is no unlearned one.
    """
    if "original_run" not in run.config:
        raise UserError(f"run: {run.name} given; an unlearned run is accepted")
    c, trained = run.config, open_run(run.path.parent, run.config["original_run"]).config
    own = {"model": c["model"], "data": c.get("data_given", c["data"]), "seed": c["seed"], "size": c["size"]}
    own |= {"forget": c["forget"], "dropout": c["dropout"], "runs_root": run.path.parent}
    own |= {f"train_{name}": trained[name] for name in ("epochs", "lr", "batch_size")}
    own |= {name: trained.get(name) for name in ("label_smoothing", "version", "weights")}
    return Experiment(**own | {name: value for name, value in changes.items() if value is not None})


def default_recipe(method: str) -> str:
    """The impressions that a method was made for."""
    return "published" if method == "published" else "calibrated"


def unlearning_numbers(method: str, given: dict) -> dict:
    """The method's own numbers, those that are `given` (and not None) put in their place."""
    own = PUBLISHED if method == "published" else UNLEARNING
    return own | {name: value for name, value in given.items() if value is not None}


def _has_head(model: nn.Module) -> bool:
    try:
        return bool(find_head(model))
    except ValueError:
        return False
