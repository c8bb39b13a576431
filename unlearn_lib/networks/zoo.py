"""Where networks come from: LeNet5, KarpathyNet, EfficientNet-Lite0, torchvision's and timm's classifiers, and any
function that returns one."""

import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from types import ModuleType

import torch
import torchvision
from torch import nn
from torchvision.transforms import InterpolationMode

from unlearn_lib.common import UserError, as_number
from unlearn_lib.networks.checks import check_network
from unlearn_lib.networks.probing import run_on_zeros, unwrap
from unlearn_lib.networks.small import KarpathyNet, LeNet5
from unlearn_lib.networks.tracing import describe_wrong_output, first_line


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

    def unwrap(self) -> dict:
        """Itself in JSON's kinds of values, for a run's config."""
        return asdict(self) | {"interpolation": self.interpolation.value}


OURS = {"lenet5": LeNet5, "karpathynet": KarpathyNet}
_ANSWERED = set()  # networks by name, classes and size, which have shown that they answer


def make_model(
    name: str,
    num_classes: int | None,
    *,
    size: int | None = None,
    dropout: float | None = None,
    seed: int = 0,
    pretrained: bool = False,
) -> nn.Module:
    """A freshly initialised classifier: `lenet5`, `karpathynet`, `efficientnet_lite0`, a torchvision classifier by its
    name, `timm/NAME`, or `package.module:factory`, a function or class of the user's own.

    num_classes: None leaves the network's default (2 where a factory has none). size: height and width of a picture;
    where none is given 224 for efficientnet_lite0, its own for a timm network that takes one size alone, the
    `input_shape` of a user's network, else 64. dropout: rate in [0, 1); None leaves the network's own. pretrained:
    whether weights from elsewhere will go in, for which GoogLeNet and Inception change their input. The picture's
    (C, H, W) stands in `model.input_shape`.
    A factory is called with num_classes and size where it takes them; it is code, found from the current folder too.
    Raises UserError on an unknown name, a size that the network does not take, or dropout where it has none.
    """
    num_classes, size, dropout = (
        given if given is None else as_number(argument, given)
        for argument, given in (("num_classes", num_classes), ("size", size), ("dropout", dropout))
    )
    for argument, given in (("num_classes", num_classes), ("size", size)):
        if given is not None and given < 1:
            raise UserError(f"{argument}: {given} given; at least 1 is accepted")
    if dropout is not None and not 0 <= dropout < 1:
        raise UserError(f"dropout: {dropout} given; a rate from 0 up to, not including, 1 is accepted")
    make, seed = _maker(str(name)), as_number("seed", seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make(name, {} if num_classes is None else {"num_classes": num_classes}, size)
        if (kind := (name, num_classes, model.input_shape)) not in _ANSWERED or ":" in name:
            _check_answers(model, name, num_classes)
            _ANSWERED.add(kind)
    drops = [m for m in model.modules() if isinstance(m, nn.Dropout)]
    if dropout is not None and isinstance(model, LeNet5 | KarpathyNet):
        model.dropout = dropout
    elif dropout is not None:
        if not drops:
            raise UserError(f"dropout: {dropout} given, but {name} has no dropout layer")
        for module in drops:
            module.p = dropout
    if pretrained:
        prepare_input(model)
    return model.train()


def prepare_input(model: nn.Module) -> None:
    """Let GoogLeNet and Inception change the input to what their weights were trained on, as torchvision does."""
    if isinstance(model, torchvision.models.GoogLeNet | torchvision.models.Inception3):
        model.transform_input = True


def model_code(name: str) -> str:
    """A network's name as part of a folder's: `timm_resnet18`, `package.module_factory`."""
    return re.sub(r"[^\w.-]+", "_", name)


def import_package(package: str, name: str, install: str) -> ModuleType:
    """The package that a network comes from. Raises UserError where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"model: {name} given, but {package} is not installed; pip install {install}") from error


def torchvision_names() -> list[str]:
    """The names of torchvision's classifiers."""
    return torchvision.models.list_models(module=torchvision.models)


def _maker(name: str):
    """The function that makes networks of this kind of name."""
    if name in OURS:
        return _make_ours
    if name == "efficientnet_lite0":
        return _make_lite0
    if name.startswith("timm/"):
        return _make_timm
    if ":" in name:
        return _make_by_factory
    known = torchvision_names()
    if name not in known:
        near = [n for n in known if n.startswith(name[:3])] or ["alexnet", "resnet18", "vgg11_bn"]
        raise UserError(
            f"model: {name!r} given; lenet5, karpathynet, efficientnet_lite0, timm/NAME, package.module:factory or a "
            f"torchvision classifier such as {', '.join(near[:6])} is accepted"
        )
    return _make_torchvision


def _make_ours(name: str, classes: dict, size: int | None) -> nn.Module:
    if size not in (None, OURS[name].input_shape[-1]):
        raise UserError(f"size: {size} given; {name} takes {OURS[name].input_shape[-1]}")
    return OURS[name](**classes)


def _make_torchvision(name: str, classes: dict, size: int | None) -> nn.Module:
    size = size or 64
    extra = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    if name.startswith("vit_"):
        extra["image_size"] = size
    with _size_told(name, size):
        model = torchvision.models.get_model(name, weights=None, **classes, **extra)
    model.input_shape = (3, size, size)
    return model


def _make_lite0(name: str, classes: dict, size: int | None) -> nn.Module:
    size = size or 224
    package = import_package("efficientnet_lite_pytorch", name, "efficientnet-lite-pytorch")
    model = package.EfficientNet.from_name("efficientnet-lite0", image_size=size, **classes)
    model.input_shape = (3, size, size)
    return model


def _make_timm(name: str, classes: dict, size: int | None) -> nn.Module:
    timm, code = import_package("timm", name, "timm"), name.removeprefix("timm/")
    if not timm.is_model(code):
        near = get_close_matches(code, timm.list_models(), 6) or ["resnet18", "vit_tiny_patch16_224"]
        raise UserError(f"model: {name!r} given; timm has {', '.join(near)} and others")
    config = timm.get_pretrained_cfg(code)
    channels, *sides = config.input_size if config else (3, 224, 224)
    fixed = config is not None and config.fixed_input_size
    size = size or (sides[-1] if fixed else 64)
    with _size_told(name, size):
        model = timm.create_model(code, **classes, **({"img_size": size} if fixed and size != sides[-1] else {}))
    model.input_shape = (channels, size, size)
    return model


def _make_by_factory(name: str, classes: dict, size: int | None) -> nn.Module:
    place, _, factory = name.partition(":")
    given = classes | ({} if size is None else {"size": size})
    with _here_first():
        try:
            make = getattr(importlib.import_module(place), factory)
            takes = inspect.signature(make).parameters
            anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in takes.values())
            given = {key: value for key, value in given.items() if anything or key in takes}
            if "num_classes" in takes and takes["num_classes"].default is inspect.Parameter.empty:
                given = {"num_classes": 2} | given
            model = make(**given)
        except Exception as error:  # it is the user's code
            raise UserError(f"model: {name} makes no network ({type(error).__name__}: {first_line(error)})") from error
    if not isinstance(model, nn.Module):
        raise UserError(
            f"model: {name} returns a {type(model).__name__}; a function that returns an nn.Module is accepted"
        )
    model = unwrap(model)
    channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)
    shape = tuple(getattr(model, "input_shape", (channels, size or 64, size or 64)))
    model.input_shape = shape if size is None else (shape[0], size, size)
    model.own_size = shape[-1]  # for which its framing is meant
    with _size_told(name, model.input_shape[-1]):
        check_network(model, name)
    return model


def _check_answers(model: nn.Module, name: str, num_classes: int | None) -> None:
    """Raise UserError where a network does not answer two of its pictures with as many logits as there are classes."""
    with _size_told(name, model.input_shape[-1]):
        answers = run_on_zeros(model.eval(), model)
    if not isinstance(answers, torch.Tensor):
        raise UserError(describe_wrong_output(model, type(answers)))
    if answers.dim() != 2 or num_classes not in (None, answers.shape[1]):
        found = "x".join(map(str, answers.shape[1:]))
        raise UserError(f"model: {name} has {found} outputs; {num_classes or 'a row of them'} are wanted, one a class")


@contextmanager
def _size_told(name: str, size: int) -> Iterator[None]:
    """Turn what a network raises at pictures that do not suit it into a sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # networks refuse in many ways
        sentence = f"size: {name} does not take pictures of {size}x{size}; try 224"
        reason = f", or set the network's input_shape ({first_line(error)})" if ":" in name else ""
        raise UserError(sentence + reason) from error


@contextmanager
def _here_first() -> Iterator[None]:
    """Let imports look into the current folder first."""
    here = os.getcwd()
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(here)
