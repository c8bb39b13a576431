"""Training steps a second on an idle and on a busy machine, by how OpenMP's threads wait for each other.

    python tests/benchmarks/bench_busy.py [--rounds 5] [--also GOMP_SPINCOUNT=1000 ...]

LeNet5, batches of 64. Each row is a process of its own, since OpenMP reads its settings when torch is loaded. A busy
program is a Python loop that uses one core. The rows take turns, a second each. A cell is the best of its rounds, so
that other work on the machine matters less. `unlearn_lib` chooses one of two rows by the load when it is imported.
"""

import argparse
import os
import subprocess
import sys
import time

LOADS = (0, 4, 11)  # busy programs at the same time
SECONDS = 1.0
VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
SETTINGS = {
    "PyTorch's default": "",
    "chosen on an idle machine": "OMP_WAIT_POLICY=PASSIVE,GOMP_SPINCOUNT=4000",
    "chosen on a busy machine": "OMP_WAIT_POLICY=PASSIVE",
    "one thread": "OMP_NUM_THREADS=1",
}


def answer() -> None:
    """Train LeNet5 for a while after each line on standard input, and print the steps a second."""
    import torch  # before unlearn_lib, so that this process has the settings that it was given, and no others
    from torch.nn import functional as F

    from unlearn_lib import make_model

    model = make_model("lenet5", 10).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images = torch.rand(64, 1, 28, 28)
    labels = torch.arange(64) % 10

    def step():
        optimiser.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimiser.step()

    step()  # warm
    print("ready", flush=True)
    for _ in sys.stdin:
        steps = 0
        begin = time.perf_counter()
        while time.perf_counter() - begin < SECONDS:
            step()
            steps += 1
        print(steps / (time.perf_counter() - begin), flush=True)


def start(words: str) -> subprocess.Popen:
    """Start a process that trains with these settings, and wait until it is ready."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment |= dict(word.split("=") for word in words.split(",") if word)
    command = [sys.executable, __file__, "--answer"]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    return process


def measure(process: subprocess.Popen) -> float:
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--also", nargs="*", default=[], metavar="NAME=VALUE", help="more settings; `,` joins several")
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.answer:
        answer()
        return
    settings = SETTINGS | {words: words for words in args.also}
    processes = {name: start(words) for name, words in settings.items()}
    speeds = {name: [] for name in processes}
    for load in LOADS:
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(load)]
        time.sleep(1)  # until they run
        rounds = [{name: measure(process) for name, process in processes.items()} for _ in range(args.rounds)]
        for program in busy:
            program.kill()
        for name in processes:
            speeds[name].append(max(speed[name] for speed in rounds))
    print("steps a second                  " + "".join(f"{load:>4} busy" for load in LOADS))
    for name, process in processes.items():
        process.stdin.close()
        process.wait()
        print(f"{name:32}" + "".join(f"{speed:9.1f}" for speed in speeds[name]))


if __name__ == "__main__":
    main()
