"""The audit of a run: every metric for original, masked, unlearned and golden, beside the golden band.

Golden models of other seeds differ from each other; their mean and standard deviation are the band. What lies within
two standard deviations of the mean cannot be told from a model that never saw the classes, by that metric.
"""

import copy
from collections.abc import Iterable

import pandas as pd
import torch
from torch import nn

from unlearn_lib.auditing.metrics import LIMIT, ain, audit, moved
from unlearn_lib.common import UserError, check_forget, pick_device
from unlearn_lib.experiment import Experiment
from unlearn_lib.networks import Run, class_code, find_head, make_model, run_names
from unlearn_lib.store import read_json, write_json
from unlearn_lib.zeroshot import mask

ROWS = {  # path in the audit, words, factor, digits
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


def audit_run(lab: Experiment, run: Run, *, seeds: Iterable[int] | None = None, layer: str | None = None) -> Run:
    """Audit an unlearned run of `lab` and keep the result as the block `audit` of its metrics.json.

    seeds: of the original and golden models that make the band, trained where absent; those that have been trained
    already where none are given. layer: the probe reads its input, that of the head by default.
    Raises ValueError where the run is no unlearned one or forgot other classes than `lab` does.
    """
    forget = check_forget(lab.forget, lab.dataset.num_classes)
    if "original_run" not in run.config:
        raise UserError(f"run: {run.name} given; an unlearned run is accepted")
    if run.config["forget"] != forget:
        raise UserError(f"forget: {forget} given, but {run.name} forgot {run.config['forget']}")
    lab = _with_seed(lab, lab.seed)
    original, golden = lab.train(), lab.golden()
    net = lab.load(original)
    layer, target = layer or find_head(net), _target(original, forget)
    wanted = sorted({lab.seed, *(trained_seeds(lab) if seeds is None else seeds)})
    pairs = {seed: _pair(_with_seed(lab, seed), golden, layer) for seed in wanted}
    models = {"masked": mask(net, forget), "unlearned": lab.load(run)}
    numbers = pairs[lab.seed] | {
        "masked": _numbers(lab, original, models["masked"], golden, target, layer, "-masked"),
        "unlearned": _numbers(lab, run, models["unlearned"], golden, target, layer),
    }
    block = _block(numbers, pairs, lab.seed)
    models |= {"golden": lab.load(golden)}
    block["moved"] = {name: moved(model, net) for name, model in models.items()}
    block |= {"layer": layer, "seeds": wanted, "target": target}
    write_json(run.path / "metrics.json", run.metrics | {"audit": block})
    return Run(run.path, run.config)


def trained_seeds(lab: Experiment, among: Iterable[int] = range(20)) -> list[int]:
    """Seeds whose original and golden model have both been trained already."""
    there, kinds = set(run_names(lab.root)), ((), ("golden", class_code(lab.forget)))
    return [seed for seed in among if {_with_seed(lab, seed).run_name(*kind) for kind in kinds} <= there]


def verdict(value: float | None, band: dict) -> str:
    """Where a value stands to golden's band {mean, std, n}: inside, or outside by how many standard deviations.

    Inside: within two of them. None, a class not relearned, stands beyond the limit. A band needs two models.
    """
    if band["n"] < 2:
        return "no band"
    off = (LIMIT if value is None else value) - band["mean"]
    if abs(off) <= 2 * band["std"]:
        return "inside"
    return f"outside by {off / band['std']:+.1f} sd" if band["std"] else "outside"


def audit_table(audits: dict[str, dict]) -> pd.DataFrame:
    """Audit blocks of several runs of one original, by name, as words: original, masked, the runs, golden, the band,
    and for each run its gap to golden and its verdict."""
    first = next(iter(audits.values()))
    rows = {}
    for path, (words, factor, digits) in ROWS.items():

        def said(value: float | None, factor=factor, digits=digits) -> str:
            return "-" if value is None else f"{factor * value:.{digits}f}"

        def at(block: dict, path=path) -> dict:
            for key in path:
                block = block[key]
            return block

        row, shown = at(first), {name: at(block)["unlearned"] for name, block in audits.items()}
        band = row["band"]["golden"]
        shown = {"original": row["original"], "masked": row["masked"], **shown, "golden": row["golden"]}
        if path[0] == "relearn":  # None: not within the limit
            shown = {name: f"> {said(LIMIT)}" if v is None and len(path) == 1 else said(v) for name, v in shown.items()}
        else:
            shown = {name: said(value) for name, value in shown.items()}
        shown["golden band"] = f"{said(band['mean'])} ± {said(band['std'])}" if band["n"] > 1 else "-"
        for name, block in audits.items():
            shown[f"gap, {name}"] = said(at(block)["gap"])
            shown[f"verdict, {name}"] = at(block)["verdict"]
        rows[words] = shown
    changes = {"original": {}} | {name: first["moved"][name] for name in ("masked", "golden")}
    changes |= {name: block["moved"]["unlearned"] for name, block in audits.items()}
    counts = {name: str(len(tensors)) for name, tensors in changes.items()}
    largest = {name: f"{max(tensors.values(), default=0):.2g}" for name, tensors in changes.items()}
    rows |= {"tensors that moved": counts, "largest move, |new - old| / |old|": largest}
    return pd.DataFrame.from_dict(rows, orient="index").fillna("-")


def _with_seed(lab: Experiment, seed: int) -> Experiment:
    """The same experiment with another seed, which says what it makes and not what it reuses."""
    mine = copy.copy(lab)
    mine.seed, mine.say = seed, lambda sentence: None if sentence.endswith("reused") else lab.say(sentence)
    return mine


def _target(original: Run, forget: list[int]) -> float:
    """The forget accuracy at which a class counts as relearned: 0.95 of the original's."""
    confusion = torch.tensor(original.metrics["original"]["confusion"], dtype=torch.double)[forget]
    return 0.95 * (confusion[:, forget].diag().sum() / confusion.sum()).item()


def _pair(lab: Experiment, reference: Run, layer: str) -> dict[str, dict]:
    """The numbers of one seed's original and golden; `reference` is the golden model that all are compared with."""
    original, golden = lab.train(), lab.golden()
    target = _target(original, lab.forget)
    return {
        name: _numbers(lab, run, lab.load(run), reference, target, layer)
        for name, run in (("original", original), ("golden", golden))
    }


def _numbers(
    lab: Experiment, run: Run, model: nn.Module, reference: Run, target: float, layer: str, kind: str = ""
) -> dict:
    """`audit` of a model that belongs to `run`, from the run's folder where it has been made before."""
    path = run.path / f"audit-{class_code(lab.forget)}{kind}.json"
    words = {"files": [run.fingerprint(), reference.fingerprint()], "layer": layer, "target": target, "limit": LIMIT}
    kept = read_json(path) if path.is_file() else {}
    if kept.get("made_with") == words:
        return kept["numbers"]
    stranger = make_model(lab.model, lab.dataset.num_classes, size=lab.size, dropout=lab.dropout, seed=1000)
    common = {"golden": lab.load(reference), "stranger": stranger.to(pick_device(lab.device)), "target": target}
    numbers = audit(model, lab.dataset, lab.forget, **common, layer=layer)
    write_json(path, {"made_with": words, "numbers": numbers})
    lab.say(f"{run.name}{kind}: audited")
    return numbers


def _block(numbers: dict[str, dict], pairs: dict[int, dict], own: int) -> dict:
    """The numbers of all models, metric by metric, each with its gap to golden, its band and its verdict."""
    golden_time = numbers["golden"]["relearn"]

    def row(metric: str) -> dict:
        values = {name: numbers[name][metric] for name in ("original", "masked", "unlearned", "golden")}
        return finish(values, metric)

    def finish(values: dict, metric: str) -> dict:
        seeds = [seed for seed in pairs if not (metric in TO_GOLDEN and seed == own)]  # golden to itself says nothing
        band = {kind: _spread([pairs[seed][kind][metric] for seed in seeds]) for kind in ("original", "golden")}
        both = values["unlearned"] is not None and values["golden"] is not None
        gap = values["unlearned"] - values["golden"] if both else None
        return values | {"gap": gap, "band": band, "verdict": verdict(values["unlearned"], band["golden"])}

    block = {metric: row(metric) for metric in ("forget_accuracy", "retain_accuracy", "probe", "relearn", "membership")}
    block |= {metric: row(metric) for metric in ("misplaced", "zrf")}
    for metric in ("js", "agreement"):
        block[metric] = {part: row(f"{metric}_{part}") for part in ("forget", "retain")}
    times = block["relearn"]
    ratios = {name: ain(times[name], golden_time) for name in numbers}
    times["ain"] = times | ratios | {"gap": None if ratios["unlearned"] is None else ratios["unlearned"] - 1}
    times["ain"]["band"] = {kind: _over(band, golden_time) for kind, band in times["band"].items()}
    block["relearn"]["curve"] = {name: numbers[name]["curve"] for name in numbers}
    return block


def _over(band: dict, golden_time: int | None) -> dict:
    """A band of relearn times in multiples of golden's."""
    return _spread([value / golden_time for value in band["values"]] if golden_time else [])


def _spread(values: list[float | None]) -> dict:
    """The values of a metric over models, their mean and standard deviation (n - 1); not relearned counts as LIMIT."""
    values = [LIMIT if value is None else value for value in values]
    numbers = torch.tensor(values, dtype=torch.double)
    mean = numbers.mean().item() if values else 0.0
    return {"values": values, "mean": mean, "std": numbers.std().item() if len(values) > 1 else 0.0, "n": len(values)}
