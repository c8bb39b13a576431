"""Run folders: `config.json`, `metrics.json`, `history.json`, `model.safetensors`, and impressions beside them.

A folder appears whole or not at all: it is written under another name and then renamed. There is no pickle in it.
"""

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from unlearn_lib.data import REPOSITORY
from unlearn_lib.models import make_model

# what config.json tells besides
CONFIG_NOTES = {"versions", "device", "source", "classes", "data_given", "golden_run", "unreadable"}


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and what its config.json says."""

    path: Path
    config: dict

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def metrics(self) -> dict:
        return read_json(self.path / "metrics.json")

    @property
    def blocks(self) -> dict[str, dict | None]:
        """The evaluated models side by side: original, masked, unlearned and golden; None where there is none."""
        metrics = self.metrics
        return {name: metrics[name] for name in ("original", "masked", "unlearned", "golden")}

    @property
    def history(self) -> dict:
        return read_json(self.path / "history.json")

    def load_model(self) -> nn.Module:
        """The saved model, in eval mode, on the CPU. Raises ValueError where the file is damaged or another model's."""
        c = self.config
        model = make_model(c["model"], len(c["classes"]), size=c["size"], dropout=c["dropout"])
        return load_weights(model, self.path / "model.safetensors").eval()

    def fingerprint(self) -> str:
        """Digest of the model file: what was made from it can tell whether it is still the same model."""
        return hashlib.sha256((self.path / "model.safetensors").read_bytes()).hexdigest()[:16]


def runs_root(root: str | Path | None = None) -> Path:
    """Where runs lie: `root`, else `$UNLEARN_RUNS`, else the repository's `data/runs/`; made where absent.

    Raises ValueError where nothing can be written there.
    """
    root = Path(root or os.environ.get("UNLEARN_RUNS") or REPOSITORY / "data" / "runs").expanduser()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            return root
    except OSError as error:
        raise ValueError(
            f"runs-root: {root} given ({error.strerror}); a folder that can be written is accepted"
        ) from error


def class_code(classes: Iterable[int]) -> str:
    """Classes for a folder's name: `1-4`, `3_4_8`; beyond 40 characters their count and six hex digits."""
    words, row = [], []
    for c in [*sorted(classes), None]:
        if row and c != row[-1] + 1:
            words += [f"{row[0]}-{row[-1]}"] if len(row) > 2 else map(str, row)
            row = []
        row.append(c)
    code = "_".join(words)
    return code if len(code) <= 40 else f"{len(set(classes))}_{hashlib.sha256(code.encode()).hexdigest()[:6]}"


def run_name(model: str, data: str, seed: int, *parts: str, version: str | None = None) -> str:
    """`<model>-<data>[-golden-<classes> or -unlearned-<classes>-<method>]-s<seed>[-<version>]`."""
    name = "-".join([model, data, *parts, f"s{seed}", *([version] if version else [])])
    if name != Path(name).name or name.startswith("."):
        raise ValueError(f"version-name: {version!r} given; letters, digits, '.', '_' and '-' are accepted")
    return name


def find_run(root: Path, name: str, arguments: dict, *, force: bool = False) -> Run | None:
    """The finished run of this name where there is one and `force` does not ask for it anew.

    Raises ValueError where it was made with other arguments.
    """
    if force or not (root / name / "config.json").is_file():
        return None
    run = open_run(root, name)
    old = {key: value for key, value in run.config.items() if key not in CONFIG_NOTES}
    new = json.loads(json.dumps(arguments))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise ValueError(
                f"{key.replace('_', '-')}: {new.get(key)} given, but {name} was made with {old.get(key)}; "
                "--force makes it anew, --version-name keeps both"
            )
    return run


def open_run(root: Path, name: str) -> Run:
    """The run of this name. Raises FileNotFoundError with the names of those that there are."""
    if not (root / name / "config.json").is_file():
        raise FileNotFoundError(f"run: no {name!r} in {root}; there: {', '.join(run_names(root)) or 'none'}")
    return Run(root / name, read_json(root / name / "config.json"))


def run_names(root: Path) -> list[str]:
    """Names of the finished runs below `root`, sorted."""
    return sorted(p.parent.name for p in root.glob("*/config.json") if not p.parent.name.startswith("."))


def write_run(root: Path, name: str, arguments: dict, model: nn.Module, history: dict, metrics: dict, **notes) -> Run:
    """Write a run folder, in place of an older one of that name, and return it."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__}
    config = {**arguments, **notes, "versions": versions}
    new, old = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=root)), root / f".{name}.old"
    try:
        save_tensors(new / "model.safetensors", model.state_dict())
        write_json(new / "history.json", history)
        write_json(new / "metrics.json", metrics)
        write_json(new / "config.json", config)
        new.chmod(0o755)
        shutil.rmtree(old, ignore_errors=True)
        if (root / name).exists():
            (root / name).rename(old)
        new.rename(root / name)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return Run(root / name, json.loads(json.dumps(config)))


def write_json(path: Path, content: dict) -> None:
    """Write JSON with sorted keys, whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    scratch.replace(path)


def read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"run: {path} cannot be read; --force makes the run anew") from error


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], words: dict | None = None) -> None:
    """Write a safetensors file, whole or not at all; `words` go into its header as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    save_file({name: t.contiguous() for name, t in tensors.items()}, scratch, {"json": json.dumps(words or {})})
    scratch.replace(path)


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Read a safetensors file and the words in its header. Raises ValueError where it is damaged or none."""
    try:
        with safe_open(path, "pt") as file:
            words = json.loads((file.metadata() or {}).get("json", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, words  # noqa: SIM118, no dict
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"model file: {path} is damaged or no safetensors file") from error


def load_weights(model: nn.Module, path: Path) -> nn.Module:
    """Load a state dict from a safetensors file into `model`. Raises ValueError where it does not fit."""
    tensors, _ = load_tensors(path)
    own = model.state_dict()
    wrong = [name for name in own.keys() | tensors.keys() if name not in own or name not in tensors]
    wrong = wrong or [name for name in own if own[name].shape != tensors[name].shape]
    if wrong:
        raise ValueError(
            f"model file: {path} is not a {type(model).__name__} for these classes ({sorted(wrong)[0]} does not fit)"
        )
    model.load_state_dict(tensors)
    return model
