"""The same story from the shell.

    python -m unlearn_lib                      preset quick: two models, offline, about a minute
    python -m unlearn_lib --preset paper       the same on MNIST and CIFAR-10
    python -m unlearn_lib run --model lenet5 --data mnist --forget 1 2 3 4 --method distill

and the steps on their own: train, golden, impressions, unlearn; then `audit --run NAME` and `sweep GRID.toml`.
Installed, it is also called `unlearn`. Results go to standard output, progress and news to standard error. What is
heavy is imported in the steps, after the command line has been read.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from unlearn_lib.shell import brief_json, command, parser, program, relative_path

TRAINING_NAMES = {"epochs": "train_epochs", "lr": "train_lr", "batch_size": "train_batch_size"}


def main(argv: list[str] | None = None) -> int:
    """Run one command. 0: it worked; 2 and one sentence on standard error: the input was bad; 130: it was interrupted.

    Anything else that goes wrong is a fault of this program and ends in its traceback.
    """
    args = parser().parse_args(argv)
    os.environ.setdefault("MPLBACKEND", "Agg")
    try:
        return _step(args)
    except KeyboardInterrupt:
        print(f"{program()}: interrupted", file=sys.stderr)
        return 130


def _step(args: argparse.Namespace) -> int:
    """Run the step, or a preset where there is none; the exit status."""
    from unlearn_lib.common import NotFound, UserError, show_log
    from unlearn_lib.team import process_group, release_helpers

    if process_group().rank:
        from unlearn_lib.training import help_training

        help_training()
        return 0
    show_log(sys.stderr)
    steps = {"train": _train, "golden": _train, "impressions": _impressions, "unlearn": _unlearn, "run": _run}
    try:
        if args.step and args.preset:
            raise UserError(f"preset: {args.preset} given with the step {args.step}; a preset is run without a step")
        (steps | {"audit": _audit, "sweep": _sweep}).get(args.step, _preset)(args)
    except UserError as error:
        untrained = isinstance(error, NotFound) and str(error).startswith("run: no") and "model" in args
        print(f"{program()}: {error}" + f"; train it by: {command('train', args)}" * untrained, file=sys.stderr)
        return 2
    finally:
        release_helpers()
    return 0


def _experiment(args: argparse.Namespace, **changes):
    """The Experiment that the arguments describe; those left out keep the experiment's own defaults."""
    from unlearn_lib.experiment import Experiment

    fields = {name for name, field in Experiment.__dataclass_fields__.items() if field.init}
    given = {name: value for name, value in vars(args).items() if name in fields and value is not None}
    return Experiment(**given | changes)


def _train(args: argparse.Namespace) -> None:
    given = {TRAINING_NAMES[name]: value for name, value in vars(args).items() if name in TRAINING_NAMES}
    experiment = _experiment(args, **{name: value for name, value in given.items() if value is not None})
    run = experiment.golden() if args.step == "golden" else experiment.train()
    drawn = _draw(experiment, {("golden" if args.step == "golden" else "original"): run}, [])
    _print(args, run.metrics, [run], experiment)
    _next(drawn, command("unlearn", args, "--forget", *(getattr(args, "forget", None) or ["CLASS"])))


def _impressions(args: argparse.Namespace) -> None:
    import torch

    from unlearn_lib.evaluation import SMALL
    from unlearn_lib.figures import plot_impressions
    from unlearn_lib.zeroshot import diagnose, leaf_layers, responsive_layers

    experiment = _experiment(args)
    made = experiment.impressions(args.layer, samples=args.samples, recipe=args.recipe)
    model = experiment.load(experiment.original())
    tail = leaf_layers(model)
    if torch.Size(model.input_shape).numel() > SMALL:  # trying the body's layers too would take minutes each
        tail = tail[tail.index(made.layer) :] if made.layer in tail else [made.layer]
    diagnosis, layers = diagnose(model, made), responsive_layers(model, layers=tail)
    title = f"{experiment.title}: {made.recipe} impressions at {made.layer}"
    figure = plot_impressions(made, diagnosis, experiment.dataset.classes, title)
    drawn = _save({f"impressions-{made.layer}-{made.recipe}": figure}, [experiment.original()])
    if args.json:
        print(json.dumps({"layers": layers.to_dict("index"), "impressions": diagnosis.to_dict("index")}))
    else:
        print(f"Layers of {args.model}, {experiment.dataset.source}\n{layers.round(3).to_string()}\n")
        print(f"{title}, by class\n{diagnosis.round(3).to_string()}")
    _next(drawn, command("unlearn", args, "--forget", "CLASS"))


def _unlearn(args: argparse.Namespace) -> None:
    _finish(args, _experiment(args), {})


def _run(args: argparse.Namespace) -> None:
    from unlearn_lib.common import log

    experiment = _experiment(args)
    experiment.check_unlearning(args.method, **_unlearning_arguments(args))
    trained = {"original": experiment.train()}
    if len(experiment.dataset.train):
        trained["golden"] = experiment.golden()
    else:
        log.info("no golden model: %s has no training pictures here", experiment.dataset.name)
    _finish(args, experiment, trained)


def _finish(args: argparse.Namespace, experiment, trained: dict) -> None:
    """Unlearn, draw, print."""
    run = experiment.unlearn(args.method, **_unlearning_arguments(args))
    drawn = _draw(experiment, trained, [run])
    _print(args, run.metrics if args.json else None, [run], experiment)
    _next(drawn, _audit_command(args, run) if len(experiment.dataset.train) else "")  # an audit needs training pictures


def _audit(args: argparse.Namespace) -> None:
    from unlearn_lib.auditing import audit_run, audit_table
    from unlearn_lib.common import UserError, check_positive, join_names
    from unlearn_lib.experiment import open_experiment
    from unlearn_lib.figures import plot_relearning
    from unlearn_lib.networks import open_run, runs_root

    if args.version:
        raise UserError(f"version-name: {args.version!r} given; it is a part of the name that --run takes")
    run = open_run(runs_root(args.runs_root), args.run)
    experiment = open_experiment(run, data_root=args.data_root, device=args.device)
    seeds = None if args.seeds is None else range(check_positive(seeds=args.seeds)["seeds"])
    run = audit_run(experiment, run, seeds=seeds, layer=args.layer, force=args.force)
    audit = run.metrics["audit"]
    figure = plot_relearning({run.config["method"]: audit}, f"{experiment.title}: learning the forgotten classes again")
    drawn = _save({"relearning": figure}, [run])
    if args.json:
        print(brief_json(run.metrics))
    else:
        print(
            f"\n{run.name}: {experiment.model} on {experiment.dataset.source}; "
            f"forget {join_names(experiment.forget_names)}"
        )
        about = f"95 % prediction interval, seeds {audit['seeds']}"
        print(f"F forget, R retain; probe at {audit['layer']}; band: {about}\n")
        print(audit_table({"unlearned": audit}).to_string())
        moved = ", ".join(f"{n} {v:.2g}" for n, v in audit["moved"]["unlearned"].items())
        print(f"\nmoved, |new - old| / |old|: {moved}")
    _next(drawn)


def _sweep(args: argparse.Namespace) -> None:
    from unlearn_lib.figures import plot_leaderboard, save_figure
    from unlearn_lib.sweep import sweep_step

    def draw(board, title: str, path: Path) -> Path:
        return save_figure(plot_leaderboard(board, args.metric, title), path.stem, path.parent)

    sweep_step(args, draw)


def _preset(args: argparse.Namespace) -> None:
    from unlearn_lib.common import log
    from unlearn_lib.presets import PRESETS, chosen_preset

    experiments = [_experiment(args, **chosen) for chosen in PRESETS[args.preset or chosen_preset()]]
    content, drawn, run = {}, [], None
    for experiment in experiments:
        log.info("\n%s on %s", experiment.model, experiment.dataset.source)
        original, golden = experiment.train(), experiment.golden()
        runs = [experiment.unlearn(method) for method in ("neggrad+", "distill")]
        drawn, run = _draw(experiment, {"original": original, "golden": golden}, runs), runs[-1]
        content |= {run.name: run.metrics for run in runs}
        _print(args, None, runs, experiment)
    if args.json:
        print(brief_json(content))
    _next(drawn, _audit_command(args, run))


def _unlearning_arguments(args: argparse.Namespace) -> dict:
    names = ("layer", "samples", "recipe", "lr", "epochs", "batch_size", "forget_weight", "retain_weight")
    return {name: getattr(args, name) for name in names}


def _audit_command(args: argparse.Namespace, run) -> str:
    folders = argparse.Namespace(data_root=args.data_root, runs_root=args.runs_root, device=args.device)
    return command("audit", folders, "--run", run.name)


def _draw(experiment, trained: dict, runs: list) -> list[Path]:
    """Training curves into the folder of the last run that was trained, results into their own; the figures' files."""
    from unlearn_lib.figures import result_figures, training_figures

    drawn = _save(training_figures(experiment, trained), list(trained.values())[-1:])
    for run in runs:
        drawn += _save(result_figures(experiment, run), [run])
    return drawn


def _save(figures: dict, runs: list) -> list[Path]:
    """Write figures into the run's folder, say where, and close them."""
    import matplotlib.pyplot as plt

    from unlearn_lib.common import log
    from unlearn_lib.figures import save_figure

    paths = [save_figure(figure, name, runs[0].path) for name, figure in figures.items()]
    for path, figure in zip(paths, figures.values(), strict=True):
        log.info("figure: %s", relative_path(path))
        plt.close(figure)
    return paths


def _next(drawn: list[Path], then: str = "") -> None:
    """The last line: which figure to open, which command comes next."""
    from unlearn_lib.common import log

    sys.stdout.flush()
    look = f"open {relative_path(drawn[-1])}" if drawn else ""
    log.info("\nnext: %s", "; then ".join(part for part in (look, then) if part))


def _print(args: argparse.Namespace, content: dict | None, runs: list, experiment) -> None:
    """The table of one experiment's runs on the screen, or `content` as JSON."""
    from unlearn_lib.common import join_names
    from unlearn_lib.experiment import comparison_table

    if args.json:
        if content is not None:
            print(brief_json(content))
        return
    forget = experiment.forget_classes
    print(
        f"\n{experiment.model} on {experiment.dataset.source}"
        + (f"; forget {join_names(experiment.forget_names)}" if forget else "")
    )
    print("accuracy in % of test pictures" + " (forget: towards 0; retain: no lower than masked)" * bool(forget) + "\n")
    shown = comparison_table(runs) if forget else comparison_table(runs).drop(columns=["forget", "retain"])
    print(shown.dropna(axis=1, how="all").to_string(na_rep="-", float_format="{:.2f}".format))


if __name__ == "__main__":
    sys.exit(main())
