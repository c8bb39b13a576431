"""A data set of four classes and a network that learns it in a second: 8x8 grey pictures with one bright quadrant."""

import multiprocessing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import torch
from PIL import Image
from torch import nn

from unlearn_lib import Data, Run, Split, evaluate, fit, mask, open_run
from unlearn_lib.data import Pictures
from unlearn_lib.networks import Framing, class_code, run_name, run_names, write_run
from unlearn_lib.networks.runs import load_weights

START = multiprocessing.get_context("fork")  # real processes without a second import of torch
torch.ones((), requires_grad=True).backward()  # where the first one follows on a trace of attention, a child has none
CLASSES = ["north-west", "north-east", "south-west", "south-east"]


def draw(count: int, seed: int, noise: float = 60.0) -> Split:
    """`count` pictures of each class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(4).repeat(count)
    images = 40 + noise * torch.randn(len(labels), 1, 8, 8, generator=generator)
    for c in range(4):
        row, column = 4 * (c // 2), 4 * (c % 2)
        images[labels == c, :, row : row + 4, column : column + 4] += 70
    return Split(images.clamp(0, 255).to(torch.uint8), labels)


def tiny_data(train: int = 40, test: int = 30, noise: float = 60.0) -> Data:
    parts = [draw(n, seed, noise) for seed, n in enumerate((train, 5, test))]
    return Data("tiny", "tiny", "drawn here", CLASSES, *parts, flip=False)


def tiny_network(seed: int = 0, classes: int = 4) -> nn.Module:
    """Convolution, BatchNorm, ReLU, pooling and two linear layers: `conv norm relu pool flatten hidden act head`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential()
        parts = {"conv": nn.Conv2d(1, 4, 3, padding=1), "norm": nn.BatchNorm2d(4), "relu": nn.ReLU()}
        parts |= {"pool": nn.MaxPool2d(2), "flatten": nn.Flatten(), "hidden": nn.Linear(64, 16), "act": nn.ReLU()}
        for name, part in (parts | {"head": nn.Linear(16, classes)}).items():
            net.add_module(name, part)
    net.input_shape = (1, 8, 8)
    return net


def large_network(seed: int = 0) -> nn.Module:
    """Of more than five million parameters, which are updated by a fused step; two convolutions among them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Flatten()
        return nn.Sequential(*body, nn.Linear(1024, 5000), nn.ReLU(), nn.Linear(5000, 4))


def changed(data: Data, part: str, images: torch.Tensor | None = None, labels: torch.Tensor | None = None) -> Data:
    """The same data with other pictures or labels in one split."""
    split = getattr(data, part)
    split = replace(split, images=split.images if images is None else images)
    return replace(data, **{part: replace(split, labels=split.labels if labels is None else labels)})


def on_disk(data: Data, folder: Path) -> Data:
    """The same data as files that are read when needed."""
    parts = {}
    for name in ("train", "val", "test"):
        split = getattr(data, name)
        paths = [folder / f"{name}-{i}.png" for i in range(len(split))]
        for path, image in zip(paths, split.images, strict=True):
            Image.fromarray(image[0].numpy()).save(path)
        parts[name] = replace(split, images=Pictures(paths, Framing((1, 8, 8))))
    return replace(data, **parts)


@dataclass(frozen=True)
class TinyExperiment:
    """The part of an Experiment that an audit needs, with the tiny network: half a second a training."""

    root: Path
    seed: int = 0
    forget_classes: tuple[int, ...] = (1, 3)
    data: Data = field(default_factory=tiny_data)
    model, version, start = "tiny", None, MappingProxyType({})

    @cached_property
    def dataset(self) -> Data:
        return self.data

    def variant(self, **changes) -> "TinyExperiment":
        return replace(self, **changes)

    def run_name(self, *parts: str) -> str:
        return run_name(self.model, self.dataset.name, self.seed, *parts, version=self.version)

    def finished_original(self) -> Run | None:
        return self._finished()

    def finished_golden(self) -> Run | None:
        return self._finished("golden", class_code(self.forget_classes))

    def train(self) -> Run:
        return self._write("original", self._trained(()), ())

    def golden(self) -> Run:
        net = self._trained(self.forget_classes)
        return self._write("golden", net, self.forget_classes, "golden", class_code(self.forget_classes))

    def new_model(self, seed: int) -> nn.Module:
        return tiny_network(seed)

    def load(self, run: Run) -> nn.Module:
        return load_weights(tiny_network(), run.path / "model.safetensors").eval()

    def unlearn(self) -> Run:
        """The mask at the head, its biases then brought near enough to be relearned."""
        original = self.finished_original()
        net = mask(self.load(original), self.forget_classes)
        with torch.no_grad():
            net.head.bias[list(self.forget_classes)] = -20.0
        config = {"original_run": original.name, "original_file": original.fingerprint()}
        return self._write("unlearned", net, self.forget_classes, "unlearned", **config)

    def _finished(self, *parts: str) -> Run | None:
        name = self.run_name(*parts)
        return open_run(self.root, name) if name in run_names(self.root) else None

    def _trained(self, forget: tuple[int, ...]) -> nn.Module:
        net = tiny_network(self.seed)
        fit(net, self.dataset, forget=forget, epochs=4, lr=0.02, batch_size=32, seed=self.seed)
        return net

    def _write(self, kind: str, net: nn.Module, forget: tuple[int, ...], *parts: str, **config) -> Run:
        arguments = {"model": "tiny", "data": "tiny", "seed": self.seed, "forget": list(forget), **config}
        metrics = {"audit": None, kind: evaluate(net, self.dataset, self.forget_classes)}
        return write_run(self.root, self.run_name(*parts), arguments, net, {}, metrics)
