"""Signs of life of a trial, for people who watch: in Ray's dashboard, in the worker's log, and in the sweep folder."""

import platform
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from orca_sweep.config import TrialConfig
from orca_sweep.results.signs import Sign, format_sign
from orca_sweep.visible import escape_controls

EVERY_S = 5.0
"""Time between two signs. Trials that are shorter give none."""
METRIC_NAMES = ("orca_sweep_epoch", "orca_sweep_validation_metric")
"""Gauges of Ray's metrics; Prometheus sees them as ``ray_orca_sweep_epoch`` and so on."""


class LifeSigns:
    """What a trial does now; a thread writes it down while the trial runs."""

    def __init__(self, params: Mapping[str, Any], config: TrialConfig, write: Callable[[bytes], None]) -> None:
        """Starts without a stage.

        Args:
            params: of the trial, as Tune has them.
            config: of the trial.
            write: takes the content of the trial's sign; may raise OSError.
        """
        self.name, self.space, self.trial_id = params["name"], params["space"], params["trial_id"]
        self.tags = {
            "space": self.space,
            "trial": self.trial_id,
            "cell": params["cell_id"],
            "seed": str(params["seed"]),
        }
        self.n_epochs = {"embedder": config.embedder.epochs, "finetune": config.finetune.epochs}
        self.write, self.has_ended = write, threading.Event()
        self.thread = threading.Thread(target=self._renew_until_ended, daemon=True)
        self.stage, self.since, self.row = "data", time.time(), dict[str, Any]()

    def __enter__(self) -> "LifeSigns":
        self._print("starts")
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.has_ended.set()
        self.thread.join(EVERY_S)  # a sign that came after the end would stay

    def begin_stage(self, stage: str) -> None:
        """Notes that a stage begins."""
        self.stage, self.since, self.row = stage, time.time(), {}

    def note_row(self, row: Mapping[str, Any]) -> None:
        """Notes the end of an epoch."""
        if row["stage"] != self.stage:  # pre-training is part of the stage that makes the body
            self.begin_stage(str(row["stage"]))
        self.row = dict(row)
        numbers = [
            f"{key} {row[key]:.4g}" for key in ("train_loss", "objective", "val_metric") if _is_number(row.get(key))
        ]
        self._print(", ".join([f"{row['stage']} epoch {row['epoch']}", *numbers]))
        with suppress(Exception):  # people miss a number, and the trial goes on
            set_gauges({**self.tags, "stage": str(row["stage"])}, row)

    def name_process(self) -> None:
        """Names the process after the trial; with each of its calls, that is after each report, Tune names it anew."""
        set_process_title(f"ray::orca-sweep {self.trial_id}")

    def note_end(self, row: Mapping[str, Any]) -> None:
        """Notes how the trial ended."""
        self._print(f"{row['status']}{f': {error}' if (error := row.get('error')) else ''}")

    def read(self) -> Sign:
        """Returns what the trial does now."""
        value = self.row.get("val_metric")
        return Sign(
            trial_id=self.trial_id,
            stage=self.stage,
            since=self.since,
            at=time.time(),
            node=platform.node(),
            epoch=self.row.get("epoch"),
            n_epochs=self.n_epochs.get(self.stage),
            val_metric=value if _is_number(value) else None,
        )

    def _renew_until_ended(self) -> None:
        while not self.has_ended.wait(EVERY_S):
            self.name_process()
            with suppress(Exception):  # a sign is not worth a trial; the next one may succeed
                self.write(format_sign(self.read()))

    def _print(self, text: str) -> None:
        """Prints a line to the worker's log, which the dashboard shows."""
        line = f"{time.strftime('%H:%M:%S')} {self.space}: {self.name} ({self.trial_id}): {text}"
        with suppress(
            OSError, ValueError
        ):  # the disk is full, or the log cannot hold a letter: that is not worth a trial
            print(escape_controls(line), flush=True)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def set_process_title(title: str) -> None:
    """Names this process, in ``ps`` and on the dashboard's page of a node."""
    with suppress(Exception):  # a private function of Ray
        from ray import _raylet

        _raylet.setproctitle(title)  # type: ignore[attr-defined]


_gauges: dict[str, Any] = {}


def set_gauges(tags: Mapping[str, str], row: Mapping[str, Any]) -> None:
    """Gives Ray's metrics the epoch and the validation metric of a trial. Source: ray.util.metrics.Gauge."""
    from ray.util.metrics import Gauge

    values = dict(zip(METRIC_NAMES, (row.get("epoch"), row.get("val_metric")), strict=True))
    for name, value in values.items():
        if name not in _gauges:
            _gauges[name] = Gauge(name, "of a running trial", tag_keys=tuple(tags))
        if isinstance(value, int | float):
            _gauges[name].set(float(value), tags=dict(tags))
