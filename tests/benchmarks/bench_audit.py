"""The audit tables of figures/README.md, and the lab's sixteen combinations.

    python tests/benchmarks/bench_audit.py --data-root DIR --runs-root DIR [--preset quick] [--seeds 5]

Trains what is missing: an original and a golden network a seed, which for the paper's data takes half an hour on
two cores; the audits and the lab another quarter.
"""

import argparse

from unlearn_lib import PRESETS, PUBLISHED, Experiment, ZeroShotUnlearner, audit_run, audit_table, evaluate, find_head
from unlearn_lib.presets import lab_grid

DEEPER = {"lenet5": "conv2", "karpathynet": "conv32"}  # where `distill` lowers the probe most


def audits(experiment, seeds):
    deeper = DEEPER[experiment.model]
    experiment.train()
    runs = {method: experiment.unlearn(method) for method in ("neggrad+", "distill")}
    runs[f"distill, {deeper}"] = experiment.unlearn("distill", layer=deeper, epochs=40, version=f"from-{deeper}")
    blocks = {name: audit_run(experiment, run, seeds=range(seeds)).metrics["audit"] for name, run in runs.items()}
    print(f"\n{experiment.title}\n{audit_table(blocks).to_string()}", flush=True)


def published(experiment):
    """The sixteen combinations at 100 epochs, and the published one at 1,000."""
    grid = 100 * lab_grid(experiment, samples=100, epochs=100)
    print(f"\n{experiment.title}: sixteen combinations, 100 epochs\n{grid.round(2).to_string()}", flush=True)
    net = experiment.load(experiment.train())
    made = experiment.impressions(find_head(net), samples=100, recipe="published")
    unlearned, _, _ = ZeroShotUnlearner(net, made, experiment.forget_classes, method="published", **PUBLISHED).unlearn()
    block = evaluate(unlearned, experiment.dataset, experiment.forget_classes)
    fa, ra = (100 * block[f"{part}_accuracy"] for part in ("forget", "retain"))
    print(f"as published, {PUBLISHED['epochs']:,} epochs: FA {fa:.2f}, RA {ra:.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-root")
    parser.add_argument("--runs-root")
    parser.add_argument("--preset", default="paper", choices=PRESETS)
    parser.add_argument("--models", nargs="+", help="only these of the preset's")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    for chosen in PRESETS[args.preset]:
        if chosen["model"] in (args.models or [chosen["model"]]):
            experiment = Experiment(**chosen, data_root=args.data_root, runs_root=args.runs_root)
            audits(experiment, args.seeds)
            published(experiment)


if __name__ == "__main__":
    main()
