"""Figures: what people look at."""

from unlearn_lib.figures.audit import plot_frontier, plot_lab, plot_relearning, plot_walk
from unlearn_lib.figures.classes import (
    MANY,
    class_changes,
    plot_changes,
    plot_confusions,
    plot_histograms,
    plot_losers,
    plot_per_class,
)
from unlearn_lib.figures.impressions import (
    as_picture,
    plot_growth,
    plot_growth_curves,
    plot_impressions,
    plot_pictures,
    plot_recipes,
)
from unlearn_lib.figures.networks import fit_cost, plot_cost, plot_history, plot_losses, plot_responsive, plot_scaling
from unlearn_lib.figures.runs import result_figures, training_figures
from unlearn_lib.figures.style import save_figure
from unlearn_lib.figures.sweeps import plot_leaderboard
