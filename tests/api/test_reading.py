"""``read_results``: sweeps, tables, or several of both, and nothing is written into any of them."""

import pandas as pd
import pytest

from orca_sweep import InputError, read_results
from orca_sweep.results import collect
from tests.builders.in_process import snapshot
from tests.builders.sweeps import sweep_folder


def test_sweeps_and_tables_are_read_alike_and_mixed(tmp_path):
    a, b = sweep_folder(tmp_path / "a"), sweep_folder(tmp_path / "b", seeds=(7, 8), statuses=["failed"])
    tables = tmp_path / "tables"
    collect([a], tables)
    before = snapshot(tmp_path)
    of_sweep, of_tables, mixed = read_results(a), read_results(str(tables)), read_results(tables, str(b))
    pd.testing.assert_frame_equal(of_sweep.trials, of_tables.trials)
    pd.testing.assert_frame_equal(of_sweep.epochs, of_tables.epochs)
    assert mixed.trials["status"].value_counts().to_dict() == {"ok": 9, "failed": 1}
    assert len(mixed.epochs) == len(of_sweep.epochs) + 8
    assert len(read_results(a, tables, a).trials) == 6  # a trial that several hold is taken once
    assert snapshot(tmp_path) == before


def test_every_folder_that_holds_nothing_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as raised:
        read_results(tmp_path / "empty", tmp_path / "gone", sweep_folder(tmp_path / "a"))
    assert len(raised.value.problems) == 2
    assert "empty: neither a sweep (no sweep.json) nor tables (no trials.parquet)" in str(raised.value)
    with pytest.raises(InputError, match="no folder"):
        read_results()


def test_a_damaged_record_is_a_lost_row_and_a_note(tmp_path):
    folder = sweep_folder(tmp_path / "a")
    record = next(folder.glob("trials/*/row.json"))
    record.write_text("{")
    results = read_results(folder)
    assert (results.trials["status"] == "lost").sum() == 1
    assert any(str(record) in note for note in results.notes)
