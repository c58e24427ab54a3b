"""What loggers keep of the reports of trials. Whole sweeps with loggers are in ``test_sweep``."""

from types import SimpleNamespace

import pytest
from ray.tune import Callback

from orca_sweep.errors import InputError
from orca_sweep.sweep.loggers import COLUMNS, LaneCallback, list_problems, name_by_stage, shape_row
from tests.commands import free_ports

REPORTS = [
    {"stage": "pretrain", "epoch": 50, "train_loss": 3.0},
    {"stage": "embedder", "epoch": 0, "objective": 9.0},
    {"stage": "finetune", "epoch": 1, "train_loss": 0.5, "val_metric": 0.2, "lr": 1e-3},
    {"stage": "done", "status": "ok", "val_metric_best": 0.2},
]
TUNE = {"training_iteration": 3, "pid": 7}


class Kept(Callback):
    """A logger that keeps what it is told."""

    def __init__(self):
        self.told = []

    def on_trial_result(self, iteration, trials, trial, result, **info):
        self.told.append(result)

    def on_trial_complete(self, iteration, trials, trial, **info):
        self.told.append("complete")

    def on_trial_error(self, iteration, trials, trial, **info):
        self.told.append("error")


def test_every_line_of_a_csv_file_has_every_column():
    rows = [shape_row({**TUNE, **report}) for report in REPORTS]
    assert len({tuple(row) for row in rows}) == 1
    assert set(rows[0]) == {*COLUMNS, *TUNE}
    assert (rows[0]["val_metric"], rows[2]["val_metric"], rows[3]["status"]) == ("", 0.2, "ok")


def test_curves_are_named_after_their_stages():
    assert [name_by_stage({**TUNE, **report}) for report in REPORTS] == [
        {**TUNE, "pretrain/epoch": 50, "pretrain/train_loss": 3.0},
        {**TUNE, "embedder/epoch": 0, "embedder/objective": 9.0},
        {**TUNE, "finetune/epoch": 1, "finetune/train_loss": 0.5, "finetune/val_metric": 0.2, "finetune/lr": 1e-3},
        {**TUNE, "end/status": "ok", "end/val_metric_best": 0.2},
    ]


@pytest.mark.parametrize(
    ("last", "end"),
    [
        ({"status": "ok"}, "complete"),
        ({"status": "failed"}, "error"),
        ({"status": "diverged"}, "error"),
        ({"status": "oom"}, "error"),
        ({"status": "timeout"}, "error"),
        ({"stage": "finetune"}, "complete"),  # pruned
        (None, "complete"),
    ],
)
def test_a_trial_that_failed_has_failed_for_its_logger(last, end):
    logger = Kept()
    callback = LaneCallback(1, "csv", logger)
    for lane in (0, 1):
        trial = SimpleNamespace(config={"lane": lane}, last_result=last)
        callback.on_trial_result(1, [], trial, {"stage": "finetune"})
        callback.on_trial_complete(1, [], trial)
    assert logger.told == [shape_row({"stage": "finetune"}), end]


def test_a_server_that_does_not_answer_is_told_before_ray_starts(plan_of):
    (port,) = free_ports(1)
    text = f"base: {{task: tiny}}\nseeds: 1\nloggers: [{{mlflow: {{tracking_uri: 'http://127.0.0.1:{port}'}}}}, csv]\n"
    (problem,) = InputError(list_problems(plan_of(text).space)).problems
    assert "loggers: mlflow cannot start (nothing answers at http://127.0.0.1" in str(problem)
    assert not list_problems(plan_of("base: {task: tiny}\nseeds: 1\nloggers: [mlflow, csv]\n").space)
