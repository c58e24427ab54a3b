"""Tables of sweeps: typed, reproducible, and refused with a message if they are damaged."""

import json
from dataclasses import replace

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orca_sweep import results as r
from orca_sweep.config import knobs
from orca_sweep.errors import InputError
from orca_sweep.space.manifest import read_manifest, require_manifest, write_manifest
from tests.builders.sweeps import sweep_folder
from tests.builders.tables import cell_rows, in_memory, trial


def test_tables_are_typed_and_describe_their_columns(tmp_path):
    folder = sweep_folder(tmp_path / "s", statuses=["ok", "failed", None])
    results = r.collect([folder], tmp_path / "t")
    assert results.trials["status"].tolist() == ["ok", "failed", "unfinished", "ok", "ok", "ok"]
    assert "launch again" in results.trials["error"][2]
    assert results.factors == ("embedder.epochs",)
    schema = pq.read_schema(tmp_path / "t" / "trials.parquet")
    assert set(knobs()) <= set(schema.names)
    assert str(schema.field("embedder.epochs").type) == "int64"
    assert str(schema.field("finetune.lr").type) == "double"
    assert str(schema.field("finetune.freeze_epochs").type) == "string"
    assert schema.field("wall_time_s").metadata[b"unit"] == b"s"
    assert all(field.metadata[b"meaning"] for field in schema)
    assert json.loads(schema.metadata[b"orca_sweep"])["schema_version"] == r.TABLE_SCHEMA
    assert pd.isna(results.trials["test_metric_best"][1])
    assert len(results.epochs) == 10
    assert set(results.epochs["trial_id"]) <= set(results.trials["trial_id"])


def test_collecting_twice_gives_the_same_bytes_and_sweeps_merge(tmp_path):
    a, b = sweep_folder(tmp_path / "a", statuses=["failed"]), sweep_folder(tmp_path / "b", seeds=(0, 5))
    r.collect([a, b], tmp_path / "t")
    first = (tmp_path / "t" / "trials.parquet").read_bytes()
    merged = r.collect([a, b], tmp_path / "t")
    assert (tmp_path / "t" / "trials.parquet").read_bytes() == first
    assert len(merged.trials) == 8
    assert merged.trials["trial_id"].is_unique
    # A trial that failed in one sweep and is ok in the other has one row, with its result.
    assert (merged.trials["status"] == "ok").all()
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_summary_counts_trials_without_a_result(tmp_path):
    folder = sweep_folder(tmp_path / "s", statuses=["ok", "ok", "diverged"])
    cells = r.summarise_cells(r.collect([folder], tmp_path / "t"))
    assert [(c.interval.n, c.n_not_ok) for c in cells] == [(2, 1), (3, 0)]
    assert cells[0].interval.mean == pytest.approx(0.55)
    assert cells[0].status_counts == {"ok": 2, "diverged": 1}
    with pytest.raises(InputError, match="is not a column"):
        r.summarise_cells(r.read_results(tmp_path / "t"), "accuracy")


def test_the_aa_cell_is_a_separate_cell_in_tables_and_in_the_summary(tmp_path):
    from rich.console import Console

    from orca_sweep.cli.summary import _print_cells

    folder = sweep_folder(tmp_path / "s", seeds=(0, 1, 2, 3), statuses=["ok", "ok", "ok", None])
    plain = r.collect([folder], tmp_path / "plain")
    # Only the plan knows which cell a trial belongs to.
    manifest = require_manifest(folder)
    for planned in manifest.trials[2:4]:
        planned |= {"cell_id": f"{planned['cell_id']}-aa", "role": "aa"}
    write_manifest(folder, manifest)
    with_aa = r.collect([folder], tmp_path / "t")
    assert with_aa.trials["role"].tolist() == ["replicate"] * 2 + ["aa"] * 2 + ["replicate"] * 4
    assert with_aa.trials["cell_id"].tolist() == [t["cell_id"] for t in manifest.trials]
    cells = r.summarise_cells(with_aa)
    assert [(c.role, c.interval.n, c.n_not_ok) for c in cells] == [
        ("replicate", 2, 0),
        ("aa", 1, 1),
        ("replicate", 4, 0),
    ]
    assert cells[1].cell_id == f"{cells[0].cell_id}-aa"
    assert cells[1].levels == cells[0].levels
    for results, heads in ((plain, "embedder.epochs  n"), (with_aa, "embedder.epochs  role       n")):
        console = Console(record=True, width=120)
        _print_cells(results, console)
        shown = console.export_text()
        assert heads in shown
        assert (" aa " in shown) == (results is with_aa)


def test_the_aa_cell_has_its_own_line_in_the_figure(tmp_path):
    from orca_sweep.analysis.figure2_proxies import compute, numbers

    folder = sweep_folder(tmp_path / "s")
    manifest = require_manifest(folder)
    manifest.trials[2].update(cell_id=f"{manifest.trials[2]['cell_id']}-aa", role="aa")
    write_manifest(folder, manifest)
    figure = compute(r.collect([folder], tmp_path / "t"))
    assert [line.split(",")[2] for line in numbers(figure).splitlines() if ",test_metric_best," in line] == [
        "0", "0 (aa)", "3",
    ]  # fmt: skip


def test_reading_reports_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match="neither a sweep .* nor tables"):
        r.read_results(tmp_path)
    with pytest.raises(InputError, match="no sweep here"):
        r.collect([tmp_path], tmp_path / "t")
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(InputError, match="sweep.json: damaged: not a record that orca-sweep wrote"):
        read_manifest(tmp_path)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(InputError, match="sweep.json: damaged"):
        read_manifest(tmp_path)
    (tmp_path / "sweep.json").unlink()
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "trials.parquet")
    with pytest.raises(
        InputError, match=r"trials.parquet: not what 'orca-sweep collect' wrote \(its metadata is wrong\)"
    ):
        r.read_results(tmp_path)
    r.write_table(tmp_path / "trials.parquet", pa.table({"a": [1]}), {"schema_version": r.TABLE_SCHEMA, "sweeps": []})
    with pytest.raises(InputError, match="no column trial_id, cell_id, role, seed, status"):
        r.read_results(tmp_path)


def test_results_need_neither_torch_nor_ray(tmp_path):
    import subprocess
    import sys

    sweep_folder(tmp_path / "s")
    code = (
        "import sys; from pathlib import Path; import orca_sweep.results as r;"
        f"r.summarise_cells(r.collect([Path({str(tmp_path / 's')!r})], Path({str(tmp_path / 't')!r})));"
        "sys.exit(bool({'torch', 'ray', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_cells_of_equal_levels_show_the_tuned_field_in_which_they_differ():
    fixed = cell_rows({"proxy": "none", "finetune.lr": 0.001}, [0.3, 0.3, 0.3])
    tuned = {"proxy": "none", "finetune.lr": 0.0027}
    candidate = trial({**tuned, "finetune.lr": 0.001}, 1000000, 0.2, "search")[0] | {
        "cell_id": cell_rows(tuned, [0.2])[0][0]["cell_id"]
    }
    rows = [(candidate, trial(tuned, 1000000, 0.2)[1]), *fixed, *cell_rows(tuned, [0.2, 0.2, 0.2])]
    results = replace(in_memory(rows), tuned=("finetune.lr",))
    assert [cell.labels["finetune.lr"] for cell in r.summarise_cells(results)] == ["0.0027", "0.001"]


@pytest.mark.parametrize("column", ["status", "seed", "finetune.lr", "metric_low", "val_metric_bst", "host"])
def test_only_columns_of_metrics_are_compared(column):
    results = in_memory(cell_rows({"proxy": "none", "finetune.lr": 0.1}, [0.3, 0.3], metric_low=0.0, host="vm"))
    with pytest.raises(InputError, match=r"this is not a column of metrics in the trials table\. .*test_metric_best"):
        r.summarise_cells(results, column)
