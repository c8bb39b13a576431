"""Notebooks under test keep their runs and figures in a folder of the session's own, and draw no bars."""

import os
import shutil
import tempfile


def pytest_configure(config):
    scratch = tempfile.mkdtemp(prefix="unlearn-")
    config.add_cleanup(lambda: shutil.rmtree(scratch, ignore_errors=True))
    os.environ.setdefault("UNLEARN_RUNS", f"{scratch}/runs")
    os.environ["UNLEARN_FIGURES"] = f"{scratch}/figures"
    os.environ["UNLEARN_PROGRESS"] = "0"
