"""Facts of each task, its files and its measures; what holds for all of them is in test_contracts."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from orca_sweep import data as d
from orca_sweep.errors import DataError, InputError
from orca_sweep.tasks import LOSSES, METRICS, TASKS, Task, alignment_labels, explain_unavailable, load_task_data
from orca_sweep.tasks.bundled import cut_watch_windows, generate_darcy_problems, load_watch, solve_darcy
from tests.builders.tasks import ninapro_files

HERE = Path()


def made(y, kind="dense-regression", output_shape=(1, 4), shift=0.0, **more):
    """A 1D task of ten training, ten validation and ten test samples made in memory."""
    x = np.random.default_rng(0).normal(3, 2, (30, 2, 4))
    x[10:] += shift
    splits = d.Splits(*(d.Samples(x[i : i + 10], y[i : i + 10]) for i in (0, 10, 20)))
    loss, metric = ("cross-entropy", "error") if kind == "classification" else ("mse", "mse")
    return Task(
        name="made",
        dims=1,
        sample_shape=(2, 4),
        kind=kind,
        output_shape=output_shape,
        loss=loss,
        metric=metric,
        load=lambda root, seed: splits,
        meaning="",
        source="",
        licence="",
        **more,
    )


# Records ------------------------------------------------------------------------------------------


def test_every_mistake_of_a_record_is_told_at_once():
    wrong = {"dims": 2, "kind": "dense-regresion", "loss": "mes", "metric": "erorr", "normalise_inputs": "chanel"}
    with pytest.raises(InputError) as caught:
        replace(made(np.zeros((30, 1, 4))), **wrong)
    text = str(caught.value)
    assert all(word in text for word in ("(2, 4)", "'dense-regression'", "'mse'", "'error'", "'channel'"))
    assert all(line.startswith("task 'made': ") for line in map(str, caught.value.problems))
    with pytest.raises(InputError, match="Only targets that are numbers are normalised"):
        replace(TASKS.get("digits"), normalise_targets="pointwise")


@pytest.mark.parametrize("name", TASKS.names())
def test_every_recipe_makes_a_whole_trial(name):
    from orca_sweep.trial import make_config

    task = TASKS.get(name)
    config = make_config({"task": name}).flat()
    # A recipe names momentum and betas; of the two the optimizer uses one.
    unused = {
        f"{stage}.{'betas' if config[f'{stage}.optimizer'] == 'sgd' else 'momentum'}"
        for stage in ("embedder", "finetune")
    }
    used = {path: value for path, value in task.recipe.items() if path not in unused}
    assert {path: config[path] for path in used} == used
    assert task.meaning
    assert task.source
    assert task.licence


def test_the_modules_import_without_anything_heavy():
    heavy = ("torch", "ray", "sklearn", "scipy", "mlxtend", "pandas", "seglearn")
    code = (
        "import sys; from orca_sweep.tasks import TASKS, explain_unavailable; from pathlib import Path;"
        "from orca_sweep.proxies import PROXIES, explain_missing_proxy; import orca_sweep.tasks.measures;"
        "[explain_unavailable(TASKS.get(n), Path()) for n in TASKS.names()];"
        "[explain_missing_proxy(PROXIES.get(n)) for n in PROXIES.names()];"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    # Python's own switch for warnings as errors: importing must be silent too.
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Splits and normalisation -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("digits", (897, 300, 600)), ("darcy-generated", (200, 50, 50)), ("watch-exercises", None)],
)
def test_split_sizes(name, sizes):
    data = load_task_data(TASKS.get(name), HERE, 0, None)
    found = tuple(map(len, (data.train, data.val, data.test)))
    assert found == (sizes or found)
    assert sum(found) == {"digits": 1797, "darcy-generated": 300, "watch-exercises": 1833}[name]


def test_digits_are_stratified_and_a_cut_leaves_validation_and_test_alone():
    task = TASKS.get("digits")
    whole, few, fewer = (load_task_data(task, HERE, 0, n) for n in (None, 100, 20))
    assert np.bincount(whole.test.y).min() >= 57
    assert np.bincount(few.train.y).min() >= 9
    assert np.bincount(fewer.train.y).min() >= 1
    np.testing.assert_array_equal(whole.test.x, few.test.x)
    np.testing.assert_array_equal(whole.val.y, few.val.y)
    rows = [{row.tobytes() for row in part.train.x} for part in (fewer, few, whole)]
    assert rows[0] < rows[1] < rows[2]


def watch_file(path, n_subjects=10, lengths=(300, 400)):
    """Recordings in the package's format whose first channel is the subject and whose second counts samples."""
    X, y, subject = [], [], []
    for s in range(n_subjects):
        for exercise, length in enumerate(lengths):
            X.append(np.column_stack([np.full(length, s), np.arange(length), *np.zeros((4, length))]))
            y.append(exercise)
            subject.append(s + 1)
    np.save(path, {"X": X, "y": np.array(y), "subject": np.array(subject)})
    return path


def test_watch_windows_keep_subjects_apart_and_do_not_overlap(tmp_path):
    splits = cut_watch_windows(watch_file(tmp_path / "watch.npy"), 0)
    parts = (splits.train, splits.val, splits.test)
    subjects = [set(part.x[:, 0].ravel()) for part in parts]
    assert [len(part) for part in subjects] == [6, 2, 2]
    assert len(set.union(*subjects)) == 10
    # 300 samples give two windows, 400 give three; each starts where the last ended.
    assert [len(part) for part in parts] == [30, 10, 10]
    assert set(splits.train.x[:, 1, 0]) == {0, 128, 256}
    assert (np.diff(splits.train.x[:, 1], axis=1) == 1).all()
    other = cut_watch_windows(tmp_path / "watch.npy", 1)
    assert set(other.test.x[:, 0].ravel()) != subjects[2]


def test_a_wrong_watch_file_is_named(tmp_path, monkeypatch):
    path = tmp_path / "watch.npy"
    np.save(path, {"X": 3, "y": np.zeros(1), "subject": np.ones(1)})
    with pytest.raises(DataError, match=r"watch\.npy: X is int"):
        cut_watch_windows(path, 0)
    np.save(path, {"X": [np.zeros((200, 5))], "y": np.zeros(1), "subject": np.ones(1)})
    with pytest.raises(DataError, match=r"watch.npy: X\[0\]: shape \(200, 5\)"):
        cut_watch_windows(path, 0)
    monkeypatch.setattr("orca_sweep.data.samples.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"orca-sweep\[1d\]"):
        load_watch(tmp_path, 0)


def test_statistics_are_of_the_training_samples_kept():
    y = np.random.default_rng(1).normal(5, 2, (30, 1, 4))
    how = {"normalise_inputs": "channel", "normalise_targets": "pointwise"}
    plain, moved = (load_task_data(made(y, shift=shift, **how), HERE, 0, None) for shift in (0.0, 100.0))
    np.testing.assert_array_equal(plain.train.x, moved.train.x)
    np.testing.assert_allclose(plain.train.x.mean(axis=(0, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(plain.train.x.std(axis=(0, 2)), 1, atol=1e-4)
    assert moved.test.x.min() > 10
    assert plain.target_mean.shape == (1, 1, 4)
    np.testing.assert_allclose(plain.target_mean[0], y[:10].mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(plain.train.y, y[:10].astype(np.float32))
    few = load_task_data(made(y, **how), HERE, 0, 5)
    np.testing.assert_allclose(few.target_mean[0], few.train.y.mean(axis=0), rtol=1e-5)
    assert plain.fingerprint != moved.fingerprint


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.zeros((30, 1, 5)), r"targets: shape \(10, 1, 5\). \(N, 1, 4\) was expected"),
        (np.full((30, 1, 4), np.nan), "targets: holds NaN or infinite values"),
        (np.zeros((30, 1, 4), object), "targets: holds object"),
    ],
)
def test_a_load_function_is_not_trusted(y, words):
    with pytest.raises(DataError, match=f"task 'made', train, {words}"):
        load_task_data(made(y), HERE, 0, None)


def test_labels_out_of_range_and_empty_splits_are_told():
    labels = np.array([0, 1, 2] * 10)
    task = made(labels, "classification", (2,))
    with pytest.raises(DataError, match=r"train, labels: holds the label 2\. Labels are whole numbers from 0 to 1"):
        load_task_data(task, HERE, 0, None)
    none = d.Samples(np.zeros((0, 2, 4)), np.zeros(0, int))
    full = task.load(HERE, 0).train
    with pytest.raises(DataError, match="val: no samples"):
        load_task_data(
            replace(task, output_shape=(3,), load=lambda root, seed: d.Splits(full, none, full)), HERE, 0, None
        )


# Labels for embedder training ---------------------------------------------------------------------


def test_pseudo_labels_are_seeded_and_of_training_only():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(30, 1, 4))
    other = y.copy()
    other[10:] += 50
    first, second = (load_task_data(made(values), HERE, 0, None) for values in (y, other))
    labels = alignment_labels(first, 3, 0)
    assert labels.dtype == np.int64
    assert set(labels) == {0, 1, 2}
    np.testing.assert_array_equal(labels, alignment_labels(first, 3, 0))
    np.testing.assert_array_equal(labels, alignment_labels(second, 3, 0))


def test_pseudo_labels_find_groups_and_are_never_more_than_different_targets():
    y = np.repeat(np.array([0.0, 5.0, 9.0]), 10)[np.random.default_rng(0).permutation(30)][:, None, None] * np.ones(4)
    data = load_task_data(made(y), HERE, 0, None)
    labels = alignment_labels(data, 50, 0)
    assert len(np.unique(labels)) == len(np.unique(data.train.y))
    for label in np.unique(labels):
        assert len(np.unique(data.train.y[labels == label])) == 1


def test_multi_label_targets_are_clustered_and_class_labels_are_taken_as_they_are():
    multi = np.random.default_rng(0).integers(0, 2, (30, 5))
    data = load_task_data(made(multi, "multi-label", (5,)), HERE, 0, None)
    assert data.train.y.dtype == np.float32
    assert alignment_labels(data, 4, 0).shape == (10,)
    digits = load_task_data(TASKS.get("digits"), HERE, 0, 50)
    np.testing.assert_array_equal(alignment_labels(digits, 3, 7), digits.train.y)


# Darcy --------------------------------------------------------------------------------------------


def test_constant_coefficient_agrees_with_the_series_solution():
    n, a = 29, 3.0
    axis = np.linspace(0, 1, n)
    odd = np.arange(1, 400, 2)
    waves = np.sin(np.pi * odd[:, None] * axis)
    scale = 16 / (np.pi**4 * odd[:, None] * odd * (odd[:, None] ** 2 + odd**2))
    exact = np.einsum("ij,ix,jy->xy", scale, waves, waves) / a
    found = solve_darcy(np.full((n, n), a))
    assert np.linalg.norm(found - exact) / np.linalg.norm(exact) < 2e-3
    assert exact.max() == pytest.approx(0.07367 / a, rel=1e-3)


def test_the_error_falls_with_the_square_of_the_step_for_a_smooth_coefficient():
    errors = []
    for n in (17, 33):
        x, y = np.meshgrid(*[np.linspace(0, 1, n)] * 2, indexing="ij")
        a, u, p = 2 + x, np.sin(np.pi * x) * np.sin(np.pi * y), np.pi
        source = 2 * p**2 * a * u - p * np.cos(p * x) * np.sin(p * y)
        errors.append(np.abs(solve_darcy(a, source) - u).max())
    assert 3.5 < errors[0] / errors[1] < 4.5


def test_the_flux_out_of_the_square_is_the_source_inside():
    a, u = (arrays[0] for arrays in generate_darcy_problems(300, 29))
    assert not any(edge.any() for edge in (u[0], u[-1], u[:, 0], u[:, -1]))
    face = 2 * a[1] * a[0] / (a[1] + a[0]), 2 * a[-2] * a[-1] / (a[-2] + a[-1])
    side = 2 * a[:, 1] * a[:, 0] / (a[:, 1] + a[:, 0]), 2 * a[:, -2] * a[:, -1] / (a[:, -2] + a[:, -1])
    flux = (face[0] * u[1] + face[1] * u[-2])[1:-1].sum() + (side[0] * u[:, 1] + side[1] * u[:, -2])[1:-1].sum()
    # Every one of the 27 x 27 inner nodes carries a cell of source 1.
    assert flux == pytest.approx(27**2 / 28**2)


def test_darcy_inputs_are_coefficient_and_coordinates():
    data = load_task_data(TASKS.get("darcy-generated"), HERE, 0, None)
    x = data.train.x
    assert set(np.unique(x[:, 0])) == {-1.0, 1.0}
    axis = np.linspace(0, 1, 29, dtype=np.float32)
    np.testing.assert_array_equal(x[3, 1], np.repeat(axis[:, None], 29, axis=1))
    np.testing.assert_array_equal(x[3, 2], np.repeat(axis[None], 29, axis=0))
    share = (x[:, 0] > 0).mean()
    assert 0.4 < share < 0.6
    mean, std = data.target_mean, data.target_std
    assert mean.shape == std.shape == (1, 1, 29, 29)
    scaled = (data.train.y - mean) / std
    assert np.abs(scaled.mean(axis=0)).max() < 1e-3
    assert scaled[:, :, 1:-1, 1:-1].std(axis=0).mean() == pytest.approx(1, abs=0.02)
    assert std.min() > 0


# Files of the benchmark ---------------------------------------------------------------------------


def satellite_files(root, n_train=120, n_test=24):
    for part, count in (("train", n_train), ("test", n_test)):
        series = np.random.default_rng(count).normal(size=(count, 46))
        np.save(root / f"satellite_{part}.npy", {"data": series, "label": np.arange(count) % 24 + 1})


def test_ninapro_takes_the_three_files_as_they_are(tmp_path):
    ninapro_files(tmp_path)
    data = load_task_data(TASKS.get("ninapro"), tmp_path, 0, None)
    for part, count in zip(("train", "val", "test"), (40, 5, 4), strict=True):
        samples = getattr(data, part)
        raw = np.load(tmp_path / f"ninaPro/ninapro_{part}.npy")
        assert samples.x.shape == (count, 1, 16, 52)
        np.testing.assert_array_equal(samples.x[:][:, 0], raw.transpose(0, 2, 1).astype(np.float32))
        np.testing.assert_array_equal(samples.y, np.load(tmp_path / f"ninaPro/label_{part}.npy"))
    assert load_task_data(TASKS.get("ninapro"), tmp_path, 1, None).fingerprint == data.fingerprint


def test_a_wrong_ninapro_file_is_named(tmp_path):
    task = TASKS.get("ninapro")
    assert len(explain_unavailable(task, tmp_path)) == 6
    with pytest.raises(DataError, match=r"ninapro_train.npy: cannot be read"):
        load_task_data(task, tmp_path, 0, None)
    ninapro_files(tmp_path)
    assert explain_unavailable(task, tmp_path) == []
    np.save(tmp_path / "ninaPro/label_test.npy", np.array([0, 1, 2, 18]))
    with pytest.raises(DataError, match=r"label_test.npy: holds the label 18. .* from 0 to 17"):
        load_task_data(task, tmp_path, 0, None)
    np.save(tmp_path / "ninaPro/label_test.npy", np.arange(3))
    with pytest.raises(DataError, match=r"label_test.npy: shape \(3,\). \(4\) was expected"):
        load_task_data(task, tmp_path, 0, None)


@pytest.mark.parametrize("split_seed", [0, 1])
def test_satellite_validation_is_as_large_as_test_outside_training_and_no_row_is_lost(tmp_path, split_seed):
    satellite_files(tmp_path)
    data = load_task_data(TASKS.get("satellite"), tmp_path, split_seed, None)
    assert [len(part) for part in (data.train, data.val, data.test)] == [96, 24, 24]
    whole = d.read_pickled_dict(tmp_path / "satellite_train.npy", ("data",))["data"].astype(np.float32)
    rows = [{row.tobytes() for row in part.x[:]} for part in (data.train, data.val)]
    assert not rows[0] & rows[1]
    assert rows[0] | rows[1] == {row.tobytes() for row in whole}
    assert set(data.val.y) == set(range(24))
    test = d.read_pickled_dict(tmp_path / "satellite_test.npy", ("data",))["data"]
    np.testing.assert_array_equal(data.test.x[:][:, 0], test.astype(np.float32))
    np.testing.assert_array_equal(data.test.y, np.arange(24))
    other = load_task_data(TASKS.get("satellite"), tmp_path, split_seed + 1, None)
    assert {row.tobytes() for row in other.val.x[:]} != rows[1]


def test_a_wrong_satellite_file_is_named(tmp_path):
    task = TASKS.get("satellite")
    satellite_files(tmp_path, 24, 24)
    with pytest.raises(DataError, match=r"satellite/\w+: 24 training and 24 test samples. .* swapped"):
        load_task_data(task, tmp_path, 0, None)
    path = tmp_path / "satellite_train.npy"
    for value, words in (
        ({"data": np.zeros((3, 45)), "label": np.ones(3)}, r"data: shape \(3, 45\). \(N, 46\) was expected"),
        ({"data": np.zeros((3, 46)), "label": np.zeros(3)}, "label: holds the label 0.0. .* from 1 to 24"),
        ({"x": np.zeros((3, 46))}, r"keys data, label was expected, found \['x'\]"),
        ([1, 2], "not a readable .npy file|holds an array|was expected"),
    ):
        np.save(path, np.array(value, dtype=object))
        with pytest.raises(DataError, match=f"satellite_train.npy: .*({words})"):
            load_task_data(task, tmp_path, 0, None)


def test_a_file_that_would_run_a_command_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    satellite_files(tmp_path)
    np.save(tmp_path / "satellite_train.npy", {"data": Evil(), "label": np.ones(3)})
    with pytest.raises(DataError, match=r"satellite_train.npy: the pickle asks for \w+.system"):
        load_task_data(TASKS.get("satellite"), tmp_path, 0, None)
    assert not (tmp_path / "ran").exists()


# Measures -----------------------------------------------------------------------------------------


def test_dense_metrics_by_hand():
    t = np.array([[[3.0, 4.0]], [[0.0, 2.0]]])
    p = np.array([[[3.0, 9.0]], [[1.0, 2.0]]])
    # ||(0, 5)|| / 5 = 1 and ||(1, 0)|| / 2 = 0.5
    assert METRICS.get("relative-l2").compute(p, t) == pytest.approx(0.75)
    assert METRICS.get("nrmse").compute(p, t) == pytest.approx(0.75)
    assert METRICS.get("mse").compute(p, t) == pytest.approx(26 / 4)


def test_macro_f1_counts_only_classes_that_were_met():
    logits = np.eye(4)[[0, 0, 1, 2]]
    target = np.array([0, 1, 1, 2])
    # F1: 2/3, 2/3, 1; class 3 is in neither targets nor predictions.
    assert METRICS.get("macro-f1-error").compute(logits, target) == pytest.approx(1 - (2 / 3 + 2 / 3 + 1) / 3)
    assert METRICS.get("macro-f1-error").compute(np.eye(4)[target], target) == 0


def test_macro_f1_agrees_with_scikit_learn():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=(200, 6)), rng.integers(0, 5, 200)
    expected = 1 - f1_score(target, logits.argmax(axis=1), average="macro")
    assert METRICS.get("macro-f1-error").compute(logits, target) == pytest.approx(expected, abs=1e-12)


def test_a_zero_target_counts_its_absolute_error_in_loss_and_metric():
    t, p = np.zeros((2, 1, 2), np.float32), np.full((2, 1, 2), 0.5, np.float32)
    t[1] = 1
    expected = (np.sqrt(0.5) + np.sqrt(0.5) / np.sqrt(2)) / 2
    assert METRICS.get("relative-l2").compute(p, t) == pytest.approx(expected)
    prediction = torch.from_numpy(p).requires_grad_()
    loss = LOSSES.get("relative-l2").function(prediction, torch.from_numpy(t))
    loss.backward()
    assert loss.item() == pytest.approx(expected)
    assert prediction.grad.abs().max() < 1
    perfect = torch.zeros(1, 1, 2, requires_grad=True)
    LOSSES.get("relative-l2").function(perfect, torch.zeros(1, 1, 2)).backward()
    assert torch.isfinite(perfect.grad).all()


@pytest.mark.parametrize("name", METRICS.names())
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_prediction_that_is_not_finite_gives_nan(name, bad):
    classes = name in ("error", "macro-f1-error")
    prediction = np.zeros((3, 2))
    prediction[1, 0] = bad
    target = np.array([0, 1, 1]) if classes else np.ones((3, 2))
    assert np.isnan(METRICS.get(name).compute(prediction, target))


def test_shapes_that_would_broadcast_are_refused():
    p, t = np.zeros((3, 1)), np.ones(3)
    for name in ("mse", "relative-l2", "nrmse"):
        with pytest.raises(InputError, match=r"shape \(3, 1\), targets of shape \(3,\)"):
            METRICS.get(name).compute(p, t)
        with pytest.raises(InputError, match="have their target's shape"):
            LOSSES.get(name).function(torch.from_numpy(p), torch.from_numpy(t))
    for prediction, target in ((np.zeros((2, 3)), np.zeros(3, int)), (np.zeros((0, 3)), np.zeros(0, int))):
        with pytest.raises(InputError, match="one prediction for every sample of a split"):
            METRICS.get("error").compute(prediction, target)


def test_losses_by_hand():
    logits = torch.tensor([[0.0, 0.0], [0.0, np.log(3.0)]])
    assert LOSSES.get("cross-entropy").function(logits, torch.tensor([0, 1])).item() == pytest.approx(
        (np.log(2) - np.log(0.75)) / 2, rel=1e-5
    )
    assert LOSSES.get("bce").function(torch.zeros(2, 3), torch.ones(2, 3)).item() == pytest.approx(np.log(2), rel=1e-5)
    # A mean over samples, not ORCA's sum: twice the batch, the same loss.
    p, t = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0]])
    assert LOSSES.get("relative-l2").function(p, t) == LOSSES.get("relative-l2").function(
        p.repeat(2, 1), t.repeat(2, 1)
    )


def test_metrics_are_of_the_whole_split_so_batch_means_differ():
    # Error and relative L2 are means over samples: only an uneven last batch gives a batch mean away.
    logits, target = np.eye(2)[[0, 0, 0, 0, 1]], np.array([0, 0, 0, 0, 0])
    batches = [METRICS.get("error").compute(logits[i : i + 4], target[i : i + 4]) for i in (0, 4)]
    assert (METRICS.get("error").compute(logits, target), np.mean(batches)) == (pytest.approx(0.2), 0.5)
