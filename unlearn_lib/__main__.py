"""The same story from the shell.

    python -m unlearn_lib                      preset quick: two models, offline, about a minute
    python -m unlearn_lib --preset paper       the same on MNIST and CIFAR-10
    python -m unlearn_lib run --model lenet5 --data mnist --forget 1 2 3 4 --method distill

and each step of its own: train, golden, impressions, unlearn; then `audit --run NAME` and `sweep GRID.toml`.
Installed, it is also called `unlearn`. Results go to standard output, progress and news to standard error. The options
of a step are the fields of `Experiment` and `Unlearning`; heavy modules are imported by the steps that need them.
"""

import argparse
import dataclasses
import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from unlearn_lib import __version__
from unlearn_lib.options import PLACES

PRESETS = ("quick", "paper")
SHORT = {"device": "-g", "version": "-n", "epochs": "-e", "batch_size": "-b", "dropout": "-d", "save_every": "-s"}
LONG = 100  # numbers; longer lists stand in metrics.json and not on the screen
NETWORK = "model data seed size weights fine_tune golden_weights dropout".split()
TRAINING = "label_smoothing flip precision save_every".split()
TRAINING_NUMBERS = {"epochs": "train_epochs", "lr": "train_lr", "batch_size": "train_batch_size"}
IMPRESSIONS = "layer samples recipe".split()


def main(argv: list[str] | None = None) -> int:
    """Run one command. 0: it worked; 2 and one sentence on standard error: the input was bad; 130: it was interrupted.

    Any other failure is a fault of this program and ends in its traceback.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    args = make_parser(argv).parse_args(argv)
    os.environ.setdefault("MPLBACKEND", "Agg")
    from unlearn_lib.common import NotFound, UserError, show_log
    from unlearn_lib.processes import process_group, release_helpers

    rank, _ = process_group()
    if rank:
        from unlearn_lib.training import help_training

        help_training()
        return 0
    show_log(sys.stderr)
    try:
        if args.step and args.preset:
            raise UserError(f"preset: got {args.preset} with the step {args.step}; a preset is run without a step")
        STEPS[args.step][0](args) if args.step else run_preset(args)
    except UserError as error:
        is_untrained = isinstance(error, NotFound) and str(error).startswith("run: no") and "model" in args
        advice = f"; train it by: {_command('train', args)}" if is_untrained else ""
        print(f"{program()}: {error}{advice}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program()}: interrupted", file=sys.stderr)
        return 130
    finally:
        release_helpers()
    return 0


def train(args: argparse.Namespace) -> None:
    """Train the original."""
    _train(args, "original")


def train_golden(args: argparse.Namespace) -> None:
    """Train golden."""
    _train(args, "golden")


def _train(args: argparse.Namespace, kind: str) -> None:
    numbers = {field: getattr(args, name) for name, field in TRAINING_NUMBERS.items()}
    experiment = _experiment(args, **numbers)
    run = experiment.golden() if kind == "golden" else experiment.train()
    drawn = _draw_results(experiment, {kind: run}, [])
    _print_results(args, experiment, [run])
    _print_next(drawn, _command("unlearn", args, "--forget", *(getattr(args, "forget", None) or ["CLASS"])))


def make_impressions(args: argparse.Namespace) -> None:
    """Make class impressions, and list the layers that respond."""
    import torch

    from unlearn_lib.evaluation import SMALL
    from unlearn_lib.figures import plot_impressions
    from unlearn_lib.zeroshot import diagnose, leaf_layers, responsive_layers

    experiment = _experiment(args)
    choices = {name: getattr(args, name) for name in IMPRESSIONS if getattr(args, name) is not None}
    made = experiment.impressions(**choices)
    model = experiment.load(experiment.original())
    layers = leaf_layers(model)
    if torch.Size(model.input_shape).numel() > SMALL:  # the body's layers would take minutes each
        layers = layers[layers.index(made.layer) :] if made.layer in layers else [made.layer]
    diagnosis = diagnose(model, made)
    responsive = responsive_layers(model, layers=layers)
    title = f"{experiment.title}: {made.recipe} impressions at {made.layer}"
    figure = plot_impressions(made, diagnosis, experiment.dataset.classes, title)
    drawn = _save_figures({f"impressions-{made.layer}-{made.recipe}": figure}, experiment.original())
    if args.json:
        print(json.dumps({"layers": responsive.to_dict("index"), "impressions": diagnosis.to_dict("index")}))
    else:
        print(f"Layers of {args.model}, {experiment.dataset.source}\n{responsive.round(3).to_string()}\n")
        print(f"{title}, by class\n{diagnosis.round(3).to_string()}")
    _print_next(drawn, _command("unlearn", args, "--forget", "CLASS"))


def unlearn(args: argparse.Namespace) -> None:
    """Unlearn a trained model."""
    experiment = _experiment(args)
    _report_unlearned(args, experiment, {}, experiment.unlearn(_unlearning(args)))


def run_all(args: argparse.Namespace) -> None:
    """Train, train golden, unlearn, compare."""
    from unlearn_lib.common import log

    experiment = _experiment(args)
    unlearning = _unlearning(args)
    experiment.check_unlearning(unlearning)
    trained = {"original": experiment.train()}
    if len(experiment.dataset.train):
        trained["golden"] = experiment.golden()
    else:
        log.info("no golden model: %s has no training pictures here", experiment.dataset.name)
    _report_unlearned(args, experiment, trained, experiment.unlearn(unlearning))


def _report_unlearned(args: argparse.Namespace, experiment, trained: dict, run) -> None:
    """Draw and print an unlearned run, and name the command that audits it."""
    drawn = _draw_results(experiment, trained, [run])
    _print_results(args, experiment, [run])
    has_train = len(experiment.dataset.train)  # an audit needs training pictures
    _print_next(drawn, _audit_command(args, run) if has_train else "")


def audit(args: argparse.Namespace) -> None:
    """Check whether a run removed the knowledge or only the answer."""
    from unlearn_lib.auditing import audit_run, audit_table
    from unlearn_lib.common import UserError, check_number, join_names
    from unlearn_lib.experiment import open_experiment
    from unlearn_lib.figures import plot_relearning
    from unlearn_lib.networks import open_run, runs_root

    if args.version:
        raise UserError(f"version-name: got {args.version!r}; it is a part of the name that --run takes")
    seeds = None if args.seeds is None else range(check_number("seeds", args.seeds, whole=True, least=1))
    run = open_run(runs_root(args.runs_root), args.run)
    experiment = open_experiment(run, data_root=args.data_root, device=args.device)
    run = audit_run(experiment, run, seeds=seeds, layer=args.layer, force=args.force)
    block = run.metrics["audit"]
    title = f"{experiment.title}: learning the forgotten classes again"
    drawn = _save_figures({"relearning": plot_relearning({run.config["method"]: block}, title)}, run)
    if args.json:
        print(brief_json(run.metrics))
    else:
        print(f"\n{run.name}: {experiment.model} on {experiment.dataset.source}")
        print(f"forget {join_names(experiment.forget_names)}")
        print(
            f"F forget, R retain; probe at {block['layer']}; band: 95 % prediction interval, seeds {block['seeds']}\n"
        )
        print(audit_table({"unlearned": block}).to_string())
        changes = ", ".join(f"{name} {value:.2g}" for name, value in block["moved"]["unlearned"].items())
        print(f"\nweight changes, |new - old| / |old|: {changes}")
    _print_next(drawn)


def sweep(args: argparse.Namespace) -> None:
    """Make every point of a grid."""
    from unlearn_lib.common import UserError, log
    from unlearn_lib.figures import plot_leaderboard, save_figure
    from unlearn_lib.networks import runs_root
    from unlearn_lib.store import digest
    from unlearn_lib.sweep import expand_grid, leaderboard, run_sweep, save_rows

    if args.force:
        raise UserError("force: a sweep repeats no run; --version-name makes new runs next to the old ones")
    points = expand_grid(args.grid)
    places = {name: getattr(args, name) for name in PLACES}
    rows = run_sweep(args.grid, scheduler=args.scheduler, workers=args.workers, audit=args.audit, **places)
    name = f"{Path(args.grid).stem}-{digest(points)[:6]}"  # two grids may have one file name
    folder = runs_root(args.runs_root) / "sweeps"
    log.info("tables: %s and %s", *save_rows(rows, folder / name))
    board = leaderboard(rows, args.metric)
    if args.figure:
        figure = plot_leaderboard(board, args.metric, f"{name}: {len(rows)} points")
        log.info("figure: %s", save_figure(figure, name, folder))
    print(rows.to_json(orient="records") if args.json else f"\n{board.to_string(float_format='{:.4f}'.format)}")


def run_preset(args: argparse.Namespace) -> None:
    """Run a preset end to end: training, golden, two methods, comparison."""
    from unlearn_lib.common import log
    from unlearn_lib.presets import PRESETS, chosen_preset

    experiments = [_experiment(args, **chosen) for chosen in PRESETS[args.preset or chosen_preset()]]
    content = {}
    for experiment in experiments:
        log.info("\n%s on %s", experiment.model, experiment.dataset.source)
        trained = {"original": experiment.train(), "golden": experiment.golden()}
        runs = [experiment.unlearn(method) for method in ("neggrad+", "distill")]
        drawn = _draw_results(experiment, trained, runs)
        content |= {run.name: run.metrics for run in runs}
        if not args.json:
            _print_results(args, experiment, runs)
    if args.json:
        print(brief_json(content))
    _print_next(drawn, _audit_command(args, runs[-1]))


def _experiment(args: argparse.Namespace, **changes):
    """Return the Experiment that the arguments describe; those left out keep the experiment's own defaults."""
    from unlearn_lib.experiment import Experiment

    names = [field.name for field in dataclasses.fields(Experiment) if field.init]
    given = {name: getattr(args, name, None) for name in names} | changes
    return Experiment(**{name: value for name, value in given.items() if value is not None})


def _unlearning(args: argparse.Namespace):
    """Return the Unlearning that the arguments describe."""
    from unlearn_lib.zeroshot import Unlearning

    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(Unlearning)}
    return Unlearning(**{name: value for name, value in given.items() if value is not None})


def _draw_results(experiment, trained: dict, runs: list) -> list[Path]:
    """Save training curves into the last trained run's folder and results into their own; return the files."""
    from unlearn_lib.figures import result_figures, training_figures

    drawn = _save_figures(training_figures(experiment, trained), list(trained.values())[-1]) if trained else []
    for run in runs:
        drawn += _save_figures(result_figures(experiment, run), run)
    return drawn


def _save_figures(figures: dict, run) -> list[Path]:
    """Save figures into a run's folder, log where, and close them."""
    import matplotlib.pyplot as plt

    from unlearn_lib.common import log
    from unlearn_lib.figures import save_figure

    paths = []
    for name, figure in figures.items():
        paths.append(save_figure(figure, name, run.path))
        log.info("figure: %s", _relative_path(paths[-1]))
        plt.close(figure)
    return paths


def _print_results(args: argparse.Namespace, experiment, runs: list) -> None:
    """Print the table of one experiment's runs, or the last one's metrics as JSON."""
    from unlearn_lib.common import join_names
    from unlearn_lib.experiment import comparison_table

    if args.json:
        print(brief_json(runs[-1].metrics))
        return
    table = comparison_table(runs)
    heading = f"\n{experiment.model} on {experiment.dataset.source}"
    unit = "accuracy in % of test pictures"
    if experiment.forget_classes:
        heading += f"; forget {join_names(experiment.forget_names)}"
        unit += " (forget: towards 0; retain: no lower than masked)"
    else:
        table = table.drop(columns=["forget", "retain"])
    print(f"{heading}\n{unit}\n")
    print(table.dropna(axis=1, how="all").to_string(na_rep="-", float_format="{:.2f}".format))


def _print_next(drawn: list[Path], then: str = "") -> None:
    """Log the last line: which figure to open, and which command comes next."""
    from unlearn_lib.common import log

    sys.stdout.flush()
    look = f"open {_relative_path(drawn[-1])}" if drawn else ""
    log.info("\nnext: %s", "; then ".join(part for part in (look, then) if part))


def _relative_path(path: Path) -> str:
    """Return a path as seen from the working folder, where it lies below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def brief_json(content: dict) -> str:
    """Return JSON for readers: without confusion matrices and long lists; a list is one line."""

    def shorten(value: object) -> object:
        if not isinstance(value, dict):
            return value
        is_long = {name: isinstance(part, list) and len(part) > LONG for name, part in value.items()}
        return {name: shorten(part) for name, part in value.items() if name != "confusion" and not is_long[name]}

    text = json.dumps(shorten(content), indent=1, sort_keys=True)
    return re.sub(r"\[[^][{}\"]*\]", lambda found: " ".join(found[0].split()), text)


def program() -> str:
    """Return how this program was called."""
    return "unlearn" if Path(sys.argv[0]).stem == "unlearn" else "python -m unlearn_lib"


def _command(step: str, args: argparse.Namespace, *more: str) -> str:
    """Return the command of another step for the same network, data and folders."""
    parts = [program(), step]
    for name in (*NETWORK, *PLACES):
        if (value := getattr(args, name, None)) is not None:
            parts += [_flags(name)[-1], shlex.quote(str(value))]
    return " ".join([*parts, *map(shlex.quote, more)])


def _audit_command(args: argparse.Namespace, run) -> str:
    places = argparse.Namespace(data_root=args.data_root, runs_root=args.runs_root, device=args.device)
    return _command("audit", places, "--run", run.name)


def make_parser(argv: list[str]) -> argparse.ArgumentParser:
    """Return the parser of the command line; only a step that `argv` names has options, slow to import."""
    about = "Zero-shot class unlearning. Without a step: one of the presets, end to end."
    parser = argparse.ArgumentParser(
        prog=program(), description=about, epilog="STEP --help lists a step's options.", allow_abbrev=False
    )
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        help="quick: digits and shapes, offline; paper: MNIST and CIFAR-10; by default $UNLEARN_PRESET, else quick",
    )
    _add_common(parser)
    steps = parser.add_subparsers(dest="step", metavar=f"{{{','.join(STEPS)}}}")
    for name, (_, help, add_options) in STEPS.items():
        step = steps.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.", allow_abbrev=False)
        _add_common(step, default=argparse.SUPPRESS)  # what stands before the step holds unless it is said again
        if name in argv:
            add_options(step)
    return parser


def _add_common(parser: argparse.ArgumentParser, **default) -> None:
    """Add the options that may stand before the step or after it."""
    version = f"unlearn_lib {__version__}"
    parser.add_argument("--version", action="version", version=version, help="print the version and end")
    for name, details in PLACES.items():
        parser.add_argument(*_flags(name), dest=name, metavar=details["metavar"], help=details["help"], **default)
    parser.add_argument(
        "--force", action="store_true", help="repeat every step; by default finished steps are reused", **default
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="metrics.json alone on standard output, without its longest lists; by default a table",
        **default,
    )


def _flags(name: str) -> list[str]:
    """Return the short flag of an option, where it has one, and the long one last."""
    long = "--version-name" if name == "version" else f"--{name.replace('_', '-')}"
    return [SHORT[name], long] if name in SHORT else [long]


def _add_fields(parser: argparse.ArgumentParser, names: list[str], specification: type, **renamed: str) -> None:
    """Add fields of a specification as options, required ones first; `renamed`: the option's name -> the field's."""
    fields = {field.name: field for field in dataclasses.fields(specification)}
    for name in names:
        field = fields[renamed.get(name, name)]
        if field.metadata["kind"] == "switch":
            details = {"action": argparse.BooleanOptionalAction}
        else:
            details = {"metavar": field.metadata["metavar"], "required": field.default is dataclasses.MISSING}
        parser.add_argument(*_flags(name), help=field.metadata["help"], **details)


def _add_experiment(parser: argparse.ArgumentParser, *names: str, has_forget: bool = True, **renamed: str) -> None:
    from unlearn_lib.experiment import Experiment

    _add_fields(parser, NETWORK[:2], Experiment)
    if has_forget:
        help = "names, indices, ranges of indices (0-4), wnids, or files with one of these a line"
        parser.add_argument("--forget", nargs="+", action="extend", required=True, metavar="CLASS", help=help)
    _add_fields(parser, [*NETWORK[2:], *names], Experiment, **renamed)


def _add_unlearning(parser: argparse.ArgumentParser, names: list[str] | None = None) -> None:
    from unlearn_lib.zeroshot import Unlearning

    _add_fields(parser, names or [field.name for field in dataclasses.fields(Unlearning)], Unlearning)


def _add_train(parser: argparse.ArgumentParser) -> None:
    _add_experiment(parser, *TRAINING, *TRAINING_NUMBERS, has_forget=False, **TRAINING_NUMBERS)


def _add_golden(parser: argparse.ArgumentParser) -> None:
    _add_experiment(parser, *TRAINING, *TRAINING_NUMBERS, **TRAINING_NUMBERS)


def _add_impressions(parser: argparse.ArgumentParser) -> None:
    _add_experiment(parser, "memory", has_forget=False)
    _add_unlearning(parser, IMPRESSIONS)


def _add_unlearn(parser: argparse.ArgumentParser) -> None:
    _add_experiment(parser, "memory")
    _add_unlearning(parser)


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_experiment(parser, *TRAINING, *TRAINING_NUMBERS.values(), "memory")
    _add_unlearning(parser)


def _add_audit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", required=True, metavar="NAME", help="name of its run folder")
    seeds = "golden band of seeds 0 to N-1, trained where absent; by default of those that are trained"
    parser.add_argument("--seeds", metavar="N", help=seeds)
    parser.add_argument("--layer", metavar="LAYER", help="the linear probe reads its input; by default the head")


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    grid = "lists by the names of run's options, with _ for -; tables [[grid]] for unions"
    parser.add_argument("grid", metavar="GRID.toml", help=grid)
    workers = "local processes that share the cores; by default one a core"
    parser.add_argument("--workers", metavar="N", help=workers)
    scheduler = "of a Dask cluster to work on; by default local processes"
    parser.add_argument("--scheduler", metavar="ADDRESS", help=scheduler)
    parser.add_argument("--audit", action="store_true", help="audit every point, with golden's band; not by default")
    parser.add_argument("--figure", action="store_true", help="draw the leaderboard; not by default")
    metric = "of the table, to compare by; by default unlearned_forget_accuracy"
    parser.add_argument("--metric", default="unlearned_forget_accuracy", metavar="COLUMN", help=metric)


Step = Callable[[argparse.Namespace], None]
STEPS: dict[str, tuple[Step, str, Callable[[argparse.ArgumentParser], None]]] = {
    "train": (train, "train on all classes", _add_train),
    "golden": (train_golden, "train without the forget classes", _add_golden),
    "impressions": (make_impressions, "make class impressions, list responsive layers", _add_impressions),
    "unlearn": (unlearn, "unlearn a trained model", _add_unlearn),
    "run": (run_all, "train, train golden, unlearn and compare", _add_run),
    "audit": (audit, "check whether a run removed the knowledge or only the answer", _add_audit),
    "sweep": (sweep, "make every point of a grid, on many processes or machines", _add_sweep),
}


if __name__ == "__main__":
    sys.exit(main())
