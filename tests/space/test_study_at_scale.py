"""The study's spaces at ORCA's scale: their plans, that every claim can be judged, and their smoke forms on files in the
benchmarks' own formats."""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml

from orca_sweep.analysis import claims
from orca_sweep.api.planning import collect_notes, make_plan
from orca_sweep.planning.forecast import forecast
from orca_sweep.space.documents import Document
from orca_sweep.store import Store
from orca_sweep.training.run import RunContext, run_config
from orca_sweep.training.worker import Worker
from orca_sweep.trial import labels_act_in, resolve_config
from tests.builders.in_process import orca
from tests.builders.tables import in_memory
from tests.originals import ORIGINALS

REPO = Path(__file__).resolve().parents[2]
FOLDER = REPO / "search_spaces" / "study"
SPACES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
TASKS = {"ninapro": 2, "spherical": 2, "cifar100": 2, "satellite": 1, "ecg": 1, "deepsea": 1}
UNTRIED = "and no other was tried"
"""In the one warning that the spaces cannot heed: a released rate is what they are about. Their first lines say so."""


def read_head(name):
    return [line for line in (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines() if line.startswith("#")]


@cache
def read_plan(name, is_smoke=False):
    """The plan of a space, or of its smoke form: mappings of base and factors merged, other keys replaced."""
    keys = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    form = keys.pop("smoke")
    if is_smoke:
        for key, value in form.items():
            keys[key] = {**keys.get(key, {}), **value} if key in ("base", "factors") else value
    return make_plan(Document(path=None, content=keys, lines={}))


# Plans --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
def test_a_space_plans_without_warnings_but_of_the_released_rate(name, tmp_path):
    plan = read_plan(name)
    notes = [str(note) for note in collect_notes(plan, tmp_path, tmp_path / "sweep")]
    notes = [note for note in notes if not note.startswith("Not here:")]
    assert [note for note in notes if UNTRIED not in note] == []
    head = "\n".join(read_head(name))
    assert not notes or "# Rate:" in head
    assert (len(plan.space.seeds), len(plan.space.aa)) == (5, 5)


@pytest.mark.parametrize("name", SPACES)
def test_the_first_lines_say_what_is_needed_what_it_costs_and_what_is_ours(name):
    head, plan = "\n".join(read_head(name)), read_plan(name)
    for word in ("Needs", "Question", "Command", "Cost", "Ours", "Numbers"):
        assert re.search(rf"^# {word}:", head, re.M)
    assert f"orca-sweep launch search_spaces/study/{name}.yaml --data DIR" in head
    assert f"orca-sweep data check {' '.join(plan.by_task)}" in head
    cost = re.search(r"^# Cost: +(\d+) cells x 5 seeds and A/A repeats, about ([\d,]+) GPU-hours", head, re.M)
    assert int(cost[1]) == len(plan.cells)
    assert float(cost[2].replace(",", "")) == pytest.approx(forecast(plan, None).flops.gpu_hours, rel=0.15)


def test_the_suite_has_one_margin_per_task_and_single_precision():
    margins = {}
    for name in SPACES:
        plan = read_plan(name)
        assert {cell.finetune.precision for cell in plan.cells} == {"float32"}
        for task, margin in plan.space.margins.items():
            assert margins.setdefault(task, margin) == margin
        assert set(plan.space.margins) == set(plan.by_task)
    assert set(margins) == set(TASKS)


def test_the_baseline_is_each_recipe_as_it_is():
    from orca_sweep.trial import make_config

    cells = read_plan("baseline").cells
    for task in TASKS:
        trained, *naive = [cell for cell in cells if cell.task == task]
        assert trained == make_config({"task": task, "finetune.precision": "float32"})
        assert [cell.embedder.epochs for cell in naive] == [0, 0]
        starts = [cell.embedder.init for cell in naive]
        # Embedders of vision bodies have no positions to copy: there it is the start 'random'.
        assert starts == ["copied", "random" if TASKS[task] == 2 else "orca-untrained"]


# Claims -------------------------------------------------------------------------------------------


def list_rows():
    """A row per trial of the whole suite, with numbers that say nothing."""
    seen, rows, rng = set(), [], np.random.default_rng(0)
    for name in SPACES:
        plan = read_plan(name)
        for trial in plan.trials:
            if trial.trial_id in seen:
                continue
            seen.add(trial.trial_id)
            config = trial.config
            resolved = resolve_config(config)
            row = {"status": "ok", "metric": resolved.task.metric, "dims": resolved.task.dims, "space": name}
            row |= {"normalised": "codes" if resolved.task.codes else config.data.normalise}
            row |= {"test_metric_best": 0.3 + 0.02 * trial.seed + rng.normal(0, 0.01)}
            if config.embedder.epochs:
                row |= {"proxy_labels_act": labels_act_in(resolved), "objective_last": rng.normal(50, 5)}
            planned = {"trial_id": trial.trial_id, "cell_id": trial.cell_id, "seed": trial.seed, "role": trial.role}
            rows.append(({**planned, "config": config.flat()}, row))
    return rows


def test_every_claim_can_be_judged_on_every_task_that_it_concerns():
    factors = dict.fromkeys(path for name in SPACES for path in read_plan(name).space.factors)
    margins = [f"{task}={margin}" for name in SPACES for task, margin in read_plan(name).space.margins.items()]
    options = claims.Options(margin=list(dict.fromkeys(margins)))
    findings = claims.compute(in_memory(list_rows(), factors), options).findings
    assert len(findings) >= 6
    for finding in findings:
        concerned = {task for task, dims in TASKS.items() if finding.claim.dims in (None, dims)}
        assert {task.task for task in finding.tasks} == concerned
        # Inputs without a scale cannot be normalised.
        excused = {"deepsea"} if "normalis" in finding.claim.sentence else set()
        unjudged = {task.task: task.unjudged.text for task in finding.tasks if task.unjudged}
        assert unjudged.keys() <= excused, (finding.claim.id, unjudged)


# Smoke --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Few samples of the six tasks, in the benchmarks' own formats."""
    root = tmp_path_factory.mktemp("files")
    for task in TASKS:
        ORIGINALS[task](root)
    return root


@pytest.fixture(scope="module")
def run(files, tmp_path_factory):
    """Runs a trial as a sweep does, but for Ray."""
    folder = tmp_path_factory.mktemp("sweep")
    worker = Worker(store=Store(str(folder / "store")))
    return lambda config: run_config(config, RunContext(folder=folder, worker=worker, data_root=files))


@pytest.mark.parametrize("name", SPACES)
def test_a_smoke_form_needs_only_what_comes_along(name, files):
    plan = read_plan(name, is_smoke=True)
    assert len(plan.cells) <= len(read_plan(name).cells)
    assert [note for note in collect_notes(plan, files, files / "sweep") if str(note).startswith("Not here:")] == []
    assert plan.by_task.keys() == read_plan(name).by_task.keys()
    assert plan.space.resources.gpu == 0
    assert {cell.body.name for cell in plan.cells} <= {"swin-micro", "roberta-micro"}


@pytest.mark.parametrize("task", TASKS)
def test_a_trial_of_each_task_runs_in_smoke_form(task, run):
    trained = next(cell for cell in read_plan("baseline", is_smoke=True).cells if cell.task == task)
    row = run(trained)
    assert row["status"] == "ok", row.get("error")
    assert row["n_embedder_steps"] == 2
    assert row["n_train"] == trained.data.n_train


@pytest.mark.long
@pytest.mark.parametrize("name", SPACES)
def test_every_trial_of_a_smoke_form_runs(name, run):
    for trial in read_plan(name, is_smoke=True).trials:
        row = run(trial.config)
        assert row["status"] == "ok", (trial.config, row.get("error"))


# Files --------------------------------------------------------------------------------------------


def test_one_command_says_what_all_six_tasks_lack_where_from_and_how_large(files, tmp_path):
    lacking = orca("data", "check", *TASKS, "--data", tmp_path)
    assert (lacking.code, lacking.text.count("missing ")) == (2, 13 + 1)
    assert "0 of 6 tasks can run" in lacking.text
    for text in (
        "ninapro (6 of 6 files, 15 MB in all)",
        "cifar100 (2 of 2 files, 161 MB in all)",
        "together about 1.8 GB",
    ):
        assert text in lacking.text
    assert "get it from the shared drive that github.com/rtu715/NAS-Bench-360 names" in lacking.text
    assert "download it: https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz" in lacking.text
    here = orca("data", "check", *TASKS, "--data", files)
    assert (here.code, "6 of 6 tasks can run" in here.text, "missing below" in here.text) == (0, True, False)
