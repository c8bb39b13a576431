import numpy as np
import pytest
import torch
from folders import write_picture

from unlearn_lib import parse_classes

TO_TEN = sorted(map(str, range(1, 11)))  # a folder of classes 1 to 10: 1, 10, 2, ...


@pytest.mark.parametrize(
    "given, classes, expected",
    [
        ("2", ["0", "1", "10", "11", "2"], [4]),
        ("10", TO_TEN, [1]),
        (["1", "10"], TO_TEN, [0, 1]),
        ("0", TO_TEN, [0]),  # no class has that name
        (2, ["0", "1", "10", "11", "2"], [2]),  # an int is an index
        (np.int64(2), TO_TEN, [2]),
        (torch.tensor([0, 2]), TO_TEN, [0, 2]),
        (range(2), TO_TEN, [0, 1]),
        ("1-2", ["1-2", "3-4", "5"], [0]),
        ("0-1", ["1-2", "3-4", "5"], [0, 1]),
        ("1-3", TO_TEN, [1, 2, 3]),
        ("01", ["00", "01", "1"], [1]),
        ("-1", ["0", "-1"], [1]),
        ("1.5", ["1", "1.5"], [1]),
        ("a b", ["a", "a b"], [1]),
        ("~", ["a", "~"], [1]),
        ("n01440764", ["tench", "n01440764"], [1]),
        ("", ["", "a"], [0]),
        (("3", "3", 3), ["a", "b", "c", "d"], [3]),
    ],
)
def test_parse_classes_prefers_a_name_to_an_index(given, classes, expected):
    assert parse_classes(given, classes, wnids=["n01440764", *classes[1:]]) == expected
    assert parse_classes(expected, classes) == expected


@pytest.mark.parametrize(
    "given, said",
    [
        ("0", "0 was read as an index: class 1 (1)"),
        (1, "1 was read as an index: class 1 (10)"),
        ("0-2", "0-2 was read as an index: class 3 (1, 10, 2)"),
    ],
)
def test_parse_classes_logs_indices_where_names_are_numbers(log_text, given, said):
    parse_classes(given, TO_TEN)
    assert said in log_text()


@pytest.mark.parametrize("given", ["1", ["10", "2"]])
def test_parse_classes_logs_nothing_for_names(log_text, given):
    parse_classes(given, TO_TEN)
    assert not log_text()


@pytest.mark.parametrize(
    "given",
    [
        *["11", "11-12", "5-4", "-1", "0--1", "1.0", "1e0", "²", "ant", "1,2", "[1]", "~nobody", ".", "/", "-", ""],
        *[" 1", "1 ", "x" * 300, "a\0b", None, 1.0, -1, 10, [None], [[1]], [b"1"]],
    ],
)
def test_parse_classes_refuses_what_is_not_a_class(given):
    with pytest.raises(ValueError, match="forget: no class .* is accepted"):
        parse_classes(given, TO_TEN)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_parse_classes_reads_files_of_every_editor(tmp_path, encoding, end):
    (tmp_path / "list.txt").write_bytes(end.join(["élan", " bee ", "", "0-1"]).encode(encoding))
    assert parse_classes(str(tmp_path / "list.txt"), ["ant", "bee", "cow", "élan"]) == [0, 1, 3]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le", "utf-32"])
def test_parse_classes_refuses_files_of_other_encodings(tmp_path, encoding):
    (tmp_path / "list.txt").write_bytes("élan\n".encode(encoding))
    with pytest.raises(ValueError, match="forget: .*list.txt is not text in UTF-8 or UTF-16"):
        parse_classes(str(tmp_path / "list.txt"), ["ant", "élan"])


def test_parse_classes_refuses_a_file_that_names_itself(tmp_path):
    path = write_picture(tmp_path / "list.txt", str(tmp_path / "list.txt").encode())
    with pytest.raises(ValueError, match="forget: no class .*list.txt"):
        parse_classes(str(path), ["ant", "bee"])
