"""Impressions and unlearning against the published recipe one by one and against golden's training, as ratios.

    python tests/benchmarks/bench_speed.py --data-root DIR --runs-root DIR [--preset quick]

Impressions: one thread, ten published ones timed and scaled to 1,000. Unlearning: all threads; golden is trained in
this process. About five minutes on two cores where the runs folder holds the trained models.
"""

import argparse
import dataclasses
import tempfile
import time

import torch

from unlearn_lib import PRESETS, Experiment, ZeroShotUnlearner, find_head, make_impressions


def publish_one_by_one(head, count):
    """The published loop: one impression at a time, 1,000 steps of Adam up one logit."""
    for i in range(count):
        x = torch.randn(1, head.in_features, requires_grad=True)
        optimiser = torch.optim.Adam([x], lr=0.1)
        for _ in range(1000):
            optimiser.zero_grad()
            (-head(x)[0, i % head.out_features]).backward()
            optimiser.step()


def timed(function, repeat=1):
    """Best of `repeat` calls, in seconds."""
    seconds = []
    for _ in range(repeat):
        begin = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def measure(experiment):
    model = experiment.load(experiment.train())
    head = model.get_submodule(find_head(model))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    make_impressions(model, find_head(model), samples=10)  # warm
    ours = timed(lambda: make_impressions(model, find_head(model)), repeat=5)
    theirs = 100 * timed(lambda: publish_one_by_one(head, 10))
    torch.set_num_threads(threads)
    print(f"{experiment.model}, one thread: 1,000 published impressions one by one {theirs:.0f} s (ten, scaled),")
    print(f"  1,000 natural ones {ours * 1000:.0f} ms: {theirs / ours:,.0f} times faster", flush=True)

    def unlearn():
        ZeroShotUnlearner(model, make_impressions(model), experiment.forget_classes).unlearn()

    quick = timed(unlearn, repeat=3)
    with tempfile.TemporaryDirectory() as scratch:
        apart = dataclasses.replace(experiment, runs_root=scratch)
        slow = apart.golden().metrics["seconds"]["golden"]
    print(
        f"  impressions and unlearning {quick:.2f} s, golden {slow:.1f} s: {slow / quick:,.0f} times faster", flush=True
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-root")
    parser.add_argument("--runs-root")
    parser.add_argument("--preset", default="paper", choices=PRESETS)
    args = parser.parse_args()
    for chosen in PRESETS[args.preset]:
        measure(Experiment(**chosen, data_root=args.data_root, runs_root=args.runs_root))


if __name__ == "__main__":
    main()
