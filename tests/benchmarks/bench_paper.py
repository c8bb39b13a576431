"""The paper's two models on the real data: accuracies over seeds, other forget sets, the published method.

    python tests/benchmarks/bench_paper.py --data-root DIR --runs-root DIR [--seeds 3]

Trained models are kept in the runs folder; a second call only measures. About 25 minutes on two cores from cold.
"""

import argparse
import statistics

import torch

from unlearn_lib import (
    PRESETS,
    PUBLISHED,
    Experiment,
    ZeroShotUnlearner,
    confusion_matrix,
    find_head,
    make_impressions,
    mask,
    plot_per_class,
    save_figure,
    score,
    split,
)

OTHERS = {"lenet5": ([0], [7, 9], [0, 2, 4, 6, 8]), "karpathynet": ([5], [0, 1], [2, 3, 5, 7])}


def features(experiment, model):
    """The head's inputs for all test pictures, so that a head can be judged without the body."""
    body, _ = split(model, find_head(model))
    with torch.no_grad():
        return torch.cat(
            [body(experiment.dataset.normalise(part)) for part in experiment.dataset.test.images.split(500)]
        )


def judge(model, phi, labels, forget):
    with torch.no_grad():
        answers = model.get_submodule(find_head(model))(phi).argmax(1)
    block = score(confusion_matrix(answers, labels, 10), forget)
    return 100 * block["forget_accuracy"], 100 * block["retain_accuracy"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-root")
    parser.add_argument("--runs-root")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    for chosen in PRESETS["paper"]:
        rows = {}
        for seed in range(args.seeds):
            experiment = Experiment(**chosen, seed=seed, data_root=args.data_root, runs_root=args.runs_root)
            original = experiment.train()
            model, labels = experiment.load(original), experiment.dataset.test.labels
            phi = features(experiment, model)
            impressions = make_impressions(model, seed=seed)
            for forget in [experiment.forget_classes, *(() if seed else OTHERS[experiment.model])]:
                key = str(forget)
                rows.setdefault((key, "original"), []).append(judge(model, phi, labels, forget))
                rows.setdefault((key, "mask"), []).append(judge(mask(model, forget), phi, labels, forget))
                for method in ("neggrad+", "distill"):
                    unlearner = ZeroShotUnlearner(model, impressions, forget, method=method, seed=seed)
                    rows.setdefault((key, method), []).append(judge(unlearner.unlearn()[0], phi, labels, forget))
            overall = original.metrics["original"]["overall_accuracy"]
            print(f"{experiment.model}, seed {seed}: overall {100 * overall:.2f}", flush=True)
            if seed == 0:
                published, forget = make_impressions(model, recipe="published"), experiment.forget_classes
                unlearned = ZeroShotUnlearner(model, published, forget, method="published", **PUBLISHED).unlearn()
                rows[str(forget), "published"] = [judge(unlearned[0], phi, labels, forget)]
                golden, run = experiment.golden(), experiment.unlearn("neggrad+")
                title = f"{experiment.title}, unlearned by neggrad+"
                bars = plot_per_class(run.blocks, experiment.dataset.classes, experiment.forget_classes, title)
                save_figure(bars, f"00_{experiment.model}_{experiment.data}")
                block = score(golden.metrics["golden"]["confusion"], forget)
                rows[str(forget), "golden"] = [(100 * block["forget_accuracy"], 100 * block["retain_accuracy"])]
        print(
            f"\n{chosen['model']} on {experiment.dataset.source}\n"
            f"{'forget':18s} {'model':10s} seeds     FA      RA  RA - mask"
        )
        for (key, name), values in rows.items():
            fa, ra = (statistics.mean(column) for column in zip(*values, strict=True))
            gap = ra - statistics.mean(v[1] for v in rows[key, "mask"][: len(values)])
            print(f"{key:18s} {name:10s} {len(values):5d} {fa:6.2f} {ra:7.2f} {gap:+10.2f}")
        print(flush=True)


if __name__ == "__main__":
    main()
