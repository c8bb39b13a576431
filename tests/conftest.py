"""What the tests share: a LeNet5 trained on the embedded digits, once a session, in a folder of its own."""

import os

import matplotlib
import pytest

os.environ["UNLEARN_PROGRESS"] = "0"
matplotlib.use("Agg", force=True)

from unlearn_lib import Experiment, make_impressions

FORGET = [1, 2, 3, 4]


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def lab(runs):
    """LeNet5 on digits, original and golden trained."""
    lab = Experiment("lenet5", "digits", forget=FORGET, train_epochs=12, runs_root=runs, say=lambda sentence: None)
    lab.train()
    lab.golden()
    return lab


@pytest.fixture(scope="session")
def digits(lab):
    return lab.dataset


@pytest.fixture
def model(lab):
    return lab.load(lab.original())


@pytest.fixture(scope="session")
def impressions(lab):
    return make_impressions(lab.load(lab.original()), samples=40)
