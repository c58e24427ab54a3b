"""From the study's claims and the cells of tables to a verdict for each: contrasts, words, tasks, all tasks."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from orca_sweep.analysis.cells import EPOCHS, OBJECTIVE, Cell, TaskCells
from orca_sweep.analysis.margins import Margin
from orca_sweep.analysis.study import Claim, Pair, Says, Setting
from orca_sweep.analysis.table_effects import describe_unpaired
from orca_sweep.stats import (
    Contrast,
    Proportion,
    RankCorrelation,
    Verdict,
    holm,
    paired_contrast,
    rank_correlation,
    rho_p,
    verdicts,
    wilson_interval,
)
from orca_sweep.stats.modes import Mode, as_cost

Kind = Literal["supported", "contradicted", "mixed", "undecided", "cannot be judged"]
CORRELATION = "correlation"


@dataclass(frozen=True)
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
    why_not: str
    """Why there is nothing to judge; empty if there is."""
    gaps: str
    """Seeds without a pair, or that lack trials, and why."""
    differs: str
    """What else the two cells differ in: a rule of their space has set it."""


@dataclass(frozen=True)
class TaskFinding:
    """What one task says of a claim."""

    task: str
    metric: str
    dims: int | None
    says: Says
    why: str
    """Why it cannot be judged; empty if it can."""
    margin: Margin | None
    """None where the claim needs none."""
    setting: str
    """Levels of the fields that vary in the task and that the claim does not compare."""
    n_other_settings: int
    """At which the claim could be judged, too, and is not."""
    judgements: tuple[Judgement, ...]
    mode: Mode = "min"


@dataclass(frozen=True)
class ClaimFinding:
    """A claim, what each task says of it, and the verdict over tasks."""

    claim: Claim
    tasks: tuple[TaskFinding, ...]
    kind: Kind
    verdict: str
    """As it is read: with how many tasks, or why it cannot be judged."""
    share: Proportion
    """Of the tasks that decide it, those that support it."""

    def saying(self, says: Says) -> tuple[TaskFinding, ...]:
        """Returns the tasks that say one thing."""
        return tuple(task for task in self.tasks if task.says == says)


@dataclass(frozen=True)
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
        for task, (setting, n_others, why) in zip(about, asked, strict=True):
            if setting:
                found.append(self._judged(claim, task, setting, n_others, next(judged)))
            else:
                margin = self.margins[task.task]
                found.append(
                    TaskFinding(
                        task.task, task.metric, task.dims, "cannot be judged", why, margin, "", 0, (), task.mode
                    )
                )
        return _over_tasks(claim, tuple(found), tasks, self.level)

    def _ask(self, claim: Claim, task: TaskCells) -> tuple[Setting | None, int, str]:
        """Returns the setting to judge at, how many others there are, and why there is none."""
        missing = [path for path in claim.needs if path not in self.columns]
        if claim.dims is not None and task.dims is None:
            return None, 0, "the tables do not say whether it is 1D or 2D: its rows were made by an older version"
        if missing:
            return None, 0, f"the tables have no column {', '.join(missing)}"
        start = [cell for cell in task.cells if self._is_named(cell, claim)]
        settings: dict[frozenset[str], Setting] = {}
        for setting in claim.settings(task, start):
            settings.setdefault(setting.cells, setting)
        if settings:
            return next(iter(settings.values())), len(settings) - 1, ""
        if len(start) < len(task.cells) and next(claim.settings(task, task.cells), None):
            return None, 0, "no cell that --base names has one to be compared with"
        return None, 0, claim.lacks(task)

    def _is_named(self, cell: Cell, claim: Claim) -> bool:
        return all(cell.shown(path) in of for path, of in self.named.items() if path not in claim.varied)

    def _family(self, settings: Sequence[Setting]) -> list[tuple[Judgement, ...]]:
        """The judgements of each setting; all of them are one family."""
        if any(setting.along for setting in settings):
            return self._correlations(settings)
        pairs = [(pair, setting.free) for setting in settings for pair in setting.pairs]
        contrasts = [paired_contrast(p.a.arm.values, p.b.arm.values, self.level, self.complete) for p, _ in pairs]
        limits = [self.margins[pair.a.arm.task] for pair, _ in pairs]
        values = [math.nan if limit.kind == "none" else limit.value for limit in limits]
        modes = [pair.a.arm.mode for pair, _ in pairs]
        words = zip(pairs, contrasts, verdicts(contrasts, values, 1 - self.level, modes), strict=True)
        made = iter([_judgement(*pair, contrast, word) for pair, contrast, word in words])
        return [tuple(next(made) for _ in setting.pairs) for setting in settings]

    def _correlations(self, settings: Sequence[Setting]) -> list[tuple[Judgement, ...]]:
        gaps = [_trial_gaps(setting.along) for setting in settings]
        found = [self._correlation(setting.along, gap) for setting, gap in zip(settings, gaps, strict=True)]
        alone = [
            _one_sided(one, self.least, setting.anchor.arm.mode) if one else (math.nan, math.nan)
            for one, setting in zip(found, settings, strict=True)
        ]
        # As of a contrast: the 1 - alpha interval lies beyond, or the 1 - 2 alpha interval does not reach that far.
        beyond = holm([p if math.isnan(p) else min(1.0, 2 * p) for p, _ in alone]).tolist()
        below = holm([p for _, p in alone]).tolist()
        n = sum(not math.isnan(p) for p in below)
        made: list[tuple[Judgement, ...]] = []
        for i, setting in enumerate(settings):
            ps = beyond[i], below[i]
            made.append((_tracking(setting, found[i], gaps[i], self.least, 1 - self.level, ps, n),))
        return made

    def _correlation(self, along: Sequence[Cell], gaps: Mapping[int, str]) -> RankCorrelation | None:
        """Of OTDD and metric over the trials of the seeds that have them all; None where a seed has not, unasked."""
        seeds = [seed for seed in _seeds(along) if seed not in gaps]
        if (gaps and not self.complete) or not seeds:
            return None
        trials = [(cell.objectives[seed], cell.arm.values[seed], seed) for cell in along for seed in seeds]
        objective, metric, clusters = zip(*trials, strict=True)
        return rank_correlation(objective, metric, self.level, clusters)

    def _judged(
        self, claim: Claim, task: TaskCells, setting: Setting, n_others: int, judgements: tuple[Judgement, ...]
    ) -> TaskFinding:
        margin = None if setting.along else self.margins[task.task]
        says = claim.says([(one.kind, "undecided" if one.why_not else one.word) for one in judgements])
        why = _why_not(judgements, margin, self.complete) if says == "undecided" else ""
        says = "cannot be judged" if why else says
        text = task.setting(setting.anchor, claim.varied)
        return TaskFinding(task.task, task.metric, task.dims, says, why, margin, text, n_others, judgements, task.mode)


# Contrasts ----------------------------------------------------------------------------------------


def _judgement(pair: Pair, free: Collection[str], contrast: Contrast, verdict: Verdict) -> Judgement:
    cannot, interval = "Cannot be judged: ", contrast.interval
    is_judged = not math.isnan(verdict.p_beyond)
    return Judgement(
        pair.kind, pair.name, (pair.a.arm.cell_id, pair.b.arm.cell_id), verdict.word, interval.n, interval.n,
        interval.mean, interval.low, interval.high, verdict.inner_low, verdict.inner_high, contrast.mean_b, verdict.margin,
        verdict.p_beyond, verdict.p_within, verdict.n_contrasts, verdict.sentence,
        "" if is_judged else verdict.sentence.removeprefix(cannot).rstrip("."),
        describe_unpaired(pair.a.arm, pair.b.arm, contrast), _differing(pair, free),
    )  # fmt: skip


def _differing(pair: Pair, free: Collection[str]) -> str:
    levels = {path: (pair.a.shown(path), pair.b.shown(path)) for path in pair.a.settings if path not in free}
    return ", ".join(f"{path} {a} against {b}" for path, (a, b) in levels.items() if a != b)


# Correlations -------------------------------------------------------------------------------------


def _seeds(cells: Sequence[Cell]) -> list[int]:
    return sorted({seed for cell in cells for seed in cell.arm.values})


def _trial_gaps(cells: Sequence[Cell]) -> dict[int, str]:
    """Seeds that lack a trial at some amount of embedder training, each with what became of it."""
    gaps = {}
    for seed in _seeds(cells):
        lacking = [f"{cell.said(EPOCHS)} {_state(cell, seed)}" for cell in cells if not _has(cell, seed)]
        if lacking:
            gaps[seed] = ", ".join(lacking)
    return gaps


def _has(cell: Cell, seed: int) -> bool:
    return all(math.isfinite(of.get(seed, math.nan)) for of in (cell.arm.values, cell.objectives))


def _state(cell: Cell, seed: int) -> str:
    status = cell.arm.statuses.get(seed, "not planned")
    return "ok but without a number" if status == "ok" else status


def _one_sided(found: RankCorrelation, least: float, mode: Mode) -> tuple[float, float]:
    """P of "objective and metric do not go together so far", and of "they do": a better metric is a lower, or a higher one."""
    if mode == "min":
        return rho_p(found, least)
    above, below = rho_p(found, -least)
    return below, above


def _tracking(
    setting: Setting, found: RankCorrelation | None, gaps: Mapping[int, str], least: float, alpha: float,
    ps: tuple[float, float], n_family: int,
) -> Judgement:  # fmt: skip
    above, below = ps
    mode = setting.anchor.arm.mode
    word = "tracks" if above <= alpha else "does not track" if below <= alpha else "undecided"
    rho, low, high = (found.rho, found.rho_low, found.rho_high) if found else (math.nan,) * 3
    n, n_seeds = (found.n, found.n_clusters or 0) if found else (0, len(_seeds(setting.along)) - len(gaps))
    why = _no_tracking(found, gaps) if math.isnan(below) else ""
    numbers = f"{rho:+.2f} (interval {low:+.2f} to {high:+.2f}, {n} trials of {n_seeds} seeds)"
    counts = (
        f"least that counts is {least:g}" if mode == "min" else f"most that counts, as higher is better, is {-least:g}"
    )
    judged = f"Spearman's rank correlation is {numbers}, and the {counts}: {word}."
    first, *_, last = [cell.shown(EPOCHS) for cell in setting.along]
    measured = "error" if mode == "min" else "score"
    name = f"{setting.anchor.shown(OBJECTIVE)} and {measured}, {len(setting.along)} amounts ({first} to {last})"
    return Judgement(
        CORRELATION, name, tuple(cell.arm.cell_id for cell in setting.along), word, n, n_seeds, rho, low, high,
        math.nan, math.nan, math.nan, as_cost(least, mode), above, below, n_family,
        f"Cannot be judged: {why}." if why else judged, why,
        "; ".join(f"{seed} ({reason})" for seed, reason in gaps.items()), "",
    )  # fmt: skip


def _no_tracking(found: RankCorrelation | None, gaps: Mapping[int, str]) -> str:
    if found is None:
        named = ", ".join(map(str, gaps))
        return f"seed {named} lacks trials" if len(gaps) == 1 else f"seeds {named} lack trials"
    return found.caution.replace("cluster", "seed") or "its interval has no end"


# Tasks --------------------------------------------------------------------------------------------


def _why_not(judgements: Sequence[Judgement], margin: Margin | None, complete: bool) -> str:
    """Why a task is not judged: it has no margin, or what would decide cannot be judged; empty if neither."""
    if margin is not None and margin.kind == "none":
        return "there is no margin: fix one in the space (margin), give one (--margin), or run an A/A arm (aa)"
    reasons = dict.fromkeys(one.why_not for one in judgements if one.why_not)
    more = "; --complete-pairs judges from the seeds that are left"
    return f"{'; '.join(reasons)}{more * (not complete and any(one.gaps for one in judgements))}" if reasons else ""


def _over_tasks(claim: Claim, found: tuple[TaskFinding, ...], tasks: Sequence[TaskCells], level: float) -> ClaimFinding:
    s, c, u = (sum(one.says == says for one in found) for says in ("supports", "contradicts", "undecided"))
    kind = _kind(claim, s, c, u)
    verdict: str = kind
    if kind == "mixed":
        verdict = f"mixed: {s} of {s + c + u} tasks ({c} contradict{'s' * (c == 1)} it, {u} undecided)"
    elif kind == "cannot be judged":
        verdict = f"cannot be judged from these rows, because {_because(claim, found, tasks)}"
    return ClaimFinding(claim, found, kind, verdict, wilson_interval(s, s + c, level))


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
    reasons: dict[str, list[str]] = {}
    for one in found:
        reasons.setdefault(one.why, []).append(one.task)
    return "; ".join(f"{', '.join(of)}: {why}" for why, of in reasons.items())
