"""The audit of a run: every metric for original, masked, unlearned and golden, beside the golden band.

Golden networks of other seeds differ from each other; the band is where the next of them would lie, by that metric, in
95 % of cases. So each metric refuses a true golden network in 5 % of cases, and one of ten metrics in up to 40 %.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable
from functools import reduce
from operator import getitem

import pandas as pd
import torch
from torch import nn

from unlearn_lib.auditing.attacks import LIMIT, anamnesis_index, audit
from unlearn_lib.auditing.metrics import weight_changes
from unlearn_lib.common import UserError, as_list, as_number, check_forget, get_device, log
from unlearn_lib.networks import Run, amend_run, class_code, find_head, run_name, run_names, split
from unlearn_lib.store import cached, digest, lock_folder
from unlearn_lib.zeroshot import mask

VERSION = 2  # of the audit's numbers: those of another version are not used again
STRANGER = 1000  # the seed of the randomly initialised network for ZRF, far from any that was trained
ROWS = {  # path in the audit, title, factor, digits
    ("forget_accuracy",): ("forget accuracy, %", 100, 2),
    ("retain_accuracy",): ("retain accuracy, %", 100, 2),
    ("probe",): ("linear probe on F, %", 100, 1),
    ("relearn",): ("relearn time, batches", 1, 0),
    ("relearn", "ain"): ("AIN", 1, 2),
    ("membership",): ("membership inference, %", 100, 1),
    ("js", "forget"): ("JS to golden on F, nats", 1, 3),
    ("js", "retain"): ("JS to golden on R, nats", 1, 3),
    ("agreement", "forget"): ("agreement with golden on F, %", 100, 1),
    ("agreement", "retain"): ("agreement with golden on R, %", 100, 1),
    ("misplaced",): ("misplaced answers on F, %", 100, 1),
    ("zrf",): ("ZRF", 1, 3),
}
TO_GOLDEN = ("js_forget", "js_retain", "agreement_forget", "agreement_retain", "misplaced")


def audit_run(
    experiment, run: Run, *, seeds: Iterable[int] | None = None, layer: str | None = None, force=False
) -> Run:
    """Audit an unlearned run of an experiment; keep the result as the block `audit` of its metrics.json.

    seeds: of the original and golden networks that make the band, trained where absent; those that have been trained
    already where none are given. layer: the probe reads its input, that of the head by default. force: audit anew what
    has been audited before.
    Raises UserError where the run is no unlearned one, forgot other classes than the experiment does, or was unlearned
    from another original than there is now.
    """
    forget = check_forget(experiment.forget_classes, experiment.dataset.num_classes)
    if "original_run" not in run.config:
        raise UserError(f"run: {run.name} given; an unlearned run is accepted")
    if run.config["forget"] != forget:
        raise UserError(f"forget: {forget} given, but {run.name} forgot {run.config['forget']}")
    original = _original(experiment)
    if run.config.get("original_file") != original.fingerprint():
        raise UserError(
            f"run: {run.name} was unlearned from another network than {original.name} is now; unlearn it anew"
        )
    with lock_folder(run.path):  # to the end, so that no other network takes its place meanwhile
        net, target = experiment.load(original), _target(original, forget)
        layer = find_head(net) if layer is None else str(layer)
        split(net, layer)
        masked, unlearned, golden_net = mask(net, forget), experiment.load(run), experiment.load(_golden(experiment))

        def numbers_of(run: Run, model: nn.Module, target: float, kind: str = "") -> dict:
            return _numbers(experiment, run, model, golden_net, target, layer, kind, force)

        seeds = trained_seeds(experiment) if seeds is None else [as_number("seed", seed) for seed in as_list(seeds)]
        wanted, pairs = sorted({experiment.seed, *seeds}), {}
        for seed in wanted:
            other = _with_seed(experiment, seed)
            runs = {"original": _original(other), "golden": _golden(other)}
            goal = _target(runs["original"], forget)
            pairs[seed] = {name: numbers_of(part, other.load(part), goal) for name, part in runs.items()}
        numbers = pairs[experiment.seed] | {
            "masked": numbers_of(original, masked, target, "-masked"),
            "unlearned": numbers_of(run, unlearned, target),
        }
        block = _block(numbers, pairs, experiment.seed) | {"layer": layer, "seeds": wanted, "target": target}
        models = {"masked": masked, "unlearned": unlearned, "golden": golden_net}
        block["moved"] = {name: weight_changes(model, net) for name, model in models.items()}
        return amend_run(run, run.metrics | {"audit": block})


def trained_seeds(experiment) -> list[int]:
    """Seeds whose original and golden network have both been trained already, as the Experiment `experiment` says."""
    names, kinds = set(run_names(experiment.root)), ((), ("golden", class_code(experiment.forget_classes)))

    def there(seed: int) -> bool:
        return {
            run_name(experiment.model, experiment.dataset.name, seed, *kind, version=experiment.version)
            for kind in kinds
        } <= names

    found = sorted({int(seed) for name in names for seed in re.findall(r"-s(\d+)", name)})
    experiments = [_with_seed(experiment, seed) for seed in found if there(seed)]
    return [other.seed for other in experiments if other.finished_original() and other.finished_golden()]


def golden_band(values: list[float | None]) -> dict:
    """The band of a metric's values over golden networks: values, mean, std (n - 1), n, low, high; None is left out.

    low, high: mean ± t(n - 1, 0.975) std sqrt(1 + 1 / n), the interval in which the next value of the same normal
    distribution lies in 95 % of cases (prediction interval, Whitmore, The American Statistician 1986); None for n < 2.
    Trap: ± 2 std of five golden networks would refuse a true one in 14 % of cases.
    """
    values = [value for value in values if value is not None]
    numbers, n = torch.tensor(values, dtype=torch.double), len(values)
    mean, std = numbers.mean().item() if n else 0.0, numbers.std().item() if n > 1 else 0.0
    half = _half_width(std, n)
    low, high = (None, None) if half is None else (mean - half, mean + half)
    return {"values": values, "mean": mean, "std": std, "n": n, "low": low, "high": high}


def _half_width(std: float, n: int) -> float | None:
    """Half the prediction interval's width; None for fewer than two networks."""
    from scipy.special import stdtrit  # where it is needed: importing scipy takes a while

    return float(stdtrit(n - 1, 0.975)) * std * math.sqrt(1 + 1 / n) if n > 1 else None


def verdict(value: float | None, band: dict) -> str:
    """Where a value stands to golden's band {mean, std, n}: inside, or outside by how many standard deviations.

    Inside: within the prediction interval, see `golden_band`. None, a class not relearned, stands beyond the limit.
    A band needs two networks.
    """
    half = _half_width(band["std"], band["n"])
    if half is None:
        return "no band"
    off = (LIMIT if value is None else value) - band["mean"]
    if abs(off) <= half:
        return "inside"
    return f"outside by {off / band['std']:+.1f} sd" if band["std"] else "outside"


def audit_table(audits: dict[str, dict]) -> pd.DataFrame:
    """Audit blocks of several runs of one original, by name, as text: original, masked, the runs, golden, the band
    with its number n of golden networks, and for each run its gap to golden and its verdict.

    Raises UserError for audits at several layers, with bands of several seeds, or of several originals.
    """
    first, rows = next(iter(audits.values())), {}
    for what, block in itertools.product(("layer", "seeds", "target"), audits.values()):
        if block[what] != first[what]:
            raise UserError(f"audits: {what} {first[what]} and {block[what]} given; audits of one {what} are accepted")
    for path, (title, factor, digits) in ROWS.items():
        blocks = {name: reduce(getitem, path, block) for name, block in audits.items()}
        rows[title] = _row(blocks, factor, digits, "> " if path == ("relearn",) else None)
    changes = {"original": {}} | {name: first["moved"][name] for name in ("masked", "golden")}
    changes |= {name: block["moved"]["unlearned"] for name, block in audits.items()}
    counts = {name: str(len(tensors)) for name, tensors in changes.items()}
    largest = {name: f"{max(tensors.values(), default=0):.2g}" for name, tensors in changes.items()}
    rows |= {"tensors that moved": counts, "largest move, |new - old| / |old|": largest}
    return pd.DataFrame.from_dict(rows, orient="index").fillna("-")


def _row(blocks: dict[str, dict], factor: float, digits: int, beyond: str | None) -> dict[str, str]:
    """A metric's row of the table; `beyond` stands before the limit where a class was not relearned within it."""

    def text(value: float | None) -> str:
        return "-" if value is None else f"{factor * value:.{digits}f}"

    first = next(iter(blocks.values()))
    runs = {name: block["unlearned"] for name, block in blocks.items()}
    values = {"original": first["original"], "masked": first["masked"], **runs, "golden": first["golden"]}
    row = {name: f"{beyond}{LIMIT}" if value is None and beyond else text(value) for name, value in values.items()}
    band = first["band"]["golden"]
    spread = f"{text(band['mean'])} ± {text(band['std'])} (n = {band['n']})"
    row["golden band"] = spread if band["n"] > 1 else "-"
    for name, block in blocks.items():
        row |= {f"gap, {name}": text(block["gap"]), f"verdict, {name}": block["verdict"]}
    return row


def _with_seed(experiment, seed: int):
    """The same experiment with another seed."""
    if seed == experiment.seed:
        return experiment
    other = dataclasses.replace(experiment, seed=seed, **experiment.start)  # the start that was taken over too
    vars(other)["dataset"] = experiment.dataset  # a cached property: no seed changes the pictures, which are read once
    return other


def _original(experiment) -> Run:
    """The original's run, trained where it is absent, without a word where it is not."""
    return experiment.finished_original() or experiment.train()


def _golden(experiment) -> Run:
    """The golden network's run, trained where it is absent, without a word where it is not."""
    return experiment.finished_golden() or experiment.golden()


def _target(original: Run, forget: list[int]) -> float:
    """The forget accuracy at which a class counts as relearned: 0.95 of the original's. UserError where that is 0."""
    confusion = torch.tensor(original.metrics["original"]["confusion"], dtype=torch.double)[forget]
    accuracy = (confusion[:, forget].diag().sum() / confusion.sum()).item()  # NaN without pictures, as `audit` says
    if accuracy == 0:
        raise UserError(f"run: {original.name} is right on no test picture of {forget}; it knows nothing to audit")
    return 0.95 * accuracy


def _numbers(
    experiment, run: Run, model: nn.Module, golden: nn.Module, target: float, layer: str, kind: str, force
) -> dict:
    """`audit` of a model that belongs to `run`, from the run's folder where it has been made before."""
    forget = experiment.forget_classes
    key = {"version": VERSION, "model": digest(model.state_dict()), "golden": digest(golden.state_dict()), "seed": 0}
    key |= {"data": experiment.dataset.fingerprint, "forget": forget, "layer": layer, "target": target, "limit": LIMIT}

    def make() -> tuple[dict, dict]:
        stranger = experiment.new_model(STRANGER).to(get_device(golden))
        numbers = audit(model, experiment.dataset, forget, golden=golden, stranger=stranger, target=target, layer=layer)
        log.info("%s%s: audited", run.name, kind)
        return {}, numbers

    return cached(run.path / f"audit-{class_code(forget)}{kind}.json", key, make, force=force)[1]


def _block(numbers: dict[str, dict], pairs: dict[int, dict], reference: int) -> dict:
    """The numbers of all models, metric by metric, each with its gap to golden, its band and its verdict.

    pairs: the numbers of original and golden by seed. reference: the seed whose golden network all are compared with.
    """

    def row(metric: str) -> dict:
        values = {name: numbers[name][metric] for name in ("original", "masked", "unlearned", "golden")}
        seeds = [seed for seed in pairs if not (metric in TO_GOLDEN and seed == reference)]  # to itself it says nothing
        beyond = LIMIT if metric == "relearn" else None  # where a class was not relearned
        found = {kind: [pairs[seed][kind][metric] for seed in seeds] for kind in ("original", "golden")}
        band = {kind: golden_band([beyond if x is None else x for x in column]) for kind, column in found.items()}
        both = values["unlearned"] is not None and values["golden"] is not None
        gap = values["unlearned"] - values["golden"] if both else None
        return values | {"gap": gap, "band": band, "verdict": verdict(values["unlearned"], band["golden"])}

    names = ("forget_accuracy", "retain_accuracy", "probe", "relearn", "membership", "misplaced", "zrf")
    block = {metric: row(metric) for metric in names}
    for metric in ("js", "agreement"):
        block[metric] = {part: row(f"{metric}_{part}") for part in ("forget", "retain")}
    times, golden_time = block["relearn"], numbers["golden"]["relearn"]
    ratios = {name: anamnesis_index(times[name], golden_time) for name in numbers}
    times["ain"] = times | ratios | {"gap": None if ratios["unlearned"] is None else ratios["unlearned"] - 1}
    times["ain"]["band"] = {
        kind: golden_band([value / golden_time for value in band["values"]] if golden_time else [])
        for kind, band in times["band"].items()
    }
    times["curve"] = {name: numbers[name]["curve"] for name in numbers}
    return block
