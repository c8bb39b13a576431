"""Where networks come from: LeNet5, KarpathyNet and torchvision's classifiers."""

from dataclasses import dataclass

import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode

from unlearn_lib.common import UserError


@dataclass(frozen=True)
class Framing:
    """How a picture becomes what a network takes: its shape (C, H, W), and how it is cut and scaled to it.

    resize: the shorter side is scaled to this and the middle cut out, as torchvision's weights want it; None: the
    largest part of the right proportions is cut out and scaled. mean, std: of the channels; None: the data set's own.
    """

    shape: tuple[int, int, int]
    resize: int | None = None
    interpolation: InterpolationMode = InterpolationMode.BILINEAR
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


class LeNet5(nn.Module):
    """6-16-120-84 network for 28x28 grey pictures (LeCun et al. 1998), with ReLU and max pooling; 99.2 % on MNIST."""

    input_shape = (1, 28, 28)

    def __init__(self, num_classes: int = 10, dropout: float = 0.0):
        super().__init__()
        self.dropout = dropout
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool1(F.relu(self.conv1(x)))
        x = self.flatten(self.pool2(F.relu(self.conv2(x))))
        x = F.relu(self.fc2(F.relu(self.fc1(x))))
        return self.fc3(F.dropout(x, self.dropout, self.training))

    def extra_repr(self) -> str:
        return f"dropout={self.dropout}"


class KarpathyNet(nn.Module):
    """Six 5x5 convolutions of 16 filters in three pooled pairs and one linear layer, for 32x32 colour pictures."""

    input_shape = (3, 32, 32)

    def __init__(self, num_classes: int = 10, dropout: float = 0.0):
        super().__init__()
        self.dropout = dropout
        self.conv11 = nn.Conv2d(3, 16, 5, padding=2)
        self.conv12 = nn.Conv2d(16, 16, 5, padding=2)
        self.pool1 = nn.MaxPool2d(2)
        self.conv21 = nn.Conv2d(16, 16, 5, padding=2)
        self.conv22 = nn.Conv2d(16, 16, 5, padding=2)
        self.pool2 = nn.MaxPool2d(2)
        self.conv31 = nn.Conv2d(16, 16, 5, padding=2)
        self.conv32 = nn.Conv2d(16, 16, 5, padding=2)
        self.pool3 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(256, num_classes)
        for module in self.modules():  # PyTorch's own start is too small for seven layers to learn from few pictures
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool1(F.relu(self.conv12(F.relu(self.conv11(x)))))
        x = self.pool2(F.relu(self.conv22(F.relu(self.conv21(x)))))
        x = self.pool3(F.relu(self.conv32(F.relu(self.conv31(x)))))
        return self.fc1(F.dropout(self.flatten(x), self.dropout, self.training))

    def extra_repr(self) -> str:
        return f"dropout={self.dropout}"


def make_model(
    name: str, num_classes: int, *, size: int | None = None, dropout: float | None = None, seed: int = 0
) -> nn.Module:
    """A freshly initialised classifier: `lenet5`, `karpathynet` or any torchvision classifier by its name.

    size: height and width of a picture, for torchvision's networks (64 where none is given). dropout: rate in
    [0, 1); None leaves the network's own. The picture's (C, H, W) stands in `model.input_shape`.
    Raises ValueError on an unknown name, a size that the network does not take, or dropout where it has none.
    """
    own = {"lenet5": LeNet5, "karpathynet": KarpathyNet}
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in own and name not in known:
        near = [n for n in known if n.startswith(name[:3])] or ["alexnet", "resnet18", "vgg11_bn"]
        raise UserError(
            f"model: {name!r} given; lenet5, karpathynet or a torchvision classifier such as {', '.join(near[:6])} "
            "is accepted"
        )
    if dropout is not None and not 0 <= dropout < 1:
        raise UserError(f"dropout: {dropout} given; a rate from 0 up to, not including, 1 is accepted")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if name in own:
            if size not in (None, own[name].input_shape[-1]):
                raise UserError(f"size: {size} given; {name} takes {own[name].input_shape[-1]}")
            return own[name](num_classes, dropout or 0.0)
        extra = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
        if name.startswith("vit_"):
            extra["image_size"] = size or 64
        try:
            model = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **extra)
            model.input_shape = (3, size or 64, size or 64)
            with torch.no_grad():
                model.eval()(torch.zeros(1, *model.input_shape))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UserError(f"size: {name} does not take pictures of {size or 64}x{size or 64}; try 224") from error
    drops = [m for m in model.modules() if isinstance(m, nn.Dropout)]
    if dropout is not None:
        if not drops:
            raise UserError(f"dropout: {dropout} given, but {name} has no dropout layer")
        for module in drops:
            module.p = dropout
    return model.train()
