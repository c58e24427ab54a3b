"""The claims, and the verdict of these tables on each: supported, contradicted, mixed, undecided, or not judged.

study.py holds the claims: those of the study, and some of this project's own, marked so. Each has what supports and what
contradicts it. A claim is judged on every task by contrasts between cells that differ in nothing else and are equally tuned,
paired over the seeds that both were planned with. Where a task has several settings of the other fields, a claim is judged
at one setting, and the output names it: nothing frozen, the most pre-training, a trained embedder, a real proxy,
normalised inputs, tuned fields, and otherwise the first in the table that has the cells to compare. --base names others.

Words are those of table_effects, against the margin of the task: that of --margin, else of its space, else of an A/A
cell; a task without any margin is not judged, and neither are differences that are all equal. The contrasts that decide a
claim, over all tasks, are one family for Holm's procedure. For OTDD and metric the contrast is Spearman's rank correlation
over trials, with an interval over seeds: the two go together if the interval lies beyond --least-correlation, and do not if
it lies below. over_tasks.py has the rule that turns what tasks say into a verdict: a share of four in six supports a claim.
Wilson's interval of the share treats the tasks as a sample: with few tasks it is wide, however many seeds there are.

Each task says what its rows could have shown with 80% probability, and what to add where it decides nothing. No meaningful
difference means smaller than the margin; it does not mean none.

Writes claims.csv, .md, .tex (booktabs), and a forest plot as .png, .svg and .pdf.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from orca_sweep.analysis.cells import read_task_cells
from orca_sweep.analysis.claims_figure import plot, write_caption
from orca_sweep.analysis.claims_tables import NAME, build_tables, describe_column
from orca_sweep.analysis.compared import compared
from orca_sweep.analysis.figure_style import PAGE, FigureStyle
from orca_sweep.analysis.findings import CORRELATION, ClaimFinding, Claims, Judgement, TaskFinding
from orca_sweep.analysis.judging import Judge
from orca_sweep.analysis.margins import fixed_margins, margin_of
from orca_sweep.analysis.over_tasks import SAYS
from orca_sweep.analysis.placebos import find_idle_placebos, leave_out_idle_placebos
from orca_sweep.analysis.study import CLAIMS
from orca_sweep.analysis.tables import describe_completeness, named_levels
from orca_sweep.analysis.task_power import describe_power
from orca_sweep.analysis.writing import Output, Record, format_csv, format_percent
from orca_sweep.errors import InputError
from orca_sweep.results import Results
from orca_sweep.stats.power import MOST_SEEDS

__all__ = [
    "NAME",
    "Claims",
    "Options",
    "build_tables",
    "compute",
    "describe_column",
    "make_output",
    "numbers",
    "plot",
    "write_caption",
]
LEAST_CORRELATION = 0.3


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
        for task in finding.shown or (None,):
            for judgement in (task.judgements if task else ()) or (None,):
                yield {
                    **_claim_columns(claims, finding),
                    **_task_columns(task, is_counted=task in finding.tasks),
                    **_judgement_columns(claims, judgement),
                    "is_leading": judgement and task and judgement is task.leading,
                }


def _claim_columns(claims: Claims, finding: ClaimFinding) -> Record:
    return {
        "claim": finding.claim.id,
        "origin": finding.claim.origin,
        "source": finding.claim.source,
        "sentence": finding.claim.sentence,
        "verdict": finding.kind,
        "verdict_in_words": finding.verdict,
        **{f"n_tasks_{says.replace(' ', '_')}": len(finding.tasks_saying(says)) for says in SAYS},
        "share_supporting": finding.share.share,
        "share_low": finding.share.low,
        "share_high": finding.share.high,
        "share_interval": f"{format_percent(finding.share.level)} Wilson interval over the tasks that decide",
        "claim_could_have_shown": finding.power,
        "claim_needs": finding.add,
        "column": claims.column,
    }


def _task_columns(task: TaskFinding | None, *, is_counted: bool) -> Record:
    return {
        "task": task and task.task,
        "dims": task and task.dims,
        "metric": task and task.metric,
        "mode": task and task.mode,
        "is_counted": task and is_counted,
        "task_says": task and task.says,
        "task_says_in_words": task and task.word,
        "not_judged_because": task and (task.unjudged.text if task.unjudged else ""),
        "setting": task and task.setting,
        "n_other_settings": task and task.n_other_settings,
        "margin_from": task and task.margin and task.margin.source,
        "detectable": task and task.detectable,
        "chance_of_no_difference": task and task.power.chance_of_none,
        "seeds_for_margin": task and _write_seeds(task.power.seeds_for_margin),
        "seeds_to_decide": task and _write_seeds(task.power.seeds_to_decide),
        "task_could_have_shown": task and describe_power(task.power, task.margin),
        "task_needs": task and task.add,
    }


def _write_seeds(n: float) -> str:
    """Returns a number of seeds; '>1000' beyond what is counted, empty if it is not known."""
    if math.isnan(n):
        return ""
    return f">{MOST_SEEDS}" if math.isinf(n) else str(int(n))


def _judgement_columns(claims: Claims, judgement: Judgement | None) -> Record:
    j, level = judgement, format_percent(claims.level)
    intervals = {
        True: f"{level} interval of Spearman's rho, jackknife over seeds",
        False: f"{level} Student-t interval over pairs",
    }
    return {
        "contrast": j and j.name,
        "cells": j and " ".join(j.cells),
        "decides": j and j.decides,
        "word": j and j.word,
        "n": j and j.n,
        "n_seeds": j and j.n_seeds,
        "estimate": j and j.estimate,
        "low": j and j.low,
        "high": j and j.high,
        "interval": j and intervals[j.kind == CORRELATION],
        "sd_of_differences": j and j.sd,
        "inner_low": j and j.inner_low,
        "inner_high": j and j.inner_high,
        "mean_reference": j and j.reference,
        "margin": j and j.margin,
        "p_beyond_holm": j and j.p_beyond,
        "p_within_holm": j and j.p_within,
        "n_contrasts": j and j.n_family,
        "contrast_in_words": j and j.sentence,
        "seeds_without_pair": j and j.gaps,
        "seeds_not_planned_in_all": j and " ".join(map(str, j.unplanned)),
        "differs_also_in": j and j.differs,
    }


def make_output(results: Results, style: FigureStyle = PAGE, **asked: Any) -> Output:
    """Returns what to write of the analysis; ``asked`` holds the fields of ``Options``."""
    claims = compute(results, Options(**asked))
    return Output(
        numbers=numbers(claims), tables=build_tables(claims), figure=plot(claims, style), caption=write_caption(claims)
    )
