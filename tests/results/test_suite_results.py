"""The folder of a suite is read as one: status, tables, reveals, single trials."""

import fcntl
import shutil

import pytest

from orca_sweep import results as r
from orca_sweep.errors import InputError
from orca_sweep.results import collecting
from orca_sweep.space.manifest import read_manifest, write_manifest
from orca_sweep.space.suites import SuiteManifest, write_suite
from tests.builders.suites import suite_folder
from tests.builders.sweeps import sweep_folder


@pytest.fixture
def suite(tmp_path):
    """Two members with the same six trials: of these, the second has ended the first and failed at the second."""
    return suite_folder(
        tmp_path / "study", a=[None, None, "ok", "ok", "ok", None], b=["ok", "failed"] + ["ok"] * 3 + [None]
    )


def count_reads(monkeypatch):
    """Counts the records that are read."""
    from orca_sweep.results import sources

    read, known = sources.read_record, []
    monkeypatch.setattr(sources, "read_record", lambda folder, name: known.append(name) or read(folder, name))
    return known


# Status -------------------------------------------------------------------------------------------


def test_status_counts_equal_trials_once_by_their_best_status_and_names_the_members(suite):
    state = r.sweep_status(suite)
    assert (state.name, state.n_planned, state.statuses) == ("study", 6, {"ok": 4, "failed": 1, "unfinished": 1})
    assert [(member.name, member.statuses) for member in state.members] == [
        ("a", {"unfinished": 3, "ok": 3}),
        ("b", {"ok": 4, "failed": 1, "unfinished": 1}),
    ]
    (failure,) = state.failures
    assert failure.name.startswith("b: ")
    lines = list(state.write_lines())
    assert lines[0] == "study: 6 trials: 1 failed, 4 ok, 1 unfinished; no launch is running"
    assert "  a: 6 trials: 3 ok, 3 unfinished" in lines
    assert any(line.startswith(f"{failure.trial_id} failed, b: ") for line in lines)


def test_a_failure_that_another_member_has_made_good_is_none(tmp_path):
    state = r.sweep_status(suite_folder(tmp_path / "s", a=["failed", *["ok"] * 5], b=["ok"] * 6))
    assert (state.statuses, state.failures) == ({"ok": 6}, ())


def test_a_suite_runs_while_its_folder_or_that_of_a_member_is_held(suite):
    for lock in (suite / ".lock", suite / "b" / ".lock"):
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            assert r.sweep_status(suite).is_running
        assert r.sweep_status(suite).is_running is False


def test_a_space_that_left_the_suite_keeps_its_folder_and_status_says_so(suite):
    write_suite(suite, SuiteManifest(name="study", members=("b",)))
    state = r.sweep_status(suite)
    assert [member.name for member in state.members] == ["b"]
    assert state.notes == (
        f"{suite / 'a'}: no longer in the suite; it keeps its trials, and no table of the suite has them.",
    )
    assert set(r.read_results(suite).trials["space"]) == {"b"}
    assert r.sweep_status(suite / "a").n_planned == 6  # alone, it is a sweep as any other


def test_a_member_without_a_plan_is_named_and_not_counted(suite):
    (suite / "a" / "sweep.json").unlink()
    note = f"{suite / 'a'}: this member of the suite has no plan yet, so it has no rows. Launch the suite again."
    assert r.sweep_status(suite).notes == (note,)
    assert r.read_results(suite).notes == (note,)
    (suite / "b" / "sweep.json").unlink()
    for look in (r.sweep_status, r.read_results, r.reveal):
        with pytest.raises(InputError, match="no member of this suite has a plan yet"):
            look(suite)


# Tables -------------------------------------------------------------------------------------------


def test_the_tables_of_a_suite_are_those_of_its_members_merged(suite, tmp_path):
    whole = r.read_results(suite)
    apart = r.collect([suite / "a", suite / "b"], tmp_path / "t")
    assert whole.trials.equals(apart.trials)
    assert whole.spaces == ("a", "b")
    assert whole.trials["status"].value_counts().to_dict() == {"ok": 4, "failed": 1, "unfinished": 1}
    assert not (suite / "tables").exists()


def test_a_second_collection_of_several_folders_reads_only_what_changed(suite, monkeypatch):
    r.collect([suite], suite / "tables")
    before = {path: path.stat().st_mtime_ns for path in (suite / "tables").iterdir()}
    opened = []
    monkeypatch.setattr(collecting, "open_sources", lambda paths: opened.append(paths) or 1 / 0)
    r.collect([suite], suite / "tables")
    r.read_results(suite)
    assert (opened, before) == ([], {path: path.stat().st_mtime_ns for path in (suite / "tables").iterdir()})
    monkeypatch.undo()
    known = count_reads(monkeypatch)
    trial_id = r.sweep_status(suite).failures[0].trial_id
    r.write_record(suite / "a", {"trial_id": trial_id, "status": "ok", "metric": "error"}, [])
    assert r.collect([suite], suite / "tables").trials["status"].value_counts().to_dict() == {"ok": 5, "unfinished": 1}
    assert set(known) == {trial_id}


@pytest.mark.parametrize("change", ["plan", "reveal", "member", "unplanned"])
def test_tables_are_made_again_when_anything_of_a_member_changed(suite, change):
    r.collect([suite], suite / "tables")
    if change == "plan":
        manifest = read_manifest(suite / "b")
        write_manifest(suite / "b", manifest.model_copy(update={"question": "new?"}))
        assert "new?" in r.read_results(suite).questions
    if change == "reveal":
        (suite / "b" / "reveals.json").unlink()
        assert len(r.read_results(suite).reveals) == 1
    if change == "member":
        sweep_folder(suite / "c", name="c")
        write_suite(suite, SuiteManifest(name="study", members=("a", "b", "c")))
        assert set(r.read_results(suite).trials["status"]) == {"ok"}
    if change == "unplanned":
        trial_id = r.read_results(suite).trials["trial_id"][0]
        shutil.copytree(suite / "b" / "trials" / trial_id, suite / "b" / "trials" / "other")
        assert any("does not plan" in note for note in r.read_results(suite).notes)


def test_a_trial_is_looked_up_in_all_members(suite):
    trial_id = next(
        path.name for path in (suite / "b" / "trials").iterdir() if not (suite / "a" / "trials" / path.name).exists()
    )
    assert r.find_trial(suite, trial_id[:10]).row["status"] in ("ok", "failed")


# Smoke sweeps -------------------------------------------------------------------------------------


def test_tables_of_a_smoke_sweep_say_so_and_so_does_what_is_made_from_them(tmp_path):
    from orca_sweep.analysis.catalogue import make_output

    folder = sweep_folder(tmp_path / "demo-smoke", name="demo-smoke")
    assert r.read_results(folder).smoke == ()
    write_manifest(folder, read_manifest(folder).model_copy(update={"is_smoke": True}))
    results = r.read_results(folder)
    assert results.smoke == ("demo-smoke",)
    warning = "Smoke sweep (demo-smoke): small on purpose"
    assert results.notes[0].startswith(warning)
    r.collect([folder], tmp_path / "t")
    assert r.read_results(tmp_path / "t").smoke == ("demo-smoke",)  # from tables too
    for name in ("claims", "table_results"):
        output = make_output(name, results)
        assert output.warnings[0].startswith(warning)
        assert all(table.caption.startswith(warning) for table in output.tables)


def test_the_page_of_a_smoke_sweep_begins_with_the_warning(tmp_path):
    from orca_sweep import Sweep

    folder = sweep_folder(tmp_path / "s", name="s-smoke")
    write_manifest(folder, read_manifest(folder).model_copy(update={"is_smoke": True}))
    page = Sweep.open(folder).report().read_text()
    body = page[page.index("<body") :]
    assert "believe no claim" in body[: body.index("<dl")]


# Reveals ------------------------------------------------------------------------------------------


def test_a_reveal_shows_all_members_and_is_one_look(suite):
    for name in ("a", "b"):
        (suite / name / "reveals.json").unlink()
    sealed = r.read_results(suite)
    assert (sealed.n_sealed, sealed.metric) == (4, "val_metric_best")
    look = r.reveal(suite)
    assert len(look.trials) == 4
    assert [(each.time, set(each.trials)) for each in r.read_reveals(suite)] == [(look.time, set(look.trials))]
    assert r.read_results(suite).n_sealed == 0
    assert r.reveal(suite).trials == ()
    assert [len(r.read_reveals(suite / name)) for name in ("a", "b")] == [1, 1]


def start_trial(folder, trial_id, started):
    """Writes the record of a trial that started then."""
    row = {"trial_id": trial_id, "status": "ok", "metric": "error", "test_metric_best": 0.5, "started_at": started}
    r.write_record(folder, row, [])


def test_a_look_at_another_member_of_the_suite_counts_before_later_trials(tmp_path):
    suite = suite_folder(tmp_path / "s", a=["ok", *[None] * 5], b=[None] * 6)
    (looked,) = r.read_reveals(suite)  # at a alone: nothing of b had ended
    assert r.read_reveals(suite / "b") == ()
    later, earlier = (trial["trial_id"] for trial in read_manifest(suite / "b").trials[1:3])
    start_trial(suite / "b", later, r.now())
    start_trial(suite / "b", earlier, "2000-01-01T00:00:00.000+00:00")
    for tables in (r.read_results(suite), r.read_results(suite / "b")):
        counts = tables.trials.set_index("trial_id")["n_reveals_before"]
        assert (counts[later], counts[earlier]) == (1, 0)
    (suite / "a" / "reveals.json").write_text("{}")  # a reports that itself
    assert r.read_results(suite / "b").trials["n_reveals_before"].max() == 0


# A trial in two cells ------------------------------------------------------------------------------


def test_a_trial_that_two_cells_have_counts_once(tmp_path, capsys):
    from orca_sweep.cli.collect import collect

    suite = suite_folder(tmp_path / "s", a=["ok", *[None] * 5], b=[None] * 6)
    (suite / "a" / "reveals.json").unlink()
    manifest = read_manifest(suite / "b")
    first, *rest = manifest.trials
    write_manifest(suite / "b", manifest.model_copy(update={"trials": [{**first, "cell_id": "tuned"}, *rest]}))
    results = r.read_results(suite)
    assert (len(results.trials), results.n_sealed) == (7, 1)
    collect([suite])
    assert "6 trials (5 unfinished, 1 ok) in 7 rows: a trial that is in two cells has a row for each" in " ".join(
        capsys.readouterr().out.split()
    )


def test_hours_are_those_of_the_space_that_ran_a_trial(tmp_path):
    suite = suite_folder(tmp_path / "s", a=[None] * 6, b=["ok", *[None] * 5])
    trial_id = read_manifest(suite / "b").trials[0]["trial_id"]
    start_trial(suite / "b", trial_id, r.now())
    record = r.read_record(suite / "b", trial_id)
    r.write_record(suite / "b", {**record["row"], "wall_time_s": 3600.0}, [])
    manifest = read_manifest(suite / "a")
    wide = manifest.resources.model_copy(update={"gpu": 1.0})
    write_manifest(suite / "a", manifest.model_copy(update={"resources": wide}))
    assert r.take_record(suite / "a", trial_id, source=suite / "b", sibling="b", name="a")["taken_from"] == "b"
    state = r.sweep_status(suite)
    assert (state.cpu_hours, state.gpu_hours) == (1.0, 0.0)
