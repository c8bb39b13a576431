"""What is kept is whole or absent, known by its key, and made once."""

import json
import os
import signal
import time
from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import START

from unlearn_lib import UserError, make_model, open_run
from unlearn_lib.networks import write_run
from unlearn_lib.store import (
    cached,
    digest,
    load_kept,
    load_tensors,
    lock_folder,
    read_json,
    save_kept,
    save_tensors,
    write_json,
)

values = st.one_of(st.integers(), st.floats(allow_nan=False), st.text(), st.none(), st.lists(st.integers()))


@given(st.dictionaries(st.text(), values), st.dictionaries(st.text(), values))
def test_equal_keys_and_only_they_have_the_same_digest(first, second):
    assert (digest(first) == digest(second)) == (repr(sorted(first.items())) == repr(sorted(second.items())))


def test_a_digest_sees_shape_type_and_bits():
    x = torch.arange(6.0)
    variants = [x, x.view(2, 3), x.double(), x + 1e-6, -x, x.flip(0)]
    assert len({digest(variant) for variant in variants}) == len(variants)
    assert digest(x.view(2, 3).T) == digest(x.view(2, 3).T.contiguous())


@pytest.mark.parametrize("name", ["thing.json", "thing.safetensors"])
def test_what_is_kept_comes_back_under_its_key_alone(tmp_path, name):
    path, key = tmp_path / "run" / name, {"seed": 1, "classes": (1, 2)}
    tensors = {} if path.suffix == ".json" else {"x": torch.rand(3)}
    save_kept(path, key, tensors, {"seconds": 2.5})
    found = load_kept(path, key)
    assert found[1] == {"seconds": 2.5}
    assert all(torch.equal(found[0][t], tensors[t]) for t in tensors)
    assert load_kept(path, key | {"seed": 2}) is None
    path.write_bytes(path.read_bytes()[:-9])
    assert load_kept(path, key) is None


def test_the_same_tensors_are_the_same_file(tmp_path):
    files = [tmp_path / f"{i}.safetensors" for i in range(20)]
    for file in files:
        save_tensors(file, {"x": torch.arange(3.0), "y": torch.ones(2)}, {"a": 1})
    assert len({file.read_bytes() for file in files}) == 1


def test_it_is_made_once_for_a_key_and_anew_by_force(tmp_path):
    made = []

    def make():
        made.append(1)
        return {}, {"n": len(made)}

    path = tmp_path / "run" / "thing.json"
    assert [cached(path, {"a": 1}, make)[1]["n"] for _ in range(2)] == [1, 1]
    assert cached(path, {"a": 1}, make, force=True)[1] == {"n": 2}
    assert cached(path, {"a": 2}, make)[1] == {"n": 3}


def _slowly(path, log):
    def make():
        with open(log, "a") as file:
            file.write("made\n")
        time.sleep(0.5)
        return {}, {}

    cached(path, {}, make)


def test_two_processes_that_want_the_same_do_the_work_once(tmp_path):
    workers = [START.Process(target=_slowly, args=(tmp_path / "run" / "a.json", tmp_path / "log")) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (tmp_path / "log").read_text() == "made\n"


def _hold(folder, ready):
    with lock_folder(folder):
        ready.set()
        time.sleep(60)


def test_a_process_that_dies_gives_its_lock_back(tmp_path):
    ready = START.Event()
    owner = START.Process(target=_hold, args=(tmp_path / "run", ready))
    owner.start()
    ready.wait()
    os.kill(owner.pid, signal.SIGKILL)
    with lock_folder(tmp_path / "run"):
        pass
    owner.join()


def test_a_lock_may_be_taken_again_inside_itself(tmp_path):
    with lock_folder(tmp_path / "run"), lock_folder(tmp_path / "run"):
        pass


def _write_again_and_again(root, times):
    for i in range(times):
        model = make_model("lenet5", 10, seed=i)
        write_run(
            root, "lenet5-digits-s0", {"model": "lenet5", "size": 28, "dropout": None}, model, {}, {}, classes=[0] * 10
        )


def test_a_reader_finds_a_whole_run_or_none_while_two_writers_replace_it(tmp_path):
    _write_again_and_again(tmp_path, 1)
    writers = [START.Process(target=_write_again_and_again, args=(tmp_path, 20)) for _ in range(2)]
    for writer in writers:
        writer.start()
    reads = 0
    while any(writer.is_alive() for writer in writers):
        with suppress(UserError):
            run = open_run(tmp_path, "lenet5-digits-s0")
            run.load_model()
            reads += 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert reads > 5
    open_run(tmp_path, "lenet5-digits-s0").verify()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".locks", "lenet5-digits-s0"]


def test_json_is_strict_and_whole(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []
    write_json(tmp_path / "a.json", {"b": 1, "a": 2})
    assert list(json.loads((tmp_path / "a.json").read_text())) == ["a", "b"]
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(UserError, match="a.json cannot be read"):
        read_json(tmp_path / "a.json")


def test_a_disk_that_refuses_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="runs-root: .* cannot be written"):
        write_json(tmp_path / "file" / "a.json", {})


def test_facts_that_differ_from_what_was_written_are_not_used(tmp_path):
    path = tmp_path / "facts.json"
    save_kept(path, {"a": 1}, {}, {"accuracy": 0.25})
    assert load_kept(path, {"a": 1}) == ({}, {"accuracy": 0.25})
    path.write_text(path.read_text().replace("0.25", "0.75"))
    assert load_kept(path, {"a": 1}) is None


def test_tensors_that_differ_from_what_was_written_are_damaged(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"x": torch.ones(4)})
    path.write_bytes(path.read_bytes()[:-1] + b"\x40")  # the last number becomes a larger one
    with pytest.raises(UserError, match="damaged"):
        load_tensors(path)
