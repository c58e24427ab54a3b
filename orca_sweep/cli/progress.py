"""The progress of a running sweep: a line per ended trial and, on a terminal, a live table."""

import time
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from orca_sweep.cli.layout import lay_out_table, wrap_text
from orca_sweep.cli.terminal import print_text
from orca_sweep.config.naming import shorten_paths
from orca_sweep.space import Plan, PlannedTrial
from orca_sweep.space.trial_names import TrialNames
from orca_sweep.stats.modes import Mode, as_cost, best_value

ROWS = 12
"""Most cells, and most running trials, in the live table."""


class Progress:
    """Prints the events of a sweep and keeps the live table."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self.console, self.plan = console, plan
        self.running: dict[str, str] = {}
        self.names: dict[str, str] = {}
        """Levels and seed of each trial that has started, by its id."""
        self._naming = TrialNames(plan.labels, plan.space.tune)
        for trial in plan.trials:
            self._name_trial(trial)
        self.best: dict[str, tuple[float, int, Mode]] = {}
        """For each cell: its best validation metric, over how many ended trials, and the metric's mode."""
        self.n_todo = self.n_done = self.n_before = self.n_later = self.n_failed = self.n_reused = 0
        self.start = time.perf_counter()
        self.live = Live(console=console, get_renderable=self._draw, transient=True, refresh_per_second=2)

    def __enter__(self) -> "Progress":
        self.console.print("starting Ray ...")
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def __call__(self, event: str, facts: Mapping[str, Any]) -> None:
        """Shows an event of the sweep."""
        handlers = {
            "start": self._show_start,
            "damaged": self._show_damage,
            "planned": self._count_planned,
            "run": self._add_running,
            "epoch": self._show_epoch,
            "wait": self._show_wait,
            "end": self._show_end,
        }
        handlers[event](facts)

    def _show_start(self, facts: Mapping[str, Any]) -> None:
        self.n_todo, self.n_before, self.n_later = facts["n_todo"], facts["n_done"], facts["n_later"]
        dashboard = f"; Ray dashboard: http://{facts['dashboard']}" if facts["dashboard"] else ""
        later = f", up to {self.n_later} more, planned from their results" if self.n_later else ""
        text = f"{self.n_todo} trials to run, {self.n_before} done before{later}{dashboard}"
        print_text(self.console, text)

    def _show_damage(self, facts: Mapping[str, Any]) -> None:
        for problem in facts["problems"]:
            print_text(self.console, problem)

    def _count_planned(self, facts: Mapping[str, Any]) -> None:
        if self.n_later:  # they were announced at the start
            self.n_todo += facts["n_new"]
            self.n_later = max(0, self.n_later - facts["n_new"])

    def _add_running(self, facts: Mapping[str, Any]) -> None:
        self.names[facts["trial_id"]] = self._name_trial(facts["trial"])
        self.running[facts["trial_id"]] = "starts"

    def _name_trial(self, trial: PlannedTrial) -> str:
        tuned = {
            path: self.plan.space.write_level(path, attrgetter(path)(trial.config)) for path in self.plan.space.tune
        }
        return self._naming.add_trial(trial.trial_id, trial.cell_id, seed=trial.seed, role=trial.role, tuned=tuned)

    def _show_wait(self, facts: Mapping[str, Any]) -> None:
        self.running.pop(facts["trial_id"], None)
        name = self.names[facts["trial_id"]]
        print_text(self.console, f"{name}: waits: another sweep is making an artifact that it needs, in the same store")

    def _show_epoch(self, facts: Mapping[str, Any]) -> None:
        value = facts.get("val_metric")
        measured = f" {value:.4g}" if isinstance(value, float) else ""
        self.running[facts["trial_id"]] = f"{facts['stage']} {facts.get('epoch', '')}{measured}"

    def _show_end(self, facts: Mapping[str, Any]) -> None:
        self.running.pop(facts["trial_id"], None)
        self._count_end(facts)
        value, seconds = facts.get("val_metric_best"), facts.get("wall_time_s")
        result = f", validation {value:#.4g}" if isinstance(value, float) else ""
        error = f", {facts['error']}" if facts.get("error") else ""
        duration = f" in {seconds:.1f} s" if seconds is not None else ""
        reused = f", reused {facts['reused'].replace(',', ', ')}" if facts.get("reused") else ""
        retry = ", will be tried again" if facts.get("again") else ""
        at = time.perf_counter() - self.start
        print_text(
            self.console,
            f"[{self.n_done}/{self.n_todo} at {at:.0f} s] {self.names[facts['trial_id']]}:"
            f" {facts['status']}{duration}{result}{error}{reused}{retry}",
        )

    def _count_end(self, facts: Mapping[str, Any]) -> None:
        """Counts an ended trial, unless it is tried again, and keeps its cell's best validation metric."""
        if not facts.get("again"):
            self.n_done += 1
            self.n_failed += facts["status"] not in ("ok", "pruned")
            self.n_reused += bool(facts.get("reused"))
        value = facts.get("val_metric_best")
        if isinstance(value, float) and facts["status"] == "ok":
            mode: Mode = facts.get("metric_mode") or "min"
            best, n, _ = self.best.get(facts["cell_id"], (value, 0, mode))
            self.best[facts["cell_id"]] = best_value([best, value], mode), n + 1, mode

    def _draw(self) -> Group:
        """Returns the live table: counts, running trials, and each cell's best so far, as far as the screen is high."""
        width, height = self.console.width, self.console.height - 1
        lines = [Text(line, style="bold") for line in wrap_text(self._write_counts(), width)]
        running = [f"  {text}  {self.names[trial_id]}" for trial_id, text in self.running.items()]
        shown = [line for text in running[:ROWS] for line in wrap_text(text, width, 4)]
        lines += [Text(line, style="dim") for line in shown[: max(0, height // 2)]]
        head, rows = self._tabulate_cells(width, height - len(lines))
        lines += [Text(line, style="bold") for line in head] + list(map(Text, rows))
        for line in lines:
            line.no_wrap, line.overflow = True, "ignore"
        return Group(*lines)

    def _write_counts(self) -> str:
        left = self.n_todo - self.n_done
        spent = time.perf_counter() - self.start
        eta = (
            f", about {_format_seconds(spent * (left + self.n_later) / self.n_done)} to go"
            if self.n_done and left
            else ""
        )
        return (
            f"{self.n_before + self.n_done} done, {len(self.running)} running, {max(0, left - len(self.running))} waiting,"
            f" {self.n_failed} failed; {self.n_reused} reused a stage; {_format_seconds(spent)}{eta}"
        )

    def _tabulate_cells(self, width: int, height: int) -> tuple[list[str], list[str]]:
        """Returns the lines of the head and of the best cells that fit into the height."""
        if not self.best:
            return [], []
        factors = shorten_paths(self.plan.space.factors)
        rows = []
        for cell_id, (value, n, mode) in self.best.items():
            levels = self.plan.labels.get(cell_id.removesuffix("-aa"), dict.fromkeys(factors, ""))
            repeat = " (A/A)" if cell_id.endswith("-aa") else ""
            rows.append((as_cost(value, mode), (f"{value:#.4g}{repeat}", str(n), *levels.values())))
        names = ("best validation", "n", *factors.values())
        for n_rows in range(min(ROWS, len(rows)), 0, -1):
            best = [row for _, row in sorted(rows)[:n_rows]]
            head, lines = lay_out_table(names, best, width)
            if len(head) + len(lines) <= height:
                return head, lines
        return [], []


def _format_seconds(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
