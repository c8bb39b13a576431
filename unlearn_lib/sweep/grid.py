"""The grid of a sweep: what its points are, and how they stand to each other once they are made."""

import itertools
import json
import tomllib
from pathlib import Path

import pandas as pd

from unlearn_lib.common import NotFound, UserError, read_text
from unlearn_lib.experiment import Experiment
from unlearn_lib.store import atomic_file

NAMED = ("model", "data", "forget", "method", "seed")  # stand in a run's name anyway
NUMBERS = ("lr", "epochs", "batch_size", "forget_weight", "retain_weight")
UNLEARNING = ("layer", "samples", "recipe", *NUMBERS)
PLACE = {"device", "data_root", "runs_root", "version", "force"}  # the same for all points, given beside the grid
SILENT = {"save_every", "memory"}  # change no training's bits
TRAINING = {name for name, f in Experiment.__dataclass_fields__.items() if f.init} - PLACE - {"forget"}
KEYS = TRAINING | {"forget", "method", *UNLEARNING}


def expand_grid(grid: str | Path | dict | list[dict]) -> list[dict]:
    """The points of a grid, each once, in its order. Raises UserError where it is none."""
    if isinstance(grid, str | Path):
        grid = _read(Path(grid))
    common, points = {"grid": grid} if isinstance(grid, list) else dict(grid), []
    for table in common.pop("grid", [{}]):
        lists = common | dict(table)
        for name, values in lists.items():
            if name not in KEYS:
                raise UserError(f"grid: {name!r} given; accepted are {', '.join(sorted(KEYS))}")
            if not isinstance(values, list | tuple | range) or not len(values):
                raise UserError(f"grid: {name} = {values!r} given; a list is accepted, as [{values!r}]")
            if name == "forget" and not all(isinstance(value, list | tuple) for value in values):
                raise UserError(f"grid: forget = {values!r} given; a list of lists is accepted, as [[0], [1, 2]]")
        if absent := [name for name in ("model", "data", "forget") if name not in lists]:
            raise UserError(f"grid: no {absent[0]} given; model, data and forget are needed")
        points += [dict(zip(lists, chosen, strict=True)) for chosen in itertools.product(*lists.values())]
    one = {}
    for point in points:  # the same classes in another order make the same point
        alike = point | {"forget": sorted(point["forget"], key=str)}
        one.setdefault(json.dumps(alike, sort_keys=True), point)
    return list(one.values())


def leaderboard(rows: pd.DataFrame, metric: str = "unlearned_forget_accuracy") -> pd.DataFrame:
    """Retain accuracy and a metric of every setting: means over forget sets, then mean and std over seeds.

    Settings are model, data, method and every other key of the grid whose values differ; "default" stands where a point
    gives none. Columns: RA, golden's RA, the metric, the std of each (`RA_std`), the number n of points; the best RA
    first. A metric that one of a setting's points lacks has no mean.
    Raises UserError for a metric that is no column of numbers.
    """
    if metric not in rows or not pd.api.types.is_numeric_dtype(rows[metric]):
        known = [name for name in rows.select_dtypes("number") if "_" in name]
        raise UserError(f"metric: {metric!r} given; accepted: {', '.join(known)}")
    good = rows[rows["status"] != "failed"].drop_duplicates("run")  # classes by name and by index are one run
    others = [name for name in good if name in KEYS - {*NAMED}]
    good[others] = good[others].map(_setting)
    settings = ["model", "data", "method", *(name for name in others if good[name].nunique() > 1)]
    wanted = {"RA": "unlearned_retain_accuracy", "golden": "golden_retain_accuracy", metric: metric}
    wanted = {name: column for name, column in wanted.items() if column in good}
    groups = good.groupby([*settings, "seed"])
    mean, std = (lambda values: values.mean(skipna=False)), (lambda values: values.std(skipna=False))
    seeds = pd.DataFrame({name: groups[column].agg(mean) for name, column in wanted.items()}).groupby(settings)
    board = seeds.agg(mean).join(seeds.agg(std).add_suffix("_std")).assign(n=good.groupby(settings).size())
    return board.sort_values("RA", ascending=False)


def _setting(value: object) -> object:
    if pd.isna(value):
        return "default"
    return str(value).removesuffix(".0") if isinstance(value, float) else value  # whole, where others are missing


def save_rows(rows: pd.DataFrame, path: Path) -> list[Path]:
    """Write the rows as CSV and Parquet, `path` with either ending, each whole or not at all."""
    files = [path.with_name(f"{path.name}.{ending}") for ending in ("csv", "parquet")]
    with atomic_file(files[0]) as file:
        rows.to_csv(file, index=False)
    with atomic_file(files[1]) as file:
        rows.to_parquet(file, index=False)
    return files


def _read(path: Path) -> dict:
    if not path.is_file():
        raise NotFound(f"grid: there is no file {path}")
    try:
        return tomllib.loads(read_text(path, "grid"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"grid: {path} is not TOML ({error})") from error
