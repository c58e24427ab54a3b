"""The figure of claims: a forest plot with a panel per claim, a line per task and contrast, and margins shaded."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orca_sweep.analysis.figure_style import DARK, PAGE, SHADE, FigureStyle
from orca_sweep.analysis.findings import CORRELATION, ClaimFinding, Claims, Judgement, TaskFinding
from orca_sweep.analysis.sheet import RowGroup, Slot, open_sheet
from orca_sweep.analysis.table_effects import LOOKS
from orca_sweep.analysis.tables import better_side, name_tasks
from orca_sweep.analysis.writing import format_percent
from orca_sweep.stats.digits import format_number
from orca_sweep.stats.modes import as_cost, describe_mode

MAX_ROWS = 60
LOOKS_OF = LOOKS | {"tracks": LOOKS["helps"], "does not track": LOOKS["no meaningful difference"]}


def plot(claims: Claims, style: FigureStyle = PAGE) -> Any:
    """Returns a matplotlib figure, a forest plot: a panel per claim, a line per task and contrast, margins shaded."""
    names = name_tasks(task.task for finding in claims.findings for task in finding.shown)
    with open_sheet(style, write_caption(claims)) as sheet:
        for finding in claims.findings:
            lines = _list_lines(finding)
            if any(map(_has_estimate, lines)):
                _draw_panel(sheet.add_band()[0], finding, lines, names)
            else:
                sheet.add_heading(_write_heading(finding, names))
    return sheet.figure


def write_caption(claims: Claims) -> str:
    """Returns what the figure shows, and what its intervals and words are over."""
    return (
        f"Verdicts of these rows on claims of the study and of this project, by {claims.column}. Bars:"
        f" {format_percent(claims.level)} intervals, n pairs of equal seed; for rank correlations, intervals over seeds."
        " Shaded: within the margin of the task. Words are corrected for all contrasts that decide a claim, bars are"
        f" uncorrected. {claims.completeness}"
    )


def _write_heading(finding: ClaimFinding, names: Mapping[str, str]) -> str:
    """Returns claim and verdict, with tasks by the names that they have in figures."""
    verdict = finding.verdict
    for task, name in names.items():
        verdict = verdict.replace(task, name)
    origin = " (ours)" if finding.claim.origin == "ours" else ""
    return f"{finding.claim.id}. {finding.claim.sentence}{origin}\n{verdict}"


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A line of a panel: a contrast, a task without any, or a claim without a task."""

    task: TaskFinding | None = None
    judgement: Judgement | None = None
    is_counted: bool = True


def _list_lines(finding: ClaimFinding) -> list[_Line]:
    lines: list[_Line] = []
    for task in finding.shown:
        is_counted = task in finding.tasks
        judgements = task.judgements or (None,)
        lines += [_Line(task=task, judgement=judgement, is_counted=is_counted) for judgement in judgements]
    return lines or [_Line()]


def _draw_panel(slot: Slot, finding: ClaimFinding, all_lines: Sequence[_Line], names: Mapping[str, str]) -> None:
    lines = all_lines[:MAX_ROWS]
    axis = slot.show(_write_heading(finding, names), most=9)
    is_rho = any(line.judgement and line.judgement.kind == CORRELATION for line in lines)
    modes = {line.task.mode for line in lines if line.task}
    groups = [
        RowGroup(label=_name_line(line, names, are_mixed=len(modes) > 1), notes=(_write_note(line, is_rho=is_rho),))
        for line in lines
    ]
    for y, line in zip(slot.place_rows(groups), lines, strict=True):
        _draw_line(axis, line, y, is_rho=is_rho)
    axis.axvline(0, color=DARK, linewidth=0.8)
    label = "rank correlation of OTDD and metric" if is_rho else "difference in % of the mean of the second cell"
    better = f"; {better_side(modes.pop())} of zero is better" if not is_rho and len(modes) == 1 else ""
    n_hidden = len(all_lines) - len(lines)
    more = f"; {n_hidden} more contrasts are in the table" if n_hidden else ""
    slot.label_x(label + better + more)


def _name_line(line: _Line, names: Mapping[str, str], *, are_mixed: bool) -> str:
    """Returns task and contrast; also whether lower or higher is better if the tasks of the panel differ in it."""
    if line.task is None:
        return ""
    task = names[line.task.task] + f" ({describe_mode(line.task.mode)})" * are_mixed
    return f"{task}: {line.judgement.name}" if line.judgement else task


def _write_note(line: _Line, *, is_rho: bool) -> str:
    """Returns the text beside a line."""
    task, judgement = line.task, line.judgement
    if task is None:
        return "no task of this kind"
    if judgement is None:
        return f"not judged: {task.unjudged.text}" if task.unjudged else "not judged"
    if judgement.unjudged and not math.isfinite(judgement.estimate):
        return f"not judged: {judgement.unjudged.text}"
    n = f"n = {judgement.n} trials, {judgement.n_seeds} seeds" if is_rho else f"n = {judgement.n}"
    n += "" if judgement.decides and line.is_counted else ", shown only"
    estimate = format_number(judgement.estimate, judgement.digits, "+")
    return f"{'not judged' if judgement.unjudged else judgement.word} ({estimate}, {n})"


def _has_estimate(line: _Line) -> bool:
    judgement = line.judgement
    return judgement is not None and not (judgement.unjudged and not math.isfinite(judgement.estimate))


def _draw_line(axis: Any, line: _Line, y: float, *, is_rho: bool) -> None:
    """Draws a contrast, if the line has one."""
    task, judgement = line.task, line.judgement
    if task is None or judgement is None or not _has_estimate(line):
        return
    scale = 1.0 if is_rho else 100 / judgement.reference if judgement.reference > 0 else math.nan
    colour, marker = LOOKS_OF[judgement.word]
    margin = judgement.margin
    # For a correlation: everything on the far side of the least that counts.
    within = (as_cost(-1.0, task.mode), margin) if is_rho else (-margin * scale, margin * scale)
    if all(map(math.isfinite, within)):
        axis.fill_between(within, y - 10, y + 10, color=SHADE, alpha=0.25, linewidth=0)
    axis.plot([judgement.low * scale, judgement.high * scale], [y, y], color=colour)
    axis.plot([judgement.estimate * scale], [y], marker, color=colour)
