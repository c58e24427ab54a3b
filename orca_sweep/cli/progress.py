"""The progress of a running sweep: a line per ended trial and, on a terminal, a live table."""

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from orca_sweep.api.progress import ProgressLines
from orca_sweep.cli.layout import lay_out_table, wrap_text
from orca_sweep.cli.terminal import print_text
from orca_sweep.config.naming import shorten_paths
from orca_sweep.space import Plan
from orca_sweep.stats.modes import Mode, as_cost, best_value

ROWS = 12
"""Most cells, and most running trials, in the live table."""


class Progress:
    """Prints the events of a sweep and keeps the live table."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self.console, self.plan = console, plan
        self.lines = ProgressLines(plan)
        self.running: dict[str, str] = {}
        self.best: dict[str, tuple[float, int, Mode]] = {}
        """For each cell: its best validation metric, over how many ended trials, and the metric's mode."""
        self.n_failed = self.n_reused = 0
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
        match event:
            case "run":
                self.running[facts["trial_id"]] = "starts"
            case "epoch":
                self._show_epoch(facts)
            case "wait" | "end":
                self.running.pop(facts["trial_id"], None)
            case "taken":
                self._keep_best(facts)
        if event == "end":
            self._count_end(facts)
        for line in self.lines.write_event(event, facts):
            print_text(self.console, line)

    def _show_epoch(self, facts: Mapping[str, Any]) -> None:
        value = facts.get("val_metric")
        measured = f" {value:.4g}" if isinstance(value, float) else ""
        self.running[facts["trial_id"]] = f"{facts['stage']} {facts.get('epoch', '')}{measured}"

    def _count_end(self, facts: Mapping[str, Any]) -> None:
        """Counts an ended trial, unless it is tried again."""
        if not facts.get("again"):
            self.n_failed += facts["status"] not in ("ok", "pruned")
            self.n_reused += bool(facts.get("reused"))
        self._keep_best(facts)

    def _keep_best(self, facts: Mapping[str, Any]) -> None:
        """Keeps the best validation metric of an ended trial's cell."""
        value = facts.get("val_metric_best")
        if isinstance(value, float) and facts["status"] == "ok":
            mode: Mode = facts.get("metric_mode") or "min"
            best, n, _ = self.best.get(facts["cell_id"], (value, 0, mode))
            self.best[facts["cell_id"]] = best_value([best, value], mode), n + 1, mode

    def _draw(self) -> Group:
        """Returns the live table: counts, running trials, and each cell's best so far, as far as the screen is high."""
        width, height = self.console.width, self.console.height - 1
        lines = [Text(line, style="bold") for line in wrap_text(self._write_counts(), width)]
        running = [f"  {text}  {self.lines.names[trial_id]}" for trial_id, text in self.running.items()]
        shown = [line for text in running[:ROWS] for line in wrap_text(text, width, 4)]
        lines += [Text(line, style="dim") for line in shown[: max(0, height // 2)]]
        head, rows = self._tabulate_cells(width, height - len(lines))
        lines += [Text(line, style="bold") for line in head] + list(map(Text, rows))
        for line in lines:
            line.no_wrap, line.overflow = True, "ignore"
        return Group(*lines)

    def _write_counts(self) -> str:
        lines = self.lines
        left = lines.n_todo - lines.n_done
        spent = time.perf_counter() - lines.start
        eta = (
            f", about {_format_seconds(spent * (left + lines.n_later) / lines.n_done)} to go"
            if lines.n_done and left
            else ""
        )
        return (
            f"{lines.n_before + lines.n_done} done, {len(self.running)} running, {max(0, left - len(self.running))} waiting,"
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
