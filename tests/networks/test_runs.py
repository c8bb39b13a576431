import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_lib import make_model, runs_root
from unlearn_lib.networks.runs import class_code, load_weights, run_name

FORGET = [1, 2, 3, 4]


@pytest.mark.parametrize(
    "classes, code",
    [([1, 2, 3, 4], "1-4"), ([8, 3, 4], "3_4_8"), ([0], "0"), ([0, 1], "0_1"), ([0, 1, 2, 5, 7, 8, 9], "0-2_5_7-9")],
)
def test_classes_are_named_by_index_and_rows_of_three_by_their_ends(classes, code):
    assert class_code(classes) == code


@given(*[st.sets(st.integers(0, 999), min_size=1)] * 2)
def test_a_code_is_short_and_another_set_has_another(first, second):
    assert len(class_code(first)) <= 40
    assert (class_code(first) == class_code(second)) == (first == second)


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\xff" * 64])
def test_a_damaged_model_file_is_named(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="model file: .* is damaged or no safetensors file"):
        load_weights(make_model("lenet5", 10), tmp_path / "model.safetensors")


def test_a_folder_that_cannot_be_written_is_refused():
    with pytest.raises(ValueError, match="runs-root: got /dev/null/runs"):
        runs_root("/dev/null/runs")


@pytest.mark.parametrize("version", ["../up", "a/b", "v" * 240, "\u00e9" * 120])
def test_a_version_name_that_is_no_part_of_a_folders_name_is_refused(version):
    with pytest.raises(ValueError, match="version-name"):
        run_name("lenet5", "digits", 0, version=version)
