"""Do the tests notice? One-line faults in all wings, each met by the tests of its own room.

    python tests/benchmarks/bench_mutants.py [--only experiment.py] [--jobs 2]

A fault is put into a copy of the repository. It is killed where a test fails; one that survives shows a line which no
test holds. Before anything else every text has to be found exactly once, and the tests have to pass without a fault.
"""

import argparse
import multiprocessing
import os
import queue
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
os.environ |= {"OMP_NUM_THREADS": "1"}
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # a module of the same size and second is read from an old .pyc
FORKS = multiprocessing.get_context("forkserver")  # what takes seconds to import is imported once
FORKS.set_forkserver_preload(
    "pytest hypothesis torch torchvision sklearn.linear_model sklearn.datasets sklearn.model_selection "
    "pandas matplotlib.pyplot seaborn scipy.special ipywidgets torch.fx".split()
)
FAULTS = r"""
figures/audit.py: figures/test_audit
- xlabel="linear probe finds the forget classes", ylabel="retain accuracy"
+ xlabel="retain accuracy", ylabel="linear probe finds the forget classes"
- ["relearn"]["curve"]["unlearned"]
+ ["relearn"]["curve"]["golden"]
- names = {"FA": "forget accuracy, % (low is good)", "RA": "retain accuracy, % (high is good)"}
+ names = {"RA": "forget accuracy, % (low is good)", "FA": "retain accuracy, % (high is good)"}
- "retain class": axis.plot(retain, "--"
+ "retain class": axis.plot(forgotten, "--"
figures/classes.py: figures/test_classes
- axis.axvspan(c - 0.5, c + 0.5
+ axis.axvspan(c + 0.5, c + 1.5
- counts.div(counts.sum(axis=1), axis=0)
+ counts.div(counts.sum(axis=0), axis=1)
- frame["after"] - frame["before"]
+ frame["before"] - frame["after"]
- {"retain": accuracies[~is_forget], "forget": accuracies[is_forget]}
+ {"retain": accuracies[is_forget], "forget": accuracies[~is_forget]}
- iloc[[*rows]]
+ iloc[: len(rows)]
- " (shaded: to forget)" * bool(len(forget))
+ " (shaded: to forget)"
figures/networks.py: figures/test_networks
- (("train", "training", "--"), ("val", "validation", "-"))
+ (("val", "training", "--"), ("train", "validation", "-"))
- {"forget loss": history["forget_loss"], "retain loss": history["retain_loss"]}
+ {"forget loss": history["retain_loss"], "retain loss": history["forget_loss"]}
- {1000 * line[1]:.2g}
+ {line[1]:.2g}
- {True: (INK, "//"), False: ("0.6", "")}
+ {False: (INK, "//"), True: ("0.6", "")}
figures/impressions.py: figures/test_impressions
- diagnosis[MEASURES].mean()
+ diagnosis[MEASURES].median()
- growth[["confidence", "norm"]]
+ growth[["norm", "confidence"]]
- impressions.x[impressions.labels == label][0]
+ impressions.x[impressions.labels == label + 1][0]
figures/sweeps.py: figures/test_sweeps
- xerr=rows[f"{what}_std"]
+ xerr=rows["RA_std"]
- spread = rows["golden_std"].fillna(0).mean()
+ spread = rows["RA_std"].fillna(0).mean()
- (right, "RA", "retain accuracy")
+ (right, "RA", "forget accuracy")
evaluation.py: test_evaluation
- part[classes].sum().item() / total if
+ part[classes].sum().item() / count.sum().item() if
- share(confusion[:, forget].sum(1), forget)
+ share(right, forget)
- torch.tensor(sorted(forget)), -torch.inf
+ torch.tensor(sorted(forget)[:1]), -torch.inf
- path = run.path / f"activations-{layer}.safetensors"
+ path = run.path / "activations.safetensors"
- pairs = labels.long() * num_classes + predicted
+ pairs = predicted * num_classes + labels.long()
store.py: test_store
- sha.update(f"{part.dtype}{tuple(part.shape)}".encode())
+ pass
- found = None if force else load_kept(path, key)
+ found = load_kept(path, key)
- if is_whole and is_same else None
+ if is_same else None
- (tensors, content["facts"]) if is_whole and is_same else None
+ (tensors, content["facts"]) if is_whole else None
-             lock.acquire()
+             pass
- if written and written != digest(tensors, text):
+ if False:
- sort_keys=True, allow_nan=False
+ sort_keys=True
auditing/metrics.py: auditing/test_metrics
- [present].double()
+ .double()
- terms.sum(2).mean(0)
+ terms.sum(2)[0]
data/classes.py: data/test_classes
- range(first, last + 1)
+ range(first, last)
data/splits.py: data/test_sets data/test_pictures
- torch.randperm(len(members), generator=generator)
+ torch.randperm(len(members))
- max(least, round(share * len(members)))
+ round(share * len(members))
- [0.299, 0.587, 0.114]
+ [0.114, 0.587, 0.299]
data/pictures.py: data/test_pictures data/test_pictures_cases
- upright = ImageOps.exif_transpose(picture)⏎    values
+ upright = picture⏎    values
- upright = ImageOps.exif_transpose(picture)⏎    clear
+ upright = picture⏎    clear
presets.py: experiment/test_presets
- seed=experiment.seed,
+ seed=0,
- Switches(prose_signs=signs == "prose"
+ Switches(prose_signs=signs == "published"
- block["forget_accuracy"], block["retain_accuracy"]]
+ block["retain_accuracy"], block["forget_accuracy"]]
zeroshot/carry_over.py: zeroshot/test_carry_over
- is_forget[was_forget].float()
+ is_forget[~was_forget].float()
- has_passed = mass <= most and agreement >= least
+ has_passed = mass <= most
- seed = check_seed(seed) + OTHER_SEED
+ seed = check_seed(seed)
- max(masses, default=None), "retain_agreement": min(
+ max(masses, default=None), "retain_agreement": max(
- {"forget_mass": max(masses
+ {"forget_mass": min(masses
- WIDEST) for side in size)), seed)
+ WIDEST) for side in size)))
zeroshot/methods.py: zeroshot/test_unlearner zeroshot/test_deep experiment/test_presets
- head.weight[forget] = 0
+ pass
- log_p.masked_fill(forget, -torch.inf).logsumexp(1)
+ log_p.masked_fill(~forget, -torch.inf).logsumexp(1)
- return -(temperature**2) * log_p.masked_fill(forget, -torch.inf).logsumexp(1).mean()
+ return -(temperature**2) * log_p.masked_fill(forget, -torch.inf).logsumexp(1).exp().mean().log()
- target = (original.masked_fill(forget, -torch.inf) / temperature)
+ target = (original / temperature)
- return temperature**2 * terms.masked
+ return terms.masked
- return -(temperature**2) * log_p
+ return -log_p
- sign = -1 if switches.prose_signs else 1
+ sign = 1
- model = copy.deepcopy(unwrap(task.model)).eval()
+ model = unwrap(task.model).eval()
- lr, weight_decay=0.01)
+ lr, weight_decay=0.0)
- nn.utils.clip_grad_norm_(parameters, 5)
+ pass
- for kind in (is_forget, ~is_forget)
+ for kind in (~is_forget, is_forget)
- torch.Generator().manual_seed(task.seed)
+ torch.Generator().manual_seed(0)
- total = total + weight * loss
+ total = total + loss
- "lr": lr * head.weight[0].numel()
+ "lr": lr
- min(task.epochs, math.ceil(UPDATES / num_batches))
+ task.epochs
- LinearLR(optimiser, 1.0, 0.0, epochs * num_batches)
+ LinearLR(optimiser, 1.0, 1.0, epochs * num_batches)
- held = torch.where(forget, logits, logits.detach())
+ held = logits
- student = reinitialised_from(task.model, task.layer, task.seed)
+ student = reinitialised_from(task.model, task.layer)
- retain_weight=task.retain_weight,⏎        seed=task.seed,
+ retain_weight=task.retain_weight,
zeroshot/unlearner.py: zeroshot/test_unlearner experiment/test_experiment
- if not all(abs(loss) < limit
+ if not all(loss < math.inf
- **method.numbers, **given}
+ **NUMBERS, **given}
- "recipe": self.recipe or method.recipe
+ "recipe": self.recipe or "natural"
- layer=self.impressions.layer,⏎            seed=self.seed,
+ layer=self.impressions.layer,
zeroshot/deep.py: zeroshot/test_deep
- torch.manual_seed(seed)
+ torch.manual_seed(0)
- code[owners, torch.arange(len(owners)) % coordinates] = 1
+ code[owners - 1, torch.arange(len(owners)) % coordinates] = 1
- mass = z0.softmax(1)[:, forget].sum(1)
+ mass = z0.softmax(1)[:, ~forget].sum(1)
- answers.bincount().clamp_min(1).double().rsqrt()[answers]
+ answers.bincount().clamp_min(1).double().reciprocal()[answers]
- z[:, forget].amax(1) - z[:, ~forget].amin(1)
+ z[:, forget].amax(1) - z[:, ~forget].amax(1)
- q = log_q.exp()
+ q = z0.softmax(1)
zeroshot/drawn.py: zeroshot/test_drawn zeroshot/test_deep
- round(share * DRAWN * samples * k)), shape, seed)
+ round(share * DRAWN * samples * k)), shape)
- count, bounds, seed, on_step)
+ count, bounds, 0, on_step)
auditing/attacks.py: auditing/test_attacks
- probe.fit(train.cpu().numpy(), train_labels.cpu().numpy())
+ probe.fit(test.cpu().numpy(), test_labels.cpu().numpy())
- members = data.train.only(forget)
+ members = data.train.without(forget)
- torch.optim.Adam(model.parameters(), lr=1e-3)
+ torch.optim.Adam(model.parameters(), lr=1e-2)
- return membership(*losses, seed=seed)
+ return membership(*losses)
- stranger_logits, _ = logits_and_labels(stranger, pictures, data)
+ stranger_logits, _ = logits_and_labels(golden, pictures, data)
auditing/verdict.py: auditing/test_verdict
- stdtrit(n - 1, 0.975).item() * band["std"] * math.sqrt(1 + 1 / n)
+ 3.0 * band["std"]
- numbers.std().item()
+ numbers.std(correction=0).item()
- numbers.mean().item()
+ numbers.median().item()
- goal = _relearn_target(pair["original"], forget)
+ goal = target
- [read(pair[kind], row
+ [read(pair["golden"], row
- experiment.new_model(STRANGER)
+ experiment.new_model(0)
- band['mean']) / band['std']:+.1f
+ band['mean']) / band['mean']:+.1f
sweep/grid.py: sweep/test_sweep
- return values.mean(skipna=False)
+ return values.mean()
- return values.std(skipna=False)
+ return values.std()
- over_seeds.agg(_std)
+ over_seeds.agg(_mean)
- "golden": "golden_retain_accuracy"
+ "golden": "golden_forget_accuracy"
- sort_values("RA", ascending=False)
+ sort_values("RA")
zeroshot/heads.py: zeroshot/test_impressions
- F.normalize(head.weight - head.weight.mean(0))[labels]
+ F.normalize(head.weight)[labels]
- return y.scatter(1, at, p).scatter(1, columns, largest)
+ return y
- unit = F.normalize(rows - rows.mean(0))
+ unit = F.normalize(rows)
- F.normalize(targets @ (head.weight - head.weight.mean(0)))
+ F.normalize(targets @ head.weight)
experiment/steps.py: experiment/test_experiment experiment/test_run_folders
- golden.metrics["seconds"]["golden"]}
+ golden.metrics["seconds"]["train"]}
- score(golden.metrics["golden"]["confusion"], experiment.forget_classes)
+ score(golden.metrics["golden"]["confusion"], [])
- (seconds["impressions"] or 0) + (seconds["unlearn"] or 0)
+ (seconds["unlearn"] or 0)
- audit = None if is_another else metrics["audit"]
+ audit = metrics["audit"]
experiment/experiment.py: experiment/test_experiment test_bites
- forget, layer=layer, seed=self.seed, on_step=watch
+ forget, layer=layer, on_step=watch
- self.forget_classes, seed=self.seed)
+ self.forget_classes)
- run.config.get("asked_layer", "") is None:
+ True:
- asked_layer=unlearned.unlearning.layer,
+ asked_layer=None,
- "original_file": original.fingerprint(),⏎
+ "original_file": "",⏎
- if judge is None or judge.layer != layer:
+ if judge is None:
- model = self.new_model(self.seed)
+ model = self.new_model()
- metrics["seconds"]["golden" if forget else "train"] = seconds
+ metrics["seconds"]["train"] = seconds
- "recipe": asked.recipe, "steps": steps, "seed": self.seed}
+ "recipe": asked.recipe, "steps": steps, "seed": 0}
networks/runs.py: networks/test_runs experiment/test_run_folders test_bites
- if len(row) > 2 else
+ if len(row) > 1 else
- if old.get(name) != new.get(name):
+ if name in old and old[name] != new.get(name):
- if written not in (FORMAT - 1, FORMAT):
+ if False:
- (folder / "config.json").unlink(missing_ok=True)
+ pass
- find_misfits(current, tensors)
+ []
zeroshot/recipes.py: zeroshot/test_impressions
- + shrink * u.square().sum()
+ + 0
- feasible.project(u.detach())⏎
+ pass⏎
- total = total + 2e-3 * (
+ total = total + 0 * (
- STATISTICS * distance
+ 0 * distance
- optimiser = torch.optim.Adam([u], lr=lr)
+ optimiser = torch.optim.Adam([u], lr=2 * lr)
zeroshot/impressions.py: zeroshot/test_impressions
- (total - n) / (n * (n - 1))
+ total / (n * n)
- "responsive": reached >= share
+ "responsive": reached > 0
- torch.Generator().manual_seed(seed + i) for i in (2, 3)
+ torch.Generator().manual_seed(i) for i in (2, 3)
- torch.randn(shape, generator=torch.Generator().manual_seed(seed))
+ torch.randn(shape, generator=torch.Generator().manual_seed(0))
- "confidence": log_p[chosen, label].exp()
+ "confidence": log_p[chosen, label].mean().exp()
- recipe="calibrated", seed=seed, classes=classes
+ recipe="calibrated", classes=classes
networks/small.py: networks/test_zoo training/test_training
- x = F.relu(self.fc2(F.relu(self.fc1(x))))⏎        return self.fc3(F.dropout(x, self.dropout, self.training))
+ x = F.relu(self.fc2(F.relu(self.fc1(x))))⏎        return self.fc3(x)
networks/zoo.py: networks/test_zoo test_bites
- torch.manual_seed(check_seed(seed))
+ torch.manual_seed(0)
networks/splitting.py: networks/test_splitting networks/test_zoo test_bites
- x = graph.call_method("clone", (graph.placeholder("x"),))
+ x = graph.placeholder("x")
- if len(values) != 1:
+ if not values:
networks/bounds.py: networks/test_feasible networks/test_splitting
- return min(low for low, _ in intervals), max(high for _, high in intervals)
+ return max(low for low, _ in intervals), max(high for _, high in intervals)
- return low + sources[1][0], high + sources[1][1]
+ return low, high
- known = {earlier: _hull([bounds, known[node]]) for earlier, bounds in known.items()}
+ pass
networks/weights.py: networks/test_weights
- round(resize * size / side)
+ resize
panels/unlearning.py: panels/test_unlearning_panel
- {accuracy('original', 'forget')} → {accuracy('unlearned', 'forget')}
+ {accuracy('unlearned', 'forget')} → {accuracy('original', 'forget')}
- (masked {accuracy('masked', 'retain')})
+ (masked {accuracy('unlearned', 'retain')})
- times = seconds["golden"] / max(took, 1e-3)
+ times = took / max(seconds["golden"], 1e-3)
- ["golden"] = metrics["seconds"]["golden"]
+ ["golden"] = metrics["seconds"]["train"]
- code += f"-lr{rate}-w{unlearning.forget_weight:g}
+ code += f"-lr{rate}-w{unlearning.retain_weight:g}
panels/compare.py: panels/test_explorers
- changed = (is_of_class & (first != second))
+ changed = (first != second)
- self.classes[first[i]] + gap + self.classes[second[i]]
+ self.classes[second[i]] + gap + self.classes[first[i]]
panels/lab.py: panels/test_lab_panel
- f"Live: {describe(block['forget_accuracy'], block['retain_accuracy'])}."
+ f"Live: {describe(block['retain_accuracy'], block['forget_accuracy'])}."
training.py: training/test_training test_bites
- val = data.val.without(forget)
+ val = data.test.without(forget)
- train = data.train.without(forget)
+ train = data.train
- torch.manual_seed(seed * 100_003 + epoch)
+ torch.manual_seed(epoch)
- load_state(model, best)⏎
+ pass⏎
- if data.flip:
+ if False:
- smoothing * allowed / allowed.sum()
+ smoothing * allowed / len(allowed)
- if epoch + 1 == epochs else math.inf
+ if False else math.inf
__main__.py: test_shell
- {"epochs": "train_epochs", "lr": "train_lr",
+ {"epochs": "train_epochs", "lr": "label_smoothing",
- layer=args.layer, force=args.force
+ force=args.force
- open_experiment(run, data_root=args.data_root
+ open_experiment(run, data_root=None
sweep/points.py: sweep/test_sweep
- run = audit_run(experiment, run, seeds=seeds)
+ run = audit_run(experiment, run)
- for p in points if training_key
+ for p in points if p or training_key
"""  # a room and its test files, then pairs: a piece of text as it stands, and with the fault; ⏎ ends a line


def faults() -> list[tuple[str, str, str, str]]:
    """Room, its tests, old and new text of every fault."""
    found = []
    room = tests = old = ""
    for line in FAULTS.strip().replace("⏎", "\0").splitlines():
        line = line.replace("\0", "\n")
        if line.startswith("- "):
            old = line[2:]
        elif line.startswith("+ "):
            found.append((room, tests, old, line[2:]))
        else:
            room, _, tests = line.partition(": ")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=[""], nargs="+", help="the faults in whose room or text one of these stands")
    parser.add_argument("--jobs", type=int, default=1, help="copies of the repository at work at once")
    parser.add_argument("--unchecked", action="store_true", help="do not run the tests without a fault first")
    given = parser.parse_args()
    chosen = [fault for fault in faults() if any(only in part for only in given.only for part in fault)]
    moved = [fault for fault in chosen if (ROOT / "unlearn_lib" / fault[0]).read_text().count(fault[2]) != 1]
    for room, _, old, _ in moved:
        print(f"{room}: not there exactly once: {old}", file=sys.stderr)
    if moved or not chosen:
        return 2
    copies = queue.SimpleQueue()
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(given.jobs) as pool:
        for n in range(given.jobs):
            copy = Path(scratch) / str(n)
            for part in ("unlearn_lib", "tests"):
                shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(ROOT / "pyproject.toml", copy)
            copies.put(copy)
        rooms = {} if given.unchecked else {room: tests for room, tests, _, _ in chosen}
        ends = pool.map(lambda room: check(copies, room, rooms[room])[0], rooms)
        broken = [room for room, end in zip(rooms, ends, strict=True) if end]
        if broken:
            print(f"the tests of {', '.join(broken)} fail without a fault", file=sys.stderr)
            return 2
        ends = list(pool.map(lambda fault: report(copies, *fault), chosen))
    print(f"\n{ends.count('killed')} of {len(ends)} killed")
    return 0 if {*ends} <= {"killed", "survived"} else 1


def report(copies: queue.SimpleQueue, room: str, tests: str, old: str, new: str) -> str:
    """Try one fault and print what became of it: killed, survived, or broken where the library does not even load."""
    code, seconds = check(copies, room, tests, old, new)
    end = {0: "survived", 1: "killed"}.get(code, f"broken, {code}")
    print(f"| {end} | {room} | `{old}` | `{new}` | {seconds:.0f} s |".replace("\n", "⏎"), flush=True)
    return end


def check(copies: queue.SimpleQueue, room: str, tests: str, old: str = "", new: str = "") -> tuple[int, float]:
    """Run the tests in one of the copies, with a fault in the room; pytest's exit status and the seconds it took."""
    copy, begin = copies.get(), time.perf_counter()
    path = copy / "unlearn_lib" / room
    whole = path.read_text()
    files = [f"tests/{name}.py" for name in tests.split()]
    try:
        if old:
            path.write_text(whole.replace(old, new))
        process = FORKS.Process(target=run_tests, args=(copy, files))
        process.start()
        process.join(900)
        process.kill()  # a fault without an end is noticed
        process.join()
    finally:
        path.write_text(whole)
        copies.put(copy)
    code = 1 if process.exitcode == -signal.SIGKILL else process.exitcode
    return code, time.perf_counter() - begin


def run_tests(copy: Path, files: list[str]) -> None:
    """Run test files in a copy of the repository, and end with pytest's exit status."""
    places = [str(copy), str(copy / "tests")]
    os.chdir(copy)
    sys.path[:0] = places
    os.environ["PYTHONPATH"] = os.pathsep.join(places)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    sys.exit(int(pytest.main(["-x", "-q", "-n0", "-p", "no:cacheprovider", "--hypothesis-seed=0", *files])))


if __name__ == "__main__":
    sys.exit(main())
