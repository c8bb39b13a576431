"""What the tests share: how they are spread over processes, and a LeNet5 that is trained once for all of them."""

import os
import shutil
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; kernels and shells inherit it
os.environ["UNLEARN_PROGRESS"] = "0"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # tests compare bits, and a GPU's are others

import hypothesis
import matplotlib
import pytest
from filelock import FileLock

matplotlib.use("Agg", force=True)

import unlearn_lib  # loads torch when a name is asked for, which the process that hands out the files never does

FORGET = [1, 2, 3, 4]
HEAVIEST = """
    03_class_impressions 09_a_network_that_imagenet_trained 06_is_it_forgotten 10_deep_forgetting test_browser
    07_lab_the_published_unlearner 08_your_own_model_and_pictures test_shell test_notebooks test_torchvision
    test_sweep test_weights test_verdict test_unlearning_panel test_impressions 01_train_lenet5_karpathynet
    02_golden_models 05_compare_models test_imagenet test_deep test_invalid_input test_survival test_run_folders
""".split()  # begin first, in this order, so that no process ends long after the others or waits for another's training

hypothesis.settings.register_profile(
    "patient",  # how long an example takes depends on what else the machine does
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("patient")


def pytest_xdist_auto_num_workers(config):
    """A process a core, at most four, for whole folders; files that are named run in this one."""
    folders = any(Path(given.partition("::")[0]).is_dir() for given in config.args)
    return min(os.cpu_count() or 1, 4) if folders else 0


def pytest_collection_modifyitems(items):
    place = {name: i for i, name in enumerate(HEAVIEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))
    if not os.environ.get("CI_FULL"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: runs with CI_FULL=1"))


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A runs folder of this process's own."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def experiment(runs, tmp_path_factory):
    """LeNet5 on digits, original and golden: trained once, by the process that comes first, copied by the others."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "trained"
    with FileLock(f"{shared}.lock"):
        first = lenet5(shared)
        first.train()
        first.golden()
    for path in shared.glob("lenet5-*"):
        shutil.copytree(path, runs / path.name)
    return lenet5(runs)


def lenet5(root):
    return unlearn_lib.Experiment("lenet5", "digits", forget=FORGET, train_epochs=12, runs_root=root)


@pytest.fixture(scope="session")
def digits(experiment):
    return experiment.dataset


@pytest.fixture
def model(experiment):
    return experiment.load(experiment.original())


@pytest.fixture(scope="session")
def impressions(experiment):
    return unlearn_lib.make_impressions(experiment.load(experiment.original()), samples=40)
