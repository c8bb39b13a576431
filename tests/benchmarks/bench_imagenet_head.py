"""What forgetting costs, and reaches, at heads of a thousand classes.

    python tests/benchmarks/bench_imagenet_head.py --data-root DIR [--runs-root DIR] [--device cuda] [--figures DIR]

EfficientNet-Lite0 with its ImageNet weights forgets 150 classes (0-49, 390-439, 950-999), then five random sets of 1 to
500, from 25 impressions a class, judged on the photographs below DIR/ImageNet (which are read once; their features are
kept). Then ResNet50 with random weights, where time and memory alone are measured. About ten minutes on two cores.
"""

import argparse
import resource
import time

import pandas as pd
import torch

from unlearn_lib import (
    Experiment,
    ZeroShotUnlearner,
    carry_over,
    confusion_matrix,
    find_head,
    make_impressions,
    make_model,
    mask,
    pick_device,
    plot_scaling,
    save_figure,
    score,
    split,
)
from unlearn_lib.figures import fit_cost

FORGET = [*range(50), *range(390, 440), *range(950, 1000)]
RANDOM = (1, 10, 100, 300, 500)


def peak():
    """The most memory that this process has taken so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@torch.no_grad()
def features_of_photographs(experiment, net, head):
    """Features [N, 1280] and labels of the photographs that open."""
    body, _ = split(net, head)
    device, parts = next(net.parameters()).device, experiment.dataset.test.images.split(50)
    return torch.cat(
        [body(experiment.dataset.normalise(part).to(device)).cpu() for part in parts]
    ), experiment.dataset.test.labels


def forgetting(net, head, made, photographs, forget):
    """A row a network: FA and RA in per cent, carry-over, seconds of processor time."""
    features, labels = photographs
    networks, seconds = {"original": net, "masked": mask(net, forget)}, {}
    for method in ("neggrad+", "distill"):
        begin = time.process_time()
        networks[method], _, _ = ZeroShotUnlearner(net, made, forget, method=method).unlearn()
        seconds[method] = time.process_time() - begin
    for name, network in networks.items():
        with torch.no_grad():
            answers = network.get_submodule(head)(features.to(next(net.parameters()).device)).argmax(1).cpu()
        block = score(confusion_matrix(answers, labels, 1000), forget)
        row = {"classes": len(forget), "network": name}
        row |= {"FA": 100 * block["forget_accuracy"], "RA": 100 * block["retain_accuracy"]}
        if name in seconds:
            row |= carry_over(net, network, head, forget) | {"seconds": seconds[name]}
        yield row


def efficientnet(args):
    """Impressions and unlearning of a network that ImageNet trained, judged on photographs."""
    roots = {"data_root": args.data_root, "runs_root": args.runs_root, "device": args.device}
    experiment = Experiment("efficientnet_lite0", "imagenet", weights="imagenet", **roots)
    net = experiment.load(experiment.train())
    head = find_head(net)
    photographs = features_of_photographs(experiment, net, head)
    begin, before = time.process_time(), peak()
    made = make_impressions(net, head, samples=25)
    seconds = time.process_time() - begin
    print(f"EfficientNet-Lite0, {len(photographs[1]):,} photographs, {len(made.x):,} impressions: {seconds:.1f} s")
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randperm(1000, generator=generator)[:count].sort().values.tolist() for count in RANDOM]
    rows = [row for forget in (FORGET, *drawn) for row in forgetting(net, head, made, photographs, forget)]
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format, na_rep=""))
    print(f"peak {before:.2f} GiB after the photographs, {peak():.2f} GiB in the end, of the whole process")


def cost(device):
    """Seconds for impressions at ResNet18's head, over classes and samples a class; the least of three."""
    net = make_model("resnet18", 1000).to(device)
    rows = []
    make_impressions(net, "fc", samples=1)
    for k in (10, 100, 1000):
        for samples in (5, 25, 100):
            chosen = range(0, 1000, 1000 // k)
            seconds = min(make_impressions(net, "fc", samples=samples, classes=chosen).seconds for _ in range(3))
            rows.append({"classes": k, "samples": samples, "seconds": seconds})
    return pd.DataFrame(rows)


def resnet50(device):
    """Time and memory at 2048x1000, which do not depend on the weights, beside the published recipe's time."""
    net = make_model("resnet50", 1000).to(device).eval()
    made = make_impressions(net, "fc", samples=25)
    print(f"{len(made.x):,} impressions at 2048x1000: {made.seconds:.1f} s, peak {peak():.2f} GiB of the whole process")
    for method in ("neggrad+", "distill"):
        unlearned, history, seconds = ZeroShotUnlearner(net, made, FORGET, method=method).unlearn()
        shares = carry_over(net, unlearned, "fc", FORGET)
        print(f"{method}: {seconds:.1f} s, {len(history['forget_loss'])} epochs, carry-over {shares}")
    begin = time.perf_counter()
    for seed in range(10):
        make_impressions(net, "fc", samples=1, recipe="published", classes=[100 * seed], seed=seed)
    published = (time.perf_counter() - begin) / 10 * len(made.x)
    print(f"published, one by one, ten scaled: {published:,.0f} s, {published / made.seconds:,.0f} times as long")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-root", help="where ImageNet/val lies; without it the first part is left out")
    parser.add_argument("--runs-root")
    parser.add_argument("--device")
    parser.add_argument("--figures", help="where to draw the cost; the repository's figures where not given")
    parser.add_argument("--photographs-only", action="store_true", help="the first part alone")
    args = parser.parse_args()
    if args.data_root:
        efficientnet(args)
    if args.photographs_only:
        return
    device = pick_device(args.device)
    resnet50(device)
    table = cost(device)
    line, r2 = fit_cost(table["classes"] * table["samples"], table["seconds"])
    print(table.to_string(index=False, float_format="{:.3f}".format))
    print(f"{line[0]:.3f} s + {1000 * line[1]:.3f} s a thousand impressions, R2 {r2:.4f}")
    save_figure(
        plot_scaling(table, f"Impressions at ResNet18's head, 512x1000, on {device}"), "cost_classes", args.figures
    )


if __name__ == "__main__":
    main()
