"""Several spaces in one launch: one queue for all of them, and one real launch that is killed and launched again."""

import json
import os
import signal
from types import SimpleNamespace

import pytest
from filelock import FileLock

from orca_sweep import results as r
from orca_sweep.analysis import cost
from orca_sweep.api.progress import ProgressLines
from orca_sweep.errors import InputError
from orca_sweep.results import read_record, sweep_status, unseal_metrics
from orca_sweep.space.manifest import write_manifest
from orca_sweep.sweep import Setup, launch_members
from orca_sweep.sweep.lanes import make_lanes
from orca_sweep.sweep.queue import DONE, WAITING, GroupedPruning, Queue, freeze_need
from orca_sweep.sweep.running import _hold_folders, make_manifest_beside_earlier
from orca_sweep.sweep.trainable import copy_checkpoint, list_embedder_levels
from orca_sweep.sweep.tuner import _name_attempt, choose_tune_folder
from orca_sweep.trial import load_imports
from tests.builders.members import plan_members
from tests.builders.tables import cell_rows, sweep
from tests.commands import Command, wait_for, warm_workers

ONE = "name: one\nbase: {task: tiny, finetune.epochs: 1, embedder.epochs: 1}\nfactors: {proxy: [none, mnist5k]}\nseeds: 1\n"
TWO = (
    "name: two\nbase: {task: tiny, finetune.epochs: 1, embedder.epochs: 1}\n"
    "factors: {proxy: [none, mnist5k], finetune.lr: [1e-4, 1e-3]}\nseeds: 1\nresources: {cpu: 0.5}\n"
)


class Tuned:
    """Tune as a queue sees it, without Ray: trials start, write their records and end when a test says so."""

    def __init__(self, spaces, folder, slots=9):
        self.members, self.events = plan_members(spaces, folder)
        for member in self.members:
            member.setup.out.mkdir(parents=True, exist_ok=True)
            write_manifest(member.setup.out, make_manifest_beside_earlier(member.plan, member.setup))
        self.lanes = make_lanes(self.members)
        self.queue = Queue(self.lanes, 3, {freeze_need(lane.need): slots for lane in self.lanes})
        self.n = 0

    def suggest(self):
        """Returns the next trial with Tune's id, or what the queue says instead."""
        self.n += 1
        params = self.queue.suggest(f"tune-{self.n}")
        return {**params, "tune_id": f"tune-{self.n}"} if isinstance(params, dict) else params

    def end(self, trial, status="ok", **row):
        out = self.lanes[trial["lane"]].out
        row = {"trial_id": trial["trial_id"], "cell_id": trial["cell_id"], "status": status, "wall_time_s": 1.0, **row}
        epochs = [{"stage": "finetune", "epoch": 1, "val_metric": 0.25}]
        r.write_record(out, {**row, "val_metric_best": 0.25, "test_metric_best": 0.5}, epochs, [{"stage": "finetune"}])
        self.queue.on_trial_complete(trial["tune_id"], {"stage": DONE})

    def names(self, lane, event):
        return [facts["trial_id"] for what, facts in self.events[lane] if what == event]


@pytest.fixture
def spaces(write_space):
    return [write_space(ONE, "one.yaml"), write_space(TWO, "two.yaml")]


def test_the_next_lane_gets_what_the_first_leaves_and_equal_trials_are_taken_whole(spaces, tmp_path):
    tune = Tuned(spaces, tmp_path / "suite")
    begun = []
    while isinstance(trial := tune.suggest(), dict):
        begun.append(trial)
    assert trial is None, "all that are left wait or run elsewhere; nothing is over"
    assert [t["lane"] for t in begun] == [0, 0, 1], "the mnist5k trials of the second wait for the first's embedder"
    for trial in begun[:2]:
        tune.end(trial)
    shared = {t["trial_id"] for t in begun[:2]}
    assert set(tune.names("two", "taken")) == shared and not set(tune.names("two", "run")) & shared
    for trial_id in shared:
        own, copy = (read_record(lane.out, trial_id) for lane in tune.lanes)
        assert copy["row"].pop("taken_from") == "one"
        assert copy == own
        assert unseal_metrics(copy)["test_metric_best"] == 0.5 and "test_metric_best" not in copy["row"]
    facts = next(facts for event, facts in tune.events["two"] if event == "taken")
    assert (facts["taken_from"], facts["status"], facts["role"]) == ("one", "ok", "replicate")
    last = tune.suggest()
    assert last["lane"] == 1
    for trial in (begun[2], last):
        tune.end(trial)
    assert tune.suggest() == Queue.FINISHED
    one, two = (lane.summarise(0.0, None) for lane in tune.lanes)
    assert (one.n_run, one.n_planned, one.statuses, one.exit_code) == (2, 2, {"ok": 2}, 0)
    assert (two.n_run, two.n_planned, two.statuses, two.exit_code) == (2, 4, {"ok": 4}, 0)
    assert one.wall_time_s < two.wall_time_s
    hours = [sweep_status(lane.out).cpu_hours * 3600 for lane in tune.lanes]
    assert hours == pytest.approx([2 * 1.0, 2 * 0.5]), "what a space takes costs it nothing"
    assert not one.was_interrupted and not two.was_interrupted


def test_a_trial_is_said_to_have_ended_before_siblings_take_it_and_an_interrupted_one_did_not_run(spaces, tmp_path):
    tune, order = Tuned(spaces, tmp_path / "suite"), []
    for lane in tune.lanes:
        lane.watch = lambda event, facts, number=lane.number: order.append((number, event, facts.get("again")))
    first, second = tune.suggest(), tune.suggest()
    tune.end(first)
    assert order[-2:] == [(0, "end", False), (1, "taken", None)]
    assert tune.lanes[0].summarise(0.0, None).ran == (first["trial_id"],), second


def test_an_interrupted_launch_is_said_of_the_lanes_that_had_not_ended(spaces, tmp_path):
    tune = Tuned(spaces, tmp_path / "suite")
    for _ in range(2):
        tune.end(tune.suggest())
    one, two = (lane.summarise(0.0, None) for lane in tune.lanes)
    assert (one.was_interrupted, two.was_interrupted) == (False, True)
    assert (one.n_left, two.n_left) == (0, 2)
    assert all(lane.summarise(0.0, "the Ray is gone").ray_is_lost for lane in tune.lanes)


def test_the_next_launch_takes_what_ended_in_a_sibling_before_it_starts(spaces, tmp_path):
    tune = Tuned(spaces[1:], tmp_path / "suite")
    while isinstance(trial := tune.suggest(), dict):
        tune.end(trial)
    assert trial == Queue.FINISHED
    both = Tuned(spaces, tmp_path / "suite")
    assert both.suggest() == Queue.FINISHED
    assert len(both.names("one", "taken")) == 2 and not both.names("one", "run")
    both.lanes[0].report_start(None)
    event, facts = both.events["one"][-1]
    assert (event, facts["n_todo"], facts["n_done"]) == ("start", 0, 2)
    # The space that lost its own records takes them back, and they are its own again.
    for trial_id in both.names("one", "taken"):
        (both.lanes[1].out / "trials" / trial_id / "row.json").unlink()
    again = Tuned(spaces, tmp_path / "suite")
    assert again.suggest() == Queue.FINISHED
    assert [read_record(again.lanes[1].out, i)["row"].get("taken_from") for i in again.names("two", "taken")] == [
        None,
        None,
    ]


def test_a_damaged_record_of_a_sibling_is_not_taken(spaces, tmp_path):
    tune = Tuned(spaces[:1], tmp_path / "suite")
    while isinstance(trial := tune.suggest(), dict):
        tune.end(trial)
    for path in tune.lanes[0].out.rglob("row.json"):
        path.write_bytes(path.read_bytes()[:40])
    both = Tuned(spaces, tmp_path / "suite")
    assert both.suggest()["lane"] == 0
    assert not both.names("two", "taken")


def test_a_failed_trial_is_run_by_the_other_lane_and_its_traceback_goes_when_it_is_taken(spaces, tmp_path):
    tune = Tuned(spaces, tmp_path / "suite")
    first = tune.suggest()
    home = tune.lanes[0].out / "trials" / first["trial_id"]
    home.mkdir(parents=True)
    (home / "error.txt").write_text("Traceback")
    (home / "checkpoint.safetensors").write_bytes(b"begun")
    tune.end(first, "failed")
    assert not tune.names("two", "taken")
    while isinstance(trial := tune.suggest(), dict):
        tune.end(trial)
    assert first["trial_id"] in tune.names("two", "run")
    assert (home / "error.txt").exists()
    again = Tuned(spaces, tmp_path / "suite")
    assert again.names("one", "taken") == [first["trial_id"]]
    assert sorted(path.name for path in home.iterdir()) == ["row.json"]


def test_trials_that_wait_for_large_places_leave_room_for_others(spaces, tmp_path):
    """A place for each kind of trial: those of the first lane do not fill Tune's list alone."""
    tune = Tuned(spaces, tmp_path / "suite", slots=1)
    one = tune.suggest()
    two = tune.suggest()
    assert (one["lane"], two["lane"]) == (0, 1)
    assert tune.suggest() is None
    tune.queue.note_start(one["tune_id"])
    assert tune.suggest()["lane"] == 0


def test_a_trial_that_waits_for_another_launch_goes_back_to_its_own_lane(spaces, tmp_path):
    tune = Tuned(spaces, tmp_path / "suite")
    first = tune.suggest()
    tune.queue.on_trial_complete(first["tune_id"], {"stage": WAITING, "lock": str(tmp_path / "some.lock")})
    assert tune.names("one", "wait") == [first["trial_id"]]
    assert tune.suggest()["trial_id"] != first["trial_id"]


def test_a_record_that_cannot_be_copied_for_lack_of_room_ends_the_launch_in_words(spaces, tmp_path):
    tune = Tuned(spaces, tmp_path / "suite")
    first = tune.suggest()
    (tune.lanes[1].out / "trials" / first["trial_id"] / "row.json").mkdir(parents=True)
    tune.end(first)
    assert "row.json: cannot be written: Is a directory" in tune.queue.unwritten
    assert tune.suggest() == Queue.FINISHED
    assert read_record(tune.lanes[0].out, first["trial_id"])["row"]["status"] == "ok"


def test_pruning_compares_trials_of_one_lane_only(spaces, tmp_path, plan_of):
    rules = [
        plan_of(f"{ONE}tune: {{finetune.lr: [1e-2, 1e-3]}}\nprune: {prune}\n").space.prune
        for prune in ("asha", "median")
    ]
    pruning = GroupedPruning([*rules, None])
    trial = {"cell_id": "c", "role": "search", "task": "digits", "seed": 0}
    groups = [pruning._find_group(SimpleNamespace(config={**trial, "lane": lane})) for lane in (0, 0, 1, 2)]
    assert groups[0] is groups[1] is not groups[2]
    assert [type(group).__name__ for group in groups[1:]] == [
        "AsyncHyperBandScheduler",
        "MedianStoppingRule",
        "NoneType",
    ]


def test_embedders_are_stored_for_shorter_runs_of_all_lanes(plan_of, user_tasks):
    plans = [
        plan_of(
            f"name: {name}\nbase: {{task: {task}, proxy: mnist5k}}\nfactors: {{embedder.epochs: {epochs}}}\nseeds: 1\n"
        )
        for name, task, epochs in (("a", "tiny", "[4]"), ("b", "tiny", "[1, 2]"), ("c", "digits", "[3]"))
    ]
    assert list_embedder_levels(plans) == {"tiny": [1, 2, 4], "digits": [3]}


def test_a_begun_trial_goes_on_in_the_lane_that_comes_to_it_first(tmp_path):
    outs = [tmp_path / name for name in "abc"]
    home = outs[2] / "trials" / "t"
    home.mkdir(parents=True)
    (home / "checkpoint.safetensors").write_bytes(b"epoch 5")
    copy_checkpoint(outs[0], outs, "t")
    assert (outs[0] / "trials/t/checkpoint.safetensors").read_bytes() == b"epoch 5"
    assert (home / "checkpoint.safetensors").exists(), "the sibling may be launched alone"
    (outs[0] / "trials/t/checkpoint.safetensors").write_bytes(b"epoch 6")
    copy_checkpoint(outs[0], outs, "t")
    assert (outs[0] / "trials/t/checkpoint.safetensors").read_bytes() == b"epoch 6"
    copy_checkpoint(outs[0], outs, "another")
    assert [path.name for path in (outs[0] / "trials").iterdir()] == ["t"]


def test_names_and_folders_of_tune_are_apart_for_each_lane(tmp_path):
    trials = [{"trial_id": "t", "lane": lane, "attempt": n} for lane, n in ((0, 1), (0, 2), (1, 1), (1, 2))]
    names = [_name_attempt(SimpleNamespace(config=trial)) for trial in trials]
    assert names == ["t", "t-2", "lane-2-t", "lane-2-t-2"]
    assert choose_tune_folder([tmp_path / "a"]) == tmp_path / "a" / "ray"
    assert choose_tune_folder([tmp_path / "a", tmp_path / "b"]) == tmp_path / "ray"
    assert choose_tune_folder([tmp_path / "a", tmp_path / "x" / "b"]) == tmp_path / "a" / "ray"


def test_what_a_space_takes_is_reused_as_a_whole_in_its_cost(tmp_path):
    times = {"data_s": 1.0, "finetune_s": 8.0, "wall_time_s": 10.0, "gpu_s": 5.0, "device": "cuda", "n_threads": 2}
    row = {**times, "host": "h", "reused": "", "reused_s": 0.0, "resumed_from_epoch": 0}
    results = sweep(
        tmp_path,
        cell_rows({"proxy": "none"}, [0.1], **row),
        cell_rows({"proxy": "mnist5k"}, [0.1], **row, taken_from="one"),
    )
    assert results.trials["taken_from"].fillna("").tolist() == ["", "one"]
    own, taken = (cell.ok for cell in cost.compute(results).cells)
    assert (own.wall_s, own.gpu_s, own.cpu_s, own.reused_s, own.n_reused) == (10, 5, 20, 0, 0)
    assert (taken.wall_s, taken.gpu_s, taken.cpu_s, taken.reused_s, taken.n_reused) == (0, 0, 0, 10, 1)
    assert sum(taken.stages.values()) == 0


def test_tables_of_all_spaces_count_the_cost_of_a_trial_once(spaces, tmp_path):
    tune = Tuned(spaces, tmp_path / "suite")
    while isinstance(trial := tune.suggest(), dict):
        tune.end(trial)
    outs = [lane.out for lane in tune.lanes]
    r.reveal(outs[1])  # its records are preferred, also those that it took
    for folders in (outs, outs[::-1]):
        trials = r.collect(folders, tmp_path / "tables").trials
        assert len(trials) == 4 and trials["taken_from"].isna().all()
    alone = r.collect(outs[1:], tmp_path / "alone").trials
    assert sorted(alone["taken_from"].fillna("")) == ["", "", "one", "one"]


def test_progress_says_what_was_taken_and_from_where(spaces, tmp_path):
    tune = Tuned(spaces, tmp_path / "suite")
    tune.lanes[1].report_start(None, tune.lanes[0].agenda.queue)
    for _ in range(2):
        tune.end(tune.suggest())
    lines = ProgressLines(tune.members[1].plan)
    said = [line for event, facts in tune.events["two"] for line in lines.write_event(event, facts)]
    assert said[0] == "4 trials to run (2 of them with an earlier space), 0 done before"
    assert said[1].startswith("[0/2 at 0 s] proxy none, lr 1e-3, seed 0: ok in 1.0 s, validation 0.2500")
    assert said[1].endswith(", taken from one, which ran it") and len(said) == 3
    # In the next launch it is there from the start.
    (tune.lanes[1].out / "trials" / tune.names("two", "taken")[0] / "row.json").unlink()
    again = Tuned(spaces, tmp_path / "suite")
    again.lanes[1].report_start(None)
    lines = ProgressLines(again.members[1].plan)
    said = [line for event, facts in again.events["two"] for line in lines.write_event(event, facts)]
    assert said == ["2 trials to run, 2 done before (1 of them taken from other spaces of the launch)"]


# Checks -------------------------------------------------------------------------------------------


def test_the_mistakes_of_all_members_are_reported_at_once_and_nothing_is_written(write_space, tmp_path):
    bad = [
        write_space("name: a\nbase: {task: ninapro}\nseeds: 1\n", "a.yaml"),
        write_space("name: b\nbase: {task: spherical}\nseeds: 1\n", "b.yaml"),
        write_space("name: c\nbase: {task: tiny}\nseeds: 1\n", "c.yaml"),
    ]
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "c").write_text("mine")
    with pytest.raises(InputError) as error:
        launch_members(plan_members(bad, tmp_path / "suite")[0])
    text = str(error.value)
    assert "space a: " in text and "ninapro_train.npy" in text
    assert "space b: " in text and "spherical" in text
    assert "space c: " in text and "not a folder" in text
    assert [path.name for path in (tmp_path / "suite").iterdir()] == ["c"]


def test_members_need_names_and_folders_of_their_own_and_one_ray(spaces, tmp_path):
    members, _ = plan_members(spaces, tmp_path / "suite")
    with pytest.raises(InputError, match="two of the spaces are named 'one'"):
        launch_members([members[0], members[0]])
    inside = SimpleNamespace(
        name="in", plan=members[1].plan, setup=Setup(**{**vars(members[1].setup), "out": tmp_path / "suite/one/in"})
    )
    with pytest.raises(InputError, match=r"folders of 'one' .* and 'in' .* are not apart"):
        launch_members([members[0], inside])
    elsewhere = SimpleNamespace(name="x", setup=Setup(**{**vars(members[1].setup), "store": "/elsewhere"}))
    with pytest.raises(ValueError, match="there must be one"):
        launch_members([members[0], elsewhere])
    with pytest.raises(ValueError, match="0 members"):
        launch_members([])


def test_a_folder_that_another_launch_holds_is_named_and_no_lock_is_kept(spaces, tmp_path):
    members, _ = plan_members(spaces, tmp_path / "suite")
    (tmp_path / "suite/two").mkdir(parents=True)
    with (
        FileLock(tmp_path / "suite/two/.lock"),
        pytest.raises(InputError, match="space two: .*another launch is writing here"),
        _hold_folders(members),
    ):
        raise AssertionError("a lock is held by another")
    with _hold_folders(members):
        pass


# On a real Ray ------------------------------------------------------------------------------------


def test_a_suite_whose_driver_is_killed_goes_on_bit_for_bit(spaces, tmp_path, head, run, user_tasks):
    """Two spaces with two equal trials, one embedder in common and other resources, in one Ray with one Tuner."""
    suite = tmp_path / "suite"
    driver = ("tests.builders.members", head.address, suite, *spaces)
    env = {**os.environ, **warm_workers()}
    killed = Command(*driver[1:], program=driver[0], env=env, output=tmp_path / "killed.txt")
    wait_for(lambda: list(suite.rglob("row.json")) or killed.poll() is not None)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    before = {path: path.stat().st_mtime_ns for path in suite.rglob("row.json")}
    assert 0 < len({path.parent.name for path in before}) < 4, (tmp_path / "killed.txt").read_text()

    done = Command(*driver[1:], program=driver[0], env=env).wait()
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((suite / "told.json").read_text())
    assert [told[name]["statuses"] for name in ("one", "two")] == [{"ok": 2}, {"ok": 4}]
    assert all(told[name]["exit_code"] == 0 and not told[name]["was_interrupted"] for name in told)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
    ran = [trial_id for name in told for event, trial_id, _ in told[name]["events"] if event == "run"]
    assert len(ran) == len(set(ran)) == sum(told[name]["n_run"] for name in told)
    assert not set(ran) & {path.parent.name for path in before}
    assert told["one"]["wall_time_s"] <= told["two"]["wall_time_s"]

    records = {
        name: {p.parent.name: read_record(suite / name, p.parent.name) for p in (suite / name).rglob("row.json")}
        for name in told
    }
    shared = records["one"].keys() & records["two"].keys()
    assert len(shared) == 2
    for trial_id in shared:
        one, two = (records[name][trial_id] for name in ("one", "two"))
        origins = [record["row"].pop("taken_from", None) for record in (one, two)]
        assert origins in ([None, "one"], ["two", None])
        assert one == two
    # Nothing was computed twice: one artifact for each stage, one Tune folder for both.
    made = {path.name: len(list(path.glob("*.safetensors"))) for path in (suite / "store").iterdir() if path.is_dir()}
    assert made["proxy-features"] == made["objective"] == made["embedder"] == 1, made
    assert list((suite / "ray").rglob("result.json")) and not list(suite.glob("*/ray"))
    # The same trial, unbroken and alone in this process.
    code = load_imports([str(user_tasks)])
    row, _ = run(task="tiny", finetune__epochs=1, embedder__epochs=1, proxy="mnist5k", content__code=code)
    assert row["trial_id"] in shared
    assert row["state_sha256"] == records["one"][row["trial_id"]]["row"]["state_sha256"]
