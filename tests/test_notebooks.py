"""What every notebook promises beside running: hygiene, checks that can fail, other parameters."""

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
CLASSROOM, *NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags_of(cell):
    return cell.metadata.get("tags", [])


def text_of(notebook):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def shown(notebook):
    """What the cells have printed, tables too, as text."""
    outputs = [output for cell in code_of(notebook) for output in cell.outputs]
    return "\n".join(output.get("text") or str(output.get("data", {}).get("text/plain", "")) for output in outputs)


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
    cells = [cell for cell in code_of(notebook) if "check" not in tags_of(cell)]
    sources = [re.sub(r"from unlearn_lib import \([^)]*\)", "", cell.source) for cell in cells]
    lines = sorted(len(source.splitlines()) for source in sources)
    assert sum(cell.cell_type == "markdown" for cell in notebook.cells) > len(lines)
    assert lines[-1] <= 20
    assert lines[len(lines) // 2] <= 6


def test_every_code_cell_stands_between_two_pieces_of_text(notebook):
    kinds = [cell.cell_type for cell in notebook.cells]
    pairs = list(itertools.pairwise(kinds))
    assert kinds[0] == kinds[-1] == "markdown"
    code_after_code = [i for i, pair in enumerate(pairs) if pair == ("code", "code")]
    for i in code_after_code:
        assert "parameters" in tags_of(notebook.cells[i]) or "check" in tags_of(notebook.cells[i + 1])


def test_one_title_and_headings_in_order(notebook):
    levels = [len(m) for c in notebook.cells if c.cell_type == "markdown" for m in re.findall(r"(?m)^(#+) ", c.source)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_picture_is_there_and_has_a_caption_in_the_text_that_follows(notebook):
    number = 0
    cells = [cell for cell in notebook.cells if "check" not in tags_of(cell)]
    for cell, after in itertools.pairwise(cells):
        if cell.cell_type == "code" and re.search(r"(?m)^\S.*save_figure\(", cell.source):
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


def test_no_cell_is_longer_than_twenty_lines(notebook):
    assert max(len(cell.source.splitlines()) for cell in code_of(notebook)) <= 20


def test_no_machine_path_no_widget_state_and_no_large_file(notebook):
    text = nbformat.writes(notebook)
    assert not re.search(r"/(home|Users|tmp|root|work)/", text)
    assert "widgets" not in notebook.metadata
    assert "widget-view" not in text  # a page on the web would show an empty place
    assert len(text) < 1_500_000


PARTS = """
    **Aim.**|**You will be able to**|**Time.**|**Builds on**|## Theory|## Practice|## Discussion|## Exercises|## Quiz|
    ## References
"""


def test_the_parts_of_a_lesson_are_there_in_their_order_theory_with_an_equation_and_a_quiz_of_three(notebook):
    text = text_of(notebook)
    assert [text.count(part.strip()) for part in PARTS.split("|")] == [1] * 10
    places = [text.index(part.strip()) for part in PARTS.split("|")]
    assert places == sorted(places)
    *_, theory, practice, _, exercises, quiz, references = places
    assert text[theory:practice].count("$") >= 2
    for begin, end in ((exercises, quiz), (quiz, references)):
        assert re.findall(r"(?m)^(?:\*\*)?([1-9])\.", text[begin:end].split("<summary>Answers")[0]) == ["1", "2", "3"]


def test_three_exercises_keep_their_solutions_folded_result_and_answer_too_also_after_all_cells_have_run(notebook):
    solutions = [cell for cell in code_of(notebook) if "solution" in tags_of(cell)]
    assert len(solutions) == 3
    for cell in solutions:
        assert cell.metadata.jupyter.source_hidden
        assert [output.data["text/html"][:9] for output in cell.outputs if "data" in output] == ["<details>"]
    answers = [c.source for c in notebook.cells if c.cell_type == "markdown" and "solution" in tags_of(c)]
    assert len(answers) == 4  # the quiz's too
    assert all(re.fullmatch(r"(?s)<details><summary>Answers?</summary>\n\n.*\n\n</details>", text) for text in answers)
    assert "<details>" not in "".join(c.source for c in notebook.cells if "solution" not in tags_of(c))


def test_handouts_made_as_the_page_for_teachers_says_carry_no_solution_no_assert_and_no_output(tmp_path):
    command = re.search(r"(?m)^jupyter (nbconvert .*)$", (FOLDER / "README.md").read_text()).group(1)
    words = command.replace("--output-dir handout", f"--output-dir {tmp_path}").split()
    files = [part for word in words for part in (map(str, NOTEBOOKS) if word == "notebooks/*.ipynb" else [word])]
    subprocess.run([sys.executable, "-m", *files], check=True, cwd=tmp_path, capture_output=True)
    made = {path.name: nbformat.read(path, 4) for path in tmp_path.glob("*.ipynb")}
    assert made.keys() == {path.name for path in NOTEBOOKS}
    for handout in made.values():
        text = "\n".join(cell.source for cell in handout.cells)
        assert not re.search(r"(?m)^\s*assert |NBVAL|<details>", text)
        assert "**3.**" in text
        assert not any(cell.outputs for cell in code_of(handout))


def test_asserts_are_folded_in_cells_of_their_own(notebook):
    for cell in code_of(notebook):
        assert "NBVAL" not in cell.source
        if "check" in tags_of(cell):
            assert cell.metadata.jupyter.source_hidden
        else:
            assert "solution" in tags_of(cell) or not re.search(r"(?m)^\s*assert ", cell.source)


def test_cells_with_checked_output_have_output_to_check():
    checked = [
        cell for path in NOTEBOOKS for cell in code_of(nbformat.read(path, 4)) if "nbval-check-output" in tags_of(cell)
    ]
    assert len(checked) >= 10
    assert all(cell.outputs and cell.execution_count for cell in checked)


def test_all_notebooks_say_the_same_of_the_same_run_and_their_tables_show_it():
    said = {}
    for path in NOTEBOOKS:
        text = shown(nbformat.read(path, 4))
        lines = re.findall(r"(?m)^(\S+): (?:trained in [\d.]+ s|reused|weights [a-z ]+), ([\d.]+)% of", text)
        for name, accuracy in lines:
            said.setdefault(name, set()).add(accuracy)
        here = {accuracy for _, accuracy in lines} | set(re.findall(r"(?m)^([\d.]+)% of test pictures", text))
        assert set(re.findall(r"(?m)^original +(\d+\.\d\d) ", text)) <= here, path.stem
    assert len(said) > 5
    assert not {name: accuracies for name, accuracies in said.items() if len(accuracies) > 1}


def test_every_source_that_a_notebook_names_is_in_the_bibliography():
    bibliography = (FOLDER / "README.md").read_text().partition("## Bibliography")[2]
    for path in NOTEBOOKS:
        text = text_of(nbformat.read(path, 4)).partition("## References")[2]
        named = re.findall(r"(?:arXiv|doi):[\w./]+\w", text)
        assert named
        assert set(named) <= set(re.findall(r"(?:arXiv|doi):[\w./]+\w", bibliography)), path.stem
    for line in bibliography.splitlines():
        if line.startswith("- "):
            assert re.search(r"\b(19|20)\d\d\b", line)


SMALL = """
from unlearn_lib import Experiment, evaluate, from_preset
experiment = Experiment("lenet5", "digits", forget=[1, 2], train_epochs=12)
_ = experiment.train()
---
# NBVAL_CHECK_OUTPUT
print(experiment.dataset.num_classes, "classes")
---
run = experiment.unlearn("neggrad+")
assert run.metrics["unlearned"]["forget_accuracy"] <= 0.05
"""
LAZY = """
---
from unlearn_lib.experiment import experiment as room
lazy = {"forget_loss": [], "retain_loss": []}
room.unlearn = lambda unlearning, model, *given, **named: (model, lazy, 0.0)
experiment = Experiment("lenet5", "digits", forget=[1, 3], train_epochs=12)
---
run = experiment.unlearn("neggrad+")
assert run.metrics["unlearned"]["forget_accuracy"] <= 0.05
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


def test_nbval_passes_a_sound_notebook_and_sees_a_corrupted_output_and_an_unlearner_that_does_nothing(
    experiment, tmp_path
):
    write_notebook(tmp_path / "small.ipynb", SMALL + LAZY)  # sound cells first
    write_notebook(tmp_path / "corrupted.ipynb", CORRUPTED, checked="11 classes\n")
    shutil.copytree(
        experiment.original().path, tmp_path / "runs" / experiment.original().name
    )  # nothing is left to train
    words = ["-m", "pytest", "-q", "-rpf", "--tb=no", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env"]
    result = subprocess.run(
        [sys.executable, *words, "--rootdir", str(tmp_path), "-c", os.devnull],
        cwd=tmp_path,
        env=os.environ | {"UNLEARN_RUNS": str(tmp_path / "runs")},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    failed = set(re.findall(r"(?m)^FAILED (\w+)\.ipynb::Cell (\d)", result.stdout))
    assert failed == {("corrupted", "1"), ("small", "4")}
    assert set(re.findall(r"(?m)^PASSED small\.ipynb::Cell (\d)", result.stdout)) == {"0", "1", "2", "3"}


def test_papermill_runs_a_notebook_with_another_network_forget_set_and_learning_rate(tmp_path, monkeypatch):
    import papermill  # two seconds, which no other process of the tests has to spend

    monkeypatch.setenv("UNLEARN_RUNS", os.environ.get("UNLEARN_RUNS", str(tmp_path / "runs")))  # the notebooks' own
    monkeypatch.setenv("UNLEARN_FIGURES", str(tmp_path / "figures"))
    result = papermill.execute_notebook(
        FOLDER / "04_zero_shot_unlearning.ipynb",
        tmp_path / "out.ipynb",
        parameters={"model": "lenet5", "forget": ["0", "7-8"], "lr": 2e-3, "method": "distill"},
        cwd=tmp_path,
        progress_bar=False,
    )
    assert "forget: 0, 7, 8" in shown(result)
