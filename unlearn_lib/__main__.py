"""The same story from the shell.

    python -m unlearn_lib                      preset quick: two models, offline, about a minute
    python -m unlearn_lib --preset paper       the same on MNIST and CIFAR-10
    python -m unlearn_lib run --model lenet5 --data mnist --forget 1 2 3 4 --method distill

and the steps on their own: train, golden, impressions, unlearn; then `audit --run NAME`.
Results go to standard output, progress and news to standard error.
"""

import argparse
import json
import sys

import matplotlib
import matplotlib.pyplot as plt
import torch

from unlearn_lib.auditing import audit_run, audit_table
from unlearn_lib.evaluation import SMALL, table
from unlearn_lib.experiment import Experiment, experiment_of
from unlearn_lib.figures import (
    MANY,
    class_changes,
    plot_changes,
    plot_histograms,
    plot_history,
    plot_impressions,
    plot_losers,
    plot_per_class,
    plot_relearning,
    save_figure,
)
from unlearn_lib.networks import Run, open_run, runs_root
from unlearn_lib.presets import PRESETS, chosen_preset
from unlearn_lib.zeroshot import METHODS, RECIPES, diagnose, leaf_layers, responsive_layers

TRAINING_NAMES = {"epochs": "train_epochs", "lr": "train_lr", "batch_size": "train_batch_size"}


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 where it worked, 2 and one sentence on standard error where the input was bad."""
    matplotlib.use("Agg")
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        steps = {"train": _train, "golden": _train, "impressions": _impressions, "unlearn": _unlearn, "run": _run}
        (steps | {"audit": _audit}).get(args.step, _preset)(args)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    finally:
        plt.close("all")
    return 0


def _parser() -> argparse.ArgumentParser:
    everywhere = argparse.ArgumentParser(add_help=False)
    everywhere.add_argument("--data-root", metavar="DIR", help="where data sets lie ($UNLEARN_DATA, else data/)")
    everywhere.add_argument("--runs-root", metavar="DIR", help="where runs are kept ($UNLEARN_RUNS, else data/runs/)")
    everywhere.add_argument("-g", "--device", help="cuda, mps or cpu; the best there is by default")
    everywhere.add_argument("--force", action="store_true", help="do everything anew")
    everywhere.add_argument("-n", "--version-name", dest="version", help="goes behind the names of the run folders")
    everywhere.add_argument("--json", action="store_true", help="metrics.json, and nothing else, on standard output")
    parser = argparse.ArgumentParser(
        prog="python -m unlearn_lib",
        description="Zero-shot class unlearning. Without a step: one of the presets, end to end.",
        parents=[everywhere],
    )
    parser.add_argument("--preset", choices=PRESETS, help="$UNLEARN_PRESET, else quick")
    steps = parser.add_subparsers(dest="step", metavar="{train,golden,impressions,unlearn,run,audit}")

    one = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS, parents=[everywhere])
    one.add_argument("--model", required=True, help="lenet5, karpathynet or a torchvision classifier")
    one.add_argument("--data", required=True, help="digits, shapes, mnist, cifar10, imagenet or an image folder")
    one.add_argument("--seed", type=int)
    one.add_argument("--size", type=int, help="height and width of a picture, for torchvision's networks")
    one.add_argument(
        "--weights", metavar="NAME|FILE", help="torchvision's (IMAGENET1K_V1) or a state dict to start from"
    )
    one.add_argument("-d", "--dropout", type=float)
    forgetting = argparse.ArgumentParser(add_help=False)
    forgetting.add_argument(
        "--forget", nargs="+", required=True, metavar="CLASS", help="names, indices, ranges (0-4), files"
    )
    training = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    training.add_argument("--label-smoothing", type=float)
    training.add_argument("-s", "--save-every", type=int, help="epochs between two checkpoints")
    made = argparse.ArgumentParser(add_help=False)
    made.add_argument("--layer", help="first layer of the tail, `input` for pixels; the last responsive one by default")
    made.add_argument("--samples", type=int, default=100, help="impressions a class")
    made.add_argument("--recipe", choices=RECIPES, help="of the impressions; the method's own by default")
    made.add_argument("--memory", type=float, metavar="MIB", help="that making impressions may take; 512 by default")
    numbers = argparse.ArgumentParser(add_help=False)
    numbers.add_argument("-e", "--epochs", type=int)
    numbers.add_argument("--lr", type=float)
    numbers.add_argument("-b", "--batch-size", type=int)
    unlearning = argparse.ArgumentParser(add_help=False)
    unlearning.add_argument("--method", default="neggrad+", help=", ".join(METHODS))
    unlearning.add_argument("--forget-weight", type=float)
    unlearning.add_argument("--retain-weight", type=float)

    steps.add_parser("train", parents=[one, training, numbers], help="train on all classes")
    steps.add_parser("golden", parents=[one, forgetting, training, numbers], help="train without the forget classes")
    steps.add_parser("impressions", parents=[one, made], help="make class impressions, list responsive layers")
    steps.add_parser("unlearn", parents=[one, forgetting, made, numbers, unlearning], help="unlearn a trained model")
    run = steps.add_parser(
        "run", parents=[one, forgetting, training, made, numbers, unlearning], help="all of it, with the comparison"
    )
    audit = steps.add_parser("audit", parents=[everywhere], help="ask of an unlearned run whether the class is gone")
    audit.add_argument("--run", required=True, metavar="NAME", help="name of its run folder")
    audit.add_argument(
        "--seeds", type=int, metavar="N", help="make the golden band from seeds 0 to N-1, trained if need be"
    )
    audit.add_argument("--layer", help="the linear probe reads its input; the head's by default")
    run.add_argument("--train-epochs", type=int)
    run.add_argument("--train-lr", type=float)
    return parser


def _experiment(args: argparse.Namespace, **more) -> Experiment:
    """The experiment that the arguments describe; those left out keep the experiment's own defaults."""
    fields = set(Experiment.__dataclass_fields__)
    given = {name: value for name, value in vars(args).items() if name in fields and value is not None}
    return Experiment(**given | more, say=_say)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _train(args: argparse.Namespace) -> None:
    given = {TRAINING_NAMES[name]: value for name, value in vars(args).items() if name in TRAINING_NAMES}
    lab = _experiment(args, **{name: value for name, value in given.items() if value is not None})
    run = lab.golden() if args.step == "golden" else lab.train()
    _draw_training(lab, {("golden" if args.step == "golden" else "original"): run})
    _print(args, run.metrics, [run], lab)


def _impressions(args: argparse.Namespace) -> None:
    lab = _experiment(args)
    made = lab.impressions(args.layer, samples=args.samples, recipe=args.recipe or "calibrated")
    model = lab.load(lab.original())
    tail = leaf_layers(model)
    if torch.Size(model.input_shape).numel() > SMALL:  # trying the body's layers too would take minutes each
        tail = tail[tail.index(made.layer) :] if made.layer in tail else [made.layer]
    diagnosis, layers = diagnose(model, made), responsive_layers(model, layers=tail)
    title = f"{lab.title}: {made.recipe} impressions at {made.layer}"
    path = save_figure(
        plot_impressions(made, diagnosis, lab.dataset.classes, title),
        f"impressions-{made.layer}-{made.recipe}",
        lab.original().path,
    )
    if args.json:
        print(json.dumps({"layers": layers.to_dict("index"), "impressions": diagnosis.to_dict("index")}))
    else:
        print(f"Layers of {args.model}, {lab.dataset.source}\n{layers.round(3).to_string()}\n")
        print(f"{title}, by class\n{diagnosis.round(3).to_string()}")
        _say(f"figure: {path}")


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
        _say(f"no golden model: {lab.dataset.name} has no training pictures here")
    run = lab.unlearn(args.method, **_unlearning_arguments(args))
    _draw_training(lab, trained)
    _draw(lab, run)
    _print(args, run.metrics, [run], lab)


def _audit(args: argparse.Namespace) -> None:
    run = open_run(runs_root(args.runs_root), args.run)
    lab = experiment_of(run, data_root=args.data_root, device=args.device, say=_say)
    run = audit_run(lab, run, seeds=None if args.seeds is None else range(args.seeds), layer=args.layer)
    audit = run.metrics["audit"]
    figure = plot_relearning({run.config["method"]: audit}, f"{lab.title}: learning the forgotten classes again")
    path = save_figure(figure, "relearning", run.path)
    if args.json:
        print(json.dumps(run.metrics, indent=1, sort_keys=True))
        return
    print(f"\n{run.name}: {lab.model} on {lab.dataset.source}; forget {_names(lab)}")
    print(f"F forget, R retain; probe at {audit['layer']}; golden band: mean ± sd of seeds {audit['seeds']}\n")
    print(audit_table({"unlearned": audit}).to_string())
    print("\nmoved, |new - old| / |old|: " + ", ".join(f"{n} {v:.2g}" for n, v in audit["moved"]["unlearned"].items()))
    _say(f"figure: {path}")


def _preset(args: argparse.Namespace) -> None:
    labs = [_experiment(args, **chosen) for chosen in PRESETS[args.preset or chosen_preset()]]
    content = {}
    for lab in labs:
        _say(f"\n{lab.model} on {lab.dataset.source}")
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
    histories = {name: run.history for name, run in runs.items() if run.history}
    if not histories:
        return
    figure = plot_history(histories, lab.title)
    save_figure(figure, "training", list(runs.values())[-1].path)


def _draw(lab: Experiment, run: Run) -> None:
    """Bars of every class, or where they are too many to stand side by side the figures for many."""
    title = f"{lab.title}, unlearned by {run.config['method']}"
    classes = lab.dataset.classes
    if len(classes) <= MANY:
        figures = {"per_class": plot_per_class(run.blocks, classes, lab.forget, title)}
    else:
        original, model = run.metrics["original"], lab.load(lab.original())
        changes = class_changes(original, run.metrics["unlearned"], classes, lab.forget, model)
        figures = {"changes": plot_changes(changes, title), "lost_most": plot_losers(changes, title)}
        figures["histograms"] = plot_histograms(run.blocks, lab.forget, title)
    for name, figure in figures.items():
        _say(f"figure: {save_figure(figure, name, run.path)}")


def _names(lab: Experiment) -> str:
    """The forget classes in words, the first ten of them where they are many."""
    names = [lab.dataset.classes[c] for c in lab.forget]
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
    print(f"\n{lab.model} on {lab.dataset.source}" + (f"; forget {_names(lab)}" if lab.forget else ""))
    print("accuracy in % of test pictures (forget: towards 0; retain: no lower than masked)\n")
    print(shown.to_string(na_rep="-", float_format="{:.2f}".format))


def _seconds(name: str, seconds: dict) -> float | None:
    if name == "unlearned":
        return (seconds["impressions"] or 0) + (seconds["unlearn"] or 0)
    return {"original": seconds["train"], "golden": seconds["golden"], "masked": 0.0}[name]


if __name__ == "__main__":
    sys.exit(main())
