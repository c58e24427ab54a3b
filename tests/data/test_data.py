"""Readers that trust nothing, and splits; what holds for every registered task is in test_contracts."""

import contextlib
import os
import pickle
import re
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orca_sweep import data as d
from orca_sweep.errors import DataError, InputError


class Call:
    """Pickles as a call of a function, as an attacker would write it."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def pickled_npy(path, value, protocol=4):
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(value, file, protocol=protocol)
    return path


# Readers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("function", [os.system, os.mkdir, eval, exec], ids=lambda f: f.__name__)
def test_no_pickle_runs_anything(tmp_path, function, protocol):
    trace = tmp_path / "ran"
    argument = {
        os.system: f"mkdir {trace}", os.mkdir: str(trace),
        eval: f"__import__('os').mkdir({str(trace)!r})", exec: f"import os; os.mkdir({str(trace)!r})",
    }[function]  # fmt: skip
    path = pickled_npy(tmp_path / "evil.npy", {"data": Call(function, argument)}, protocol)
    with pytest.raises(DataError) as caught:
        d.read_pickled_npy(path)
    assert not trace.exists()
    assert str(path) in str(caught.value)
    assert re.search(rf"asks for \w+\.{function.__name__}\. Only NumPy arrays", str(caught.value))
    # The control: the standard unpickler does run it, so the file is armed.
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        pickle.load(file)
    assert trace.exists()


def test_a_dotted_way_around_the_list_is_closed(tmp_path):
    # Protocol 4 may ask for "ndarray.__reduce__" of an allowed module: the whole name has to be on the list.
    code = b"\x80\x04\x8c\x05numpy\x8c\x12ndarray.__reduce__\x93."
    path = pickled_npy(tmp_path / "dotted.npy", None)
    head = path.read_bytes()[: -len(pickle.dumps(None, 4))]
    path.write_bytes(head + code)
    with pytest.raises(DataError, match=r"numpy\.ndarray\.__reduce__"):
        d.read_pickled_npy(path)


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_files_of_old_and_new_numpy_are_read(tmp_path, module):
    value = {"data": np.arange(6.0).reshape(2, 3), "mean": np.float64(2.5), "names": ["a", "b"]}
    path = tmp_path / "both.npy"
    np.save(path, value)
    text = path.read_bytes()
    ours = b"numpy._core.multiarray" if b"numpy._core.multiarray" in text else b"numpy.core.multiarray"
    start = text.index(b"\n") + 1
    # Protocol 0 and 1 write module names as plain lines, so they can be exchanged without a length to mend.
    body = pickle.dumps(np.array(value, dtype=object), protocol=1).replace(ours, module.encode())
    assert module.encode() in body
    path.write_bytes(text[:start] + body)
    read = d.read_pickled_npy(path)
    np.testing.assert_array_equal(read["data"], value["data"])
    assert (read["mean"], read["names"]) == (2.5, ["a", "b"])


@pytest.mark.parametrize("read", [d.read_npy, d.read_pickled_npy], ids=lambda f: f.__name__)
def test_a_missing_file_is_named_with_what_to_do(tmp_path, read):
    with pytest.raises(DataError, match="Put the file there") as caught:
        read(tmp_path / "absent.npy")
    assert str(tmp_path / "absent.npy") in str(caught.value)


@pytest.mark.parametrize("read", [d.read_npy, d.read_pickled_npy], ids=lambda f: f.__name__)
@settings(max_examples=300, deadline=None, derandomize=True)
@given(position=st.integers(0, 400), junk=st.binary(min_size=1, max_size=8), keep=st.integers(0, 400))
def test_damaged_files_end_in_a_data_error_or_a_value(tmp_path_factory, read, position, junk, keep):
    path = tmp_path_factory.getbasetemp() / f"damaged_{read.__name__}.npy"
    np.save(path, {"data": np.arange(9.0), "label": [1, 2]} if read is d.read_pickled_npy else np.arange(9.0))
    whole = bytearray(path.read_bytes())
    whole[position : position + len(junk)] = junk
    path.write_bytes(bytes(whole[:keep]) if keep < 200 else bytes(whole))
    # Anything but a DataError gets through and fails.
    with contextlib.suppress(DataError):
        read(path)


def test_a_plain_array_is_no_pickled_dict_and_the_other_way_round(tmp_path):
    np.save(tmp_path / "plain.npy", np.zeros(3))
    np.save(tmp_path / "dict.npy", {"a": 1})
    with pytest.raises(DataError, match=r"holds an array \(3,\) of float64. Pickled objects \(\) were expected"):
        d.read_pickled_npy(tmp_path / "plain.npy")
    with pytest.raises(DataError, match=r"not a plain \.npy array"):
        d.read_npy(tmp_path / "dict.npy")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([[1, 2], [3]], "Rows of equal length"),
        (np.zeros((2, 3), complex), "holds complex128. Real numbers were expected"),
        (np.array([[object()] * 3]), "holds object. Real numbers were expected"),
        (np.zeros((3,)), r"shape \(3,\). \(N, 3\) was expected"),
        (np.array([[0, 1, np.inf]]), "NaN or infinite"),
    ],
)
def test_a_wrong_array_is_said_to_be_wrong(value, words):
    with pytest.raises(DataError, match=f"here: .*{words}"):
        d.check_array(value, "here", (None, 3))


def test_labels_may_be_a_column_and_floats_but_must_be_classes():
    np.testing.assert_array_equal(d.check_labels(np.array([[1.0], [3.0]]), "here", 2, 1, 3), [0, 2])
    np.testing.assert_array_equal(d.check_labels(np.array([1, 3], np.uint8), "here", 2, 1, 3), [0, 2])
    with pytest.raises(DataError, match=r"here: holds the label 4\. Labels are whole numbers from 1 to 3"):
        d.check_labels(np.array([1, 4]), "here", 2, 1, 3)
    with pytest.raises(DataError, match=r"here: shape \(1, 2\). \(2, 1\) was expected"):
        d.check_labels(np.array([[1, 2]]), "here", 2, 1, 3)


# Splits -------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(4, 80),
    n_val=st.integers(0, 20),
    n_test=st.integers(0, 20),
    seed=st.integers(0, 99),
    k=st.integers(0, 5),
)
def test_random_splits_partition(n, n_val, n_test, seed, k):
    labels = np.arange(n) % k if k else None
    if n_val + n_test >= n:
        with pytest.raises(DataError, match="At least one must be left to train on"):
            d.split_random(n, n_val, n_test, seed, labels)
        return
    parts = d.split_random(n, n_val, n_test, seed, labels)
    assert [len(part) for part in parts] == [n - n_val - n_test, n_val, n_test]
    assert sorted(np.concatenate(parts)) == list(range(n))
    assert all((np.diff(part) > 0).all() for part in parts)


def test_groups_stay_whole():
    groups = np.repeat(np.array([7, 3, 9, 1, 4]), [5, 1, 8, 2, 4])
    train, val, test = d.split_groups(groups, 1, 2, 0)
    found = [set(groups[part]) for part in (train, val, test)]
    assert [len(part) for part in found] == [2, 1, 2]
    assert len(set.union(*found)) == 5
    assert len(train) + len(val) + len(test) == len(groups)


@pytest.mark.parametrize("labels", [None, np.array([0] * 90 + [1] * 9 + [2])], ids=["plain", "stratified"])
def test_a_smaller_subsample_lies_in_a_larger_one(labels):
    kept = [set(d.subsample(100, n, 5, labels)) for n in (3, 10, 40, 100)]
    assert [len(part) for part in kept] == [3, 10, 40, 100]
    assert kept[0] < kept[1] < kept[2] < kept[3]
    assert set(d.subsample(100, 10, 6, labels)) != kept[1]
    if labels is not None:
        assert {labels[i] for i in kept[0]} == {0, 1, 2}
        assert np.bincount(labels[list(kept[2])])[0] == pytest.approx(36, abs=1)


def test_a_subsample_of_indices_gives_indices_and_too_many_are_refused():
    rows = np.arange(50, 100)
    np.testing.assert_array_equal(d.subsample(rows, 8, 0), d.subsample(50, 8, 0) + 50)
    with pytest.raises(InputError, match="n_keep = 51: there are 50 samples"):
        d.subsample(rows, 51, 0)


def test_missing_packages_are_named_as_pip_knows_them(monkeypatch):
    assert d.missing_packages("task 't'", ("numpy",), None) == []
    monkeypatch.setattr(d.samples, "find_spec", lambda name: None)
    assert d.missing_packages("task 't'", ("sklearn",), None) == [
        "task 't' needs the package scikit-learn, which is not installed. Run: pip install scikit-learn"
    ]
    assert d.missing_packages("task 't'", ("seglearn",), "1d")[0].endswith("Run: pip install 'orca-sweep[1d]'")
    assert "seglearn" not in sys.modules
