"""What every notebook promises beside running: hygiene, checks that can fail, other parameters."""

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
CLASSROOM, *NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_a_classroom_panel_and_notebooks_numbered_without_a_gap_all_of_them_listed():
    assert CLASSROOM.stem == "00_classroom_panel"
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{n:02}" for n in range(1, len(NOTEBOOKS) + 1)]
    listed = re.findall(r"\]\((\w+\.ipynb)\)", (FOLDER / "README.md").read_text())
    assert {path.name for path in (CLASSROOM, *NOTEBOOKS)} <= set(listed)


def test_the_classroom_panel_has_three_cells_one_of_them_code_and_a_picture_for_where_no_panel_runs():
    cells = nbformat.read(CLASSROOM, 4).cells
    assert [cell.cell_type for cell in cells] == ["markdown", "code", "markdown"]
    assert "attachment:per_class.png" in cells[2].source  # Voila shows no file from outside the notebook's folder
    assert cells[2].attachments["per_class.png"]["image/png"]


def test_cells_were_run_from_top_to_bottom_without_an_error(notebook):
    code = code_of(notebook)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [o for cell in code for o in cell.outputs if o.output_type == "error" or o.get("name") == "stderr"]


def test_there_is_more_text_than_code_and_cells_are_short(notebook):
    sources = [re.sub(r"from unlearn_lib import \([^)]*\)", "", cell.source) for cell in code_of(notebook)]
    lines = sorted(len(source.splitlines()) for source in sources)
    assert len(notebook.cells) > 2 * len(lines)
    assert lines[-1] <= 20
    assert lines[len(lines) // 2] <= 6


def test_every_code_cell_stands_between_two_pieces_of_text(notebook):
    kinds = [cell.cell_type for cell in notebook.cells]
    pairs = list(itertools.pairwise(kinds))
    assert kinds[0] == kinds[-1] == "markdown"
    code_after_code = [i for i, pair in enumerate(pairs) if pair == ("code", "code")]
    assert all("parameters" in notebook.cells[i].metadata.get("tags", []) for i in code_after_code)


def test_one_title_and_headings_in_order(notebook):
    levels = [len(m) for c in notebook.cells if c.cell_type == "markdown" for m in re.findall(r"(?m)^(#+) ", c.source)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_picture_is_there_and_has_a_caption_in_the_text_that_follows(notebook):
    number = 0
    for cell, after in zip(notebook.cells, notebook.cells[1:], strict=False):
        if cell.cell_type == "code" and "save_figure(" in cell.source:
            number += 1
            assert any("image/png" in output.get("data", {}) for output in cell.outputs)
            assert after.source.startswith(f"**Figure {number}.**")
    assert number >= 2


def test_figures_are_numbered_after_their_notebook_and_committed():
    for path in NOTEBOOKS:
        names = [n for cell in code_of(nbformat.read(path, 4)) for n in re.findall(r'"(\d\d_\w+)"', cell.source)]
        assert names
        for name in names:
            assert name[:2] == path.stem[:2]
            assert (FOLDER.parent / "figures" / f"{name}.png").is_file()


def test_no_cell_is_longer_than_twenty_lines_and_text_is_never_less_than_code(notebook):
    assert max(len(cell.source.splitlines()) for cell in code_of(notebook)) <= 20
    assert sum(cell.cell_type == "markdown" for cell in notebook.cells) >= len(code_of(notebook))


def test_no_machine_path_no_widget_state_and_no_large_file(notebook):
    text = nbformat.writes(notebook)
    assert not re.search(r"/(home|Users|tmp|root|work)/", text)
    assert "widgets" not in notebook.metadata
    assert "widget-view" not in text  # a page on the web would show an empty place
    assert len(text) < 1_500_000


def test_three_exercises_with_folded_solutions_and_findings(notebook):
    solutions = [cell for cell in code_of(notebook) if "solution" in cell.metadata.get("tags", [])]
    assert len(solutions) == 3
    assert all(cell.metadata.jupyter.source_hidden for cell in solutions)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert text.index("**Aim.**") < text.index("## What we found") < text.index("## Exercises")
    assert "**Time.**" in text
    assert "**Builds on**" in text


def test_cells_with_checked_output_have_output_to_check(notebook):
    checked = [cell for cell in code_of(notebook) if "NBVAL_CHECK_OUTPUT" in cell.source]
    assert checked
    assert all(cell.outputs and cell.execution_count for cell in checked)


SMALL = """
from unlearn_lib import Experiment, evaluate, from_preset
lab = Experiment("lenet5", "digits", forget=[1, 2], train_epochs=12)
_ = lab.train()
---
# NBVAL_CHECK_OUTPUT
print(lab.dataset.num_classes, "classes")
---
run = lab.unlearn("neggrad+")
assert run.metrics["unlearned"]["forget_accuracy"] <= 0.05
"""
LAZY = """from unlearn_lib import ZeroShotUnlearner
lazy = {"forget_loss": [], "retain_loss": []}
ZeroShotUnlearner.unlearn = lambda self: (self.model, lazy, 0.0)
"""
CORRUPTED = """
---
# NBVAL_CHECK_OUTPUT
print(5 + 5, "classes")
"""


def write_notebook(path, source, checked="10 classes\n"):
    cells = [nbformat.v4.new_code_cell(part.strip()) for part in source.split("---\n")]
    for count, cell in enumerate(cells, 1):
        cell.execution_count = count
    cells[1].outputs = [nbformat.v4.new_output("stream", name="stdout", text=checked)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def test_nbval_passes_a_sound_notebook_and_sees_a_corrupted_output_and_an_unlearner_that_does_nothing(lab, tmp_path):
    write_notebook(tmp_path / "sound.ipynb", SMALL)
    write_notebook(tmp_path / "corrupted.ipynb", CORRUPTED, checked="11 classes\n")
    shutil.copytree(lab.original().path, tmp_path / "runs" / lab.original().name)  # nothing is left to train
    write_notebook(tmp_path / "lazy.ipynb", LAZY + SMALL.replace("[1, 2]", "[1, 3]"))  # a run of its own
    words = ["-m", "pytest", "-q", "-rpf", "--tb=no", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env"]
    result = subprocess.run(
        [sys.executable, *words, "--rootdir", str(tmp_path), "-c", os.devnull],
        cwd=tmp_path,
        env=os.environ | {"UNLEARN_RUNS": str(tmp_path / "runs")},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert set(re.findall(r"(?m)^FAILED (\w+)\.ipynb::Cell (\d)", result.stdout)) == {("corrupted", "1"), ("lazy", "2")}
    assert set(re.findall(r"(?m)^PASSED sound\.ipynb::Cell (\d)", result.stdout)) == {"0", "1", "2"}


def test_papermill_runs_a_notebook_with_another_network_forget_set_and_learning_rate(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_RUNS", os.environ.get("UNLEARN_RUNS", str(tmp_path / "runs")))  # the notebooks' own
    monkeypatch.setenv("UNLEARN_FIGURES", str(tmp_path / "figures"))
    result = papermill.execute_notebook(
        FOLDER / "04_zero_shot_unlearning.ipynb",
        tmp_path / "out.ipynb",
        parameters={"model": "lenet5", "forget": ["0", "7-8"], "lr": 2e-3, "method": "distill"},
        cwd=tmp_path,
        progress_bar=False,
    )
    printed = "".join(o.get("text", "") for cell in code_of(result) for o in cell.outputs)
    assert "forget: 0, 7, 8" in printed
