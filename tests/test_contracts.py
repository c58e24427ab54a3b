"""Splits, safe readers, tasks, proxies and measures."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from orca_sweep import data as d
from orca_sweep.errors import DataError, InputError
from orca_sweep.proxies import CHAPTERS, PROXIES, corpus_texts, unavailable_proxy
from orca_sweep.tasks import TASKS, Task, alignment_labels, task_data, unavailable
from orca_sweep.tasks.embedded import darcy_problems, load_watch, solve_darcy
from orca_sweep.tasks.measures import LOSSES, METRICS

OFFLINE = ["digits", "darcy-generated", "watch-exercises"]


class Bomb:
    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


# Readers ------------------------------------------------------------------------------------------


def test_a_pickle_that_asks_for_anything_else_is_refused_and_nothing_runs(tmp_path):
    bomb = Bomb()
    bomb.path = tmp_path / "exploded"
    path = tmp_path / "bad.npy"
    np.save(path, {"data": bomb, "label": np.zeros(3)})
    with pytest.raises(DataError, match=r"asks for posix.system|asks for nt.system"):
        d.read_pickled_npy(path)
    assert not bomb.path.exists()
    with pytest.raises(DataError, match="not a plain .npy"):
        d.read_npy(path)
    with pytest.raises(DataError, match="cannot be read"):
        d.read_npy(tmp_path / "missing.npy")


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickled_dict_of_arrays_is_read(tmp_path, protocol):
    path = tmp_path / "good.npy"
    value = {"data": np.arange(6.0).reshape(2, 3), "label": [1, 2], "n": np.float32(3)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(np.array(value, dtype=object), file, protocol=protocol)
    read = d.read_pickled_dict(path, ("data", "label"))
    np.testing.assert_array_equal(read["data"], value["data"])
    with pytest.raises(DataError, match=r"keys data, y was expected, found \['data', 'label', 'n'\]"):
        d.read_pickled_dict(path, ("data", "y"))


@pytest.mark.parametrize("junk", [b"", b"<html>403</html>", b"\x93NUMPY\x01\x00v\x00{'descr'"])
def test_junk_is_said_to_be_junk(tmp_path, junk):
    path = tmp_path / "junk.npy"
    path.write_bytes(junk)
    for read in (d.read_npy, d.read_pickled_npy):
        with pytest.raises(DataError, match="junk.npy"):
            read(path)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros((3, 4)), r"shape \(3, 4\). \(N, 5\) was expected"),
        (np.full((3, 5), np.nan), "NaN or infinite"),
        (np.full((3, 5), "a"), "numbers were expected"),
    ],
)
def test_arrays_are_not_trusted(value, words):
    with pytest.raises(DataError, match=words):
        d.check_array(value, "file", (None, 5))


@pytest.mark.parametrize("labels", [[0, 1], [1, 2, 5], [1, 2.5, 3]])
def test_labels_are_not_trusted(labels):
    with pytest.raises(DataError):
        d.check_labels(np.array(labels), "file", 3, 1, 4)


# Splits -------------------------------------------------------------------------------------------


def test_random_splits_are_disjoint_whole_seeded_and_stratified():
    labels = np.arange(200) % 4
    train, val, test = d.split_random(200, 40, 60, 3, labels)
    assert sorted(np.concatenate([train, val, test])) == list(range(200))
    assert [np.bincount(labels[part]).tolist() for part in (val, test)] == [[10] * 4, [15] * 4]
    again, other = d.split_random(200, 40, 60, 3, labels), d.split_random(200, 40, 60, 4, labels)
    np.testing.assert_array_equal(test, again[2])
    assert set(test) != set(other[2])
    with pytest.raises(DataError):
        d.split_random(10, 5, 5, 0)


def test_subsampling_keeps_every_class():
    labels = np.array([0] * 95 + [1] * 5)
    kept = d.subsample(100, 10, 0, labels)
    assert len(kept) == 10
    assert set(labels[kept]) == {0, 1}


def test_fingerprints_see_every_bit():
    a = np.zeros(4, np.float32)
    b = a.copy()
    b[3] = np.nextafter(np.float32(0), np.float32(1))
    assert len({d.fingerprint(x) for x in (a, b, a.astype(np.float64), a.reshape(2, 2))}) == 4


# Tasks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OFFLINE)
def test_a_task_keeps_its_word(name, tmp_path):
    task = TASKS.get(name)
    data = task_data(task, tmp_path, 0, task.recipe.get("data.n_train"))
    parts = (data.train, data.val, data.test)
    assert all(part.x.shape[1:] == task.sample_shape and part.x.dtype == np.float32 for part in parts)
    assert len(data.train) == (task.recipe.get("data.n_train") or len(data.train))
    rows = [{row.tobytes() for row in part.x} for part in parts]
    assert not (rows[0] & rows[1] or rows[0] & rows[2] or rows[1] & rows[2])
    assert task_data(task, tmp_path, 0, 50).fingerprint == task_data(task, tmp_path, 0, 50).fingerprint
    assert task_data(task, tmp_path, 1, 50).fingerprint != task_data(task, tmp_path, 0, 50).fingerprint
    with pytest.raises(InputError, match="has .* training samples"):
        task_data(task, tmp_path, 0, 10**6)
    labels = alignment_labels(data, 10, 0)
    assert labels.shape == (len(data.train),)
    np.testing.assert_array_equal(labels, alignment_labels(data, 10, 0))


def test_watch_windows_are_split_by_subject(tmp_path):
    splits = load_watch(tmp_path, 0)
    assert sum(map(len, (splits.train, splits.val, splits.test))) == 1833
    other = load_watch(tmp_path, 5)
    assert {r.tobytes() for r in splits.test.x} != {r.tobytes() for r in other.test.x}


def test_normalisation_sees_training_only(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (30, 1, 4, 4)).astype(np.float32), rng.normal(5, 2, (30, 1, 4, 4))

    def load(shift):
        def read(root, seed):
            parts = [
                d.Samples(x[i : i + 10] + (shift if i else 0), y[i : i + 10] * (1 + shift * (i > 0)))
                for i in (0, 10, 20)
            ]
            return d.Splits(*parts)

        return read

    tasks = [
        Task(
            "t",
            2,
            (1, 4, 4),
            "dense",
            (1, 4, 4),
            "mse",
            "mse",
            load(s),
            "",
            "",
            "",
            normalise_inputs="channel",
            normalise_targets="pointwise",
        )
        for s in (0.0, 100.0)
    ]
    plain, shifted = (task_data(task, tmp_path, 0, None) for task in tasks)
    np.testing.assert_array_equal(plain.train.x, shifted.train.x)
    np.testing.assert_array_equal(plain.target_std, shifted.target_std)
    assert abs(plain.train.x.mean()) < 1e-5
    assert shifted.val.x.mean() > 10


def test_darcy_is_solved():
    n = 33
    axis = np.linspace(0, 1, n)
    exact = np.sin(np.pi * axis)[:, None] * np.sin(np.pi * axis)
    found = solve_darcy(np.full((n, n), 3.0), 3 * 2 * np.pi**2 * exact)
    assert np.abs(found - exact).max() < 2e-3
    coefficients, pressures = darcy_problems(300, 29)
    assert set(np.unique(coefficients)) == {3.0, 12.0}
    assert pressures.min() == 0
    edges = np.concatenate([pressures[:, 0], pressures[:, -1], pressures[:, :, 0]], axis=1)
    assert not edges.any()
    # A jump along x: the flux a u' is continuous across it in one dimension's worth of problem.
    a = np.where(axis[:, None] < 0.5, 3.0, 12.0) * np.ones((n, n))
    assert solve_darcy(a)[:16].max() > solve_darcy(a)[17:].max()


def write_ninapro(root, n=6, width=16):
    (root / "ninaPro").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part in ("train", "val", "test"):
        np.save(root / f"ninaPro/ninapro_{part}.npy", rng.normal(size=(n, 52, width)))
        np.save(root / f"ninaPro/label_{part}.npy", np.arange(n) % 18)


def test_ninapro_reads_the_original_format(tmp_path):
    task = TASKS.get("ninapro")
    assert "ninapro_train.npy, which is not there" in unavailable(task, tmp_path)[0]
    write_ninapro(tmp_path)
    assert not unavailable(task, tmp_path)
    data = task_data(task, tmp_path, 0, None)
    raw = np.load(tmp_path / "ninaPro/ninapro_val.npy")
    np.testing.assert_array_equal(data.val.x[2, 0], raw[2].T.astype(np.float32))
    np.save(tmp_path / "ninaPro/ninapro_val.npy", np.zeros((6, 16, 52)))
    with pytest.raises(DataError, match=r"ninapro_val.npy: shape \(6, 16, 52\). \(N, 52, 16\) was expected"):
        task_data(task, tmp_path, 0, None)


def test_satellite_validation_is_cut_out_of_training_and_no_row_is_lost(tmp_path):
    rng = np.random.default_rng(0)
    n = {"train": 240, "test": 24}
    for part, count in n.items():
        value = {"data": rng.normal(size=(count, 46)), "label": np.arange(count) % 24 + 1}
        np.save(tmp_path / f"satellite_{part}.npy", value)
    data = task_data(TASKS.get("satellite"), tmp_path, 0, None)
    assert [len(p) for p in (data.train, data.val, data.test)] == [216, 24, 24]
    raw = np.load(tmp_path / "satellite_train.npy", allow_pickle=True).item()["data"].astype(np.float32)
    train, val = ({row.tobytes() for row in part.x[:, 0]} for part in (data.train, data.val))
    assert not train & val
    assert train | val == {row.tobytes() for row in raw}
    assert data.train.y.min() == 0
    assert data.train.y.max() == 23


def test_a_wrong_task_record_is_refused():
    task = TASKS.get("digits")
    with pytest.raises(InputError, match="no loss 'cross-entrpy'. Did you mean 'cross-entropy'"):
        Task(**{**vars(task), "loss": "cross-entrpy"})
    with pytest.raises(InputError, match="dims is 1 with"):
        Task(**{**vars(task), "dims": 1})
    with pytest.raises(InputError, match="taken"):
        TASKS.add(task)


# Measures -----------------------------------------------------------------------------------------


def test_metrics_by_hand():
    logits = np.array([[2.0, 1], [0, 1], [3, 1]])
    assert METRICS["error"].compute(logits, np.array([0, 1, 1])) == pytest.approx(1 / 3)
    # Class 0: precision 1/2, recall 1, F1 2/3; class 1: precision 1, recall 1/2, F1 2/3.
    assert METRICS["macro-f1-error"].compute(logits, np.array([0, 1, 1])) == pytest.approx(1 / 3)
    p, t = np.array([[1.0, 1]]), np.array([[1.0, 0]])
    assert METRICS["relative-l2"].compute(p, t) == pytest.approx(1)
    assert METRICS["mse"].compute(p, t) == pytest.approx(0.5)
    assert np.isnan(METRICS["mse"].compute(np.array([[np.inf]]), np.array([[0.0]])))


def test_macro_f1_is_of_the_whole_split_not_a_mean_over_batches():
    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=(40, 4)), rng.integers(0, 4, 40)
    compute = METRICS["macro-f1-error"].compute
    batched = np.mean([compute(logits[i : i + 8], target[i : i + 8]) for i in range(0, 40, 8)])
    assert abs(compute(logits, target) - batched) > 0.003


@pytest.mark.parametrize("name", sorted(set(LOSSES) & set(METRICS)))
def test_losses_and_metrics_of_one_name_agree(name):
    rng = np.random.default_rng(0)
    p, t = (rng.normal(size=(7, 1, 5)).astype(np.float32) for _ in range(2))
    assert float(LOSSES[name](torch.from_numpy(p), torch.from_numpy(t))) == pytest.approx(
        METRICS[name].compute(p, t), rel=1e-5
    )


# Proxies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in PROXIES.names() if n != "none"])
def test_a_proxy_keeps_its_word(name):
    proxy = PROXIES.get(name)
    assert not unavailable_proxy(proxy)
    data = proxy.load()
    assert len(data.inputs) == len(data.labels) > 100
    assert sorted(np.unique(data.labels)) == list(range(proxy.n_classes))
    assert proxy.load().fingerprint == data.fingerprint
    if proxy.kind == "image":
        assert data.inputs.dtype == np.float32
        assert 0 <= data.inputs.min() < data.inputs.max() <= 1
    else:
        assert all(isinstance(text, str) and text for text in data.inputs)


def test_none_has_no_data_and_the_corpus_holds_every_chapter():
    with pytest.raises(InputError, match="naive fine-tuning"):
        PROXIES.get("none").load()
    assert len(CHAPTERS) == 10
    assert len(corpus_texts()) > 1000


def test_records_need_no_heavy_import():
    heavy = "torch, ray, sklearn, scipy, mlxtend, transformers, pandas, matplotlib".split(", ")
    code = f"import sys, orca_sweep.trial, orca_sweep.space, orca_sweep.cli; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
