"""From the click on Run to the drawn result, in seconds, the evaluation on the test set included.

    python tests/benchmarks/bench_panel.py --data-root DIR --runs-root DIR [--preset quick]

First without cached impressions (and without the body's activations), then the median and the slowest of twenty runs
with changing classes; and how much the process has grown over them. Limits: LeNet5 3 s and 1.5 s, KarpathyNet 8 s and
2.5 s, on two idle cores. Also what one step of the explorer's slider takes.
"""

import argparse
import resource
import statistics
import time

from unlearn_lib import PRESETS, Experiment, impression_explorer, unlearning_panel

LIMITS = {"lenet5": (3.0, 1.5), "karpathynet": (8.0, 2.5)}


def click(panel):
    begin = time.perf_counter()
    panel.run.click()
    panel.wait()
    assert "Done" in panel.event.value, panel.event.value
    return time.perf_counter() - begin


def measure(experiment):
    experiment.train()
    for path in experiment.original().path.glob("impressions-*"):
        path.unlink()
    panel = unlearning_panel(experiment)
    first = click(panel)
    seconds, memory = [], []
    for i in range(20):
        panel.controls.range.value = (i % 8, i % 8 + 1 + i % 2)
        seconds.append(click(panel))
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    uncached, cached = LIMITS[experiment.model]
    print(
        f"{experiment.title}: uncached {first:.2f} s (limit {uncached}), cached {statistics.median(seconds):.2f} s, ",
        end="",
    )
    print(f"slowest {max(seconds):.2f} s (limit {cached}); peak memory {memory[0]:.0f} MB at run 1, ", end="")
    print(f"{memory[9]:.0f} at 10, {memory[-1]:.0f} at 20")
    explorer = impression_explorer(experiment)
    begin = time.perf_counter()
    for step in range(50):
        explorer.step.value = step
    print(f"  explorer: {20 * (time.perf_counter() - begin):.0f} ms a step of the slider", flush=True)


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
