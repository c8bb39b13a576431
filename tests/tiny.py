"""A data set of four classes and a network that learns it in a second: 8x8 grey pictures with one bright quadrant."""

from dataclasses import replace

import torch
from torch import nn

from unlearn_lib import Data, Split

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


def changed(data: Data, part: str, images: torch.Tensor | None = None, labels: torch.Tensor | None = None) -> Data:
    """The same data with other pictures or labels in one split."""
    split = getattr(data, part)
    split = replace(split, images=split.images if images is None else images)
    return replace(data, **{part: replace(split, labels=split.labels if labels is None else labels)})
