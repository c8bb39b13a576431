"""What a picture, a class and an impression cost here, in seconds of one core: the figures of the appendix On paper.

    python tests/benchmarks/bench_on_paper.py [--classes 1000 4000]

Seconds are of processor time, so that other work on the machine changes them little.
"""

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["UNLEARN_PROGRESS"] = "0"

import torch
from torch import nn
from torch.nn import functional as F

from unlearn_lib import ZeroShotUnlearner, make_impressions, make_model


def timed(what, work, per):
    begin = time.process_time()
    result = work()
    print(f"{what}: {1000 * (time.process_time() - begin) / per:.2f} ms", flush=True)
    return result


def pictures():
    net, x = make_model("resnet50", 1000, size=224), torch.randn(4, 3, 224, 224)
    net.train()

    def step():
        F.cross_entropy(net(x), torch.arange(4)).backward()

    step()
    timed("ResNet50, a training picture", lambda: [step() for _ in range(3)], 12)
    net.eval()
    with torch.no_grad():
        timed("ResNet50, a picture looked at", lambda: [net(x) for _ in range(3)], 12)


class Head(nn.Sequential):
    """A linear head alone: what impressions at ResNet50's head have to do with."""

    input_shape = (2048, 1, 1)

    def __init__(self, classes):
        super().__init__()
        self.flatten, self.fc = nn.Flatten(), nn.Linear(2048, classes)


def classes(count, samples):
    torch.manual_seed(0)
    net = Head(count).eval()
    made = timed(
        f"{count} classes, an impression", lambda: make_impressions(net, "fc", samples=samples), count * samples
    )
    forget = range(count // 10)
    epochs = 2

    def unlearn():
        return ZeroShotUnlearner(net, made, forget, method="distill", epochs=epochs).unlearn()

    timed(f"{count} classes, an impression in an epoch of unlearning", unlearn, count * samples * epochs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--classes", type=int, nargs="+", default=[1000, 4000])
    args = parser.parse_args()
    pictures()
    for count in args.classes:
        classes(count, 2)


if __name__ == "__main__":
    main()
