"""Names of a user's own tasks and proxies: plans, tables, figures, reports and errors never show a path with settings."""

import json
import re

import numpy as np
import pytest

from orca_sweep import results as r
from orca_sweep.analysis import table_effects
from orca_sweep.analysis.report import record as report
from orca_sweep.analysis.report.rendering import page
from orca_sweep.config.declaration import as_text, parse_proxy, parse_task, task_as_text
from orca_sweep.config.naming import find_declaration, label_declarations, label_of
from orca_sweep.errors import InputError
from orca_sweep.planning.replay import _read_config
from orca_sweep.proxies import canonicalise_proxy, describe_proxy, find_proxy
from orca_sweep.space.manifest import write_manifest
from orca_sweep.tasks import canonicalise_task, find_task
from orca_sweep.trial import make_config
from tests.builders.manifests import sweep_manifest

TASK = {"path": "mine.npz", "kind": "classification", "sample_shape": [1, 8, 8], "output_shape": 3}
PROXY = {"path": "mine.csv", "input": "text", "label": "kind"}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A task's file and a proxy's file, in two folders."""
    rng = np.random.default_rng(0)
    for folder in ("", "site-b"):
        (tmp_path / folder).mkdir(exist_ok=True)
        np.savez(tmp_path / folder / "mine.npz", x=rng.normal(size=(60, 1, 8, 8)), y=np.arange(60) % 3)
        (tmp_path / folder / "mine.csv").write_text("text,kind\n" + "".join(f"t{i},{i % 3}\n" for i in range(9)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


SPACE = """
base: {body.name: roberta-micro, embedder.epochs: 1, body.pretrain_fraction: 0, finetune.epochs: 1}
factors:
  task:
    - {path: mine.npz, kind: classification, sample_shape: [1, 8, 8], output_shape: 3, name: my digits}
  proxy:
    - none
    - {path: mine.csv, input: text, label: kind, name: topics}
    - shuffled:topics
seeds: 2
margin: {my digits: 0.01}
"""


# The name of a declaration ------------------------------------------------------------------------


def test_a_name_is_part_of_a_declaration_and_comes_back():
    task = parse_task(task_as_text({**TASK, "name": "my digits"}))
    assert task.name == "my digits" and parse_task(task.text) == task
    assert parse_task(canonicalise_task(task.text)).name == "my digits"
    for more in ({}, {"encoding": "latin-1", "n_classes": 3}, {"path": "a #1/b.csv"}, {"split": "train[:20]"}):
        proxy = parse_proxy(as_text({**PROXY, **more, "name": "topics (2)"}))
        assert proxy.name == "topics (2)" and parse_proxy(proxy.text) == proxy
        assert parse_proxy(canonicalise_proxy(proxy.text)).name == "topics (2)"
    assert parse_proxy("./a.csv#name=topics[train]:x->y").name == "topics"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a/b", "holds /, "), ("a\\b", "holds /, "), ("", "is empty"), ("x" * 61, "has 61 characters"), ("a\nb", "unprintable"),
        (" a", "begins or ends with a blank"),
        ("a[b", r"contains \[. A name must not contain any of"), ("a,b", "contains ,"), ("a=b", "contains ="),
        ("shuffled:a", "contains :"), (3, "is not text"),
    ],
)  # fmt: skip
def test_a_name_that_tables_cannot_hold_is_refused(name, words):
    for read, mapping in ((task_as_text, TASK), (as_text, PROXY)):
        with pytest.raises(ValueError, match=words):
            read({**mapping, "name": name})


def test_registered_names_stay_what_they_are(files):
    with pytest.raises(
        InputError, match="the name 'digits' belongs to a registered task. Give the declaration another"
    ):
        find_task(task_as_text({**TASK, "name": "digits"}))
    with pytest.raises(InputError, match="the name 'mnist5k' is that of a registered proxy"):
        find_proxy(as_text({**PROXY, "name": "mnist5k"}))
    with pytest.raises(InputError, match="the name 'none' is that of a registered proxy"):
        find_proxy("shuffled:" + as_text({**PROXY, "name": "none"}))


# Labels -------------------------------------------------------------------------------------------


def test_without_a_name_a_declaration_has_that_of_its_file_and_what_distinguishes_it():
    def task(path="/a/x.npz", **more):
        return task_as_text({**TASK, "path": path, **more})

    def labels(*texts):
        return [label_declarations(texts)[text] for text in texts]

    assert labels("digits", task()) == ["digits", "x.npz"]
    assert labels(task("/a/x.npz"), task("/b/x.npz")) == ["x.npz (a)", "x.npz (b)"]
    assert labels(task(), task(normalise="channel", test_share=0.2)) == [
        "x.npz (normalise default, test_share 0.1)", "x.npz (normalise channel, test_share 0.2)",
    ]  # fmt: skip
    alike = labels(task("/a/d/x.npz"), task("/b/d/x.npz"))
    assert len(set(alike)) == 2 and all(re.fullmatch(r"x\.npz \(d, [0-9a-f]{4}\)", label) for label in alike)
    assert labels(task(), task("/b/y.npz", name="x.npz")) == ["x.npz (a)", "x.npz"], "what has a name keeps it"
    hub, folder = "uoft-cs/cifar10[train]:img->label", "/data/mnist5k[]:image->label"
    assert labels("cifar10", hub, f"shuffled:{hub}", folder) == [
        "cifar10", "cifar10 (uoft-cs)", "shuffled:cifar10 (uoft-cs)", "mnist5k (data)",
    ]  # fmt: skip
    first, all_ = "/d/a.csv[train[:20]]:x->y", "/d/a.csv[]:x->y"
    assert labels(first, all_) == ["a.csv (split train[:20])", "a.csv (split default)"]
    assert find_declaration("digits") is None and label_of("x kind=") == "x kind=", "what is wrong is said elsewhere"


def test_two_declarations_of_one_name_are_refused_and_both_are_named(plan_of, files):
    text = SPACE.replace("margin: {my digits: 0.01}\n", "").replace(
        "name: my digits}\n", "name: mine}\n    - {path: site-b/mine.npz, kind: classification, sample_shape: [1, 8, 8],"
        " output_shape: 3, name: mine}\n",
    )  # fmt: skip
    with pytest.raises(InputError, match="task name 'mine': different declarations share it") as caught:
        plan_of(text)
    assert f"{files}/mine.npz (kind" in str(caught.value) and f"{files}/site-b/mine.npz (kind" in str(caught.value)
    same = SPACE.replace(
        "- shuffled:topics", f"- {{path: {files}/site-b/mine.csv, input: text, label: kind, name: topics}}"
    )
    with pytest.raises(InputError, match="proxy name 'topics': different declarations share it"):
        plan_of(same)


def test_a_space_calls_its_declarations_by_name(plan_of, files):
    plan = plan_of(
        SPACE
        + "when: [{if: {task: my digits, proxy: topics}, set: {finetune.lr: 3.3e-4}}]\n"
        + "exclude: [{task: my digits, proxy: 'shuffled:topics'}]\n"
    )
    assert [list(plan.labels[cell].values()) for cell in plan.by_cell_id] == [
        ["my digits", "none"],
        ["my digits", "topics"],
    ]
    assert [cell.finetune.lr == 3.3e-4 for cell in plan.cells] == [False, True]
    assert list(plan.space.margins.values()) == [0.01]
    with pytest.raises(InputError, match="margin: 'digits' is not a task of this space. Did you mean 'my digits'"):
        plan_of(SPACE.replace("margin: {my digits", "margin: {digits"))


def test_errors_and_descriptions_use_the_name(files):
    task = task_as_text({**TASK, "name": "my digits", "metric": "eror"})
    with pytest.raises(InputError, match=r"^task (= )?'my digits': task 'my digits': there is no metric 'eror'"):
        make_config({"task": task, "proxy": "none"})
    with pytest.raises(InputError) as caught:
        make_config({"task": task_as_text({**TASK, "name": "my digits"}), "proxy": as_text({**PROXY, "name": "topics"}),
                 "body.name": "swin-micro", "body.input_mode": "flip"})  # fmt: skip
    assert "kind=" not in str(caught.value)
    proxy = as_text({**PROXY, "path": f"{files}/mine.csv", "name": "topics"})
    assert describe_proxy(proxy) == "proxy topics: 9 samples of 3 classes"
    assert find_proxy(f"shuffled:{proxy}").name == "shuffled:topics"


# Tables, report -----------------------------------------------------------------------------------


def swept(folder, plan, name="s", shift=0.0):
    """The folder of a sweep whose trials are all ok."""
    trials = []
    for i, trial in enumerate(plan.trials):
        ids = {"trial_id": trial.trial_id, "cell_id": trial.cell_id}
        trials.append({**ids, "seed": trial.seed, "role": trial.role, "config": trial.config.flat()})
        row = {
            **ids,
            "status": "ok",
            "metric": "error",
            "metric_mode": "min",
            "test_metric_best": 0.1 * (i % 4) + shift,
        }
        r.write_record(folder / name, row, [])
    about = {"name": name, "factors": list(plan.space.factors), "margins": dict(plan.space.margins)}
    write_manifest(folder / name, sweep_manifest(**about, trials=trials))
    r.reveal(folder / name)
    return folder / name


def test_tables_and_report_hold_names_and_the_declarations_behind_them(plan_of, files, tmp_path):
    plan = plan_of(SPACE)
    folder = swept(tmp_path, plan)
    results = r.collect([folder], tmp_path / "t")
    assert list(results.trials["task"].unique()) == ["my digits"]
    assert list(results.trials["proxy"].unique()) == ["none", "topics", "shuffled:topics"]
    assert results.margins == {"my digits": (("s", 0.01),)}
    assert results.trials["task_declared"].str.startswith(f"{tmp_path}/mine.npz ").all()
    assert results.trials["proxy_declared"].isna().sum() == 2, "the registered one has none"
    (task,) = table_effects.compute(results).tasks
    assert task.margin.kind == "fixed" and [row.cell.labels["proxy"] for row in task.rows] == [
        "topics",
        "shuffled:topics",
    ]
    again = r.collect([folder], tmp_path / "t")
    assert again.trials.equals(results.trials), "what is not read again has its names, too"
    # Tables alone give the same tables, and the config of a trial for running it again.
    moved = r.collect([tmp_path / "t"], tmp_path / "moved")
    assert moved.trials["proxy"].tolist() == results.trials["proxy"].tolist() and moved.margins == results.margins
    assert _read_config(r.find_trial(tmp_path / "t", plan.trials[2].trial_id)).trial_id == plan.trials[2].trial_id
    html = page(report.compute(results), ()).split("<body>")[-1].split("<script")[0]
    assert "my digits" in html and "kind=" not in html and str(tmp_path) not in html


def test_files_of_one_name_in_two_sweeps_stay_apart_in_their_tables(plan_of, files, tmp_path):
    first = (
        "base: {task: {path: mine.npz, kind: classification, sample_shape: [1, 8, 8], output_shape: 3}, proxy: none}\n"
    )
    first += "factors: {finetune.lr: [1e-3, 1e-4]}\nseeds: 2\nmargin: 0.01\n"
    second = first.replace("mine.npz", "site-b/mine.npz").replace("0.01", "0.02")
    folders = [swept(tmp_path / "r", plan_of(text, f"{i}.yaml"), f"s{i}") for i, text in enumerate((first, second))]
    single = r.collect(folders[:1], tmp_path / "t0")
    assert single.trials["task"].unique().tolist() == ["mine.npz"]
    r.collect(folders[1:], tmp_path / "t1")
    for sources in (folders, [tmp_path / "t0", folders[1]], [tmp_path / "t0", tmp_path / "t1"]):
        both = r.collect(sources, tmp_path / f"t{len(str(sources))}")
        names = [f"mine.npz ({tmp_path.name})", "mine.npz (site-b)"]
        assert both.trials["task"].unique().tolist() == names
        margins = {task: [margin for _, margin in fixed] for task, fixed in both.margins.items()}
        assert margins == {names[0]: [0.01], names[1]: [0.02]}
        assert both.trials.groupby("task").size().tolist() == [4, 4]


def test_plan_shows_names(write_space, files, capsys):
    from orca_sweep.cli.plan import plan

    plan([write_space(SPACE)], out=files / "out", data=files)
    shown = capsys.readouterr().out
    assert "my digits" in shown and "shuffled:topics" in shown and "kind=" not in shown and "->" not in shown
    assert "margin fixed beforehand: 0.01 (my digits)" in shown and "proxy topics: 9 samples of 3 classes" in shown
    plan([write_space(SPACE)], as_json=True, out=files / "out", data=files)
    text = json.loads(capsys.readouterr().out)["trials"][0]["config"]["task"]
    assert text.startswith(f"{files}/mine.npz ") and "name=my digits" in text.replace("'", "")
