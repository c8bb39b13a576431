"""Do the tests notice? One-line faults in the core wings, each met by the tests of its own room.

    python tests/benchmarks/bench_mutants.py [--only experiment.py] [--jobs 2]

A fault is put into a copy of the repository. It is killed where a test fails; one that survives shows a line which no
test holds. Before anything else every text has to be found exactly once, and the tests have to pass without a fault.
"""

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
FAULTS = r"""
store.py: test_store test_runs
- sha.update(f"{part.dtype}{tuple(part.shape)}".encode())
+ pass
- found = None if force else kept(path, key)
+ found = kept(path, key)
- if content.get("key") == json.loads(json.dumps(key)) else
+ if content.get("key") else
- lock.acquire()
+ pass
- if path.is_dir() and not _swap(new, path):
+ if shutil.rmtree(path, ignore_errors=True):
- if not path.exists() and _aside(path).is_dir():
+ if False:
networks/zoo.py: test_models test_bites
- torch.manual_seed(seed)
+ torch.manual_seed(0)
- return self.fc3(F.dropout(x, self.dropout, self.training))
+ return self.fc3(x)
networks/splitting.py: test_models test_bites
- tail.call_method("clone", (tail.placeholder("x"),))
+ tail.placeholder("x")
- isinstance(model.get_submodule(node.target), nn.Linear)
+ True
- node for node in used & before if node.op != "get_attr"
+ node for node in used & before
- return all(_never_negative(
+ return any(_never_negative(
networks/weights.py: test_weights
- round(resize * size / crop)
+ resize
networks/runs.py: test_runs test_bites
- if len(row) > 2 else
+ if len(row) > 1 else
- if old.get(k) != new.get(k)), None
+ if k in old and old[k] != new.get(k)), None
- if run.config.get("format") != FORMAT:
+ if False:
- if state[name].shape != tensors[name].shape
+ if False
zeroshot/unlearner.py: test_unlearning test_lab
- head.weight[list(forget)] = 0
+ pass
- model = copy.deepcopy(model).eval()
+ model = model.eval()
- masked_fill(forget, -torch.inf).logsumexp(1)
+ masked_fill(~forget, -torch.inf).logsumexp(1)
- target = original.masked_fill(forget, -torch.inf).log_softmax(1)
+ target = original.log_softmax(1)
- 0.01 if self.method == "published" else 0.0
+ 0.0
- 0.01 if self.method == "published" else 0.0
+ 0.01
- nn.utils.clip_grad_norm_(trained, 5)
+ pass
- return [*order[is_forget[order]].split(self.batch_size), *order[~is_forget[order]].split(self.batch_size)]
+ return [*order[~is_forget[order]].split(self.batch_size), *order[is_forget[order]].split(self.batch_size)]
- torch.Generator().manual_seed(self.seed)
+ torch.Generator().manual_seed(0)
- (self.forget_weight, self.retain_weight), losses
+ (1.0, 1.0), losses
- up = bool(retain) != self.switches.prose_signs
+ up = bool(retain)
- label_smoothing=self.impressions.smoothing
+ label_smoothing=0.0
- parameter.requires_grad_(flag)
+ parameter.requires_grad_(True)
zeroshot/recipes.py: test_impressions
- F.normalize(head.weight - head.weight.mean(0))
+ F.normalize(head.weight)
- loss = loss + 2e-4 * x.square().sum()
+ pass
- x.clamp_(*bounds)
+ pass
- loss = loss + roughness * (
+ loss = loss + 0 * (
- label_smoothing=SMOOTHING["calibrated"]
+ label_smoothing=0.0
- loss = loss + STATISTICS * len(x)
+ loss = loss + 0 * len(x)
- torch.optim.Adam([x], lr=0.1)
+ torch.optim.Adam([x], lr=0.2)
zeroshot/impressions.py: test_impressions
- x = torch.randn(len(labels), *shape, generator=torch.Generator().manual_seed(seed))
+ x = torch.randn(len(labels), *shape, generator=torch.Generator().manual_seed(0))
- (total - n) / (n * (n - 1))
+ total / (n * n)
- "responsive": reached >= share
+ "responsive": reached > 0
data/sets.py: test_data test_bites
- return (images.float() / 255 - mean) / std
+ return (images.float() / 255 - mean) * std
- range(int(first), int(last) + 1)
+ range(int(first), int(last))
data/sources.py: test_data
- return self.take(~torch.isin(
+ return self.take(torch.isin(
- torch.randperm(len(members), generator=generator)
+ torch.randperm(len(members))
- round(share * len(members))
+ round(share * len(split) / 10)
data/pictures.py: test_pictures
- picture = ImageOps.exif_transpose(picture)
+ pass
training.py: test_bites test_training
- data.train.without(forget), data.val.without(forget)
+ data.train.without(forget), data.test.without(forget)
- data.train.without(forget), data.val.without(forget)
+ data.train, data.val.without(forget)
- if data.flip:
+ if False:
- images.flip(-1), images)
+ images, images)
- torch.manual_seed(seed * 100_003 + epoch)
+ torch.manual_seed(epoch)
- smoothing * allowed / allowed.sum()
+ smoothing * allowed / len(allowed)
- lr=lr, weight_decay=weight_decay,
+ lr=lr, weight_decay=0.0,
- schedule.step()
+ pass
- model.load_state_dict(best)
+ pass
evaluation.py: test_evaluation test_bites
- / total if total else None
+ / count.sum().item() if total else None
- labels * num_classes + predicted
+ predicted * num_classes + labels
- model.eval()
+ model.train()
auditing/metrics.py: test_auditing
- return ((kl(p) + kl(q)) / 2)
+ return kl(p)
- first.argmax(1) == second.argmax(1)
+ first.argmax(1) == first.argmax(1)
- reader.fit(train.numpy(), train_labels.numpy())
+ reader.fit(test.numpy(), test_labels.numpy())
- _some(data.train.only([c]), samples
+ _some(data.test.only([c]), samples
- _some(data.train.only(forget), 2000
+ _some(data.train.without(forget), 2000
- torch.optim.Adam(model.parameters(), lr=1e-3)
+ torch.optim.Adam(model.parameters(), lr=1e-2)
- return batches / golden_batches if
+ return golden_batches / batches if
- if accuracy >= target
+ if accuracy > target
experiment.py: test_bites test_runs test_experiment
- method=method, layer=layer, seed=self.seed, **numbers
+ method=method, layer=layer, **numbers
- judge(mask(model, self.forget))
+ judge(model)
- steps=steps, seed=self.seed, memory=memory
+ steps=steps, memory=memory
"""  # a room and its tests (those that are there), then pairs: a piece of a line as it stands, and with the fault


def faults() -> list[tuple[str, str, str, str]]:
    """Room, its tests, old and new text of every fault."""
    found, room, tests, old = [], "", "", ""
    for line in FAULTS.strip().splitlines():
        if line.startswith("- "):
            old = line[2:]
        elif line.startswith("+ "):
            found.append((room, tests, old, line[2:]))
        else:
            room, _, tests = line.partition(": ")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="the faults in whose room or text this stands")
    parser.add_argument("--jobs", type=int, default=2, help="copies of the repository at work at once")
    given = parser.parse_args()
    chosen = [fault for fault in faults() if any(given.only in part for part in fault)]
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
        rooms = {room: tests for room, tests, _, _ in chosen}
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
    print(f"| {end} | {room} | `{old}` | `{new}` | {seconds:.0f} s |", flush=True)
    return end


def check(copies: queue.SimpleQueue, room: str, tests: str, old: str = "", new: str = "") -> tuple[int, float]:
    """Run the tests in one of the copies, with a fault in the room; pytest's exit status and the seconds it took."""
    copy, begin = copies.get(), time.perf_counter()
    path = copy / "unlearn_lib" / room
    whole = path.read_text()
    files = [f"tests/{name}.py" for name in tests.split() if (copy / f"tests/{name}.py").is_file()]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider", "--hypothesis-seed=0", *files]
    try:
        if old:
            path.write_text(whole.replace(old, new))
        code = subprocess.run(words, cwd=copy, env=environment, capture_output=True, timeout=900).returncode
    except subprocess.TimeoutExpired:
        code = 1  # a fault without an end is noticed
    finally:
        path.write_text(whole)
        copies.put(copy)
    return code, time.perf_counter() - begin


if __name__ == "__main__":
    sys.exit(main())
