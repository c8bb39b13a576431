"""The house as it is meant to be, read off the source: who imports whom, and which names the face has."""

import ast
import doctest
import graphlib
import importlib
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import torch

import unlearn_lib

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "unlearn_lib"
ROWS = """
    shell common options processes store networks zeroshot data training evaluation auditing experiment presets sweep
    figures panels __main__
""".split()  # from the ground up: a wing uses those before it
ZERO_SHOT = {"common", "options", "store", "networks"}  # all that unlearning from a model alone may know
FLOORS = 8
FACE = 40  # names that a student can hold
NOT_NAMES = {"words", "own", "said", "kept", "mine", "few", "theirs"}
FACE_NAMES = """
    agreement ain answers_of audit audit_run audit_table carry_over check_forget class_changes comparison_panel
    ComparisonPanel confusion_of Data default_layer describe_preset diagnose distill_loss evaluate Experiment
    experiment_of fast_arithmetic features_of find_head fit folded follow_impression from_preset
    impression_explorer ImpressionExplorer
    Impressions js_divergence KarpathyNet lab_grid lab_panel lab_run LabPanel LeNet5 load_data logits_of
    make_impressions make_model mask membership misplaced moved open_run parse_classes pick_device plot_changes
    plot_confusions plot_cost plot_frontier plot_growth plot_histograms plot_history plot_impressions plot_lab
    plot_losers plot_losses plot_per_class plot_pictures plot_recipes plot_relearning plot_responsive plot_scaling
    plot_walk PRESETS probe probe_forget PUBLISHED relearn_curve relearn_time responsive_layers retain_mass_loss Run
    runs_root save_figure score Split split splittable_layers statistics_distance Stopped Switches table
    trained_seeds unlearning_panel UnlearningPanel verdict ZeroShotUnlearner zrf
"""


def rooms(house):
    """Every room's source by its dotted name below the house: `store`, `networks.zoo`, `networks` for a wing's face."""
    paths = [path for path in house.rglob("*.py") if path != house / "__init__.py"]
    names = [".".join(path.relative_to(house).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return {name: ast.parse(path.read_text()) for name, path in sorted(zip(names, paths, strict=True))}


def imports(name, tree, package="unlearn_lib"):
    """What a room imports of the house, inside functions too: (dotted name below the house, names taken from it)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} imports relatively, line {node.lineno}"
            found = [(node.module, tuple(alias.name for alias in node.names))]
        else:
            continue
        for module, taken in found:
            if module == package:  # `from unlearn_lib import store`
                yield from ((part, ()) for part in taken or ("",) if part != "__version__")
            elif module.startswith(package + "."):
                yield module.removeprefix(package + "."), taken


def wing(name):
    return name.partition(".")[0]


def face_of(tree):
    """The names that a wing's `__init__.py` hands on."""
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom | ast.Import)]
    names = {alias.asname or alias.name for node in nodes for alias in node.names}
    return names | {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def faults(house):
    """What breaks the rules of who may import whom, a line each."""
    trees = rooms(house)
    for name, tree in trees.items():
        here = wing(name)
        for target, taken in imports(name, tree):
            there = wing(target)
            if there not in ROWS or here not in ROWS:
                yield f"{name} imports {target or 'the face'}: no row of the table"
            elif here != there and ROWS.index(there) > ROWS.index(here):
                yield f"{name} imports {target}: upwards"
            elif here == "zeroshot" and there not in {*ZERO_SHOT, here}:
                yield f"{name} imports {target}: not zero-shot"
            elif here != there and target != there:
                yield f"{name} imports {target}: past the face of {there}"
            elif here != there and any(n.startswith(f"{there}.") for n in trees):
                yield from (f"{name} imports {n} of {there}: not in its face" for n in {*taken} - face_of(trees[there]))
            elif here == there == target and name != target:
                yield f"{name} imports the face of its own wing"


def graph(house, level=lambda name: name):
    """Who imports whom, rooms or (level=wing) wings."""
    edges = {}
    for name, tree in rooms(house).items():
        targets = {level(target) for target, _ in imports(name, tree)} - {level(name)}
        edges.setdefault(level(name), set()).update(targets)
    return edges


def storeys(edges):
    """The longest chain of imports, from the top."""
    above = {}
    for name in graphlib.TopologicalSorter(edges).static_order():
        above[name] = [name, *max((above[target] for target in edges.get(name, ())), key=len, default=[])]
    return max(above.values(), key=len)


def test_nobody_imports_upwards_past_a_face_or_into_zero_shot():
    assert not list(faults(HOUSE))


def test_no_two_rooms_and_no_two_wings_import_each_other():
    for edges in (graph(HOUSE), graph(HOUSE, wing)):
        graphlib.TopologicalSorter(edges).prepare()  # raises CycleError with the cycle


def test_the_house_has_eight_floors_at_most():
    assert len(storeys(graph(HOUSE, wing))) <= FLOORS, storeys(graph(HOUSE, wing))


@pytest.mark.parametrize(
    "room, line, fault",
    [
        ("store.py", "from unlearn_lib.networks import split", "store imports networks: upwards"),
        ("zeroshot/drawn.py", "def f():\n    import unlearn_lib.data", "zeroshot.drawn imports data: upwards"),
        ("zeroshot/drawn.py", "from unlearn_lib import evaluate", "no row of the table"),
        ("data/sets.py", "from unlearn_lib.zeroshot import mask", None),
        ("data/sets.py", "from unlearn_lib.networks.zoo import LeNet5", "past the face of networks"),
        ("data/sets.py", "from unlearn_lib.networks import zoo", "imports zoo of networks: not in its face"),
        ("data/sets.py", "import unlearn_lib.networks", None),
        ("networks/weights.py", "from unlearn_lib.networks.zoo import LeNet5", None),
        ("networks/weights.py", "from unlearn_lib.networks import LeNet5", "the face of its own wing"),
        ("auditing/verdict.py", "def f():\n    from unlearn_lib import experiment", "imports experiment: upwards"),
        ("cellar.py", "import unlearn_lib.store", "no row of the table"),
    ],
)
def test_a_house_with_one_wrong_arrow_is_seen(tmp_path, room, line, fault):
    files = {"__init__.py": "", "common.py": "", "networks/__init__.py": "from unlearn_lib.networks.zoo import LeNet5"}
    files |= {"networks/zoo.py": "class LeNet5: ...", "zeroshot/__init__.py": "mask = 1", room: line}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = list(faults(tmp_path))
    assert len(found) == (fault is not None)
    assert fault is None or fault in found[0]


def test_zero_shot_brings_no_data_and_no_evaluation_into_the_process():
    told = loaded("import unlearn_lib.zeroshot")
    assert {wing(name) for name in told if name} <= {*ZERO_SHOT, "zeroshot"}


def loaded(line, package="unlearn_lib"):
    """Names of what a fresh process has loaded after a line of Python: modules below `package`, or all."""
    words = f"{line}\nimport sys\nprint(*(name for name in sys.modules if name.startswith({package!r})))"
    result = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    names = result.stdout.split()
    return {name.removeprefix(package).removeprefix(".") for name in names}


def test_importing_the_library_loads_no_figures_no_panels_and_nothing_that_they_need():
    names = {name.partition(".")[0] for name in loaded("import unlearn_lib", "")}
    assert "unlearn_lib" in names
    assert not names & {"seaborn", "scipy", "matplotlib", "ipywidgets", "sklearn"}


def test_the_face_is_short_and_every_name_in_it_exists():
    assert len(unlearn_lib.__all__) == len({*unlearn_lib.__all__}) <= FACE
    for name in unlearn_lib.__all__:
        assert getattr(unlearn_lib, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        unlearn_lib.no_such_name  # noqa: B018


@pytest.mark.parametrize("name", [name for name in unlearn_lib.__all__ if not name.isupper()])
def test_a_name_of_the_face_has_an_example_whose_output_is_true(name, experiment, monkeypatch):
    """Examples without an output are shown, not run: they need a folder, a screen or minutes."""
    monkeypatch.delenv("UNLEARN_PRESET", raising=False)
    known = {"torch": torch, "experiment": experiment, "model": experiment.load(experiment.original())}
    known |= {each: getattr(unlearn_lib, each) for each in unlearn_lib.__all__}
    found = doctest.DocTestParser().get_doctest(inspect.getdoc(getattr(unlearn_lib, name)), known, name, None, None)
    assert found.examples
    found.examples = [each for each in found.examples if each.want]
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.DocTestRunner(optionflags=options).run(found).failed == 0


@pytest.mark.parametrize("name", FACE_NAMES.split())
def test_a_name_that_once_stood_in_the_face_can_be_imported(name):
    assert getattr(unlearn_lib, name) is not None


def test_every_wing_is_installed():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = [path.parent.relative_to(ROOT) for path in HOUSE.rglob("__init__.py")]
    assert sorted(packages) == sorted(".".join(folder.parts) for folder in folders)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_takes_its_names_from_the_face_or_from_a_wing(path):
    cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    for node in ast.walk(ast.parse("\n".join(cells))):
        if isinstance(node, ast.ImportFrom) and wing(node.module) == "unlearn_lib":
            module = importlib.import_module(node.module)
            assert node.module.count(".") <= 1
            for alias in node.names:
                assert alias.name in (unlearn_lib.__all__ if module is unlearn_lib else vars(module))


def test_variables_have_the_fields_names():
    found = {}
    for room, tree in rooms(HOUSE).items():
        stored = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        named = [n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)]
        functions = [n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
        bad = NOT_NAMES & {*stored, *named, *functions} - ({"kept"} if room == "store" else set())
        found |= {room: bad} if bad else {}
    assert not found  # `kept` is a function of the store
