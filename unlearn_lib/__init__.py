"""Zero-shot class unlearning: a trained classifier forgets classes without any of the data it was trained on.

The face: every name that a notebook needs. A wing is loaded when one of its names is first asked for, so that figures
and panels cost nothing where nobody draws.
"""

import importlib

__version__ = "1.0.0"

_FACE = {
    "common": "check_forget fast_arithmetic folded NotFound pick_device show_log UserError",
    "networks": "find_head KarpathyNet LeNet5 make_model open_run Run runs_root split splittable_layers",
    "zeroshot": """
        carry_over deep_layer default_layer diagnose distill_loss draw follow_impression Impressions inner_layers
        make_impressions mask PUBLISHED responsive_layers retain_mass_loss statistics_distance Switches
        ZeroShotUnlearner
    """,
    "data": "Data load_data logits_of parse_classes Split",
    "training": "fit",
    "evaluation": "answers_of confusion_of evaluate score table",
    "auditing": """
        agreement ain audit audit_run audit_table features_of js_divergence membership misplaced moved probe
        probe_forget relearn_curve relearn_time trained_seeds verdict zrf
    """,
    "experiment": "Experiment experiment_of",
    "presets": "describe_preset from_preset lab_grid lab_run PRESETS",
    "sweep": "leaderboard run_sweep",
    "figures": """
        class_changes plot_changes plot_confusions plot_cost plot_frontier plot_growth plot_histograms
        plot_history plot_impressions plot_lab plot_leaderboard plot_losers plot_losses plot_per_class plot_pictures
        plot_recipes plot_relearning plot_responsive plot_scaling plot_walk save_figure
    """,
    "panels": """
        comparison_panel ComparisonPanel impression_explorer ImpressionExplorer lab_panel LabPanel Stopped
        unlearning_panel UnlearningPanel
    """,
}
_WING = {name: wing for wing, names in _FACE.items() for name in names.split()}
__all__ = [*_WING]


def __getattr__(name: str):
    if name not in _WING:
        raise AttributeError(f"unlearn_lib has no {name!r}")
    globals()[name] = getattr(importlib.import_module(f"unlearn_lib.{_WING[name]}"), name)
    return globals()[name]


def __dir__() -> list[str]:
    return __all__
