"""The same story from the shell.

    python -m unlearn_lib                      preset quick: two models, offline, about a minute
    python -m unlearn_lib --preset paper       the same on MNIST and CIFAR-10
    python -m unlearn_lib run --model lenet5 --data mnist --forget 1 2 3 4 --method distill

and the steps on their own: train, golden, impressions, unlearn; then `audit --run NAME`.
Results go to standard output, progress and news to standard error.
"""

import argparse
import json
import os
import sys

import torch

from unlearn_lib.auditing import audit_run, audit_table
from unlearn_lib.common import UserError, listed, log, show_log
from unlearn_lib.evaluation import SMALL
from unlearn_lib.experiment import Experiment, comparison_table, experiment_of
from unlearn_lib.networks import Run, open_run, runs_root
from unlearn_lib.presets import PRESETS, chosen_preset
from unlearn_lib.zeroshot import METHODS, RECIPES, diagnose, leaf_layers, responsive_layers

TRAINING_NAMES = {"epochs": "train_epochs", "lr": "train_lr", "batch_size": "train_batch_size"}

EVERYWHERE = {  # options that may stand before the step or after it
    "--data-root": {"metavar": "DIR", "help": "where data sets lie ($UNLEARN_DATA, else data/)"},
    "--runs-root": {"metavar": "DIR", "help": "where runs are kept ($UNLEARN_RUNS, else data/runs/)"},
    "-g --device": {"help": "cuda, mps or cpu; the best there is by default"},
    "--force": {"action": "store_true", "help": "do everything anew"},
    "-n --version-name": {"dest": "version", "help": "goes behind the names of the run folders"},
    "--json": {"action": "store_true", "help": "metrics.json alone on standard output"},
}
NETWORK = {
    "--model": {"required": True, "help": "lenet5, karpathynet or a torchvision classifier"},
    "--data": {"required": True, "help": "digits, shapes, mnist, cifar10, imagenet or an image folder"},
    "--seed": {"type": int, "help": "of training, impressions and unlearning; 0 by default"},
    "--size": {"type": int, "help": "height and width of a picture in pixels, for torchvision's networks"},
    "--weights": {"metavar": "NAME|FILE", "help": "torchvision's (IMAGENET1K_V1) or a state dict to start from"},
    "-d --dropout": {"type": float, "help": "rate, from 0 up to 1; the network's own by default"},
}
FORGET = {
    "--forget": {"nargs": "+", "required": True, "metavar": "CLASS", "help": "names, indices, ranges (0-4), files"}
}
TRAINING = {
    "--label-smoothing": {"type": float, "help": "in training, from 0 up to 1; 0 by default"},
    "--flip": {"action": argparse.BooleanOptionalAction, "help": "mirror pictures in training; not digits by default"},
    "-s --save-every": {"type": int, "help": "epochs between two checkpoints; 1 by default"},
}
NUMBERS = {
    "-e --epochs": {"type": int, "help": "passes over the pictures (train, golden) or the impressions"},
    "--lr": {"type": float, "help": "learning rate; the data set's or the method's own by default"},
    "-b --batch-size": {"type": int, "help": "pictures or impressions a step"},
}
IMPRESSIONS = {
    "--layer": {"help": "first layer of the tail, `input` for pixels; the last responsive one by default"},
    "--samples": {"type": int, "default": 100, "help": "impressions a class; 100 by default"},
    "--recipe": {"choices": (*RECIPES, "drawn"), "help": "of the impressions; the method's own by default"},
    "--memory": {"type": float, "metavar": "MIB", "help": "that making impressions may take; 512 by default"},
}
UNLEARNING = {
    "--method": {"default": METHODS[0], "help": f"{', '.join(METHODS)}; {METHODS[0]} by default"},
    "--forget-weight": {"type": float, "help": "of the forget loss; the method's own by default"},
    "--retain-weight": {"type": float, "help": "of the retain loss; the method's own by default"},
}
ALL = {
    "--train-epochs": {"type": int, "help": "passes over the pictures in training"},
    "--train-lr": {"type": float, "help": "learning rate of training"},
}
AUDIT = {
    "--run": {"required": True, "metavar": "NAME", "help": "name of its run folder"},
    "--seeds": {"type": int, "metavar": "N", "help": "golden band of seeds 0 to N-1, trained if need be"},
    "--layer": {"help": "the linear probe reads its input; the head's by default"},
}
STEPS = {
    "train": ("train on all classes", NETWORK | TRAINING | NUMBERS),
    "golden": ("train without the forget classes", NETWORK | FORGET | TRAINING | NUMBERS),
    "impressions": ("make class impressions, list responsive layers", NETWORK | IMPRESSIONS),
    "unlearn": ("unlearn a trained model", NETWORK | FORGET | IMPRESSIONS | NUMBERS | UNLEARNING),
    "run": ("all of it, compared", NETWORK | FORGET | TRAINING | IMPRESSIONS | NUMBERS | UNLEARNING | ALL),
    "audit": ("ask of an unlearned run whether the class is gone", AUDIT),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command. 0: it worked; 2 and one sentence on standard error: the input was bad; 130: it was interrupted.

    Anything else that goes wrong is a fault of this program and ends in its traceback.
    """
    os.environ.setdefault("MPLBACKEND", "Agg")
    parser = _parser()
    args = parser.parse_args(argv)
    show_log(sys.stderr)
    steps = {"train": _train, "golden": _train, "impressions": _impressions, "unlearn": _unlearn, "run": _run}
    try:
        (steps | {"audit": _audit}).get(args.step, _preset)(args)
    except UserError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    about = "Zero-shot class unlearning. Without a step: one of the presets, end to end."
    parser = argparse.ArgumentParser(prog="python -m unlearn_lib", description=about)
    parser.add_argument("--preset", choices=PRESETS, help="$UNLEARN_PRESET, else quick")
    steps = parser.add_subparsers(dest="step", metavar=f"{{{','.join(STEPS)}}}")
    for flags, option in EVERYWHERE.items():
        parser.add_argument(*flags.split(), **option)
    for name, (about, options) in STEPS.items():
        step = steps.add_parser(name, help=about, description=about)
        for flags, option in EVERYWHERE.items():  # what stands before the step holds unless it is said again
            step.add_argument(*flags.split(), **option, default=argparse.SUPPRESS)
        for flags, option in options.items():
            step.add_argument(*flags.split(), **option)
    return parser


def _experiment(args: argparse.Namespace, **changes) -> Experiment:
    """The experiment that the arguments describe; those left out keep the experiment's own defaults."""
    fields = {name for name, field in Experiment.__dataclass_fields__.items() if field.init}
    given = {name: value for name, value in vars(args).items() if name in fields and value is not None}
    return Experiment(**given | changes)


def _train(args: argparse.Namespace) -> None:
    given = {TRAINING_NAMES[name]: value for name, value in vars(args).items() if name in TRAINING_NAMES}
    lab = _experiment(args, **{name: value for name, value in given.items() if value is not None})
    run = lab.golden() if args.step == "golden" else lab.train()
    _draw(lab, {("golden" if args.step == "golden" else "original"): run}, [])
    _print(args, run.metrics, [run], lab)


def _impressions(args: argparse.Namespace) -> None:
    from unlearn_lib.figures import plot_impressions

    lab = _experiment(args)
    made = lab.impressions(args.layer, samples=args.samples, recipe=args.recipe)
    model = lab.load(lab.original())
    tail = leaf_layers(model)
    if torch.Size(model.input_shape).numel() > SMALL:  # trying the body's layers too would take minutes each
        tail = tail[tail.index(made.layer) :] if made.layer in tail else [made.layer]
    diagnosis, layers = diagnose(model, made), responsive_layers(model, layers=tail)
    title = f"{lab.title}: {made.recipe} impressions at {made.layer}"
    figure = plot_impressions(made, diagnosis, lab.dataset.classes, title)
    _save({f"impressions-{made.layer}-{made.recipe}": figure}, [lab.original()])
    if args.json:
        print(json.dumps({"layers": layers.to_dict("index"), "impressions": diagnosis.to_dict("index")}))
    else:
        print(f"Layers of {args.model}, {lab.dataset.source}\n{layers.round(3).to_string()}\n")
        print(f"{title}, by class\n{diagnosis.round(3).to_string()}")


def _unlearn(args: argparse.Namespace) -> None:
    lab = _experiment(args)
    run = lab.unlearn(args.method, **_unlearning_arguments(args))
    _draw(lab, {}, [run])
    _print(args, run.metrics, [run], lab)


def _run(args: argparse.Namespace) -> None:
    lab = _experiment(args)
    lab.check_unlearning(args.method, **_unlearning_arguments(args))
    trained = {"original": lab.train()}
    if len(lab.dataset.train):
        trained["golden"] = lab.golden()
    else:
        log.info("no golden model: %s has no training pictures here", lab.dataset.name)
    run = lab.unlearn(args.method, **_unlearning_arguments(args))
    _draw(lab, trained, [run])
    _print(args, run.metrics, [run], lab)


def _audit(args: argparse.Namespace) -> None:
    from unlearn_lib.figures import plot_relearning

    run = open_run(runs_root(args.runs_root), args.run)
    lab = experiment_of(run, data_root=args.data_root, device=args.device)
    seeds = None if args.seeds is None else range(args.seeds)
    run = audit_run(lab, run, seeds=seeds, layer=args.layer, force=args.force)
    audit = run.metrics["audit"]
    figure = plot_relearning({run.config["method"]: audit}, f"{lab.title}: learning the forgotten classes again")
    _save({"relearning": figure}, [run])
    if args.json:
        print(json.dumps(run.metrics, indent=1, sort_keys=True))
        return
    print(f"\n{run.name}: {lab.model} on {lab.dataset.source}; forget {listed(lab.forget_names)}")
    print(f"F forget, R retain; probe at {audit['layer']}; band: 95 % prediction interval, seeds {audit['seeds']}\n")
    print(audit_table({"unlearned": audit}).to_string())
    print("\nmoved, |new - old| / |old|: " + ", ".join(f"{n} {v:.2g}" for n, v in audit["moved"]["unlearned"].items()))


def _preset(args: argparse.Namespace) -> None:
    labs = [_experiment(args, **chosen) for chosen in PRESETS[args.preset or chosen_preset()]]
    content = {}
    for lab in labs:
        log.info("\n%s on %s", lab.model, lab.dataset.source)
        original, golden = lab.train(), lab.golden()
        runs = [lab.unlearn(method) for method in ("neggrad+", "distill")]
        _draw(lab, {"original": original, "golden": golden}, runs)
        content |= {run.name: run.metrics for run in runs}
        _print(args, None, runs, lab)
    if args.json:
        print(json.dumps(content, indent=1, sort_keys=True))


def _unlearning_arguments(args: argparse.Namespace) -> dict:
    names = ("layer", "samples", "recipe", "lr", "epochs", "batch_size", "forget_weight", "retain_weight")
    return {name: getattr(args, name) for name in names}


def _draw(lab: Experiment, trained: dict[str, Run], runs: list[Run]) -> None:
    """Training curves into the folder of the last run that was trained, results into their own."""
    from unlearn_lib.figures import result_figures, training_figures

    _save(training_figures(lab, trained), list(trained.values())[-1:])
    for run in runs:
        _save(result_figures(lab, run), [run])


def _save(drawn: dict, runs: list[Run]) -> None:
    """Write figures into the run's folder, say where, and close them."""
    import matplotlib.pyplot as plt

    from unlearn_lib.figures import save_figure

    for name, figure in drawn.items():
        log.info("figure: %s", save_figure(figure, name, runs[0].path))
        plt.close(figure)


def _print(args: argparse.Namespace, content: dict | None, runs: list[Run], lab: Experiment) -> None:
    """The table of one experiment's runs on the screen, or `content` as JSON."""
    if args.json:
        if content is not None:
            print(json.dumps(content, indent=1, sort_keys=True))
        return
    forgotten = f"; forget {listed(lab.forget_names)}" if lab.forget_classes else ""
    print(f"\n{lab.model} on {lab.dataset.source}{forgotten}")
    print("accuracy in % of test pictures (forget: towards 0; retain: no lower than masked)\n")
    print(comparison_table(runs).dropna(axis=1, how="all").to_string(na_rep="-", float_format="{:.2f}".format))


if __name__ == "__main__":
    sys.exit(main())
