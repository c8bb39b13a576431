"""The points of a sweep as a worker makes them: each becomes a row, found, made, or failed with a sentence."""

import functools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from unlearn_lib.auditing import audit_run
from unlearn_lib.common import UserError
from unlearn_lib.experiment import Experiment
from unlearn_lib.networks import Run, find_head
from unlearn_lib.store import digest
from unlearn_lib.sweep.grid import NAMED, TRAINING, UNLEARNING
from unlearn_lib.zeroshot import Unlearning

SILENT = {"save_every", "memory"}  # do not change what is trained
LONGEST = 120  # letters of the settings in a run's name


@dataclass(frozen=True)
class Place:
    """What all points of one sweep share; it is sent to the workers.

    Args:
        name: a new one for every sweep, so that no worker uses what it read for an earlier one.
        audit: whether every point is audited.
    """

    data_root: str | None
    runs_root: str
    device: str | None
    version: str | None
    audit: bool
    name: str


def training_key(point: dict, forget: Iterable = ()) -> str:
    """Return what identifies a training of this point: the original's, or golden's where classes are left out."""
    return json.dumps([{name: point[name] for name in sorted(TRAINING & point.keys())}, sorted(forget, key=str)])


def band_seeds(point: dict, points: list[dict]) -> list[int]:
    """Return the seeds with which the grid has a point's networks: golden's band."""
    same = training_key(point | {"seed": 0}, point["forget"])
    return sorted({p.get("seed", 0) for p in points if training_key(p | {"seed": 0}, p["forget"]) == same})


def make_experiment(place: Place, point: dict) -> Experiment:
    """Return the experiment of a point. Those of one sweep and one data set share its pictures in this process."""
    settings = {name: point[name] for name in TRAINING & point.keys()}
    version = join_version(place.version, describe_settings(point, TRAINING - SILENT))
    shared = {name: settings[name] for name in ("model", "data", "size", "weights", "flip") if name in settings}
    base = _open_experiment(place, json.dumps(shared, sort_keys=True))
    return base.variant(**settings, forget=tuple(point["forget"]), version=version)


@functools.lru_cache(maxsize=4)
def _open_experiment(place: Place, shared: str) -> Experiment:
    experiment = Experiment(
        **json.loads(shared), data_root=place.data_root, runs_root=place.runs_root, device=place.device
    )
    experiment.dataset  # noqa: B018, read here, once for all variants
    return experiment


def make_unlearning(point: dict) -> Unlearning:
    """Return the unlearning of a point."""
    return Unlearning(**{name: point[name] for name in {"method", *UNLEARNING} & point.keys()})


def unlearning_version(experiment: Experiment, point: dict) -> str | None:
    """Return the version of an unlearned run's name: the experiment's, and the point's settings of unlearning."""
    return join_version(experiment.version, describe_settings(point, UNLEARNING | {"memory"}))


def join_version(*parts: str | None) -> str | None:
    """Join the parts of a version that are given."""
    return "-".join(filter(None, parts)) or None


def describe_settings(point: dict, names: Iterable[str]) -> str:
    """Return a point's settings for a run's name, such as `epochs5-lr0.01`, without what stands there anyway."""
    chosen = [(name, str(point[name])) for name in sorted({*names} & point.keys() - {*NAMED})]
    code = "-".join(name + (text if re.fullmatch(r"[\w.+-]+", text) else digest(text)[:6]) for name, text in chosen)
    return code if len(code) <= LONGEST else digest(code)


def train_point(place: Place, point: dict, kind: str) -> str | None:
    """Train a point's `original` or `golden` network, where absent; return what went wrong, in a sentence."""
    try:
        experiment = make_experiment(place, point)
        if kind == "original":
            experiment.train()
        elif len(experiment.dataset.train):
            experiment.golden()
    except Exception as error:  # the other points go on
        return describe_error(error)


def find_row(place: Place, point: dict, seeds: list[int], checked: set) -> dict | None:
    """Return the row of a finished point, or of one that cannot be made; None where it is to be made.

    checked: the unlearnings of networks that are known to suit each other; grows.
    """
    try:
        experiment = make_experiment(place, point)
        unlearning = make_unlearning(point)
        if experiment.finished_original() is not None:
            run = experiment.find_unlearned(unlearning, unlearning_version(experiment, point))
            needs_golden = run is not None and len(experiment.dataset.train) and run.metrics["golden"] is None
            if run is not None and not needs_golden and _is_audited(place, experiment, run, seeds):
                return _row(point, run, "there")
        what = (training_key(point | {"seed": 0}), unlearning)
        if what not in checked:
            experiment.check_unlearning(unlearning)
            checked.add(what)
        experiment.checked_forget  # noqa: B018, raises for none and for all
    except Exception as error:
        return failed_row(point, describe_error(error))


def make_row(place: Place, point: dict, seeds: list[int]) -> dict:
    """Make a point and return its row; its band is of `seeds`."""
    try:
        experiment = make_experiment(place, point)
        run = experiment.unlearn(make_unlearning(point), version=unlearning_version(experiment, point))
        if not _is_audited(place, experiment, run, seeds):
            run = audit_run(experiment, run, seeds=seeds)
        return _row(point, run, "made")
    except Exception as error:
        return failed_row(point, describe_error(error))


def _is_audited(place: Place, experiment: Experiment, run: Run, seeds: list[int]) -> bool:
    """Return whether the run has the audit that the sweep needs: at the head, with a band of all these seeds."""
    audit = run.metrics["audit"]
    if not place.audit:
        return True
    if audit is None or not {*seeds} <= {*audit["seeds"]}:
        return False
    return audit["layer"] == find_head(experiment.load(experiment.original()))


def describe_error(error: Exception) -> str:
    """Return an error as the sentence of a row."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def failed_row(point: dict, sentence: str) -> dict:
    """Return the row of a point that failed."""
    return _settings(point) | {"run": None, "status": "failed", "error": sentence}


def _row(point: dict, run: Run, status: str) -> dict:
    return _settings(point) | {"run": run.name, "status": status, "error": None, **_flatten(run.metrics)}


def _settings(point: dict) -> dict:
    """Return the columns that say which point it is."""
    return {"method": Unlearning.method, "seed": 0} | point | {"forget": " ".join(map(str, point["forget"]))}


def _flatten(block: dict, path: str = "") -> dict:
    """Return every number in a tree of dicts by its path, such as `golden_retain_accuracy`."""
    flat = {}
    for name, value in block.items():
        if isinstance(value, dict) and name != "moved":
            flat |= _flatten(value, f"{path}{name}_")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[path + name] = value
    return flat
