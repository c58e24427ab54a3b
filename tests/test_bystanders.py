"""Whatever deletes or overwrites a file leaves alone what it has not made: each with a file that stands by."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from orca_sweep.errors import InputError, StorageError
from orca_sweep.store import Store, stage_key
from orca_sweep.store_names import MARKER
from tests.test_fetching import command

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
        assert "no store (no orca-sweep-store.json)" in (shown := capsys.readouterr().err) or "a sweep folder" in shown
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
    assert [line for line in would.splitlines() if line.startswith("would delete")] == [f"would delete {tmp_path / gone}"]
    # It says what it takes before it takes it.
    assert did.splitlines()[0] == f"to delete: {tmp_path / gone}"
    assert command(monkeypatch, "store", "ls", root) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1  # the head alone


def test_an_entry_that_became_a_link_or_whose_store_lost_its_marker_is_not_deleted(tmp_path):
    store = filled_store(tmp_path / "store")
    (entry,) = store.entries()
    (tmp_path / "store/embedder").rename(tmp_path / "moved")
    (tmp_path / "store/embedder").symlink_to(tmp_path / "moved", target_is_directory=True)
    with pytest.raises(OSError):
        store.remove(entry)
    (tmp_path / "store/embedder").unlink()
    (tmp_path / "moved").rename(tmp_path / "store/embedder")
    (tmp_path / "store" / MARKER).unlink()
    with pytest.raises(InputError, match="Nothing is deleted there"):
        store.remove(entry)
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
        store.check()
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
    assert "holds what no store writes" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_a_store_is_made_only_where_nothing_is(tmp_path):
    write(tmp_path / "home/thesis.tex")
    before = contents(tmp_path)
    store = Store(str(tmp_path / "home"))
    for act in (store.make, lambda: store.put_row("a", {}), lambda: store.put("s", KEY, {}, {})):
        with pytest.raises(StorageError, match="not empty, and no store of ours"):
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
    assert len(Store(root).entries()) == 40
    assert Store(root).is_marked()


def test_an_object_store_lists_and_removes_only_its_own():
    store = Store("memory://orca-own/deep")
    store.put("embedder", KEY, {"x": np.zeros(3)}, {})
    for name in ("notes.txt", "embedder/notes.txt", f"a b/{KEY}.safetensors", f"embedder/sub/{KEY}.safetensors"):
        store.fs.pipe_file(f"{store.root}/{name}", b"mine")
    (entry,) = store.entries()
    store.remove(entry)
    assert len(store.fs.find(store.root)) == 5  # the marker and the others
    with pytest.raises(StorageError, match="no store of ours"):
        other = Store("memory://orca-own")
        other.make()


def test_a_launch_refuses_a_store_that_is_something_else(tmp_path):
    from orca_sweep.sweep.checks import check_store

    write(tmp_path / "home/thesis.tex")
    with pytest.raises(InputError, match=r"--store .*home: not empty, and no store of ours \(thesis.tex\)"):
        check_store(str(tmp_path / "home"), tmp_path / "out")
    for root in (tmp_path, tmp_path / "out"):
        with pytest.raises(InputError, match="holds --out"):
            check_store(str(root), tmp_path / "out")
    check_store(str(tmp_path / "out/store"), tmp_path / "out")
    assert set(contents(tmp_path)) == {"home/thesis.tex"}
