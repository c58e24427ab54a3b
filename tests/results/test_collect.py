"""Collecting many sweeps into one set of tables, repeatedly, from records and from tables made elsewhere."""

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
from orca_sweep.results import collecting, sources, tables
from orca_sweep.space.manifest import require_manifest, write_manifest
from tests.builders.in_process import run_here as orca
from tests.builders.sweeps import sweep_folder

TABLES = ("trials", "epochs", "stages")


def spy_on_reading(monkeypatch):
    """Returns a list that gets the id of each trial whose record is read, in order."""
    seen = []
    real = sources.read_record

    def spy(folder, trial_id):
        seen.append(trial_id)
        return real(folder, trial_id)

    monkeypatch.setattr(sources, "read_record", spy)
    return seen


def read_tables(folder):
    return {name: (folder / f"{name}.parquet").read_bytes() for name in TABLES}


def add_stages(folder):
    for path in sorted((folder / "trials").glob("*/row.json")):
        record = json.loads(path.read_text())
        stages = [{"stage": "finetune", "phase": phase, "n_steps": 7 * phase, "wall_time_s": 0.5} for phase in (1, 2)]
        row = {**record["row"], **r.unseal_metrics(record)}
        r.write_record(folder, row, record["epochs"], stages)
    return folder


def test_only_new_and_changed_records_are_read_again(tmp_path, monkeypatch):
    folder = add_stages(sweep_folder(tmp_path / "s", statuses=["ok", None, "failed"]))
    seen, out = spy_on_reading(monkeypatch), tmp_path / "t"
    ids = r.collect([folder], out).trials["trial_id"].tolist()
    assert seen == ids
    seen.clear()
    before = read_tables(out)
    assert r.collect([folder], out).trials["status"].tolist() == ["ok", "unfinished", "failed", "ok", "ok", "ok"]
    assert seen == [ids[1]] or seen == []
    assert read_tables(out) == before
    # One trial ends and a failed one runs again: these two are read, and the order does not change.
    seen.clear()
    whole = add_stages(sweep_folder(tmp_path / "whole"))
    os.replace(whole / "trials" / ids[1], folder / "trials" / ids[1])
    os.replace(whole / "trials" / ids[2] / "row.json", folder / "trials" / ids[2] / "row.json")
    r.reveal(folder)
    results = r.collect([folder], out)
    assert sorted(seen) == sorted([ids[1], ids[2]])
    assert results.trials["status"].tolist() == ["ok"] * 6
    assert r.collect([folder], tmp_path / "fresh").trials.equals(results.trials)
    assert read_tables(out) == read_tables(tmp_path / "fresh")


def test_tables_of_an_unchanged_sweep_stay_as_they_are(tmp_path, monkeypatch):
    folder = add_stages(sweep_folder(tmp_path / "s", statuses=["ok", None, "failed"]))
    out = tmp_path / "t"
    first = r.collect([folder], out)
    written = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    opened = []
    monkeypatch.setattr(
        collecting, "open_sources", lambda folders: opened.append(folders) or sources.open_sources(folders)
    )
    again = r.collect([folder], out)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == written and not opened
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(again, name), getattr(first, name))
    # Elsewhere, they are copied.
    r.collect([folder], tmp_path / "elsewhere", earlier=out)
    assert read_tables(tmp_path / "elsewhere") == read_tables(out) and not opened


@pytest.mark.parametrize("change", ["plan", "reveal", "record", "unplanned", "damage", "two", "gone"])
def test_any_change_to_a_sweep_makes_its_tables_anew(tmp_path, change):
    folder, out = sweep_folder(tmp_path / "s", statuses=["ok", None, "failed"]), tmp_path / "t"
    ids = r.collect([folder], out).trials["trial_id"].tolist()
    folders, record = [folder], folder / "trials" / ids[3] / "row.json"
    if change == "plan":
        manifest = require_manifest(folder)
        write_manifest(folder, manifest.model_copy(update={"question": "Another?", "trials": manifest.trials[:-1]}))
    elif change == "reveal":
        (folder / "reveals.json").unlink()
    elif change == "record":
        record.unlink()
    elif change == "unplanned":
        shutil.copytree(record.parent, folder / "trials" / "stranger")
    elif change == "damage":
        record.write_text("{")
    elif change == "two":
        folders.append(sweep_folder(tmp_path / "other", seeds=(7,), name="other"))
    else:
        shutil.rmtree(folder)
        with pytest.raises(InputError):
            r.collect(folders, out)
        return
    for _ in range(2):  # what is damaged or unplanned is said each time
        results = r.collect(folders, out)
        fresh = r.collect(folders, tmp_path / "fresh")
        assert results.trials.equals(fresh.trials) and results.notes == fresh.notes
        assert bool(results.notes) == (change in ("plan", "unplanned", "damage"))
        assert (results.questions, results.n_sealed, results.spaces) == (fresh.questions, fresh.n_sealed, fresh.spaces)
        shutil.rmtree(tmp_path / "fresh")


def test_a_digest_does_not_depend_on_how_texts_are_stored():
    texts = ["a", None, "", "é\u4e2d", "b" * 50]
    whole = pa.table({"text": pa.array(texts), "n": pa.array([1, None, 3, 4, 5])})
    digest = tables.table_digest(whole)
    longer = pa.table({"text": pa.array(["x", *texts, "y"]), "n": pa.array([0, 1, None, 3, 4, 5, 6])})
    assert tables.table_digest(longer.slice(1, 5)) == digest
    assert tables.table_digest(pa.concat_tables([whole.slice(0, 2), whole.slice(2)])) == digest
    moved = pa.table({"text": pa.array(["", None, "a", *texts[3:]]), "n": whole["n"]})
    assert tables.table_digest(moved) != digest
    assert tables.table_digest(whole.slice(0, 0)) != digest
    # As tables of earlier versions have it.
    assert digest == "658e09a85d8a43859c83a23a42c39567e73378f9cfa4082764afd2df15288ee5"


@pytest.mark.parametrize("harm", ["table", "stamps", "version"])
def test_earlier_tables_are_not_used_once_they_have_changed(tmp_path, monkeypatch, harm):
    folder, out = sweep_folder(tmp_path / "s"), tmp_path / "t"
    before = r.collect([folder], out).trials
    if harm == "table":
        pd.read_parquet(out / "epochs.parquet").iloc[:1].to_parquet(out / "epochs.parquet")
    elif harm == "stamps":
        (out / collecting.STAMPS).write_text("{")
    else:
        monkeypatch.setattr(collecting, "__version__", "9.9.9")
    seen = spy_on_reading(monkeypatch)
    results = r.collect([folder], out)
    assert len(seen) == 6
    assert results.trials.equals(before) and len(results.epochs) == 12


def test_tables_made_elsewhere_are_sources_and_the_better_record_wins(tmp_path):
    a = sweep_folder(tmp_path / "a", statuses=["failed", None], name="first")
    b = add_stages(sweep_folder(tmp_path / "b", seeds=(0, 5), name="second"))
    both = r.collect([a, b], tmp_path / "both")
    r.collect([a], tmp_path / "ta")
    r.collect([b], tmp_path / "tb")
    for folders in ([tmp_path / "ta", tmp_path / "tb"], [tmp_path / "ta", b], [a, tmp_path / "tb"]):
        merged = r.collect(folders, tmp_path / "merged")
        pd.testing.assert_frame_equal(merged.trials, both.trials)
        pd.testing.assert_frame_equal(merged.epochs, both.epochs)
        pd.testing.assert_frame_equal(merged.stages, both.stages)
        assert (merged.spaces, merged.factors, merged.reveals) == (both.spaces, both.factors, both.reveals)
    first = both.trials.set_index("seed").loc[0]
    assert (first["status"] == "ok").all()  # seed 0 of the first cell had failed in the first sweep
    assert first["space"].tolist() == ["first", "first"]
    assert both.spaces == ("first", "second")


def test_tables_with_other_columns_are_merged_by_name(tmp_path):
    folder = sweep_folder(tmp_path / "s")
    r.collect([folder], tmp_path / "old")
    # Fewer columns, in another order.
    for name, lacking in (
        ("trials", ["lr_integral", "is_sealed", "revealed_at", "gpu_s"]),
        ("epochs", ["n_steps", "lr_integral"]),
    ):
        table = pq.read_table(tmp_path / "old" / f"{name}.parquet")
        about = json.loads(table.schema.metadata[b"orca_sweep"])
        table = table.drop_columns(lacking)
        r.write_table(tmp_path / "old" / f"{name}.parquet", table.select(table.column_names[::-1]), about)
    assert r.read_results(tmp_path / "old").factors == ("embedder.epochs",)
    # More columns, one of them with incompatible types.
    newer = sweep_folder(tmp_path / "newer", seeds=(7, 8))
    for i, path in enumerate(sorted((newer / "trials").glob("*/row.json"))):
        record = json.loads(path.read_text())
        more = {
            "row": {**record["row"], "energy_j": 1.5 * i},
            "epochs": [{**e, "odd": e["epoch"]} for e in record["epochs"]],
        }
        r.write_json(path, {**record, **more})
    results = r.collect([tmp_path / "old", newer], tmp_path / "t")
    assert len(results.trials) == 10 and len(results.epochs) == 20
    assert results.trials["energy_j"].notna().sum() == 4 and results.epochs["odd"].notna().sum() == 8
    schema = pq.read_schema(tmp_path / "t" / "trials.parquet")
    assert schema.field("energy_j").type == pa.float64()
    assert [name for name in schema.names if name != "energy_j"] == [column.name for column in r.trial_columns()]
    assert all(field.metadata[b"meaning"] for field in schema)
    for path in (newer / "trials").glob("*/row.json"):
        record = json.loads(path.read_text())
        r.write_json(path, {**record, "epochs": [{**e, "odd": "text"} for e in record["epochs"][:1]]})
        break
    again = r.collect([tmp_path / "old", newer], tmp_path / "t")  # a column has numbers in one part and text in another
    assert "text" in set(again.epochs["odd"].dropna())


def test_two_collections_at_once_leave_no_stamps_of_other_tables(tmp_path, monkeypatch):
    """A second collection, with fewer records, writes its tables between the first one's tables and stamps."""
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


def test_an_unknown_column_goes_with_its_source(tmp_path):
    a, b = sweep_folder(tmp_path / "a"), sweep_folder(tmp_path / "b", seeds=(7, 8))
    for path in (a / "trials").glob("*/row.json"):
        record = json.loads(path.read_text())
        epochs = [{**epoch, "odd": 1} for epoch in record["epochs"]]
        r.write_json(path, {**record, "row": {**record["row"], "energy_j": 1.5}, "epochs": epochs})
    assert "energy_j" in r.collect([a, b], tmp_path / "t").trials
    r.collect([b], tmp_path / "t")
    r.collect([b], tmp_path / "fresh")
    assert read_tables(tmp_path / "t") == read_tables(tmp_path / "fresh")


def test_another_schema_is_refused_and_every_wrong_source_is_named(tmp_path):
    folder = sweep_folder(tmp_path / "s")
    r.collect([folder], tmp_path / "t")
    table = pq.read_table(tmp_path / "t" / "trials.parquet")
    about = {"schema_version": r.TABLE_SCHEMA + 1, "sweeps": []}
    r.write_table(tmp_path / "t" / "trials.parquet", table, about)
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
    r.write_table(tmp_path / "t" / "trials.parquet", table, {**about, "schema_version": r.TABLE_SCHEMA - 1})
    with pytest.raises(InputError, match="schema version 1; this version reads 2. Make the tables again"):
        r.read_results(tmp_path / "t")


def test_a_file_in_place_of_a_folder_is_reported(tmp_path):
    folder, file = sweep_folder(tmp_path / "s"), tmp_path / "f"
    file.write_text("x")
    for out in (file, file / "t"):
        with pytest.raises(InputError, match="a file is in the way, so the folder cannot be made"):
            r.collect([folder], out)
    for look in (lambda: r.collect([file], tmp_path / "t"), lambda: r.reveal(file), lambda: r.sweep_status(file)):
        with pytest.raises(InputError, match="f: no sweep here"):
            look()


def test_tables_open_in_pandas_polars_and_duckdb_alike(tmp_path):
    folder = add_stages(sweep_folder(tmp_path / "s", statuses=["ok", "failed"]))
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


def test_every_column_of_every_table_has_a_meaning(tmp_path):
    r.collect([sweep_folder(tmp_path / "s")], tmp_path / "t")
    for name, columns in (("trials", r.trial_columns()), ("epochs", r.EPOCH_COLUMNS), ("stages", r.STAGE_COLUMNS)):
        schema = pq.read_schema(tmp_path / "t" / f"{name}.parquet")
        assert schema.names == [column.name for column in columns]
        assert all(field.metadata[b"meaning"] for field in schema)
        assert {f.name: f.metadata[b"unit"].decode() for f in schema} == {c.name: c.unit for c in columns}
        assert json.loads(schema.metadata[b"orca_sweep"])["schema_version"] == r.TABLE_SCHEMA


def test_the_command_line_names_all_three_tables(tmp_path):
    folder = add_stages(sweep_folder(tmp_path / "s"))
    done = orca("collect", folder, "-o", tmp_path / "t")
    assert done.returncode == 0, done.stderr
    for text in ("trials.parquet: 6 trials (6 ok)", "epochs.parquet: 12 epochs", "stages.parquet: 12 stages"):
        assert text in done.stdout


def test_records_of_unplanned_trials_are_reported_and_in_no_table(tmp_path, capsys):
    """For example with the sweep.json of another sweep, or after a seed was removed from the plan."""
    folder = sweep_folder(tmp_path / "s")
    assert (r.sweep_status(folder).unplanned, r.collect([folder], tmp_path / "whole").notes) == (None, ())
    manifest = require_manifest(folder)
    *kept, last = manifest.trials
    less = manifest.model_copy(update={"trials": tuple(kept)})
    write_manifest(folder, less)
    words = f"{folder}/trials: 1 record belongs to trials that sweep.json does not plan, such as {last['trial_id']}"
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
    write_manifest(folder, less.model_copy(update={"earlier": (last,)}))  # a known trial of earlier content
    assert "1 record belongs" in r.sweep_status(folder).unplanned


def test_the_log_of_another_sweep_is_reported(tmp_path):
    folder, other = sweep_folder(tmp_path / "s"), sweep_folder(tmp_path / "o", seeds=(7, 8))
    shutil.copy(other / "reveals.json", folder / "reveals.json")
    for read in (lambda: r.reveal(folder), lambda: r.collect([folder], tmp_path / "t")):
        with pytest.raises(InputError, match=r"reveals\.json: it belongs to another sweep.*Move it away to seal"):
            read()
    shutil.rmtree(folder / "trials")  # somebody has looked at them even if the trials are gone
    assert len(r.read_reveals(folder)) == 1
