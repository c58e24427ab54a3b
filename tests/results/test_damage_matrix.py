"""Every kind of file that orca-sweep reads back, with every damage, and the commands that read it.

Each combination must end with exit code 0, 1 or 2 and without a traceback, must not change the numbers of undamaged trials,
and must name the damaged file unless its content is made again. The long test tries every command, the short one those that
end within a fraction of a second.
"""

import contextlib
import itertools
import json
import logging
import os
import shutil
import socket
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orca_sweep import results as r
from orca_sweep.api import finishing
from orca_sweep.data import Conversion, File, load_or_convert
from orca_sweep.data.fetching import fetch_files
from orca_sweep.errors import OrcaSweepError
from orca_sweep.space.manifest import TunedEntry, append_planned, require_manifest, write_manifest
from orca_sweep.store import Store
from tests.builders.in_process import Ended, orca, snapshot
from tests.builders.sweeps import sweep_folder

TABLES = ("trials", "epochs", "stages")


# Commands, in this process --------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def quick_commands(monkeypatch):
    """Figures read the same tables as the summary, and are not drawn here."""
    monkeypatch.setattr(finishing, "draw_figures", lambda *_: finishing.Drawn(pictures=(), refusals=(), warnings=()))
    monkeypatch.setattr(os, "fsync", lambda _: None)  # what it is for, no test without a power cut can show


# Files ----------------------------------------------------------------------------------------------


def make_world(root):
    """Makes a half-revealed sweep that planned trials while it ran, its tables, and a data root."""
    sweep = sweep_folder(root / "sweep", statuses=["ok", "ok", "failed"])
    manifest = require_manifest(sweep)
    trials = [{**trial, "role": "replicate"} for trial in manifest.trials]
    cells = [
        TunedEntry(cell_id=cell_id, base=trials[index]["config"], settings={}, levels={}, candidates=())
        for index, cell_id in enumerate(dict.fromkeys(trial["cell_id"] for trial in trials))
    ]
    plan = manifest.model_copy(update={"tuned": tuple(cells), "n_later": 4, "trials": tuple(trials[:2])})
    write_manifest(sweep, plan)
    append_planned(sweep, trials[2:4])
    write_manifest(sweep, plan)  # trials that the first launch planned while it ran stay planned
    append_planned(sweep, trials[4:])
    (sweep / "trials" / trials[2]["trial_id"] / "error.txt").write_text("Traceback\nValueError: no\n")
    for trial in trials[4:]:  # these ended after the only reveal
        record = r.read_record(sweep, trial["trial_id"])
        ended = {**record["row"], **r.unseal_metrics(record)}
        stages = [{"stage": "finetune", "phase": 1, "n_steps": 7}]
        r.write_record(sweep, ended, record["epochs"], stages)
    look = r.read_reveals(sweep)[0]
    shown = [trial["trial_id"] for trial in trials[:2]]
    r.write_json(sweep / "reveals.json", {"reveals": [{"time": look.time, "trials": shown}]})
    assert orca("collect", sweep).code == 0
    (root / "planned").write_text("\n".join(sorted(trial["trial_id"] for trial in require_manifest(sweep).trials)))
    data, mirror = root / "data", root / "mirror"
    data.mkdir()
    (data / "hashes.json").write_text(json.dumps({"other.bin": f"sha256:{'0' * 64}"}))
    shutil.copytree(sweep, root / "another")  # its files replace those of the sweep
    other = root / "another"
    replaced = {"name": "another", "trials": tuple(trials[:1])}
    r.write_json(other / "sweep.json", require_manifest(other).model_copy(update=replaced).content())
    orca("collect", other)
    mirror.mkdir()
    (mirror / "new.bin").write_bytes(b"new")
    (data / "x.bin").write_bytes(np.arange(1000, dtype=np.int32).tobytes())
    folder = load_or_convert(CONVERSION, data, [File(path="x.bin")]).folder
    folder.rename(folder.with_name("made"))
    store = Store(str(root / "store"))
    store.put("stage", "key", ARRAYS, {})
    store.put("stage", "other", {**ARRAYS, "w": ARRAYS["w"] + 1}, {})
    for name, seconds in (("a", 1.5), ("b", 2.5)):
        store.put_row(name, {"used": {"stage": "key"}, "wall_time_s": seconds})
    return root


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of file, the commands that read it, and another file to replace it by."""

    name: str
    path: str
    copy: str | None
    commands: tuple
    is_made_anew: bool = False
    """Its content can be made again, so that messages need not name it."""
    content: dict = field(default_factory=dict)
    """Wrong content that is written with a right checksum."""


def status(root):
    return orca("status", root / "sweep")


def status_json(root):
    return orca("status", root / "sweep", "--json", "--check")


def collect_elsewhere(root):
    return orca("collect", root / "sweep", "-o", root / "out")


def collect_here(root):
    return orca("collect", root / "sweep")


def reveal(root):
    return orca("reveal", root / "sweep")


def resume(root):
    return orca("resume", root / "sweep", "--address", "127.0.0.1:1")


def replay(root):
    return orca("replay", damaged_trial(root), "--from", root / "sweep", "--data", root / "data")


def report(root):
    return orca("report", root / "sweep", "-o", root / "report.html")


def collect_tables(root):
    return orca("collect", root / "sweep" / "tables", "-o", root / "out")


def report_tables(root):
    return orca("report", root / "sweep" / "tables", "-o", root / "report.html")


def analyse(root):
    return orca("analyse", "table_results", root / "sweep" / "tables", "--out", root / "out")


@contextlib.contextmanager
def logged(texts):
    """Collects the warnings in the package's log, which a command prints to stderr."""
    handler = logging.Handler()
    handler.emit = lambda entry: texts.append(entry.getMessage())
    logging.getLogger("orca_sweep").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("orca_sweep").removeHandler(handler)


def as_command(work):
    """Runs a library call and returns what a command would end with."""
    texts = []
    try:
        with logged(texts):
            work()
    except OrcaSweepError as error:
        return Ended(code=2, text=" ".join([*texts, str(error)]))
    return Ended(code=0, text=" ".join(texts))


def fetch_file(root):
    return as_command(lambda: fetch_files([File(path="new.bin")], root / "data", str(root / "mirror")))


def use_artifact(root):
    def work():
        artifact, _ = Store(str(root / "store")).get_or_compute("stage", "key", lambda: (ARRAYS, {}))
        assert artifact.tensors["w"].tolist() == ARRAYS["w"].tolist()

    return as_command(work)


def read_earlier_rows(root):
    def work():
        assert [row["wall_time_s"] for row in Store(str(root / "store")).read_rows(10)] in ([1.5, 2.5], [2.5])

    return as_command(work)


def use_converted(root):
    def work():
        arrays = load_or_convert(CONVERSION, root / "data", [File(path="x.bin")])
        assert arrays["x"].tolist() == list(range(1000))

    return as_command(work)


def convert_x(root, writer):
    writer.append("x", np.frombuffer((root / "x.bin").read_bytes(), np.int32))


ARRAYS = {"w": np.arange(500.0), "b": np.ones(3)}
CONVERSION = Conversion(name="x", run=convert_x)


def damaged_trial(root):
    return (root / "damaged").read_text()


SWEEP = (status, status_json, collect_elsewhere, collect_here, reveal)
READ_TABLES = (collect_tables, analyse)
TRIAL = "sweep/trials/{trial}"
KINDS = (
    Kind(name="row.json", path=f"{TRIAL}/row.json", copy="another/trials/{other}/row.json", commands=(*SWEEP, replay),
         content={"schema": 2, "row": {"trial_id": "?", "status": 3}, "epochs": {}}),
    Kind(name="error.txt", path="sweep/trials/{failed}/error.txt", copy="another/sweep.json", is_made_anew=True,
         commands=SWEEP),
    Kind(name="sweep.json", path="sweep/sweep.json", copy="another/reveals.json", commands=(*SWEEP, resume),
         content={"name": "s", "factors": ["x"], "trials": [{"trial_id": "../..", "cell_id": "c", "config": {"task": "t"}}]}),
    Kind(name="planned.jsonl", path="sweep/planned.jsonl", copy="another/sweep.json", commands=(*SWEEP, resume),
         content={"trial_id": "a", "cell_id": 3, "config": {}}),
    Kind(name="planned-before.json", path="sweep/planned-before.json", copy="another/reveals.json",
         commands=(*SWEEP, resume), content={"trials": {"a": 1}}),
    Kind(name="reveals.json", path="sweep/reveals.json", copy="another/sweep.json", commands=(collect_elsewhere, collect_here,
         reveal), content={"reveals": [{"time": "yesterday", "trials": ["a"]}]}),
    Kind(name=".collected.json", path="sweep/tables/.collected.json", copy="another/tables/.collected.json",
         is_made_anew=True, commands=(collect_here,), content={"by": [], "tables": {}, "trials": {"a": 1}}),
    *(Kind(name=f"{name}.parquet", path=f"sweep/tables/{name}.parquet", copy=f"another/tables/{name}.parquet",
           commands=READ_TABLES) for name in TABLES),
    *(Kind(name=f"{name}.parquet, collected again", path=f"sweep/tables/{name}.parquet", is_made_anew=True,
           copy=f"another/tables/{name}.parquet", commands=(collect_here,)) for name in TABLES),
    Kind(name="hashes.json", path="data/hashes.json", copy="another/sweep.json", commands=(fetch_file,)),
    Kind(name="a stage artifact", path="store/stage/key.safetensors", copy="store/stage/other.safetensors",
         commands=(use_artifact,)),
    Kind(name="a row in the store", path="store/rows/a.json", copy="another/sweep.json", commands=(read_earlier_rows,),
         content={"name": "a", "row": {"used": "?"}}),
    Kind(name="about.json", path="data/converted/x/made/about.json", copy="another/sweep.json", commands=(use_converted,),
         content={"schema": 2, "made": 1.0, "sources": {}, "arrays": 3, "written": {}}),
    Kind(name="x.npy", path="data/converted/x/made/x.npy", copy="another/sweep.json", commands=(use_converted,)),
)  # fmt: skip
LONG = {"row.json": (report,), "sweep.json": (report,), "reveals.json": (report,),
        **{f"{name}.parquet": (report_tables,) for name in TABLES}}  # fmt: skip


# Damages --------------------------------------------------------------------------------------------


def put(path, content):
    path.write_bytes(content)


def edit(path, kind, root):
    """Changes a number, as an editor would, or a column of a table, as a program that rewrites it would."""
    if path.suffix == ".parquet":
        frame = pd.read_parquet(path)
        numbers = [name for name in ("val_metric", "seed", "n_steps") if name in frame]
        frame[numbers[0]] = frame[numbers[0]] + 1
        frame.to_parquet(path)
        return
    blob = path.read_bytes()
    digits = [i for i, byte in enumerate(blob) if byte in b"0123456789" and i > len(blob) // 2]
    put(
        path,
        b"edited"
        if not digits
        else blob[: digits[0]] + bytes([48 + (blob[digits[0]] - 47) % 10]) + blob[digits[0] + 1 :],
    )


def seal_wrong_content(path, kind, root):
    """Writes wrong content with a right checksum."""
    if path.suffix == ".parquet":
        import pyarrow as pa

        r.write_table(path, pa.table({"trial_id": ["a"], "x": [1]}), {"schema_version": 2, "sweeps": [3]})
    elif kind.content:
        r.write_json(path, kind.content)
        put(path, path.read_bytes() + b"\n")
    else:
        put(path, b"{}")


def replace_by(make):
    def damage(path, kind, root):
        path.unlink()
        make(path)

    return damage


def flip(path, kind, root):
    """Flips a bit in the middle; in a table, the next one that its values depend on, since not every bit is used."""
    whole = path.read_bytes()
    for i in range(len(whole) // 2, len(whole)):
        put(path, whole[:i] + bytes([whole[i] ^ 0x10]) + whole[i + 1 :])
        if path.suffix != ".parquet" or reads_otherwise(path, whole):
            return


def reads_otherwise(path, whole):
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return not pq.read_table(path).equals(pq.read_table(pa.BufferReader(whole)))
    except (pa.ArrowException, OSError, ValueError):
        return True


DAMAGES = {
    "empty": lambda path, kind, root: put(path, b""),
    "zeros": lambda path, kind, root: put(path, bytes(path.stat().st_size)),
    "half": lambda path, kind, root: put(path, path.read_bytes()[: path.stat().st_size // 2]),
    "last byte lost": lambda path, kind, root: put(path, path.read_bytes()[:-1].rstrip(b"}")),
    "garbage": lambda path, kind, root: put(path, bytes(range(256)) * 8),
    "no UTF-8": lambda path, kind, root: put(path, b'{"row": "\xff\xfe"}\n'),
    "a bit flipped": flip,
    "more behind it": lambda path, kind, root: put(path, path.read_bytes() + b"\n{}\nmore\n"),
    "a list": lambda path, kind, root: put(path, b"[]\n"),
    "null": lambda path, kind, root: put(path, b"null\n"),
    "another JSON": lambda path, kind, root: put(path, b'{"trials": 3, "row": []}\n'),
    "deep": lambda path, kind, root: put(path, b"[" * 100_000),
    "edited": edit,
    "sealed wrongly": seal_wrong_content,
    "another's": lambda path, kind, root: shutil.copyfile(copy_of(kind, root), path),
    "a folder": replace_by(Path.mkdir),
    "a pipe": replace_by(os.mkfifo),
    "a socket": lambda path, kind, root: make_socket(path),
    "a link to nothing": replace_by(lambda path: path.symlink_to("nowhere")),
    "a link to itself": replace_by(lambda path: path.symlink_to(path.name)),
    "unreadable": lambda path, kind, root: path.chmod(0),
}


def make_socket(path):
    path.unlink()
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


HARMLESS = {
    ("hashes.json", "edited"), ("hashes.json", "sealed wrongly"),  # a hash of another file
    ("about.json", "a link to nothing"), ("about.json", "a link to itself"),  # as if it were never converted
    ("a stage artifact", "a link to nothing"), ("a row in the store", "a link to nothing"),
    ("planned.jsonl", "empty"), ("planned.jsonl", "last byte lost"),
    ("planned.jsonl", "half"),  # as a killed driver leaves it: lost trials count as still to be planned
}  # fmt: skip


def names_in(root):
    ids = (root / "planned").read_text().split()
    failed = next(trial_id for trial_id in ids if (root / "another" / "trials" / trial_id / "error.txt").exists())
    sealed = [
        trial_id
        for trial_id in ids
        if trial_id not in r.read_reveals(root / "another")[0].trials and trial_id != failed
    ]
    return {"trial": sealed[0], "other": sealed[1], "failed": failed}


def copy_of(kind, root):
    return root / kind.copy.format(**names_in(root))


def numbers(root, bad):
    """Returns the collected numbers of undamaged trials."""
    frame = pd.read_parquet(root / "out" / "trials.parquet").set_index("trial_id")
    kept = ["status", "val_metric_best", "n_steps", "test_metric_best", "is_sealed", "cell_id", "embedder.epochs"]
    whole = frame.drop(index=bad, errors="ignore")[kept].sort_index().astype(object)
    return whole.where(whole.notna(), None)


def try_all(tmp_path, combinations):
    """Runs each combination in a separate copy; returns the numbers of exit codes, and what went wrong."""
    world = make_world(tmp_path / "world")
    names = names_in(world)
    assert collect_elsewhere(world).code == 0
    whole = numbers(world, [])
    codes, wrong = Counter(), []
    for n, (kind, (damage, harm), command) in enumerate(combinations):
        if damage == "unreadable" and os.geteuid() == 0:
            continue  # nothing is unreadable to root
        root = tmp_path / str(n)
        shutil.copytree(world, root, symlinks=True)
        shutil.rmtree(root / "out")
        (root / "damaged").write_text(names["trial"])
        path = root / kind.path.format(**names)
        where = f"{kind.name} x {damage} x {command.__name__}"
        try:
            harm(path, kind, root)
            before = snapshot(root / "sweep")
            ended = command(root)
            codes[ended.code] += 1
            if ended.code not in (0, 1, 2) or "Traceback (" in ended.text:
                wrong.append(f"{where}: exit code {ended.code}: {ended.text}")
            is_named = str(path.name) in ended.text
            if not is_named and not kind.is_made_anew and (kind.name, damage) not in HARMLESS:
                wrong.append(f"{where}: not named, exit code {ended.code}: {ended.text}")
            if command in (
                status,
                status_json,
                collect_elsewhere,
                report,
                collect_tables,
                report_tables,
                analyse,
                replay,
            ):
                changed = before.items() ^ snapshot(root / "sweep").items()
                wrong += [f"{where}: wrote {sorted(map(str, dict(changed)))}"] if changed else []
            if command is collect_elsewhere and ended.code == 0:
                bad = [names["trial"]] if kind.name == "row.json" else []
                known = numbers(root, bad)
                expected = whole[whole.index.isin(known.index)].drop(index=bad, errors="ignore")
                if not known.equals(expected) or (len(known) < len(whole) - len(bad) and kind.name != "planned.jsonl"):
                    wrong.append(f"{where}: numbers changed")
        except Exception as error:
            wrong.append(f"{where}: {type(error).__name__}: {error}")
        finally:
            shutil.rmtree(root, ignore_errors=True)
    return codes, wrong


def print_counts(codes, title):
    counts = ", ".join(f"exit code {code}: {n}" for code, n in sorted(codes.items()))
    print(f"{title}: {codes.total()} combinations; {counts}")


def in_turn(kinds):
    """Yields every damage of every kind with one of the commands that read it, in turn."""
    for kind in kinds:
        for harm, command in zip(DAMAGES.items(), itertools.cycle(kind.commands), strict=False):
            yield kind, harm, command


def assert_all_right(codes, wrong):
    assert not wrong, "\n".join(wrong[:40]) + f"\n({len(wrong)})"
    assert codes[0] > codes.total() / 20 and codes[2] > codes.total() / 4


def test_every_damage_of_every_file_is_reported_or_repaired(tmp_path, capsys):
    codes, wrong = try_all(tmp_path, in_turn(KINDS))
    with capsys.disabled():
        print_counts(codes, "damaged files")
    assert_all_right(codes, wrong)
    assert codes.total() > 300


@pytest.mark.long
def test_every_damage_of_every_file_with_every_command(tmp_path, capsys):
    commands = {kind.name: (*kind.commands, *LONG.get(kind.name, ())) for kind in KINDS}
    every = ((kind, harm, command) for kind in KINDS for harm in DAMAGES.items() for command in commands[kind.name])
    codes, wrong = try_all(tmp_path, every)
    with capsys.disabled():
        print_counts(codes, "damaged files, all commands")
    assert_all_right(codes, wrong)
