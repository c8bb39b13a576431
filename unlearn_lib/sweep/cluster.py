"""A sweep on the workers of Dask distributed: what several points share is a task of its own, and runs first.

What a killed worker had in hand is given to another, which continues from what lies in the run folders.
"""

import logging
import os
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch

from unlearn_lib import networks
from unlearn_lib.common import UserError, check_number, count_threads, log, progress, redirect_progress
from unlearn_lib.sweep.grid import expand_grid
from unlearn_lib.sweep.points import Place, band_seeds, failed_row, find_row, make_row, train_point, training_key

DEATHS = 10  # of workers, after which the task is held to be the cause
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
    """Make every missing point of a grid; return one row a point, with all numbers of its metrics.json.

    Args:
        grid: a TOML file, or its content: lists by the names of `run`'s options, tables `grid` for unions.
        client: a Dask `Client`. scheduler: the address of a scheduler. Without both there are `workers` local
            processes, bound to the loopback address, which share the cores.
        audit: audit every point; golden's band is over the grid's seeds.

    Raises:
        UserError: the grid is not one. A point that fails is a row whose `error` is its sentence.

    Example:
        >>> rows = run_sweep({"model": ["lenet5"], "data": ["digits"], "forget": [[0], [1]], "seed": [0, 1]})
    """
    points = expand_grid(grid)
    workers = check_number("workers", workers or os.cpu_count() or 1, whole=True, least=1)
    data_root = data_root or os.environ.get("UNLEARN_DATA")
    place = Place(
        data_root=data_root and str(Path(data_root).expanduser().resolve()),
        runs_root=str(networks.runs_root(runs_root).resolve()),
        device=device,
        version=version,
        audit=audit,
        name=uuid.uuid4().hex,
    )
    bands = [band_seeds(point, points) if audit else [point.get("seed", 0)] for point in points]
    checked: set = set()
    rows = [find_row(place, point, seeds, checked) for point, seeds in zip(points, bands, strict=True)]
    missing = [i for i, row in enumerate(rows) if row is None]
    there = sum(row is not None and row["status"] == "there" for row in rows)
    log.info("sweep: %d points, %d of them there already", len(points), there)
    if missing:
        with _connect(client, scheduler, min(workers, len(missing))) as client:
            for i, row in _compute(place, client, points, bands, missing):
                rows[i] = row
    if failed := sum(row["status"] == "failed" for row in rows):
        log.warning("sweep: %d of %d points failed; the column `error` says why", failed, len(points))
    return pd.DataFrame(rows)


def _compute(
    place: Place, client, points: list[dict], bands: list[list[int]], missing: list[int]
) -> Iterator[tuple[int, dict]]:
    """Yield the rows of missing points: shared trainings run first, and once, then the points that need them."""
    from distributed import as_completed

    shares = _share_cores(client)
    trainings = {}

    def submit_training(kind: str, point: dict, seed: int):
        point = {**point, "seed": seed}
        key = training_key(point, point["forget"] if kind == "golden" else ())
        if key not in trainings:
            name = f"{kind}-{len(trainings)}-{place.name}"  # Dask's pages group tasks by what stands before the dash
            trainings[key] = client.submit(_train, shares, place, point, kind, key=name, priority=1, pure=False)
        return trainings[key]

    futures = {}
    for i in missing:
        needed = [submit_training(kind, points[i], seed) for kind in ("original", "golden") for seed in bands[i]]
        name = f"point-{i}-{place.name}"
        futures[client.submit(_make, shares, place, points[i], bands[i], *needed, key=name, pure=False)] = i
    log.info("sweep: %d trainings, %d points; dashboard: %s", len(trainings), len(missing), client.dashboard_link)
    done = as_completed([*trainings.values(), *futures], loop=client.loop)
    for future in progress(done, "sweep", len(trainings) + len(futures)):
        i = futures.pop(future, None)  # the result is released: it need not be made again if its worker dies
        if i is not None:
            error = future.exception()  # its workers died again and again
            yield i, failed_row(points[i], f"{type(error).__name__}: {error}") if error else future.result()


@contextmanager
def _connect(client, scheduler: str | None, workers: int) -> Iterator:
    """Yield a client of Dask: the given one, that of a scheduler's address, or that of new local processes."""
    import dask
    from distributed import Client, LocalCluster

    if client is not None:
        yield client
    elif scheduler is not None:
        try:
            client = Client(scheduler, timeout=WAIT, set_as_default=False)
            client.wait_for_workers(1, timeout=60)
        except (OSError, ValueError) as error:
            raise UserError(f"scheduler: got {scheduler}, where no scheduler with workers answers") from error
        with client:
            yield client
    else:
        settings = {
            "distributed.scheduler.allowed-failures": DEATHS,
            # Dask has malloc return all memory at once, which makes a small convolution four times slower
            "distributed.nanny.pre-spawn-environ": {},
        }
        with (
            dask.config.set(settings),
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                memory_limit=0,
                silence_logs=logging.CRITICAL,
                host="127.0.0.1",  # nobody else may send code to run
                dashboard_address="127.0.0.1:0",
                local_directory=folder,
            ) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client


def _share_cores(client) -> dict[str, int]:
    """Return how many tasks run at a time, by host."""
    from distributed.comm import get_address_host

    tasks = Counter()
    for address, worker in client.scheduler_info(n_workers=-1)["workers"].items():
        tasks[get_address_host(address)] += worker["nthreads"]
    return dict(tasks)


@contextmanager
def _task(shares: dict[str, int]) -> Iterator[None]:
    """Give a task its share of the worker's cores, and no progress bar."""
    from distributed import get_worker
    from distributed.comm import get_address_host

    tasks = shares.get(get_address_host(get_worker().address), 1)
    share = max(1, (os.cpu_count() or 1) // tasks)
    torch.set_num_threads(min(share, count_threads() or share))
    with redirect_progress(lambda *_: None):
        yield


def _train(shares: dict[str, int], place: Place, point: dict, kind: str) -> str | None:
    with _task(shares):
        return train_point(place, point, kind)


def _make(shares: dict[str, int], place: Place, point: dict, seeds: list[int], *problems: str | None) -> dict:
    """Return the row of a point whose networks have been trained, or could not be."""
    problem = next(filter(None, problems), None)
    if problem is not None:
        return failed_row(point, problem)
    with _task(shares):
        return make_row(place, point, seeds)
