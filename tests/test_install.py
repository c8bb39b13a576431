"""What an installation brings, and where an installed package keeps what it makes."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import unlearn_lib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BROUGHT = {"scipy", "pillow", "ipython", "dask"}  # by scikit-learn, torchvision, ipywidgets, distributed


def plain(requirement):
    """A requirement's name, as package registries compare it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def test_every_package_that_is_imported_is_a_dependency():
    imported = set()
    for path in (ROOT / "unlearn_lib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.partition(".")[0])
    brought = importlib.metadata.packages_distributions()
    foreign = imported - set(sys.stdlib_module_names) - {"unlearn_lib"}
    declared = {plain(line) for line in PROJECT["project"]["dependencies"]} | BROUGHT
    assert not {name for name in foreign if not declared & {plain(package) for package in brought[name]}}


def test_one_list_serves_both_files():
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    extras = PROJECT["project"]["optional-dependencies"]
    assert lines == ["-e .[notebooks,timm,test]"]
    assert {*extras} == {"notebooks", "timm", "test"}


def test_the_version_stands_in_one_place_alone():
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "unlearn_lib.__version__"}
    assert "version" not in PROJECT["project"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", unlearn_lib.__version__)


def test_files_that_are_no_python_are_installed_too():
    folder = ROOT / "unlearn_lib"
    declared = {
        package.replace(".", "/").partition("/")[2] + "/" * ("." in package) + name
        for package, names in PROJECT["tool"]["setuptools"]["package-data"].items()
        for name in names
    }
    others = {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".md") and "__pycache__" not in path.parts
    }
    assert others == declared
    assert "py.typed" in others


SEEN = """
import sys
for place in sys.argv[1:]:
    sys.path.insert(0, place)
    from unlearn_lib import runs_root
    from unlearn_lib.common import REPOSITORY
    print(REPOSITORY, runs_root())
    for name in [name for name in sys.modules if name.partition(".")[0] == "unlearn_lib"]:
        del sys.modules[name]
"""


def test_an_installed_package_keeps_everything_in_the_users_data_folder_and_a_checkout_in_itself(tmp_path):
    places = [tmp_path / "site-packages", tmp_path / "checkout"]
    for place in places:
        shutil.copytree(ROOT / "unlearn_lib", place / "unlearn_lib", ignore=shutil.ignore_patterns("__pycache__"))
    (places[1] / "notebooks").mkdir()
    shutil.copy(ROOT / "pyproject.toml", places[1])
    environment = {name: value for name, value in os.environ.items() if name not in ("UNLEARN_RUNS", "PYTHONPATH")}
    environment |= {"HOME": str(tmp_path / "home"), "XDG_DATA_HOME": ""}
    words = [sys.executable, "-c", SEEN, *map(str, places)]  # both in one process, which loads torch once
    result = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    for line, place, home in zip(result.stdout.splitlines(), places, (tmp_path / "home", places[1]), strict=True):
        repository, runs = map(Path, line.split())
        assert repository.is_relative_to(home)
        assert runs == repository / "data" / "runs"
        assert (place / "data").is_dir() == (home == place)
