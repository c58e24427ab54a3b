"""From the study's claims and the cells of tables to a verdict for each: contrasts, words, tasks, all tasks."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
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
from orca_sweep.stats.modes import Mode, as_cost

Kind = Literal["supported", "contradicted", "mixed", "undecided", "cannot be judged"]
CORRELATION = "correlation"
Lack = Literal[
    Reason, "lacking-trials", "no-interval", "no-dimensions", "no-column", "not-named", "no-setting", "several"
]
"""Why a contrast or a task is not judged: a reason of a verdict, or what the rows lack to ask it at all."""


@dataclass(frozen=True, kw_only=True)
class Unjudged:
    """Why something is not judged."""

    reason: Lack
    text: str
    """The same in words, with what is missing."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One contrast of a claim on a task, or its rank correlation, and the word for it."""

    kind: str
    """What the claim's rule calls it; 'correlation' where it is one."""
    name: str
    cells: tuple[str, ...]
    """Ids of the cells: the first against the second, or all that a correlation is over."""
    word: str
    n: int
    """Complete pairs of equal seed; of a correlation, trials."""
    n_seeds: int
    estimate: float
    """Mean paired difference in the metric's unit, or Spearman's rho."""
    low: float
    """Of the 1 - alpha interval, as ``high``."""
    high: float
    inner_low: float
    """Of the 1 - 2 alpha interval of a difference, as ``inner_high``."""
    inner_high: float
    reference: float
    """Mean of the cell that the first is compared with."""
    margin: float
    """Of a correlation, the least that counts; where higher is better it is negative, and the most that counts."""
    p_beyond: float
    """Adjusted for the claim's family, as ``p_within``."""
    p_within: float
    n_family: int
    sentence: str
    unjudged: Unjudged | None
    """Why there is nothing to judge; None if there is."""
    gaps: str
    """Seeds without a pair, or that lack trials, and why."""
    differs: str
    """What else the two cells differ in: a rule of their space has set it."""


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
    """None where the claim needs none."""
    setting: str = ""
    """Levels of the fields that vary in the task and that the claim does not compare."""
    n_other_settings: int = 0
    """At which the claim could be judged, too, and is not."""
    judgements: tuple[Judgement, ...] = ()
    mode: Mode = "min"


@dataclass(frozen=True, kw_only=True)
class ClaimFinding:
    """A claim, what each task says of it, and the verdict over tasks."""

    claim: Claim
    tasks: tuple[TaskFinding, ...]
    kind: Kind
    summary: str
    """As it is read: the kind, with how many tasks where they differ."""
    because: str
    """Why it cannot be judged; empty if it can."""
    share: Proportion
    """Of the tasks that decide it, those that support it."""

    @property
    def verdict(self) -> str:
        """The summary, and why it cannot be judged."""
        return f"{self.summary}, because {self.because}" if self.because else self.summary

    def saying(self, says: Says) -> tuple[TaskFinding, ...]:
        """Returns the tasks that say one thing."""
        return tuple(task for task in self.tasks if task.says == says)


@dataclass(frozen=True, kw_only=True)
class Judge:
    """What all claims are judged with."""

    margins: Mapping[str, Margin]
    """Of each task."""
    named: Mapping[str, Collection[str]]
    """Levels of the setting to judge at, alternatives of each field."""
    columns: Collection[str]
    """That the tables have."""
    level: float
    complete: bool
    """Whether to judge from the seeds that are left, where some give no pair."""
    least: float
    """The least rank correlation that counts."""

    def claim(self, claim: Claim, tasks: Sequence[TaskCells]) -> ClaimFinding:
        """Returns what the tasks say of a claim."""
        about = [task for task in tasks if claim.dims is None or task.dims in (claim.dims, None)]
        asked = [self._ask(claim, task) for task in about]
        judged = iter(self._family([setting for setting, _, _ in asked if setting]))
        found = []
        for task, (setting, n_others, unjudged) in zip(about, asked, strict=True):
            if setting:
                found.append(self._judged(claim, task, setting, n_others, next(judged)))
            else:
                found.append(
                    TaskFinding(
                        task=task.task, metric=task.metric, dims=task.dims, says="cannot be judged", unjudged=unjudged,
                        margin=self.margins[task.task], mode=task.mode,
                    )
                )  # fmt: skip
        return _over_tasks(claim, tuple(found), tasks, self.level)

    def _ask(self, claim: Claim, task: TaskCells) -> tuple[Setting | None, int, Unjudged | None]:
        """Returns the setting to judge at, how many others there are, and why there is none."""
        missing = [path for path in claim.needs if path not in self.columns]
        if claim.dims is not None and task.dims is None:
            text = "the tables do not say whether it is 1D or 2D: its rows were made by an older version"
            return None, 0, Unjudged(reason="no-dimensions", text=text)
        if missing:
            return None, 0, Unjudged(reason="no-column", text=f"the tables have no column {', '.join(missing)}")
        start = [cell for cell in task.cells if self._is_named(cell, claim)]
        settings: dict[frozenset[str], Setting] = {}
        for setting in claim.settings(task, start):
            settings.setdefault(setting.cells, setting)
        if settings:
            return next(iter(settings.values())), len(settings) - 1, None
        if len(start) < len(task.cells) and next(claim.settings(task, task.cells), None):
            text = "no cell that --base names has one to be compared with"
            return None, 0, Unjudged(reason="not-named", text=text)
        return None, 0, Unjudged(reason="no-setting", text=claim.lacks(task))

    def _is_named(self, cell: ConfiguredCell, claim: Claim) -> bool:
        return all(cell.shown(path) in of for path, of in self.named.items() if path not in claim.varied)

    def _family(self, settings: Sequence[Setting]) -> list[tuple[Judgement, ...]]:
        """The judgements of each setting; all of them are one family."""
        if any(setting.along for setting in settings):
            return self._correlations(settings)
        pairs = [(pair, setting.free) for setting in settings for pair in setting.pairs]
        contrasts = [paired_contrast(p.a.cell.values, p.b.cell.values, self.level, self.complete) for p, _ in pairs]
        limits = [self.margins[pair.a.cell.task] for pair, _ in pairs]
        values = [math.nan if limit.kind == "none" else limit.value for limit in limits]
        modes = [pair.a.cell.mode for pair, _ in pairs]
        words = zip(pairs, contrasts, judge_contrasts(contrasts, values, 1 - self.level, modes), strict=True)
        made = iter([_judgement(*pair, contrast, word) for pair, contrast, word in words])
        return [tuple(next(made) for _ in setting.pairs) for setting in settings]

    def _correlations(self, settings: Sequence[Setting]) -> list[tuple[Judgement, ...]]:
        gaps = [_trial_gaps(setting.along) for setting in settings]
        found = [self._correlation(setting.along, gap) for setting, gap in zip(settings, gaps, strict=True)]
        alone = [
            _one_sided(one, self.least, setting.anchor.cell.mode) if one else (math.nan, math.nan)
            for one, setting in zip(found, settings, strict=True)
        ]
        # As of a contrast: the 1 - alpha interval lies beyond, or the 1 - 2 alpha interval does not reach that far.
        beyond = holm([p if math.isnan(p) else min(1.0, 2 * p) for p, _ in alone]).tolist()
        below = holm([p for _, p in alone]).tolist()
        n = sum(not math.isnan(p) for p in below)
        made: list[tuple[Judgement, ...]] = []
        for i, setting in enumerate(settings):
            tested = _Tracking(found[i], gaps[i], self.least, 1 - self.level, beyond[i], below[i], n)
            made.append((_judge_tracking(setting, tested),))
        return made

    def _correlation(self, along: Sequence[ConfiguredCell], gaps: Mapping[int, str]) -> RankCorrelation | None:
        """Of OTDD and metric over the trials of the seeds that have them all; None where a seed has not, unasked."""
        seeds = [seed for seed in _seeds(along) if seed not in gaps]
        if (gaps and not self.complete) or not seeds:
            return None
        trials = [(cell.objectives[seed], cell.cell.values[seed], seed) for cell in along for seed in seeds]
        objective, metric, clusters = zip(*trials, strict=True)
        return rank_correlation(objective, metric, self.level, clusters)

    def _judged(
        self, claim: Claim, task: TaskCells, setting: Setting, n_others: int, judgements: tuple[Judgement, ...]
    ) -> TaskFinding:
        margin = None if setting.along else self.margins[task.task]
        says = claim.says([(one.kind, "undecided" if one.unjudged else one.word) for one in judgements])
        unjudged = _find_lack(judgements, margin, self.complete) if says == "undecided" else None
        return TaskFinding(
            task=task.task,
            metric=task.metric,
            dims=task.dims,
            says="cannot be judged" if unjudged else says,
            unjudged=unjudged,
            margin=margin,
            setting=task.setting(setting.anchor, claim.varied),
            n_other_settings=n_others,
            judgements=judgements,
            mode=task.mode,
        )


# Contrasts ----------------------------------------------------------------------------------------


def _judgement(pair: Pair, free: Collection[str], contrast: Contrast, verdict: Verdict) -> Judgement:
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
        margin=verdict.margin,
        p_beyond=verdict.p_beyond,
        p_within=verdict.p_within,
        n_family=verdict.n_contrasts,
        sentence=verdict.sentence,
        unjudged=Unjudged(reason=reason, text=describe_reason(verdict)) if reason else None,
        gaps=describe_unpaired(a, b, contrast),
        differs=_differing(pair, free),
    )


def _differing(pair: Pair, free: Collection[str]) -> str:
    levels = {path: (pair.a.shown(path), pair.b.shown(path)) for path in pair.a.settings if path not in free}
    return ", ".join(f"{path} {a} against {b}" for path, (a, b) in levels.items() if a != b)


# Correlations -------------------------------------------------------------------------------------


def _seeds(cells: Sequence[ConfiguredCell]) -> list[int]:
    return sorted({seed for cell in cells for seed in cell.cell.values})


def _trial_gaps(cells: Sequence[ConfiguredCell]) -> dict[int, str]:
    """Seeds that lack a trial at some amount of embedder training, each with what became of it."""
    gaps = {}
    for seed in _seeds(cells):
        lacking = [f"{cell.describe(EPOCHS)} {_state(cell, seed)}" for cell in cells if not _has(cell, seed)]
        if lacking:
            gaps[seed] = ", ".join(lacking)
    return gaps


def _has(cell: ConfiguredCell, seed: int) -> bool:
    return all(math.isfinite(of.get(seed, math.nan)) for of in (cell.cell.values, cell.objectives))


def _state(cell: ConfiguredCell, seed: int) -> str:
    status = cell.cell.statuses.get(seed, "not planned")
    return "ok but without a number" if status == "ok" else status


def _one_sided(found: RankCorrelation, least: float, mode: Mode) -> tuple[float, float]:
    """P of "objective and metric do not go together so far", and of "they do": a better metric is a lower, or a higher one."""
    if mode == "min":
        return rho_p(found, least)
    above, below = rho_p(found, -least)
    return below, above


@dataclass(frozen=True)
class _Tracking:
    """A rank correlation of objective and metric, and its test in the claim's family."""

    correlation: RankCorrelation | None
    gaps: Mapping[int, str]
    least: float
    """The least that counts."""
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
        return Unjudged(reason="no-interval", text=caution or "its interval has no end")


def _judge_tracking(setting: Setting, tested: _Tracking) -> Judgement:
    found, mode = tested.correlation, setting.anchor.cell.mode
    rho, low, high = (found.rho, found.rho_low, found.rho_high) if found else (math.nan,) * 3
    first, *_, last = [cell.shown(EPOCHS) for cell in setting.along]
    measured = "error" if mode == "min" else "score"
    made = Judgement(
        kind=CORRELATION,
        name=f"{setting.anchor.shown(OBJECTIVE)} and {measured}, {len(setting.along)} amounts ({first} to {last})",
        cells=tuple(cell.cell.cell_id for cell in setting.along),
        word=tested.word,
        n=found.n if found else 0,
        n_seeds=(found.n_clusters or 0) if found else len(_seeds(setting.along)) - len(tested.gaps),
        estimate=rho,
        low=low,
        high=high,
        inner_low=math.nan,
        inner_high=math.nan,
        reference=math.nan,
        margin=as_cost(tested.least, mode),
        p_beyond=tested.p_beyond,
        p_within=tested.p_below,
        n_family=tested.n_family,
        sentence="",
        unjudged=tested.unjudged,
        gaps="; ".join(f"{seed} ({reason})" for seed, reason in tested.gaps.items()),
        differs="",
    )
    return replace(made, sentence=_write_tracking(made, tested.least, mode))


def _write_tracking(made: Judgement, least: float, mode: Mode) -> str:
    if made.unjudged:
        return f"Cannot be judged: {made.unjudged.text}."
    interval = f"interval {made.low:+.2f} to {made.high:+.2f}, {made.n} trials of {made.n_seeds} seeds"
    counts = (
        f"least that counts is {least:g}" if mode == "min" else f"most that counts, as higher is better, is {-least:g}"
    )
    return f"Spearman's rank correlation is {made.estimate:+.2f} ({interval}), and the {counts}: {made.word}."


# Tasks --------------------------------------------------------------------------------------------


def _find_lack(judgements: Sequence[Judgement], margin: Margin | None, complete: bool) -> Unjudged | None:
    """Why a task is not judged: it has no margin, or what would decide cannot be judged; None if neither."""
    if margin is not None and margin.kind == "none":
        text = "there is no margin: fix one in the space (margin), give one (--margin), or run an A/A cell (aa)"
        return Unjudged(reason="no-margin", text=text)
    lacks = list(dict.fromkeys(one.unjudged for one in judgements if one.unjudged))
    if not lacks:
        return None
    more = "; --complete-pairs judges from the seeds that are left"
    text = "; ".join(lack.text for lack in lacks) + more * (not complete and any(one.gaps for one in judgements))
    reasons = {lack.reason for lack in lacks}
    return Unjudged(reason=reasons.pop() if len(reasons) == 1 else "several", text=text)


def _over_tasks(claim: Claim, found: tuple[TaskFinding, ...], tasks: Sequence[TaskCells], level: float) -> ClaimFinding:
    s, c, u = (sum(one.says == says for one in found) for says in ("supports", "contradicts", "undecided"))
    kind = _kind(claim, s, c, u)
    summaries = {
        "mixed": f"mixed: {s} of {s + c + u} tasks ({c} contradict{'s' * (c == 1)} it, {u} undecided)",
        "cannot be judged": "cannot be judged from these rows",
    }
    return ClaimFinding(
        claim=claim,
        tasks=found,
        kind=kind,
        summary=summaries.get(kind, kind),
        because=_because(claim, found, tasks) if kind == "cannot be judged" else "",
        share=wilson_interval(s, s + c, level),
    )


def _kind(claim: Claim, n_supports: int, n_contradicts: int, n_undecided: int) -> Kind:
    n = n_supports + n_contradicts + n_undecided
    if n == 0:
        return "cannot be judged"
    if n_supports == n or (claim.of_some and n_supports):
        return "supported"
    if n_contradicts == n:
        return "contradicted"
    # What is claimed of some tasks can still hold of those that are undecided.
    return "undecided" if n_undecided == n or claim.of_some else "mixed"


def _because(claim: Claim, found: Sequence[TaskFinding], tasks: Sequence[TaskCells]) -> str:
    if not found:
        there = ", ".join(f"{task.task} is {task.dims}D" for task in tasks)
        return f"no task in them is {claim.dims}D ({there})"
    tasks_of: dict[Unjudged, list[str]] = {}
    for one in found:
        if one.unjudged:
            tasks_of.setdefault(one.unjudged, []).append(one.task)
    return "; ".join(f"{', '.join(named)}: {lack.text}" for lack, named in tasks_of.items())
