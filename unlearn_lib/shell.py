"""What the shell accepts, and how it shows it. Nothing heavy is imported here, so that `--help` is there at once."""

import argparse
import json
import re
import shlex
import sys
from pathlib import Path

from unlearn_lib import __version__

# Of zeroshot, whose import takes seconds; a test compares.
METHODS = ("neggrad+", "distill", "published", "mask", "deep")
RECIPES = ("natural", "calibrated", "published", "deepinversion", "drawn")
PRESETS = ("quick", "paper")
LONG = 100  # numbers; what is longer stands in metrics.json and not on the screen

EVERYWHERE = {  # options that may stand before the step or after it
    "--version": {"action": "version", "version": f"unlearn_lib {__version__}", "help": "print the version and end"},
    "--data-root": {
        "metavar": "DIR",
        "help": "where data sets lie; by default $UNLEARN_DATA, else data/ (installed: in the user's data folder)",
    },
    "--runs-root": {"metavar": "DIR", "help": "where runs are kept; by default $UNLEARN_RUNS, else data/runs/ there"},
    "-g --device": {"metavar": "NAME", "help": "cuda, mps or cpu; by default the best there is, in this order"},
    "--force": {"action": "store_true", "help": "do everything anew; by default what has been done is used again"},
    "-n --version-name": {
        "dest": "version",
        "metavar": "NAME",
        "help": "goes behind the names of the run folders; by default nothing",
    },
    "--json": {
        "action": "store_true",
        "help": "metrics.json alone on standard output, without its longest lists; by default a table",
    },
}
NETWORK = {
    "--model": {
        "required": True,
        "metavar": "NAME",
        "help": "lenet5, karpathynet, efficientnet_lite0, torchvision's by name, timm/NAME or package.module:factory",
    },
    "--data": {
        "required": True,
        "metavar": "NAME|DIR",
        "help": "digits, shapes, mnist, cifar10, imagenet or an image folder",
    },
    "--seed": {"type": int, "metavar": "N", "help": "of training, impressions and unlearning; by default 0"},
    "--size": {
        "type": int,
        "metavar": "PIXELS",
        "help": "height and width of a picture, for others' networks; by default the weights' own, else the network's",
    },
    "--weights": {
        "metavar": "NAME|FILE",
        "help": "to start from: torchvision's or timm's by name (IMAGENET1K_V1), or a state dict; by default none",
    },
    "-d --dropout": {"type": float, "metavar": "RATE", "help": "from 0 up to 1; by default the network's own"},
}
FORGET = {
    "--forget": {
        "nargs": "+",
        "action": "extend",
        "required": True,
        "metavar": "CLASS",
        "help": "names, indices, ranges of indices (0-4), wnids, or files with one of these a line",
    }
}
TRAINING = {
    "--label-smoothing": {"type": float, "metavar": "SHARE", "help": "in training, from 0 up to 1; by default 0"},
    "--flip": {
        "action": argparse.BooleanOptionalAction,
        "help": "mirror half of the pictures in training; by default all data but digits",
    },
    "--precision": {
        "choices": ("float32", "bfloat16"),
        "metavar": "TYPE",
        "help": "of training's arithmetic, float32 or bfloat16; by default bfloat16 where the processor has it",
    },
    "-s --save-every": {"type": int, "metavar": "EPOCHS", "help": "between two checkpoints in training; by default 1"},
}
EPOCHS = "passes over the training pictures; by default 25 on digits, 12 on shapes, 5 on mnist, 15 on cifar10, else 10"
RATE = (
    "top learning rate; by default 0.004 on shapes, 0.003 on digits, mnist and cifar10, else 0.001, fine-tuning 0.0003"
)
TRAINING_NUMBERS = {
    "-e --epochs": {"type": int, "metavar": "N", "help": EPOCHS},
    "--lr": {"type": float, "metavar": "RATE", "help": RATE},
    "-b --batch-size": {
        "type": int,
        "metavar": "PICTURES",
        "help": "a step; by default 128 on mnist and cifar10, else 64, fine-tuning 32",
    },
}
NUMBERS = {
    "-e --epochs": {
        "type": int,
        "metavar": "N",
        "help": "passes over the impressions in unlearning; by default 20, 1000 for published",
    },
    "--lr": {
        "type": float,
        "metavar": "RATE",
        "help": "learning rate of unlearning; by default drawn from the size of the weights, 0.001 for published",
    },
    "-b --batch-size": {
        "type": int,
        "metavar": "IMPRESSIONS",
        "help": "a step of unlearning; by default 128, 16 for published",
    },
}
IMPRESSIONS = {
    "--layer": {
        "metavar": "LAYER",
        "help": "first layer of the tail, `input` for pixels; by default the last one that responds",
    },
    "--samples": {"type": int, "default": 100, "metavar": "N", "help": "impressions a class; by default 100"},
    "--recipe": {
        "choices": RECIPES,
        "metavar": "NAME",
        "help": f"of the impressions: {', '.join(RECIPES)}; by default natural; published and deep have their own",
    },
    "--memory": {"type": float, "metavar": "MIB", "help": "that making impressions may take; by default 512"},
}
UNLEARNING = {
    "--method": {"default": METHODS[0], "metavar": "NAME", "help": f"{', '.join(METHODS)}; {METHODS[0]} by default"},
    "--forget-weight": {
        "type": float,
        "metavar": "FACTOR",
        "help": "of the forget loss; by default 1, 0.9 for published",
    },
    "--retain-weight": {
        "type": float,
        "metavar": "FACTOR",
        "help": "of the retain loss; by default 1, 0.1 for published",
    },
}
ALL = {
    "--train-epochs": {"type": int, "metavar": "N", "help": EPOCHS},
    "--train-lr": {"type": float, "metavar": "RATE", "help": f"in training, {RATE}"},
}
AUDIT = {
    "--run": {"required": True, "metavar": "NAME", "help": "name of its run folder"},
    "--seeds": {
        "type": int,
        "metavar": "N",
        "help": "golden band of seeds 0 to N-1, trained where absent; by default of those that are there",
    },
    "--layer": {"metavar": "LAYER", "help": "the linear probe reads its input; by default the head"},
}
SWEEP = {
    "grid": {"metavar": "GRID.toml", "help": "lists by the names of run's arguments; tables [[grid]] for unions"},
    "--workers": {"type": int, "metavar": "N", "help": "local processes that share the cores; by default one a core"},
    "--scheduler": {"metavar": "ADDRESS", "help": "of a Dask cluster to work on; by default local processes"},
    "--audit": {"action": "store_true", "help": "audit every point, with golden's band; not by default"},
    "--figure": {"action": "store_true", "help": "draw the leaderboard; not by default"},
    "--metric": {
        "default": "unlearned_forget_accuracy",
        "metavar": "COLUMN",
        "help": "of the table, to compare by; by default forget accuracy",
    },
}
STEPS = {
    "train": ("train on all classes", NETWORK | TRAINING | TRAINING_NUMBERS),
    "golden": ("train without the forget classes", NETWORK | FORGET | TRAINING | TRAINING_NUMBERS),
    "impressions": ("make class impressions, list responsive layers", NETWORK | IMPRESSIONS),
    "unlearn": ("unlearn a trained model", NETWORK | FORGET | IMPRESSIONS | NUMBERS | UNLEARNING),
    "run": ("all of it, compared", NETWORK | FORGET | TRAINING | IMPRESSIONS | NUMBERS | UNLEARNING | ALL),
    "audit": ("ask of an unlearned run whether the class is gone", AUDIT),
    "sweep": ("make every point of a grid, on many processes or machines", SWEEP),
}


def program() -> str:
    """How this program was called."""
    return "unlearn" if Path(sys.argv[0]).stem == "unlearn" else "python -m unlearn_lib"


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; `step` is None where no step is given."""
    about = "Zero-shot class unlearning. Without a step: one of the presets, end to end."
    whole = argparse.ArgumentParser(prog=program(), description=about, epilog="STEP --help lists a step's options.")
    whole.add_argument(
        "--preset",
        choices=PRESETS,
        help="quick: digits and shapes, offline; paper: MNIST and CIFAR-10; by default $UNLEARN_PRESET, else quick",
    )
    steps = whole.add_subparsers(dest="step", metavar=f"{{{','.join(STEPS)}}}")
    for flags, option in EVERYWHERE.items():
        whole.add_argument(*flags.split(), **option)
    for name, (about, options) in STEPS.items():
        step = steps.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        for flags, option in EVERYWHERE.items():  # what stands before the step holds unless it is said again
            step.add_argument(*flags.split(), **option, default=argparse.SUPPRESS)
        for flags, option in options.items():
            step.add_argument(*flags.split(), **option)
    return whole


def command(step: str, args: argparse.Namespace, *more: str) -> str:
    """The command of another step for the same network, data and folders."""
    found = [program(), step]
    for flags, option in (NETWORK | EVERYWHERE).items():
        flag = flags.split()[-1]
        value = getattr(args, option.get("dest", flag[2:].replace("-", "_")), None)
        if value is not None and "action" not in option:
            found += [flag, shlex.quote(str(value))]
    return " ".join([*found, *map(shlex.quote, more)])


def relative_path(path: Path) -> str:
    """A path from the working folder on, where it lies below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def brief_json(content: dict) -> str:
    """JSON to be read: without confusion matrices and long lists, which are in metrics.json; a list is one line."""

    def brief(value: object) -> object:
        if not isinstance(value, dict):
            return value
        long = [name for name, part in value.items() if isinstance(part, list) and len(part) > LONG]
        return {name: brief(part) for name, part in value.items() if name not in ("confusion", *long)}

    text = json.dumps(brief(content), indent=1, sort_keys=True)
    return re.sub(r"\[[^][{}\"]*\]", lambda found: " ".join(found[0].split()), text)
