"""Notebooks under test keep their runs and figures in a folder of the session's own, which all its processes share."""

import os
import shutil
import tempfile


def pytest_configure(config):
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # it has inherited all this
    scratch = tempfile.mkdtemp(prefix="unlearn-")
    config.add_cleanup(lambda: shutil.rmtree(scratch, ignore_errors=True))
    os.environ.setdefault("UNLEARN_RUNS", f"{scratch}/runs")
    os.environ["UNLEARN_FIGURES"] = f"{scratch}/figures"
    os.environ["UNLEARN_PROGRESS"] = "0"
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # what is shown was made on the CPU
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a kernel a core
