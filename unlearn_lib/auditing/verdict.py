"""The audit of a run: every metric for the original, masked, unlearned and golden network, with golden's band.

Golden networks of different seeds differ. The band of a metric is where the next of them lies in 95 % of cases. So
each metric refuses a true golden network in 5 % of cases, and at least one of ten metrics does in up to 40 %.
"""

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial, reduce
from operator import getitem

import pandas as pd
import torch
from scipy.special import stdtrit
from torch import nn

from unlearn_lib.auditing.attacks import LIMIT, anamnesis_index, audit
from unlearn_lib.auditing.metrics import weight_changes
from unlearn_lib.common import UserError, as_list, check_forget, check_seed, get_device, log
from unlearn_lib.evaluation import knows_forget, score
from unlearn_lib.networks import Run, amend_run, class_code, find_head, run_name, run_names, split
from unlearn_lib.store import cached, digest, lock_folder
from unlearn_lib.zeroshot import mask

VERSION = 2  # of the audit's numbers; numbers of another version are measured again
STRANGER = 1000  # seed of the randomly initialised network for ZRF, far from the seeds that people train


@dataclass(frozen=True)
class Row:
    """One metric: where it stands in the audit block, and how the table shows it.

    Attributes:
        path: keys of the audit block, joined by dots.
        factor: the table shows factor * value.
        is_to_golden: the metric compares with the reference golden network.
    """

    path: str
    title: str
    factor: int
    digits: int
    is_to_golden: bool = False

    def find(self, block: dict) -> dict:
        """Return the metric's part of an audit block."""
        return reduce(getitem, self.path.split("."), block)

    def show(self, metric: dict, part: str) -> str:
        """Return a value of the metric's part of the block as the table shows it."""
        value = metric[part]
        if value is None:
            return f"> {LIMIT}" if self.path == "relearn" and part != "gap" else "-"
        return f"{self.factor * value:.{self.digits}f}"

    def show_band(self, band: dict) -> str:
        """Return a `golden_band` as the table shows it."""
        return f"{self.show(band, 'mean')} ± {self.show(band, 'std')} (n = {band['n']})" if band["n"] > 1 else "-"


ROWS = (
    Row("forget_accuracy", "forget accuracy, %", 100, 2),
    Row("retain_accuracy", "retain accuracy, %", 100, 2),
    Row("probe", "linear probe on F, %", 100, 1),
    Row("relearn", "relearn time, batches", 1, 0),
    Row("relearn.ain", "AIN", 1, 2),
    Row("membership", "membership inference, %", 100, 1),
    Row("js.forget", "JS to golden on F, nats", 1, 3, is_to_golden=True),
    Row("js.retain", "JS to golden on R, nats", 1, 3, is_to_golden=True),
    Row("agreement.forget", "agreement with golden on F, %", 100, 1, is_to_golden=True),
    Row("agreement.retain", "agreement with golden on R, %", 100, 1, is_to_golden=True),
    Row("misplaced", "misplaced answers on F, %", 100, 1, is_to_golden=True),
    Row("zrf", "ZRF", 1, 3),
)


def audit_run(
    experiment, run: Run, *, seeds: Iterable[int] | None = None, layer: str | None = None, force: bool = False
) -> Run:
    """Audit an unlearned run of an experiment, and keep the result as `audit` in its metrics.json.

    Args:
        seeds: of the original and golden networks that make the band. Absent networks are trained. Default: the seeds
            of all networks trained so far.
        layer: the probe reads the inputs of this layer. Default: the head.
        force: audit all networks again.

    Returns:
        The run with the audit.

    Raises:
        UserError: the run is not an unlearned one, forgot other classes than the experiment's, was unlearned from
            another original than the present one, or the original is right on no test picture of the forget classes.

    Example:
        >>> run = audit_run(experiment, experiment.unlearn("distill"), seeds=range(5))
    """
    forget = check_forget(experiment.forget_classes, experiment.dataset.num_classes)
    if "original_run" not in run.config:
        raise UserError(f"run: got {run.name}; expected an unlearned run")
    if run.config["forget"] != forget:
        raise UserError(f"forget: got {forget}; expected {run.config['forget']}, the classes that {run.name} forgot")
    if seeds is None:
        seeds = trained_seeds(experiment)
    given = [check_seed(seed) for seed in as_list(seeds)]
    seeds = sorted({experiment.seed, *given})
    original = experiment.finished_original() or experiment.train()
    if run.config.get("original_file") != original.fingerprint():
        raise UserError(f"run: {run.name} was unlearned from another network than {original.name}; unlearn it again")
    target = _relearn_target(original, forget)
    with lock_folder(run.path):  # to the end, so that no other process replaces the run meanwhile
        net = experiment.load(original)
        layer = find_head(net) if layer is None else str(layer)
        split(net, layer)  # refuses an unknown layer before the first training
        runs = {seed: _train_pair(experiment.variant(seed=seed, **experiment.start)) for seed in seeds}
        models = {"masked": mask(net, forget), "unlearned": experiment.load(run)}
        models["golden"] = experiment.load(runs[experiment.seed]["golden"])
        measure = partial(_measure, experiment, models["golden"], layer, force)
        pairs = {}
        scores = {seed: score(pair["golden"].metrics["golden"]["confusion"], forget) for seed, pair in runs.items()}
        informed = [seed for seed, block in scores.items() if knows_forget(block)]
        if informed:
            log.warning("audit: golden of seeds %s knows the forget classes, so that it makes no band", informed)
        for seed, pair in runs.items():
            goal = _relearn_target(pair["original"], forget)
            pairs[seed] = {kind: measure(each, experiment.load(each), goal) for kind, each in pair.items()}
        numbers = pairs[experiment.seed] | {
            "masked": measure(original, models["masked"], target, "-masked"),
            "unlearned": measure(run, models["unlearned"], target),
        }
        block = _compare(numbers, pairs, experiment.seed, informed)
        block |= {"layer": layer, "seeds": seeds, "target": target, "golden_knows_forget": informed}
        block["moved"] = {name: weight_changes(model, net) for name, model in models.items()}
        return amend_run(run, run.metrics | {"audit": block})


def trained_seeds(experiment) -> list[int]:
    """Return the seeds of which both the original and the golden network have been trained for this experiment."""
    model, data = experiment.model, experiment.dataset.name
    names = run_names(experiment.root)
    seeds = {int(seed) for name in names for seed in re.findall(r"-s(\d+)", name)}
    seeds = [seed for seed in sorted(seeds) if run_name(model, data, seed, version=experiment.version) in names]
    variants = [experiment.variant(seed=seed, **experiment.start) for seed in seeds]
    return [variant.seed for variant in variants if variant.finished_original() and variant.finished_golden()]


def golden_band(values: list[float | None]) -> dict:
    """Return the band that the values of golden networks make; None is left out.

    low, high: mean ± t(n - 1, 0.975) std sqrt(1 + 1 / n), where the next value of the same normal distribution lies in
    95 % of cases (prediction interval, Whitmore, The American Statistician 1986). Trap: ± 2 std of five golden
    networks would refuse a true one in 14 % of cases.

    Returns:
        values, mean, std (n - 1 in the denominator), n, low, high (None for n < 2).
    """
    values = [value for value in values if value is not None]
    n = len(values)
    band = {"values": values, "mean": 0.0, "std": 0.0, "n": n, "low": None, "high": None}
    numbers = torch.tensor(values, dtype=torch.double)
    if n:
        band["mean"] = numbers.mean().item()
    if n > 1:
        band["std"] = numbers.std().item()
        half = stdtrit(n - 1, 0.975).item() * band["std"] * math.sqrt(1 + 1 / n)
        band |= {"low": band["mean"] - half, "high": band["mean"] + half}
    return band


def verdict(value: float | None, band: dict) -> str:
    """Say whether a value lies inside a `golden_band`, or by how many standard deviations it lies outside.

    None, for a network that did not relearn, counts as LIMIT. A band needs two networks.
    """
    if band["low"] is None:
        return "no band"
    value = LIMIT if value is None else value
    if band["low"] <= value <= band["high"]:
        return "inside"
    return f"outside by {(value - band['mean']) / band['std']:+.1f} sd" if band["std"] else "outside"


def audit_table(audits: dict[str, dict]) -> pd.DataFrame:
    """Return audit blocks of several runs of one original, by name, as a table of text.

    Columns: original, masked, the runs, golden, golden's band with its number n of networks, then the gap to golden and
    the verdict of each run.

    Raises:
        UserError: the audits differ in the probe's layer, the seeds of the band or the relearn target.

    Example:
        >>> audit_table({"distill": run.metrics["audit"]})
    """
    first = next(iter(audits.values()))
    for block in audits.values():
        for name in ("layer", "seeds", "target"):
            if block[name] != first[name]:
                raise UserError(f"audits: got {name} {first[name]} and {block[name]}; expected audits of one {name}")

    def column(block: dict, part: str) -> list[str]:
        return [row.show(row.find(block), part) for row in ROWS]

    columns = {"original": column(first, "original"), "masked": column(first, "masked")}
    columns |= {name: column(block, "unlearned") for name, block in audits.items()}
    columns["golden, knows F" if first.get("golden_knows_forget") else "golden"] = column(first, "golden")
    columns["golden band"] = [row.show_band(row.find(first)["band"]["golden"]) for row in ROWS]
    for name, block in audits.items():
        columns[f"gap, {name}"] = column(block, "gap")
        columns[f"verdict, {name}"] = [row.find(block)["verdict"] for row in ROWS]
    shown = pd.DataFrame(columns, index=[row.title for row in ROWS])
    changes = {name: block["moved"]["unlearned"] for name, block in audits.items()}
    changes = pd.DataFrame(first["moved"] | changes | {"original": {}}, dtype=float)
    shown.loc["tensors that moved"] = changes.count().astype(str)
    shown.loc["largest move, |new - old| / |old|"] = changes.max().fillna(0).map("{:.2g}".format)
    return shown.fillna("-")


def _train_pair(experiment) -> dict[str, Run]:
    """Return the original's and the golden network's run, trained if absent; a finished one is not logged."""
    return {
        "original": experiment.finished_original() or experiment.train(),
        "golden": experiment.finished_golden() or experiment.golden(),
    }


def _relearn_target(original: Run, forget: list[int]) -> float:
    """Return the forget accuracy at which F counts as relearned, 0.95 of the original's."""
    accuracy = score(original.metrics["original"]["confusion"], forget)["forget_accuracy"]
    if not accuracy:
        tested = "was tested on no picture" if accuracy is None else "is right on no test picture"
        raise UserError(f"run: {original.name} {tested} of the classes {forget}; expected one that knows them")
    return 0.95 * accuracy


def _measure(
    experiment, golden: nn.Module, layer: str, force: bool, run: Run, model: nn.Module, target: float, kind: str = ""
) -> dict:
    """Return `audit` of a model that belongs to `run`, read from the run's folder if it has been measured before."""
    forget = experiment.forget_classes
    key = {"version": VERSION, "model": digest(model.state_dict()), "golden": digest(golden.state_dict()), "seed": 0}
    key |= {"data": experiment.dataset.fingerprint, "forget": forget, "layer": layer, "target": target, "limit": LIMIT}

    def make() -> tuple[dict, dict]:
        stranger = experiment.new_model(STRANGER).to(get_device(golden))
        numbers = audit(model, experiment.dataset, forget, golden=golden, stranger=stranger, target=target, layer=layer)
        log.info("%s%s: audited", run.name, kind)
        return {}, numbers

    return cached(run.path / f"audit-{class_code(forget)}{kind}.json", key, make, force=force)[1]


def _compare(numbers: dict[str, dict], pairs: dict[int, dict], reference: int, informed: Collection[int] = ()) -> dict:
    """Return the audit block: for each of ROWS the models' values, the gap to golden, the bands and the verdict.

    Args:
        numbers: what `audit` returned for original, masked, unlearned and golden.
        pairs: what `audit` returned for original and golden of each seed.
        reference: the seed whose golden network all others are compared with.
        informed: seeds whose golden network knows the forget classes; they make no band.
    """
    golden_time = numbers["golden"]["relearn"]
    beyond = {"relearn": LIMIT, "relearn.ain": anamnesis_index(LIMIT, golden_time)}  # of networks that do not relearn

    def read(network: dict, row: Row, absent: float | None = None) -> float | None:
        is_index = row.path == "relearn.ain"
        name = row.path.replace(".", "_")
        value = anamnesis_index(network["relearn"], golden_time) if is_index else network[name]
        return absent if value is None else value

    block = {"js": {}, "agreement": {}}
    for row in ROWS:
        metric = {name: read(numbers[name], row) for name in ("original", "masked", "unlearned", "golden")}
        absent = beyond.get(row.path)
        others = {seed: pair for seed, pair in pairs.items() if not (row.is_to_golden and seed == reference)}
        sound = {seed: pair for seed, pair in others.items() if seed not in informed}
        band = {
            kind: golden_band([read(pair[kind], row, absent) for pair in chosen.values()])
            for kind, chosen in (("original", others), ("golden", sound))
        }
        has_gap = None not in (metric["unlearned"], metric["golden"])
        metric["gap"] = metric["unlearned"] - metric["golden"] if has_gap else None
        metric["band"] = band
        metric["verdict"] = verdict(read(numbers["unlearned"], row, absent), band["golden"])
        *outer, last = row.path.split(".")
        reduce(getitem, outer, block)[last] = metric
    block["relearn"]["curve"] = {name: network["curve"] for name, network in numbers.items()}
    return block
