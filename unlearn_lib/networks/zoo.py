"""Where networks come from: LeNet5, KarpathyNet, EfficientNet-Lite0, torchvision's and timm's classifiers, and any
function that returns one."""

import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from types import ModuleType

import torch
import torchvision
from torch import nn
from torchvision.transforms import InterpolationMode

from unlearn_lib.common import UserError, check_number, check_seed
from unlearn_lib.networks.checks import check_logits, check_network
from unlearn_lib.networks.probing import run_on_zeros, unwrap, zero_pictures
from unlearn_lib.networks.small import KarpathyNet, LeNet5
from unlearn_lib.networks.tracing import first_line

OURS = {"lenet5": LeNet5, "karpathynet": KarpathyNet}
LITE0 = "efficientnet_lite0"
ABOUT_SIZES = re.compile("size|shape|dimension|height|width|kernel|channels", re.IGNORECASE)


@dataclass(frozen=True)
class Framing:
    """How a picture becomes a network's input.

    shape: (C, H, W).
    resize: the shorter side is scaled to this and the centre is cut out, as for torchvision's weights. None: the
        largest part of the right proportions is cut out and scaled.
    mean, std: of the channels, for normalisation. None: the data set's own.
    """

    shape: tuple[int, int, int]
    resize: int | None = None
    interpolation: InterpolationMode = InterpolationMode.BILINEAR
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def plain(self) -> dict:
        """Return the fields as JSON values, for a run's config."""
        return asdict(self) | {"interpolation": self.interpolation.value}


def check_model_name(name: str) -> None:
    """Raise UserError for an unknown network. Nothing is built; a `package.module:factory` is not imported."""
    if name in OURS:
        return
    if name == LITE0:
        import_package("efficientnet_lite_pytorch", name, "efficientnet-lite-pytorch")
    elif name.startswith("timm/"):
        timm = import_package("timm", name, "timm")
        code = name.removeprefix("timm/")
        if not timm.is_model(code):
            near = get_close_matches(code, timm.list_models(), 6) or ["resnet18", "vit_tiny_patch16_224"]
            raise UserError(f"model: got {name!r}; timm has {', '.join(near)} and others")
    elif is_factory(name):
        place, _, factory = name.partition(":")
        if not (factory.isidentifier() and all(part.isidentifier() for part in place.split("."))):
            raise UserError(f"model: got {name!r}; expected package.module:factory")
    elif name not in torchvision_names():
        known = torchvision_names()
        near = [n for n in known if n.startswith(name[:3])] or ["alexnet", "resnet18", "vgg11_bn"]
        raise UserError(
            f"model: got {name!r}; expected lenet5, karpathynet, {LITE0}, timm/NAME, package.module:factory or a "
            f"torchvision classifier such as {', '.join(near[:6])}"
        )


def input_shape(name: str, size: int | None = None) -> tuple[int, int, int]:
    """Return the shape (C, H, W) of a network's pictures. Only a network by factory is built for that.

    Args:
        size: height and width. None: 224 for efficientnet_lite0, the size of a timm network that takes one size alone,
            the `input_shape` of a user's network, else 64.

    Raises:
        UserError: unknown name, or a size that the network does not take.
    """
    if is_factory(name):
        return make_model(name, None, size=size).input_shape
    check_model_name(name)
    size = size if size is None else check_number("size", size, whole=True, least=1)
    if name in OURS:
        shape = OURS[name].input_shape
        if size not in (None, shape[-1]):
            raise UserError(f"size: got {size}; {name} takes {shape[-1]}")
        return shape
    channels, usual = 3, 224 if name == LITE0 else 64
    if name.startswith("timm/"):
        channels, fixed = _timm_input(name)
        usual = fixed or usual
    return channels, size or usual, size or usual


def make_model(
    name: str,
    num_classes: int | None,
    *,
    size: int | None = None,
    dropout: float | None = None,
    seed: int = 0,
    pretrained: bool = False,
) -> nn.Module:
    """Build a freshly initialised classifier in training mode, with its `input_shape` (C, H, W).

    Args:
        name: `lenet5`, `karpathynet`, `efficientnet_lite0`, a torchvision classifier, `timm/NAME`, or
            `package.module:factory`, a user's function or class. A factory is called with num_classes and size where
            it takes them. It is code, and is found from the current folder, too.
        num_classes: None leaves the network's default (2 where a factory has none).
        size: height and width of a picture, see `input_shape`.
        dropout: rate in [0, 1); None leaves the network's own.
        pretrained: pretrained weights will be loaded, so that GoogLeNet and Inception have to transform their input.

    Raises:
        UserError: unknown name, a size that the network does not take, or dropout for a network without it.

    Example:
        >>> make_model("resnet18", 10, size=32).input_shape
        (3, 32, 32)
    """
    name = str(name)
    classes = {}
    if num_classes is not None:
        classes["num_classes"] = check_number("num_classes", num_classes, whole=True, least=1)
    if dropout is not None:
        dropout = check_number("dropout", dropout, least=0, below=1)
    with torch.random.fork_rng():
        torch.manual_seed(check_seed(seed))
        model = _build_by_factory(name, classes, size)[0] if is_factory(name) else _build(name, classes, size)
        with explain_errors(name, model.input_shape[-1]):
            logits = run_on_zeros(model, model)
        check_logits(logits, classes.get("num_classes"), name)
    if dropout is not None:
        _set_dropout(model, name, dropout)
    if pretrained:
        transform_input(model)
    return model.train()


def _build(name: str, classes: dict, size: int | None) -> nn.Module:
    """Build a network by its name."""
    shape = input_shape(name, size)
    side = shape[-1]
    if name in OURS:
        return OURS[name](**classes)
    with explain_errors(name, side):
        if name == LITE0:
            package = importlib.import_module("efficientnet_lite_pytorch")
            model = package.EfficientNet.from_name("efficientnet-lite0", image_size=side, **classes)
        elif name.startswith("timm/"):
            extra = {"img_size": side} if _timm_input(name)[1] not in (None, side) else {}
            model = importlib.import_module("timm").create_model(name.removeprefix("timm/"), **classes, **extra)
        else:
            extra = {"image_size": side} if name.startswith("vit_") else {}
            if name in ("googlenet", "inception_v3"):
                extra = {"aux_logits": False, "init_weights": True}
            model = torchvision.models.get_model(name, weights=None, **classes, **extra)
    model.input_shape = shape
    return model


def _timm_input(name: str) -> tuple[int, int | None]:
    """Return a timm network's number of channels, and its size if it takes one size alone."""
    config = importlib.import_module("timm").get_pretrained_cfg(name.removeprefix("timm/"))
    if config is None:
        return 3, None
    return config.input_size[0], config.input_size[-1] if config.fixed_input_size else None


def _build_by_factory(name: str, classes: dict, size: int | None) -> tuple[nn.Module, int]:
    """Build a network by a user's function. Return it, and the height that it has without `size`."""
    place, _, factory = name.partition(":")
    given = classes | ({} if size is None else {"size": check_number("size", size, whole=True, least=1)})
    check_model_name(name)
    with _current_folder_first(), explain_errors(name):
        make = getattr(importlib.import_module(place), factory)
        takes = inspect.signature(make).parameters
        takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in takes.values())
        if "num_classes" in takes and takes["num_classes"].default is inspect.Parameter.empty:
            given = {"num_classes": 2} | given
        model = make(**{key: value for key, value in given.items() if takes_any or key in takes})
    if not isinstance(model, nn.Module):
        raise UserError(
            f"model: {name} returns a {type(model).__name__}; expected a function that returns an nn.Module"
        )
    model = unwrap(model)
    channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)
    side = given.get("size", 64)
    default = tuple(getattr(model, "input_shape", (channels, side, side)))
    model.input_shape = default if size is None else (default[0], side, side)
    with explain_errors(name, model.input_shape[-1]), torch.no_grad():
        model.eval()(zero_pictures(model))  # lazy modules get their shapes
        check_network(model, name)
    return model, default[-1]


def factory_framing(name: str, size: int | None) -> Framing:
    """Return the framing of a user's network: its attribute `framing`, a `Framing` or a dict of its fields."""
    with torch.random.fork_rng():
        model, default_side = _build_by_factory(name, {}, size)
    framing = getattr(model, "framing", None) or {}
    try:
        if isinstance(framing, dict):
            mode = InterpolationMode(framing.get("interpolation", "bilinear"))
            framing = Framing(**framing | {"shape": model.input_shape, "interpolation": mode})
        resize = framing.resize and round(framing.resize * model.input_shape[-1] / default_side)
        return replace(framing, shape=model.input_shape, resize=resize)
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"model: the framing of {name} is {framing!r}; expected a dict of Framing's fields") from error


def _set_dropout(model: nn.Module, name: str, rate: float) -> None:
    """Set the rate of all dropout layers. Raises UserError where there are none."""
    layers = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    if isinstance(model, LeNet5 | KarpathyNet):
        model.dropout = rate
    elif not layers:
        raise UserError(f"dropout: got {rate}, but {name} has no dropout layer")
    for layer in layers:
        layer.p = rate


def transform_input(model: nn.Module) -> None:
    """Let GoogLeNet and Inception transform their input as their pretrained weights need, as torchvision does."""
    if isinstance(model, torchvision.models.GoogLeNet | torchvision.models.Inception3):
        model.transform_input = True


def model_code(name: str) -> str:
    """Return a network's name as a part of a folder's name: `timm_resnet18`, `package.module_factory`."""
    return re.sub(r"[^\w.-]+", "_", name)


def is_factory(name: str) -> bool:
    """Return whether the name is a `package.module:factory`."""
    return ":" in name and not name.startswith("timm/")


def import_package(package: str, name: str, install: str) -> ModuleType:
    """Import the package that a network comes from. Raises UserError where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"model: got {name}, but {package} is not installed; pip install {install}") from error


def torchvision_names() -> list[str]:
    """Return the names of torchvision's classifiers."""
    return torchvision.models.list_models(module=torchvision.models)


@contextmanager
def explain_errors(name: str, side: int | None = None) -> Iterator[None]:
    """Turn an exception in a network's code into a sentence with its reason. A lack of memory passes as it is.

    Args:
        side: of the pictures in a forward pass; None while the network is made.
    """
    try:
        yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = f"({type(error).__name__}: {first_line(error)})"
        if side is None:
            raise UserError(f"model: {name} makes no network {reason}") from error
        if isinstance(error, RuntimeError | ValueError | AssertionError) and ABOUT_SIZES.search(reason):
            advice = "try 224" + ", or set the network's input_shape" * is_factory(name)
            raise UserError(f"size: {name} does not take pictures of {side}x{side} {reason}; {advice}") from error
        raise UserError(f"model: {name} fails on a picture {reason}") from error


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """Let imports look into the current folder first."""
    here = os.getcwd()
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(here)
