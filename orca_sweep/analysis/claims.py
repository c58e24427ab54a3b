"""The study's claims, and the verdict of these tables on each: supported, contradicted, mixed, undecided, or not judged.

study.py holds the six claims, each with what supports and what contradicts it. A claim is judged on every task by
contrasts between cells that differ in nothing else, paired over seeds. Where a task has several settings of the other
fields, a claim is judged at one setting, and the output names it: nothing frozen, the most pre-training, a trained
embedder, a real proxy, and otherwise the first in the table that has the cells to compare. --base names other levels.

Words are those of table_effects, against the margin of the task: that of --margin, else of its space, else of an A/A
cell; a task without any margin is not judged. All contrasts of a claim, over all tasks, are one family for Holm's
procedure. For OTDD and metric the contrast is Spearman's rank correlation over trials, with an interval over seeds: the
two go together if the interval lies beyond --least-correlation, and do not if it lies below. Tasks are counted with
Wilson's interval, which treats them as a sample of tasks: with few tasks it is wide, however many seeds there are.

Writes claims.csv, .md, .tex (booktabs), and a forest plot as .png, .svg and .pdf.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orca_sweep.analysis.cells import read_task_cells
from orca_sweep.analysis.compared import compared
from orca_sweep.analysis.figure_style import DARK, PAGE, SHADE, FigureStyle
from orca_sweep.analysis.figures import describe_modes
from orca_sweep.analysis.judging import CORRELATION, ClaimFinding, Judge, Judgement, TaskFinding
from orca_sweep.analysis.margins import Margin, fixed_margins, margin_of
from orca_sweep.analysis.placebos import find_idle_placebos, leave_out_idle_placebos
from orca_sweep.analysis.sheet import RowGroup, Slot, open_sheet
from orca_sweep.analysis.study import CLAIMS, SAYS, STUDY
from orca_sweep.analysis.table_effects import LOOKS
from orca_sweep.analysis.tables import UNKNOWN_METRIC, better_side, describe_completeness, name_tasks, named_levels
from orca_sweep.analysis.writing import (
    MINUS,
    NOTHING,
    Output,
    Record,
    Table,
    format_csv,
    format_percent,
)
from orca_sweep.errors import InputError
from orca_sweep.results import Results
from orca_sweep.stats.digits import Digits, format_interval, format_number, refine_digits
from orca_sweep.stats.modes import Mode, as_cost, describe_mode

NAME = "claims"
LEAST_CORRELATION = 0.3
MAX_ROWS = 60
LOOKS_OF = LOOKS | {"tracks": LOOKS["helps"], "does not track": LOOKS["no meaningful difference"]}


@dataclass(frozen=True, kw_only=True)
class Claims:
    """The findings on all claims, and what the numbers measure."""

    findings: tuple[ClaimFinding, ...]
    column: str
    n_sealed: int
    """Ok trials whose test metrics are sealed."""
    level: float
    least_correlation: float
    complete_pairs_only: bool
    completeness: str
    """How many planned trials are ok, in words."""
    notes: tuple[str, ...] = ()
    """Rows that are left out, in words."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to judge the claims."""

    base: Sequence[str] = ()
    """Levels of the setting to judge at, each 'factor=level'; several of one factor are alternatives."""
    margin: Sequence[str] = ()
    """'0.01' for all tasks, 'task=0.01' for one."""
    metric: str | None = None
    """The column to compare."""
    level: float = 0.95
    """Confidence level of the intervals; words are judged at 1 - level."""
    complete_pairs_only: bool = False
    """Whether to judge from the remaining seeds if some give no pair."""
    least_correlation: float = LEAST_CORRELATION
    """The least rank correlation of OTDD and metric that counts as going together."""

    def check(self) -> None:
        """Refuses levels and correlations at which nothing can be judged.

        Raises:
            InputError: for a level outside (0.5, 1), or a least correlation outside [0, 1).
        """
        if not 0.5 < self.level < 1:
            raise InputError(f"--level {self.level:g}: words need a level above 0.5 and below 1. Use 0.95.")
        if not 0 <= self.least_correlation < 1:
            least = self.least_correlation
            raise InputError(f"--least-correlation {least:g}: must be 0 or more and below 1, such as 0.3.")


def compute(results: Results, options: Options | None = None) -> Claims:
    """Returns what the tables say of each claim of the study.

    Raises:
        InputError: for names that the tables do not have, and for spaces that fix different margins.
    """
    options = options or Options()
    options.check()
    results = compared(results, options.base)
    tasks, left_out = leave_out_idle_placebos(read_task_cells(results, options.metric), find_idle_placebos(results))
    cells = [cell for task in tasks for cell in task.every]
    fixed = fixed_margins(results, options.margin, [task.task for task in tasks])
    judge = Judge(
        margins={task.task: margin_of(task.every, None, fixed, options.level) for task in tasks},
        named=_group_levels(named_levels("--base", options.base, cells)),
        columns=tuple(map(str, results.trials)),
        level=options.level,
        complete=options.complete_pairs_only,
        least=options.least_correlation,
        left_out=left_out,
    )
    return Claims(
        findings=tuple(judge.judge_claim(claim, tasks) for claim in CLAIMS),
        column=options.metric or results.metric,
        n_sealed=results.n_sealed,
        level=options.level,
        least_correlation=options.least_correlation,
        complete_pairs_only=options.complete_pairs_only,
        completeness=describe_completeness(cells),
        notes=results.notes,
    )


def _group_levels(levels: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    by_path: dict[str, set[str]] = {}
    for path, level in levels:
        by_path.setdefault(path, set()).add(level)
    return by_path


# Numbers ------------------------------------------------------------------------------------------


def numbers(claims: Claims) -> str:
    """Returns every number as CSV: a line per contrast, and a line for each task or claim without any."""
    return format_csv(list(_make_records(claims)))


def _make_records(claims: Claims) -> Iterator[Record]:
    for finding in claims.findings:
        for task in finding.tasks or (None,):
            for judgement in (task.judgements if task else ()) or (None,):
                yield {
                    **_claim_columns(claims, finding),
                    **_task_columns(task),
                    **_judgement_columns(claims, judgement),
                }


def _claim_columns(claims: Claims, finding: ClaimFinding) -> Record:
    return {
        "claim": finding.claim.id,
        "sentence": finding.claim.sentence,
        "verdict": finding.kind,
        "verdict_in_words": finding.verdict,
        **{f"n_tasks_{says.replace(' ', '_')}": len(finding.tasks_saying(says)) for says in SAYS},
        "share_supporting": finding.share.share,
        "share_low": finding.share.low,
        "share_high": finding.share.high,
        "share_interval": f"{format_percent(finding.share.level)} Wilson interval over the tasks that decide",
        "column": claims.column,
    }


def _task_columns(task: TaskFinding | None) -> Record:
    return {
        "task": task and task.task,
        "dims": task and task.dims,
        "metric": task and task.metric,
        "mode": task and task.mode,
        "task_says": task and task.says,
        "not_judged_because": task and (task.unjudged.text if task.unjudged else ""),
        "setting": task and task.setting,
        "n_other_settings": task and task.n_other_settings,
        "margin_from": task and task.margin and task.margin.source,
    }


def _judgement_columns(claims: Claims, judgement: Judgement | None) -> Record:
    j, level = judgement, format_percent(claims.level)
    intervals = {
        True: f"{level} interval of Spearman's rho, jackknife over seeds",
        False: f"{level} Student-t interval over pairs",
    }
    return {
        "contrast": j and j.name,
        "cells": j and " ".join(j.cells),
        "word": j and j.word,
        "n": j and j.n,
        "n_seeds": j and j.n_seeds,
        "estimate": j and j.estimate,
        "low": j and j.low,
        "high": j and j.high,
        "interval": j and intervals[j.kind == CORRELATION],
        "inner_low": j and j.inner_low,
        "inner_high": j and j.inner_high,
        "mean_reference": j and j.reference,
        "margin": j and j.margin,
        "p_beyond_holm": j and j.p_beyond,
        "p_within_holm": j and j.p_within,
        "n_contrasts": j and j.n_family,
        "contrast_in_words": j and j.sentence,
        "seeds_without_pair": j and j.gaps,
        "differs_also_in": j and j.differs,
    }


# Tables -------------------------------------------------------------------------------------------


def build_tables(claims: Claims) -> tuple[Table, ...]:
    """Returns a table of all claims, and a table for each claim that has contrasts."""
    overview = Table(
        name=f"{NAME}-all",
        title="Claims of the study",
        caption=_write_caption(claims),
        head=(
            "claim",
            "sentence",
            "verdict",
            "tasks that support it",
            "tasks that contradict it",
            "tasks undecided",
            "tasks not judged",
            "share that supports it",
        ),
        align="llllllll",
        blocks=(tuple(_build_row(finding) for finding in claims.findings),),
        notes=(
            *claims.notes,
            *(f"Claim {f.claim.id}: {f.verdict}." for f in claims.findings if f.kind == "cannot be judged"),
        ),
    )
    with_contrasts = (finding for finding in claims.findings if any(task.judgements for task in finding.tasks))
    return (overview, *(_build_table(claims, finding) for finding in with_contrasts))


def _build_row(finding: ClaimFinding) -> tuple[str, ...]:
    tasks = [", ".join(task.task for task in finding.tasks_saying(says)) or NOTHING for says in SAYS]
    share = finding.share
    two = refine_digits(Digits(decimals=2), [(share.high - share.low) / 2])
    text = f"{share.n_hits} of {share.n} {format_interval(share.low, share.high, two)}" if share.n else NOTHING
    return (finding.claim.id, finding.claim.sentence, finding.summary, *tasks, text)


def _write_caption(claims: Claims) -> str:
    return (
        f"Claims of {STUDY}, judged on these rows by {describe_column(claims)}. {claims.completeness}"
        " Undecided: the seeds so far do not decide. Not judged: the rows lack something, such as a cell to compare with or"
        " a margin; the notes of each claim name it. The last column counts, of all tasks that decide a claim, those that"
        f" support it, with the {format_percent(claims.level)} Wilson interval of that share, which treats the tasks as a"
        " sample. Tasks that are undecided or not judged do not count."
    )


def describe_column(claims: Claims) -> str:
    """Returns which metric is compared, and if the test metrics are sealed, that they are."""
    sealed = f": the test metrics of {claims.n_sealed} ok trials are sealed ('orca-sweep reveal' shows them)"
    split = {"test": "on test", "val": "on validation"}.get(claims.column.partition("_")[0], "")
    tasks = {task.task: task for finding in claims.findings for task in finding.tasks}
    known = {name: task.mode for name, task in tasks.items() if task.metric != UNKNOWN_METRIC}
    better = describe_modes(known)
    return f"{claims.column} ({split}{sealed if claims.n_sealed else ''}; {better})"


def _build_table(claims: Claims, finding: ClaimFinding) -> Table:
    is_rho = any(judgement.kind == CORRELATION for task in finding.tasks for judgement in task.judgements)
    level, inner = format_percent(claims.level), format_percent(2 * claims.level - 1)
    head: tuple[str, ...] = ("pairs", "difference", f"{level} interval", f"{inner} interval", "margin")
    if is_rho:
        head = ("trials", "seeds", "rank correlation", f"{level} interval", "least that counts")
    blocks = tuple(tuple(_build_line(task, j) for j in task.judgements) for task in finding.tasks if task.judgements)
    return Table(
        name=f"{NAME}-{finding.claim.id}",
        title=f"Claim {finding.claim.id}: {finding.claim.sentence}",
        caption=_write_claim_caption(claims, finding, is_rho),
        head=("task", "contrast", *head, "word", "the task"),
        align="llrrrrrll",
        blocks=blocks,
        notes=tuple(_list_notes(finding)),
    )


def _build_line(task: TaskFinding, judgement: Judgement) -> tuple[str, ...]:
    j = judgement
    if j.kind == CORRELATION:
        middle = (
            str(j.n),
            str(j.n_seeds),
            format_number(j.estimate, j.digits, "+"),
            format_interval(j.low, j.high, j.digits, "+"),
        )
    else:
        middle = (
            str(j.n),
            format_number(j.estimate, j.digits, "+"),
            format_interval(j.low, j.high, j.digits, "+"),
            format_interval(j.inner_low, j.inner_high, j.digits, "+"),
        )
    limit = f"{j.margin:.3g}".replace("-", MINUS) if math.isfinite(j.margin) else "none"
    return (task.task, j.name, *middle, limit, NOTHING if j.unjudged else j.word, task.says)


def _write_claim_caption(claims: Claims, finding: ClaimFinding, is_rho: bool) -> str:
    claim, level = finding.claim, format_percent(claims.level)
    n = max((judgement.n_family for task in finding.tasks for judgement in task.judgements), default=0)
    measured = (
        f"Spearman's rank correlation of the objective after embedder training and {claims.column} over trials, with its"
        f" {level} interval over seeds (jackknife)"
        if is_rho
        else f"Mean paired difference in {claims.column} over pairs of equal seed, in the task's unit: the first cell minus"
        f" the second ({_describe_better_side(finding)}), with Student-t intervals over pairs; helps and hurts depend on the"
        " wider interval, no meaningful difference on the narrower one"
    )
    return (
        f"Verdict: {finding.verdict}. Source of the claim: {claim.source}. Judged on: {claim.rows}. A task supports it if"
        f" {claim.supports}; a task contradicts it if {claim.contradicts}. {_describe_rule(finding)} {measured}. Words are"
        f" corrected for all contrasts of this claim that can be judged ({n}); intervals are uncorrected."
    )


def _describe_better_side(finding: ClaimFinding) -> str:
    """Returns on which side of zero the first cell is better, in words; it depends on the mode of the task."""
    sides: dict[Mode, str] = {"min": "below", "max": "above"}
    measured = [task for task in finding.tasks if task.metric != UNKNOWN_METRIC]
    if not measured:
        return UNKNOWN_METRIC
    tasks = {mode: [task.task for task in measured if task.mode == mode] for mode in sides}
    known = [(sides[mode], names) for mode, names in tasks.items() if names]
    if len(known) == 1:
        return f"{known[0][0]} zero: the first is better"
    texts = [f"{side} zero in {', '.join(names)}" for side, names in known]
    return f"the first is better {' and '.join(texts)}"


def _describe_rule(finding: ClaimFinding) -> str:
    if finding.claim.of_some:
        return "The claim is supported if one task supports it, and contradicted if all tasks that can be judged do."
    return "The claim is supported, or contradicted, if all tasks that can be judged agree."


def _list_notes(finding: ClaimFinding) -> Iterator[str]:
    for task in finding.tasks:
        if task.setting:
            yield f"{task.task}: judged at {task.setting}{_count_other_settings(task.n_other_settings)}."
        is_said = task.unjudged is not None and task.unjudged.reason == "no-margin"
        if task.margin and task.judgements and not is_said:
            yield f"{task.task}: {_describe_margin(task.margin, task.metric)}."
        if task.left_out:
            yield f"{task.task}: {task.left_out}."
        if task.unjudged:
            yield f"{task.task} cannot be judged: {task.unjudged.text}."
        for judgement in task.judgements:
            if judgement.gaps:
                yield f"{task.task}, {judgement.name}: seeds without a pair: {judgement.gaps}."
            if judgement.differs:
                yield f"{task.task}, {judgement.name}: a rule of the space also sets {judgement.differs}."


def _describe_margin(margin: Margin, metric: str) -> str:
    if margin.kind == "none":
        return f"no margin, {margin.source}"
    return f"margin {margin.number} ({metric}), {margin.source}"


def _count_other_settings(n: int) -> str:
    if not n:
        return ""
    return f"; the tables have {n} other setting{'s' * (n > 1)} (--base chooses)"


# Figure -------------------------------------------------------------------------------------------


def plot(claims: Claims, style: FigureStyle = PAGE) -> Any:
    """Returns a matplotlib figure, a forest plot: a panel per claim, a line per task and contrast, margins shaded."""
    names = name_tasks(task.task for finding in claims.findings for task in finding.tasks)
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
        f"Verdicts of these rows on the study's claims, by {claims.column}. Bars: {format_percent(claims.level)} intervals, n"
        " pairs of equal seed; for rank correlations, intervals over seeds. Shaded: within the margin of the task. Words are"
        f" corrected for all contrasts of a claim, bars are uncorrected. {claims.completeness}"
    )


def _write_heading(finding: ClaimFinding, names: Mapping[str, str]) -> str:
    """Returns claim and verdict, with tasks by the names that they have in figures."""
    verdict = finding.verdict
    for task, name in names.items():
        verdict = verdict.replace(task, name)
    return f"{finding.claim.id}. {finding.claim.sentence}\n{verdict}"


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A line of a panel: a contrast, a task without any, or a claim without a task."""

    task: TaskFinding | None = None
    judgement: Judgement | None = None


def _list_lines(finding: ClaimFinding) -> list[_Line]:
    lines: list[_Line] = []
    for task in finding.tasks:
        lines += [_Line(task=task, judgement=judgement) for judgement in task.judgements or (None,)]
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


def make_output(results: Results, style: FigureStyle = PAGE, **asked: Any) -> Output:
    """Returns what to write of the analysis; ``asked`` holds the fields of ``Options``."""
    claims = compute(results, Options(**asked))
    return Output(
        numbers=numbers(claims), tables=build_tables(claims), figure=plot(claims, style), caption=write_caption(claims)
    )
