"""Kills at random moments of every step, and flipped bits in every file: how many runs are lost or wrong.

    python tests/benchmarks/bench_survival.py [--kills 100] [--flips 2000]

Train, golden, impressions and unlearn (LeNet5 on digits) and an audit (a tiny network) are killed in processes of
their own, a sweep as a whole, workers and all; then each is called again, and compared with what nobody disturbed:
weights, impressions and metrics, to the bit. Ten minutes on two cores.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["UNLEARN_PROGRESS"] = "0"
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "experiment")]

from test_survival import STEPS, bits, flipped, killed, lab_in, reading, scratch  # noqa: E402
from tiny import TinyExperiment  # noqa: E402

from unlearn_lib import UserError, audit_run, open_run  # noqa: E402
from unlearn_lib.networks import run_names  # noqa: E402

GRID = 'model = ["lenet5"]\ndata = ["digits"]\nforget = [[0], [1]]\ntrain_epochs = [1]\nmethod = ["mask", "neggrad+"]\n'


def whole(root):
    """What is there must be whole at any moment."""
    wrong = 0
    for name in run_names(root):
        try:
            open_run(root, name).verify()
        except UserError as error:
            print("   ", error)
            wrong += 1
    return wrong


def steps_killed(folder, kills, chance):
    """Every round does all steps in a new folder, each killed at a random moment once, then done."""
    reference, dataset = folder / "whole", lab_in(folder / "whole").dataset
    lasts = {}
    for name, step in STEPS.items():
        begin = time.perf_counter()
        step(lab_in(reference, dataset))
        lasts[name] = time.perf_counter() - begin
    count = wrong = 0
    while count < kills:
        root = folder / f"round{count}"
        for name, step in STEPS.items():
            for _ in range(chance.randint(1, 3)):
                killed(step, lab_in(root, dataset), chance.random() * lasts[name])
                wrong += whole(root)
                count += 1
            step(lab_in(root, dataset))
        wrong += bits(root) != bits(reference) or bool(scratch(root))
        shutil.rmtree(root)
    print(f"train, golden, impressions, unlearn: {count} kills, {wrong} lost or wrong", flush=True)


def audits_killed(folder, kills, chance):
    blocks = []
    for name, times in (("audit", 0), ("audit-killed", kills)):
        experiment = TinyExperiment(folder / name)
        experiment.root.mkdir()
        run = (experiment.train(), experiment.golden(), experiment.unlearn())[-1]
        for _ in range(times):
            killed(lambda experiment, run=run: audit_run(experiment, run), experiment, 6 * chance.random())
            assert not whole(experiment.root)
        blocks.append(audit_run(experiment, run).metrics["audit"])
    print(f"audit: {kills} kills, {int(blocks[0] != blocks[1])} lost or wrong", flush=True)


def sweeps_killed(folder, kills, chance):
    (folder / "grid.toml").write_text(GRID)
    roots = [folder / "sweep", folder / "sweep-killed"]

    def begin(root):
        words = [sys.executable, "-m", "unlearn_lib", "sweep", folder / "grid.toml", "--runs-root", root]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    start = time.perf_counter()
    assert begin(roots[0]).wait() == 0
    lasts, wrong = time.perf_counter() - start, 0
    for _ in range(kills):
        sweep = begin(roots[1])
        time.sleep(lasts * (0.3 + 0.7 * chance.random()))
        os.killpg(sweep.pid, signal.SIGKILL)  # the workers with it
        sweep.wait()
        wrong += roots[1].exists() and whole(roots[1])
    wrong += begin(roots[1]).wait() != 0
    wrong += bits(roots[0]) != bits(roots[1]) or bool(scratch(roots[1]))
    print(f"sweep: {kills} kills, {wrong} lost or wrong", flush=True)


def bits_flipped(folder, flips, chance):
    run = open_run(folder / "whole", "lenet5-digits-unlearned-1-neggrad+-s0")
    before, refused, harmless = reading(run, run.arguments), 0, 0
    for _ in range(flips):
        path = chance.choice(sorted(path for path in run.path.iterdir() if path.suffix in (".json", ".safetensors")))
        content = path.read_bytes()
        flipped(path, chance.randrange(8 * len(content)))
        try:
            harmless += reading(run, before[0]) == before
        except UserError:
            refused += 1
        path.write_bytes(content)
    wrong = flips - refused - harmless
    print(f"flipped bits: {flips}, {refused} named in a sentence, {harmless} without effect, {wrong} wrong", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--flips", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chance, folder = random.Random(args.seed), Path(tempfile.mkdtemp())
    steps_killed(folder, args.kills - 2 * (args.kills // 10), chance)
    bits_flipped(folder, args.flips, chance)
    audits_killed(folder, args.kills // 10, chance)
    sweeps_killed(folder, args.kills // 10, chance)


if __name__ == "__main__":
    main()
