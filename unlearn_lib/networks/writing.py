"""Writing run folders, which appear, and change, whole or not at all."""

import json
import platform
import shutil
from pathlib import Path

import torch
import torchvision
from torch import nn

from unlearn_lib.networks.runs import FORMAT, Run, content_digest
from unlearn_lib.store import lock_folder, read_json, replace_folder, save_tensors, scratch_path, write_json


def write_run(root: Path, name: str, arguments: dict, model: nn.Module, history: dict, metrics: dict, **notes) -> Run:
    """Write a run folder, in place of an older one of that name, and return it."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__}
    files = {"history.json": [content_digest(history)], "metrics.json": [content_digest(metrics)]}
    config = {**arguments, **notes, "versions": versions, "format": FORMAT, "files": files}
    new = scratch_path(root / name)
    with lock_folder(root / name):
        try:
            save_tensors(new / "model.safetensors", model.state_dict())
            write_json(new / "history.json", history)
            write_json(new / "metrics.json", metrics)
            config = _write_config(new, config)
            replace_folder(new, root / name)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return Run(root / name, config)


def amend_run(run: Run, metrics: dict, **notes) -> Run:
    """Put other metrics, and notes in config.json, into a finished run, which is whole at every moment."""
    with lock_folder(run.path):
        config = read_json(run.path / "config.json") | notes
        if "files" in config:
            old = read_json(run.path / "metrics.json")
            config["files"] = config["files"] | {"metrics.json": [content_digest(old), content_digest(metrics)]}
        config = _write_config(run.path, config)
        write_json(run.path / "metrics.json", metrics)
    return Run(run.path, config)


def _write_config(folder: Path, config: dict) -> dict:
    """Write config.json with a digest of itself, and return it as it will be read."""
    config = json.loads(json.dumps(config))
    if "files" in config:
        config["digest"] = content_digest(config)
    write_json(folder / "config.json", config)
    return config
