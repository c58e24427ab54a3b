"""The scripts for researchers to read, run, and copy: they are short and run on the tables of a small sweep."""

import hashlib
import itertools
import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest

from orca_sweep import results as r
from orca_sweep.space.manifest import write_manifest
from tests.builders.manifests import sweep_manifest

REPO = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((REPO / "analysis").glob("*.py"))
FACTORS = {
    "proxy": ["none", "mnist5k"],
    "finetune.freeze": ["none", "body"],
    "body.pretrain_fraction": [0.0, 0.1, 1.0],
}


def write_sweep(folder, name="small"):
    """Writes the records of a sweep of three factors and three seeds; one trial is unfinished."""
    planned = []
    for levels in itertools.product(*FACTORS.values()):
        settings = dict(zip(FACTORS, levels, strict=True))
        settings["embedder.epochs"] = 0 if settings["proxy"] == "none" else 4
        for seed in range(3):
            planned.append(plan_trial(settings, seed))
            if len(planned) != 5:  # the fifth was never run
                record_trial(folder, planned[-1], settings)
    about = {"name": name, "metric": "val_metric_best", "factors": [*FACTORS, "embedder.epochs"]}
    write_manifest(folder, sweep_manifest(**about, trials=planned, margins={"": 0.01}))
    r.collect([folder], folder / "tables")
    return folder


def plan_trial(settings, seed):
    cell_id, trial_id = (hashlib.sha1(repr(text).encode()).hexdigest()[:16] for text in (settings, (settings, seed)))
    config = {
        "task": "digits",
        "embedder.objective": "otdd-exact",
        "finetune.freeze_epochs": "0",
        **settings,
        "seed": seed,
    }
    return {"trial_id": trial_id, "cell_id": cell_id, "seed": seed, "role": "replicate", "config": config}


def record_trial(folder, planned, settings):
    seed, amount = planned["seed"], settings["embedder.epochs"]
    value = 0.5 - 0.02 * amount - 0.1 * settings["body.pretrain_fraction"] + 0.01 * seed
    row = {name: planned[name] for name in ("trial_id", "cell_id")}
    row |= {"status": "ok", "metric": "error", "val_metric_best": value, "objective_last": 9.0 - amount + 0.1 * seed}
    steps = [
        {"stage": "embedder", "epoch": epoch, "objective": 9.0 - epoch + 0.1 * seed} for epoch in range(amount + 1)
    ]
    tuning = [{"stage": "finetune", "epoch": epoch, "val_metric": value + 1 / epoch} for epoch in (1, 2)]
    r.write_record(folder, row, [*steps, *tuning])


@pytest.fixture(scope="module")
def small_sweep(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("sweeps") / "small")


def run_script(monkeypatch, path, *words):
    monkeypatch.setattr(sys, "argv", [path.name, *map(str, words)])
    runpy.run_path(str(path), run_name="__main__")


def test_each_script_is_short_and_says_how_to_run_it():
    assert len(SCRIPTS) >= 5
    for path in SCRIPTS:
        text = path.read_text()
        assert len(text.splitlines()) <= 60, path
        assert f"Run: python analysis/{path.name} results/" in text
        assert "import pandas as pd" in text


@pytest.mark.parametrize("path", [p for p in SCRIPTS if p.name != "combine_results.py"], ids=lambda p: p.stem)
def test_a_script_prints_numbers_and_draws_a_picture(path, small_sweep, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_script(monkeypatch, path, small_sweep)
    *numbers, picture = capsys.readouterr().out.splitlines()
    assert len(numbers) > 3
    assert Path(picture).parent == small_sweep / "figures"
    assert Path(picture).stat().st_size > 10_000
    assert not list(tmp_path.iterdir())


def test_sweeps_are_combined_into_one_table(small_sweep, tmp_path, monkeypatch, capsys):
    other, out = write_sweep(tmp_path / "other", name="other"), tmp_path / "both"
    run_script(monkeypatch, REPO / "analysis" / "combine_results.py", small_sweep, other / "tables", "--out", out)
    text = capsys.readouterr().out
    trials = pd.read_parquet(out / "trials.parquet")
    assert f"{len(trials)} trials of {trials['cell_id'].nunique()} cells" in text
    assert "val_metric_best, over seeds:" in text
    assert {path.name for path in out.glob("*.parquet")} == {"trials.parquet", "epochs.parquet", "stages.parquet"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
def test_a_script_without_a_sweep_says_how_to_run_it(path, monkeypatch):
    with pytest.raises(SystemExit, match="Run: python analysis/"):
        run_script(monkeypatch, path)


def test_a_sweep_that_does_not_fit_a_script_is_a_readable_error(tmp_path, monkeypatch):
    planned = [plan_trial({"proxy": "none", "embedder.epochs": 0}, 0)]
    write_manifest(tmp_path, sweep_manifest(metric="val_metric_best", factors=["proxy"], trials=planned))
    r.collect([tmp_path], tmp_path / "tables")
    with pytest.raises(SystemExit, match=r"'finetune.freeze' is not a factor of this sweep"):
        run_script(monkeypatch, REPO / "analysis" / "freezing.py", tmp_path)
