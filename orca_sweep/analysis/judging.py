"""Judges the study's claims on the cells of tables: contrasts, their words, what each task says, a verdict over tasks."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from orca_sweep.analysis.cells import EPOCHS, OBJECTIVE, ConfiguredCell, TaskCells
from orca_sweep.analysis.margins import Margin
from orca_sweep.analysis.study import Claim, Pair, Says, Setting
from orca_sweep.analysis.table_effects import describe_unpaired
from orca_sweep.stats import (
    Contrast,
    Proportion,
    RankCorrelation,
    Reason,
    Verdict,
    describe_reason,
    holm,
    judge_contrasts,
    paired_contrast,
    rank_correlation,
    rho_p,
    wilson_interval,
)
from orca_sweep.stats.digits import MINUS, Digits, digits_of_intervals, format_number, refine_digits
from orca_sweep.stats.modes import Mode, as_cost

Kind = Literal["supported", "contradicted", "mixed", "undecided", "cannot be judged"]
CORRELATION = "correlation"
Lack = Literal[
    Reason, "lacking-trials", "no-interval", "no-dimensions", "no-column", "not-named", "no-setting", "several"
]
"""Why a contrast or a task is not judged: the reason of a verdict, or what the rows lack."""


@dataclass(frozen=True, kw_only=True)
class Unjudged:
    """Why something is not judged."""

    reason: Lack
    text: str
    """The reason in words, with what is missing."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One contrast or rank correlation of a claim on a task, and its word."""

    kind: str
    """The name that the claim's rule uses; 'correlation' for a rank correlation."""
    name: str
    cells: tuple[str, ...]
    """Ids: of the first cell and the one it is compared with, or of all cells in a correlation."""
    word: str
    n: int
    """Complete pairs of equal seed; trials for a correlation."""
    n_seeds: int
    estimate: float
    """Mean paired difference in the metric's unit, or Spearman's rho."""
    low: float
    """End of the 1 - alpha interval, as ``high``."""
    high: float
    inner_low: float
    """End of the 1 - 2 alpha interval of a difference, as ``inner_high``."""
    inner_high: float
    reference: float
    """Mean of the second cell."""
    margin: float
    """For a correlation the least that counts; if a higher metric is better, it is negative: the most that counts."""
    p_beyond: float
    """Adjusted for the claim's family, as ``p_within``."""
    p_within: float
    n_family: int
    sentence: str
    unjudged: Unjudged | None
    """Why it is not judged; None if it is."""
    gaps: str
    """Seeds that have no pair or lack trials, and why."""
    digits: Digits
    """The digits that its numbers show, in tables and in its sentence."""
    differs: str
    """Other fields in which the two cells differ, since a rule of their space sets them."""


@dataclass(frozen=True, kw_only=True)
class TaskFinding:
    """What one task says of a claim."""

    task: str
    metric: str
    dims: int | None
    says: Says
    unjudged: Unjudged | None
    """Why it cannot be judged; None if it can."""
    margin: Margin | None
    """None if the claim needs none."""
    setting: str = ""
    """Levels of the fields that vary in the task but that the claim does not compare."""
    n_other_settings: int = 0
    """Settings at which the claim could also be judged."""
    judgements: tuple[Judgement, ...] = ()
    mode: Mode = "min"
    left_out: str = ""
    """Which of the cells that the claim compares do not count, and why."""


@dataclass(frozen=True, kw_only=True)
class ClaimFinding:
    """A claim, what each task says of it, and the verdict over all tasks."""

    claim: Claim
    tasks: tuple[TaskFinding, ...]
    kind: Kind
    summary: str
    """The kind as people read it, with the number of tasks where these differ."""
    because: str
    """Why it cannot be judged; empty if it can."""
    share: Proportion
    """The share of the tasks that decide it that support it."""

    @property
    def verdict(self) -> str:
        """The summary, with the reason if the claim cannot be judged."""
        return f"{self.summary}, because {self.because}" if self.because else self.summary

    def tasks_saying(self, says: Says) -> tuple[TaskFinding, ...]:
        """Returns the tasks that say this."""
        return tuple(task for task in self.tasks if task.says == says)


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """The setting at which a task is judged, or why it has none."""

    setting: Setting | None = None
    n_other_settings: int = 0
    unjudged: Unjudged | None = None


def _lack_setting(reason: Lack, text: str) -> _Choice:
    return _Choice(unjudged=Unjudged(reason=reason, text=text))


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Judges claims, all with the same margins and settings."""

    margins: Mapping[str, Margin]
    """By task."""
    named: Mapping[str, Collection[str]]
    """By field, the levels of which the setting to judge at has one."""
    columns: Collection[str]
    """Columns of the tables."""
    level: float
    complete: bool
    """Whether to judge from the remaining seeds if some give no pair."""
    least: float
    """The least rank correlation that counts."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """By task, the placebos that are left out of its cells, and why."""

    def judge_claim(self, claim: Claim, tasks: Sequence[TaskCells]) -> ClaimFinding:
        """Returns what the tasks say of a claim."""
        concerned = [task for task in tasks if claim.dims is None or task.dims in (claim.dims, None)]
        chosen = [self._choose_setting(claim, task) for task in concerned]
        judged = iter(self._judge_family([choice.setting for choice in chosen if choice.setting]))
        findings = tuple(
            self._conclude(claim, task, choice, next(judged) if choice.setting else ())
            for task, choice in zip(concerned, chosen, strict=True)
        )
        return _conclude_over_tasks(claim, findings, tasks, self.level)

    def _choose_setting(self, claim: Claim, task: TaskCells) -> _Choice:
        missing = [path for path in claim.needs if path not in self.columns]
        if claim.dims is not None and task.dims is None:
            return _lack_setting("no-dimensions", "the tables do not say whether it is 1D or 2D (column dims)")
        if missing:
            return _lack_setting("no-column", f"the tables have no column {', '.join(missing)}")
        start = [cell for cell in task.cells if self._is_named(cell, claim)]
        settings: dict[frozenset[str], Setting] = {}
        for setting in claim.settings(task, start):
            settings.setdefault(setting.cells, setting)
        if settings:
            return _Choice(setting=next(iter(settings.values())), n_other_settings=len(settings) - 1)
        if len(start) < len(task.cells) and next(claim.settings(task, task.cells), None):
            return self._lack_cells("not-named", "no cell that --base names has a cell to be compared with", task)
        return self._lack_cells("no-setting", claim.lacks(task), task)

    def _lack_cells(self, reason: Lack, text: str, task: TaskCells) -> _Choice:
        """A task without a setting; the cells that it lacks may be placebos that do not count."""
        return _lack_setting(reason, "; ".join(filter(None, (text, self.left_out.get(task.task)))))

    def _is_named(self, cell: ConfiguredCell, claim: Claim) -> bool:
        return all(cell.level_of(path) in levels for path, levels in self.named.items() if path not in claim.varied)

    def _judge_family(self, settings: Sequence[Setting]) -> list[tuple[Judgement, ...]]:
        """Returns the judgements of each setting; together they are one family of tests."""
        if any(setting.along for setting in settings):
            return self._judge_correlations(settings)
        pairs = [(pair, setting.free) for setting in settings for pair in setting.pairs]
        contrasts = [paired_contrast(p.a.cell.values, p.b.cell.values, self.level, self.complete) for p, _ in pairs]
        digits = _choose_digits(settings, contrasts)
        limits = [self.margins[pair.a.cell.task] for pair, _ in pairs]
        values = [math.nan if limit.kind == "none" else limit.value for limit in limits]
        modes = [pair.a.cell.mode for pair, _ in pairs]
        words = zip(
            pairs, contrasts, judge_contrasts(contrasts, values, 1 - self.level, modes, digits=digits), strict=True
        )
        judgements = iter([_judge_pair(*pair, contrast, word) for pair, contrast, word in words])
        return [tuple(next(judgements) for _ in setting.pairs) for setting in settings]

    def _judge_correlations(self, settings: Sequence[Setting]) -> list[tuple[Judgement, ...]]:
        gaps = [_find_gaps(setting.along) for setting in settings]
        correlations = [self._correlate(setting.along, gap) for setting, gap in zip(settings, gaps, strict=True)]
        uncorrected = [
            _one_sided_p(rho, self.least, setting.anchor.cell.mode) if rho else (math.nan, math.nan)
            for rho, setting in zip(correlations, settings, strict=True)
        ]
        # As for a contrast: the 1 - alpha interval lies beyond, or the 1 - 2 alpha interval does not reach that far.
        beyond = holm([p if math.isnan(p) else min(1.0, 2 * p) for p, _ in uncorrected]).tolist()
        below = holm([p for _, p in uncorrected]).tolist()
        tests = [
            _Tracking(
                correlation=rho,
                gaps=gap,
                least=self.least,
                alpha=1 - self.level,
                p_beyond=p_beyond,
                p_below=p_below,
                n_family=sum(not math.isnan(p) for p in below),
            )
            for rho, gap, p_beyond, p_below in zip(correlations, gaps, beyond, below, strict=True)
        ]
        return [(_judge_tracking(setting, test),) for setting, test in zip(settings, tests, strict=True)]

    def _correlate(self, along: Sequence[ConfiguredCell], gaps: Mapping[int, str]) -> RankCorrelation | None:
        """Returns the rank correlation of OTDD and metric over the trials of complete seeds.

        None if no seed is complete, or if some are not and ``complete`` does not allow to leave them out.
        """
        seeds = [seed for seed in _list_seeds(along) if seed not in gaps]
        if (gaps and not self.complete) or not seeds:
            return None
        trials = [(cell.objectives[seed], cell.cell.values[seed], seed) for cell in along for seed in seeds]
        objective, metric, clusters = zip(*trials, strict=True)
        return rank_correlation(objective, metric, self.level, clusters)

    def _conclude(
        self, claim: Claim, task: TaskCells, choice: _Choice, judgements: tuple[Judgement, ...]
    ) -> TaskFinding:
        setting = choice.setting
        finding = TaskFinding(
            task=task.task,
            metric=task.metric,
            dims=task.dims,
            says="cannot be judged",
            unjudged=choice.unjudged,
            margin=None if setting and setting.along else self.margins[task.task],
            mode=task.mode,
        )
        if not setting:
            return finding
        says = claim.says([(j.kind, "undecided" if j.unjudged else j.word) for j in judgements])
        unjudged = _find_lack(judgements, finding.margin, self.complete) if says == "undecided" else None
        return replace(
            finding,
            says="cannot be judged" if unjudged else says,
            unjudged=unjudged,
            setting=task.describe_setting(setting.anchor, claim.varied),
            n_other_settings=choice.n_other_settings,
            judgements=judgements,
            left_out=self.left_out.get(task.task, "") if claim.compares_proxies else "",
        )


# Contrasts ----------------------------------------------------------------------------------------


def _judge_pair(pair: Pair, free: Collection[str], contrast: Contrast, verdict: Verdict) -> Judgement:
    interval, inner, reason = contrast.interval, verdict.inner, verdict.reason
    a, b = pair.a.cell, pair.b.cell
    return Judgement(
        kind=pair.kind,
        name=pair.name,
        cells=(a.cell_id, b.cell_id),
        word=verdict.word,
        n=interval.n,
        n_seeds=interval.n,
        estimate=interval.mean,
        low=interval.low,
        high=interval.high,
        inner_low=inner.low,
        inner_high=inner.high,
        reference=contrast.mean_b,
        margin=math.nan if verdict.margin is None else verdict.margin,
        p_beyond=verdict.p_beyond,
        p_within=verdict.p_within,
        n_family=verdict.n_contrasts,
        sentence=verdict.sentence,
        unjudged=Unjudged(reason=reason, text=describe_reason(verdict)) if reason else None,
        gaps=describe_unpaired(a, b, contrast),
        digits=refine_digits(verdict.digits, (interval.half_width, interval.sd), interval.mean),
        differs=_describe_other_differences(pair, free),
    )


def _choose_digits(settings: Sequence[Setting], contrasts: Sequence[Contrast]) -> list[Digits]:
    """Returns the digits of each contrast, which are the same for all contrasts of a setting."""
    intervals = iter([contrast.interval for contrast in contrasts])
    digits: list[Digits] = []
    for setting in settings:
        rows = [next(intervals) for _ in setting.pairs]
        digits += [digits_of_intervals(rows)] * len(rows)
    return digits


def _describe_other_differences(pair: Pair, free: Collection[str]) -> str:
    levels = {path: (pair.a.level_of(path), pair.b.level_of(path)) for path in pair.a.settings if path not in free}
    return ", ".join(f"{path} {a} against {b}" for path, (a, b) in levels.items() if a != b)


# Correlations -------------------------------------------------------------------------------------


def _list_seeds(cells: Sequence[ConfiguredCell]) -> list[int]:
    return sorted({seed for cell in cells for seed in cell.cell.values})


def _find_gaps(cells: Sequence[ConfiguredCell]) -> dict[int, str]:
    """Returns the seeds that lack a trial at some amount of embedder training, each with what happened to the trial."""
    gaps = {}
    for seed in _list_seeds(cells):
        lacking = [
            f"{cell.describe_levels(EPOCHS)} {_describe_trial(cell, seed)}"
            for cell in cells
            if not _has_numbers(cell, seed)
        ]
        if lacking:
            gaps[seed] = ", ".join(lacking)
    return gaps


def _has_numbers(cell: ConfiguredCell, seed: int) -> bool:
    return all(math.isfinite(numbers.get(seed, math.nan)) for numbers in (cell.cell.values, cell.objectives))


def _describe_trial(cell: ConfiguredCell, seed: int) -> str:
    status = cell.cell.statuses.get(seed, "not planned")
    return "ok but without a number" if status == "ok" else status


def _one_sided_p(rho: RankCorrelation, least: float, mode: Mode) -> tuple[float, float]:
    """Returns the p of a correlation below the least that counts, and the p of one above it.

    The sign follows the mode: a better metric is a lower or a higher one.
    """
    if mode == "min":
        return rho_p(rho, least)
    above, below = rho_p(rho, -least)
    return below, above


@dataclass(frozen=True, kw_only=True)
class _Tracking:
    """A rank correlation of objective and metric, and its test within the claim's family."""

    correlation: RankCorrelation | None
    gaps: Mapping[int, str]
    least: float
    """The least correlation that counts."""
    alpha: float
    p_beyond: float
    p_below: float
    n_family: int

    @property
    def word(self) -> str:
        """Tracks, does not track, or undecided."""
        if self.p_beyond <= self.alpha:
            return "tracks"
        return "does not track" if self.p_below <= self.alpha else "undecided"

    @property
    def unjudged(self) -> Unjudged | None:
        """Why it cannot be judged."""
        if not math.isnan(self.p_below):
            return None
        if self.correlation is None:
            seeds = ", ".join(map(str, self.gaps))
            text = f"seed {seeds} lacks trials" if len(self.gaps) == 1 else f"seeds {seeds} lack trials"
            return Unjudged(reason="lacking-trials", text=text)
        caution = self.correlation.caution.replace("cluster", "seed")
        return Unjudged(reason="no-interval", text=caution or "its interval is not finite")


def _judge_tracking(setting: Setting, test: _Tracking) -> Judgement:
    rho, mode = test.correlation, setting.anchor.cell.mode
    first, *_, last = [cell.level_of(EPOCHS) for cell in setting.along]
    measured = "error" if mode == "min" else "score"
    amounts = f"{len(setting.along)} amounts ({first} to {last})"
    judgement = Judgement(
        kind=CORRELATION,
        name=f"{setting.anchor.level_of(OBJECTIVE)} and {measured}, {amounts}",
        cells=tuple(cell.cell.cell_id for cell in setting.along),
        word=test.word,
        n=rho.n if rho else 0,
        n_seeds=(rho.n_clusters or 0) if rho else len(_list_seeds(setting.along)) - len(test.gaps),
        estimate=rho.rho if rho else math.nan,
        low=rho.rho_low if rho else math.nan,
        high=rho.rho_high if rho else math.nan,
        inner_low=math.nan,
        inner_high=math.nan,
        reference=math.nan,
        margin=as_cost(test.least, mode),
        p_beyond=test.p_beyond,
        p_within=test.p_below,
        n_family=test.n_family,
        sentence="",
        unjudged=test.unjudged,
        gaps="; ".join(f"{seed} ({reason})" for seed, reason in test.gaps.items()),
        digits=refine_digits(Digits(decimals=2), [(rho.rho_high - rho.rho_low) / 2] if rho else []),
        differs="",
    )
    return replace(judgement, sentence=_write_tracking(judgement, test.least, mode))


def _write_tracking(judgement: Judgement, least: float, mode: Mode) -> str:
    if judgement.unjudged:
        return f"Cannot be judged: {judgement.unjudged.text}."
    estimate, low, high = (
        format_number(number, judgement.digits, "+") for number in (judgement.estimate, judgement.low, judgement.high)
    )
    interval = f"interval {low} to {high}"
    n = f"{judgement.n} trials of {judgement.n_seeds} seeds"
    limit = f"the least that counts is {least:g}"
    if mode == "max":
        limit = f"since a higher metric is better, the most that counts is {MINUS}{least:g}"
    return f"Spearman's rank correlation is {estimate} ({interval}, {n}); {limit}: {judgement.word}."


# Tasks --------------------------------------------------------------------------------------------


def _find_lack(judgements: Sequence[Judgement], margin: Margin | None, complete: bool) -> Unjudged | None:
    """Returns why an undecided task is not judged: no margin, or a contrast that cannot be judged; None if neither."""
    if margin is not None and margin.kind == "none":
        text = "there is no margin: fix one in the space (margin), give one (--margin), or run an A/A cell (aa)"
        return Unjudged(reason="no-margin", text=text)
    lacks = list(dict.fromkeys(judgement.unjudged for judgement in judgements if judgement.unjudged))
    if not lacks:
        return None
    text = "; ".join(lack.text for lack in lacks)
    if not complete and any(judgement.gaps for judgement in judgements):
        text += "; --complete-pairs judges from the remaining seeds"
    reasons = {lack.reason for lack in lacks}
    return Unjudged(reason=reasons.pop() if len(reasons) == 1 else "several", text=text)


def _conclude_over_tasks(
    claim: Claim, findings: tuple[TaskFinding, ...], tasks: Sequence[TaskCells], level: float
) -> ClaimFinding:
    s, c, u = (sum(task.says == says for task in findings) for says in ("supports", "contradicts", "undecided"))
    kind = _choose_kind(claim, s, c, u)
    summaries = {
        "mixed": f"mixed: supported by {s} of {s + c + u} tasks (contradicted by {c}, {u} undecided)",
        "cannot be judged": "cannot be judged from these rows",
    }
    return ClaimFinding(
        claim=claim,
        tasks=findings,
        kind=kind,
        summary=summaries.get(kind, kind),
        because=_explain_lack(claim, findings, tasks) if kind == "cannot be judged" else "",
        share=wilson_interval(s, s + c, level),
    )


def _choose_kind(claim: Claim, n_supports: int, n_contradicts: int, n_undecided: int) -> Kind:
    n = n_supports + n_contradicts + n_undecided
    if n == 0:
        return "cannot be judged"
    if n_supports == n or (claim.of_some and n_supports):
        return "supported"
    if n_contradicts == n:
        return "contradicted"
    # A claim about some tasks can still hold for an undecided task.
    return "undecided" if n_undecided == n or claim.of_some else "mixed"


def _explain_lack(claim: Claim, findings: Sequence[TaskFinding], tasks: Sequence[TaskCells]) -> str:
    if not findings:
        dims = ", ".join(f"{task.task} is {task.dims}D" for task in tasks)
        return f"no task in them is {claim.dims}D ({dims})"
    tasks_of: dict[Unjudged, list[str]] = {}
    for finding in findings:
        if finding.unjudged:
            tasks_of.setdefault(finding.unjudged, []).append(finding.task)
    return "; ".join(f"{', '.join(names)}: {lack.text}" for lack, names in tasks_of.items())
