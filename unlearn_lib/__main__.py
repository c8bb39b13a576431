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
from unlearn_lib.common import UserError, log, show_log
from unlearn_lib.evaluation import SMALL, table
from unlearn_lib.experiment import Experiment, experiment_of
from unlearn_lib.networks import Run, open_run, runs_root
from unlearn_lib.presets import PRESETS, chosen_preset
from unlearn_lib.zeroshot import METHODS, RECIPES, diagnose, leaf_layers, responsive_layers

TRAINING_NAMES = {"epochs": "train_epochs", "lr": "train_lr", "batch_size": "train_batch_size"}


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
    parser = argparse.ArgumentParser(
        prog="python -m unlearn_lib",
        description="Zero-shot class unlearning. Without a step: one of the presets, end to end.",
    )
    _add_everywhere(parser, default=None)
    parser.add_argument("--preset", choices=PRESETS, help="$UNLEARN_PRESET, else quick")
    steps = parser.add_subparsers(dest="step", metavar="{train,golden,impressions,unlearn,run,audit}")
    helps = {
        "train": "train on all classes",
        "golden": "train without the forget classes",
        "impressions": "make class impressions, list responsive layers",
        "unlearn": "unlearn a trained model",
        "run": "all of it, with the comparison",
    }
    for name, words in helps.items():
        step = steps.add_parser(name, help=words, description=words)
        _add_everywhere(step, default=argparse.SUPPRESS)  # what stands before the step holds unless it is said again
        _add_network(step)
        if name in ("golden", "unlearn", "run"):
            step.add_argument(
                "--forget", nargs="+", required=True, metavar="CLASS", help="names, indices, ranges, files"
            )
        if name in ("train", "golden", "run"):
            step.add_argument("--label-smoothing", type=float, help="in training, from 0 up to 1; 0 by default")
            step.add_argument("-s", "--save-every", type=int, help="epochs between two checkpoints; 1 by default")
        if name != "impressions":
            what = "training" if name in ("train", "golden") else "unlearning"
            step.add_argument("-e", "--epochs", type=int, help=f"of {what}")
            step.add_argument("--lr", type=float, help=f"learning rate of {what}")
            step.add_argument("-b", "--batch-size", type=int, help=f"of {what}")
        if name in ("impressions", "unlearn", "run"):
            _add_impressions(step)
        if name in ("unlearn", "run"):
            step.add_argument("--method", default="neggrad+", help=", ".join(METHODS) + "; neggrad+ by default")
            step.add_argument("--forget-weight", type=float, help="of the forget loss; the method's own by default")
            step.add_argument("--retain-weight", type=float, help="of the retain loss; the method's own by default")
        if name == "run":
            step.add_argument("--train-epochs", type=int, help="of training")
            step.add_argument("--train-lr", type=float, help="learning rate of training")
    audit = steps.add_parser("audit", help="ask of an unlearned run whether the class is gone")
    _add_everywhere(audit, default=argparse.SUPPRESS)
    audit.add_argument("--run", required=True, metavar="NAME", help="name of its run folder")
    seeds = "make the golden band from seeds 0 to N-1, trained if need be; those trained already by default"
    audit.add_argument("--seeds", type=int, metavar="N", help=seeds)
    audit.add_argument("--layer", help="the linear probe reads its input; the head's by default")
    return parser


def _add_everywhere(parser: argparse.ArgumentParser, default) -> None:
    """Options that stand before the step or after it."""
    add = parser.add_argument
    add("--data-root", metavar="DIR", default=default, help="where data sets lie ($UNLEARN_DATA, else data/)")
    add("--runs-root", metavar="DIR", default=default, help="where runs are kept ($UNLEARN_RUNS, else data/runs/)")
    add("-g", "--device", default=default, help="cuda, mps or cpu; the best there is by default")
    add("--force", action="store_true", default=default or False, help="do everything anew")
    add("-n", "--version-name", dest="version", default=default, help="goes behind the names of the run folders")
    add("--json", action="store_true", default=default or False, help="metrics.json alone on standard output")


def _add_network(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, help="lenet5, karpathynet or a torchvision classifier")
    add("--data", required=True, help="digits, shapes, mnist, cifar10, imagenet or an image folder")
    add("--seed", type=int, default=argparse.SUPPRESS, help="of training, impressions and unlearning; 0 by default")
    add("--size", type=int, help="height and width of a picture in pixels, for torchvision's networks")
    add("--weights", metavar="NAME|FILE", help="torchvision's (IMAGENET1K_V1) or a state dict to start from")
    add("-d", "--dropout", type=float, help="rate, from 0 up to 1; the network's own by default")


def _add_impressions(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--layer", help="first layer of the tail, `input` for pixels; the last responsive one by default")
    add("--samples", type=int, default=100, help="impressions a class; 100 by default")
    add("--recipe", choices=RECIPES, help="of the impressions; the method's own by default")
    add("--memory", type=float, metavar="MIB", help="that making impressions may take; 512 by default")


def _experiment(args: argparse.Namespace, **changes) -> Experiment:
    """The experiment that the arguments describe; those left out keep the experiment's own defaults."""
    fields = {name for name, field in Experiment.__dataclass_fields__.items() if field.init}
    given = {name: value for name, value in vars(args).items() if name in fields and value is not None}
    return Experiment(**given | changes)


def _train(args: argparse.Namespace) -> None:
    given = {TRAINING_NAMES[name]: value for name, value in vars(args).items() if name in TRAINING_NAMES}
    lab = _experiment(args, **{name: value for name, value in given.items() if value is not None})
    run = lab.golden() if args.step == "golden" else lab.train()
    _draw_training(lab, {("golden" if args.step == "golden" else "original"): run})
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
    _save({f"impressions-{made.layer}-{made.recipe}": figure}, lab.original())
    if args.json:
        print(json.dumps({"layers": layers.to_dict("index"), "impressions": diagnosis.to_dict("index")}))
    else:
        print(f"Layers of {args.model}, {lab.dataset.source}\n{layers.round(3).to_string()}\n")
        print(f"{title}, by class\n{diagnosis.round(3).to_string()}")


def _unlearn(args: argparse.Namespace) -> None:
    lab = _experiment(args)
    run = lab.unlearn(args.method, **_unlearning_arguments(args))
    _draw(lab, run)
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
    _draw_training(lab, trained)
    _draw(lab, run)
    _print(args, run.metrics, [run], lab)


def _audit(args: argparse.Namespace) -> None:
    from unlearn_lib.figures import plot_relearning

    run = open_run(runs_root(args.runs_root), args.run)
    lab = experiment_of(run, data_root=args.data_root, device=args.device)
    seeds = None if args.seeds is None else range(args.seeds)
    run = audit_run(lab, run, seeds=seeds, layer=args.layer, force=args.force)
    audit = run.metrics["audit"]
    figure = plot_relearning({run.config["method"]: audit}, f"{lab.title}: learning the forgotten classes again")
    _save({"relearning": figure}, run)
    if args.json:
        print(json.dumps(run.metrics, indent=1, sort_keys=True))
        return
    print(f"\n{run.name}: {lab.model} on {lab.dataset.source}; forget {_names(lab)}")
    print(f"F forget, R retain; probe at {audit['layer']}; golden band of seeds {audit['seeds']}\n")
    print(audit_table({"unlearned": audit}).to_string())
    print("\nmoved, |new - old| / |old|: " + ", ".join(f"{n} {v:.2g}" for n, v in audit["moved"]["unlearned"].items()))


def _preset(args: argparse.Namespace) -> None:
    labs = [_experiment(args, **chosen) for chosen in PRESETS[args.preset or chosen_preset()]]
    content = {}
    for lab in labs:
        log.info("\n%s on %s", lab.model, lab.dataset.source)
        original, golden = lab.train(), lab.golden()
        _draw_training(lab, {"original": original, "golden": golden})
        runs = [lab.unlearn(method) for method in ("neggrad+", "distill")]
        for run in runs:
            _draw(lab, run)
        content |= {run.name: run.metrics for run in runs}
        _print(args, None, runs, lab)
    if args.json:
        print(json.dumps(content, indent=1, sort_keys=True))


def _unlearning_arguments(args: argparse.Namespace) -> dict:
    names = ("layer", "samples", "recipe", "lr", "epochs", "batch_size", "forget_weight", "retain_weight")
    return {name: getattr(args, name) for name in names}


def _draw_training(lab: Experiment, runs: dict[str, Run]) -> None:
    from unlearn_lib.figures import plot_history

    histories = {name: run.history for name, run in runs.items() if run.history}
    if histories:
        _save({"training": plot_history(histories, lab.title)}, list(runs.values())[-1])


def _draw(lab: Experiment, run: Run) -> None:
    """Bars of every class, or where they are too many to stand side by side the figures for many."""
    from unlearn_lib import figures

    title, classes = f"{lab.title}, unlearned by {run.config['method']}", lab.dataset.classes
    if len(classes) <= figures.MANY:
        _save({"per_class": figures.plot_per_class(run.blocks, classes, lab.forget_classes, title)}, run)
        return
    original, model = run.metrics["original"], lab.load(lab.original())
    changes = figures.class_changes(original, run.metrics["unlearned"], classes, lab.forget_classes, model)
    drawn = {"changes": figures.plot_changes(changes, title), "lost_most": figures.plot_losers(changes, title)}
    _save(drawn | {"histograms": figures.plot_histograms(run.blocks, lab.forget_classes, title)}, run)


def _save(drawn: dict, run: Run) -> None:
    """Write figures into a run's folder, say where, and close them."""
    import matplotlib.pyplot as plt

    from unlearn_lib.figures import save_figure

    for name, figure in drawn.items():
        log.info("figure: %s", save_figure(figure, name, run.path))
        plt.close(figure)


def _names(lab: Experiment) -> str:
    """The forget classes' names, the first ten of them where they are many."""
    names = [lab.dataset.classes[c] for c in lab.forget_classes]
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _print(args: argparse.Namespace, content: dict | None, runs: list[Run], lab: Experiment) -> None:
    """The table of one experiment's runs on the screen, or `content` as JSON."""
    if args.json:
        if content is not None:
            print(json.dumps(content, indent=1, sort_keys=True))
        return
    metrics = runs[0].metrics
    rows = {name: (metrics[name], _seconds(name, metrics["seconds"])) for name in ("original", "masked")}
    for run in runs:
        name = f"unlearned, {run.config.get('method')}"
        rows[name] = (run.metrics["unlearned"], _seconds("unlearned", run.metrics["seconds"]))
    rows["golden"] = (metrics["golden"], metrics["seconds"]["golden"])
    shown = table({name: block for name, (block, _) in rows.items()})
    shown["seconds"] = [rows[name][1] for name in shown.index]
    forgotten = f"; forget {_names(lab)}" if lab.forget_classes else ""
    print(f"\n{lab.model} on {lab.dataset.source}{forgotten}")
    print("accuracy in % of test pictures (forget: towards 0; retain: no lower than masked)\n")
    print(shown.dropna(axis=1, how="all").to_string(na_rep="-", float_format="{:.2f}".format))


def _seconds(name: str, seconds: dict) -> float | None:
    if name == "unlearned":
        return (seconds["impressions"] or 0) + (seconds["unlearn"] or 0)
    return {"original": seconds["train"], "golden": seconds["golden"], "masked": 0.0}[name]


if __name__ == "__main__":
    sys.exit(main())
