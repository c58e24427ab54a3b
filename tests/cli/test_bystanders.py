"""Whatever deletes or overwrites a file leaves alone what it has not made: each with a file that stands by."""

import os
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from orca_sweep import results
from orca_sweep.analysis import writing
from orca_sweep.api.planning import make_plan
from orca_sweep.data import Conversion, File, load_or_convert
from orca_sweep.data.fetching import fetch_files, unpack_archive
from orca_sweep.errors import InputError, StorageError
from orca_sweep.results import collecting
from orca_sweep.space.manifest import append_planned, require_manifest, write_manifest
from orca_sweep.store import Store, stage_key
from orca_sweep.store.names import MARKER
from orca_sweep.sweep.checks import check_folder, check_store
from orca_sweep.tasks.tabular import fetch_openml
from orca_sweep.training.run import drop_checkpoint
from tests.builders.in_process import command
from tests.builders.sweeps import sweep_folder
from tests.commands import wait_for

KEY = stage_key("embedder", {"which": "one"})
LONG_AGO = time.time() - 400 * 86400


def contents(folder):
    """Every file below a folder with its bytes, links as what they point to."""
    return {
        path.relative_to(folder).as_posix(): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_symlink() or path.is_file()
    }


def age(folder):
    for path in Path(folder).rglob("*"):
        os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)


def write(path, text="mine"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def filled_store(root):
    store = Store(str(root))
    store.put("embedder", KEY, {"x": np.zeros(3)}, {})
    store.put_row("0123456789ab", {"status": "ok"})
    return store


# The store ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("thesis.tex", "data/raw.csv"),
        (f"embedder/{KEY}.safetensors", f"pretrain/{KEY}.safetensors"),  # a store's folders, and no marker
        ("sweep.json", "trials/0123456789ab/row.json", f"store/embedder/{KEY}.safetensors"),
        (),
    ],
)
def test_gc_refuses_a_folder_that_is_no_store(tmp_path, monkeypatch, capsys, names):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in names:
        write(folder / name)
    age(folder)
    before = contents(folder)
    for arguments in (("gc", folder, "--yes", "--unused-for", 0), ("ls", folder)):
        assert command(monkeypatch, "store", *arguments) == 2
        assert (
            "not a store (no orca-sweep-store.json)" in (shown := capsys.readouterr().err) or "a sweep folder" in shown
        )
    assert contents(folder) == before


def test_gc_touches_only_what_a_store_writes_and_follows_no_link(tmp_path, monkeypatch, capsys):
    filled_store(tmp_path / "store")
    root, away = tmp_path / "store", tmp_path / "away"
    bystanders = [
        "thesis.tex", "embedder/notes.txt", "embedder/model.safetensors", f"embedder/{KEY}.safetensors.bak",
        f"embedder/{KEY[:-1]}.safetensors", f"embedder/sub/{KEY}.safetensors", f"My Models/{KEY}.safetensors",
        f"{KEY}.safetensors", ".git/config", "embedder/.notes.tmp", f"embedder/{KEY.upper()}.safetensors",
    ]  # fmt: skip
    for name in bystanders:
        write(root / name)
    other = stage_key("embedder", {"which": "other"})
    write(away / f"{other}.safetensors", "theirs")
    (root / "pretrain").symlink_to(away, target_is_directory=True)
    (root / "embedder" / f"{other}.safetensors").symlink_to(away / f"{other}.safetensors")
    age(tmp_path)
    before = contents(tmp_path)
    assert command(monkeypatch, "store", "gc", root) == 0
    would = capsys.readouterr().out
    assert contents(tmp_path) == before
    assert command(monkeypatch, "store", "gc", root, "--yes", "--unused-for", 0) == 0
    did = capsys.readouterr().out
    gone = f"store/embedder/{KEY}.safetensors"
    assert contents(tmp_path) == {name: text for name, text in before.items() if name != gone}
    assert [line for line in would.splitlines() if line.startswith("would delete")] == [
        f"would delete {tmp_path / gone}"
    ]
    # It says what it takes before it takes it.
    assert did.splitlines()[0] == f"to delete: {tmp_path / gone}"
    assert command(monkeypatch, "store", "ls", root) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1  # the head alone


def test_an_entry_that_became_a_link_or_whose_store_lost_its_marker_is_not_deleted(tmp_path):
    store = filled_store(tmp_path / "store")
    (entry,) = store.list_entries()
    (tmp_path / "store/embedder").rename(tmp_path / "moved")
    (tmp_path / "store/embedder").symlink_to(tmp_path / "moved", target_is_directory=True)
    with pytest.raises(NotADirectoryError):
        store.remove_entry(entry)
    (tmp_path / "store/embedder").unlink()
    (tmp_path / "moved").rename(tmp_path / "store/embedder")
    (tmp_path / "store" / MARKER).unlink()
    with pytest.raises(InputError, match="nothing in it is deleted"):
        store.remove_entry(entry)
    assert Path(entry.path).is_file()


def test_a_store_in_a_sweep_folder_is_marked_when_it_is_made_and_gc_works_there(tmp_path, monkeypatch, capsys):
    write(tmp_path / "sweep/sweep.json")
    filled_store(tmp_path / "sweep/store")
    age(tmp_path)
    assert command(monkeypatch, "store", "gc", tmp_path / "sweep", "--yes") == 2
    assert f"Its store is {tmp_path / 'sweep'}/store" in capsys.readouterr().err
    assert command(monkeypatch, "store", "gc", tmp_path / "sweep/store", "--yes") == 0
    assert set(contents(tmp_path)) == {
        "sweep/sweep.json", f"sweep/store/{MARKER}", "sweep/store/rows/0123456789ab.json"
    }  # fmt: skip


@pytest.mark.parametrize("damage", [None, "", "{}", "[1]", "\x00"])
def test_a_store_that_lost_its_marker_says_how_to_mark_it_again(tmp_path, monkeypatch, capsys, damage):
    store = filled_store(tmp_path / "store")
    marker = tmp_path / "store" / MARKER
    marker.unlink() if damage is None else marker.write_text(damage)
    words = f"orca-sweep store mark {tmp_path / 'store'}"
    with pytest.raises(StorageError, match=words):
        store.put("embedder", stage_key("embedder", {}), {"x": np.zeros(3)}, {})
    with pytest.raises(InputError, match=words):
        store.check_root()
    assert store.get("embedder", KEY) is not None  # what is there can still be read
    assert command(monkeypatch, "store", "ls", store.root) == 2
    assert words in capsys.readouterr().err
    assert command(monkeypatch, "store", "mark", store.root) == 0
    assert command(monkeypatch, "store", "ls", store.root) == 0
    store.put("embedder", stage_key("embedder", {}), {"x": np.zeros(3)}, {})


@pytest.mark.parametrize("name", ["thesis.tex", "embedder/notes.txt", "embedder/sub/a", f"a b/{KEY}.safetensors"])
def test_a_folder_with_anything_else_is_not_marked_again(tmp_path, monkeypatch, capsys, name):
    filled_store(tmp_path / "store")
    (tmp_path / "store" / MARKER).unlink()
    write(tmp_path / "store" / name)
    before = contents(tmp_path)
    assert command(monkeypatch, "store", "mark", tmp_path / "store") == 2
    assert "contains files that are not a store's" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_a_store_is_made_only_where_nothing_is(tmp_path):
    write(tmp_path / "home/thesis.tex")
    before = contents(tmp_path)
    store = Store(str(tmp_path / "home"))
    for act in (store.make_root, lambda: store.put_row("a", {}), lambda: store.put("s", KEY, {}, {})):
        with pytest.raises(StorageError, match="not empty, and not a store"):
            act()
    assert contents(tmp_path) == before


@pytest.mark.parametrize("root", ["folder", "memory://orca-race"])
def test_workers_that_make_a_store_at_once_all_have_it(tmp_path, root):
    root = str(tmp_path / "store") if root == "folder" else root
    errors, start = [], threading.Barrier(8)

    def make(number):
        start.wait()
        try:
            for step in range(5):
                Store(root).put("embedder", stage_key("embedder", {"n": number, "step": step}), {"x": np.zeros(1)}, {})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(Store(root).list_entries()) == 40
    assert Store(root).is_marked()


def test_an_object_store_lists_and_removes_only_its_own():
    store = Store("memory://orca-own/deep")
    store.put("embedder", KEY, {"x": np.zeros(3)}, {})
    for name in ("notes.txt", "embedder/notes.txt", f"a b/{KEY}.safetensors", f"embedder/sub/{KEY}.safetensors"):
        store.fs.pipe_file(f"{store.root}/{name}", b"mine")
    (entry,) = store.list_entries()
    store.remove_entry(entry)
    assert len(store.fs.find(store.root)) == 5  # the marker and the others
    with pytest.raises(StorageError, match="not a store"):
        Store("memory://orca-own").make_root()


def test_a_launch_refuses_a_store_that_is_something_else(tmp_path):
    write(tmp_path / "home/thesis.tex")
    with pytest.raises(InputError, match=r"store: .*home: not empty, and not a store \(thesis.tex\)"):
        check_store(str(tmp_path / "home"), tmp_path / "out")
    for root in (tmp_path, tmp_path / "out"):
        with pytest.raises(InputError, match="contains the sweep folder"):
            check_store(str(root), tmp_path / "out")
    check_store(str(tmp_path / "out/store"), tmp_path / "out")
    assert set(contents(tmp_path)) == {"home/thesis.tex"}


# Outputs that a user names ------------------------------------------------------------------------


@pytest.fixture
def sweep(tmp_path):
    return sweep_folder(tmp_path / "sweep")


def test_collect_replaces_its_own_tables_and_nobody_elses(sweep, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    bystanders = {name: write(out / name) for name in ("thesis.tex", "more.parquet", "sub/trials.parquet")}
    for _ in range(2):  # into a folder with other files, and over its own
        assert command(monkeypatch, "collect", sweep, "-o", out) == 0
    (out / "epochs.parquet").write_bytes(b"PAR1 damaged since")
    assert command(monkeypatch, "collect", sweep, "-o", out) == 0
    (out / collecting.STAMPS).write_text("{")
    assert command(monkeypatch, "collect", sweep, "-o", out) == 0
    assert all(path.read_text() == "mine" for path in bystanders.values())


@pytest.mark.parametrize("name", ["trials.parquet", "epochs.parquet", "stages.parquet", ".collected.json"])
@pytest.mark.parametrize("kind", ["text", "table", "link", "folder"])
def test_collect_refuses_tables_that_it_has_not_written(sweep, tmp_path, monkeypatch, capsys, name, kind):
    out, away = tmp_path / "out", tmp_path / "away"
    out.mkdir()
    pd.DataFrame({"x": [1]}).to_parquet(away)
    if kind == "text":
        write(out / name)
    elif kind == "table":
        (out / name).write_bytes(away.read_bytes())
    elif kind == "link":
        (out / name).symlink_to(away)
    else:
        write(out / name / "thesis.tex")
    before = contents(tmp_path)
    assert command(monkeypatch, "collect", sweep, "-o", out) == 2
    assert f"{out / name}: orca-sweep did not write this file" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_a_foreign_table_beside_our_stamps_is_refused_too(sweep, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert command(monkeypatch, "collect", sweep, "-o", out) == 0
    pd.DataFrame({"x": [1]}).to_parquet(out / "stages.parquet")
    before = contents(out)
    assert command(monkeypatch, "collect", sweep, "-o", out) == 2
    assert contents(out) == before


def test_analyses_replace_what_they_wrote_and_nothing_else(sweep, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    bystanders = {name: write(out / name) for name in ("thesis.tex", "table.csv", "sub/table_results.csv")}
    for name in ("table_results", "figure2_proxies"):
        words, file = ("analyse", name, sweep, "--out", out), out / f"{name}.csv"
        assert command(monkeypatch, *words) == 0
        (out / writing.WRITTEN).write_text((out / writing.WRITTEN).read_text() + "garbage\n\x00")
        with file.open("a") as opened:
            opened.write("my own remark\n")
        before = contents(out)
        assert command(monkeypatch, *words) == 2
        assert f"{file}: the file exists, and orca-sweep did not write it" in capsys.readouterr().err
        assert contents(out) == before
    (out / "table_results.csv").unlink()
    for _ in range(2):
        assert command(monkeypatch, "analyse", "table_results", sweep, "--out", out) == 0
    assert all(path.read_text() == "mine" for path in bystanders.values())


@pytest.mark.parametrize("kind", ["text", "link", "dangling", "folder"])
def test_an_analysis_writes_nothing_at_all_if_one_of_its_files_is_somebody_elses(tmp_path, kind):
    out, away = tmp_path / "out", write(tmp_path / "away")
    out.mkdir()
    match kind:
        case "text":
            write(out / "b.csv")
        case "link":
            (out / "b.csv").symlink_to(away)
        case "dangling":
            (out / "b.csv").symlink_to(tmp_path / "nowhere")
        case "folder":
            write(out / "b.csv/thesis.tex")
    before = contents(tmp_path)
    with pytest.raises(InputError, match="b.csv: the file exists, and orca-sweep did not write it"):
        writing.write_files(out, {"a.csv": b"1", "b.csv": b"2"})
    assert contents(tmp_path) == before


def test_a_script_that_was_killed_between_two_files_knows_its_own_again(tmp_path, monkeypatch):
    writing.write_files(tmp_path, {"a.csv": b"1", "b.csv": b"1"})
    replace, calls = os.replace, []

    def die(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise KeyboardInterrupt
        replace(*paths)

    monkeypatch.setattr("os.replace", die)
    with pytest.raises(KeyboardInterrupt):
        writing.write_files(tmp_path, {"a.csv": b"2", "b.csv": b"2"})
    monkeypatch.undo()
    assert set(contents(tmp_path)) == {"a.csv", "b.csv", writing.WRITTEN}
    writing.write_files(tmp_path, {"a.csv": b"3", "b.csv": b"3"})
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes() == b"3"


@pytest.mark.parametrize("kind", ["text", "html", "link", "empty"])
def test_a_report_replaces_reports_only(sweep, tmp_path, monkeypatch, capsys, kind):
    results.collect([sweep], tmp_path / "tables")
    path = tmp_path / "thesis.html"
    match kind:
        case "text" | "empty":
            write(path, "mine" if kind == "text" else "")
        case "html":
            write(path, "<!DOCTYPE html>\n<html><head><meta name='generator' content='TeX4ht'></head></html>")
        case "link":
            path.symlink_to(write(tmp_path / "away"))
    before = contents(tmp_path)
    assert command(monkeypatch, "report", tmp_path / "tables", "--out", path) == 2
    assert f"{path}: the file exists, and orca-sweep did not write it" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_a_report_replaces_an_earlier_one(sweep, tmp_path, monkeypatch):
    results.collect([sweep], tmp_path / "tables")
    for _ in range(2):
        assert command(monkeypatch, "report", tmp_path / "tables", "--out", tmp_path / "report.html") == 0


# Data ---------------------------------------------------------------------------------------------


def test_a_conversion_clears_away_only_what_its_like_left(tmp_path):
    def convert(root, writer):
        writer.append("x", np.zeros((2, 3), dtype="float32"))

    killed = f".mine.{'0' * 32}.tmp"
    bystanders = (".mine.backup.tmp/thesis.tex", f".mine.more.{'0' * 32}.tmp/x.npy", "mine/notes.txt", "other/a.npy")
    for name in (*bystanders, f"{killed}/x.npy"):
        write(tmp_path / "converted" / name)
    away = write(tmp_path / "away/thesis.tex")
    (tmp_path / f"converted/.mine.{'1' * 32}.tmp").symlink_to(away.parent, target_is_directory=True)
    load_or_convert(Conversion(name="mine", run=convert), tmp_path, ())
    assert {name: (tmp_path / "converted" / name).read_text() for name in bystanders} == dict.fromkeys(
        bystanders, "mine"
    )
    assert away.read_text() == "mine"
    assert not (tmp_path / "converted" / killed).exists()


def test_fetching_openml_keeps_a_table_that_is_there(tmp_path, monkeypatch, capsys):
    pytest.importorskip("openml", reason="the extra 'openml'")
    write(tmp_path / "openml/31.parquet")
    assert command(monkeypatch, "data", "fetch", "openml:31", "--data", tmp_path) == 0
    assert "31.parquet: is there" in capsys.readouterr().out
    assert contents(tmp_path) == {"openml/31.parquet": b"mine"}


def test_fetching_openml_writes_one_new_file(tmp_path, monkeypatch):
    """OpenML itself is far away: its package is stood in for by what it gives."""
    frame = pd.DataFrame({"a": [1, 2], "class": pd.Series(["x", "y"])})
    found = SimpleNamespace(
        default_target_attribute="class", name="credit", version=1, md5_checksum="0",
        get_data=lambda target: (frame[["a"]], frame[target], None, None),
    )  # fmt: skip
    sets = SimpleNamespace(get_dataset=lambda *_, **__: found)
    monkeypatch.setitem(sys.modules, "openml", SimpleNamespace(datasets=sets))
    for name in ("31.json", "31.tmp", "31.parquet.bak"):
        write(tmp_path / "openml" / name)
    before = contents(tmp_path)
    path, how = fetch_openml("openml:31", tmp_path)
    assert how.startswith("fetched")
    assert {**before, "openml/31.parquet": path.read_bytes()} == contents(tmp_path)
    assert fetch_openml("openml:31", tmp_path) == (path, "is there")


def test_fetching_leaves_files_that_are_there_and_others_parts(tmp_path):
    mirror, root = tmp_path / "mirror", tmp_path / "data"
    for name in ("a.bin", "b.bin"):
        write(mirror / name, "published")
    for name in ("a.bin", ".b.bin.part", "b.bin.part", ".b.bin.tmp", ".unpack-mine/x", "thesis.tex"):
        write(root / name)
    before = contents(root)
    fetch_files((File(path="a.bin"), File(path="b.bin")), root, str(mirror))
    after = contents(root)
    assert {name: after[name] for name in before} == before
    assert after["b.bin"] == b"published"


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_unpacking_leaves_files_that_are_there(tmp_path, kind):
    root = tmp_path / "data"
    archive = root / f"a.{'zip' if kind == 'zip' else 'tar.gz'}"
    for name in ("x/mine.txt", "thesis.tex"):
        write(root / name)
    write(tmp_path / "packed/x/mine.txt", "theirs")
    write(tmp_path / "packed/x/new.txt", "theirs")
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for name in ("x/mine.txt", "x/new.txt"):
                packed.write(tmp_path / "packed" / name, name)
    else:
        with tarfile.open(archive, "w:gz") as packed:
            packed.add(tmp_path / "packed/x", "x")
    before = contents(root)
    unpack_archive(archive, root)
    assert contents(root) == {**before, "x/new.txt": b"theirs"}


# A sweep's own folder -----------------------------------------------------------------------------


def test_a_trial_drops_its_own_checkpoint_and_no_more(tmp_path):
    bystanders = ("checkpoint.safetensors.bak", ".checkpoint.safetensors.mine.tmp", "row.json", "notes.txt")
    for name in (*bystanders, "checkpoint.safetensors", f".checkpoint.safetensors.{'0' * 32}.tmp"):
        write(tmp_path / name)
    drop_checkpoint(tmp_path)
    assert set(contents(tmp_path)) == set(bystanders)


def test_writing_a_sweeps_plan_and_records_leaves_the_rest_of_its_folder(sweep):
    manifest = require_manifest(sweep)
    trial = manifest.trials[0]
    for name in (
        "thesis.tex",
        ".sweep.json.tmp",
        f"trials/{trial['trial_id']}/notes.txt",
        "tables/mine.csv",
        "figures/a.png",
    ):
        write(sweep / name)
    before = contents(sweep)
    append_planned(sweep, [trial])
    write_manifest(sweep, manifest)
    results.collect([sweep], sweep / "tables")
    results.reveal(sweep)
    after = contents(sweep)
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed <= {"sweep.json", "planned-before.json"}
    assert {name.split("/")[0] for name in after.keys() - before} <= {"planned-before.json", "tables"}


@pytest.mark.parametrize("names", [("thesis.tex",), (".lock",), ("store/notes.txt",), ("trials/a/row.json",)])
def test_a_launch_refuses_a_folder_with_something_else(write_space, tmp_path, names):
    plan = make_plan(write_space("base: {task: tiny}\nseeds: 1\n"))
    for name in names:
        write(tmp_path / "out" / name)
    before = contents(tmp_path / "out")
    with pytest.raises(InputError, match="not empty and not a sweep"):
        check_folder(plan, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_a_launch_takes_a_folder_that_a_refused_launch_or_a_probe_left(write_space, tmp_path):
    plan = make_plan(write_space("base: {task: tiny}\nseeds: 1\n"))
    write(tmp_path / "out/.lock", "")
    filled_store(tmp_path / "out/store")
    check_folder(plan, tmp_path / "out")


def test_ci_takes_away_its_own_folder_alone(tmp_path):
    """The script itself, with stand-ins for what it installs and runs."""
    for name in ("python3", "python", "pip", "ruff", "mypy", "lint-imports", "pytest", "chromium"):
        write(tmp_path / "bin" / name, '#!/bin/sh\nls -A "$TMPDIR" >> "$TMPDIR/../seen"\n').chmod(0o755)
    (tmp_path / "bin" / "python3").write_text('#!/bin/sh\nmkdir -p "$3"  # -m venv FOLDER\n')
    write(tmp_path / "tmp/thesis.tex")
    variables = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run([Path(__file__).parents[2] / ".ci/run"], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "tmp." in (tmp_path / "seen").read_text()  # its folder, while it ran
    wait_for(lambda: [path.name for path in (tmp_path / "tmp").iterdir()] == ["thesis.tex"])  # it goes by itself
    assert set(contents(tmp_path / "tmp")) == {"thesis.tex"}


def test_ci_fails_when_one_of_its_checks_fails(tmp_path):
    """Also one of those that run beside the tests; and it says what that check printed."""
    names = ("pip", "ruff", "mypy", "lint-imports", "python", "pytest", "chromium")
    for name in names:
        write(tmp_path / "bin" / name, f'#!/bin/sh\necho "by {name}"\n[ "$FAILING" != {name} ]\n').chmod(0o755)
    write(tmp_path / "bin/python3", '#!/bin/sh\nmkdir -p "$3"\n').chmod(0o755)
    (tmp_path / "tmp").mkdir()
    variables = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "TMPDIR": str(tmp_path / "tmp")}
    for name in (*names[:-1], "nothing"):
        done = subprocess.run(
            [Path(__file__).parents[2] / ".ci/run"], env={**variables, "FAILING": name}, capture_output=True, text=True
        )
        assert (done.returncode == 0) == (name == "nothing"), name
        assert name == "nothing" or f"by {name}" in done.stdout
    wait_for(lambda: not list((tmp_path / "tmp").iterdir()))
