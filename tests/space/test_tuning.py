"""Tuning within cells: what a space may ask for, and whole tuned sweeps on a real local Ray."""

import json
import math

import pandas as pd
import pytest

from orca_sweep.errors import InputError
from orca_sweep.results import read_results, summarise_cells
from orca_sweep.space import plan_space
from orca_sweep.space import tuning as t
from orca_sweep.trial import load_imports, make_config
from tests.commands import orca

BASE = "base: {task: tiny}\nfactors: {proxy: [none, mnist5k]}\nseeds: 2\n"
LR = "tune: {finetune.lr: {low: 1e-5, high: 1e-2, log: true}}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tune: [finetune.lr]\n", "tune: this must be a mapping"),
        ("tune: {finetune.lrr: [1e-3]}\n", "there is no field 'finetune.lrr' in a trial's config. Did you mean 'finetune.lr'"),
        ("tune: {proxy: [none, dummy]}\n", "tune: proxy: this is also set in base, factors or when"),
        ("tune: {seed: [1, 2]}\n", "a run seed cannot be set here"),
        ("tune: {finetune.lr: []}\n", "tune: finetune.lr: this has no levels"),
        ("tune: {finetune.lr: [1e-3, 0.001]}\n", "tune: finetune.lr: this names the level 0.001 twice"),
        ("tune: {finetune.lr: [fast]}\n", "finetune.lr = 'fast'"),
        ("tune: {finetune.lr: {low: 1e-3}}\n", "this must be a range such as {low: 1e-5, high: 1e-3, log: true}"),
        ("tune: {finetune.lr: {low: 1e-3, high: 1e-5}}\n", "low 0.001 is not below high 1e-05"),
        ("tune: {finetune.lr: {low: 0, high: 1e-5}}\n", "finetune.lr = '0': input should be greater than 0"),
        ("tune: {finetune.weight_decay: {low: 0, high: 1, log: true}}\n", "low 0 has no logarithm"),
        ("tune: {finetune.lr: {low: 1e-5, high: 1e-3, log: perhaps}}\n", "log is true or false, and may be left out"),
        ("tune: {finetune.freeze: {low: 1, high: 2}}\n", "finetune.freeze: this field cannot have a range. List its values."),
        ("tune: {finetune.batch_size: {low: 8.5, high: 16}}\n", "finetune.batch_size = '8.5'"),
        (LR + "search: grid\n", "a grid needs lists of values, but finetune.lr is a range. Use random or optuna"),
        ("search: random\n", "search chooses the values of the fields under 'tune'"),
        (LR + "search: bayes\n", "search.method = 'bayes'"),
        (LR + "search: {candidates: 0}\n", "search.candidates = '0'"),
        (LR + "search: {candidate: 3}\n", "Did you mean 'candidates'"),
        (LR + "search: {seeds: [0, 7]}\n", "the seed 0 is also used for replicates"),
        (LR + "search: {seeds: [7, 7]}\n", "a seed appears here twice"),
        (LR + "aa: [5]\nsearch: {seeds: 5}\n", "the seed 5 is also used for replicates"),
        ("tune: {finetune.lr: [1e-3]}\nsearch: {method: grid, candidates: 3}\n", "a grid has one candidate per point"),
        ("prune: asha\n", "prune compares the candidates of a cell, but there is no tune"),
        (LR + "prune: pbt\n", "population-based training changes the settings of running trials"),
        (LR + "prune: {name: pbt, grace_epochs: 2}\n", "no other seed can repeat the trial. Use asha or median"),
        (LR + "prune: {name: ash}\n", "prune.name = 'ash'"),
        (LR + "prune: {name: asha, reduction: 1}\n", "prune.reduction = '1'"),
        ("budget: {trials: 0}\n", "budget.trials = '0'"),
        ("budget: {gpuhours: 3}\n", "Did you mean 'gpu_hours'"),
        ("outcomes: {exploded: worst}\n", "outcomes = 'exploded': there is no 'exploded' here"),
        ("outcomes: {divergd: worst}\n", "Did you mean 'diverged'"),
        ("outcomes: {failed: ignore}\n", "outcomes.failed.then = 'ignore'"),
        ("outcomes: {failed: {retry: -1}}\n", "outcomes.failed.retry = '-1'"),
        ("outcomes: worst\n", "outcomes: this must be a mapping"),
        ("tune: {finetune.decay_epochs: [1, 9]}\nbase: {finetune.warmup_epochs: 3, task: tiny}\n",
         "tune: finetune.decay_epochs = 1"),
    ],
)  # fmt: skip
def test_each_mistake_has_its_words_and_its_line(write_space, text, words):
    base = BASE if "base:" not in text else BASE.replace("base: {task: tiny}\n", "")
    path = write_space(f"{base}{text}")
    with pytest.raises(InputError) as caught:
        plan_space(path, load_imports, make_config)
    problem = next((problem for problem in map(str, caught.value.problems) if words in problem), None)
    assert problem is not None, caught.value.problems
    line_number, rule = problem.removeprefix(f"{path}:").split(":", 1)
    line = path.read_text().splitlines()[int(line_number) - 1]
    assert line.split(":")[0] in text, (problem, line)


def test_mistakes_come_all_at_once(write_space):
    text = "tune: {finetune.lrr: [1], proxy: [none]}\nsearch: {method: bayes}\nprune: pbt\n"
    text += "budget: {hours: -1}\noutcomes: {x: y}\n"
    with pytest.raises(InputError) as caught:
        plan_space(write_space(f"{BASE}{text}"), load_imports, make_config)
    assert len(caught.value.problems) == 6


def test_short_forms_mean_what_they_say(plan_of):
    space = plan_of(f"{BASE}{LR}search: optuna\nprune: asha\noutcomes: {{oom: {{retry: 2}}, diverged: worst}}\n").space
    assert (space.search.method, space.search.n_candidates, space.search.seeds) == (
        "optuna",
        t.DEFAULT_CANDIDATES,
        (1_000_000,),
    )
    assert (space.prune.name, space.prune.cells) == ("asha", False)
    assert {s: (rule.retry, rule.then) for s, rule in space.outcomes.items()} == {
        "oom": (2, "exclude"),
        "diverged": (0, "worst"),
    }
    assert plan_of(f"{BASE}{LR}").space.search.method == "random"
    assert plan_of(f"{BASE}tune: {{finetune: {{lr: [1e-3, 1e-4]}}}}\n").space.search.method == "grid"
    assert plan_of(f"{BASE}prune: {{name: median, cells: true}}\n").space.prune.cells


@pytest.mark.parametrize("log", [False, True])
def test_ranges_are_covered_evenly_and_never_left(log):
    for whole, low, high in ((False, 1e-5, 1e-1), (True, 1, 64), (True, 3, 4)):
        numbers = t.Range(low=low, high=high, log=log, whole=whole)
        values = [numbers.draw((i + 0.5) / 2000) for i in range(2000)]
        assert low <= min(values) and max(values) <= high
        assert all(isinstance(value, int) == whole for value in values)
        middle = math.sqrt(low * high) if log else (low + high) / 2
        below = sum(v < middle for v in values) / 2000
        assert below == pytest.approx(0.5, abs=0.02 if not whole else 0.3)
        assert numbers.draw(0.0) == low and numbers.draw(0.999999) == pytest.approx(high, rel=0.01)
    uniform = t.Range(low=1, high=4, log=False, whole=True)
    assert [sum(uniform.draw(i / 400) == n for i in range(400)) for n in (1, 2, 3, 4)] == [100] * 4


def test_optuna_s_next_depends_only_on_what_was_tried():
    tune = {"finetune.lr": t.Range(low=1e-5, high=1e-1, log=True, whole=False), "finetune.freeze": ("none", "body"),
            "finetune.batch_size": t.Range(low=4, high=64, log=True, whole=True)}  # fmt: skip
    tried = []
    for i in range(15):
        settings = t.optuna_next(tune, tried, 0, "cell")
        assert settings == t.optuna_next(tune, list(tried), 0, "cell")
        assert 1e-5 <= settings["finetune.lr"] <= 1e-1 and settings["finetune.freeze"] in ("none", "body")
        assert isinstance(settings["finetune.batch_size"], int) and 4 <= settings["finetune.batch_size"] <= 64
        tried.append((settings, math.inf if i == 3 else abs(math.log(settings["finetune.lr"]))))
    assert t.optuna_next(tune, tried, 0, "cell") != t.optuna_next(tune, tried, 1, "cell")


# A sweep's folder ---------------------------------------------------------------------------------


def folder_of(plan, out):
    """A plan's sweep folder as a launch begins it; returns a function that adds trials planned on the way."""
    from orca_sweep.space.manifest import append_planned, make_manifest, write_manifest

    out.mkdir(exist_ok=True)
    write_manifest(out, make_manifest(plan, out, str(out / "store")))
    return lambda trials: append_planned(out, (trial.entry() for trial in trials))


def test_what_is_planned_on_the_way_stays_until_it_is_planned_again(plan_of, tmp_path):
    from orca_sweep.space import plan_trials
    from orca_sweep.space.manifest import rebuild_plan, require_manifest

    plan = plan_of(f"{BASE}tune: {{finetune.lr: [1e-3, 1e-4]}}\n")
    first, second = plan.tuned
    out = tmp_path / "out"
    tell = folder_of(plan, out)

    def replicates():
        return {
            (t["cell_id"], t["config"]["finetune.lr"]) for t in require_manifest(out).trials if t["role"] == "replicate"
        }

    for cell in (first, second):
        tell(plan_trials(cell.cell_id, cell.candidates[0], plan.space.seeds))
    assert replicates() == {(first.cell_id, 1e-3), (second.cell_id, 1e-3)}
    again = rebuild_plan(require_manifest(out), out)
    assert again.trials == plan.trials, "a resumption plans them anew, from the records"
    assert again.tuned == plan.tuned
    # Another launch, interrupted after it has found another best for the first cell.
    tell = folder_of(plan, out)
    assert replicates() == {(first.cell_id, 1e-3), (second.cell_id, 1e-3)}
    tell(plan_trials(first.cell_id, first.candidates[1], plan.space.seeds))
    assert replicates() == {(first.cell_id, 1e-4), (second.cell_id, 1e-3)}
    folder_of(plan, out)
    assert replicates() == {(first.cell_id, 1e-4), (second.cell_id, 1e-3)}
    assert len(require_manifest(out).trials) == len(plan.trials) + 4


# On Ray -------------------------------------------------------------------------------------------

SWEEP = """
name: tuned
base: {task: tiny, finetune.epochs: 3}
factors: {finetune.freeze: [none, linear-probe]}
tune: {finetune.lr: {low: 1e-4, high: 1e-1, log: true}}
search: {method: optuna, candidates: 3}
seeds: 2
aa: 1
"""


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, user_tasks, head):
    folder = tmp_path_factory.mktemp("tuned")
    space = folder / "space.yaml"
    space.write_text(f"imports: [{user_tasks}]\n{SWEEP}")
    return space, folder / "results" / "tuned", orca("launch", space, cwd=folder, check=0, head=head).stdout


def test_a_tuned_sweep_replicates_each_cell_at_its_best(tuned):
    _, out, printed = tuned
    results = read_results(out / "tables")
    trials = results.trials
    assert trials["status"].tolist() == ["ok"] * len(trials)
    assert trials.groupby("role").size().to_dict() == {"aa": 1, "replicate": 4, "search": 6}
    for cell_id, rows in trials[trials.role != "aa"].groupby("cell_id"):
        searched, replicates = rows[rows.role == "search"], rows[rows.role == "replicate"]
        best = searched.loc[searched["val_metric_best"].idxmin(), "finetune.lr"]
        assert (replicates["finetune.lr"] == best).all()
        assert sorted(replicates["seed"]) == [0, 1] and set(searched["seed"]) == {1_000_000}
        again = trials[trials.cell_id == f"{cell_id}-aa"]
        assert again.empty or ((again["finetune.lr"] == best).all() and again["seed"].tolist() == [2])
    for cell in summarise_cells(results):
        rows = trials[(trials.cell_id == cell.cell_id) & (trials.role != "search")]
        assert cell.interval.n == len(rows)
        assert cell.interval.mean == pytest.approx(rows[results.metric].mean())
        assert cell.chosen == {"finetune.lr": rows["finetune.lr"].iloc[0]}
        assert cell.n_searched == (0 if cell.role == "aa" else 3)
    assert "2 trials to run, 0 done before, up to 9 more, planned from their results" in printed
    assert "tuned within each cell on validation data, with 3 trials on other seeds" in printed
    assert "finetune.lr" in printed and "(tuned)" in printed


def test_nothing_of_a_tuned_sweep_runs_twice_and_what_is_lost_runs_again(tuned, head):
    space, out, _ = tuned
    rows = {path: path.read_bytes() for path in out.rglob("row.json")}
    before = read_results(out / "tables").trials
    assert "ran 0 of 11 trials" in orca("launch", space, cwd=space.parent, check=0, head=head).stdout
    assert {path: path.read_bytes() for path in out.rglob("row.json")} == rows
    pd.testing.assert_frame_equal(read_results(out / "tables").trials, before)
    # A killed driver leaves a half-written line; a lost record is rebuilt from the folder alone, bit for bit.
    gone = before[before.role == "replicate"].iloc[0]
    (out / "trials" / gone.trial_id / "row.json").unlink()
    with (out / "planned.jsonl").open("a") as file:
        file.write('{"sha256":"half')
    assert "11 trials: 10 ok, 1 unfinished" in orca("status", out).stdout
    assert "ran 1 of 11 trials" in orca("resume", out, check=0, head=head).stdout
    after = read_results(out / "tables").trials.set_index("trial_id")
    assert after["state_sha256"].to_dict() == before.set_index("trial_id")["state_sha256"].to_dict()


def test_pruned_candidates_are_rows_that_end_well_and_cells_are_not_pruned(tmp_path, user_tasks, head):
    space = tmp_path / "space.yaml"
    space.write_text(
        f"imports: [{user_tasks}]\nname: pruned\nbase: {{task: tiny, proxy: none, finetune.epochs: 6}}\n"
        "factors: {finetune.freeze: [none, linear-probe]}\ntune: {finetune.lr: [1e-2, 1e-3, 1e-7, 1e-8]}\n"
        "search: {seeds: [5]}\nprune: {name: asha, reduction: 2}\nseeds: 2\n"
    )
    done = orca("launch", space, "--out", tmp_path / "out", check=0, head=head)
    trials = read_results(tmp_path / "out" / "tables").trials
    assert set(trials[trials.role == "replicate"]["status"]) == {"ok"}
    pruned = trials[trials.status == "pruned"]
    assert len(pruned) and set(pruned["role"]) == {"search"} and set(pruned["finetune.lr"]) <= {1e-3, 1e-7, 1e-8}
    assert pruned["error"].str.contains("pruned after fine-tuning epoch").all()
    assert pruned["started_at"].notna().all() and (pruned["n_reveals_before"] == 0).all()
    assert pruned["val_metric_best"].notna().all() and pruned["test_metric_best"].isna().all()
    epochs = read_results(tmp_path / "out" / "tables").epochs
    n = epochs[epochs.trial_id.isin(pruned.trial_id)].groupby("trial_id").size()
    assert (n < 6).all() and len(n) == len(pruned)
    assert f"{len(pruned)} pruned" in done.stdout
    assert not list((tmp_path / "out").rglob("checkpoint.safetensors"))
    assert "0 of" in orca("launch", space, "--out", tmp_path / "out", check=0, head=head).stdout


def test_outcomes_are_scored_as_the_space_says_and_a_budget_is_kept(tmp_path, user_tasks, head):
    text = (
        f"imports: [{user_tasks}]\nname: rules\nbase: {{task: tiny, proxy: none, finetune.epochs: 2}}\n"
        "factors: {finetune.lr: [1e-3, 1e+9]}\nseeds: 2\nbudget: {trials: 3}\noutcomes: {diverged: worst}\n"
    )
    space = tmp_path / "space.yaml"
    space.write_text(text)
    done = orca("launch", space, "--out", tmp_path / "out", check=1, head=head)
    assert "budget.trials = 3 is spent: 1 trial was not run" in done.stdout
    space.write_text(text.replace("budget: {trials: 3}\n", ""))
    done = orca("launch", space, "--out", tmp_path / "out", check=1, head=head)
    results = read_results(tmp_path / "out" / "tables")
    trials = results.trials
    assert sorted(trials["status"]) == ["diverged", "diverged", "ok", "ok"]
    worst = trials[results.metric].max()
    cells = {cell.levels["finetune.lr"]: cell for cell in summarise_cells(results)}
    assert (cells[1e9].interval.n, cells[1e9].interval.mean, cells[1e9].n_worst) == (2, worst, 2)
    assert "2 diverged (2 scored as worst)" in " ".join(done.stdout.split())
    outcomes = json.loads((tmp_path / "out" / "sweep.json").read_text())["outcomes"]
    assert outcomes == {"diverged": {"retry": 0, "then": "worst"}}
