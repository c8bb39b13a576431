"""Weights from elsewhere: torchvision's by their name, or a local state dict; and the preprocessing that they want."""

from pathlib import Path

import torch
import torchvision
from torch import nn

from unlearn_lib.common import NotFound, UserError
from unlearn_lib.networks.splitting import find_head
from unlearn_lib.networks.zoo import Framing
from unlearn_lib.store import load_tensors


def framing_of(model: str, weights: str | None, size: int | None = None) -> Framing | None:
    """How torchvision's weights of this name want their pictures; for a file, as the network's default weights do.

    size: height and width in place of theirs, the shorter side before the cut in the same proportion.
    None without weights and for networks that torchvision has none for.
    """
    if weights is None or model not in torchvision.models.list_models(module=torchvision.models):
        return None
    theirs = _named(model, "DEFAULT" if is_file(weights) else weights).transforms()
    crop, resize = theirs.crop_size[0], theirs.resize_size[0]
    size = size or crop
    return Framing(
        (3, size, size), round(resize * size / crop), theirs.interpolation, tuple(theirs.mean), tuple(theirs.std)
    )


def is_file(weights: str) -> bool:
    """Whether `weights` means a file and not a name."""
    path = Path(weights).expanduser()
    return path.is_file() or path.suffix in (".pth", ".pt", ".bin", ".safetensors")


def read_weights(model: str, weights: str) -> dict[str, torch.Tensor]:
    """The state dict of torchvision's weights by name (`IMAGENET1K_V1`, `DEFAULT`), downloaded where absent, or of a
    file: `.safetensors`, or what `torch.load(weights_only=True)` reads, also wrapped as checkpoints often are.

    Raises ValueError for an unknown name or a file that is no state dict, FileNotFoundError where it cannot be had.
    """
    path = Path(weights).expanduser() if is_file(weights) else _fetched(_named(model, weights))
    if not path.is_file():
        raise NotFound(f"weights: no file {path}")
    try:
        state = load_tensors(path)[0] if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        for wrapper in ("state_dict", "model_state_dict", "model"):
            state = state[wrapper] if isinstance(state.get(wrapper), dict) else state
        if not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
            raise UserError("not only tensors in it")
    except Exception as error:  # unpickling raises whatever it likes
        raise UserError(f"weights: {path} is not a state dict ({type(error).__name__})") from error
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def apply_weights(model: nn.Module, state: dict[str, torch.Tensor], words: str) -> nn.Module:
    """Load a state dict into the model; a head for another number of classes is left as it was initialised.

    Auxiliary classifiers are skipped. Raises ValueError where anything else does not fit; `words` names the weights.
    """
    own = model.state_dict()
    state = {name: t for name, t in state.items() if not name.lower().startswith("aux")}
    wrong = {name for name in own.keys() | state.keys() if name not in own or name not in state}
    wrong |= {name for name in own.keys() & state.keys() if own[name].shape != state[name].shape}
    head = {f"{find_head(model)}.weight", f"{find_head(model)}.bias"} if wrong else set()
    strange = sorted(wrong - (head & state.keys()))
    if strange:
        raise UserError(f"weights: {words} given, which does not fit the model ({strange[0]})")
    model.load_state_dict({name: own[name] if name in wrong else tensor for name, tensor in state.items()})
    return model


def outputs_of(model: nn.Module, state: dict[str, torch.Tensor]) -> int:
    """The number of classes that a state dict of this kind of model was made for."""
    return len(state[f"{find_head(model)}.weight"])


def _named(model: str, name: str):
    known = torchvision.models.get_model_weights(model)
    if name not in known.__members__:
        raise UserError(
            f"weights: {name!r} given; for {model} {', '.join(known.__members__)} or the file of a state dict is "
            "accepted"
        )
    return known[name]


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
