"""A user's files as tasks: what comes in as it is, and what is refused, by name and before anything is trained."""

import datetime
import decimal
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from orca_sweep.api.planning import make_plan
from orca_sweep.config.declaration import parse_task, task_as_text
from orca_sweep.data import Rows, Samples, Splits
from orca_sweep.errors import DataError, InputError
from orca_sweep.tasks import (
    TASKS,
    Task,
    canonicalise_task,
    explain_unavailable,
    find_declared_task_problems,
    find_task,
    load_task_data,
)
from orca_sweep.trial import load_imports

N = 40
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3, 24, 20)).astype(np.float32)
Y = np.arange(N) % 4
IMAGES = {"kind": "classification", "sample_shape": [3, 24, 20], "output_shape": 4}


def named(path, **more):
    return canonicalise_task(task_as_text({**IMAGES, "path": str(path), **more}))


def loaded(path, root, split_seed=0, **more):
    return load_task_data(
        find_task(named(path, **more)), root, split_seed, None, "none"
    )  # samples are told by their numbers


def npz(folder, name="mine.npz", x=X, y=Y, **more):
    np.savez(folder / name, x=x, y=y, **more)
    return folder / name


def plan_of(folder, task, **more):
    space = folder / "space.yaml"
    space.write_text(yaml.safe_dump({"base": {"task": task, "proxy": "none", **more}, "seeds": 1}))
    return make_plan(space)


# Tables -------------------------------------------------------------------------------------------

ROWS = 60
DAYS = pd.date_range("2026-01-01", periods=ROWS)
PLAIN = np.arange(ROWS) * 86400.0


def encoded(folder, column):
    (folder / "openml").mkdir(exist_ok=True)
    table = pd.DataFrame({"c": column, "plain": PLAIN, "target": np.arange(ROWS) % 3})
    table.to_parquet(folder / "openml/7.parquet")
    return load_task_data(find_task("openml:7"), folder, 0, None).train.x


@pytest.mark.parametrize(
    "column",
    [
        DAYS,
        DAYS.tz_localize("Asia/Tokyo"),
        [day.date() for day in DAYS],
        pd.to_timedelta(np.arange(ROWS), "D"),
        [f"{day:%Y-%m-%d}" for day in DAYS],
        [f"{day:%Y-%m-%dT%H:%M:%S}Z" for day in DAYS],
        [decimal.Decimal(i) / 7 for i in range(ROWS)],
        [f"{i / 7:.12f}" for i in range(ROWS)],
        [f" {i}e3" for i in range(ROWS)],
        pd.array(np.arange(ROWS), "Int64"),
    ],
    ids=["times", "zones", "dates", "spans", "iso-dates", "iso-times", "decimals", "text", "blanks", "nullable"],
)
def test_times_decimals_and_numbers_as_text_are_numbers(tmp_path, column):
    x = encoded(tmp_path, column)
    assert x.shape == (48, 1, 2)
    np.testing.assert_allclose(x[:, 0, 0], x[:, 0, 1], atol=1e-5)  # the same line, standardised


def test_a_time_of_day_is_seconds_and_what_is_missing_is_the_mean(tmp_path):
    x = encoded(tmp_path, [datetime.time(i // 6, i % 6 * 10) for i in range(ROWS)])
    np.testing.assert_allclose(x[:, 0, 0], x[:, 0, 1], atol=1e-5)
    x = encoded(tmp_path, [None if i == 3 else day for i, day in enumerate(DAYS)])
    assert x.shape == (48, 1, 2)
    assert np.isfinite(x).all()
    assert encoded(tmp_path, ["" if i == 3 else str(i) for i in range(ROWS)]).shape == (48, 1, 2)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (
            [f"animal {i}" for i in range(ROWS)],
            r"c: 60 different values in 60 rows, such as 'animal 0'.*Leave the column",
        ),
        ([f"n{i % 31}" for i in range(ROWS)], "c: 31 different values in 60 rows"),
        (pd.Categorical([f"n{i}" for i in range(ROWS)]), "c: 60 different values"),
        ([None if i > 9 else f"n{i}" for i in range(ROWS)], "c: 10 different values in 10 rows"),
        (["?" if i == 5 else f"{i}.5" for i in range(ROWS)], r"1 of them are not numbers, the first '\?' in row 5"),
        ([f"1_{i}" for i in range(ROWS)], "c: 60 different values"),
        ([[i, 2] for i in range(ROWS)], "c: holds lists"),
        ([bytes([i]) for i in range(ROWS)], "c: holds bytes"),
        ([np.inf if i == 4 else i for i in range(ROWS)], "c: holds infinite values, the first in row 4"),
    ],
    ids=["names", "half", "categorical", "few-known", "one-mark", "underscore", "lists", "bytes", "infinite"],
)
def test_a_column_that_is_neither_number_nor_category_is_refused_by_name(tmp_path, column, words):
    with pytest.raises(DataError, match=words):
        encoded(tmp_path, column)


def test_categories_stay_categories_however_many(tmp_path):
    assert encoded(tmp_path, pd.Categorical([str(i % 3) for i in range(ROWS)])).shape == (48, 3, 2)
    assert encoded(tmp_path, np.arange(ROWS) % 2 == 0).shape == (48, 2, 2)
    assert encoded(tmp_path, [f"n{i % 30}" for i in range(ROWS)]).shape[1] > 20
    from orca_sweep.tasks.columns import encode_table

    many = pd.DataFrame({"c": [f"n{i % 150}" for i in range(600)]})
    assert encode_table(many, np.arange(600), "t").shape == (600, 150, 1)
    with pytest.raises(DataError, match="t: c: 100000 levels in 200000 rows are more than 2 GiB"):
        encode_table(pd.DataFrame({"c": [f"n{i % 100000}" for i in range(200000)]}), np.arange(200000), "t")


def test_all_wrong_columns_are_named_at_once_and_read_ones_are_told(tmp_path):
    (tmp_path / "openml").mkdir()
    table = pd.DataFrame({"who": [f"n{i}" for i in range(ROWS)], "blob": [b"x"] * ROWS, "when": DAYS, "t": PLAIN,
                          "text": [str(i) for i in range(ROWS)], "target": np.arange(ROWS) % 3})  # fmt: skip
    table.to_parquet(tmp_path / "openml/7.parquet")
    task = find_task("openml:7")
    with pytest.raises(DataError, match=r"(?s)who: 60 different.*blob: holds bytes"):
        task.files[0].check(tmp_path)
    table.drop(columns=["who", "blob"]).to_parquet(tmp_path / "openml/7.parquet")
    assert task.files[0].check(tmp_path) == "60 rows, 3 columns (as numbers: when, text), 3 classes"


def test_declared_parquet_takes_decimals_and_yes_or_no_and_refuses_times_by_name(tmp_path):
    table = pd.DataFrame(
        {"x": [decimal.Decimal(i) / 4 for i in range(N)], "b": np.arange(N) % 2 == 0, "when": DAYS[:N]}
    )
    table.to_parquet(tmp_path / "t.parquet")
    more = {"sample_shape": [1, 1], "output_shape": 2, "target": "b"}
    data = loaded(tmp_path / "t.parquet", tmp_path, **more)
    assert set(data.train.y) == {0, 1}
    assert data.train.x[:].max() > 9
    (problem, *_) = find_declared_task_problems(named(tmp_path / "t.parquet", **more, input="when"))
    assert "when holds timestamp" in problem


# Files of arrays ----------------------------------------------------------------------------------


def test_channels_last_is_offered_and_declared(tmp_path):
    path = npz(tmp_path, x=np.moveaxis(X, 1, -1))
    assert find_declared_task_problems(named(path)) == [
        f"{path}: input: samples of shape (24, 20, 3). (3, 24, 20) was declared. Its channels come last: declare"
        " layout: channels-last."
    ]
    with pytest.raises(
        InputError, match=r"means 24 channels of 20 x 3 points.*write sample_shape \[3, 24, 20\] and layout"
    ):
        find_task(named(path, sample_shape=[24, 20, 3]))
    data = loaded(path, tmp_path, layout="channels-last")
    straight = loaded(npz(tmp_path, "first.npz"), tmp_path)
    np.testing.assert_array_equal(data.train.x[:], straight.train.x[:])
    (problem,) = find_declared_task_problems(named(npz(tmp_path, "first.npz"), layout="channels-last"))
    assert "Its channels come first: leave layout out" in problem
    with pytest.raises(InputError, match="there is no layout 'channel-last'. Did you mean 'channels-last'"):
        find_task(named(path, layout="channel-last"))
    assert named(path, layout="channels-first") == named(path)
    meant = named(path, sample_shape=[24, 20, 3], layout="channels-first")
    assert find_declared_task_problems(meant) == []
    assert canonicalise_task(meant) == meant


def test_other_orders_of_axes_are_named_too(tmp_path):
    for order, back in (((0, 1, 3, 2), (0, 1, 3, 2)), ((1, 2, 3, 0), (3, 0, 1, 2)), ((3, 2, 1, 0), (3, 2, 1, 0))):
        path = npz(tmp_path, x=np.ascontiguousarray(np.transpose(X, order)))
        assert f"save it as np.transpose(array, {back})" in find_declared_task_problems(named(path))[0]
    signals = np.moveaxis(X[:, :, 0], 1, -1)
    path = npz(tmp_path, x=signals)
    shapes = {"sample_shape": [3, 20], "layout": "channels-last"}
    np.testing.assert_array_equal(np.sort(loaded(path, tmp_path, **shapes).train.x[:][:, :, 0], 0).shape, (32, 3))
    with pytest.raises(InputError, match="64 channels of 2 steps"):
        find_task(named(path, sample_shape=[64, 2]))


def test_dense_targets_follow_the_layout(tmp_path):
    path = npz(tmp_path, x=np.moveaxis(X, 1, -1), y=np.moveaxis(X[:, :2] * 2, 1, -1))
    more = {"kind": "dense-regression", "output_shape": [2, 24, 20], "layout": "channels-last"}
    data = loaded(path, tmp_path, **more)
    np.testing.assert_array_equal(data.train.y[:], data.train.x[:][:, :2] * 2)


@pytest.mark.parametrize("how", ["external", "link", "folder-link", "virtual", "soft"])
@pytest.mark.parametrize("role", ["input", "target", "group"])
def test_hdf5_never_reads_outside_of_the_file(tmp_path, role, how):
    import h5py

    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(range(256)) * 40)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["v"] = np.arange(N)
        file["in/v"] = np.arange(N)
    names = {"input": "x", "target": "y", "group": "g"}
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        for name, values in (("x", X), ("y", Y), ("g", np.arange(N) // 4)):
            if name != names[role]:
                file[name] = values
            elif how == "external":
                file.create_dataset(name, (N,), "i4", external=[(str(secret), 0, 4 * N)])
            elif how == "link":
                file[name] = h5py.ExternalLink("other.h5", "v")
            elif how == "folder-link":
                file["far"] = h5py.ExternalLink("other.h5", "in")
            elif how == "soft":
                file["real"] = values
                file[name] = h5py.SoftLink("/real")
            else:
                layout = h5py.VirtualLayout((N,), "i8")
                layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "v", (N,))
                file.create_virtual_dataset(name, layout)
    if how == "folder-link":
        names[role] = "far/v"
    problems = find_declared_task_problems(named(tmp_path / "mine.h5", **names))
    words = {"external": "in an external file, outside of this file", "link": "is a link to another file (other.h5)",
             "folder-link": "far is a link to another file", "virtual": "it is virtual",
             "soft": "Name its target instead: /real"}  # fmt: skip
    assert any(words[how] in problem for problem in problems)
    with pytest.raises(DataError, match=r"mine\.h5"):
        loaded(tmp_path / "mine.h5", tmp_path, **names)


def test_near_names_of_files_arrays_and_columns_are_offered(tmp_path):
    import h5py

    with h5py.File(tmp_path / "mine.hdf5", "w") as file:
        file["train/input"], file["train/label"] = X, Y
    task = find_task(named(tmp_path / "mine.h5", input="input", target="train/labels"))
    (text,) = explain_unavailable(task, tmp_path)
    assert text.endswith("mine.h5, which is not there. Did you mean 'mine.hdf5'?")
    assert "fetch" not in text
    problems = find_declared_task_problems(named(tmp_path / "mine.hdf5", input="inputs", target="train/labels"))
    assert "no data set 'inputs' in it. Did you mean 'train/input'?" in problems[0]
    assert "no data set 'train/labels' in it. Did you mean 'train/label'?" in problems[1]
    assert "mimes.npz" not in explain_unavailable(find_task(named(tmp_path / "other.npz")), tmp_path)[0]
    (text,) = explain_unavailable(find_task(named(npz(tmp_path).with_name("mien.npz"))), tmp_path)
    assert "Did you mean 'mine.npz'?" in text
    for ending, words in ((".NPZ", "Rename it to end in .npz"), (".csv", r"to_parquet\("), (".tsv", r"to_parquet\(")):
        with pytest.raises(InputError, match=words):
            find_task(named(tmp_path / f"mine{ending}"))


@pytest.mark.parametrize(
    ("change", "more", "words"),
    [
        ({"x": np.where(np.arange(N * 1440).reshape(X.shape) == 7 * 1440 + 25, np.nan, X)}, {},
         r"input holds NaN or infinite values, the first \(nan\) in row 7, place \[0, 1, 5\]"),
        ({"x": np.where(np.arange(N * 1440).reshape(X.shape) == 39 * 1440, 1e300, X.astype(float))}, {},
         r"input holds 1e\+300 in row 39, place \[0, 0, 0\], more than float32"),
        ({"y": np.where(np.arange(N) == 11, 4, Y)}, {}, r"the label 4.*row 11 has this one"),
        ({"y": np.where(np.arange(N) == 12, -1, Y)}, {}, r"the label -1.*row 12 has this one"),
        ({"y": X[:, 0, 0, :2] * np.where(np.arange(N) == 5, np.inf, 1)[:, None]}, {"kind": "regression", "output_shape": 2},
         r"target holds NaN or infinite values, the first \(-?inf\) in row 5, column 0"),
        ({"y": np.where(np.eye(N, 4, -6) > 0, 2, 1)}, {"kind": "multi-label"}, "target holds 2 in row 6, column 0"),
        ({"y": np.where(np.arange(N * 480).reshape(N, 24, 20) == 480 * 3 + 21, 9, 1)},
         {"kind": "dense-classification", "output_shape": [4, 24, 20]}, r"the label 9 in row 3, place \[1, 1\]"),
        ({"y": np.where(np.arange(N) == 3, np.inf, 1.0 * Y)[:, None]},
         {"kind": "regression", "output_shape": 1, "loss": "masked-mse"}, r"target holds NaN or infinite.*row 3, column 0"),
    ],
    ids=["nan", "overflow", "label", "negative", "infinite", "multi-label", "point", "masked-infinite"],
)  # fmt: skip
def test_a_wrong_value_is_named_by_row_and_column_and_data_check_finds_it(tmp_path, change, more, words, monkeypatch):
    monkeypatch.setattr("orca_sweep.data.readers.BLOCK_BYTES", 40_000)  # rows count across blocks
    path = npz(tmp_path, **change)
    with pytest.raises(DataError, match=words):
        loaded(path, tmp_path, **more)
    monkeypatch.undo()
    task = find_task(named(path, **more))
    assert find_declared_task_problems(task.declaration) == []  # no header tells it
    with pytest.raises(DataError, match=words):
        task.files[0].look(tmp_path)


def test_data_check_and_plan_find_by_header_what_convert_refuses(tmp_path):
    assert find_declared_task_problems(named(npz(tmp_path))) == []
    cases = [
        ({"y": np.array(list("abcd") * 10)}, {}, "target holds text (<U1)"),
        ({"y": Y[:-1]}, {}, "40 rows of input, 39 rows of target"),
        ({"x": X[:, :2]}, {}, "samples of shape (2, 24, 20). (3, 24, 20) was declared"),
        ({}, {"group": "who"}, "there is no array 'who' in it"),
        ({"g": np.arange(N - 2)}, {"group": "g"}, "38 rows of group"),
        ({}, {"target": "labels"}, "there is no array 'labels' in it"),
        ({"x": X.astype(complex)}, {}, "input holds complex128"),
    ]
    for change, more, words in cases:
        path = npz(tmp_path, **change)
        assert words in find_declared_task_problems(named(path, **more))[0]
        with pytest.raises(InputError, match=r"mine\.npz"):
            plan_of(tmp_path, {**IMAGES, "path": str(path), **more})
        with pytest.raises(DataError):
            loaded(path, tmp_path, **more)


def test_plan_and_data_check_end_with_2_and_without_torch(tmp_path):
    path = npz(tmp_path, y=np.array(list("abcd") * 10))
    (tmp_path / "space.yaml").write_text(
        yaml.safe_dump({"base": {"task": {**IMAGES, "path": str(path)}, "proxy": "none"}, "seeds": 1})
    )
    text = "import sys; from orca_sweep.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"

    def orca(*words):
        command, wide = [sys.executable, "-c", text, *words], {**os.environ, "COLUMNS": "2000"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, env=wide)
        assert "Traceback" not in done.stderr
        return done

    done = orca("plan", "space.yaml")
    assert (done.returncode, done.stdout.strip()) == (2, "False")
    assert "target holds text (<U1)" in done.stderr
    assert orca("data", "check", named(path)).returncode == 2
    np.savez(path, x=X, y=np.where(np.arange(N) == 8, 7, Y))
    done = orca("data", "check", named(path))
    assert done.returncode == 2
    assert "row 8" in " ".join(done.stdout.split())
    np.savez(path, x=X, y=Y)
    done = orca("data", "check", named(path))
    assert "values looked at in 40 rows" in done.stdout, done.stdout


# Paths --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "my own #1",
        "a@b",
        "x[0]",
        "[",
        "k=v kind=w",
        "größe 数据",
        'it\'s "x"',
        "a->b:c",
        "-v",
        "n" * 240,
        "数" * 80,
        "a\nb",
    ],
)
def test_any_name_of_a_file_works_in_mapping_form(tmp_path, name):
    path = npz(tmp_path, f"{name}.npz")
    mapping = {**IMAGES, "path": str(path), "group": "g h"}
    assert parse_task(task_as_text(mapping)).path == str(path)
    np.savez(path, x=X, y=Y, **{"g h": np.arange(N) // 4})
    (config,) = (trial.config for trial in plan_of(tmp_path, mapping).trials)
    assert parse_task(config.task).path == str(path)
    assert len(load_task_data(find_task(config.task), tmp_path / "data", 0, None).train) == 32
    assert len(list((tmp_path / "data/converted").glob("[!.]*"))) == 1


def test_a_file_in_deep_folders_works_and_a_test_file_may_have_any_name(tmp_path):
    folder = tmp_path.joinpath(*["d" * 200] * 15)
    folder.mkdir(parents=True)
    one, two = npz(folder), npz(folder, "te st=#.npz", x=X + 1)
    assert len(loaded(one, tmp_path, test=str(two)).test) == N


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("a\0b.npz", "contains a NUL character"),
        ("n" * 256 + ".npz", "a name of 260 bytes"),
        ("数" * 90 + ".npz", "a name of 274 bytes"),
        ("/".join(["d" * 200] * 21) + "/a.npz", "a path fewer than 4096"),
        ("\udcff.npz", "is not UTF-8"),
    ],
    ids=["nul", "long", "long-utf8", "deep", "surrogate"],
)
@pytest.mark.parametrize("key", ["path", "test"])
def test_what_no_file_system_takes_is_an_input_error(tmp_path, path, words, key):
    mapping = {**IMAGES, "path": "mine.npz", key: path}
    with pytest.raises(ValueError, match=words):
        task_as_text(mapping)
    if "UTF" not in words:  # YAML itself has no way to write it
        with pytest.raises(InputError, match=words):
            plan_of(tmp_path, mapping)
    with pytest.raises(InputError, match="No closing|no closing quotation"):
        find_task("'mine.npz kind=classification")


# Splits -------------------------------------------------------------------------------------------


def rows_of(part):
    return {row.tobytes() + bytes([int(y)]) for row, y in zip(part.x[:], part.y, strict=True)}


@pytest.mark.parametrize("split_seed", range(3))
def test_copies_of_a_sample_are_in_one_split(tmp_path, split_seed):
    x, y = np.concatenate([X, X[:15], X[:5]]), np.concatenate([Y, Y[:15], Y[:5]])
    data = loaded(npz(tmp_path, x=x, y=y), tmp_path, split_seed)
    parts = [data.train, data.val, data.test]
    assert sum(map(len, parts)) == 60
    assert len(set.union(*map(rows_of, parts))) == sum(len(rows_of(part)) for part in parts) == N
    assert [len(rows_of(part)) for part in parts] == [32, 4, 4]
    other = loaded(npz(tmp_path, "labels.npz", x=np.repeat(X[:20], 2, 0)), tmp_path)  # other labels: other samples
    assert [len(part) for part in (other.train, other.val, other.test)] == [32, 4, 4]


def test_groups_that_share_a_sample_are_one_group(tmp_path):
    x, y, g = X.copy(), Y.copy(), np.arange(N) // 4
    x[[0, 4, 8]], y[[0, 4, 8]] = 0, 0  # one window without a signal in each of groups 0, 1 and 2
    for seed in range(4):
        data = loaded(npz(tmp_path, x=x, y=y, g=g), tmp_path, seed, group="g")
        silent = [int((part.x[:] == 0).all(axis=(1, 2, 3)).sum()) for part in (data.train, data.val, data.test)]
        assert sorted(silent) == [0, 0, 3]
    x[::4], y[::4] = 0, 0
    with pytest.raises(DataError, match=r"groups 'g' share equal samples: 9 of 10 cannot be separated, and 1 are left"):
        loaded(npz(tmp_path, x=x, y=y, g=g), tmp_path, 0, group="g")


def test_a_test_file_that_shares_samples_is_refused_with_their_number(tmp_path):
    path = npz(tmp_path)
    (tmp_path / "other").mkdir()
    held = npz(tmp_path / "other", x=np.concatenate([X[:3] + 9, X[17:20]]), y=np.concatenate([Y[:3], Y[17:20]]))
    with pytest.raises(DataError, match=r"3 of its 6 samples are in .*mine.npz too \(row 3 is row 17 there\)"):
        loaded(path, tmp_path, test=str(held))
    held = npz(tmp_path / "other", x=np.repeat(X[:3] + 9, 2, 0), y=np.repeat(Y[:3], 2))  # copies within are its own
    assert len(loaded(path, tmp_path, test=str(held)).test) == 6


def made(splits, **more):
    fields = {"kind": "classification", "output_shape": (4,), "loss": "cross-entropy", "metric": "error", **more}
    return Task(name="made", dims=2, sample_shape=(3, 24, 20), load=lambda root, seed: splits, meaning="", source="",
                licence="", **fields)  # fmt: skip


def cut(x, y, *parts):
    return Splits(*(Samples(x[part], y[part]) for part in parts))


@pytest.mark.parametrize("on_disk", [False, True])
def test_own_splits_that_overlap_are_refused_with_the_size(tmp_path, on_disk):
    x = Rows.from_array(X, "x") if on_disk else X
    parts = (np.arange(20), np.arange(20, 30), np.arange(30, 40))
    if on_disk:

        def of(part):
            return Samples(x.take(part), Y[part])
    else:

        def of(part):
            return Samples(X[part], Y[part])

    load_task_data(made(Splits(*map(of, parts))), tmp_path, 0, None)
    with pytest.raises(DataError, match=r"5 of 10 samples of val are in train too \(row 0 of val is row 15 of train\)"):
        load_task_data(made(Splits(of(parts[0]), of(np.arange(15, 25)), of(parts[2]))), tmp_path, 0, None)
    with pytest.raises(
        DataError, match=r"(?s)10 of 10 samples of val are in train.*of test are in train.*of test are in val"
    ):
        load_task_data(made(Splits(of(parts[0]), of(parts[0][:10]), of(parts[0][5:15]))), tmp_path, 0, None)
    with pytest.raises(DataError, match="test: no samples"):
        load_task_data(made(Splits(of(parts[0]), of(parts[1]), of(parts[2][:0]))), tmp_path, 0, None)


PARTS = (slice(20), slice(20, 30), slice(30, 40))


@pytest.mark.parametrize(
    ("y", "more", "words"),
    [
        (np.zeros(N, int), {"output_shape": (0,)}, "all 20 training samples are of one class"),
        (np.zeros(N, int), {}, "no training sample of class 1, 2, 3"),
        (np.full((N, 1), 2.5), {"kind": "regression", "output_shape": (1,), "loss": "mse", "metric": "mse"},
         "the target is constant: 2.5 in all 20"),
        (np.ones((N, 4)), {"kind": "multi-label", "loss": "bce", "metric": "auroc-error"}, "the target is constant: 1 in"),
        (np.tile(X[:1, :1], (N, 1, 1, 1)), {"kind": "dense-regression", "output_shape": (1, 24, 20), "loss": "mse",
                                            "metric": "mse"}, "the target is constant: the same in all 20"),
    ],
)  # fmt: skip
def test_one_class_and_constant_targets_are_refused(tmp_path, y, more, words):
    with pytest.raises(DataError, match=words):
        load_task_data(made(cut(X, y, *PARTS), **more), tmp_path, 0, None)


def test_one_class_and_a_constant_target_of_a_file_are_refused(tmp_path):
    with pytest.raises(DataError, match="no training sample of class 1, 2, 3"):
        loaded(npz(tmp_path, y=np.zeros(N, int)), tmp_path)
    with pytest.raises(DataError, match="target holds no label 1, 2, 3, but 4 classes were declared"):
        find_task(named(tmp_path / "mine.npz")).files[0].look(tmp_path)
    with pytest.raises(InputError, match="output_shape 1 is a single class"):
        find_task(named(tmp_path / "mine.npz", output_shape=1))
    with pytest.raises(DataError, match="the target is constant: 3 in all 32"):
        loaded(npz(tmp_path, y=np.full((N, 1), 3.0)), tmp_path, kind="regression", output_shape=1)


# Modules ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; sys.exit()", "SystemExit"),
        ("import sys; sys.exit('no licence. ')", "SystemExit: no licence"),
        ("raise BaseException('all of it')", "BaseException: all of it"),
        ("import asyncio; raise asyncio.CancelledError", "CancelledError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_whatever_a_users_module_raises_is_told_with_its_name(tmp_path, code, words):
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(InputError) as caught:
        load_imports([str(tmp_path / "mine.py")])
    assert (
        str(caught.value)
        == f"imports = '{tmp_path}/mine.py': it cannot be imported: {words}. Correct it, or leave it out."
    )


def test_an_error_that_rays_own_code_raises_in_an_import_is_told_too(tmp_path):
    (tmp_path / "mine.py").write_text("import ray; ray.remote(3)")
    with pytest.raises(InputError, match="cannot be imported: AssertionError: The @ray.remote decorator"):
        load_imports([str(tmp_path / "mine.py")])


def test_a_person_may_still_interrupt_an_import(tmp_path):
    (tmp_path / "mine.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_imports([str(tmp_path / "mine.py")])


def test_a_load_function_that_exits_is_a_failed_trial_with_its_words(tmp_path):
    from orca_sweep.store import Store
    from orca_sweep.training.run import RunContext, run_config
    from orca_sweep.training.worker import Worker
    from orca_sweep.trial import make_config

    def leave(root, seed):
        sys.exit("the disk is not mounted")

    def interrupted(root, seed):
        raise KeyboardInterrupt

    def misuse_ray(root, seed):  # an ordinary error, though it is raised in Ray's own code
        import ray

        ray.remote(3)

    for name, load in (("leaves", leave), ("interrupted", interrupted), ("misuses-ray", misuse_ray)):
        if name not in TASKS:
            TASKS.add(
                Task(
                    name=name,
                    dims=2,
                    sample_shape=(1, 8, 8),
                    kind="classification",
                    output_shape=(3,),
                    loss="cross-entropy",
                    metric="error",
                    load=load,
                    meaning="",
                    source="",
                    licence="",
                )
            )
    worker = Worker(Store(str(tmp_path / "store")), "cpu", 1)
    config = {"body.name": "swin-micro", "body.pretrain_fraction": 0, "proxy": "none", "seed": 0}
    row = run_config(
        make_config({**config, "task": "leaves"}),
        RunContext(folder=tmp_path, worker=worker, data_root=tmp_path, report=lambda row: None),
    )
    assert (row["status"], row["error"]) == ("failed", "SystemExit: the disk is not mounted")
    row = run_config(
        make_config({**config, "task": "misuses-ray"}),
        RunContext(folder=tmp_path, worker=worker, data_root=tmp_path, report=lambda row: None),
    )
    assert row["status"] == "failed"
    assert row["error"].startswith("AssertionError: The @ray.remote decorator")
    with pytest.raises(KeyboardInterrupt):
        run_config(
            make_config({**config, "task": "interrupted"}),
            RunContext(folder=tmp_path, worker=worker, data_root=tmp_path, report=lambda row: None),
        )


@pytest.mark.parametrize(
    ("distance", "words"),
    [
        (lambda constants, target: target.mean(dim=0), r"distance returned a tensor \(5,\)\. It must return a scalar"),
        (lambda constants, target: target.mean().reshape(1), r"a tensor \(1,\)"),
        (lambda constants, target: float(target.detach().mean()), "distance returned float"),
        (lambda constants, target: target.detach().mean(), "a value without gradient"),
    ],
    ids=["vector", "one", "float", "detached"],
)
def test_an_objective_that_is_no_scalar_with_a_gradient_is_named(distance, words):
    import torch

    from orca_sweep import objectives

    record = objectives.Objective(
        name="mine-wrong", meaning="", constants=lambda features, labels: {}, distance=distance
    )
    objectives.OBJECTIVES._records["mine-wrong"] = record
    try:
        with pytest.raises(DataError, match=f"objective 'mine-wrong': .*{words}"):
            objectives.distance("mine-wrong", {}, torch.ones(4, 5, requires_grad=True))
    finally:
        del objectives.OBJECTIVES._records["mine-wrong"]
