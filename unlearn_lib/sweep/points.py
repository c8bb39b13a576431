"""The points of a sweep, as a worker makes them: found or made, or failed with a sentence; each ends as a row."""

import functools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from unlearn_lib.auditing import audit_run
from unlearn_lib.common import UserError, check_forget
from unlearn_lib.data import Data, load_data
from unlearn_lib.experiment import Experiment, unlearned_place, usual_layer
from unlearn_lib.networks import Run, find_run, open_run
from unlearn_lib.store import digest
from unlearn_lib.sweep.grid import NAMED, NUMBERS, SILENT, TRAINING, UNLEARNING
from unlearn_lib.zeroshot import METHODS, check_choice


@dataclass(frozen=True)
class Sweep:
    """What all points of one sweep have in common; sent to the workers."""

    place: tuple[tuple[str, object], ...]  # where pictures and runs lie, the device, the version's name
    audit: bool = False
    threads: int = 0  # a task may take at most, where $OMP_NUM_THREADS says so here
    slots: tuple[tuple[str, int], ...] = ()  # tasks at a time, by host
    name: str = ""  # another for every call: what a worker remembers of its experiments ends with it


def training_key(point: dict, forget: Iterable = ()) -> str:
    """What a training of this point is known by: equal ones are done once."""
    return json.dumps([{name: point[name] for name in sorted(TRAINING & point.keys())}, sorted(forget, key=str)])


def band_seeds(point: dict, points: list[dict]) -> list[int]:
    """The seeds with which the grid has a point's networks: golden's band."""
    same = training_key(point | {"seed": 0}, point["forget"])
    return sorted({p.get("seed", 0) for p in points if training_key(p | {"seed": 0}, p["forget"]) == same})


def is_trained(sweep: Sweep, key: str) -> bool:
    """Whether a training is there already; where that cannot be told, it is for `train` to say why."""
    try:
        return _trained(sweep, key) is not None
    except Exception:
        return False


def train(sweep: Sweep, key: str) -> str | None:
    """Train an original, or golden where classes are left out; what went wrong, in a sentence."""
    try:
        experiment = _lab(sweep, key)
        if not experiment.forget:
            experiment.train()
        elif len(experiment.dataset.train):
            experiment.golden()
    except Exception as error:  # whatever it is, the other points go on
        return _sentence(error)


def make_row(sweep: Sweep, point: dict, seeds: list[int], *, make: bool = False) -> dict | None:
    """The row of a point, audited with a band of `seeds`: of the run that is there, or made; None where neither is."""
    try:
        experiment = _lab(sweep, training_key(point, point["forget"]))
        if make:
            method, choice, numbers = _choice(experiment, point)
            run, status = experiment.unlearn(method, **choice, **numbers), "made"
            if not _is_audited(sweep, run, seeds):
                run = audit_run(experiment, run, seeds=seeds)
        else:
            run, status = _found(sweep, experiment, point), "there"
            if run is None or not _is_audited(sweep, run, seeds):
                _check(sweep, experiment, point)
                return None
        facts = {"run": run.name, "status": status, "error": None, **_flat(run.metrics)}
        return _told(point) | facts
    except Exception as error:  # whatever it is, the other points go on
        return failed_row(point, _sentence(error))


def _found(sweep: Sweep, experiment: Experiment, point: dict) -> Run | None:
    """The finished run of a point, golden's figures beside its own; None where it is yet to be made."""
    original, golden = _trained(sweep, training_key(point)), _trained(sweep, training_key(point, point["forget"]))
    if original is None or (golden is None and len(experiment.dataset.train)):
        return None
    method, choice, numbers = _choice(experiment, point)
    kind = METHODS[0] if method == "distill" else method  # they begin at the same layer
    choice["layer"] = choice["layer"] or _layer(original.path, original.fingerprint(), kind)
    run = find_run(experiment.root, *unlearned_place(experiment, original, method, **choice, numbers=numbers))
    if run is None or golden is None:
        return run
    beside = run.metrics["golden"]
    return run if beside and beside["confusion"] == golden.metrics["golden"]["confusion"] else None


def _is_audited(sweep: Sweep, run: Run, seeds: list[int]) -> bool:
    """Whether the run has the audit that is asked for: at the head, with a band of all these seeds."""
    audit = run.metrics["audit"] if sweep.audit else None
    if audit is None or not {*seeds} <= {*audit["seeds"]}:
        return not sweep.audit
    original = open_run(run.path.parent, run.config["original_run"])
    return audit["layer"] == _layer(original.path, original.fingerprint(), "mask")


def _check(sweep: Sweep, experiment: Experiment, point: dict) -> None:
    """Raise UserError for a point that cannot be made, before anything is trained for it."""
    check_forget(experiment.forget_classes, experiment.dataset.num_classes)
    chosen = {name: value for name, value in point.items() if name in ("method", *UNLEARNING)}
    _check_choice(sweep, training_key(point | {"seed": 0}), json.dumps(chosen))


@functools.lru_cache(maxsize=64)
def _check_choice(sweep: Sweep, key: str, chosen: str) -> None:
    experiment = _lab(sweep, key)
    method, choice, numbers = _choice(experiment, json.loads(chosen))
    check_choice(experiment.new_model().eval(), method, choice["layer"], choice["samples"], choice["recipe"], numbers)


def _choice(experiment: Experiment, point: dict) -> tuple[str, dict, dict]:
    """Method, choices and numbers of a point's unlearning."""
    code = _code(point, (*UNLEARNING, "memory"))  # which changes some impressions
    version = "-".join(filter(None, (experiment.version, code)))
    choice = {"layer": point.get("layer"), "samples": point.get("samples", 100), "recipe": point.get("recipe")}
    numbers = {name: point[name] for name in NUMBERS if name in point}
    return point.get("method", METHODS[0]), choice | {"version": version or None}, numbers


@functools.lru_cache(maxsize=64)
def _lab(sweep: Sweep, key: str) -> Experiment:
    """The experiment of a training's key, which shares its pictures with the others in this process."""
    given, forget = json.loads(key)
    place = dict(sweep.place)
    place["version"] = "-".join(filter(None, (place["version"], _code(given, TRAINING - SILENT)))) or None
    experiment = Experiment(**given, **place, forget=tuple(forget))
    vars(experiment)["dataset"] = _pictures(
        experiment.data, experiment.data_root, experiment.framing, experiment.start["flip"], sweep.name
    )
    return experiment


def forget_labs() -> None:
    """Give back what this process remembers of the experiments of its sweeps."""
    for memory in (_lab, _pictures, _trained, _layer, _check_choice):
        memory.cache_clear()


@functools.lru_cache(maxsize=4)
def _pictures(data: str, data_root: str | None, framing, flip: bool | None, sweep: str) -> Data:
    return load_data(data, data_root, framing=framing, flip=flip)


@functools.lru_cache(maxsize=1024)
def _trained(sweep: Sweep, key: str) -> Run | None:
    (given, forget), experiment = json.loads(key), _lab(sweep, key)
    if not forget:
        return experiment.finished_original()
    return _trained(sweep, training_key(given)) and experiment.finished_golden()


@functools.lru_cache(maxsize=64)
def _layer(path: Path, fingerprint: str, method: str) -> str:
    """Where a method unlearns the model that lies there, if nothing else is given."""
    return usual_layer(open_run(path.parent, path.name).load_model(), method)


def _code(point: dict, names: Iterable[str]) -> str:
    """What a point says besides what stands in its run's name anyway, for that name: `epochs5-lr0.01`."""
    chosen = [(name, str(point[name])) for name in sorted({*names} & point.keys() - {*NAMED})]
    return "-".join(name + (value if re.fullmatch(r"[\w.+-]+", value) else digest(value)[:6]) for name, value in chosen)


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def failed_row(point: dict, sentence: str) -> dict:
    return _told(point) | {"run": None, "status": "failed", "error": sentence}


def _told(point: dict) -> dict:
    """The columns that say which point it is."""
    return {"method": METHODS[0], "seed": 0} | point | {"forget": " ".join(map(str, point["forget"]))}


def _flat(block: dict, path: str = "") -> dict:
    """Every number in a tree of dicts by its path: `golden_retain_accuracy`; lists and what moved are left out."""
    flat = {}
    for name, value in block.items():
        if isinstance(value, dict) and name != "moved":
            flat |= _flat(value, f"{path}{name}_")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[path + name] = value
    return flat
