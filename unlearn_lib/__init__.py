"""Zero-shot class unlearning: a trained classifier forgets classes without any of the data it was trained on.

The face: every name that a notebook needs. A wing is loaded when one of its names is first asked for, so that figures
and panels cost nothing where nobody draws.
"""

import importlib
import os
import sys

# OpenMP's threads spin for milliseconds while they wait for each other. On a busy machine they wait for a thread that
# does not run, and training is up to a hundred times slower. So they sleep there, and spin briefly on an idle one.
# OpenMP reads this when torch is loaded. tests/benchmarks/bench_busy.py measures it.
if "torch" not in sys.modules and not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    if hasattr(os, "getloadavg") and os.getloadavg()[0] <= os.cpu_count():
        os.environ["GOMP_SPINCOUNT"] = "4000"  # 0.1 to 0.2 ms in GNU's OpenMP, which PyTorch has on Linux

__version__ = "1.0.0"

_FACE = {
    "common": "check_forget fast_arithmetic fold_result NotFound pick_device show_log UserError",
    "networks": "find_head KarpathyNet LeNet5 make_model open_run Run runs_root split splittable_layers",
    "zeroshot": """
        carry_over deep_layer default_layer diagnose distill_loss draw_pictures follow_impression Impressions
        inner_layers make_impressions mask PUBLISHED responsive_layers retain_mass_loss statistics_distance
        Switches ZeroShotUnlearner
    """,
    "data": "Data load_data predict_logits parse_classes Split",
    "training": "fit",
    "evaluation": "predict_classes confusion_matrix evaluate score table",
    "auditing": """
        agreement anamnesis_index audit audit_run audit_table extract_features js_divergence membership
        misplaced_answers weight_changes linear_probe probe_forget_classes relearn_curve relearn_time
        trained_seeds verdict zrf
    """,
    "experiment": "Experiment open_experiment",
    "presets": "describe_preset from_preset lab_grid lab_run PRESETS",
    "sweep": "leaderboard run_sweep",
    "figures": """
        class_changes plot_changes plot_confusions plot_cost plot_frontier plot_growth plot_histograms
        plot_history plot_impressions plot_lab plot_leaderboard plot_losers plot_losses plot_per_class
        plot_pictures plot_recipes plot_relearning plot_responsive plot_scaling plot_walk save_figure
    """,
    "panels": """
        comparison_panel ComparisonPanel impression_explorer ImpressionExplorer lab_panel LabPanel Stopped
        unlearning_panel UnlearningPanel
    """,
}
_OLD_NAMES = {
    "folded": "fold_result",
    "draw": "draw_pictures",
    "logits_of": "predict_logits",
    "answers_of": "predict_classes",
    "confusion_of": "confusion_matrix",
    "ain": "anamnesis_index",
    "features_of": "extract_features",
    "misplaced": "misplaced_answers",
    "moved": "weight_changes",
    "probe": "linear_probe",
    "probe_forget": "probe_forget_classes",
    "experiment_of": "open_experiment",
}
_WING = {name: wing for wing, names in _FACE.items() for name in names.split()}
__all__ = [*_WING]


def __getattr__(name: str):
    current = _OLD_NAMES.get(name, name)
    if current not in _WING:
        raise AttributeError(f"unlearn_lib has no {name!r}")
    globals()[name] = getattr(importlib.import_module(f"unlearn_lib.{_WING[current]}"), current)
    return globals()[name]


def __dir__() -> list[str]:
    return __all__
