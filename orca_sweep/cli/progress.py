"""The progress of a running sweep: a line per ended trial and, on a terminal, a live table."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from orca_sweep.api.progress import Counts, ProgressLines, Watch
from orca_sweep.cli.layout import lay_out_table, wrap_text
from orca_sweep.cli.terminal import print_text
from orca_sweep.config.naming import shorten_paths
from orca_sweep.space import Plan
from orca_sweep.stats.modes import Mode, as_cost, best_value

ROWS = 12
"""Most cells, and most running trials, in the live table."""


class Progress:
    """Prints the events of a sweep and keeps the live table."""

    def __init__(self, console: Console, plan: Plan, lines: ProgressLines | None = None) -> None:
        self.console, self.plan = console, plan
        self.lines = lines or ProgressLines(plan)
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
            case "still":
                self.running |= {trial_id: sign.describe() for trial_id, sign in facts["signs"].items() if sign}
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
        return self.draw_table(_write_counts([self]), self.list_running())

    def list_running(self) -> list[str]:
        """Returns what each running trial does, in a suite with the name of its space."""
        space = f"{self.lines.space}: " if self.lines.space else ""
        return [f"  {text}  {space}{self.lines.names[trial_id]}" for trial_id, text in self.running.items()]

    def draw_table(self, counts: str, running: Sequence[str]) -> Group:
        """Returns the live table: counts, running trials, and each cell's best so far, as far as the screen is high."""
        width, height = self.console.width, self.console.height - 1
        lines = [Text(line, style="bold") for line in wrap_text(counts, width)]
        shown = [line for text in running[:ROWS] for line in wrap_text(text, width, 4)]
        lines += [Text(line, style="dim") for line in shown[: max(0, height // 2)]]
        head, rows = self._tabulate_cells(width, height - len(lines))
        lines += [Text(line, style="bold") for line in head] + list(map(Text, rows))
        for line in lines:
            line.no_wrap, line.overflow = True, "ignore"
        return Group(*lines)

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


class SuiteProgress:
    """Prints the events of a suite and keeps one live table: counts over all spaces, and the cells of the newest event."""

    def __init__(self, console: Console, plans: Sequence[Plan]) -> None:
        counts = Counts()
        self.console = console
        self.parts = [Progress(console, plan, ProgressLines(plan, counts, plan.space.name)) for plan in plans]
        self.newest = self.parts[0]
        self.live = Live(console=console, get_renderable=self._draw, transient=True, refresh_per_second=2)

    def __enter__(self) -> "SuiteProgress":
        self.console.print("starting Ray ...")
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    @property
    def watches(self) -> list[Watch]:
        """What receives the events of each space, in their order."""
        return [partial(self._show_event, part) for part in self.parts]

    def _show_event(self, part: Progress, event: str, facts: Mapping[str, Any]) -> None:
        self.newest = part
        part(event, facts)

    def _draw(self) -> Group:
        running = [line for part in self.parts for line in part.list_running()]
        return self.newest.draw_table(_write_counts(self.parts), running)


def _write_counts(parts: Sequence[Progress]) -> str:
    """Returns how many trials of all parts, which count together, are done, running, and so on."""
    counts = parts[0].lines.counts
    n_running, left = sum(len(part.running) for part in parts), counts.n_todo - counts.n_done
    spent = time.perf_counter() - counts.start
    eta = (
        f", about {_format_seconds(spent * (left + counts.n_later) / counts.n_done)} to go"
        if counts.n_done and left
        else ""
    )
    return (
        f"{counts.n_before + counts.n_done} done, {n_running} running, {max(0, left - n_running)} waiting,"
        f" {sum(part.n_failed for part in parts)} failed; {sum(part.n_reused for part in parts)} reused a stage;"
        f" {_format_seconds(spent)}{eta}"
    )


def _format_seconds(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
