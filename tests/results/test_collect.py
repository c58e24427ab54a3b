"""Collecting: many sweeps into one set of tables, again and again, from records and tables of other versions."""

import json
import os
import shutil

import duckdb
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orca_sweep import results as r
from orca_sweep.errors import InputError
from orca_sweep.results import collecting
from orca_sweep.space.manifest import require_manifest, write_manifest
from tests.builders.sweeps import sweep_folder
from tests.commands import orca

TABLES = ("trials", "epochs", "stages")


def read_ids(monkeypatch):
    """The trials whose records are read, in order."""
    seen = []
    real = collecting.read_record

    def spy(folder, trial_id):
        seen.append(trial_id)
        return real(folder, trial_id)

    monkeypatch.setattr(collecting, "read_record", spy)
    return seen


def all_bytes(folder):
    return {name: (folder / f"{name}.parquet").read_bytes() for name in TABLES}


def with_stages(folder):
    for path in sorted((folder / "trials").glob("*/row.json")):
        record = json.loads(path.read_text())
        stages = [{"stage": "finetune", "phase": phase, "n_steps": 7 * phase, "wall_time_s": 0.5} for phase in (1, 2)]
        row = {**record["row"], **r.unsealed(record)}
        r.write_record(folder, row, record["epochs"], stages)
    return folder


def test_only_what_is_new_or_changed_is_read_again(tmp_path, monkeypatch):
    folder = with_stages(sweep_folder(tmp_path / "s", statuses=["ok", None, "failed"]))
    seen, out = read_ids(monkeypatch), tmp_path / "t"
    ids = r.collect([folder], out).trials["trial_id"].tolist()
    assert seen == ids
    seen.clear()
    before = all_bytes(out)
    assert r.collect([folder], out).trials["status"].tolist() == ["ok", "unfinished", "failed", "ok", "ok", "ok"]
    assert seen == [ids[1]] or seen == []
    assert all_bytes(out) == before
    # One trial ends, one that had failed is run again: these two are read, and the order stays.
    seen.clear()
    whole = with_stages(sweep_folder(tmp_path / "whole"))
    for i in (1, 2):
        os.replace(whole / "trials" / ids[i], folder / "trials" / ids[i]) if i == 1 else os.replace(
            whole / "trials" / ids[i] / "row.json", folder / "trials" / ids[i] / "row.json"
        )
    r.reveal(folder)
    found = r.collect([folder], out)
    assert sorted(seen) == sorted([ids[1], ids[2]])
    assert found.trials["status"].tolist() == ["ok"] * 6
    assert r.collect([folder], tmp_path / "fresh").trials.equals(found.trials)
    assert all_bytes(out) == all_bytes(tmp_path / "fresh")


@pytest.mark.parametrize("harm", ["table", "stamps", "version"])
def test_what_was_collected_is_not_trusted_when_it_is_not_what_was_left(tmp_path, monkeypatch, harm):
    folder, out = sweep_folder(tmp_path / "s"), tmp_path / "t"
    before = r.collect([folder], out).trials
    if harm == "table":
        pd.read_parquet(out / "epochs.parquet").iloc[:1].to_parquet(out / "epochs.parquet")
    elif harm == "stamps":
        (out / collecting.STAMPS).write_text("{")
    else:
        monkeypatch.setattr(collecting, "__version__", "9.9.9")
    seen = read_ids(monkeypatch)
    found = r.collect([folder], out)
    assert len(seen) == 6
    assert found.trials.equals(before) and len(found.epochs) == 12


def test_tables_made_elsewhere_are_sources_too_and_the_better_record_wins(tmp_path):
    a = sweep_folder(tmp_path / "a", statuses=["failed", None], name="first")
    b = with_stages(sweep_folder(tmp_path / "b", seeds=(0, 5), name="second"))
    both = r.collect([a, b], tmp_path / "both")
    r.collect([a], tmp_path / "ta")
    r.collect([b], tmp_path / "tb")
    for sources in ([tmp_path / "ta", tmp_path / "tb"], [tmp_path / "ta", b], [a, tmp_path / "tb"]):
        merged = r.collect(sources, tmp_path / "merged")
        pd.testing.assert_frame_equal(merged.trials, both.trials)
        pd.testing.assert_frame_equal(merged.epochs, both.epochs)
        pd.testing.assert_frame_equal(merged.stages, both.stages)
        assert (merged.spaces, merged.factors, merged.reveals) == (both.spaces, both.factors, both.reveals)
    first = both.trials.set_index("seed").loc[0]
    assert (first["status"] == "ok").all()  # seed 0 of the first cell had failed in the first sweep
    assert first["space"].tolist() == ["first", "first"]
    assert both.spaces == ("first", "second")


def test_rows_of_other_versions_are_merged_by_the_names_of_their_columns(tmp_path):
    folder = sweep_folder(tmp_path / "s")
    r.collect([folder], tmp_path / "old")
    # An earlier version: fewer columns, in another order, no table of stages, one metadata for all.
    about = {
        "schema_version": 1,
        "spaces": ["demo"],
        "questions": ["?"],
        "factors": ["embedder.epochs"],
        "metric": "test_metric_best",
    }
    for name, lacking in (
        ("trials", ["lr_integral", "is_sealed", "revealed_at", "gpu_s"]),
        ("epochs", ["n_steps", "lr_integral"]),
    ):
        table = pq.read_table(tmp_path / "old" / f"{name}.parquet").drop_columns(lacking)
        r.write_table(tmp_path / "old" / f"{name}.parquet", table.select(table.column_names[::-1]), about)
    (tmp_path / "old" / "stages.parquet").unlink()
    assert r.read_results(tmp_path / "old").factors == ("embedder.epochs",)
    # A later one: more columns, of which one has types that do not go together.
    newer = sweep_folder(tmp_path / "newer", seeds=(7, 8))
    for i, path in enumerate(sorted((newer / "trials").glob("*/row.json"))):
        record = json.loads(path.read_text())
        more = {
            "row": {**record["row"], "energy_j": 1.5 * i},
            "epochs": [{**e, "odd": e["epoch"]} for e in record["epochs"]],
        }
        r.write_json(path, {**record, **more})
    found = r.collect([tmp_path / "old", newer], tmp_path / "t")
    assert len(found.trials) == 10 and len(found.epochs) == 20
    assert found.trials["energy_j"].notna().sum() == 4 and found.epochs["odd"].notna().sum() == 8
    schema = pq.read_schema(tmp_path / "t" / "trials.parquet")
    assert schema.field("energy_j").type == pa.float64()
    assert [name for name in schema.names if name != "energy_j"] == [column.name for column in r.trial_columns()]
    assert all(field.metadata[b"meaning"] for field in schema)
    for path in (newer / "trials").glob("*/row.json"):
        record = json.loads(path.read_text())
        r.write_json(path, {**record, "epochs": [{**e, "odd": "text"} for e in record["epochs"][:1]]})
        break
    again = r.collect([tmp_path / "old", newer], tmp_path / "t")  # old columns of numbers beside new ones of text
    assert "text" in set(again.epochs["odd"].dropna())


def test_two_that_collect_at_once_leave_nothing_that_is_trusted_wrongly(tmp_path, monkeypatch):
    """Another, which has seen less, writes its tables after ours and before our stamps."""
    folder, out = sweep_folder(tmp_path / "s", statuses=["ok", None]), tmp_path / "t"
    r.collect([folder], tmp_path / "less")
    late = sweep_folder(tmp_path / "whole") / "trials"
    missing = r.read_results(tmp_path / "less").trials["trial_id"][1]
    os.replace(late / missing, folder / "trials" / missing)
    real = collecting.write_table

    def interrupted(path, table, about):
        stamp = real(path, table, about)
        for name in TABLES if path.stem == TABLES[-1] else ():
            shutil.copyfile(tmp_path / "less" / f"{name}.parquet", out / f"{name}.parquet")
        return stamp

    with monkeypatch.context() as patch:
        patch.setattr(collecting, "write_table", interrupted)
        r.collect([folder], out)
    assert r.collect([folder], out).trials["status"].tolist() == ["ok"] * 6


def test_a_column_that_only_a_source_of_before_had_goes_with_it(tmp_path):
    a, b = sweep_folder(tmp_path / "a"), sweep_folder(tmp_path / "b", seeds=(7, 8))
    for path in (a / "trials").glob("*/row.json"):
        record = json.loads(path.read_text())
        epochs = [{**epoch, "odd": 1} for epoch in record["epochs"]]
        r.write_json(path, {**record, "row": {**record["row"], "energy_j": 1.5}, "epochs": epochs})
    assert "energy_j" in r.collect([a, b], tmp_path / "t").trials
    r.collect([b], tmp_path / "t")
    r.collect([b], tmp_path / "fresh")
    assert all_bytes(tmp_path / "t") == all_bytes(tmp_path / "fresh")


def test_a_newer_schema_is_refused_and_every_wrong_source_is_named(tmp_path):
    folder = sweep_folder(tmp_path / "s")
    r.collect([folder], tmp_path / "t")
    table = pq.read_table(tmp_path / "t" / "trials.parquet")
    r.write_table(tmp_path / "t" / "trials.parquet", table, {"schema_version": r.TABLE_SCHEMA + 1})
    with pytest.raises(InputError) as caught:
        r.collect([tmp_path / "t", tmp_path / "nowhere", folder], tmp_path / "out")
    assert [
        str(tmp_path / "t" / "trials.parquet") in p and "Upgrade" in p for p in map(str, caught.value.problems)
    ] == [
        True,
        False,
    ]
    assert "nowhere: no sweep here" in str(caught.value.problems[1])
    assert not (tmp_path / "out").exists()


def test_a_file_where_a_folder_must_be_is_told(tmp_path):
    folder, file = sweep_folder(tmp_path / "s"), tmp_path / "f"
    file.write_text("x")
    for out in (file, file / "t"):
        with pytest.raises(InputError, match="no folder can be made there"):
            r.collect([folder], out)
    for look in (lambda: r.collect([file], tmp_path / "t"), lambda: r.reveal(file), lambda: r.sweep_status(file)):
        with pytest.raises(InputError, match="f: no sweep here"):
            look()


def test_tables_open_in_pandas_polars_and_duckdb_alike(tmp_path):
    folder = with_stages(sweep_folder(tmp_path / "s", statuses=["ok", "failed"]))
    r.collect([folder], tmp_path / "t")
    for name, n in (("trials", 6), ("epochs", 12), ("stages", 12)):
        path = tmp_path / "t" / f"{name}.parquet"
        a, b = pd.read_parquet(path), polars.read_parquet(path)
        c = duckdb.sql(f"select * from '{path}'").pl()
        assert len(a) == n and list(a) == b.columns == c.columns
        for column in ("trial_id", "seed", "embedder.epochs", "val_metric", "n_steps", "is_sealed"):
            if column in a:
                values = [None if pd.isna(value) else value for value in a[column]]
                assert b[column].to_list() == c[column].to_list() == values
    moments = polars.read_parquet(tmp_path / "t" / "trials.parquet")["revealed_at"]
    assert moments.dtype == polars.Datetime("ms", "UTC")


def test_every_column_of_every_table_says_what_it_means(tmp_path):
    r.collect([sweep_folder(tmp_path / "s")], tmp_path / "t")
    for name, columns in (("trials", r.trial_columns()), ("epochs", r.EPOCH_COLUMNS), ("stages", r.STAGE_COLUMNS)):
        schema = pq.read_schema(tmp_path / "t" / f"{name}.parquet")
        assert schema.names == [column.name for column in columns]
        assert all(field.metadata[b"meaning"] for field in schema)
        assert {f.name: f.metadata[b"unit"].decode() for f in schema} == {c.name: c.unit for c in columns}
        assert json.loads(schema.metadata[b"orca_sweep"])["schema_version"] == r.TABLE_SCHEMA


def test_collect_on_the_command_line_names_all_three(tmp_path):
    folder = with_stages(sweep_folder(tmp_path / "s"))
    done = orca("collect", folder, "-o", tmp_path / "t")
    assert done.returncode == 0, done.stderr
    for text in (
        "trials.parquet: 6 trials (6 ok)",
        "epochs.parquet: 12 epochs",
        "stages.parquet: 12 stages",
    ):
        assert text in done.stdout


def test_records_that_the_plan_does_not_name_are_told_and_in_no_table(tmp_path, capsys):
    """As with the sweep.json of another sweep, a plan with a line less, or one from which a seed was taken."""
    folder = sweep_folder(tmp_path / "s")
    assert (r.sweep_status(folder).unplanned, r.collect([folder], tmp_path / "whole").notes) == (None, ())
    manifest = require_manifest(folder)
    *kept, last = manifest.trials
    less = manifest.model_copy(update={"trials": tuple(kept)})
    write_manifest(folder, less)
    words = f"{folder}/trials: 1 records are of no trial that sweep.json plans, such as {last['trial_id']}"
    assert r.sweep_status(folder).unplanned.startswith(words)
    results = r.collect([folder], tmp_path / "t")
    assert (len(results.trials), len(results.notes)) == (len(kept), 1)
    assert results.notes[0].startswith(words)
    assert words in orca("status", folder).stdout
    evil = folder / "trials" / "\x1b[31mevil"
    evil.mkdir()
    (evil / "row.json").write_text("{}")
    shown = orca("status", folder).stdout
    assert "\x1b" not in shown
    assert "2 records" in shown
    write_manifest(folder, less.model_copy(update={"earlier": (last,)}))  # of another content, and known
    assert "1 records" in r.sweep_status(folder).unplanned


def test_the_log_of_another_sweeps_looks_is_told(tmp_path):
    folder, other = sweep_folder(tmp_path / "s"), sweep_folder(tmp_path / "o", seeds=(7, 8))
    shutil.copy(other / "reveals.json", folder / "reveals.json")
    for read in (lambda: r.reveal(folder), lambda: r.collect([folder], tmp_path / "t")):
        with pytest.raises(InputError, match=r"reveals\.json: it is the log of another sweep.*Move it away to seal"):
            read()
    shutil.rmtree(folder / "trials")  # whose trials are gone has still looked at them
    assert len(r.reveals(folder)) == 1
