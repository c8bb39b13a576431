"""A sweep of 200 points: two workers against one, with a worker killed twice, and seen again.

    python tests/benchmarks/bench_sweep.py [--classes 10] [--seeds 5] [--train-epochs 25]

LeNet5 on digits, single classes x four methods x seeds. Says the load of the machine beside each time, since others'
work takes from two workers more than from one. Half an hour on two cores with the default training.
"""

import argparse
import os
import random
import signal
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from unlearn_lib import Experiment, run_sweep
from unlearn_lib.networks import run_names
from unlearn_lib.sweep.cluster import _connect


def grid(args):
    common = {"model": ["lenet5"], "data": ["digits"], "forget": [[c] for c in range(args.classes)]}
    common |= {"seed": list(range(args.seeds)), "train_epochs": [args.train_epochs], "samples": [20]}
    published = {"method": ["published"], "epochs": [20]}  # instead of its 1,000, a minute each
    return common | {"grid": [{"method": ["mask", "neggrad+", "distill"]}, published]}


def timed(what, work):
    begin = time.perf_counter()
    result = work()
    took = time.perf_counter() - begin
    print(f"{what}: {took:.1f} s (load {os.getloadavg()[0]:.1f})", flush=True)
    return took, result


def swept(args, root, workers, kills=0):
    with _connect(None, None, workers) as client:  # started before the clock
        client.run(__import__, "unlearn_lib.sweep")
        client.run(__import__, "unlearn_lib.figures")
        done = threading.Event()
        killer = threading.Thread(target=kill, args=(client, root, kills, done))
        killer.start()
        took, rows = timed(
            f"{workers} worker(s), {kills} killed", lambda: run_sweep(grid(args), client=client, runs_root=root)
        )
        done.set()
        killer.join()
    bad = rows[rows["status"] == "failed"]
    print(f"   {len(rows)} rows, {len(bad)} failed, {len(run_names(root))} runs", flush=True)
    if len(bad):
        print(bad["error"].value_counts().to_string())
    return took, rows


def kill(client, root, times, done):
    """Kill a worker now and then; afterwards no finished run may have been written again."""
    for _ in range(times):
        if done.wait(random.uniform(10, 25)):
            return
        before = {name: (root / name / "model.safetensors").stat().st_mtime_ns for name in run_names(root)}
        pid = random.choice(list(client.run(os.getpid).values()))
        os.kill(pid, signal.SIGKILL)
        print(f"   killed a worker after {len(before)} runs", flush=True)
        SEEN.append(before)


SEEN = []


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--train-epochs", type=int, default=25)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    one, _ = swept(args, folder / "one", 1)
    two, _ = swept(args, folder / "two", 2)
    print(f"two workers: {one / two:.2f} times as fast as one")
    timed("all points seen again", lambda: run_sweep(grid(args), runs_root=folder / "two"))
    _, rows = swept(args, folder / "killed", 2, kills=2)
    again = [
        name
        for before in SEEN
        for name, when in before.items()
        if (folder / "killed" / name / "model.safetensors").stat().st_mtime_ns != when
    ]
    print(f"points lost: {(rows['status'] == 'failed').sum()}; finished runs made again after a kill: {len(again)}")
    masks = {"model": ["lenet5"], "data": ["digits"], "forget": [[c] for c in range(args.classes)], "method": ["mask"]}
    masks |= {"train_epochs": [args.train_epochs], "seed": list(range(args.seeds)), "samples": [1]}
    with _connect(None, None, 1) as client:
        first = masks | {"samples": [2], "forget": [[0]]}
        run_sweep(first, client=client, runs_root=folder / "one")  # after which the worker has begun
        sweep, rows = timed("masks, swept", lambda: run_sweep(masks, client=client, runs_root=folder / "one"))
    experiments = [
        Experiment(
            "lenet5",
            "digits",
            [c],
            seed,
            train_epochs=args.train_epochs,
            version=f"train_epochs{args.train_epochs}",
            runs_root=folder / "one",
        )
        for c in range(args.classes)
        for seed in range(args.seeds)
    ]
    for experiment in experiments:
        experiment.dataset  # noqa: B018, read before the clock, as the sweep reads it once for all
    loop, _ = timed(
        "masks, in a loop",
        lambda: [experiment.unlearn("mask", samples=1, version="loop") for experiment in experiments],
    )
    print(f"overhead a point: {1000 * (sweep - loop) / len(rows):.0f} ms")


if __name__ == "__main__":
    main()
