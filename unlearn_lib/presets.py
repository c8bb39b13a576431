"""Presets: networks, data and forget classes of the notebooks and the plain command; the published update's variants.

The published code descends the forget loss and ascends the retain loss; its prose says the reverse. It smooths the
labels by 0.1, trains the head's bias alone, and uses impressions that ascended a logit for 1,000 steps. `lab_run`
corrects these four choices one by one and together.
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


CHOICES = {  # the published choice first, the corrected one second
    "impressions": ("published", "calibrated"),
    "weights": ("frozen", "trained"),
    "signs": ("published", "prose"),
    "smoothing": (0.1, 0.0),
}


def describe_preset() -> None:
    """Print the preset in use, its stand-ins, and how to switch; show the log from here on.

    Example:
        >>> describe_preset()
        Preset quick ($UNLEARN_PRESET): lenet5 on digits, karpathynet on shapes...
    """
    show_log()
    name = chosen_preset()
    print(f"Preset {name} ($UNLEARN_PRESET): " + ", ".join(f"{c['model']} on {c['data']}" for c in PRESETS[name]) + ".")
    if name == "quick":
        print("digits and shapes, which need no download, stand in for MNIST and CIFAR-10.")
        print("Start Jupyter with UNLEARN_PRESET=paper to run the same cells on MNIST and CIFAR-10.")
    else:
        print("Start Jupyter without UNLEARN_PRESET to run the same cells in about a minute, without a download.")


def from_preset(model: str = "lenet5", **changes) -> Experiment:
    """Return the preset's experiment with this model and with those `changes` that are not None.

    A model that is not in the preset gets the preset's colour pictures.

    Example:
        >>> from_preset("karpathynet", seed=1).data
        'shapes'
    """
    pairs = PRESETS[chosen_preset()]
    preset = next((pair for pair in pairs if pair["model"] == model), pairs[-1])
    return Experiment(
        **preset | {"model": model} | {name: value for name, value in changes.items() if value is not None}
    )


def chosen_preset() -> str:
    """Return the preset that `$UNLEARN_PRESET` names, by default `quick`."""
    name = os.environ.get("UNLEARN_PRESET", "quick")
    if name not in PRESETS:
        raise UserError(f"UNLEARN_PRESET: got {name!r}; expected {' or '.join(PRESETS)}")
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
    """Return `evaluate` of the original after one variant of the published update.

    Raises UserError for a choice that is not in CHOICES.
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
    """Return forget and retain accuracy (columns FA, RA, fractions) of all sixteen variants, indexed by their choices.

    The original's run folder keeps them.
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
