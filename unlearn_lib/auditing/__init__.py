"""Auditing: is the knowledge gone, or only the answer?

Metrics compare networks, attacks look for what is left, the verdict holds both against golden networks of more seeds.
"""

from unlearn_lib.auditing.attacks import (
    LIMIT,
    ain,
    audit,
    features_of,
    membership,
    membership_forget,
    probe,
    probe_forget,
    relearn_curve,
    relearn_time,
)
from unlearn_lib.auditing.metrics import agreement, js_divergence, misplaced, moved, zrf
from unlearn_lib.auditing.verdict import audit_run, audit_table, band_of, trained_seeds, verdict
