"""A sweep makes every point once, what is shared before, and goes on whatever happens to a worker or a point."""

import datetime
import os
import signal
import threading
import time

import dask
import numpy as np
import pandas as pd
import psutil
import pytest
from distributed import Client
from distributed.utils import get_mp_context
from hypothesis import given
from hypothesis import strategies as st

from unlearn_lib import UserError, leaderboard, open_run, run_sweep
from unlearn_lib.__main__ import main
from unlearn_lib.figures import plot_leaderboard
from unlearn_lib.networks import amend_run, run_names
from unlearn_lib.sweep import expand_grid, save_rows
from unlearn_lib.sweep.cluster import _connect
from unlearn_lib.sweep.points import band_seeds

GRID = {"model": ["lenet5"], "data": ["digits"], "forget": [[0], [1, 2]], "train_epochs": [1], "seed": [0, 1]}
GRID |= {"method": ["mask", "neggrad+"], "samples": [10]}


@pytest.fixture(scope="module")
def client():
    """A client as a notebook has it; its one worker is a thread, which needs no second import of torch."""
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        yield client


@pytest.fixture(scope="module")
def swept(tmp_path_factory, client):
    """A sweep's folder and its rows."""
    root = tmp_path_factory.mktemp("swept")
    return root, run_sweep(GRID, client=client, runs_root=root)


@given(st.lists(st.integers(), min_size=1, unique=True), st.lists(st.floats(0.1, 1), min_size=1, unique=True))
def test_points_are_all_combinations_and_a_union_has_each_once(seeds, rates):
    grid = {"model": ["lenet5"], "data": ["digits"], "forget": [[0], [1]], "seed": seeds}
    union = grid | {"grid": [{"lr": rates}, {"lr": rates[:1]}]}
    points = expand_grid(union)
    assert len(points) == 2 * len(seeds) * len(rates)
    assert {(p["seed"], p["lr"]) for p in points} == {(seed, rate) for seed in seeds for rate in rates}


def test_the_same_classes_in_another_order_are_no_other_point():
    points = expand_grid(GRID | {"forget": [[1, 2], [2, 1], [2, 3]], "seed": [0], "method": ["mask"]})
    assert [point["forget"] for point in points] == [[1, 2], [2, 3]]


def test_golden_networks_of_the_same_classes_in_another_order_are_of_one_band():
    points = expand_grid(GRID | {"method": ["mask"], "grid": [{"seed": [0]}, {"seed": [1], "forget": [[2, 1]]}]})
    assert band_seeds(points[-1], points) == [0, 1]


def test_a_class_whose_name_is_a_number_is_another_than_that_of_this_index():
    assert [point["forget"] for point in expand_grid(GRID | {"forget": [["1"], [1]]})[::4]] == [["1"], [1]]


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"learning": [1]}, "grid: got 'learning'; expected"),
        ({"lr": 0.1}, "grid: got lr = 0.1; expected a list, such as [0.1]"),
        ({"seed": []}, "grid: got seed = []; expected a list"),
        ({"forget": [0, 1]}, "grid: got forget = [0, 1]; expected a list of lists"),
    ],
)
def test_a_grid_that_is_none_is_refused(change, sentence):
    with pytest.raises(UserError) as error:
        expand_grid(GRID | change)
    assert sentence in str(error.value)


@pytest.mark.parametrize("text, sentence", [("lr = ", "is not TOML"), ("lr = [1]", "no model given")])
def test_a_file_that_is_no_grid_is_refused(tmp_path, text, sentence):
    (tmp_path / "g.toml").write_text(text)
    with pytest.raises(UserError, match=sentence):
        expand_grid(tmp_path / "g.toml")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        expand_grid(tmp_path / "absent.toml")


def test_every_point_is_a_row_with_the_numbers_of_its_run(swept):
    root, rows = swept
    assert len(rows) == 8 and set(rows["status"]) == {"made"}
    for row in rows.to_dict("records"):
        metrics = open_run(root, row["run"]).metrics
        assert row["unlearned_retain_accuracy"] == metrics["unlearned"]["retain_accuracy"]
        assert row["golden_retain_accuracy"] == metrics["golden"]["retain_accuracy"]


def test_what_points_share_is_trained_once(swept):
    names = run_names(swept[0])
    assert sum("golden" in name for name in names) == 4
    assert sum("golden" not in name and "unlearned" not in name for name in names) == 2
    assert len(names) == 4 + 2 + 8


def test_points_that_are_there_are_seen_again_without_a_worker_and_more_of_them_are_added(swept, client):
    root, rows = swept
    again = run_sweep(GRID, scheduler="tcp://127.0.0.1:1", runs_root=root)  # where nobody answers
    assert set(again["status"]) == {"there"}
    same = [name for name in rows if name != "status"]
    pd.testing.assert_frame_equal(again[same], rows[same])
    more = run_sweep(GRID | {"method": ["mask"], "seed": [0, 1, 2]}, client=client, runs_root=root)
    assert more["status"].tolist().count("made") == 2


def test_a_point_of_every_method_is_seen_again(swept, client):
    grid = GRID | {"seed": [0], "forget": [[0]], "method": ["deep", "distill", "published"], "epochs": [1]}
    for status in ("made", "there"):
        assert set(run_sweep(grid, client=client, runs_root=swept[0])["status"]) == {status}


def test_a_run_of_the_shell_with_the_same_arguments_is_a_point_that_is_there(tmp_path):
    words = "run --model lenet5 --data digits --forget 0 --method mask --train-epochs 1 --version-name train_epochs1"
    assert main([*words.split(), "--runs-root", str(tmp_path)]) == 0
    grid = {"model": ["lenet5"], "data": ["digits"], "forget": [["0"]], "method": ["mask"], "train_epochs": [1]}
    assert run_sweep(grid, scheduler="tcp://127.0.0.1:1", runs_root=tmp_path)["status"].tolist() == ["there"]


def test_points_of_other_memory_for_their_impressions_are_other_runs(swept, client):
    grid = GRID | {"seed": [0], "forget": [[0]], "method": ["neggrad+"], "recipe": ["drawn"], "memory": [0.5, 512]}
    rows = run_sweep(grid, client=client, runs_root=swept[0])
    assert set(rows["status"]) == {"made"} and rows["run"].nunique() == 2
    assert sum("golden" not in name and "unlearned" not in name for name in run_names(swept[0])) <= 3  # no training


def test_a_point_whose_audit_has_not_all_seeds_of_the_grid_or_another_layer_is_audited_anew(swept, client, monkeypatch):
    asked = []

    def audit_run(experiment, run, seeds):
        asked.append(seeds)
        return amend_run(run, run.metrics | {"audit": {"seeds": seeds, "layer": "fc3"}})

    monkeypatch.setattr("unlearn_lib.sweep.points.audit_run", audit_run)
    grid = GRID | {"forget": [[0]], "method": ["mask"]}

    def sweep(seeds):
        return run_sweep(grid | {"seed": seeds}, client=client, runs_root=swept[0], audit=True)

    for seeds in ([0], [0, 1], [0, 1], [0]):
        rows = sweep(seeds)
    assert asked == [[0], [0, 1], [0, 1]]  # the first point, then both; what has more than is asked for is there
    run = open_run(swept[0], rows["run"].item())
    amend_run(run, run.metrics | {"audit": {"seeds": [0], "layer": "fc1"}})
    sweep([0])
    assert asked[3:] == [[0]]


def test_a_point_that_fails_is_a_row_with_its_sentence_and_the_others_go_on(swept, client):
    grid = GRID | {"method": ["mask", "nonsense"], "seed": [0], "forget": [[0], [77]]}
    rows = run_sweep(grid, client=client, runs_root=swept[0])
    assert rows["status"].tolist().count("failed") == 3
    assert rows.loc[rows["method"] == "nonsense", "error"].str.contains("method: got 'nonsense'").any()
    assert rows["error"].str.contains("77").sum() >= 1
    assert (rows["status"] == "there").sum() == 1


def test_a_training_that_fails_is_the_sentence_of_all_its_points(tmp_path, client):
    rows = run_sweep(GRID | {"train_lr": [1e6], "seed": [0]}, client=client, runs_root=tmp_path)
    assert set(rows["status"]) == {"failed"}
    assert rows["error"].str.startswith("lr: got 1e+06").all()


def test_the_leaderboard_has_means_over_forget_sets_and_spread_over_seeds(swept):
    rows = swept[1]
    board = leaderboard(rows, "carry_over_forget_mass")
    mask = rows[rows["method"] == "mask"].groupby("seed")["unlearned_retain_accuracy"].mean()
    assert board.loc[("lenet5", "digits", "mask"), "RA"] == pytest.approx(mask.mean())
    assert board.loc[("lenet5", "digits", "mask"), "RA_std"] == pytest.approx(mask.std())
    assert board["n"].tolist() == [4, 4]
    with pytest.raises(UserError, match="metric: got 'nonsense'; expected .*golden_retain_accuracy"):
        leaderboard(rows, "nonsense")


def test_points_that_say_nothing_of_a_setting_are_a_setting_of_their_own():
    common = {"model": "lenet5", "data": "digits", "seed": 0, "status": "made", "unlearned_forget_accuracy": 0.0}
    points = [{}, {"layer": "conv2", "epochs": 40}, {"layer": "conv2", "epochs": 20}, {"lr": 0.5}]
    shares = [{"method": "distill", "run": i, "unlearned_retain_accuracy": 0.9 - i / 10} for i in range(4)]
    board = leaderboard(pd.DataFrame([common | share | point for share, point in zip(shares, points, strict=True)]))
    assert board.index.names == ["model", "data", "method", "layer", "epochs", "lr"]
    assert [index[3:] for index in board.index] == [
        ("default", "default", "default"),
        ("conv2", "40", "default"),
        ("conv2", "20", "default"),
        ("default", "default", "0.5"),
    ]
    assert board["n"].tolist() == [1, 1, 1, 1]
    axis = plot_leaderboard(board, "unlearned_forget_accuracy", "title").axes[0]
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == ["distill", "distill, layer conv2, epochs 40", "distill, layer conv2, epochs 20", "distill, lr 0.5"]


def test_a_metric_that_one_seed_lacks_has_no_mean():
    row = {"model": "lenet5", "data": "digits", "method": "mask", "status": "made", "unlearned_retain_accuracy": 1.0}
    rows = pd.DataFrame([row | {"run": 0, "seed": 0, "relearn": 5.0}, row | {"run": 1, "seed": 1}])  # never relearned
    assert leaderboard(rows, "relearn")["relearn"].isna().all()
    assert leaderboard(rows, "relearn")["RA"].tolist() == [1.0]


def test_a_run_that_two_points_name_counts_once():
    row = {"model": "lenet5", "data": "digits", "method": "mask", "seed": 0, "status": "made"}
    runs = {"r1": ("one", 1.0), "r2": ("2", 0.4)}
    rows = [row | {"run": r, "forget": f, "unlearned_retain_accuracy": share} for r, (f, share) in runs.items()]
    board = leaderboard(pd.DataFrame([*rows, rows[0] | {"forget": "1"}]), "unlearned_retain_accuracy")
    assert (board["RA"].item(), board["n"].item()) == (pytest.approx(0.7), 2)


def test_the_shell_leaves_two_tables_and_a_figure(swept, tmp_path, capsys):
    (tmp_path / "mine.toml").write_text(
        'model = ["lenet5"]\ndata = ["digits"]\nforget = [[0]]\ntrain_epochs = [1]\nsamples = [10]\nseed = [0, 1]\n'
        '[[grid]]\nmethod = ["mask"]\n[[grid]]\nmethod = ["neggrad+"]\n'
    )
    assert main(["sweep", str(tmp_path / "mine.toml"), "--figure", "--runs-root", str(swept[0])]) == 0
    folder = swept[0] / "sweeps"
    assert {path.suffix for path in folder.iterdir()} == {".csv", ".parquet", ".png"}
    table, parquet = pd.read_csv(*folder.glob("mine-*.csv")), pd.read_parquet(*folder.glob("mine-*.parquet"))
    assert len(table) == len(parquet) == 4
    assert table["unlearned_retain_accuracy"].tolist() == parquet["unlearned_retain_accuracy"].tolist()
    assert "neggrad+" in capsys.readouterr().out


@pytest.fixture
def forked():
    """Workers are forks of a process that has loaded torch, once for the killed one and the one in its place."""
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context().set_forkserver_preload(["unlearn_lib.sweep.cluster"])
        yield


def test_workers_bind_to_loopback_and_a_killed_one_loses_nothing(tmp_path, forked):
    before = _listening()
    with _connect(None, None, 1) as client:
        assert {address.ip for address in _listening() - before} == {"127.0.0.1"}
        assert list(client.run(os.environ.get, "MALLOC_TRIM_THRESHOLD_").values()) == [None]  # slow convolutions
        pids = list(client.run(os.getpid).values())
        killer = threading.Thread(target=_kill_once_there_is, args=(tmp_path, pids[0]))
        killer.start()
        rows = run_sweep(GRID | {"seed": [0]}, client=client, runs_root=tmp_path)
        killer.join()
        assert list(client.run(os.getpid).values()) != pids
    assert set(rows["status"]) <= {"made", "there"} and len(rows) == 4
    assert not [path for path in tmp_path.rglob(".*.new")]


def _listening():
    """The addresses at which this process and its children can be reached."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return {c.laddr for process in family for c in process.net_connections("tcp") if c.status == "LISTEN"}


def _kill_once_there_is(root, pid):
    while not list(root.glob("*/config.json")):
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)


def test_a_scheduler_that_does_not_answer_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("unlearn_lib.sweep.cluster.WAIT", 0.5)
    with pytest.raises(UserError, match="scheduler: got tcp://127.0.0.1:1, where no scheduler"):
        run_sweep(GRID, scheduler="tcp://127.0.0.1:1", runs_root=tmp_path)


@pytest.mark.parametrize(
    "content, message",
    [
        ({"grid": 5}, "grid: got grid = 5; expected tables"),
        ({"grid": {"seed": [1]}}, "grid: got grid = {'seed'.*each under a line"),
        ({"seed": [datetime.date(2026, 1, 2)]}, "grid: got datetime.date.* in seed"),
        ({"weights": [None]}, "grid: got None in weights"),
    ],
)
def test_expand_grid_refuses_what_is_no_list_of_values(content, message):
    with pytest.raises(UserError, match=message):
        expand_grid(GRID | content)


def test_expand_grid_takes_paths_and_numpy_numbers_as_json_has_them(tmp_path):
    grid = GRID | {"data": [tmp_path], "seed": [np.int64(3)], "forget": [[np.int64(1)]], "method": ["mask"]}
    (point,) = expand_grid(grid)
    assert (point["data"], point["seed"], point["forget"]) == (str(tmp_path), 3, [1])


def test_values_that_are_not_accepted_fail_before_any_work_and_can_be_written(tmp_path):
    grid = GRID | {"method": ["mask"], "seed": [2**63], "forget": [[0]], "train_epochs": [1, "many"]}
    rows = run_sweep(grid, scheduler="tcp://127.0.0.1:1", runs_root=tmp_path)  # no worker is needed
    assert rows["status"].tolist() == ["failed", "failed"]
    assert rows["error"].str.contains("seed: got 9223372036854775808|train_epochs: got 'many'").all()
    for path in save_rows(rows, tmp_path / "table"):
        assert path.is_file()


def test_a_sweep_whose_points_all_fail_says_why_and_counts_none_of_them_as_there(tmp_path, caplog):
    caplog.set_level("INFO")
    rows = run_sweep(GRID | {"method": ["nonsense"], "forget": [[0]]}, runs_root=tmp_path)
    assert "sweep: 2 points, 0 of them there already" in caplog.text
    with pytest.raises(UserError, match="sweep: all 2 points failed; the first one: method: got 'nonsense'"):
        leaderboard(rows)


def test_two_grids_of_one_file_name_have_tables_of_their_own(swept, tmp_path):
    for folder, method in (("a", "mask"), ("b", "neggrad+")):
        (tmp_path / folder).mkdir()
        lines = 'model = ["lenet5"]\ndata = ["digits"]\nforget = [[0]]\ntrain_epochs = [1]\nsamples = [10]\n'
        (tmp_path / folder / "same.toml").write_text(f'{lines}method = ["{method}"]\n')
        assert main(["sweep", str(tmp_path / folder / "same.toml"), "--runs-root", str(swept[0])]) == 0
    tables = [pd.read_csv(path) for path in (swept[0] / "sweeps").glob("same-*.csv")]
    assert sorted(table["method"].item() for table in tables) == ["mask", "neggrad+"]


def test_the_leaderboard_by_hand():
    common = {"model": "lenet5", "data": "digits", "method": "mask", "status": "made", "golden_forget_accuracy": 0.1}
    retain = [0.2, 0.2, 0.8, 0.9]
    golden = [0.5, 0.6, 1.0, 1.0]
    relearn = [1.0, 2.0, 30.0, None]
    shares = {"unlearned_retain_accuracy": retain, "golden_retain_accuracy": golden, "relearn": relearn}
    rows = pd.DataFrame([common | {"run": i, "seed": i} for i in range(4)]).assign(**shares)
    board = leaderboard(rows, "relearn").iloc[0]
    assert (board["RA"], board["golden"]) == pytest.approx((np.mean(retain), np.mean(golden)))
    assert (board["RA_std"], board["golden_std"]) == pytest.approx((np.std(retain, ddof=1), np.std(golden, ddof=1)))
    assert np.isnan(board["relearn"]) and np.isnan(board["relearn_std"])
    some = leaderboard(rows.iloc[:3], "relearn").iloc[0]
    assert some["relearn"] == 11  # the mean and not the median
