"""Sweeps: every point of a grid is a specification, mapped over Dask's workers."""

from unlearn_lib.sweep.cluster import run_sweep
from unlearn_lib.sweep.grid import expand_grid, leaderboard, save_rows
