"""Presets: which networks, data and forget classes the notebooks and the plain command take; the lab's sixteen runs.

The published code goes down on the forget loss and up on the retain loss (its prose says the reverse), smooths the
labels by 0.1, trains the head's bias alone, and feeds it impressions that have gone uphill for 1,000 steps. The lab
mends these four peculiarities one by one and together.
"""

import itertools
import os

import pandas as pd

from unlearn_lib.common import UserError, log, show_log
from unlearn_lib.evaluation import evaluate
from unlearn_lib.experiment import Experiment
from unlearn_lib.networks import class_code, find_head
from unlearn_lib.store import cached
from unlearn_lib.zeroshot import RECIPE_VERSION, Switches, ZeroShotUnlearner

PRESETS = {
    "quick": (
        {"model": "lenet5", "data": "digits", "forget": (1, 2, 3, 4)},
        {"model": "karpathynet", "data": "shapes", "forget": ("ellipse", "cross", "star")},
    ),
    "paper": (
        {"model": "lenet5", "data": "mnist", "forget": (1, 2, 3, 4)},
        {"model": "karpathynet", "data": "cifar10", "forget": (3, 4, 8)},
    ),
}


CHOICES = {  # the published choice first, the mended one second
    "impressions": ("published", "calibrated"),
    "weights": ("frozen", "trained"),
    "signs": ("published", "prose"),
    "smoothing": (0.1, 0.0),
}


def describe_preset() -> None:
    """Print the preset in use, what stands in for what in it, and how to switch; from here on the log is shown."""
    show_log()
    name = chosen_preset()
    print(f"Preset {name} ($UNLEARN_PRESET): " + ", ".join(f"{c['model']} on {c['data']}" for c in PRESETS[name]) + ".")
    if name == "quick":
        print("digits and shapes, which need no download, stand in for MNIST and CIFAR-10.")
        print("Start Jupyter with UNLEARN_PRESET=paper to run the same cells on MNIST and CIFAR-10.")
    else:
        print("Start Jupyter without UNLEARN_PRESET to run the same cells in about a minute, without a download.")


def from_preset(model: str = "lenet5", **changes) -> Experiment:
    """The preset's experiment with this model, `changes` (those that are not None) put in their place.

    A model that is not in the preset gets the preset's colour pictures.
    """
    pairs = PRESETS[chosen_preset()]
    preset = next((pair for pair in pairs if pair["model"] == model), pairs[-1])
    return Experiment(
        **preset | {"model": model} | {name: value for name, value in changes.items() if value is not None}
    )


def chosen_preset() -> str:
    """The preset that `$UNLEARN_PRESET` names, `quick` where it names none."""
    name = os.environ.get("UNLEARN_PRESET", "quick")
    if name not in PRESETS:
        raise UserError(f"UNLEARN_PRESET: {name!r} given; {' or '.join(PRESETS)} is accepted")
    return name


def lab_run(
    experiment: Experiment,
    impressions: str = "published",
    weights: str = "frozen",
    signs: str = "published",
    smoothing: float = 0.1,
    *,
    samples: int = 50,
    epochs: int = 100,
) -> dict:
    """One combination's update at the head of the original, judged on the test pictures: the block of `evaluate`.

    Raises ValueError for a choice that is not in CHOICES.
    """
    for name, given in zip(CHOICES, (impressions, weights, signs, smoothing), strict=True):
        if given not in CHOICES[name]:
            raise UserError(f"{name}: got {given!r}; expected {CHOICES[name][0]} or {CHOICES[name][1]}")
    network = experiment.load(experiment.original())
    made = experiment.impressions(find_head(network), samples=samples, recipe=impressions)
    unlearner = ZeroShotUnlearner(
        network,
        made,
        experiment.forget_classes,
        method="published",
        epochs=epochs,
        seed=experiment.seed,
        switches=Switches(prose_signs=signs == "prose", smoothing=smoothing, weights=weights == "trained"),
    )
    unlearned, _, _ = unlearner.unlearn()
    return evaluate(unlearned, experiment.dataset, experiment.forget_classes)


def lab_grid(experiment: Experiment, *, samples: int = 50, epochs: int = 100) -> pd.DataFrame:
    """Forget and retain accuracy (columns FA, RA, fractions) of all sixteen combinations, indexed by them.

    Kept in the original's run folder and read from there the next time.
    """
    original, forget = experiment.train(), experiment.forget_classes
    key = {
        "model": original.fingerprint(),
        "data": experiment.dataset.fingerprint,
        "forget": forget,
        "seed": experiment.seed,
    }
    key |= {"samples": samples, "epochs": epochs, "version": RECIPE_VERSION}

    def make() -> tuple[dict, dict]:
        rows = []
        for chosen in itertools.product(*CHOICES.values()):
            block = lab_run(experiment, *chosen, samples=samples, epochs=epochs)
            rows.append([*chosen, block["forget_accuracy"], block["retain_accuracy"]])
        log.info("%s: sixteen combinations of the published update computed", original.name)
        return {}, {"rows": rows}

    _, facts = cached(original.path / f"lab-{class_code(forget)}.json", key, make)
    return pd.DataFrame(facts["rows"], columns=[*CHOICES, "FA", "RA"]).set_index([*CHOICES])
