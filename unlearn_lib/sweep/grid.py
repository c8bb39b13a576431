"""The grid of a sweep: which points it has, and how they compare once they are made."""

import itertools
import json
import tomllib
from dataclasses import fields
from numbers import Number
from pathlib import Path

import pandas as pd

from unlearn_lib.common import NotFound, UserError, read_text
from unlearn_lib.experiment import Experiment
from unlearn_lib.store import atomic_file
from unlearn_lib.zeroshot import Unlearning

NAMED = ("model", "data", "forget", "method", "seed")  # are part of a run's name anyway
PLACE = {"device", "data_root", "runs_root", "version", "force"}  # the same for all points, given with the grid
TRAINING = {field.name for field in fields(Experiment)} - PLACE - {"forget"}
UNLEARNING = {field.name for field in fields(Unlearning)} - {"method"}
KEYS = TRAINING | UNLEARNING | {"forget", "method"}


def expand_grid(grid: str | Path | dict | list[dict]) -> list[dict]:
    """Return the points of a grid, each once, in its order.

    Args:
        grid: a TOML file or its content: lists by the names of `Experiment`'s and `Unlearning`'s fields; tables under
            `grid` make a union.

    Raises:
        UserError: the grid is not one, in a sentence.
    """
    if isinstance(grid, str | Path):
        grid = _read(Path(grid))
    common = {"grid": grid} if isinstance(grid, list) else dict(grid)
    tables = common.pop("grid", [{}])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UserError(f"grid: got grid = {tables!r}; expected tables, each under a line [[grid]]")
    points = {}
    for table in tables:
        lists = {name: _check_values(name, values) for name, values in {**common, **table}.items()}
        if absent := [name for name in ("model", "data", "forget") if name not in lists]:
            raise UserError(f"grid: no {absent[0]} given; expected model, data and forget")
        for chosen in itertools.product(*lists.values()):
            point = dict(zip(lists, chosen, strict=True))
            same = point | {"forget": sorted(point["forget"], key=str)}  # the order of the classes does not matter
            points.setdefault(json.dumps(same, sort_keys=True), point)
    return list(points.values())


def _check_values(name: str, values: object) -> list:
    """Return the values of one key as plain JSON values. Raises UserError where they are not a list of such."""
    if name not in KEYS:
        raise UserError(f"grid: got {name!r}; expected {', '.join(sorted(KEYS))}")
    if not isinstance(values, list | tuple | range) or not len(values):
        raise UserError(f"grid: got {name} = {values!r}; expected a list, such as [{values!r}]")
    if name != "forget":
        return [_plain(name, value) for value in values]
    if not all(isinstance(value, list | tuple | range) for value in values):
        raise UserError(f"grid: got forget = {values!r}; expected a list of lists, such as [[0], [1, 2]]")
    return [[_plain(name, each) for each in value] for value in values]


def _plain(name: str, value: object) -> str | int | float | bool:
    """Return a grid's value as JSON has it: NumPy's numbers and paths are converted."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, Path):
        return str(value)
    if not isinstance(value, str | bool | Number):
        raise UserError(f"grid: got {value!r} in {name}; expected texts, numbers, true or false")
    return value


def leaderboard(rows: pd.DataFrame, metric: str = "unlearned_forget_accuracy") -> pd.DataFrame:
    """Return retain accuracy and a metric of every setting: means over forget sets, then mean and std over seeds.

    Settings are model, data, method and every other key of the grid whose values differ; "default" stands where a point
    gives none. A metric that one of a setting's points lacks has no mean.

    Returns:
        Columns RA, golden (its RA), the metric, the std of each (`RA_std`), the number n of points; the best RA first.

    Raises:
        UserError: all points failed, or the metric is not a column of numbers.

    Example:
        >>> leaderboard(run_sweep("grid.toml"))
    """
    good = rows[rows["status"] != "failed"].drop_duplicates("run")  # classes by name and by index are one run
    if good.empty:
        raise UserError(f"sweep: all {len(rows)} points failed; the first one: {rows['error'].iloc[0]}")
    if metric not in good or not pd.api.types.is_numeric_dtype(good[metric]):
        known = [name for name in good.select_dtypes("number") if "_" in name]
        raise UserError(f"metric: got {metric!r}; expected {', '.join(known)}")
    others = [name for name in good if name in KEYS - {*NAMED}]
    good[others] = good[others].map(_setting)
    settings = ["model", "data", "method", *(name for name in others if good[name].nunique() > 1)]
    wanted = {"RA": "unlearned_retain_accuracy", "golden": "golden_retain_accuracy", metric: metric}
    groups = good.groupby([*settings, "seed"])
    means = {name: groups[column].agg(_mean) for name, column in wanted.items() if column in good}
    over_seeds = pd.DataFrame(means).groupby(settings)
    board = over_seeds.agg(_mean).join(over_seeds.agg(_std).add_suffix("_std"))
    return board.assign(n=good.groupby(settings).size()).sort_values("RA", ascending=False)


def _mean(values: pd.Series) -> float:
    return values.mean(skipna=False)


def _std(values: pd.Series) -> float:
    return values.std(skipna=False)


def _setting(value: object) -> object:
    if pd.isna(value):
        return "default"
    return str(value).removesuffix(".0") if isinstance(value, float) else value  # whole, where others are missing


def save_rows(rows: pd.DataFrame, path: Path) -> list[Path]:
    """Write the rows as CSV and Parquet, `path` with either ending; each file is atomic. Return the two paths."""
    mixed = [name for name in rows if rows[name].dtype == object]  # Parquet knows one kind of values a column
    rows = rows.assign(**{name: rows[name].map(str, na_action="ignore") for name in mixed})
    files = [path.with_name(f"{path.name}.{ending}") for ending in ("csv", "parquet")]
    for file, write in zip(files, (rows.to_csv, rows.to_parquet), strict=True):
        with atomic_file(file) as scratch:
            write(scratch, index=False)
    return files


def _read(path: Path) -> dict:
    if not path.is_file():
        raise NotFound(f"grid: there is no file {path}")
    try:
        return tomllib.loads(read_text(path, "grid"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"grid: {path} is not TOML ({error})") from error
