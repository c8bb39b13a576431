"""Sweeps: every point of a grid as `run` makes it, on Dask's workers."""

from unlearn_lib.sweep.cluster import run_sweep, sweep_step
from unlearn_lib.sweep.grid import expand_grid, leaderboard, save_rows
