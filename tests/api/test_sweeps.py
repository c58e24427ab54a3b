"""A sweep in Python: launched in this process in every way, and what a person reads from it."""

import asyncio
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
import ray

from orca_sweep import InputError, Space, Sweep
from orca_sweep.results import read_reveals
from tests.builders.in_process import snapshot
from tests.builders.sweeps import sweep_folder
from tests.commands import warm_workers


def plan_of(user_tasks, out, **more):
    space = {
        "name": "demo", "imports": [user_tasks], "base": {"task": "tiny", "finetune.epochs": 1},
        "factors": {"proxy": ["none", "mnist5k"]}, "seeds": 2, "margin": 0.02, **more,
    }  # fmt: skip
    return Space.from_dict(space).plan(out=out)


@pytest.fixture(scope="module")
def cluster(head):
    """The head that tests share, for launches in this process."""
    before = dict(os.environ)
    os.environ.update(warm_workers())
    yield head.address
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def launched(cluster, user_tasks, tmp_path_factory):
    """A finished sweep of four trials, and what its launch printed and reported."""
    out, events = tmp_path_factory.mktemp("api") / "demo", []
    plan = plan_of(user_tasks, out)
    sweep = plan.launch(address=cluster, progress=lambda event, facts: events.append((event, dict(facts))))
    return plan, sweep, events


@pytest.fixture
def made(tmp_path):
    return Sweep.open(sweep_folder(tmp_path / "made", statuses=["ok", "failed"]))


# Launching ----------------------------------------------------------------------------------------


def test_a_launch_returns_the_sweep_with_tables_and_figures(launched):
    plan, sweep, events = launched
    assert sweep == Sweep.open(plan.folder)
    assert sweep.status().statuses == {"ok": 4}
    names = [event for event, _ in events]
    assert (names[0], names.count("run"), names.count("end")) == ("start", 4, 4)
    assert events[0][1]["n_todo"] == 4
    assert {facts["status"] for event, facts in events if event == "end"} == {"ok"}
    assert (sweep.folder / "tables" / "trials.parquet").is_file()
    assert (sweep.folder / "figures" / "figure2_proxies.png").is_file()
    assert not ray.is_initialized()
    # Tune would leave a handler that swallows a Ctrl-C; a job in the background ignores the signal.
    assert signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_IGN)


def test_a_second_launch_runs_in_an_event_loop_and_prints_lines(launched, cluster, user_tasks, capsys):
    plan, _, _ = launched

    async def work():
        return plan_of(user_tasks, plan.folder, seeds=3).launch(address=cluster)

    assert asyncio.run(work()).status().statuses == {"ok": 6}
    lines = capsys.readouterr().out.splitlines()
    assert "2 trials to run, 4 done before" in lines
    ended = [line for line in lines if line.startswith("[")]
    assert len(ended) == 2
    assert all("proxy " in line and ", seed 2: ok in " in line and "validation 0." in line for line in ended)
    assert any(line.startswith("ran 2 of 6 trials") for line in lines)


def test_a_thread_uses_the_ray_that_runs_and_leaves_it_running(launched, cluster, user_tasks, capsys):
    plan, _, _ = launched
    outcomes = []
    ray.init(address=cluster, log_to_driver=False)
    try:
        more = plan_of(user_tasks, plan.folder, seeds=4)
        thread = threading.Thread(target=lambda: outcomes.append(more.launch(progress=False)))
        thread.start()
        thread.join()
        assert outcomes[0].status().statuses == {"ok": 8}
        assert ray.is_initialized()
        with pytest.raises(InputError, match="already uses the Ray at"):
            more.launch(address="192.0.2.1:6379")
    finally:
        ray.shutdown()
    assert capsys.readouterr().out == ""


def test_an_interrupted_launch_keeps_what_has_ended_and_continues(cluster, user_tasks, tmp_path):
    plan = plan_of(user_tasks, tmp_path / "demo", seeds=2)
    handler = signal.getsignal(signal.SIGINT)

    def interrupt(event, facts):
        if event == "end":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="No ended trial is lost: launch again"):
        plan.launch(address=cluster, progress=interrupt)
    assert signal.getsignal(signal.SIGINT) is handler
    sweep = Sweep.open(plan.folder)
    before = sweep.status()
    assert before.statuses["ok"] >= 1 and before.statuses["unfinished"] >= 1 and before.is_running is False
    assert len(pd.read_parquet(plan.folder / "tables" / "trials.parquet")) == 4
    assert sweep.resume(address=cluster, progress=False).status().statuses == {"ok": 4}


def test_an_error_of_the_user_s_function_is_no_error_of_a_trial(launched, cluster, user_tasks):
    plan, _, _ = launched

    def fail(event, facts):
        raise ZeroDivisionError("mine")

    more = plan_of(user_tasks, plan.folder, seeds=5)
    with pytest.raises(ZeroDivisionError, match="mine"):
        more.launch(address=cluster, progress=fail)
    assert set(Sweep.open(plan.folder).status().statuses) == {"ok"}
    assert len(pd.read_parquet(plan.folder / "tables" / "trials.parquet")) == 10


def test_one_launch_at_a_time(user_tasks, tmp_path):
    from orca_sweep.api.launching import LAUNCHING

    with LAUNCHING, pytest.raises(InputError, match="another launch runs in this process"):
        plan_of(user_tasks, tmp_path).launch()
    assert not list(tmp_path.iterdir())


def test_reasons_against_a_launch_leave_nothing_behind(user_tasks, tmp_path):
    plan = plan_of(user_tasks, tmp_path / "out")
    with pytest.raises(InputError, match="no Ray cluster answers there"):
        plan.launch(address="127.0.0.1:1")
    with pytest.raises(InputError, match="^dashboard_host = '0.0.0.0': 127.0.0.1:1 is a running cluster"):
        plan.launch(address="127.0.0.1:1", dashboard_host="0.0.0.0")
    assert not (tmp_path / "out").exists()


# Reading ------------------------------------------------------------------------------------------


def test_results_have_the_columns_that_a_person_wants(launched):
    _, sweep, _ = launched
    before = snapshot(sweep.folder)
    frame = sweep.results()
    assert list(frame.columns) == ["proxy", "seed", "status", "val_metric_best", "val_metric_last"]
    assert frame.index.name == "trial_id"
    assert set(frame["proxy"]) == {"none", "mnist5k"}
    whole = sweep.results(all_columns=True)
    assert len(whole) == len(frame) and "finetune.lr" in whole and whole["test_metric_best"].isna().all()
    epochs = sweep.epochs()
    assert list(epochs.columns[:4]) == ["trial_id", "proxy", "seed", "stage"]
    assert epochs.groupby("trial_id")["proxy"].nunique().eq(1).all()
    assert snapshot(sweep.folder) == before


def test_sealed_metrics_show_once_they_are_revealed(launched, tmp_path):
    _, sweep, _ = launched
    assert not [name for name in sweep.results() if name.startswith("test_")]
    made = Sweep.open(sweep_folder(tmp_path / "s"))  # revealed
    assert "test_metric_best" in made.results()


def test_a_reveal_shows_test_metrics_once_and_is_logged(tmp_path):
    folder = sweep_folder(tmp_path / "s")
    (folder / "reveals.json").unlink()
    sweep = Sweep.open(folder)
    assert "test_metric_best" not in sweep.results()
    assert len(sweep.reveal().trials) == 6
    assert "test_metric_best" in sweep.results()
    assert sweep.reveal().trials == ()
    assert len(read_reveals(folder)) == 1


def test_what_is_not_ok_is_a_row_with_its_reason(made):
    frame = made.results()
    assert frame["status"].tolist().count("failed") == 1
    assert "error" in frame and list(frame.columns[:2]) == ["embedder.epochs", "seed"]
    assert repr(made.status()).startswith("demo: 6 trials: 1 failed, 5 ok; no launch is running")
    assert frame["embedder.epochs"].tolist() == [0, 0, 0, 3, 3, 3]


def test_a_role_is_a_column_where_it_varies(tmp_path):
    from tests.builders.tables import BASE, BETTER, MNIST, NONE, cell_rows, sweep

    sweep(tmp_path, cell_rows(NONE, BASE), cell_rows(MNIST, BETTER), cell_rows(NONE, BASE, "aa", 7))
    frame = Sweep.open(tmp_path / "s").results()
    assert set(frame["role"]) == {"replicate", "aa"}


def test_verdicts_effects_and_claims_are_frames(tmp_path):
    from tests.builders.tables import BASE, BETTER, MNIST, NONE, cell_rows, sweep

    sweep(tmp_path, cell_rows(NONE, BASE), cell_rows(MNIST, BETTER))
    made = Sweep.open(tmp_path / "s")
    (row,) = made.verdicts(margin=0.01).to_dict("records")
    assert (row["task"], row["proxy"], row["base"], row["verdict"]) == ("digits", "mnist5k", "proxy none", "helps")
    assert row["low"] < row["difference"] < row["high"] < -0.01
    assert (row["n_pairs"], row["margin"]) == (5, 0.01)
    assert 0 < row["p_t_holm"] < 0.05
    (other,) = made.verdicts(base={"proxy": "mnist5k"}, margin={"digits": 0.01}).to_dict("records")
    assert (other["proxy"], other["verdict"]) == ("none", "hurts")
    assert made.verdicts("proxy=mnist5k", "0.01").equals(made.verdicts(["proxy=mnist5k"], ["digits=0.01"]).assign())
    effects = made.effects()
    judged = made.effects(margin=0.05)
    assert set(judged["margin"]) == {0.05} == set(made.verdicts(margin=0.05)["margin"])
    assert "proxy" in set(effects["effect"])
    assert {"levels", "estimate", "low", "high", "p_t_holm", "verdict", "aliased_with"} <= set(effects)
    assert len(effects.columns) <= 15
    assert effects.set_index("effect").loc["proxy", ["levels", "base_levels"]].tolist() == ["mnist5k", "none"]
    assert len(made.claims()) >= 6 and {"claim", "verdict", "sentence"} <= set(made.claims())


def test_levels_of_effects_stay_text(tmp_path):
    from tests.builders.tables import BASE, BETTER, cell_rows, sweep

    sweep(tmp_path, cell_rows({"proxy": "0.0010"}, BASE), cell_rows({"proxy": "1e-2"}, BETTER))
    (row,) = Sweep.open(tmp_path / "s").effects().to_dict("records")
    assert (row["levels"], row["base_levels"]) == ("1e-2", "0.0010")


def test_levels_stay_the_text_that_the_space_writes(tmp_path):
    from tests.builders.tables import BASE, BETTER, cell_rows, sweep

    sweep(
        tmp_path,
        cell_rows({"proxy": "null"}, BASE),
        cell_rows({"proxy": "1e-10"}, BETTER),
        cell_rows({"proxy": "NA"}, BETTER),
    )
    assert Sweep.open(tmp_path / "s").verdicts(margin=0.1)["proxy"].tolist() == ["1e-10", "NA"]


def test_a_figure_is_found_by_a_part_of_its_name_and_shows_itself(launched, tmp_path):
    _, sweep, _ = launched
    backend = matplotlib.get_backend(auto_select=False)
    figure = sweep.figure("proxies")
    assert isinstance(figure, matplotlib.figure.Figure)
    assert figure._repr_png_().startswith(b"\x89PNG")
    for width, inches in (("column", 3.25), ("page", 6.75), (5, 5.0), ("4.5", 4.5)):
        assert sweep.figure("proxies", width=width, font_size=7).get_figwidth() == inches
    assert not sweep.figure("proxies", no_caption=True).get_supxlabel()
    assert matplotlib.get_backend(auto_select=False) == backend
    widths = [sweep.figure("proxies", width=width, font_size=7).get_figwidth() for width in ("column", "page", 5.5)]
    assert widths == [3.25, 6.75, 5.5]
    files = sweep.write_analysis("proxies", tmp_path / "paper", width="column")
    assert {file.name for file in files} >= {f"figure2_proxies.{kind}" for kind in ("pdf", "svg", "png", "csv")}
    assert all(file.is_file() and file.parent == tmp_path / "paper" for file in files)
    assert sweep.analyse("table_effects", margin=0.02).tables


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("effects", {}, "2 analyses have 'effects' in their names: table_effects, factor_effects"),
        ("figure2_proxis", {}, "Did you mean 'figure2_proxies'?"),
        ("", {}, "there is no analysis ''"),
        ("table_results", {}, "table_results has no figure"),
        ("proxies", {"margin": 1}, "margin: there is no such option. Known: font_size, no_caption, width"),
        ("table_results", {"width": "column"}, "width: there is no such option. Known: level, metric"),
        ("proxies", {"width": "wide"}, "width = 'wide': a width is column, page, or a number of inches"),
        ("proxies", {"width": True}, "this must be 'column', 'page', or a number of inches"),
        ("proxies", {"width": 0.1}, "a number of inches from 2 to 40 is allowed"),
        ("table_effects", {"bse": 1, "level": 95}, "bse: there is no such option. Did you mean 'base'?"),
        ("table_effects", {"bse": 1, "level": 95}, "level = 95: a share is between 0 and 1"),
        ("table_effects", {"metric": 3}, "this must be a text"),
        ("table_effects", {"complete_pairs": "yes"}, "this must be True or False"),
        ("table_effects", {"base": {"proxi": "none"}}, "'proxi' is not a factor of these tables"),
        ("cost", {"gpus_per_trial": "2"}, "this must be a number"),
    ],
)
def test_wrong_words_are_refused_with_the_nearest(made, name, options, words):
    with pytest.raises(InputError) as raised:
        made.figure(name, **options)
    assert words in str(raised.value)


def test_a_report_is_a_page(made, tmp_path):
    assert made.report() == made.folder / "report.html"
    page = made.report(tmp_path / "x.html", margin=0.3, base={"embedder.epochs": 3})
    assert page == tmp_path / "x.html" and page.stat().st_size > 10_000
    with pytest.raises(InputError, match="there is no analysis 'figure9'"):
        made.report(figures=["figure9"])
    (tmp_path / "mine.html").write_text("mine")
    with pytest.raises(InputError, match="orca-sweep did not write it"):
        made.report(tmp_path / "mine.html")


def test_only_a_sweep_can_be_opened(tmp_path, made):
    with pytest.raises(InputError, match="no sweep here"):
        Sweep.open(tmp_path / "gone")
    made.report()
    with pytest.raises(InputError, match="read_results reads a folder of tables"):
        Sweep.open(made.folder / "tables")


def test_a_sweep_survives_a_change_of_folder(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = Sweep.open("made")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert len(sweep.results()) == 6


def test_a_notebook_shows_status_escaped(made, monkeypatch):
    shown = made._repr_html_()
    assert "<li>demo: 6 trials: 1 failed, 5 ok; no launch is running</li>" in shown
    evil = replace(
        made.status(),
        name="<script>",
        failures=(replace(made.status().failures[0], error="<b>\x1b[31m"),),
    )
    monkeypatch.setattr(Sweep, "status", lambda self: evil)
    assert "<script>" not in made._repr_html_() and "&lt;b&gt;\\x1b" in made._repr_html_()
    assert str(Path(made.folder)) in repr(made)
