"""ResNet18 and AlexNet on CIFAR-10 at 64x64: forgetting {3, 4, 8} beside golden, and {0, 1} without.

    python tests/benchmarks/bench_torchvision.py --data-root DIR --runs-root DIR [--figures DIR] [--models resnet18]

Trains what is missing: two originals and two golden networks, which takes an hour and a half on two cores. Draws
ResNet18's impressions in pixels with and without the distance to BatchNorm's statistics.
"""

import argparse

import pandas as pd
import torch

from unlearn_lib import Experiment, plot_pictures, save_figure, statistics_distance

NETWORKS = {
    "resnet18": {"train_epochs": 6, "train_lr": 2e-3, "train_batch_size": 128},
    "alexnet": {"train_epochs": 10, "train_lr": 7e-4, "train_batch_size": 512},
}


def forgetting(model, forget, golden, roots):
    """FA and RA of original, mask, both methods and golden, in per cent."""
    experiment = Experiment(model, "cifar10", forget, size=64, **NETWORKS[model], **roots)
    experiment.train()
    if golden:
        experiment.golden()
    runs = {method: experiment.unlearn(method) for method in ("neggrad+", "distill")}
    blocks = {name: block for name, block in runs["distill"].blocks.items() if block and name != "unlearned"}
    blocks |= {method: run.metrics["unlearned"] for method, run in runs.items()}
    row = {"model": model, "forget": str(set(forget)), "overall": blocks["original"]["overall_accuracy"]}
    for name, block in blocks.items():
        row |= {f"{name} FA": block["forget_accuracy"], f"{name} RA": block["retain_accuracy"]}
    return experiment, row


def inversion(experiment, figures):
    """Pixel impressions of every class by both recipes, and how far each is from BatchNorm's statistics."""
    net = experiment.load(experiment.original())
    made = {"calibrated": experiment.impressions("input", samples=2, recipe="calibrated")}
    made["deepinversion"] = experiment.impressions("input", samples=2, recipe="deepinversion", steps=400)
    shown = torch.cat([impressions.x[::2] for impressions in made.values()])
    names = experiment.dataset.classes * 2
    figure = plot_pictures(
        shown, names, f"{experiment.title}: impressions", columns=len(experiment.dataset.classes), rows=list(made)
    )
    save_figure(figure, "deepinversion", figures)
    for name, impressions in made.items():
        print(f"{name}: {impressions.seconds:.0f} s, distance {statistics_distance(net, impressions.x):.2f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-root")
    parser.add_argument("--runs-root")
    parser.add_argument("--device")
    parser.add_argument("--figures", help="where to draw; the repository's figures where not given")
    parser.add_argument("--models", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    args = parser.parse_args()
    roots = {"data_root": args.data_root, "runs_root": args.runs_root, "device": args.device}
    rows = []
    for model in args.models:
        for forget, golden in (([3, 4, 8], True), ([0, 1], False)):
            experiment, row = forgetting(model, forget, golden, roots)
            rows.append(row)
        if model == "resnet18":
            inversion(experiment, args.figures)
    table = pd.DataFrame(rows).set_index(["model", "forget"])
    print((100 * table).round(2).T.to_string())


if __name__ == "__main__":
    main()
