"""A sweep on the workers of Dask distributed: what several points share comes first, and once.

What a killed worker had in hand is given to another, which goes on from what lies in the run folders.
"""

import logging
import os
import tempfile
import uuid
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from unlearn_lib import networks
from unlearn_lib.common import UserError, log, progress, redirect_progress
from unlearn_lib.sweep.grid import expand_grid, leaderboard, save_rows
from unlearn_lib.sweep.points import (
    Sweep,
    band_seeds,
    failed_row,
    forget_labs,
    is_trained,
    make_row,
    train,
    training_key,
)

DEATHS = 10  # of workers, until the task is held to be the cause
WAIT = 20  # seconds for a scheduler to answer


def run_sweep(
    grid: str | Path | dict | list[dict],
    *,
    client=None,
    scheduler: str | None = None,
    workers: int | None = None,
    audit: bool = False,
    data_root: str | Path | None = None,
    runs_root: str | Path | None = None,
    device: str | None = None,
    version: str | None = None,
) -> pd.DataFrame:
    """Make every point of a grid that is not there yet; one row a point, with all numbers of its metrics.json.

    grid: a TOML file, or what it would hold: lists by the names of `run`'s arguments, tables `grid` for unions. client:
    a Dask `Client`; scheduler: the address of a scheduler; else there are `workers` local processes, bound to the
    loopback address, between which the cores are shared out. audit: audit every point, golden's band over the grid's
    seeds. A point that fails is a row whose `error` is its sentence. Raises UserError for a grid that is none.
    """
    points, data_root = expand_grid(grid), data_root or os.environ.get("UNLEARN_DATA")
    place = {"device": device, "version": version, "runs_root": str(networks.runs_root(runs_root).resolve())}
    place["data_root"] = data_root and str(Path(data_root).expanduser().resolve())
    threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
    sweep = Sweep(tuple(place.items()), audit, threads, name=uuid.uuid4().hex)
    bands = [band_seeds(point, points) if audit else [point.get("seed", 0)] for point in points]
    rows = {i: row for i, point in enumerate(points) if (row := make_row(sweep, point, bands[i]))}
    missing = [i for i in range(len(points)) if i not in rows]
    log.info("sweep: %d points, %d of them there already", len(points), len(rows))
    if missing:
        workers = min(workers or os.cpu_count() or 1, len(missing))
        with _connected(client, scheduler, workers) as client:
            rows |= _computed(sweep, client, points, bands, missing)
    if failed := sum(row["status"] == "failed" for row in rows.values()):
        log.warning("sweep: %d of %d points failed; the column `error` says why", failed, len(points))
    forget_labs()
    return pd.DataFrame([rows[i] for i in range(len(points))])


def sweep_step(args: Namespace, draw: Callable) -> None:
    """The shell's step: sweep, keep the tables below the runs, draw where that is asked for, print the leaderboard."""
    if args.force:
        raise UserError("force: a sweep makes no run anew; --version-name makes new ones beside those that there are")
    place = {name: getattr(args, name) for name in ("data_root", "runs_root", "device", "version")}
    rows = run_sweep(args.grid, scheduler=args.scheduler, workers=args.workers, audit=args.audit, **place)
    path = networks.runs_root(args.runs_root) / "sweeps" / Path(args.grid).stem
    log.info("tables: %s and %s", *save_rows(rows, path))
    board = leaderboard(rows, args.metric)
    if args.figure:
        log.info("figure: %s", draw(board, f"{path.name}: {len(rows)} points", path))
    print(rows.to_json(orient="records") if args.json else f"\n{board.to_string(float_format='{:.4f}'.format)}")


def _computed(sweep: Sweep, client, points: list[dict], bands: list[list[int]], missing: list[int]) -> dict[int, dict]:
    """The rows of the points that are not there: shared trainings first, and once, then all that needs them."""
    from distributed import as_completed
    from distributed.comm import get_address_host

    workers = client.scheduler_info(n_workers=-1)["workers"]
    slots = Counter()
    for address, worker in workers.items():
        slots[get_address_host(address)] += worker["nthreads"]
    here, trained, futures, rows = sweep, {}, {}, {}
    sweep = replace(sweep, slots=tuple(slots.items()))

    def training(kind: str, point: dict, seed: int):
        forget = point["forget"] if kind == "golden" else []
        key = training_key({**point, "seed": seed}, forget)
        if key not in trained and not is_trained(here, key):
            name = f"{kind}-{len(trained)}-{sweep.name}"  # Dask's pages group tasks by what stands before the dash
            trained[key] = client.submit(_train, sweep, key, key=name, priority=1, pure=False)
        return trained.get(key)

    for i in missing:
        needed = [training(kind, points[i], seed) for kind in ("original", "golden") for seed in bands[i]]
        numbers = {"key": f"point-{i}-{sweep.name}", "pure": False}
        futures[client.submit(_point, sweep, points[i], bands[i], *filter(None, needed), **numbers)] = i
    log.info("sweep: %d trainings, %d points; dashboard: %s", len(trained), len(missing), client.dashboard_link)
    done = as_completed([*trained.values(), *futures], loop=client.loop)
    for future in progress(done, "sweep", len(trained) + len(futures)):
        if (i := futures.pop(future, None)) is not None:  # a row that has come is wanted no more, if its worker dies
            error = future.exception()  # its workers died again and again
            rows[i] = failed_row(points[i], f"{type(error).__name__}: {error}") if error else future.result()
    return rows


@contextmanager
def _connected(client, scheduler: str | None, workers: int) -> Iterator:
    """A client of Dask: the given one, that of a scheduler's address, or that of worker processes of our own."""
    import dask
    from distributed import Client, LocalCluster

    if client is not None:
        yield client
    elif scheduler is not None:
        try:
            client = Client(scheduler, timeout=WAIT, set_as_default=False)
            client.wait_for_workers(1, timeout=60)
        except (OSError, ValueError) as error:
            raise UserError(f"scheduler: {scheduler} given, where no scheduler with workers answers") from error
        with client:
            yield client
    else:
        numbers = {"n_workers": workers, "threads_per_worker": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
        numbers |= {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}  # nobody else may send code to run
        settings = {"distributed.scheduler.allowed-failures": DEATHS}
        # Dask has its workers' malloc give back all memory at once; a small convolution takes four times as long then
        settings["distributed.nanny.pre-spawn-environ"] = {}
        with (
            dask.config.set(settings),
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            LocalCluster(**numbers, local_directory=folder) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client


@contextmanager
def _at_work(sweep: Sweep) -> Iterator[None]:
    """A worker's share of the cores, and no bar of its own."""
    from distributed import get_worker
    from distributed.comm import get_address_host

    tasks = dict(sweep.slots).get(get_address_host(get_worker().address), 1)
    share = max(1, (os.cpu_count() or 1) // tasks)
    torch.set_num_threads(min(share, sweep.threads or share))
    with redirect_progress(lambda *_: None):
        yield


def _train(sweep: Sweep, key: str) -> str | None:
    with _at_work(sweep):
        return train(sweep, key)


def _point(sweep: Sweep, point: dict, seeds: list[int], *troubles: str | None) -> dict:
    """The row of a point whose networks have been trained, or could not be."""
    if trouble := next(filter(None, troubles), None):
        return failed_row(point, trouble)
    with _at_work(sweep):
        return make_row(sweep, point, seeds, make=True)
