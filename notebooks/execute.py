"""Execute the notebooks in their order, from nothing, and store what they show: `python notebooks/execute.py`.

Names or numbers of notebooks (`03 05`) choose some of them. Runs lie in an empty folder unless $UNLEARN_RUNS names one;
figures go to the repository's figures/ unless $UNLEARN_FIGURES names another folder.
"""

import base64
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
WIDGET = "application/vnd.jupyter.widget-view+json"
PANEL = "The panel: run this cell in JupyterLab to use it."


def main(chosen: list[str]) -> None:
    """Execute the chosen notebooks (all by default) in place; a failing cell stops with its traceback."""
    os.environ["UNLEARN_PROGRESS"] = "0"
    os.environ.setdefault("UNLEARN_FIGURES", str(HERE.parent / "figures"))
    with tempfile.TemporaryDirectory(prefix="unlearn-") as scratch:
        os.environ.setdefault("UNLEARN_RUNS", f"{scratch}/runs")
        first, *rest = sorted(HERE.glob("[0-9]*.ipynb"))
        for path in (*rest, first):  # the panel's page comes last: it would train what notebook 1 is to show
            if not chosen or any(path.name.startswith(name) for name in chosen):
                begin = time.perf_counter()
                execute(path)
                print(f"{path.name}: {time.perf_counter() - begin:.0f} s", flush=True)


def execute(path: Path) -> None:
    """Run one notebook from top to bottom and write it back, tidied."""
    notebook = nbformat.read(path, 4)
    where = {"metadata": {"path": str(HERE)}}
    NotebookClient(notebook, timeout=900, resources=where, coalesce_streams=True).execute()
    tidy(notebook)
    attach_figure(notebook)
    nbformat.write(notebook, path)


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Take out times, versions and this machine's paths; a sentence stands in a panel's place."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if WIDGET in output.get("data", {}):
                output.data = {"text/plain": PANEL}
            if output.output_type == "stream":
                output.text = output.text.replace(os.environ["UNLEARN_RUNS"], "runs")


def attach_figure(notebook: nbformat.NotebookNode) -> None:
    """Renew notebook 4's figure in the panel's page: Voila shows no file from outside the notebook's folder."""
    figure = Path(os.environ["UNLEARN_FIGURES"], "04_per_class.png")
    for cell in notebook.cells:
        if "per_class.png" in cell.get("attachments", {}) and figure.is_file():
            cell.attachments["per_class.png"]["image/png"] = base64.b64encode(figure.read_bytes()).decode()


if __name__ == "__main__":
    main(sys.argv[1:])
