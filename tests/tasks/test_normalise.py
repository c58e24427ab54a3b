"""How inputs are normalised: the numbers, by which samples, in which row and under which id."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from orca_sweep.api.planning import collect_notes, make_plan
from orca_sweep.cli import app
from orca_sweep.config import TrialConfig
from orca_sweep.config.declaration import task_as_text
from orca_sweep.data import Rows, Samples, Splits
from orca_sweep.errors import DataError, InputError
from orca_sweep.tasks import TASKS, Task, canonicalise_task, find_task, load_task_data
from orca_sweep.tasks.scaling import Moments, measure_channels, measure_input_scale
from orca_sweep.trial import describe_inputs, make_config, resolve_settings, shared_stages

N = 60
RNG = np.random.default_rng(0)


def exact(shape):
    """Samples of two channels: mean 40 and spread 3, mean -1 and spread 0.02."""
    x = RNG.normal(size=shape)
    axes = (0, *range(2, len(shape)))
    x = (x - x.mean(axis=axes, keepdims=True)) / x.std(axis=axes, keepdims=True)
    scale, offset = (np.reshape(pair, (2, *[1] * (len(shape) - 2))) for pair in ([3, 0.02], [40, -1]))
    return (x * scale + offset).astype(np.float32)


IMAGES, SIGNALS = exact((N, 2, 6, 5)), exact((N, 2, 16))
LABELS = np.arange(N) % 3


def declared(folder, x=SIGNALS, y=LABELS, name="mine.npz", **more):
    """The declaration of arrays saved in a file."""
    np.savez(folder / name, x=x, y=y)
    shapes = {"sample_shape": list(x.shape[1:]), "output_shape": 3}
    return {"path": str(folder / name), "kind": "classification", **shapes, **more}


def loaded(folder, how, n_train=None, **more):
    return load_task_data(find_task(canonicalise_task(task_as_text(declared(folder, **more)))), folder, 0, n_train, how)


def numbers_of(raw, train, how):
    """What NumPy makes of raw inputs in double precision, given the raw training inputs."""
    raw, train = raw.astype(np.float64), train.astype(np.float64)
    space = tuple(range(2, raw.ndim))
    if how == "channel":
        axes = (0, *space)
        return (raw - train.mean(axis=axes, keepdims=True)) / train.std(axis=axes, keepdims=True)
    if how == "pointwise":
        return (raw - train.mean(axis=0)) / (train.std(axis=0) + 1e-5)
    if how == "sample":
        return (raw - raw.mean(axis=space, keepdims=True)) / raw.std(axis=space, keepdims=True)
    return raw


DENSE = {"kind": "dense-regression", "y": SIGNALS[:, :1] * 2 + 5, "output_shape": [1, 16]}


@pytest.mark.parametrize("how", ["none", "channel", "pointwise", "sample"])
@pytest.mark.parametrize("more", [{"x": IMAGES}, {}, DENSE], ids=["2d", "1d", "dense"])
def test_each_level_gives_the_numbers_of_numpy(tmp_path, how, more):
    raw, data = (loaded(tmp_path, level, **more) for level in ("none", how))
    for part in ("train", "val", "test"):
        expected = numbers_of(getattr(raw, part).x[:], raw.train.x[:], how)
        got = getattr(data, part).x[:]
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)
        np.testing.assert_array_equal(getattr(data, part).y[:], getattr(raw, part).y[:])  # targets are not touched
    np.testing.assert_array_equal(raw.target_mean, data.target_mean)
    assert data.input_scale.startswith(f"{how}; over all 48 training samples: means of 2 channels")


def test_statistics_do_not_see_validation_and_test(tmp_path):
    plain = loaded(tmp_path, "channel")
    order = loaded(tmp_path, "none")
    held_out = [int(np.flatnonzero((x == SIGNALS).all(axis=(1, 2)))[0]) for x in (*order.val.x[:], *order.test.x[:])]
    moved = SIGNALS.copy()
    moved[held_out] += 1000
    other = loaded(tmp_path, "channel", x=moved)
    np.testing.assert_array_equal(plain.train.x[:], other.train.x[:])
    assert plain.input_scale == other.input_scale
    assert other.test.x[:].min() > 100


def test_statistics_are_of_the_training_samples_that_are_kept(tmp_path):
    raw, data = (loaded(tmp_path, how, n_train=9) for how in ("none", "channel"))
    np.testing.assert_allclose(
        data.train.x[:], numbers_of(raw.train.x[:], raw.train.x[:], "channel"), rtol=2e-5, atol=1e-6
    )
    assert "over all 9 training samples" in data.input_scale
    assert data.input_scale != loaded(tmp_path, "channel").input_scale


def test_a_table_is_normalised_on_top_of_its_own_standardising(tmp_path):
    import pandas as pd

    (tmp_path / "openml").mkdir()
    table = pd.DataFrame({"a": np.arange(60.0) ** 2, "b": list("uvw") * 20, "target": np.arange(60) % 2})
    table.to_parquet(tmp_path / "openml/7.parquet")
    task = find_task("openml:7")
    raw, data = (load_task_data(task, tmp_path, 0, None, how) for how in (None, "channel"))
    np.testing.assert_allclose(raw.train.x[:, 0, 0].mean(), 0, atol=1e-6)
    np.testing.assert_allclose(data.test.x, numbers_of(raw.test.x, raw.train.x, "channel"), rtol=2e-5, atol=1e-6)
    assert raw.input_scale.endswith("given as columns of numbers, each standardised by the training split (before"
                                    " data.n_train), and one-hot categories")  # fmt: skip


def test_a_small_signal_on_a_large_offset_keeps_its_digits(tmp_path):
    signal = np.round(RNG.normal(size=(N, 1, 16)) * 8) / 8  # what float32 holds beside a million
    data, plain = (loaded(tmp_path, "channel", x=signal + offset) for offset in (1e6, 0.0))
    np.testing.assert_allclose(data.train.x[:], plain.train.x[:], rtol=0, atol=2e-6)
    by_sample = loaded(tmp_path, "sample", x=signal + 1e6)
    np.testing.assert_allclose(by_sample.test.x[:], loaded(tmp_path, "sample", x=signal).test.x[:], rtol=0, atol=2e-6)
    assert "mean 1e+06 (spread 0.9" in data.input_scale


def test_a_signal_that_float32_does_not_hold_is_refused(tmp_path):
    x = RNG.normal(size=(N, 2, 16)) + np.array([[0.0], [1e9]])
    with pytest.raises(
        DataError,
        match=r"input: channel 1 has mean 1e\+09 and a standard deviation of 1\.\d+, but inputs are kept as float32",
    ):
        loaded(tmp_path, "channel", x=x)
    whole = (x * 1000).astype(np.int64)
    with pytest.raises(DataError, match="has steps of 6.55e"):
        loaded(tmp_path, "channel", x=whole)
    with pytest.raises(DataError, match="task 'made', train, inputs: channel 1"):
        load_task_data(made(x), Path(), 0, None)
    # A constant, and what varies by the rounding of doubles alone, lose nothing.
    quiet = RNG.normal(size=(N, 2, 16))
    quiet[:, 1] = 0.1 + 1e-15 * RNG.normal(size=(N, 16))
    assert "1 constant" in loaded(tmp_path, "channel", x=quiet).input_scale


def test_units_however_small_come_out_at_unit_spread(tmp_path):
    data = loaded(tmp_path, "channel", x=SIGNALS * 1e-9)
    np.testing.assert_allclose(data.train.x[:].std(axis=(0, 2)), 1, rtol=1e-4)


def test_a_constant_channel_is_centred_and_said(tmp_path):
    x = SIGNALS.copy()
    x[:, 0] = 0.1
    data = loaded(tmp_path, "channel", x=x)
    assert (data.train.x[:][:, 0] == 0).all()
    assert "(spread 0), " in data.input_scale
    assert "1 constant" in data.input_scale
    with pytest.raises(DataError, match=r"inputs: the inputs are constant: 0\.1 in every one of 40 training samples"):
        measure_input_scale(np.full_like(x, 0.1)[:40], "none", "task 'made', inputs")


def test_a_constant_sample_becomes_zero_and_is_counted(tmp_path):
    x = SIGNALS.copy()
    x[:, 0] = 0.1 * np.arange(N)[:, None]
    x[:5, 1] = 3.3
    data, raw = (loaded(tmp_path, how, x=x) for how in ("sample", "none"))
    assert (data.train.x[:][:, 0] == 0).all()
    n_flat = int((np.ptp(raw.train.x[:], axis=2) == 0).sum())
    assert f"{n_flat} of 96 channels of single samples are constant and become 0" in data.input_scale
    assert n_flat > 48
    x[:, 1] = x[:, 0] + 1
    with pytest.raises(DataError, match=r"'sample' would make all inputs 0.* Use channel"):
        loaded(tmp_path, "sample", x=x)


def test_a_sample_of_one_point_has_no_spread_of_its_own(tmp_path):
    task = declared(tmp_path, x=RNG.normal(size=(N, 4, 1)))
    with pytest.raises(InputError, match=r"data.normalise = 'sample': a sample of .* has one number per channel"):
        make_config({"task": task, "data.normalise": "sample"})
    make_config({"task": task, "data.normalise": "channel"})


def test_nan_is_refused_as_before(tmp_path):
    x = SIGNALS.copy()
    x[7, 1, 3] = np.nan
    with pytest.raises(DataError, match="NaN"):
        loaded(tmp_path, "channel", x=x)


def made(x, **more):
    """A user's task of arrays or rows on disk: the first 40 samples train."""
    y = np.arange(len(x)) % 3
    parts = (np.arange(40), np.arange(40, 50), np.arange(50, len(x)))
    whole = Samples(x, y)
    return Task(
        name="made", dims=1, sample_shape=(2, 16), kind="classification", output_shape=(3,), loss="cross-entropy",
        metric="error", load=lambda root, seed: Splits(*(whole.take(part) for part in parts)), meaning="", source="",
        licence="", **more,
    )  # fmt: skip


def test_rows_on_disk_and_arrays_give_the_same_bits(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", SIGNALS)
    on_disk = Rows.from_array(np.load(tmp_path / "x.npy", mmap_mode="r"), "x")
    for how in ("channel", "pointwise", "sample"):
        here, there = (load_task_data(made(x), tmp_path, 0, None, how) for x in (SIGNALS, on_disk))
        assert isinstance(there.train.x, Rows)
        np.testing.assert_array_equal(here.test.x, there.test.x[:])
        assert here.input_scale == there.input_scale


def test_blocks_join_to_the_moments_of_the_whole():
    values = (RNG.normal(size=(1000, 3, 7)) * [[1e-3], [1.0], [50.0]] + [[1e6], [0.0], [-3.0]]).astype(np.float64)
    whole, parts = Moments.of_block(values), [Moments.of_block(part) for part in np.array_split(values, 13)]
    joined = parts[0]
    for part in parts[1:]:
        joined = joined.join(part)
    np.testing.assert_allclose(joined.mean, values.mean(axis=(0, 2)), rtol=1e-14)
    np.testing.assert_allclose(joined.spread, values.std(axis=(0, 2)), rtol=1e-7)
    np.testing.assert_allclose(whole.spread, joined.spread, rtol=1e-7)
    some = measure_channels(values, 21 * 10)
    assert some.n_samples == 10
    np.testing.assert_allclose(some.mean, values[np.linspace(0, 999, 10).astype(int)].mean(axis=(0, 2)))


# Codes --------------------------------------------------------------------------------------------


def one_hot(n=N):
    return np.eye(4, dtype=np.uint8)[RNG.integers(0, 4, (n, 16))].transpose(0, 2, 1)


def test_one_hot_inputs_stay_as_they_are_whatever_is_asked(tmp_path):
    x = one_hot()
    x[:, :, -3:] = 0  # padding
    raw, *others = (loaded(tmp_path, how, x=x) for how in ("none", "channel", "sample", "pointwise"))
    for data in others:
        np.testing.assert_array_equal(raw.train.x[:], data.train.x[:])
        assert data.fingerprint == raw.fingerprint
        assert data.input_scale.startswith("none: one-hot inputs stay as they are (data.normalise")
    marked = x.copy()
    marked[:, :2, 0] = 1  # two letters at one point
    assert loaded(tmp_path, "channel", x=marked).input_scale.startswith("channel;")
    mask = loaded(tmp_path, "channel", x=x[:, :1])
    assert mask.input_scale.startswith("channel;")


def test_a_task_of_codes_has_one_id_whatever_is_asked():
    configs = [make_config({"task": "deepsea", "data.normalise": how}) for how in (None, "none", "channel", "sample")]
    assert {config.trial_id for config in configs} == {make_config({"task": "deepsea"}).trial_id}
    assert configs[0].data.normalise == "none"
    with pytest.raises(InputError, match="data.normalise = 'chanel'"):
        make_config({"task": "deepsea", "data.normalise": "chanel"})
    with pytest.raises(InputError, match="normalise_inputs 'channel'. Codes have no scale"):
        replace(TASKS.get("deepsea"), normalise_inputs="channel")


# Ids ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("digits", "none"), ("watch-exercises", "channel"), ("cifar100", "channel"), ("darcy", "pointwise"), ("ecg", "none"),
        ("2d-cfd", "channel"), ("openml:31", "none"), ("fsd50k", "none"),
    ],
)  # fmt: skip
def test_what_a_benchmark_does_is_its_default_by_name(name, own):
    left_out, said = make_config({"task": name}), make_config({"task": name, "data.normalise": own})
    assert left_out.data.normalise == own
    assert left_out.trial_id == said.trial_id
    ids = {
        make_config({"task": name, "data.normalise": how}).trial_id
        for how in ("none", "channel", "pointwise", "sample")
    }
    assert len(ids) == 4
    assert find_task(name).preparation


def test_a_declaration_s_own_way_is_the_field_s_value(tmp_path):
    task = declared(tmp_path)
    plain = make_config({"task": task})
    assert plain.data.normalise == "channel"
    for more, field in (({"normalise": "channel"}, None), ({}, "channel"), ({"normalise": "none"}, "channel")):
        assert make_config({"task": {**task, **more}, "data.normalise": field}).trial_id == plain.trial_id
    raw = [
        make_config({"task": {**task, "normalise": "none"}}),
        make_config({"task": task, "data.normalise": "none"}),
        make_config({"task": {**task, "normalise": "sample"}, "data.normalise": "none"}),
    ]
    assert len({config.trial_id for config in raw}) == 1
    assert raw[0].trial_id != plain.trial_id
    assert raw[0].task == plain.task
    assert make_config(raw[0].flat()) == raw[0]  # a resolved config resolves to itself


def test_levels_of_task_that_differ_in_normalising_alone_are_refused(tmp_path):
    task = declared(tmp_path)
    space = {"base": {"proxy": "none"}, "factors": {"task": [task, {**task, "normalise": "none"}]}, "seeds": 1}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(space))
    with pytest.raises(
        InputError, match="once normalised by 'channel' and once by 'none'.*make data.normalise a factor"
    ):
        make_plan(tmp_path / "s.yaml")


def test_artifacts_of_different_levels_are_not_shared():
    base = {"task": "watch-exercises", "body.name": "roberta-micro"}
    names = [shared_stages(resolve_settings({**base, "data.normalise": how})) for how in ("none", "channel", "sample")]
    assert len({stages["embedder"] for stages in names}) == 3
    assert len({stages["proxy-features"] for stages in names}) == 1  # the proxy does not depend on it
    rows = [
        load_task_data(made(Rows.from_array(SIGNALS, "x")), Path(), 0, None, how)
        for how in ("none", "channel", "pointwise", "sample")
    ]
    assert len({data.fingerprint for data in rows}) == 4


def test_the_unit_of_the_metric_does_not_follow_the_inputs():
    y = SIGNALS * 2
    task = replace(
        made(SIGNALS), kind="dense-regression", output_shape=(2, 16), loss="mse", metric="mse", normalise_inputs="channel",
        normalise_targets="as-inputs",
        load=lambda root, seed: Splits(*(Samples(SIGNALS[i : i + 20], y[i : i + 20]) for i in (0, 20, 40))),
    )  # fmt: skip
    own, raw, by_sample = (load_task_data(task, Path(), 0, None, how) for how in (None, "none", "sample"))
    np.testing.assert_array_equal(own.test.y, raw.test.y)
    np.testing.assert_array_equal(own.test.y, by_sample.test.y)
    np.testing.assert_array_equal(raw.test.x, SIGNALS[40:])
    with pytest.raises(InputError, match="normalise_targets 'as-inputs' with normalise_inputs 'none'"):
        replace(task, normalise_inputs="none")


# Sweeps and words ---------------------------------------------------------------------------------


def plan_of(folder, task, **more):
    space = {"base": {"task": task, "proxy": "none"}, "seeds": 1, **more}
    (folder / "s.yaml").write_text(yaml.safe_dump(space))
    return make_plan(folder / "s.yaml")


def test_a_factor_of_three_levels_gives_three_cells_and_three_rows(tmp_path, worker):
    from orca_sweep.training.run import RunContext, run_config

    made_plan = plan_of(
        tmp_path, declared(tmp_path), factors={"data.normalise": ["none", "channel", "sample"]},
        base={"task": declared(tmp_path), "proxy": "none", "body.name": "roberta-micro", "body.pretrain_fraction": 0,
              "finetune.epochs": 1},
    )  # fmt: skip
    assert [cell.data.normalise for cell in made_plan.cells] == ["none", "channel", "sample"]
    rows = [
        run_config(trial.config, RunContext(folder=tmp_path / "sweep", worker=worker, data_root=tmp_path / "data"))
        for trial in made_plan.trials
    ]
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert [row["normalised"].split(";")[0] for row in rows] == ["none", "channel", "sample"]
    assert "2 of 2 channels far from zero mean and unit spread" in rows[0]["normalised"]
    assert len({row["val_metric_best"] for row in rows} | {row["state_sha256"] for row in rows}) > 3
    assert len({row["data_sha256"] for row in rows}) == 3


def test_a_plan_warns_of_raw_inputs_with_the_numbers_measured(tmp_path):
    task = declared(tmp_path)
    (warning,) = [
        n
        for n in collect_notes(plan_of(tmp_path, {**task, "normalise": "none"}), tmp_path, tmp_path)
        if "raw inputs" in str(n)
    ]
    for words in (
        "mine.npz: data.normalise is none", "2 of 2 channels", "40 (spread 3", "-1 (spread 0.02", "all 60 samples",
        "a mean beyond 0.5", "below 0.5 or above 2",
    ):  # fmt: skip
        assert words in str(warning)
    assert not [n for n in collect_notes(plan_of(tmp_path, task), tmp_path, tmp_path) if "raw inputs" in str(n)]
    ready = declared(tmp_path, x=RNG.normal(size=(N, 2, 16)), name="ready.npz")
    codes = declared(tmp_path, x=one_hot(), name="codes.npz")
    gone = {**task, "path": str(tmp_path / "gone.npz")}
    for other in (ready, codes, gone):
        assert describe_inputs([resolve_settings({"task": other, "data.normalise": "none"})]) == []


@pytest.mark.parametrize("ending", [".npy", ".h5", ".parquet"])
def test_every_kind_of_file_is_looked_at(tmp_path, ending):
    path, more = tmp_path / f"mine{ending}", {}
    if ending == ".npy":
        np.save(path, SIGNALS)
        np.save(tmp_path / "y.npy", LABELS)
    elif ending == ".h5":
        import h5py

        with h5py.File(path, "w") as file:
            file["x"], file["y"] = np.moveaxis(SIGNALS, 1, 2), LABELS
        more = {"layout": "channels-last"}
    else:
        import pandas as pd

        pd.DataFrame({"x": [list(row.ravel()) for row in SIGNALS], "y": LABELS}).to_parquet(path)
    task = {"path": str(path), "kind": "classification", "sample_shape": [2, 16], "output_shape": 3, **more}
    (warning,) = describe_inputs([resolve_settings({"task": task, "data.normalise": "none"})])
    assert "means of 2 channels 40 (spread 3" in warning


def test_a_look_reads_no_more_than_the_first_block(tmp_path, monkeypatch):
    monkeypatch.setattr("orca_sweep.data.readers.BLOCK_BYTES", 10 * 2 * 16 * 4)
    task = declared(tmp_path)
    (warning,) = describe_inputs([resolve_settings({"task": task, "data.normalise": "none"})])
    assert "the first 10 of 60 samples" in warning


def test_data_check_says_the_scale_of_each_channel(tmp_path):
    result = CliRunner().invoke(
        app, ["data", "check", task_as_text(declared(tmp_path)), "--data", str(tmp_path)], env={"COLUMNS": "400"}
    )
    assert result.exit_code == 0, result.output
    assert "inputs: as given: in your file; data.normalise: channel unless a space sets it" in result.output
    text = " ".join(result.output.split())
    assert "means of 2 channels" in text
    assert "-1 (spread" in text


def test_a_config_that_was_not_resolved_takes_the_task_s_own_way(tmp_path):
    config = TrialConfig.from_flat({"task": "digits", "body.name": "swin-micro"})
    assert config.data.normalise is None
    raw, own = (load_task_data(find_task("digits"), tmp_path, 0, 20, how) for how in ("none", None))
    np.testing.assert_array_equal(raw.train.x, own.train.x)


def test_wide_tasks_are_described_by_ranges():
    scale = measure_input_scale(np.tile(SIGNALS, (1, 4, 1)), "channel", "x")
    assert scale.text.startswith(
        "channel; over all 60 training samples: means of 8 channels -1 to 40, spreads 0.02 to 3"
    )
