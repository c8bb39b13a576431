"""Run folders: a network with its `config.json`, `metrics.json`, `history.json`, and impressions beside them.

A run appears whole or not at all. It is known by its name and by its arguments, in which digests of the data and of
the weights that it started from stand; `config.json` tells besides what made it and where.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from unlearn_lib.common import REPOSITORY, NotFound, UserError
from unlearn_lib.networks.tracing import trace
from unlearn_lib.networks.weights import load_state
from unlearn_lib.networks.zoo import make_model, model_code
from unlearn_lib.store import digest, load_tensors, read_json, restore_folder

FORMAT = 3  # of run folders; 1 had no digests, 2 none of its own files
NOTES = """
    asked_layer preprocessing versions device source classes data_given golden_run unreadable passed_over
    format files digest
""".split()
DIGESTS = {
    "data_digest": "data: other pictures than those that {name} was made from",
    "code_digest": "model: its code does something else than that which {name} was made with",
    "weights_digest": "weights: another file than that which {name} was made from",
    "original_file": "run: {name} was made from an original that has been made anew since",
}


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and what its config.json says."""

    path: Path
    config: dict

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def arguments(self) -> dict:
        """What it was made with, digests of data and weights included."""
        return {name: value for name, value in self.config.items() if name not in NOTES}

    @property
    def metrics(self) -> dict:
        return self._json("metrics.json")

    @property
    def blocks(self) -> dict[str, dict | None]:
        """The evaluated models side by side: original, masked, unlearned and golden; None where there is none."""
        metrics = self.metrics
        return {name: metrics[name] for name in ("original", "masked", "unlearned", "golden")}

    @property
    def history(self) -> dict:
        return self._json("history.json")

    def load_model(self) -> nn.Module:
        """The saved model, in eval mode, on the CPU.

        Raises UserError where the file is damaged or another model's, or where the network's code has changed.
        """
        c = self.config
        start = {"size": c["size"], "dropout": c["dropout"], "pretrained": bool(c.get("weights"))}
        model = make_model(c["model"], len(c["classes"]), **start)
        if c.get("code_digest") not in (None, code_digest(c["model"], lambda: model)):
            raise UserError(DIGESTS["code_digest"].format(name=self.name))
        return load_weights(model, self.path / "model.safetensors").eval()

    def _json(self, name: str) -> dict:
        """A file of the run. Raises UserError where it is not as it was written."""
        for _ in range(2):  # a newer one, of which config.json tells first, may come in between
            files = read_json(self.path / "config.json").get("files", {})
            content = read_json(self.path / name)
            if name not in files or content_digest(content, as_read=True) in files[name]:
                return content
        raise UserError(f"run: {self.path / name} is damaged; --force makes the run anew")

    def verify(self) -> "Run":
        """The run itself. Raises UserError, naming it, for a file that is not as it was written."""
        if self.config.get("digest", content_digest(self.config)) != content_digest(self.config):
            raise UserError(f"run: {self.path / 'config.json'} is damaged; --force makes the run anew")
        for name in ("metrics.json", "history.json"):
            self._json(name)
        load_tensors(self.path / "model.safetensors")
        return self

    def fingerprint(self) -> str:
        """Digest of the model file: what was made from it can tell whether it is still the same model."""
        return digest(self.path / "model.safetensors")


def runs_root(root: str | Path | None = None) -> Path:
    """Where runs lie: `root`, else `$UNLEARN_RUNS`, else the repository's `data/runs/`; made where absent.

    Raises UserError where nothing can be written there.
    """
    root = Path(root or os.environ.get("UNLEARN_RUNS") or REPOSITORY / "data" / "runs").expanduser()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            return root
    except OSError as error:
        accepted = "a folder that can be written is accepted"
        raise UserError(f"runs-root: {root} given ({error.strerror}); {accepted}") from error


def class_code(classes: Iterable[int]) -> str:
    """Classes for a folder's name: `1-4`, `3_4_8`; beyond 40 characters their count and six hex digits."""
    codes, row = [], []
    for c in [*sorted(classes), None]:
        if row and c != row[-1] + 1:
            codes += [f"{row[0]}-{row[-1]}"] if len(row) > 2 else map(str, row)
            row = []
        row.append(c)
    code = "_".join(codes)
    return code if len(code) <= 40 else f"{len(set(classes))}_{hashlib.sha256(code.encode()).hexdigest()[:6]}"


def run_name(model: str, data: str, seed: int, *parts: str, version: str | None = None) -> str:
    """`<model>-<data>[-golden-<classes> or -unlearned-<classes>-<method>]-s<seed>[-<version>]`."""
    name = "-".join([model_code(model), data, *parts, f"s{seed}", *([version] if version else [])])
    if name != Path(name).name or name.startswith(".") or not str(version or "").isprintable():
        raise UserError(f"version-name: {version!r} given; letters, digits, '.', '_' and '-' are accepted")
    return name


def find_run(root: Path, name: str, arguments: dict) -> Run | None:
    """The finished run of this name, where there is one. Raises UserError where it was made with other arguments."""
    return check_run(open_run(root, name), arguments) if has_run(root, name) else None


def check_run(run: Run, arguments: dict | None = None) -> Run:
    """The run itself. Raises UserError where it is of another format; with `arguments`, of others or damaged."""
    keep_both, made_as = "--force makes it anew, --version-name keeps both", run.config.get("format")
    if isinstance(made_as, int) and made_as > FORMAT:
        raise UserError(f"run: {run.name} is of format {made_as}, of a newer version of this program; {keep_both}")
    if made_as not in (FORMAT - 1, FORMAT):
        why = "which does not tell what it was made from"
        raise UserError(f"run: {run.name} is of an older format, {why}; {keep_both}")
    argument, old, new = first_difference(run, arguments) if arguments else (None,) * 3
    if argument in DIGESTS:
        raise UserError(f"{DIGESTS[argument].format(name=run.name)}; {keep_both}")
    if argument:
        raise UserError(f"{argument.replace('_', '-')}: {new} given, but {run.name} was made with {old}; {keep_both}")
    return run.verify() if arguments else run


def first_difference(run: Run, arguments: dict) -> tuple[str | None, object, object]:
    """The first argument in which a run is not what is asked for: its name, the old and the new value; Nones if none.

    Numbers come before digests, since the more telling.
    """
    old, new = run.arguments, json.loads(json.dumps(arguments))
    for name in sorted(old.keys() | new.keys(), key=lambda name: (name in DIGESTS, name)):
        if old.get(name) != new.get(name):
            return name, old.get(name), new.get(name)
    return None, None, None


def open_run(root: Path, name: str) -> Run:
    """The run of this name. Raises NotFound with the names of those that there are."""
    if not has_run(root, name):
        raise NotFound(f"run: no {name!r} in {root}; there: {', '.join(run_names(root)) or 'none'}")
    return Run(root / name, read_json(root / name / "config.json"))


def has_run(root: Path, name: str) -> bool:
    """Whether there is a finished run of this name."""
    restore_folder(root / name)
    return (root / name / "config.json").is_file()


def run_names(root: Path) -> list[str]:
    """Names of the finished runs below `root`, sorted."""
    for path in root.glob(".*.old"):
        restore_folder(path.with_name(path.name[1 : -len(".old")]))
    return sorted(p.parent.name for p in root.glob("*/config.json") if not p.parent.name.startswith("."))


def content_digest(content: dict, as_read: bool = False) -> str:
    """Digest of what a JSON file holds, besides its own; `as_read` where the content comes out of such a file.

    Else it is brought to what a reader would find (keys are texts, tuples lists), which takes twice as long again.
    """
    content = {**content, "digest": None}
    return digest(json.dumps(content if as_read else json.loads(json.dumps(content)), sort_keys=True))


def code_digest(name: str, make: Callable[[], nn.Module]) -> str | None:
    """Digest of the parts and operations of a network of one's own, whose code may change; None for those by name."""
    if ":" not in name:
        return None
    model = make()
    try:
        return digest(str(model), str(trace(model).graph))
    except UserError:  # it cannot be traced
        return digest(str(model))


def load_weights(model: nn.Module, path: Path) -> nn.Module:
    """Load a state dict from a safetensors file into `model`. Raises UserError where it does not fit."""
    tensors, _ = load_tensors(path)
    state = model.state_dict()
    wrong = [*(state.keys() ^ tensors.keys())]
    if not wrong:
        try:
            load_state(model, tensors)
        except RuntimeError:
            wrong = [name for name in state if state[name].shape != tensors[name].shape]
    if wrong:
        fit = f"{type(model).__name__} for these classes ({sorted(wrong)[0]} does not fit)"
        raise UserError(f"model file: {path} is not a {fit}")
    if strange := [name for name, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]:
        raise UserError(f"model file: {path} holds values that are not finite, in {strange[0]}")
    return model
