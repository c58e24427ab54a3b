"""What a running sweep shows: a line per ended trial and, on a terminal, one live table."""

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orca_sweep.space import Plan
from orca_sweep.stats.modes import Mode, as_cost, best_value

ROWS = 12
"""Cells and running trials shown at most."""


class Progress:
    """Told of a sweep's events, it prints them and keeps the live table."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self.console, self.plan = console, plan
        self.labels = plan.labels
        self.running: dict[str, str] = {}
        self.best: dict[str, tuple[float, int, Mode]] = {}
        """Of each cell the best validation metric, of how many ended trials, and which way round it is compared."""
        self.n_todo = self.n_done = self.n_before = self.n_later = self.n_failed = self.n_reused = 0
        self.start = time.perf_counter()
        self.live = Live(console=console, get_renderable=self._view, transient=True, refresh_per_second=2)

    def __enter__(self) -> "Progress":
        self.console.print("starting Ray ...")
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def __call__(self, event: str, what: Mapping[str, Any]) -> None:
        """Takes an event of the sweep."""
        told = {
            "start": self._started, "run": self._runs, "epoch": self._epoch, "wait": self._waits, "end": self._ended,
            "planned": self._planned, "damaged": self._damaged,
        }  # fmt: skip
        told[event](what)

    def _started(self, what: Mapping[str, Any]) -> None:
        self.n_todo, self.n_before, self.n_later = what["n_todo"], what["n_done"], what["n_later"]
        where = f"; Ray dashboard: http://{what['dashboard']}" if what["dashboard"] else ""
        later = f", up to {self.n_later} more to be planned from their results" if self.n_later else ""
        self.console.print(f"{self.n_todo} trials to run, {self.n_before} done before{later}{where}", soft_wrap=True)

    def _damaged(self, what: Mapping[str, Any]) -> None:
        for problem in what["problems"]:
            self.console.print(problem, markup=False, soft_wrap=True)

    def _planned(self, what: Mapping[str, Any]) -> None:
        if self.n_later:  # told beforehand, as what may come
            self.n_todo += what["n_new"]
            self.n_later = max(0, self.n_later - what["n_new"])

    def _runs(self, what: Mapping[str, Any]) -> None:
        self.running[what["trial_id"]] = "starts"

    def _waits(self, what: Mapping[str, Any]) -> None:
        self.running.pop(what["trial_id"], None)
        self.console.print(
            f"{what['trial_id']} waits: another sweep makes what it needs, in the same store", soft_wrap=True
        )

    def _epoch(self, what: Mapping[str, Any]) -> None:
        value = what.get("val_metric")
        measured = f" {value:.4g}" if isinstance(value, float) else ""
        self.running[what["trial_id"]] = f"{what['stage']} {what.get('epoch', '')}{measured}"

    def _ended(self, what: Mapping[str, Any]) -> None:
        self.running.pop(what["trial_id"], None)
        value, again = what.get("val_metric_best"), what.get("again")
        if not again:
            self.n_done += 1
            self.n_failed += what["status"] not in ("ok", "pruned")
            self.n_reused += bool(what.get("reused"))
        if isinstance(value, float) and what["status"] == "ok":
            mode: Mode = what.get("metric_mode") or "min"
            best, n, _ = self.best.get(what["cell_id"], (value, 0, mode))
            self.best[what["cell_id"]] = best_value([best, value], mode), n + 1, mode
        measured = f"validation {value:.4g}" if isinstance(value, float) else str(what.get("error") or "")
        seconds = what.get("wall_time_s")
        took = f" in {seconds:.1f} s" if seconds is not None else ""
        reused = f", reused {what['reused']}" if what.get("reused") else ""
        more = ", is tried again" if again else ""
        at = time.perf_counter() - self.start
        self.console.print(
            f"[{self.n_done}/{self.n_todo} at {at:.0f} s] {what['trial_id']} {what['status']}{took}:"
            f" {measured}{reused}{more}",
            markup=False,
            soft_wrap=True,
        )

    def _view(self) -> Group:
        """The live table: how far, what runs, and each cell's best so far."""
        return Group(Text(self._counts(), style="bold"), *self._running(), self._cells())

    def _counts(self) -> str:
        left = self.n_todo - self.n_done
        spent = time.perf_counter() - self.start
        eta = f", about {_span(spent * (left + self.n_later) / self.n_done)} to go" if self.n_done and left else ""
        return (
            f"{self.n_before + self.n_done} done, {len(self.running)} running, {max(0, left - len(self.running))} waiting,"
            f" {self.n_failed} failed; {self.n_reused} reused a stage; {_span(spent)}{eta}"
        )

    def _running(self) -> list[Text]:
        lines = [Text(f"  {trial_id}  {text}", style="dim") for trial_id, text in self.running.items()]
        return lines[:ROWS]

    def _cells(self) -> Table:
        table = Table(box=None, header_style="bold")
        for name in ("best validation", "n", *self.plan.space.factors):
            table.add_column(name, overflow="fold")
        best_first = sorted(self.best.items(), key=lambda item: as_cost(item[1][0], item[1][2]))
        for cell_id, (value, n, _) in best_first[:ROWS]:
            labels = self.labels.get(cell_id.removesuffix("-aa"), {})
            table.add_row(f"{value:.4g}", str(n), *labels.values())
        return table


def _span(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )
