"""What every wing shares: the log on the screen, OpenMP's settings."""

import io
import logging
import subprocess
import sys

import pytest

from unlearn_lib.common import count_threads, log, show_log


@pytest.fixture(autouse=True)
def handlers():
    """The log's handlers and level are afterwards what they were."""
    before = [*log.handlers], log.level, [*logging.root.handlers]
    yield
    log.handlers, log.level, logging.root.handlers = before


def test_show_log_called_twice_shows_a_line_once_where_the_last_call_said(capsys):
    first, second = io.StringIO(), io.StringIO()
    show_log(first)
    show_log(second)
    log.info("trained")
    assert first.getvalue() == ""
    assert second.getvalue() == "trained\n"


def test_show_log_leaves_handlers_of_the_user_alone():
    mine = logging.StreamHandler(io.StringIO())
    log.addHandler(mine)
    show_log(io.StringIO())
    log.info("trained")
    assert mine.stream.getvalue() == "trained\n"


@pytest.mark.parametrize("first", ["basicConfig", "show_log"])
def test_show_log_and_basic_config_show_a_line_once(capsys, first):
    logging.root.handlers = []
    calls = {"basicConfig": logging.basicConfig, "show_log": show_log}
    calls.pop(first)()
    {"basicConfig": show_log, "show_log": logging.basicConfig}[first]()
    log.info("trained")
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count("trained") == 1


def test_show_log_shows_what_the_root_logger_does_not_show(capsys):
    logging.root.handlers = [logging.StreamHandler(sys.stderr), logging.StreamHandler(io.StringIO())]
    logging.root.handlers[0].setLevel(logging.WARNING)
    show_log()
    log.info("trained")
    assert capsys.readouterr().out == "trained\n"
    assert logging.root.handlers[1].stream.getvalue() == "trained\n"


@pytest.mark.parametrize(
    "given, count", [("2", 2), ("2,1", 2), (" 4 , 2", 4), ("", None), (None, None), ("0", None), ("many", None)]
)
def test_count_threads_reads_the_first_number(monkeypatch, given, count):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert count_threads() == count


@pytest.mark.parametrize(
    "before, expected",
    [
        ("os.getloadavg = lambda: (0.1, 9, 9)", "PASSIVE 4000"),
        ("os.getloadavg = lambda: (os.cpu_count() + 1, 0, 0)", "PASSIVE None"),
        ("os.environ['OMP_WAIT_POLICY'] = 'ACTIVE'", "ACTIVE None"),  # the user's choice
        ("os.environ['GOMP_SPINCOUNT'] = '7'", "None 7"),
        ("sys.modules['torch'] = None", "None None"),  # loaded already, which is too late
    ],
)
def test_the_library_sets_how_threads_wait_before_torch_is_loaded(before, expected):
    names = ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"]
    words = f"import os, sys; [os.environ.pop(n, None) for n in {names}]; {before}; import unlearn_lib; "
    words += f"print(*(os.environ.get(n) for n in {names}))"
    result = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == expected
