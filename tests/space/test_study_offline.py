"""The offline study: all its spaces plan, share their trials, and together let every claim find its cells."""

from collections import Counter
from pathlib import Path

import pytest
import yaml

from orca_sweep import Space
from orca_sweep import results as r
from orca_sweep.analysis import claims
from orca_sweep.space.manifest import append_planned, make_manifest, write_manifest
from orca_sweep.space.plan import plan_trials
from orca_sweep.tasks import TASKS
from orca_sweep.trial import resolve_config
from orca_sweep.trial.placebos import labels_act_in
from tests.builders.claims import noise

FOLDER = Path(__file__).resolve().parents[2] / "search_spaces" / "study_offline"
FILES = sorted(FOLDER.glob("*.yaml"))
NAMES = [path.stem for path in FILES]
TASKS_OF = {"2d": ["digits", "terrain", "brain-tissue"], "1d": ["watch-exercises", "vowels", "peptides"]}
WITHOUT_SCALE = {"peptides"}
RATES = {
    "digits": 1e-3,
    "terrain": 3e-3,
    "brain-tissue": 3e-3,
    "watch-exercises": 1e-3,
    "vowels": 3e-3,
    "peptides": 5e-4,
}
MERGED = ("base", "factors")
"""Keys of a smoke form that change some of the space's entries; the others replace the space's own key."""


def read_forms(path):
    """The space and its smoke form, as two spaces."""
    whole = yaml.safe_load(path.read_text())
    small = whole.pop("smoke")
    assert set(small) <= whole.keys(), "a smoke form only makes smaller what is there"
    assert small["factors"].keys() <= whole["factors"].keys() if "factors" in small else True
    return whole, {
        **whole,
        **{key: {**whole[key], **value} if key in MERGED else value for key, value in small.items()},
    }


@pytest.fixture(scope="module")
def plans():
    return {path.stem: Space.from_dict(read_forms(path)[0]).plan() for path in FILES}


def replicates(plan):
    """The trials of a plan, with those of a tuned cell at one of its candidates, the same one in every space."""
    later = (
        trial
        for cell in plan.record.tuned
        for config in cell.candidates
        if config.finetune.lr == RATES[config.task]
        for trial in plan_trials(cell.cell_id, config, plan.record.space.seeds)
    )
    return [*plan.record.trials, *later]


def test_the_spaces_are_named_after_their_files_in_pairs():
    assert len(FILES) == 14
    for path in FILES:
        whole, _ = read_forms(path)
        assert whole["name"] == path.stem
        tasks = TASKS_OF[path.stem[-2:]]
        assert [task for task in tasks if task in whole["factors"]["task"]] == whole["factors"]["task"]
        assert set(tasks) - set(whole["factors"]["task"]) <= WITHOUT_SCALE


def test_nothing_moves_together_and_only_the_rate_is_shared(plans):
    for name, plan in plans.items():
        shared = [note for note in plan.notes if "share finetune.lr, and no other was tried" in note.text]
        assert shared == list(plan.notes), (name, plan.warnings)
        rates = {task: f"{RATES[task]:g}" for task in plan.record.by_task}
        assert all(dict(note.tasks) == rates for note in shared)
        # Cells that train different parameters, or none of the body's, have rates of their own.
        has_frozen = any(cell.finetune.freeze != "none" for cell in plan.record.cells)
        assert bool(plan.record.tuned) >= has_frozen
        assert len({len(cell.candidates) for cell in plan.record.tuned}) <= 1


def test_margins_seeds_and_repeats_are_fixed_beforehand(plans):
    terms = {(tuple(plan.record.space.margins.values()), plan.record.space.seeds) for plan in plans.values()}
    assert terms == {((0.03,), tuple(range(10, 16)))}
    for kind, tasks in TASKS_OF.items():
        repeats = [trial for trial in plans[f"1_proxies_{kind}"].record.trials if trial.role == "aa"]
        assert Counter(trial.config.task for trial in repeats) == dict.fromkeys(tasks, 6)
        assert {(trial.config.proxy, trial.config.body.pretrain_fraction) for trial in repeats} == {("none", 1.0)}


def test_naive_and_aligned_trials_are_the_same_in_all_spaces(plans):
    spaces_of = Counter(trial_id for plan in plans.values() for trial_id in {t.trial_id for t in replicates(plan)})
    for kind, tasks in TASKS_OF.items():
        proxies = plans[f"1_proxies_{kind}"].record
        for task in tasks:
            naive, aligned = proxies.by_task[task][:2]
            assert (naive.proxy, aligned.proxy) == ("none", {"2d": "mnist5k", "1d": "pydoc-topics"}[kind])
            n_scaled = task not in WITHOUT_SCALE
            trials = {cell: [t for t in proxies.trials if t.cell_id == cell.cell_id] for cell in (naive, aligned)}
            assert {spaces_of[trial.trial_id] for trial in trials[naive]} == {5 + n_scaled}
            assert {spaces_of[trial.trial_id] for trial in trials[aligned]} == {6 + n_scaled}


def test_permuted_labels_act_and_as_released_they_are_not_run(plans):
    for name, plan in plans.items():
        for cell in plan.record.cells:
            if cell.proxy.startswith("shuffled:"):
                assert labels_act_in(resolve_config(cell)), name
    acting = {cell.embedder.label_gradient for cell in plans["7_labels_2d"].record.cells}
    assert acting == {True, False}


@pytest.mark.parametrize("name", NAMES)
def test_the_smoke_form_runs_every_shape_in_little(name):
    whole, small = read_forms(FOLDER / f"{name}.yaml")
    plan = Space.from_dict(small).plan()
    assert len(plan.record.trials) + plan.record.n_later <= 40
    for cell in plan.record.cells:
        assert cell.finetune.epochs <= 2 and cell.data.n_train <= 32
        assert cell.embedder.epochs <= 2
        assert cell.body.pretrain_steps == 5 or cell.body.pretrain_fraction == 0
    assert plan.record.space.seeds == (0,)
    assert small["name"] == whole["name"]


# Claims -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(plans, tmp_path_factory):
    """The tables of the whole suite with made-up numbers: what the claims would have to judge."""
    folder = tmp_path_factory.mktemp("suite")
    for name, plan in plans.items():
        write_manifest(folder / name, make_manifest(plan.record, folder / "data", str(folder / "store")))
        later = [trial for trial in replicates(plan) if trial not in plan.record.trials] if plan.record.tuned else []
        append_planned(folder / name, [trial.entry() for trial in later])
        for trial in (*plan.record.trials, *later):
            r.write_record(folder / name, write_row(trial), [])
        r.reveal(folder / name)
    return r.collect([folder / name for name in plans], folder / "tables")


def write_row(trial):
    config = trial.config
    task = TASKS.get(config.task)
    act = labels_act_in(resolve_config(config)) if config.embedder.epochs else None
    error = 0.3 + noise(trial.cell_id, trial.seed)
    return {
        "trial_id": trial.trial_id, "cell_id": trial.cell_id, "status": "ok", "metric": task.metric, "metric_mode": "min",
        "dims": task.dims, "test_metric_best": error, "val_metric_best": error, "proxy_labels_act": act,
        "objective_last": 50.0 - config.embedder.epochs + trial.seed if config.embedder.epochs else None,
    }  # fmt: skip


def test_every_claim_finds_its_cells_on_every_task_it_concerns(results):
    judged = claims.compute(results, claims.Options())
    assert len(judged.findings) >= 6
    for finding in judged.findings:
        concerned = [t for kind, tasks in TASKS_OF.items() for t in tasks if finding.claim.dims in (None, int(kind[0]))]
        seen = {task.task: task.unjudged for task in finding.tasks}
        lacking = {task: seen.get(task) for task in concerned if task not in seen or seen[task]}
        assert not lacking or lacking.keys() <= WITHOUT_SCALE, (finding.claim.id, lacking)
        for task in finding.tasks:
            assert task.margin is None or task.margin.value == 0.03
            assert all(judgement.n_seeds == 6 for judgement in task.judgements)


def test_permuted_labels_and_all_amounts_are_among_what_is_judged(results):
    by_id = {finding.claim.id: finding for finding in claims.compute(results, claims.Options()).findings}
    for task in by_id["3"].tasks:
        assert sum("shuffled:" in judgement.name for judgement in task.judgements) == 1, task.judgements
    for finding in (by_id["1"], by_id["2"]):
        for task in finding.tasks:
            assert sum(judgement.kind == "trained" for judgement in task.judgements) == 4
