"""Auditing: is the knowledge gone, or only the answer?

Metrics compare networks, attacks look for what is left, the verdict holds both against golden networks of more seeds.
"""

from unlearn_lib.auditing.attacks import (
    LIMIT,
    anamnesis_index,
    audit,
    extract_features,
    linear_probe,
    membership,
    membership_forget,
    probe_forget_classes,
    relearn_curve,
    relearn_time,
)
from unlearn_lib.auditing.metrics import agreement, js_divergence, misplaced_answers, weight_changes, zrf
from unlearn_lib.auditing.verdict import audit_run, audit_table, golden_band, trained_seeds, verdict
