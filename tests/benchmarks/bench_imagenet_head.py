"""Impressions and unlearning at a head of a thousand classes, against the published recipe; and what they cost.

    python tests/benchmarks/bench_imagenet_head.py [--device cuda] [--figures DIR]

The network is ResNet50 with random weights: time and memory do not depend on them. 25 impressions a class, 150 classes
forgotten (0-49, 390-439, 950-999), judged on impressions made from another seed. About five minutes on two cores.
"""

import argparse
import resource
import time

import numpy as np
import pandas as pd
import torch

from unlearn_lib import ZeroShotUnlearner, make_impressions, make_model, pick_device, plot_scaling, save_figure

FORGET = [*range(50), *range(390, 440), *range(950, 1000)]

NUMBERS = {"neggrad+": {"lr": 3e-4, "forget_weight": 3.0}, "distill": {"lr": 1e-3}}


@torch.no_grad()
def judge(model, original, made):
    """Forget probability mass on F, share of R whose argmax is kept, smallest p_c under the original."""
    device = next(model.parameters()).device
    is_forget = torch.isin(made.labels, torch.tensor(FORGET))
    mass, kept, confidence = [], [], []
    for x, labels in zip(made.x.split(5000), made.labels.split(5000), strict=True):
        p, p0 = (net.fc(x.to(device)).softmax(1).cpu() for net in (model, original))
        mass.append(p[:, FORGET].sum(1))
        kept.append(p.argmax(1) == p0.argmax(1))
        confidence.append(p0.gather(1, labels[:, None]))
    mass, kept, confidence = torch.cat(mass), torch.cat(kept), torch.cat(confidence)
    return mass[is_forget].mean().item(), kept[~is_forget].float().mean().item(), confidence


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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device")
    parser.add_argument("--figures", help="where to draw the cost; the repository's figures where not given")
    args = parser.parse_args()
    device = pick_device(args.device)
    net = make_model("resnet50", 1000).to(device).eval()

    made = make_impressions(net, "fc", samples=25)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(made.x):,} impressions at 2048x1000: {made.seconds:.1f} s, peak {peak:.2f} GiB of the whole process")
    for method, numbers in NUMBERS.items():
        unlearner = ZeroShotUnlearner(net, made, FORGET, method=method, **numbers)
        unlearned, history, seconds = unlearner.unlearn()
        held_out = make_impressions(net, "fc", samples=5, seed=1)
        mass, kept, p_c = judge(unlearned, net, held_out)
        print(
            f"{method}: {seconds:.1f} s, {len(history['forget_loss'])} epochs, forget mass {mass:.3%}, kept {kept:.2%}"
        )
    print(f"p_c: mean {p_c.mean():.3f}, least {p_c.min():.3f}")

    begin = time.perf_counter()
    for seed in range(10):
        make_impressions(net, "fc", samples=1, recipe="published", classes=[100 * seed], seed=seed)
    published = (time.perf_counter() - begin) / 10 * len(made.x)
    print(f"published, one by one, ten scaled: {published:,.0f} s, {published / made.seconds:,.0f} times as long")

    table = cost(device)
    count = table["classes"] * table["samples"]
    each, start = np.polyfit(count, table["seconds"], 1)
    left = (table["seconds"] - start - each * count).var() / table["seconds"].var()
    print(table.to_string(index=False, float_format="{:.3f}".format))
    print(f"{start:.3f} s + {1000 * each:.3f} s a thousand impressions, R2 {1 - left:.4f}")
    save_figure(
        plot_scaling(table, f"Impressions at ResNet18's head, 512x1000, on {device}"), "cost_classes", args.figures
    )


if __name__ == "__main__":
    main()
