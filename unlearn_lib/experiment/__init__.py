"""Experiment: the whole story of one model, each step kept in a run folder and not done again."""

from unlearn_lib.experiment.steps import comparison_table, unlearned_place, usual_layer
from unlearn_lib.experiment.story import Experiment, open_experiment
