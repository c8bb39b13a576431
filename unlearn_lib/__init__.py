"""Zero-shot class unlearning: a trained classifier forgets classes without any of the data it was trained on.

The names below, in the order of the story, are the face; `unlearn_lib.<wing>` has the rest, such as
`from unlearn_lib.figures import plot_changes`. A wing is imported when one of its names is used for the first time, so
that figures and panels cost nothing where nobody draws.
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
    "load_data": "data",
    "Data": "data",
    "Split": "data",
    "LeNet5": "networks",
    "KarpathyNet": "networks",
    "make_model": "networks",
    "split": "networks",
    "find_head": "networks",
    "splittable_layers": "networks",
    "fit": "training",
    "make_impressions": "zeroshot",
    "Impressions": "zeroshot",
    "diagnose": "zeroshot",
    "responsive_layers": "zeroshot",
    "METHODS": "zeroshot",
    "Unlearning": "zeroshot",
    "ZeroShotUnlearner": "zeroshot",
    "mask": "zeroshot",
    "carry_over": "zeroshot",
    "evaluate": "evaluation",
    "score": "evaluation",
    "table": "evaluation",
    "Experiment": "experiment",
    "open_experiment": "experiment",
    "open_run": "networks",
    "Run": "networks",
    "PRESETS": "presets",
    "from_preset": "presets",
    "describe_preset": "presets",
    "audit_run": "auditing",
    "audit_table": "auditing",
    "run_sweep": "sweep",
    "leaderboard": "sweep",
    "plot_per_class": "figures",
    "save_figure": "figures",
    "unlearning_panel": "panels",
    "comparison_panel": "panels",
    "impression_explorer": "panels",
    "show_log": "common",
    "UserError": "common",
}
__all__ = [*_FACE]

_UNLISTED = {  # names that stood here once; importable still
    "common": "check_forget fast_arithmetic fold_result NotFound pick_device",
    "networks": "runs_root",
    "zeroshot": """
        deep_layer default_layer distill_loss draw_pictures follow_impression inner_layers PUBLISHED retain_mass_loss
        statistics_distance Switches
    """,
    "data": "parse_classes predict_logits",
    "evaluation": "confusion_matrix predict_classes",
    "auditing": """
        agreement anamnesis_index audit extract_features js_divergence linear_probe membership misplaced_answers
        probe_forget_classes relearn_curve relearn_time trained_seeds verdict weight_changes zrf
    """,
    "presets": "lab_grid lab_run",
    "figures": """
        class_changes plot_changes plot_confusions plot_cost plot_frontier plot_growth plot_histograms plot_history
        plot_impressions plot_lab plot_leaderboard plot_losers plot_losses plot_pictures plot_recipes plot_relearning
        plot_responsive plot_scaling plot_walk
    """,
    "panels": "ComparisonPanel ImpressionExplorer lab_panel LabPanel Stopped UnlearningPanel",
}
_WINGS = _FACE | {name: wing for wing, names in _UNLISTED.items() for name in names.split()}
_OLD_NAMES = {  # names before they said what they do
    "ain": "anamnesis_index",
    "answers_of": "predict_classes",
    "confusion_of": "confusion_matrix",
    "draw": "draw_pictures",
    "experiment_of": "open_experiment",
    "features_of": "extract_features",
    "folded": "fold_result",
    "logits_of": "predict_logits",
    "misplaced": "misplaced_answers",
    "moved": "weight_changes",
    "probe": "linear_probe",
    "probe_forget": "probe_forget_classes",
}


def __getattr__(name: str):
    current = _OLD_NAMES.get(name, name)
    if current not in _WINGS:
        raise AttributeError(f"unlearn_lib has no {name!r}")
    globals()[name] = getattr(importlib.import_module(f"unlearn_lib.{_WINGS[current]}"), current)
    return globals()[name]


def __dir__() -> list[str]:
    return __all__
