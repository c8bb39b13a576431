"""Experiment: one specification, and the one path from it to finished runs."""

from unlearn_lib.experiment.experiment import Experiment, open_experiment
from unlearn_lib.experiment.steps import Stopped, Unlearned, comparison_table
