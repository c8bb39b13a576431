"""Run folders: a network with its `config.json`, `metrics.json`, `history.json`, and impressions next to them.

`config.json` is written last: a folder with it is a finished run. It holds the run's arguments, among them digests of
the data and of the weights that training started from, and notes on what made the run and where.
"""

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from torch import nn

from unlearn_lib.common import REPOSITORY, NotFound, UserError
from unlearn_lib.networks.tracing import trace
from unlearn_lib.networks.weights import check_finite, find_misfits, load_state
from unlearn_lib.networks.zoo import make_model, model_code
from unlearn_lib.store import (
    digest,
    explain_disk_errors,
    load_tensors,
    lock_folder,
    read_json,
    save_tensors,
    write_json,
)

FORMAT = 3  # of run folders; 1 had no digests, 2 none of its own files
FILES = ("config.json", "metrics.json", "history.json", "model.safetensors")
LONGEST = 240  # bytes of a folder's name: file systems allow 255, and the lock's file is named after it
NOTES = """
    started_from asked_layer preprocessing versions device source classes data_given golden_run unreadable passed_over
    format files digest
""".split()
DIGESTS = {
    "data_digest": "data: the pictures differ from those that {name} was made from",
    "code_digest": "model: its code differs from that which {name} was made with",
    "weights_digest": "weights: the file differs from that which {name} was made from",
    "original_file": "run: {name} was made from an original that has been trained again since",
}


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and the content of its config.json.

    Example:
        >>> model = open_run(runs_root(), "lenet5-digits-s0").load_model()
    """

    path: Path
    config: dict

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def arguments(self) -> dict:
        """What the run was made from, with digests of data and weights."""
        return {name: value for name, value in self.config.items() if name not in NOTES}

    @property
    def metrics(self) -> dict:
        return self._read("metrics.json")

    @property
    def blocks(self) -> dict[str, dict | None]:
        """The evaluated models in order: original, masked, unlearned and golden; None for a missing one."""
        metrics = self.metrics
        return {name: metrics[name] for name in ("original", "masked", "unlearned", "golden")}

    @property
    def history(self) -> dict:
        return self._read("history.json")

    def load_model(self) -> nn.Module:
        """Return the saved model, in eval mode, on the CPU.

        Raises:
            UserError: the file is damaged or another model's, or the network's code has changed.
        """
        c = self.config
        start = {"size": c["size"], "dropout": c["dropout"], "pretrained": bool(c.get("weights"))}
        model = make_model(c["model"], len(c["classes"]), **start)
        if c.get("code_digest") not in (None, code_digest(c["model"], lambda: model)):
            raise UserError(DIGESTS["code_digest"].format(name=self.name))
        return load_weights(model, self.path / "model.safetensors").eval()

    def verify(self) -> "Run":
        """Return the run. Raises UserError, with its name, for a file that differs from what was written."""
        if self.config.get("digest", content_digest(self.config)) != content_digest(self.config):
            raise UserError(f"run: {self.path / 'config.json'} is damaged; --force makes the run again")
        self._read("metrics.json")
        self._read("history.json")
        load_tensors(self.path / "model.safetensors")
        return self

    def fingerprint(self) -> str:
        """Return the digest of the model file, by which later steps recognise the model."""
        return digest(self.path / "model.safetensors")

    def _read(self, name: str) -> dict:
        """Read a JSON file of the run. Raises UserError if it differs from what was written."""
        for _ in range(2):  # `amend_run` may come in between
            files = read_json(self.path / "config.json").get("files", {})
            content = read_json(self.path / name)
            if name not in files or content_digest(content) in files[name]:
                return content
        raise UserError(f"run: {self.path / name} is damaged; --force makes the run again")


def runs_root(root: str | Path | None = None) -> Path:
    """Return the folder of the runs: `root`, else `$UNLEARN_RUNS`, else the repository's `data/runs/`.

    It is created where absent. Raises UserError for a folder that cannot be written.
    """
    root = Path(root or os.environ.get("UNLEARN_RUNS") or REPOSITORY / "data" / "runs").expanduser()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            return root
    except OSError as error:
        raise UserError(f"runs-root: got {root} ({error.strerror}); expected a folder that can be written") from error


def class_code(classes: Iterable[int]) -> str:
    """Return classes as a part of a folder's name: `1-4`, `3_4_8`; beyond 40 characters their count and a digest."""
    codes, row = [], []
    for c in [*sorted(classes), None]:
        if row and c != row[-1] + 1:
            codes += [f"{row[0]}-{row[-1]}"] if len(row) > 2 else map(str, row)
            row = []
        row.append(c)
    code = "_".join(codes)
    return code if len(code) <= 40 else f"{len(set(classes))}_{hashlib.sha256(code.encode()).hexdigest()[:6]}"


def run_name(model: str, data: str, seed: int, *parts: str, version: str | None = None) -> str:
    """Return `<model>-<data>[-golden-<classes> or -unlearned-<classes>-<method>]-s<seed>[-<version>]`."""
    name = "-".join([model_code(model), data, *parts, f"s{seed}", *([version] if version else [])])
    if name != Path(name).name or name.startswith(".") or not str(version or "").isprintable():
        raise UserError(f"version-name: got {version!r}; expected letters, digits, '.', '_' and '-'")
    if len(os.fsencode(name)) > LONGEST:
        raise UserError(f"version-name: got {version!r}; with it a folder's name is longer than {LONGEST} bytes")
    return name


def find_run(root: Path, name: str, arguments: dict) -> Run | None:
    """Return the finished run of this name, if any. Raises UserError if it was made with other arguments."""
    return check_run(open_run(root, name), arguments) if has_run(root, name) else None


def check_run(run: Run, arguments: dict | None = None) -> Run:
    """Return the run. Raises UserError for another format and, with `arguments`, for other arguments or damage."""
    ways_out = "--force makes it again, --version-name keeps both"
    written = run.config.get("format")
    if isinstance(written, int) and written > FORMAT:
        raise UserError(f"run: {run.name} has format {written}, of a newer version of this program; {ways_out}")
    if written not in (FORMAT - 1, FORMAT):
        raise UserError(f"run: {run.name} has an older format, without digests of what it was made from; {ways_out}")
    if arguments is None:
        return run
    argument, old, new = first_difference(run, arguments)
    if argument in DIGESTS:
        raise UserError(f"{DIGESTS[argument].format(name=run.name)}; {ways_out}")
    if argument:
        raise UserError(f"{argument.replace('_', '-')}: got {new}, but {run.name} was made with {old}; {ways_out}")
    return run.verify()


def first_difference(run: Run, arguments: dict) -> tuple[str | None, object, object]:
    """Return the first argument that differs, with the run's value and the new one; Nones where all are equal.

    Digests come last, since numbers say more.
    """
    old, new = run.arguments, json.loads(json.dumps(arguments))
    for name in sorted(old.keys() | new.keys(), key=lambda name: (name in DIGESTS, name)):
        if old.get(name) != new.get(name):
            return name, old.get(name), new.get(name)
    return None, None, None


def open_run(root: Path, name: str) -> Run:
    """Return the run of this name. Raises NotFound with the names of the existing ones.

    Example:
        >>> run = open_run(runs_root(), "lenet5-digits-s0")
    """
    if not has_run(root, name):
        raise NotFound(f"run: no {name!r} in {root}; there are: {', '.join(run_names(root)) or 'none'}")
    return Run(root / name, read_json(root / name / "config.json"))


def has_run(root: Path, name: str) -> bool:
    """Return whether there is a finished run of this name."""
    return (root / name / "config.json").is_file()


def run_names(root: Path) -> list[str]:
    """Return the names of the finished runs below `root`, sorted."""
    return sorted(path.parent.name for path in root.glob("*/config.json") if not path.parent.name.startswith("."))


def write_run(root: Path, name: str, arguments: dict, model: nn.Module, history: dict, metrics: dict, **notes) -> Run:
    """Write a run folder and return the run. An older run of that name ends when this begins.

    A process that dies meanwhile leaves no run of that name, since `config.json` is removed first and written last.
    A training checkpoint in the folder goes only after the model is written.
    """
    folder = root / name
    versions = {"python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__}
    with lock_folder(folder), explain_disk_errors(folder):
        (folder / "config.json").unlink(missing_ok=True)
        save_tensors(folder / "model.safetensors", model.state_dict())
        files = {}
        for file, content in (("history.json", history), ("metrics.json", metrics)):
            write_json(folder / file, content)
            files[file] = [content_digest(content)]
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in FILES:
                path.unlink()
        config = {**arguments, **notes, "versions": versions, "format": FORMAT, "files": files}
        return Run(folder, _write_config(folder, config))


def amend_run(run: Run, metrics: dict, **notes) -> Run:
    """Replace the metrics of a finished run, and notes in its config.json. The run is whole at every moment.

    `config.json` comes first, with the digests of the old and of the new metrics.
    """
    with lock_folder(run.path):
        config = read_json(run.path / "config.json") | notes
        if "files" in config:
            old = read_json(run.path / "metrics.json")
            config["files"] = config["files"] | {"metrics.json": [content_digest(old), content_digest(metrics)]}
        config = _write_config(run.path, config)
        write_json(run.path / "metrics.json", metrics)
    return Run(run.path, config)


def _write_config(folder: Path, config: dict) -> dict:
    """Write config.json with a digest of itself. Return it as it will be read."""
    config = json.loads(json.dumps(config))
    if "files" in config:
        config["digest"] = content_digest(config)
    write_json(folder / "config.json", config)
    return config


def content_digest(content: dict) -> str:
    """Return the digest of a JSON file's content, without its own digest. Keys become text, tuples lists."""
    content = json.loads(json.dumps(content | {"digest": None}))
    return digest(json.dumps(content, sort_keys=True))


def code_digest(name: str, make: Callable[[], nn.Module]) -> str | None:
    """Return the digest of the modules and operations of a user's network; None for networks by name."""
    if ":" not in name:
        return None
    model = make()
    try:
        return digest(str(model), str(trace(model).graph))
    except UserError:  # it cannot be traced
        return digest(str(model))


def load_weights(model: nn.Module, path: Path) -> nn.Module:
    """Load a run's model file into `model`. Raises UserError if it does not fit or holds values that are not finite."""
    tensors, _ = load_tensors(path)
    current = model.state_dict()
    wrong = sorted(current.keys() ^ tensors.keys()) or find_misfits(current, tensors)
    if wrong:
        fit = f"{type(model).__name__} for these classes ({wrong[0]} does not fit)"
        raise UserError(f"model file: {path} is not a {fit}")
    check_finite(tensors, f"model file: {path}")
    load_state(model, tensors)
    return model
