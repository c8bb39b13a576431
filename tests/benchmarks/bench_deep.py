"""What `deep` reaches beside every other row: features and answers, layer by layer.

    python tests/benchmarks/bench_deep.py --data-root DIR --runs-root DIR [--models lenet5] [--seeds 3] [--quick]

Trains what is missing (an original a seed, a golden network a seed and forget set: for three seeds of the paper's data
an hour on two cores) and measures it; all that is done is kept below the runs' folder, so that it can be stopped and
gone on with. `--quick`: the embedded data sets, minutes.
"""

import argparse

import pandas as pd
import torch

from unlearn_lib import (
    Experiment,
    audit_run,
    deep_layer,
    extract_features,
    find_head,
    inner_layers,
    linear_probe,
    mask,
    show_log,
)
from unlearn_lib.networks import class_code
from unlearn_lib.store import cached, digest

PAPER = [
    ("lenet5", "mnist", [1, 2, 3, 4]),
    ("karpathynet", "cifar10", [3, 4, 8]),
    ("lenet5", "mnist", [7, 9]),
    ("karpathynet", "cifar10", [0, 1]),
]
QUICK = [("lenet5", "digits", [1, 2, 3, 4]), ("karpathynet", "shapes", [1, 5, 7])]
SAMPLES = 1000  # training pictures a class for a probe, as in the audit


def probes(run, model, experiment, layer, kind):
    """Shares in percent of the test pictures of F, and of R, that a linear probe at the input of `layer` finds."""
    data, forget = experiment.dataset, experiment.forget_classes
    key = {"model": digest(model.state_dict()), "layer": layer, "data": data.fingerprint, "samples": SAMPLES}

    def make():
        generator, train = torch.Generator().manual_seed(0), data.train
        places = [(train.labels == c).nonzero()[:, 0] for c in range(data.num_classes)]
        places = torch.cat([p[torch.randperm(len(p), generator=generator)[:SAMPLES].sort().values] for p in places])
        fitted = extract_features(model, train.images[places], data, layer), train.labels[places]
        found = {}
        for name, part in (("F", data.test.only(forget)), ("R", data.test.without(forget))):
            found[name] = 100 * linear_probe(*fitted, extract_features(model, part.images, data, layer), part.labels)
        return {}, found

    return cached(run.path / f"probes-{class_code(forget)}-{layer}{kind}.json", key, make)[1]


def rows_of(experiment):
    """The table's rows for one network, seed and forget set."""
    original, golden = experiment.train(), experiment.golden()
    net = experiment.load(original)
    layer = deep_layer(net)
    layers, head = inner_layers(net, layer), find_head(net)
    runs = {method: experiment.unlearn(method) for method in ("neggrad+", "distill", "deep")}
    blocks = {name: audit_run(experiment, run, seeds=[experiment.seed]).metrics["audit"] for name, run in runs.items()}
    first, audits = next(iter(blocks.values())), {}
    for name in ("original", "masked", "golden"):
        audits[name] = first, name
    audits |= {name: (block, "unlearned") for name, block in blocks.items()}
    models = {"original": (original, net, ""), "masked": (original, mask(net, experiment.forget_classes), "-masked")}
    models |= {name: (run, experiment.load(run), "") for name, run in ({"golden": golden} | runs).items()}
    seconds = {name: run.metrics["seconds"] for name, run in runs.items()}
    for name, (block, column) in audits.items():
        row = {"FA": 100 * block["forget_accuracy"][column], "RA": 100 * block["retain_accuracy"][column]}
        for part in layers:
            found = probes(*models[name][:2], experiment, part, models[name][2])
            row |= {f"F at {part}": found["F"]} | ({"R": found["R"]} if part == head else {})
        row |= {"JS": block["js"]["forget"][column], "AIN": block["relearn"]["ain"].get(column)}
        took = seconds.get(name)
        yield name, row | {"s": took and took["impressions"] + took["unlearn"]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-root")
    parser.add_argument("--runs-root")
    parser.add_argument("--models", nargs="+", default=["lenet5", "karpathynet"])
    parser.add_argument("--forget", type=int, nargs="+", help="only this forget set")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    show_log()
    for model, data, forget in QUICK if args.quick else PAPER:
        if model not in args.models or args.forget not in (None, forget):
            continue
        tables = []
        for seed in range(args.seeds):
            experiment = Experiment(model, data, forget, seed=seed, data_root=args.data_root, runs_root=args.runs_root)
            tables.append(pd.DataFrame.from_dict(dict(rows_of(experiment)), orient="index").astype(float))
            print(f"\n{experiment.title}, forget {forget}, seed {seed}\n{tables[-1].round(2).to_string()}", flush=True)
        mean = sum(table.fillna(float("nan")) for table in tables) / len(tables)
        print(
            f"\n{experiment.title}, forget {forget}: mean of {args.seeds} seeds\n{mean.round(2).to_string()}",
            flush=True,
        )


if __name__ == "__main__":
    main()
