"""Auditing: is the knowledge gone, or only the answer?"""

from unlearn_lib.auditing.metrics import (
    agreement,
    ain,
    audit,
    features_of,
    js_divergence,
    membership,
    misplaced,
    moved,
    probe,
    probe_forget,
    relearn_curve,
    relearn_time,
    zrf,
)
from unlearn_lib.auditing.verdict import audit_run, audit_table, trained_seeds, verdict
