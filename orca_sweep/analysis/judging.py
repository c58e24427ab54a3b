"""Judges claims on the cells of tables: contrasts, their words, what each task says, a verdict over tasks."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orca_sweep.analysis.cells import TUNED, ConfiguredCell, TaskCells, list_idle_fields
from orca_sweep.analysis.claim_records import Claim, Pair, Setting
from orca_sweep.analysis.correlating import judge_correlations
from orca_sweep.analysis.findings import ClaimFinding, Judgement, Lack, TaskFinding, Unjudged
from orca_sweep.analysis.margins import Margin
from orca_sweep.analysis.over_tasks import count_votes, judge_share, judge_some, write_summary
from orca_sweep.analysis.table_effects import describe_unpaired
from orca_sweep.analysis.task_power import describe_claim_power, find_addition, measure_distance, measure_power
from orca_sweep.stats import (
    Contrast,
    Verdict,
    describe_reason,
    judge_contrasts,
    paired_contrast,
    wilson_interval,
)
from orca_sweep.stats.contrasts import LEAST_PAIRS, has_spread
from orca_sweep.stats.digits import Digits, digits_of_intervals, refine_digits


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
        """Returns what the tables say of a claim."""
        concerned = [task for task in tasks if claim.dims is None or task.dims in (claim.dims, None)]
        rest = [task for task in tasks if claim.shows_rest and task not in concerned]
        findings, information = self._judge_tasks(claim, concerned), self._judge_tasks(claim, rest)
        shown = tuple(finding for finding in information if finding.judgements)
        return replace(_conclude_over_tasks(claim, findings, tasks, self.level), information=shown)

    def _judge_tasks(self, claim: Claim, tasks: Sequence[TaskCells]) -> tuple[TaskFinding, ...]:
        """Returns what each task says; their contrasts are one family of tests."""
        chosen = [self._choose_setting(claim, task) for task in tasks]
        judged = iter(self._judge_settings([choice.setting for choice in chosen if choice.setting]))
        return tuple(
            self._conclude(claim, task, choice, next(judged) if choice.setting else ())
            for task, choice in zip(tasks, chosen, strict=True)
        )

    def _choose_setting(self, claim: Claim, task: TaskCells) -> _Choice:
        missing = [path for path in claim.needs if path not in self.columns]
        if claim.dims is not None and task.dims is None:
            return _lack_setting("no-dimensions", "the tables do not say whether it is 1D or 2D (column dims)")
        never = claim.excludes(task) if claim.excludes else ""
        if never:
            return _lack_setting("not-concerned", never)
        if missing:
            return _lack_setting("no-column", f"the tables have no column {', '.join(missing)}")
        start = [cell for cell in task.cells if self._is_named(cell, claim)]
        settings: dict[frozenset[str], Setting] = {}
        for setting in claim.settings(task, start):
            settings.setdefault(setting.cells, setting)
        if settings:
            first = next(iter(settings.values()))
            wide = claim.widen(task, first) if claim.widen else first
            return _Choice(setting=wide, n_other_settings=len(settings) - 1)
        if len(start) < len(task.cells) and next(claim.settings(task, task.cells), None):
            return self._lack_cells("not-named", "no cell that --base names has a cell to be compared with", task)
        return self._lack_cells("no-setting", claim.lacks(task), task)

    def _lack_cells(self, reason: Lack, text: str, task: TaskCells) -> _Choice:
        """A task without a setting; the cells that it lacks may be placebos that do not count."""
        return _lack_setting(reason, "; ".join(filter(None, (text, self.left_out.get(task.task)))))

    def _is_named(self, cell: ConfiguredCell, claim: Claim) -> bool:
        return all(cell.level_of(path) in levels for path, levels in self.named.items() if path not in claim.varied)

    def _judge_settings(self, settings: Sequence[Setting]) -> list[tuple[Judgement, ...]]:
        """Returns the judgements of each setting: those that decide are one family of tests, those only shown another."""
        if any(setting.along for setting in settings):
            return judge_correlations(settings, self.level, self.least, complete=self.complete)
        judged = {decides: iter(self._judge_family(settings, decides=decides)) for decides in (True, False)}
        return [tuple(next(judged[pair.decides]) for pair in setting.pairs) for setting in settings]

    def _judge_family(self, settings: Sequence[Setting], *, decides: bool) -> list[Judgement]:
        pairs = [(pair, setting.free) for setting in settings for pair in setting.pairs if pair.decides is decides]
        compared = [_compare_pair(pair, self.level, complete=self.complete) for pair, _ in pairs]
        contrasts = [each.contrast for each in compared]
        digits = _choose_digits([[p for p in setting.pairs if p.decides is decides] for setting in settings], contrasts)
        limits = [self.margins[pair.a.cell.task] for pair, _ in pairs]
        # What has no spread is left out of the family: it would get a word without any measure of noise.
        values = [
            math.nan if limit.kind == "none" or _is_all_zero(contrast) else limit.value
            for limit, contrast in zip(limits, contrasts, strict=True)
        ]
        modes = [pair.a.cell.mode for pair, _ in pairs]
        verdicts = judge_contrasts(contrasts, values, 1 - self.level, modes, digits=digits)
        return [
            _judge_pair(*pair, each, verdict, limit)
            for pair, each, verdict, limit in zip(pairs, compared, verdicts, limits, strict=True)
        ]

    def _conclude(
        self, claim: Claim, task: TaskCells, choice: _Choice, judgements: tuple[Judgement, ...]
    ) -> TaskFinding:
        finding = self._say(claim, task, choice, judgements)
        finding = replace(
            finding,
            leading=choose_leading(claim, judgements),
            power=measure_power(judgements, 1 - self.level),
            word=claim.name_word(finding.says),
        )
        return replace(finding, add=find_addition(claim, finding))

    def _say(self, claim: Claim, task: TaskCells, choice: _Choice, judgements: tuple[Judgement, ...]) -> TaskFinding:
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
        says = claim.says(_read_words(judgements))
        unjudged = _find_lack(judgements, finding.margin, self.complete) if says == "undecided" else None
        return replace(
            finding,
            says="cannot be judged" if unjudged else says,
            unjudged=unjudged,
            setting=_describe_setting(task, setting.anchor, claim.varied),
            n_other_settings=choice.n_other_settings,
            judgements=judgements,
            left_out=self.left_out.get(task.task, "") if claim.compares_proxies else "",
        )


def _describe_setting(task: TaskCells, anchor: ConfiguredCell, but: Collection[str]) -> str:
    """Returns the levels of a setting, and which fields were tuned within each of its cells."""
    text = task.describe_setting(anchor, but)
    tuned = [f"{path} {TUNED}" for path in anchor.candidates if f"{path} {TUNED}" not in text]
    return ", ".join(filter(None, (text, *tuned)))


def _read_words(judgements: Sequence[Judgement]) -> list[tuple[str, str]]:
    """Returns kind and word of each contrast that decides."""
    return [(j.kind, "undecided" if j.unjudged else j.word) for j in judgements if j.decides]


def choose_leading(claim: Claim, judgements: Sequence[Judgement]) -> Judgement | None:
    """Returns the contrast that stands for a task.

    A decided task shows the contrast farthest from zero of those without whose word it would say something else, or of all
    that decide. An undecided task shows the one of its undecided contrasts that needs the most seeds to be decided.
    """
    deciding = [judgement for judgement in judgements if judgement.decides]
    words = _read_words(deciding)
    says = claim.says(words) if words else "undecided"
    if says == "undecided":
        open_ones = [judgement for judgement in deciding if judgement.unjudged or judgement.word == "undecided"]
        known = [judgement for judgement in open_ones or deciding if math.isfinite(judgement.estimate)]
        return min(known or deciding, key=lambda j: (_measure_ease(j), -abs(j.estimate)), default=None)
    needed = [
        judgement
        for i, judgement in enumerate(deciding)
        if claim.says([(kind, "undecided" if i == k else word) for k, (kind, word) in enumerate(words)]) != says
    ]
    known = [judgement for judgement in needed or deciding if math.isfinite(judgement.estimate)]
    return max(known, key=lambda j: abs(j.estimate), default=deciding[0])


def _measure_ease(judgement: Judgement) -> float:
    """The smaller, the more seeds it takes to decide a contrast; below zero if it cannot be judged at all."""
    if judgement.unjudged or not judgement.sd > 0:
        return -1.0
    distance = measure_distance(judgement) / judgement.sd
    return 0.0 if math.isnan(distance) else distance


# Contrasts ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """The contrast of a pair over the seeds that all its cells were planned with."""

    contrast: Contrast
    unplanned: tuple[int, ...]
    """Seeds that only some of the cells were planned with: nothing that was meant to run is missing there."""


def _compare_pair(pair: Pair, level: float, *, complete: bool) -> _Compared:
    cells = list(_list_cells(pair))
    planned = set.intersection(*(set(cell.cell.values) for cell in cells))
    every = {seed for cell in cells for seed in cell.cell.values}
    a, b = _read_values(pair, planned)
    contrast = paired_contrast(a, b, level, complete)
    return _Compared(contrast=contrast, unplanned=tuple(sorted(every - planned)))


def _list_cells(pair: Pair) -> Iterator[ConfiguredCell]:
    yield pair.a
    yield pair.b
    if pair.less:
        yield from _list_cells(pair.less)


def _read_values(pair: Pair, seeds: Collection[int]) -> tuple[dict[int, float], dict[int, float]]:
    """Returns the values of both sides: those of two cells, or the differences of two pairs."""
    a, b = ({seed: cell.cell.values[seed] for seed in seeds} for cell in (pair.a, pair.b))
    if pair.less is None:
        return a, b
    less_a, less_b = _read_values(pair.less, seeds)
    return {seed: a[seed] - b[seed] for seed in seeds}, {seed: less_a[seed] - less_b[seed] for seed in seeds}


def _is_all_zero(contrast: Contrast) -> bool:
    """Whether all differences are zero, so that nothing measures their noise."""
    interval = contrast.interval
    return interval.n >= LEAST_PAIRS and interval.mean == 0 and not has_spread(interval)


def _explain_zeros(n: int) -> Unjudged:
    text = (
        f"all {n} differences are exactly 0, so their spread is unknown: the cells do the same work, or the metric is too"
        " coarse"
    )
    return Unjudged(reason="no-spread", text=text)


def _judge_pair(pair: Pair, free: Collection[str], compared: _Compared, verdict: Verdict, limit: Margin) -> Judgement:
    contrast = compared.contrast
    interval, inner, reason = contrast.interval, verdict.inner, verdict.reason
    cells = list(_list_cells(pair))
    unjudged = Unjudged(reason=reason, text=describe_reason(verdict)) if reason else None
    sentence = verdict.sentence
    if limit.kind != "none" and _is_all_zero(contrast):
        unjudged = _explain_zeros(interval.n)
        sentence = f"Cannot be judged: {unjudged.text}."
    return Judgement(
        kind=pair.kind,
        name=pair.name,
        cells=tuple(cell.cell.cell_id for cell in cells),
        word=verdict.word,
        n=interval.n,
        n_seeds=interval.n,
        estimate=interval.mean,
        low=interval.low,
        high=interval.high,
        inner_low=inner.low,
        inner_high=inner.high,
        reference=_find_reference(pair, compared),
        margin=math.nan if limit.kind == "none" else limit.value,
        p_beyond=verdict.p_beyond,
        p_within=verdict.p_within,
        n_family=verdict.n_contrasts,
        sentence=sentence,
        unjudged=unjudged,
        gaps=describe_unpaired(cells[0].cell, cells[1].cell, contrast) if pair.less is None else _name_gaps(contrast),
        digits=refine_digits(verdict.digits, (interval.half_width, interval.sd), interval.mean),
        differs=_describe_other_differences(pair, free),
        sd=interval.sd,
        decides=pair.decides,
        unplanned=compared.unplanned,
    )


def _name_gaps(contrast: Contrast) -> str:
    return "; ".join(map(str, contrast.incomplete))


def _find_reference(pair: Pair, compared: _Compared) -> float:
    """Returns the mean of the second cell: what a difference is a percentage of."""
    if pair.less is None:
        return compared.contrast.mean_b
    values = [pair.less.b.cell.values[seed] for seed in compared.contrast.seeds]
    return sum(values) / len(values) if values else math.nan


def _choose_digits(groups: Sequence[Sequence[Pair]], contrasts: Sequence[Contrast]) -> list[Digits]:
    """Returns the digits of each contrast, which are the same for all contrasts of a setting."""
    intervals = iter([contrast.interval for contrast in contrasts])
    digits: list[Digits] = []
    for pairs in groups:
        rows = [next(intervals) for _ in pairs]
        digits += [digits_of_intervals(rows)] * len(rows)
    return digits


def _describe_other_differences(pair: Pair, free: Collection[str]) -> str:
    leave_out = {*free, *list_idle_fields(pair.a, pair.b, free)}
    levels = {path: (pair.a.level_of(path), pair.b.level_of(path)) for path in pair.a.settings if path not in leave_out}
    return ", ".join(f"{path} {a} against {b}" for path, (a, b) in levels.items() if a != b)


# Tasks --------------------------------------------------------------------------------------------


def _find_lack(judgements: Sequence[Judgement], margin: Margin | None, complete: bool) -> Unjudged | None:
    """Returns why an undecided task is not judged: no margin, or a contrast that cannot be judged; None if neither."""
    if margin is not None and margin.kind == "none":
        text = "there is no margin: fix one in the space (margin), give one (--margin), or run an A/A cell (aa)"
        return Unjudged(reason="no-margin", text=text)
    deciding = [judgement for judgement in judgements if judgement.decides]
    lacks = list(dict.fromkeys(judgement.unjudged for judgement in deciding if judgement.unjudged))
    if not lacks:
        return None
    text = "; ".join(lack.text for lack in lacks)
    if not complete and any(judgement.gaps for judgement in deciding):
        text += "; --complete-pairs judges from the remaining seeds"
    reasons = {lack.reason for lack in lacks}
    return Unjudged(reason=reasons.pop() if len(reasons) == 1 else "several", text=text)


def _conclude_over_tasks(
    claim: Claim, findings: tuple[TaskFinding, ...], tasks: Sequence[TaskCells], level: float
) -> ClaimFinding:
    votes = count_votes([task.says for task in findings])
    kind = judge_some(votes) if claim.of_some else judge_share(votes, claim.least_share)
    return ClaimFinding(
        claim=claim,
        tasks=findings,
        kind=kind,
        summary=write_summary(kind, {task.task: task.says for task in findings}, claim.words),
        because=_explain_lack(claim, findings, tasks) if kind == "cannot be judged" else "",
        share=wilson_interval(votes.supports, votes.supports + votes.contradicts, level),
        power=describe_claim_power(findings),
        add="" if kind in ("supported", "contradicted") else _collect_additions(claim, findings),
    )


def _collect_additions(claim: Claim, findings: Sequence[TaskFinding]) -> str:
    """Returns what would decide a claim: for each task that is not decided, what would decide it."""
    if not findings:
        return f"a {claim.dims}D task, with {claim.recipe}" if claim.dims else f"cells with {claim.recipe}"
    tasks_of: dict[str, list[str]] = {}
    for finding in findings:
        if finding.add:
            tasks_of.setdefault(finding.add, []).append(finding.task)
    if not tasks_of and claim.of_some:
        return f"another task, with {claim.recipe}"
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in tasks_of.items())


def _explain_lack(claim: Claim, findings: Sequence[TaskFinding], tasks: Sequence[TaskCells]) -> str:
    if not findings:
        dims = ", ".join(f"{task.task} is {task.dims}D" for task in tasks)
        return f"no task in them is {claim.dims}D ({dims})"
    tasks_of: dict[Unjudged, list[str]] = {}
    for finding in findings:
        if finding.unjudged:
            tasks_of.setdefault(finding.unjudged, []).append(finding.task)
    return "; ".join(f"{', '.join(names)}: {lack.text}" for lack, names in tasks_of.items())
