"""A user's own data by declaration, in every kind of file and of target."""

import numpy as np
import pytest
import yaml

from orca_sweep.config import declaration
from orca_sweep.config.naming import label_of
from orca_sweep.errors import DataError, InputError
from orca_sweep.tasks import (
    canonicalise_task,
    explain_unavailable,
    find_declared_task_problems,
    find_task,
    load_task_data,
)
from orca_sweep.trial import make_config

N = 60
X = np.random.default_rng(0).normal(size=(N, 2, 16)).astype(np.float32)
Y = np.arange(N) % 3


def task(path, **more):
    shapes = {"sample_shape": "2x16", "output_shape": "3"}
    fields = {"kind": "classification", **shapes, "normalise": "none", **more}  # samples are told by their numbers
    return find_task(canonicalise_task(" ".join([str(path), *(f"{key}={value}" for key, value in fields.items())])))


def save(folder, ending, x=X, y=Y, g=None):
    """Saves arrays in a kind of file and returns its path, and what must be declared beside it."""
    path = folder / f"mine{ending}"
    arrays = {"x": x, "y": y} | ({} if g is None else {"g": g})
    if ending == ".npz":
        np.savez_compressed(path, **arrays)
    elif ending == ".npy":
        np.save(path, x)
        np.save(folder / "y.npy", y)
        return path, {}
    elif ending == ".h5":
        import h5py

        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[f"in/{name}"] = array.tolist() if array.dtype.kind == "U" else array
        return path, {"input": "in/x", "target": "in/y"}
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {name: pa.array(array.tolist()) for name, array in arrays.items() if name != "x"}
        numbers = x.reshape(len(x), int(np.prod(x.shape[1:]))).tolist()
        columns["x"] = pa.array(numbers, pa.list_(pa.float32()))
        pq.write_table(pa.table(columns), path, row_group_size=7)
    return path, {}


@pytest.mark.parametrize("ending", [".npz", ".npy", ".h5", ".parquet"])
def test_every_kind_of_file_gives_the_same_samples(tmp_path, ending):
    path, more = save(tmp_path, ending)
    mine = task(path, **more)
    assert explain_unavailable(mine, tmp_path / "data") == []
    assert "(60, " in mine.files[0].check(tmp_path)
    data = load_task_data(mine, tmp_path / "data", 0, None)
    assert [len(part) for part in (data.train, data.val, data.test)] == [48, 6, 6]
    rows = np.concatenate([part.x[:] for part in (data.train, data.val, data.test)])
    labels = np.concatenate([part.y for part in (data.train, data.val, data.test)])
    order = [int(np.flatnonzero((row == X).all(axis=(1, 2)))[0]) for row in rows]
    assert sorted(order) == list(range(N))
    np.testing.assert_array_equal(labels, Y[order])
    assert all(np.bincount(part.y).tolist() == [len(part) // 3] * 3 for part in (data.train, data.val, data.test))
    again = load_task_data(mine, tmp_path / "data", 1, None)
    assert {row.tobytes() for row in again.test.x[:]} != {row.tobytes() for row in data.test.x[:]}


def test_columns_side_by_side_are_a_sample_too(tmp_path):
    import pandas as pd

    frame = pd.DataFrame({f"c{i}": X[:, 0, i] for i in range(3)} | {"y": Y})
    frame.to_parquet(tmp_path / "t.parquet")
    data = load_task_data(task(tmp_path / "t.parquet", input="c2,c0", sample_shape="1x2"), tmp_path, 0, None)
    found = {tuple(row[0]) for row in data.train.x[:]}
    assert found <= {(row[2], row[0]) for row in X[:, 0, :3].tolist()}


KINDS = {
    "classification": ({"output_shape": "3"}, Y),
    "multi-label": ({"output_shape": "4"}, (X[:, 0, :4] > 0).astype(int)),
    "regression": ({"output_shape": "2"}, X.mean(axis=2)),
    "dense-regression": ({"output_shape": "1x16"}, X[:, :1] * 3 + 1),
    "dense-classification": ({"output_shape": "3x16"}, np.digitize(X[:, 0], [-0.5, 0.5])),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_target_trains_and_is_scored(tmp_path, run, kind):
    more, y = KINDS[kind]
    if kind == "dense-classification":
        y = np.where(np.arange(16) < 2, -1, y)  # points that do not count
    path, _ = save(tmp_path, ".npz", y=y)
    name = task(path, kind=kind, **more).declaration
    row, epochs = run(
        task=name, body__name="roberta-micro", body__pretrain_fraction=0, proxy="pydoc-topics", embedder__epochs=1,
        embedder__proxy_samples=40, finetune__epochs=12, finetune__lr=3e-3, finetune__batch_size=16,
    )  # fmt: skip
    assert row["error"] is None
    assert row["status"] == "ok"
    assert np.isfinite(row["test_metric_best"])
    losses = [epoch["train_loss"] for epoch in epochs if epoch["stage"] == "finetune"]
    assert losses[-1] < 0.95 * losses[0]
    assert (row["n_train"], row["n_val"], row["n_test"]) == (48, 6, 6)


@pytest.mark.parametrize(
    ("body", "n_classes", "is_alike"),
    [
        ("swin-micro", 1, False),
        ("swin-micro", 2, True),
        ("swin-base", 5, False),
        ("swin-base", 6, True),
        ("roberta-base", 5, False),
        ("roberta-base", 6, True),
    ],
)
def test_classes_that_no_training_can_tell_apart_are_refused(tmp_path, body, n_classes, is_alike):
    labels = np.zeros((N, 1, 8, 8)) if n_classes == 1 else np.zeros((N, 8, 8), dtype=int)
    path, _ = save(tmp_path, ".npz", x=np.zeros((N, 1, 8, 8), dtype=np.float32), y=labels)
    shapes = {"sample_shape": "1x8x8", "output_shape": f"{n_classes}x8x8"}
    settings = {
        "task": task(path, kind="dense-classification", **shapes).declaration,
        "body.name": body,
        "proxy": "none",
    }
    assert make_config(settings).predictor.dense == ("linear" if n_classes > 1 else "released")
    settings["predictor.dense"] = "released"
    if is_alike:
        with pytest.raises(InputError, match=r"some of these are always equal. Set predictor.dense: linear"):
            make_config(settings)
    else:
        assert make_config(settings).predictor.dense == "released"


def test_a_binary_mask_takes_nan_where_a_point_does_not_count(tmp_path):
    mask = (X[:, :1] > 0).astype(np.float32)
    mask[:, :, :3] = np.nan
    path, _ = save(tmp_path, ".npz", y=mask)
    mine = task(path, kind="dense-classification", output_shape="1x16")
    assert (mine.loss, mine.metric) == ("masked-bce", "point-auroc-error")
    data = load_task_data(mine, tmp_path, 0, None)
    assert np.isnan(data.train.y[:][:, :, :3]).all()
    with pytest.raises(DataError, match=r"mine.npz: target holds NaN or infinite"):
        load_task_data(task(path, kind="dense-regression", output_shape="1x16"), tmp_path, 0, None)


def test_groups_stay_whole_and_a_test_file_stays_the_test(tmp_path):
    groups = np.arange(N) // 6
    path, _ = save(tmp_path, ".npz", g=groups)
    data = load_task_data(task(path, group="g", val_share=0.2, test_share=0.3), tmp_path, 0, None)
    of = [{groups[np.flatnonzero((row == X).all(axis=(1, 2)))[0]] for row in part.x[:]}
          for part in (data.train, data.val, data.test)]  # fmt: skip
    assert [len(part) for part in of] == [5, 2, 3]
    assert len(set.union(*of)) == 10
    (tmp_path / "other").mkdir()
    held, _ = save(tmp_path / "other", ".npz", x=X[:9] + 100, y=Y[:9])
    for seed in (0, 1):
        data = load_task_data(task(path, test=held), tmp_path, seed, None)
        assert [len(part) for part in (data.train, data.val, data.test)] == [54, 6, 9]
        np.testing.assert_array_equal(data.test.x[:], X[:9] + 100)


@pytest.mark.parametrize("ending", [".npz", ".npy", ".h5", ".parquet"])
@pytest.mark.parametrize("kind", ["text", "float"])
def test_groups_are_names_or_numbers_of_any_kind(tmp_path, ending, kind):
    names = np.array([f"subject {i}" for i in np.arange(N) // 6]) if kind == "text" else np.arange(N) // 6 / 10
    path, more = save(tmp_path, ending, g=names)
    if ending == ".npy":
        np.save(tmp_path / "who.npy", names)
        more = {"group": "who"}
    elif ending == ".h5":
        more = {**more, "group": "in/g"}
    else:
        more = {"group": "g"}
    data = load_task_data(task(path, **more), tmp_path, 0, None)
    of = [{str(names[np.flatnonzero((row == X).all(axis=(1, 2)))[0]]) for row in part.x[:]}
          for part in (data.train, data.val, data.test)]  # fmt: skip
    assert [len(part) for part in of] == [8, 1, 1]
    assert len(set.union(*of)) == 10


def test_groups_that_change_are_seen_and_those_of_the_test_file_are_its_own(tmp_path):
    path, _ = save(tmp_path, ".npy")
    np.save(tmp_path / "g.npy", np.arange(N) // 6)
    mine = task(path, group="g")
    first = load_task_data(mine, tmp_path, 0, None)
    np.save(tmp_path / "g.npy", np.arange(N) % 12)
    assert load_task_data(mine, tmp_path, 0, None).fingerprint != first.fingerprint
    (tmp_path / "other").mkdir()
    one, _ = save(tmp_path, ".npz", g=np.arange(N) // 6)
    two, _ = save(tmp_path / "other", ".npz", x=X[:9] + 100, y=Y[:9], g=np.full(9, 3))
    with pytest.raises(DataError, match="group '3' is in training and in test"):
        load_task_data(task(one, group="g", test=two), tmp_path, 0, None)
    with pytest.raises(InputError, match="the test file is the training file"):
        task(one, test=one)
    for groups in (np.zeros((N, 2)), np.where(np.arange(N) == 3, np.nan, 1.0), np.arange(N - 1)):
        bad, _ = save(tmp_path, ".npz", g=groups)
        with pytest.raises(DataError, match="group 'g' (is|holds)|59 rows of group"):
            load_task_data(task(bad, group="g"), tmp_path, 0, None)


def test_settings_that_change_no_array_share_one_conversion(tmp_path):
    path, _ = save(tmp_path, ".npz")
    for more in ({}, {"metric": "macro-f1-error"}, {"normalise": "channel"}, {"val_share": 0.2}):
        load_task_data(task(path, **more), tmp_path, 0, None)
    assert len(list((tmp_path / "converted").glob("[!.]*"))) == 1
    ids = {
        make_config({"task": task(path, **more).declaration}).trial_id
        for more in ({}, {"loss": "cross-entropy"}, {"metric": "error"})
    }
    assert len(ids) == 1


def test_masked_numbers_are_normalised_by_what_is_known(tmp_path):
    y = X[:, :1] * 3 + 7
    y[:, :, :5] = np.nan
    path, _ = save(tmp_path, ".npz", y=y)
    mine = task(path, kind="dense-regression", output_shape="1x16", loss="masked-mse", normalise="channel")
    assert mine.metric == "mse"
    data = load_task_data(mine, tmp_path, 0, None)
    known = data.train.y[:][:, :, 5:]
    np.testing.assert_allclose(data.target_mean.ravel(), known.mean(), rtol=1e-5)
    np.testing.assert_allclose(data.target_std.ravel(), known.std(), rtol=1e-4)
    with pytest.raises(InputError, match="metric 'relative-l2' with loss 'masked-mse'"):
        task(path, kind="dense-regression", output_shape="1x16", loss="masked-mse", metric="relative-l2")


def test_labels_per_point_are_whole_numbers(tmp_path):
    path, _ = save(tmp_path, ".npz", y=np.full((N, 16), 0.7))
    with pytest.raises(DataError, match="holds the label 0.7"):
        load_task_data(task(path, kind="dense-classification", output_shape="3x16"), tmp_path, 0, None)


def test_inputs_are_normalised_by_training_alone(tmp_path):
    path, _ = save(tmp_path, ".npz")
    data = load_task_data(task(path, normalise="channel"), tmp_path, 0, None)
    np.testing.assert_allclose(data.train.x[:].mean(axis=(0, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(data.train.x[:].std(axis=(0, 2)), 1, atol=1e-4)
    assert abs(data.test.x[:].mean()) > 1e-4


def test_one_declaration_has_one_name_however_it_is_written(tmp_path, monkeypatch):
    path, _ = save(tmp_path, ".npz")
    monkeypatch.chdir(tmp_path)
    mapping = yaml.safe_load("{path: mine.npz, kind: classification, output_shape: 3, sample_shape: [2, 16], input: x}")
    forms = (
        mapping,
        {key: mapping[key] for key in reversed(mapping)},
        "./mine.npz sample_shape=2x16 output_shape=3 kind=classification",
        f"{path} kind=classification output_shape=3 sample_shape=2x16 val_share=0.1",
    )
    configs = [make_config({"task": declaration.task_as_text(form), "seed": 0}) for form in forms]
    assert len({config.trial_id for config in configs}) == 1
    assert configs[0].task == f"{path} kind=classification output_shape=3 sample_shape=2x16"
    assert configs[0].body.name == "roberta-micro"
    assert label_of(configs[0].task) == "mine.npz"
    assert label_of("digits") == "digits"
    spaced = declaration.task_as_text({**mapping, "path": "my own file.npz"})
    assert declaration.parse_task(spaced).path == "my own file.npz"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"kind": "clasification"}, "there is no kind 'clasification'. Did you mean 'classification'?"),
        ({"loss": "mes"}, "there is no loss 'mes'"),
        ({"metric": "eror"}, "there is no metric 'eror'. Did you mean 'error'?"),
        ({"sample_shape": "2y16"}, "sample_shape '2y16' is not a shape"),
        ({"output_shape": "0"}, "output_shape '0' is not a shape"),
        ({"inputs": "x"}, "has no 'inputs'. Did you mean 'input'?"),
        ({"val_share": "1.5"}, "val_share '1.5' is not a share"),
        ({"val_share": "0.6", "test_share": "0.5"}, "leave nothing to train on"),
        ({"loss": "mse"}, "loss 'mse' for kind 'classification'"),
        ({"normalise": "chanel"}, "there is no normalisation 'chanel'. Did you mean 'channel'?"),
        ({"sample_shape": "16"}, "dims is 1 with"),
    ],
)
def test_a_wrong_declaration_says_what_and_where(more, words):
    with pytest.raises(InputError) as caught:
        task("mine.npz", **more)
    assert words in str(caught.value)


def test_what_is_no_kind_of_file_or_misses_a_word_is_said():
    with pytest.raises(InputError, match=r"mine.csv is not a kind of file that can be read: .npz, .npy"):
        task("mine.csv")
    with pytest.raises(InputError, match="sample_shape, output_shape is missing"):
        find_task("mine.npz kind=classification")
    with pytest.raises(InputError, match=r"there is no task 'digit'. Did you mean 'digits'\?.* your own data"):
        find_task("digit")


@pytest.mark.parametrize("ending", [".npz", ".npy", ".h5", ".parquet"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": X[:, :, :15]}, r"samples of shape .*(2, 15|30).* declared"),
        ({"x": np.where(np.arange(16) == 3, np.nan, X)}, "input holds NaN"),
        ({"y": Y + 1}, "holds the label 3. Labels are whole numbers from 0 to 2"),
        ({"y": Y + 0.5}, "holds the label 0.5"),
        ({"y": Y % 2}, "no training sample of class 2"),
        ({"x": X[:0], "y": Y[:0]}, "0 rows of input"),
    ],
    ids=["shape", "nan", "label", "fraction", "class", "empty"],
)
def test_bad_files_are_one_error_and_leave_nothing(tmp_path, ending, change, words):
    path, more = save(tmp_path, ending, **change)
    with pytest.raises(DataError, match=f"(mine|y){ending}.*({words})|{words}"):
        load_task_data(task(path, **more), tmp_path / "data", 0, None)
    if "class" not in words:
        assert not list((tmp_path / "data/converted").glob("[!.]*"))


@pytest.mark.parametrize("ending", [".npz", ".npy", ".h5", ".parquet"])
def test_files_that_are_cut_off_or_not_there(tmp_path, ending):
    path, more = save(tmp_path, ending)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    mine = task(path, **more)
    with pytest.raises(DataError, match=f"mine{ending}: "):
        load_task_data(mine, tmp_path / "data", 0, None)
    path.unlink()
    assert f"needs the file {path}" in explain_unavailable(mine, tmp_path / "data")[0]
    with pytest.raises(DataError, match=f"mine{ending}: cannot be read"):
        load_task_data(mine, tmp_path / "data", 0, None)


def test_arrays_and_columns_that_are_not_there_are_named(tmp_path):
    for ending, words in (
        (".npz", "there is no array 'z' in it"), (".h5", "there is no data set 'z' in it"),
        (".parquet", "there is no column 'z' in it"), (".npy", "z.npy: cannot be read"),
    ):  # fmt: skip
        path, more = save(tmp_path, ending)
        with pytest.raises(DataError, match=words):
            load_task_data(task(path, **{**more, "target": "z"}), tmp_path / "data", 0, None)


def test_uneven_lists_and_empty_cells_of_a_table_are_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for cells, words in (([[1.0, 2.0], [3.0]], "lists of different lengths"), ([[1.0, None], [3.0, 4.0]], "empty cells"),
                         ([[1.0], None], "empty cells"), (["a", "b"], "Numbers, or lists of numbers"),
                         ([[1.0] * (2 + (i == 61) - (i == 63)) for i in range(400)], "lists of different lengths")):  # fmt: skip
        pq.write_table(pa.table({"x": cells, "y": [0] * len(cells)}), tmp_path / "t.parquet")
        with pytest.raises(DataError, match=words):
            load_task_data(task(tmp_path / "t.parquet", sample_shape="1x2"), tmp_path, 0, None)


def test_targets_of_the_samples_shape_are_refused_in_words(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((6, 1, 8, 8)), y=np.zeros((6, 1, 8, 8), int))
    text = f"{tmp_path / 'a.npz'} kind=classification output_shape=2 sample_shape=1x8x8"
    (problem,) = find_declared_task_problems(text)
    assert "target: samples of shape (1, 8, 8). () was declared" in problem
