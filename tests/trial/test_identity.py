"""Identity follows content: how the user's own files and code identify a trial, and what happens when they change."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from orca_sweep import results as r
from orca_sweep.analysis.cells import read_task_cells
from orca_sweep.config import CONTENTS, Hasher, TrialConfig
from orca_sweep.config.declaration import without_folder, without_path
from orca_sweep.data.contents import Contents
from orca_sweep.errors import DataError, InputError
from orca_sweep.results import find_trial
from orca_sweep.results.tables import read_about
from orca_sweep.space import plan_space
from orca_sweep.space.manifest import require_manifest, write_manifest
from orca_sweep.store import Store
from orca_sweep.training.run import RunContext, run_config
from orca_sweep.training.worker import Worker
from orca_sweep.trial import check_contents, load_imports, make_config
from tests.builders.manifests import sweep_manifest
from tests.commands import orca

RECIPE = {
    "body.name": "swin-micro",
    "body.pretrain_fraction": 0,
    "finetune.epochs": 1,
    "finetune.batch_size": 16,
    "embedder.epochs": 1,
    "embedder.proxy_samples": 40,
}


def samples(seed=0, n=60):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return rng.normal(size=(n, 1, 8, 8)).astype("float32") + y[:, None, None, None], y


def write_npz(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y = samples(seed)
    np.savez(path, x=x, y=y)
    return path


def write_npy(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y = samples(seed)
    np.save(path, x)
    np.save(path.with_name("labels.npy"), y)
    return path


def task(path, **more):
    return {"path": str(path), "kind": "classification", "sample_shape": [1, 8, 8], "output_shape": [3], **more}


def texts(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"sentence {i} of {seed},{'ab'[i % 2]}" for i in range(20)]
    path.write_text("\n".join(["text,kind", *rows]) + "\n")
    return path


def images(path, seed=0):
    from PIL import Image

    rng = np.random.default_rng(seed)
    for i in range(8):
        file = path / "cat dog".split()[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(file)
    return path


def body(path, seed=0):
    import torch
    from transformers import SwinConfig, SwinModel

    torch.manual_seed(seed)
    config = SwinConfig(
        image_size=8, patch_size=2, num_channels=1, embed_dim=8, depths=[1], num_heads=[1], window_size=4
    )
    SwinModel(config).save_pretrained(path)
    return path


MAKE = {
    "task .npz": (lambda d, seed: write_npz(d / "a.npz", seed), lambda path: {"task": task(path)}),
    "task .npy": (lambda d, seed: write_npy(d / "a.npy", seed), lambda path: {"task": task(path, target="labels")}),
    "proxy .csv": (
        lambda d, seed: texts(d / "a.csv", seed),
        lambda path: {
            "task": "watch-exercises",
            "body.name": "roberta-micro",
            "proxy": {"path": str(path), "input": "text", "label": "kind"},
        },
    ),
    "proxy images": (
        lambda d, seed: images(d / "pictures", seed),
        lambda path: {"task": "digits", "proxy": {"path": str(path), "input": "image", "label": "label"}},
    ),
    "shuffled proxy": (
        lambda d, seed: images(d / "pictures", seed),
        lambda path: {"task": "digits", "proxy": f"shuffled:{path}[]:image->label"},
    ),
    "body": (lambda d, seed: body(d / "weights", seed), lambda path: {"task": "digits", "body.name": str(path)}),
}


def resolved(settings):
    return make_config(
        {**RECIPE, **({"body.pretrain_fraction": 1} if "/" in settings.get("body.name", "") else {}), **settings}
    )


# Ids ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKE)
def test_ids_follow_content_and_not_folders(tmp_path, kind):
    make, settings = MAKE[kind]
    path = make(tmp_path / "one", 0)
    first = resolved(settings(path))
    assert sum(first.flat()[content] is not None for content in CONTENTS) == 1
    # In another folder, under another name.
    elsewhere = tmp_path / "two" / "deep" / f"renamed{path.suffix}"
    elsewhere.parent.mkdir(parents=True)
    if path.is_dir():
        shutil.copytree(path, elsewhere)
    else:
        shutil.copy(path, elsewhere)
        for beside in path.parent.glob("labels.npy"):
            shutil.copy(beside, elsewhere.parent)
    moved = resolved(settings(elsewhere))
    assert (moved.trial_id, moved.cell_id) == (first.trial_id, first.cell_id)
    assert moved.flat() != first.flat(), "the config still says where the files are"
    hasher = Hasher()  # which plans of many cells use
    assert {hasher.cell_id(config) for config in (first, moved)} == {first.cell_id}
    assert [trial_id for trial_id, _ in hasher.replicates(moved, [0, 3])] == [
        c.trial_id for _, c in hasher.replicates(first, [0, 3])
    ]
    make(tmp_path / "one", 1)
    changed = resolved(settings(path))
    assert changed.trial_id != first.trial_id and changed.cell_id != first.cell_id


def test_what_decides_how_files_are_read_stays_in_the_id(tmp_path):
    path = write_npz(tmp_path / "a.npz")
    ids = {
        resolved({"task": task(path, **more)}).trial_id
        for more in ({}, {"val_share": 0.2}, {"loss": "balanced-cross-entropy"})
    }
    assert len(ids) == 3
    assert without_path("/a/B.CSV.GZ[]:x->y") == "*.csv.gz[]:x->y"
    assert (
        without_path("shuffled:shuffled:/a/b c/pics[train]:image->label") == "shuffled:shuffled:*[train]:image->label"
    )
    assert without_path("/some/folder") == "*"
    assert [without_path(name) for name in ("digits", "org/name", "shuffled:mnist5k")] == [
        "digits",
        "org/name",
        "shuffled:mnist5k",
    ]
    assert without_folder('"/a #/x.csv"[]:t->l') == "x.csv[]:t->l"


def test_the_files_beside_an_npy_and_the_test_file_count(tmp_path):
    path, test = write_npy(tmp_path / "a.npy"), write_npz(tmp_path / "test.npz", 5)
    first = resolved({"task": task(path, target="labels")}).trial_id
    np.save(tmp_path / "labels.npy", (np.arange(60) + 1) % 3)
    assert resolved({"task": task(path, target="labels")}).trial_id != first
    whole = write_npz(tmp_path / "b.npz")
    first = resolved({"task": task(whole, test=str(test))}).trial_id
    write_npz(test, 6)
    assert resolved({"task": task(whole, test=str(test))}).trial_id != first


def test_registered_parts_have_no_content_and_files_that_are_not_here_stay_known_by_path(tmp_path):
    config = make_config({"task": "digits"})
    assert not any(config.flat()[content] for content in CONTENTS)
    assert not any(content in config.hashed() for content in CONTENTS)
    away = resolved({"task": task(tmp_path / "away.npz")})
    assert away.content.task is None and "away.npz" in away.hashed()["task"]


def test_a_content_cannot_be_set_in_a_space(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "name: s\nbase: {task: digits, content.task: abc, content: {code: d}}\nseeds: [0]\n"
    )
    with pytest.raises(InputError) as error:
        plan_space(tmp_path / "s.yaml", load_imports, make_config)
    assert "there is no field 'content.task'" in str(error.value) and "'content" in str(error.value.problems[1])


# Hashing ------------------------------------------------------------------------------------------


def settled(path):
    """Makes a file look as if it had been written long ago; its change time stays now."""
    os.utime(path, (1e9, 1e9))
    return path


def test_a_hash_is_kept_and_computed_again_on_request(tmp_path, monkeypatch):
    path, cache = write_npz(tmp_path / "a.npz"), tmp_path / "cache"
    monkeypatch.setattr("orca_sweep.data.contents.SETTLED_S", -1.0)
    digest = Contents(cache).hash_paths([path])
    (entry,) = cache.iterdir()
    entry.write_text("0" * 64)
    assert Contents(cache).hash_paths([path]) == "0" * 64, "an unchanged file is not read again"
    assert Contents(cache, rehashes=True).hash_paths([path]) == digest
    assert Contents(cache).hash_paths([path]) == digest
    for damage in ("", "x" * 64, "ü"):
        entry.write_text(damage)
        assert Contents(cache).hash_paths([path]) == digest


def test_a_change_that_keeps_the_file_s_time_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("orca_sweep.data.contents.SETTLED_S", -1.0)
    path, cache = tmp_path / "a.bin", tmp_path / "cache"
    path.write_bytes(b"one")
    settled(path)
    first = Contents(cache).hash_paths([path])
    path.write_bytes(b"two")
    settled(path)
    assert Contents(cache).hash_paths([path]) != first


def test_the_hash_of_a_new_file_is_not_kept_since_the_file_may_still_change(tmp_path):
    path, cache = tmp_path / "a.bin", tmp_path / "cache"
    path.write_bytes(b"one")
    Contents(cache).hash_paths([path])
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path, monkeypatch):
    monkeypatch.setattr("orca_sweep.data.contents.SETTLED_S", -1.0)
    (tmp_path / "file").write_text("in the way")
    path = write_npz(tmp_path / "a.npz")
    assert Contents(tmp_path / "file" / "cache").hash_paths([path]) == Contents(tmp_path / "c").hash_paths([path])


def test_folders_count_by_names_and_bytes_but_for_hidden_files(tmp_path):
    folder = images(tmp_path / "a")
    first = Contents(tmp_path / "c").hash_paths([folder])

    def now():
        return Contents(tmp_path / "c").hash_paths([folder])

    (folder / ".DS_Store").write_bytes(b"x")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("x")
    assert now() == first
    (folder / "cat" / "0.png").rename(folder / "dog" / "0.png")  # another class
    assert now() != first
    (folder / "dog" / "0.png").rename(folder / "cat" / "0.png")
    assert now() == first
    (folder / "cat" / "more.png").write_bytes(b"")
    assert now() != first


def test_two_lists_of_files_with_the_same_bytes_differ(tmp_path):
    for name, text in (("a", b"12"), ("b", b"3"), ("c", b"1"), ("d", b"23")):
        (tmp_path / name).write_bytes(text)
    contents = Contents(tmp_path / "cache")
    digests = {contents.hash_paths([tmp_path / n for n in names]) for names in ("ab", "cd", "ba", "a", "abc")}
    assert len(digests) == 5


@pytest.mark.parametrize("what", ["missing", "fifo", "loop", "dangling", "deep", "two links", "round about"])
def test_a_path_that_cannot_be_read_is_refused_in_words(tmp_path, what):
    path = tmp_path / "x"
    if what == "fifo":
        os.mkfifo(path)
    elif what == "loop":
        path.symlink_to(path)
    elif what == "dangling":
        path.mkdir()
        (path / "a.png").symlink_to(tmp_path / "nothing")
    elif what == "deep":
        path.mkdir()
        (path / "again").symlink_to(path)
    elif what == "two links":  # each link doubles the paths, so they must not be followed up to the system's own limit
        path.mkdir()
        (path / "a").symlink_to(path)
        (path / "b").symlink_to(path)
    elif what == "round about":
        for name, other in (("y", "z"), ("z", "y")):
            (path / name).mkdir(parents=True)
            for link in "ab":
                (path / name / link).symlink_to(path / other)
    with pytest.raises(DataError, match="cannot be read|not a regular file|its folders never end"):
        Contents(tmp_path / "c").hash_paths([path])


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    from orca_sweep.data import contents

    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    real = contents._hash_files

    def grows(files):
        digest = real(files)
        path.write_bytes(b"longer")
        return digest

    monkeypatch.setattr(contents, "_hash_files", grows)
    with pytest.raises(DataError, match="changes while it is read"):
        Contents(tmp_path / "c").hash_paths([path])


# Code ---------------------------------------------------------------------------------------------

CODE = """
from orca_sweep.proxies import PROXIES
VERSION = {version}
"""


def write_space(folder, seeds="[0]", imports="", more=""):
    base = "".join(f"  {path}: {value}\n" for path, value in RECIPE.items())
    own = "  task: {path: a.npz, kind: classification, sample_shape: [1, 8, 8], output_shape: [3]}\n"
    path = folder / "s.yaml"
    path.write_text(f"name: own\nbase:\n{own}{base}  proxy: none\nseeds: {seeds}\n{imports}{more}")
    return path


def planned(path):
    return plan_space(path, load_imports, make_config)


def test_code_under_imports_is_part_of_the_id_in_any_folder(tmp_path, monkeypatch):
    ids = []
    for folder, version in (("one", 1), ("two", 1), ("three", 2)):
        write_npz(tmp_path / folder / "a.npz")
        monkeypatch.chdir(tmp_path / folder)
        Path("mine.py").write_text(CODE.format(version=version))
        ids.append([t.trial_id for t in planned(write_space(tmp_path / folder, imports="imports: [mine.py]\n")).trials])
    assert ids[0] == ids[1] != ids[2]
    monkeypatch.chdir(tmp_path / "one")
    assert [t.trial_id for t in planned(write_space(tmp_path / "one")).trials] not in ids


def test_all_modules_of_an_imported_package_count(tmp_path, monkeypatch):
    from orca_sweep.trial.importing import imports_digest

    package = tmp_path / "orca_sweep_test_package"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "a.py", "inner/__init__.py", "inner/b.py"):
        (package / name).write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    digests = {imports_digest([package.name])}
    for name in ("a.py", "inner/b.py"):
        (package / name).write_text("x = 1\n")
        digests.add(imports_digest([package.name]))
    assert len(digests) == 3 and imports_digest([]) is None


# Running ------------------------------------------------------------------------------------------


def test_a_file_that_changed_since_the_plan_is_never_run_under_the_old_id(tmp_path):
    path = write_npz(tmp_path / "a.npz")
    config = resolved({"task": task(path), "proxy": "none"})
    write_npz(path, 1)
    row = run_config(
        config, RunContext(folder=tmp_path / "out", worker=Worker(Store(str(tmp_path / "store"))), data_root=tmp_path)
    )
    assert row["status"] == "failed" and "has changed since the trial was planned" in row["error"]
    assert config.content.task[:8] in row["error"] and "Launch the space again" in row["error"]
    fresh = resolved({"task": task(path), "proxy": "none"})
    row = run_config(
        fresh, RunContext(folder=tmp_path / "out", worker=Worker(Store(str(tmp_path / "store"))), data_root=tmp_path)
    )
    assert row["status"] == "ok"


def test_a_worker_that_has_loaded_the_old_content_loads_the_new(tmp_path):
    path, worker = write_npz(tmp_path / "a.npz"), Worker(Store(str(tmp_path / "store")))
    settings = {"task": task(path), "proxy": "none"}
    hashes = []
    for seed in (0, 1):
        write_npz(path, seed)
        hashes.append(
            run_config(resolved(settings), RunContext(folder=tmp_path / "out", worker=worker, data_root=tmp_path))[
                "data_sha256"
            ]
        )
    assert None not in hashes and hashes[0] != hashes[1]


def test_stages_are_shared_between_folders_of_one_content(tmp_path):
    worker = Worker(Store(str(tmp_path / "store")))
    states = []
    for folder in ("one", "two"):
        path = write_npz(tmp_path / folder / "a.npz")
        config = resolved({"task": task(path), "proxy": "photo-patches"})
        row = run_config(config, RunContext(folder=tmp_path / folder / "out", worker=worker, data_root=tmp_path))
        states.append((row["state_sha256"], row["reused"]))
    assert states[0][0] == states[1][0] and "embedder" in states[1][1] and "embedder" not in states[0][1]


def test_a_resumption_with_changed_files_or_code_is_refused_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_npz(tmp_path / "a.npz")
    Path("mine.py").write_text(CODE.format(version=1))
    plan = planned(write_space(tmp_path, imports="imports: [mine.py]\n"))
    check_contents(plan)
    write_npz(tmp_path / "a.npz", 1)
    Path("mine.py").write_text(CODE.format(version=2))
    with pytest.raises(InputError) as error:
        check_contents(plan)
    assert len(error.value.problems) == 2 and "imports: its content has changed" in str(error.value.problems[1])
    (tmp_path / "a.npz").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        check_contents(plan)


# Tables -------------------------------------------------------------------------------------------


def test_a_launch_a_changed_file_and_a_second_launch_give_two_labelled_cells(tmp_path, head):
    write_npz(tmp_path / "a.npz")
    space = write_space(tmp_path, "[0, 1]", more="margin: 0.02\n")
    orca("launch", space, cwd=tmp_path, check=0, head=head)
    write_npz(tmp_path / "a.npz", 1)
    note = orca("plan", space, cwd=tmp_path, check=0).stdout
    assert "its content has changed since 2 trials of this sweep ran" in note
    printed = orca("launch", space, cwd=tmp_path, check=0, head=head).stdout
    assert "its content has changed since 2 trials" in printed and "ran 2 of 2 trials" in printed
    found = r.read_results(tmp_path / "results" / "own" / "tables")
    trials = found.trials
    assert len(trials) == 4 and trials["task"].nunique() == 2 == trials["cell_id"].nunique()
    for name, rows in trials.groupby("task"):
        assert rows["content.task"].nunique() == 1 and f"[content {rows['content.task'].iloc[0][:8]}]" in name
        assert rows["data_sha256"].nunique() == 1
    assert [len(cells.cells) for cells in read_task_cells(found)] == [1, 1], "no contrast between two contents"
    # The same folder elsewhere: nothing is left to run.
    shutil.copytree(tmp_path, tmp_path.parent / "elsewhere")
    moved = tmp_path.parent / "elsewhere"
    printed = orca("launch", moved / "s.yaml", cwd=moved, check=0, head=head).stdout
    assert "ran 0 of 2 trials" in printed
    # Back to the first content, which has its rows already.
    write_npz(tmp_path / "a.npz", 0)
    assert "2 trials are done, 0 are left" in orca("plan", space, cwd=tmp_path, check=0).stdout


def entry(trial_id, cell_id, **settings):
    config = TrialConfig.from_flat({"task": "digits", "body.name": "swin-micro", "proxy": "none", **settings}).flat()
    return {"trial_id": trial_id, "cell_id": cell_id, "seed": config["seed"], "role": "replicate", "config": config}


A, B = "a" * 64, "b" * 64
OWN = "/data/mine.npz kind=classification output_shape=3 sample_shape=1x8x8"


def collected(tmp_path, trials, name="s", rows=()):
    folder = tmp_path / name
    about = {"name": name, "factors": ["proxy"], "margins": {OWN: 0.02}, "metric": "val_metric_best"}
    write_manifest(folder, sweep_manifest(**about, trials=trials))
    for i, trial in enumerate(trials):
        more = rows[i] if i < len(rows) else {}
        row = {"trial_id": trial["trial_id"], "cell_id": trial["cell_id"], "status": "ok", "metric": "error",
               "val_metric_best": 0.1 * i, "ended_at": f"2026-01-0{i + 1}T00:00:00.000Z", **more}  # fmt: skip
        r.write_record(folder, row, [])
    return folder


def test_one_content_in_two_folders_is_one_task_and_two_contents_of_one_name_are_two(tmp_path):
    one = collected(tmp_path, [entry("t1", "c1", task=OWN, **{"content.task": A})], "one")
    elsewhere = OWN.replace("/data/", "/home/me/")
    two = collected(
        tmp_path,
        [
            entry("t2", "c2", task=elsewhere, proxy="mnist5k", **{"content.task": A}),
            entry("t3", "c3", task=OWN, proxy="mnist5k", **{"content.task": B}),
        ],
        "two",
    )
    trials = r.collect([one], tmp_path / "alone").trials
    assert trials["task"].tolist() == ["mine.npz"], "the name of a single content stays as it is"
    found = r.collect([one, two], tmp_path / "both")
    names = [f"mine.npz [content {digest[:8]}]" for digest in (A, A, B)]
    assert found.trials["task"].tolist() == names
    assert found.trials["task_declared"].tolist() == [OWN] * 3
    assert dict.fromkeys(names, 0.02) in [sweep["margins"] for sweep in read_about(tmp_path / "both")["sweeps"]]
    again = r.collect([tmp_path / "both"], tmp_path / "again").trials
    assert again["task"].tolist() == names, "tables of tables say the same"
    assert dict.fromkeys(names, 0.02) in [sweep["margins"] for sweep in read_about(tmp_path / "again")["sweeps"]]


def test_contents_of_proxies_bodies_and_code_have_different_labels_too(tmp_path):
    proxy = "/p/x.csv[]:text->kind"
    trials = [
        entry("t1", "c1", proxy=proxy, **{"content.proxy": A}),
        entry("t2", "c2", proxy=proxy, **{"content.proxy": B}),
        entry("t3", "c3", **{"body.name": "/b/w", "content.body": A}),
        entry("t4", "c4", **{"body.name": "/b/w", "content.body": B}),
        entry("t5", "c5", task="mine", **{"content.code": A}),
        entry("t6", "c6", task="mine", **{"content.code": B}),
        entry("t7", "c7", proxy=f"shuffled:{proxy}", **{"content.proxy": A}),
    ]
    found = r.collect([collected(tmp_path, trials)], tmp_path / "t").trials
    for trials in (found, r.collect([tmp_path / "t"], tmp_path / "t2").trials):
        assert trials["proxy"].tolist()[:2] == [f"x.csv [content {digest[:8]}]" for digest in (A, B)]
        assert trials["proxy"].tolist()[6] == "shuffled:x.csv"
        assert trials["body.name"].tolist()[2:4] == [f"/b/w [content {digest[:8]}]" for digest in (A, B)]
        assert trials["body.name_declared"].tolist()[2:4] == ["/b/w"] * 2
        assert trials["task"].tolist()[4:6] == [f"mine [code {digest[:8]}]" for digest in (A, B)]
    assert find_trial(tmp_path / "t", "t4").config["body.name"] == "/b/w"


def test_a_declaration_with_a_name_is_identified_by_it_in_any_folder(tmp_path):
    named = [resolved({"task": task(write_npz(tmp_path / d / "a.npz"), name=n), "proxy": "none"})
             for d, n in (("x", "mine"), ("y", "mine"), ("x", "yours"))]  # fmt: skip
    assert named[0].trial_id == named[1].trial_id != named[2].trial_id
    assert without_folder(named[0].task) == without_folder(named[1].task)


def test_a_cell_is_split_if_one_machine_loaded_different_data_for_it(tmp_path):
    """Files below --data, and those of a user's own loader, are identified by the data that was loaded."""
    trials = [entry(f"t{i}", "c" * 16, seed=i) for i in range(4)]
    here = {"host": "h", "device": "cpu", "n_threads": 1, "versions": "v"}
    rows = [{**here, "data_sha256": A}, {**here, "data_sha256": A}, {**here, "data_sha256": B},
            {**here, "status": "failed", "data_sha256": None}]  # fmt: skip
    folder = collected(tmp_path, trials, rows=rows)
    found = r.collect([folder], tmp_path / "t").trials
    assert found["task"].tolist() == [f"digits [content {d[:8]}]" for d in (A, A, B, B)]
    assert found["cell_id"].tolist() == [f"{'c' * 16}-{d[:8]}" for d in (A, A, B, B)]
    again = r.collect([tmp_path / "t"], tmp_path / "t2").trials
    assert again[["task", "cell_id"]].equals(found[["task", "cell_id"]])
    # Bits that differ between machines are not another content, nor are splits that vary on purpose.
    rows = [{**here, "data_sha256": A}, {**here, "host": "g", "data_sha256": B}]
    folder = collected(tmp_path, trials[:2], "machines", rows)
    assert r.collect([folder], tmp_path / "m").trials["task"].tolist() == ["digits"] * 2
    drawn = [entry(f"t{i}", "d" * 16, seed=i, seed_varies="data-split") for i in range(2)]
    folder = collected(tmp_path, drawn, "drawn", [{**here, "data_sha256": A}, {**here, "data_sha256": B}])
    assert r.collect([folder], tmp_path / "d").trials["cell_id"].tolist() == ["d" * 16] * 2


def test_the_reports_methods_say_what_the_data_were(tmp_path):
    from orca_sweep.analysis.report.methods import describe_methods
    from orca_sweep.analysis.tables import read_cells

    own = {"task": OWN, "proxy": "/p/x.csv[]:text->kind", "content.task": A, "content.proxy": B}
    trials = [entry(f"t{seed}", "c1", seed=seed, **own) for seed in (0, 1)]
    found = r.collect([collected(tmp_path, trials)], tmp_path / "t")
    cells = read_cells(found, "val_metric_best")
    text = " ".join(describe_methods(found, cells, None, level=0.95, column="val_metric_best"))
    assert "SHA-256 of their content: task" in text and A[:12] in text and B[:12] in text


# Earlier contents in the folder of a sweep ---------------------------------------------------------


def recorded(folder, space):
    """Plans a space into a sweep folder as a launch does, and gives every trial a record; returns the plan."""
    from orca_sweep.sweep.running import Setup, make_manifest_beside_earlier

    plan = planned(space)
    setup = Setup(out=folder, store=str(folder / "store"), data_root=folder, address="local")
    made = make_manifest_beside_earlier(plan, setup)
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder, made)
    for i, trial in enumerate(plan.trials):
        ids = {"trial_id": trial.trial_id, "cell_id": trial.cell_id}
        row = {**ids, "status": "ok", "metric": "error", "val_metric_best": 0.1 * i, "test_metric_best": 0.2 * i}
        r.write_record(folder, row, [])
    return plan


def test_earlier_contents_keep_their_levels_margins_and_test_metrics(tmp_path, monkeypatch):
    from orca_sweep.cli.replay import _find_sweep

    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    write_npz(tmp_path / "one" / "a.npz")
    more = "factors: {finetune.freeze: [none, body]}\nmargin: 0.02\n"
    first = recorded(tmp_path / "one" / "results" / "own", write_space(tmp_path / "one", more=more))
    # The folder moves and the file changes at the same time.
    (tmp_path / "one").rename(tmp_path / "two")
    monkeypatch.chdir(tmp_path / "two")
    write_npz(tmp_path / "two" / "a.npz", 1)
    folder = tmp_path / "two" / "results" / "own"
    recorded(folder, write_space(tmp_path / "two", more=more))
    found = r.collect([folder], tmp_path / "t")
    assert found.labels["finetune.freeze"].tolist() == ["none", "body"] * 2, "one level has one label in both contents"
    assert set(found.margins) == set(found.trials["task"]) and len(found.margins) == 2
    assert [cell.label("task") for cell in r.summarise_cells(found)] == found.trials["task"].tolist()
    assert _find_sweep(first.trials[0].trial_id) == Path("results/own")
    assert len(r.reveal(folder).trials) == 4 and r.collect([folder], tmp_path / "t").n_sealed == 0


def test_a_proxy_or_body_that_changed_for_a_whole_task_is_compared_within_one_content(tmp_path):
    trials = [
        entry(f"t{i}{digest[0]}", f"c{i}{digest[0]}", **{"body.name": "/b/w", "finetune.freeze": freeze,
              "content.body": digest, "task": task})
        for digest in (A, B) for task in ("digits", "watch-exercises") for i, freeze in enumerate(("none", "both"))
    ]  # fmt: skip
    for trial in trials:
        trial["cell_id"] = trial["trial_id"] = trial["trial_id"] + trial["config"]["task"]
    found = r.collect([collected(tmp_path, trials)], tmp_path / "t")
    names = [f"{task} [body {digest[:8]}]" for digest in (A, B) for task in ("digits", "watch-exercises")]
    assert list(found.trials["task"].unique()) == names and "task" in found.factors
    assert [len(cells.cells) for cells in read_task_cells(found)] == [2] * 4
    again = r.collect([tmp_path / "t"], tmp_path / "t2")
    assert again.trials["task"].tolist() == found.trials["task"].tolist()


def test_a_changed_proxy_beside_others_is_a_level_of_its_own_in_every_figure(tmp_path):
    from orca_sweep.analysis import figure2_proxies

    proxy = "/p/x.csv[]:text->kind"
    trials = [entry("t1", "c1"), entry("t2", "c2", proxy=proxy, **{"content.proxy": A}),
              entry("t3", "c3", proxy=proxy, **{"content.proxy": B})]  # fmt: skip
    folder = collected(tmp_path, trials)
    write_manifest(folder, require_manifest(folder).model_copy(update={"factors": ("embedder.epochs",)}))
    found = r.collect([folder], tmp_path / "t")
    assert found.factors == ("embedder.epochs", "proxy") and found.trials["task"].nunique() == 1
    assert len(figure2_proxies.compute(found).panels) == 1
    # A body that is no factor in its space has one mark, not two.
    trials = [entry("t4", "c4"), entry("t5", "c5", **{"body.name": "/b/w", "content.body": A}),
              entry("t6", "c6", **{"body.name": "/b/w", "content.body": B})]  # fmt: skip
    found = r.collect([collected(tmp_path, trials, "bodies")], tmp_path / "t2")
    assert found.labels["body.name"].tolist() == ["swin-micro", *(f"/b/w [content {d[:8]}]" for d in (A, B))]


def test_a_trial_of_an_earlier_content_is_not_replayed_and_its_task_is_named(tmp_path):
    from orca_sweep.planning.replay import replay

    path = write_npz(tmp_path / "a.npz")
    config = resolved({"task": task(path, name="my digits"), "proxy": "none"})
    recorded_row = {"trial_id": config.trial_id, "status": "ok"}
    recorded_trial = r.Recorded(
        trial_id=config.trial_id, config=config.flat(), row=recorded_row, tests={}, is_sealed=True
    )
    write_npz(path, 1)
    words = f"^trial {config.trial_id}: task = 'my digits': its content has changed .* Put the earlier content back"
    with pytest.raises(InputError, match=words) as error:
        replay(recorded_trial, tmp_path, ())
    assert str(tmp_path) not in str(error.value) and "kind=" not in str(error.value)
    path.unlink()
    with pytest.raises(InputError, match=r"a\.npz"):
        replay(recorded_trial, tmp_path, ())


def test_of_two_files_of_one_name_the_changed_file_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, folder in enumerate("ab"):
        write_npz(tmp_path / folder / "x.npz", i)
    tasks = "".join(
        f"    - {{path: {d}/x.npz, kind: classification, sample_shape: [1, 8, 8], output_shape: [3]}}\n" for d in "ab"
    )
    base = "".join(f"  {path}: {value}\n" for path, value in RECIPE.items())
    space = tmp_path / "s.yaml"
    space.write_text(f"name: own\nbase:\n  proxy: none\n{base}factors:\n  task:\n{tasks}seeds: [0]\n")
    first = recorded(tmp_path / "out", space)
    write_npz(tmp_path / "b" / "x.npz", 2)
    plan = planned(space)
    (line,) = r.describe_changes(tmp_path / "out", plan)
    old, new = (of.trials[1].config.content.task[:8] for of in (first, plan))
    assert line.startswith(
        f"task x.npz (b): its content has changed since 1 trial of this sweep ran ({old} then, {new}"
    )


def test_a_launch_that_ended_before_its_first_record_does_not_prevent_a_changed_file(tmp_path, monkeypatch):
    from orca_sweep.sweep.checks import check_folder

    monkeypatch.chdir(tmp_path)
    write_npz(tmp_path / "a.npz")
    space = write_space(tmp_path)
    recorded(tmp_path / "out", space)
    shutil.rmtree(tmp_path / "out" / "trials")
    write_npz(tmp_path / "a.npz", 1)
    check_folder(planned(space), tmp_path / "out")
    assert r.describe_changes(tmp_path / "out", planned(space)) == []
    space.write_text(space.read_text().replace("epochs: 1", "epochs: 2"))
    with pytest.raises(InputError, match="no cell in common"):
        check_folder(planned(space), tmp_path / "out")


def test_margins_of_one_content_in_two_folders_are_joined(tmp_path):
    elsewhere, both = OWN.replace("/data/", "/home/me/"), []
    for name, text in (("one", OWN), ("two", elsewhere)):
        both.append(collected(tmp_path, [entry("t1", "c1", task=text, **{"content.task": A})], name))
        margins = {"margins": {text: len(both) / 100}}
        write_manifest(both[-1], require_manifest(both[-1]).model_copy(update=margins))
    found = r.collect(both, tmp_path / "both")
    assert found.margins == {"mine.npz": (("one", 0.01), ("two", 0.02))}
    assert r.collect([tmp_path / "both"], tmp_path / "again").margins == found.margins
