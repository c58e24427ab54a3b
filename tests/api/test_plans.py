"""A plan as Python shows it: frames, cost, warnings, and what a notebook shows."""

import re

import pytest

from orca_sweep import Space
from tests.commands import orca


@pytest.fixture(autouse=True)
def work_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def plan_of(**more):
    base = {"task": "digits", "proxy": "mnist5k"}
    return Space.from_dict({"base": base, "factors": {"embedder.epochs": [0, 5]}, "seeds": 3, **more}).plan()


def test_frames_show_cells_and_trials():
    plan = plan_of(aa=2)
    assert list(plan.cells.columns) == ["cell_id", "embedder.epochs", "n_trials"]
    assert plan.cells["embedder.epochs"].tolist() == ["0", "5", "0"]
    assert plan.cells["n_trials"].tolist() == [3, 3, 2]
    assert list(plan.trials.columns) == ["trial_id", "cell_id", "role", "seed", "embedder.epochs"]
    assert plan.trials["role"].tolist() == ["replicate"] * 6 + ["aa"] * 2
    assert plan.problems == ()


def test_candidates_of_tuning_show_what_is_tuned():
    plan = plan_of(tune={"finetune.lr": [1e-3, 1e-4]})
    assert plan.trials["finetune.lr"].tolist() == [1e-3, 1e-4] * 2
    assert set(plan.trials["role"]) == {"search"}
    assert "the best on validation data is replicated\n10 trials in all with those that tuning plans later\n" in repr(
        plan
    )


def test_it_shows_the_cells_and_what_a_fraction_cannot_tell_apart():
    factors = {
        "embedder.epochs": [0, 5], "finetune.freeze": ["none", "body"], "body.pretrain_fraction": [0, 1],
        "finetune.lr": [1e-3, 1e-4],
    }  # fmt: skip
    plan = plan_of(factors=factors, design="fraction", margin=0.02, aa=2)
    for text in (repr(plan), re.sub("<[^>]+>", "\n", plan._repr_html_())):
        assert "design fraction: 8 of 16 combinations, resolution 4" in text
        assert "embedder.epochs x finetune.freeze cannot be told from body.pretrain_fraction x finetune.lr" in text
        assert (
            text.count("margin fixed beforehand: 0.02,") == text.count("0.02 + ") == 1
            and text.count("A/A: the first cell again") == 1
        )
        assert all(cell_id in text for cell_id in plan.cells["cell_id"])


def test_what_it_says_is_what_the_command_says(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "base: {task: digits, proxy: mnist5k}\nfactors: {embedder.epochs: [0, 5]}\nseeds: 1\n"
    )
    plan, printed = Space.from_yaml("s.yaml").plan(), orca("plan", "s.yaml", cwd=tmp_path, check=0).stdout
    assert [line.removeprefix("note: ") for line in printed.splitlines() if line.startswith("note: ")] == list(
        plan.warnings
    )
    assert "One seed has no interval" in plan.warnings[0]
    text = repr(plan)
    lines = [line for line in printed.splitlines() if "--probe" not in line]
    assert text.startswith("Plan s: 2 cells x 1 seed = 2 trials\n")
    assert "(probe() measures a few epochs)" in text and len(plan.warnings) >= 2
    assert set(lines[lines.index("2 cells x 1 seed = 2 trials") + 1 :]) < set(text.splitlines())
    assert plan.cost.n_left == 2
    assert not (tmp_path / "results").exists()


def test_a_notebook_shows_an_escaped_table(tmp_path):
    (tmp_path / "x.csv").write_text("text,label\n" + "".join(f"a{i},{i % 2}\n" for i in range(20)))
    proxy = {"name": "<script>alert(1)", "path": "x.csv", "input": "text", "label": "label"}
    plan = plan_of(factors={"proxy": ["none", proxy]}, base={"task": "digits"}, name="evil")
    shown = plan._repr_html_()
    assert "&lt;script&gt;alert(1)" in shown
    harmless = set("div p b table thead tbody tr th td ul li".split())
    assert set(re.findall(r"<(\w+)", shown)) <= harmless


def test_a_long_plan_is_cut_with_a_word():
    plan = plan_of(factors={"finetune.lr": [i / 1e4 for i in range(1, 31)]})
    assert plan._repr_html_().count("<tr>") == 21
    assert "... and 10 more cells" in plan._repr_html_()
    assert "... and 10 more cells" in repr(plan)
    assert len(repr(plan).splitlines()) < 35
