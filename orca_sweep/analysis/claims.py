"""The study's claims, and what these tables say of each: supported, contradicted, mixed, undecided, or cannot be judged.

A claim (study.py has all six, with what supports and what contradicts each) is asked of every task as contrasts
between cells that differ in nothing else, paired over seeds. Where a task has several settings of the other fields, a
claim is judged at one of them, and it is said at which: nothing frozen, the most pre-training, a trained embedder, a real
proxy, and in all else the first in the table that has what is to be compared. --base names other levels.

Words are those of table_effects, against the margin of the task: --margin, else the one that the space fixes, else what
an A/A cell suggests; without any margin a task is not judged. The family of Holm's procedure is all contrasts of a claim,
over all tasks. For OTDD and metric it is Spearman's rank correlation over trials, with its interval over seeds: they go
together if it lies beyond --least-correlation, and do not if it lies below. Tasks are counted with Wilson's interval; it
takes these tasks for a sample of tasks, so with few of them it is wide, however many seeds there are.

Writes claims.csv, .md, .tex (booktabs), and a forest plot as .png and .svg.
"""

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from orca_sweep.analysis.cells import task_cells
from orca_sweep.analysis.compared import compared
from orca_sweep.analysis.figures import describe_modes
from orca_sweep.analysis.judging import CORRELATION, ClaimFinding, Judge, Judgement, TaskFinding
from orca_sweep.analysis.margins import fixed_margins, margin_of
from orca_sweep.analysis.study import CLAIMS, SAYS, STUDY
from orca_sweep.analysis.table_effects import LOOKS
from orca_sweep.analysis.tables import better_side, describe_completeness, named_levels, shorten_texts
from orca_sweep.analysis.writing import (
    NOTHING,
    Output,
    Record,
    Table,
    decimals_of,
    format_csv,
    format_interval,
    format_number,
    format_percent,
)
from orca_sweep.errors import InputError
from orca_sweep.results import Results
from orca_sweep.stats.modes import Mode, as_cost, describe_mode

NAME = "claims"
LEAST_CORRELATION = 0.3
MAX_ROWS = 60
LEFT, WIDTH, RIGHT, HEAD, TITLE, ROW, TICKS = 3.7, 4.4, 3.9, 0.6, 0.6, 0.27, 0.5
"""Of the figure, in inches."""
LOOKS_OF = LOOKS | {"tracks": LOOKS["helps"], "does not track": LOOKS["no meaningful difference"]}


@dataclass(frozen=True)
class Claims:
    """All claims, and what the numbers are of."""

    found: tuple[ClaimFinding, ...]
    column: str
    n_sealed: int
    """Ok trials whose test metrics were not revealed."""
    level: float
    least_correlation: float
    complete_pairs_only: bool
    completeness: str
    """How many planned trials are ok, in words."""
    notes: tuple[str, ...] = ()
    """What was left out of the rows."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What claims are judged with."""

    base: Sequence[str] = ()
    """Levels of the setting to judge at, each 'factor=level'; several of one factor are alternatives."""
    margin: Sequence[str] = ()
    """'0.01' for all tasks, 'task=0.01' for one."""
    metric: str | None = None
    """The column to compare."""
    level: float = 0.95
    """Of the intervals; words are judged at 1 - level."""
    complete_pairs_only: bool = False
    """Judge from the seeds that are left, where some give no pair."""
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
            raise InputError(f"--least-correlation {least:g}: it is 0 or more and below 1, such as 0.3.")


def compute(results: Results, options: Options | None = None) -> Claims:
    """Returns what the tables say of each claim of the study.

    Raises:
        InputError: for what the tables do not have, and for spaces that do not agree on a margin.
    """
    options = options or Options()
    options.check()
    results = compared(results, options.base)
    tasks = task_cells(results, options.metric)
    cells = [cell for task in tasks for cell in task.every]
    fixed = fixed_margins(results, options.margin, [task.task for task in tasks])
    named: dict[str, set[str]] = {}
    for path, text in named_levels("--base", options.base, cells):
        named.setdefault(path, set()).add(text)
    judge = Judge(
        margins={task.task: margin_of(task.every, None, fixed, options.level) for task in tasks},
        named=named,
        columns=tuple(map(str, results.trials)),
        level=options.level,
        complete=options.complete_pairs_only,
        least=options.least_correlation,
    )
    return Claims(
        found=tuple(judge.claim(claim, tasks) for claim in CLAIMS),
        column=options.metric or results.metric,
        n_sealed=results.n_sealed,
        level=options.level,
        least_correlation=options.least_correlation,
        complete_pairs_only=options.complete_pairs_only,
        completeness=describe_completeness(cells),
        notes=results.notes,
    )


# Numbers ------------------------------------------------------------------------------------------


def numbers(found: Claims) -> str:
    """Returns every number as CSV: a line per contrast, and one for each task or claim that has none."""
    return format_csv(list(_make_records(found)))


def _make_records(found: Claims) -> Iterator[Record]:
    for one in found.found:
        for task in one.tasks or (None,):
            for judgement in (task.judgements if task else ()) or (None,):
                yield {**_of_claim(found, one), **_of_task(task), **_of_judgement(found, judgement)}


def _of_claim(found: Claims, one: ClaimFinding) -> Record:
    return {
        "claim": one.claim.id,
        "sentence": one.claim.sentence,
        "verdict": one.kind,
        "verdict_in_words": one.verdict,
        **{f"n_tasks_{says.replace(' ', '_')}": len(one.saying(says)) for says in SAYS},
        "share_supporting": one.share.share,
        "share_low": one.share.low,
        "share_high": one.share.high,
        "share_interval": f"{format_percent(one.share.level)} Wilson interval over the tasks that decide",
        "column": found.column,
    }


def _of_task(task: TaskFinding | None) -> Record:
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


def _of_judgement(found: Claims, one: Judgement | None) -> Record:
    level = format_percent(found.level)
    of = {
        True: f"{level} interval of Spearman's rho, jackknife over seeds",
        False: f"{level} Student-t interval over pairs",
    }
    return {
        "contrast": one and one.name,
        "cells": one and " ".join(one.cells),
        "word": one and one.word,
        "n": one and one.n,
        "n_seeds": one and one.n_seeds,
        "estimate": one and one.estimate,
        "low": one and one.low,
        "high": one and one.high,
        "interval": one and of[one.kind == CORRELATION],
        "inner_low": one and one.inner_low,
        "inner_high": one and one.inner_high,
        "mean_reference": one and one.reference,
        "margin": one and one.margin,
        "p_beyond_holm": one and one.p_beyond,
        "p_within_holm": one and one.p_within,
        "n_contrasts": one and one.n_family,
        "contrast_in_words": one and one.sentence,
        "seeds_without_pair": one and one.gaps,
        "differs_also_in": one and one.differs,
    }


# Tables -------------------------------------------------------------------------------------------


def build_tables(found: Claims) -> tuple[Table, ...]:
    """Returns a table of all claims, and one per claim that has contrasts, as people read them."""
    whole = Table(
        name=f"{NAME}-all",
        title="Claims of the study",
        caption=_write_caption(found),
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
        blocks=(tuple(_build_row(one) for one in found.found),),
        notes=(
            *found.notes,
            *(f"Claim {one.claim.id}: {one.verdict}." for one in found.found if one.kind == "cannot be judged"),
        ),
    )
    return (whole, *(_build_table(found, one) for one in found.found if any(task.judgements for task in one.tasks)))


def _build_row(one: ClaimFinding) -> tuple[str, ...]:
    tasks = [", ".join(task.task for task in one.saying(says)) or NOTHING for says in SAYS]
    share = one.share
    text = f"{share.n_hits} of {share.n} {format_interval(share.low, share.high, 2)}" if share.n else NOTHING
    return (one.claim.id, one.claim.sentence, one.summary, *tasks, text)


def _write_caption(found: Claims) -> str:
    return (
        f"Claims of {STUDY}, judged on these rows by {describe_column(found)}. {found.completeness}"
        " Undecided: the seeds that there are do not tell. Not judged: the rows lack what it takes, such as a cell to compare"
        " with, or a margin; the notes of each claim say what. Of all tasks that decide a claim,"
        f" the last column counts those that support it, with the {format_percent(found.level)} Wilson interval of that share: it"
        " takes them for a sample of tasks. Undecided tasks, and those that cannot be judged, are in no share."
    )


def describe_column(found: Claims) -> str:
    """Returns which metric is compared, and why it is not the test metric if that is sealed."""
    sealed = f": the test metrics of {found.n_sealed} ok trials are sealed ('orca-sweep reveal' shows them)"
    split = {"test": "on test", "val": "on validation"}.get(found.column.partition("_")[0], "")
    better = describe_modes({task.task: task.mode for one in found.found for task in one.tasks})
    return f"{found.column} ({split}{sealed if found.n_sealed else ''}; {better})"


def _build_table(found: Claims, one: ClaimFinding) -> Table:
    is_rho = any(j.kind == CORRELATION for task in one.tasks for j in task.judgements)
    level, inner = format_percent(found.level), format_percent(2 * found.level - 1)
    head: tuple[str, ...] = ("pairs", "difference", f"{level} interval", f"{inner} interval", "margin")
    if is_rho:
        head = ("trials", "seeds", "rank correlation", f"{level} interval", "least that counts")
    blocks = tuple(tuple(_build_line(task, j) for j in task.judgements) for task in one.tasks if task.judgements)
    return Table(
        name=f"{NAME}-{one.claim.id}",
        title=f"Claim {one.claim.id}: {one.claim.sentence}",
        caption=_claim_caption(found, one, is_rho),
        head=("task", "contrast", *head, "word", "the task"),
        align="llrrrrrll",
        blocks=blocks,
        notes=tuple(_list_notes(one)),
    )


def _build_line(task: TaskFinding, one: Judgement) -> tuple[str, ...]:
    if one.kind == CORRELATION:
        middle = (
            str(one.n),
            str(one.n_seeds),
            format_number(one.estimate, 2, "+"),
            format_interval(one.low, one.high, 2, "+"),
        )
    else:
        decimals = decimals_of((j.high - j.low) / 2 for j in task.judgements)
        inner = format_interval(one.inner_low, one.inner_high, decimals, "+")
        middle = (
            str(one.n),
            format_number(one.estimate, decimals, "+"),
            format_interval(one.low, one.high, decimals, "+"),
            inner,
        )
    limit = f"{one.margin:.3g}" if math.isfinite(one.margin) else NOTHING
    return (task.task, one.name, *middle, limit, NOTHING if one.unjudged else one.word, task.says)


def _claim_caption(found: Claims, one: ClaimFinding, is_rho: bool) -> str:
    n = max((j.n_family for task in one.tasks for j in task.judgements), default=0)
    numbers_of = (
        f"Spearman's rank correlation of the objective after embedder training and {found.column} over trials, with its"
        f" {format_percent(found.level)} interval over seeds (jackknife)"
        if is_rho
        else f"Mean paired difference in {found.column} over pairs of equal seed, in the task's unit, the first cell minus the"
        f" second ({_better_difference(one)}), with Student-t intervals over pairs; helps and hurts go by the wider"
        " interval, no meaningful difference by the narrower one"
    )
    return (
        f"Verdict: {one.verdict}. Source of the claim: {one.claim.source}. Judged on: {one.claim.rows}. A task supports it if"
        f" {one.claim.supports}; it contradicts it if {one.claim.contradicts}. {_describe_rule(one)} {numbers_of}. Words are"
        f" corrected for all contrasts of this claim that can be judged ({n}), intervals are each one's own."
    )


def _better_difference(one: ClaimFinding) -> str:
    """On which side of zero the first cell is better, in words; tasks may differ in it."""
    sides: dict[Mode, str] = {"min": "below", "max": "above"}
    tasks = {mode: [task.task for task in one.tasks if task.mode == mode] for mode in sides}
    said = [(sides[mode], named) for mode, named in tasks.items() if named]
    if len(said) == 1:
        return f"{said[0][0]} zero: the first is better"
    texts = [f"{side} zero in {', '.join(named)}" for side, named in said]
    return f"the first is better {' and '.join(texts)}"


def _describe_rule(one: ClaimFinding) -> str:
    if one.claim.of_some:
        return "One task is enough to support it, and all that can be judged are needed to contradict it."
    return "It is supported, or contradicted, where all tasks say so that can be judged."


def _list_notes(one: ClaimFinding) -> Iterator[str]:
    for task in one.tasks:
        if task.setting:
            yield f"{task.task}: judged at {task.setting}{_count_others(task.n_other_settings)}."
        if task.margin and task.judgements:
            yield f"{task.task}: margin {task.margin.value:.3g} ({task.metric}), {task.margin.source}."
        if task.unjudged:
            yield f"{task.task} cannot be judged: {task.unjudged.text}."
        for judgement in task.judgements:
            if judgement.gaps:
                yield f"{task.task}, {judgement.name}: seeds without a pair: {judgement.gaps}."
            if judgement.differs:
                yield f"{task.task}, {judgement.name}: a rule of the space has also set {judgement.differs}."


def _count_others(n: int) -> str:
    if not n:
        return ""
    return f"; {n} other setting{'s' * (n > 1)} of these tables {'are' if n > 1 else 'is'} not (--base names one)"


# Figure -------------------------------------------------------------------------------------------


def plot(found: Claims) -> Any:
    """Returns a matplotlib figure, a forest plot: a panel per claim, a line per task and contrast, margins shaded."""
    from matplotlib.figure import Figure

    panels = [(one, _lines_of(one)) for one in found.found]
    heights = [ROW * min(len(lines), MAX_ROWS) for _, lines in panels]
    width, height = LEFT + WIDTH + RIGHT, HEAD + sum(heights) + (TITLE + TICKS) * len(panels)
    made, top = Figure(figsize=(width, height)), height - HEAD
    for (one, lines), size in zip(panels, heights, strict=True):
        # Placed by hand: what a layout engine finds may differ in its last bits, and with it the file.
        bottom = top - TITLE - size
        axis = made.add_axes((LEFT / width, bottom / height, WIDTH / width, size / height))
        _draw_panel(axis, one, lines[:MAX_ROWS], len(lines))
        top = bottom - TICKS
    made.suptitle(
        f"what these rows say of the study's claims, by {found.column}; bars:"
        f" {format_percent(found.level)} intervals, n pairs of equal seed\nshaded: within the margin of the task; words are"
        " corrected for all contrasts of a claim, bars are each one's own",
        fontsize=9,
        y=1 - 0.12 / height,
    )
    return made


def _lines_of(one: ClaimFinding) -> list[tuple[TaskFinding | None, Judgement | None]]:
    """Task and contrast of each line; a task that has none has a line that says why."""
    lines: list[tuple[TaskFinding | None, Judgement | None]] = []
    for task in one.tasks:
        lines += [(task, judgement) for judgement in task.judgements] or [(task, None)]
    return lines or [(None, None)]


def _draw_panel(
    axis: Any, one: ClaimFinding, lines: Sequence[tuple[TaskFinding | None, Judgement | None]], n: int
) -> None:
    verdict = _wrap_text(one.verdict, 120)
    axis.set_title(f"{one.claim.id}. {one.claim.sentence}\n{verdict}", fontsize=9, loc="left")
    is_rho = any(j and j.kind == CORRELATION for _, j in lines)
    for y, (task, judgement) in enumerate(lines):
        text = _wrap_text(f"not judged: {task.unjudged.text}") if task and task.unjudged else "no such task"
        if judgement is not None and task is not None:
            text = _draw_contrast(axis, judgement, y, is_rho, task.mode)
        axis.text(1.01, y, text, transform=axis.get_yaxis_transform(), fontsize=7.5, color="#222222", va="center")
    are_mixed = len({task.mode for task, _ in lines if task}) > 1
    names = shorten_texts((_name_of_line(task, j, are_mixed) if task else "" for task, j in lines), 60)
    axis.set_yticks(range(len(lines)), [name.replace(" : ", ": ") for name in names], fontsize=7.5)
    axis.set_ylim(len(lines) - 0.5, -0.5)
    axis.spines[["top", "right"]].set_visible(False)
    if not axis.has_data():
        axis.set_xticks([])
        axis.spines["bottom"].set_visible(False)
        return
    axis.axvline(0, color="#444444", linewidth=0.8)
    more = f"; {n - len(lines)} more contrasts are in the table" if n > len(lines) else ""
    what = "rank correlation of OTDD and metric" if is_rho else "difference in % of the mean of the second cell"
    modes = {task.mode for task, _ in lines if task}
    better = ""
    if not is_rho and len(modes) == 1:
        better = f"; {better_side(modes.pop())} of zero is better"
    axis.set_xlabel(what + better + more, fontsize=7.5)
    axis.tick_params(axis="x", labelsize=7.5)


def _name_of_line(task: TaskFinding, one: Judgement | None, are_mixed: bool) -> str:
    """Task and contrast; where tasks differ in it, with which way round the metric is compared."""
    better = f"({describe_mode(task.mode)})"
    return " ".join([task.task, *([better] * are_mixed), *([":", one.name] if one else [])])


def _wrap_text(text: str, width: int = 66) -> str:
    return textwrap.fill(text, width, max_lines=2, placeholder=" …")


def _draw_contrast(axis: Any, one: Judgement, y: int, is_rho: bool, mode: Mode) -> str:
    """Draws one contrast and returns what is to be said beside it."""
    if one.unjudged and not math.isfinite(one.estimate):
        return _wrap_text(f"not judged: {one.unjudged.text}")
    scale = 1.0 if is_rho else 100 / one.reference if one.reference > 0 else math.nan
    colour, marker = LOOKS_OF[one.word]
    # Of a correlation: everything on the far side of the least that counts.
    within = (as_cost(-1.0, mode), one.margin) if is_rho else (-one.margin * scale, one.margin * scale)
    if all(map(math.isfinite, within)):
        axis.fill_between(within, y - 0.5, y + 0.5, color="#999999", alpha=0.25, linewidth=0)
    axis.plot([one.low * scale, one.high * scale], [y, y], color=colour, linewidth=2)
    axis.plot([one.estimate * scale], [y], marker, color=colour, markersize=6)
    n = f"n = {one.n} trials, {one.n_seeds} seeds" if is_rho else f"n = {one.n}"
    raw = f"{one.estimate:+.2f}" if is_rho else f"{one.estimate:+.3g}"
    return f"{'not judged' if one.unjudged else one.word} ({raw}, {n})"


def make_output(results: Results, **asked: Any) -> Output:
    """Returns the analysis as it is written; ``asked`` are the fields of ``Options``."""
    claims = compute(results, Options(**asked))
    return Output(numbers=numbers(claims), tables=build_tables(claims), figure=plot(claims))
