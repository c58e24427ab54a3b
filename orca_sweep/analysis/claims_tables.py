"""The tables of claims: an overview, and one for each claim with its contrasts and what each task could have shown."""

import math
from collections.abc import Iterator

from orca_sweep.analysis.figures import describe_modes
from orca_sweep.analysis.findings import CORRELATION, ClaimFinding, Claims, Judgement, TaskFinding
from orca_sweep.analysis.margins import Margin
from orca_sweep.analysis.over_tasks import LEAST_SHARE, SAYS, describe_rule
from orca_sweep.analysis.study import STUDY
from orca_sweep.analysis.tables import UNKNOWN_METRIC
from orca_sweep.analysis.task_power import describe_power
from orca_sweep.analysis.writing import MINUS, NOTHING, Table, format_percent
from orca_sweep.stats.digits import Digits, format_interval, format_number, refine_digits
from orca_sweep.stats.modes import Mode

NAME = "claims"


def build_tables(claims: Claims) -> tuple[Table, ...]:
    """Returns a table of all claims, and a table for each claim that has contrasts."""
    overview = Table(
        name=f"{NAME}-all",
        title="Claims of the study, and of this project",
        caption=_write_caption(claims),
        head=(
            "claim",
            "whose",
            "sentence",
            "verdict",
            "tasks that support it",
            "tasks that contradict it",
            "tasks undecided",
            "tasks not judged",
            "share that supports it",
        ),
        align="lllllllll",
        blocks=(tuple(_build_row(finding) for finding in claims.findings),),
        notes=(
            *claims.notes,
            *(f"Claim {f.claim.id}: {f.verdict}." for f in claims.findings if f.kind == "cannot be judged"),
            *(f"Claim {f.claim.id}, power: {f.power}." for f in claims.findings if f.power),
            *(f"Claim {f.claim.id}, to decide it, add: {f.add}." for f in claims.findings if f.add),
        ),
    )
    with_contrasts = (finding for finding in claims.findings if any(task.judgements for task in finding.shown))
    return (overview, *(_build_table(claims, finding) for finding in with_contrasts))


def _build_row(finding: ClaimFinding) -> tuple[str, ...]:
    tasks = [", ".join(task.task for task in finding.tasks_saying(says)) or NOTHING for says in SAYS]
    share = finding.share
    two = refine_digits(Digits(decimals=2), [(share.high - share.low) / 2])
    text = f"{share.n_hits} of {share.n} {format_interval(share.low, share.high, two)}" if share.n else NOTHING
    whose = {"study": "the study", "ours": "ours"}[finding.claim.origin]
    return (finding.claim.id, whose, finding.claim.sentence, finding.summary, *tasks, text)


def _write_caption(claims: Claims) -> str:
    return (
        f"Claims of {STUDY}, and of this project where marked ours, judged on these rows by {describe_column(claims)}."
        f" {claims.completeness} {describe_rule(LEAST_SHARE, 0, of_some=False)} No meaningful difference means smaller than the"
        " margin; it does not mean none. Undecided: the seeds so far do not decide. Not judged: the rows lack something, such as"
        " a cell to compare with or a margin; the notes of each claim name it. The last column counts, of all tasks that"
        f" decide a claim, those that support it, with the {format_percent(claims.level)} Wilson interval of that share, which"
        " treats the tasks as a sample. Tasks that are undecided or not judged do not count."
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
    is_rho = any(judgement.kind == CORRELATION for task in finding.shown for judgement in task.judgements)
    level, inner = format_percent(claims.level), format_percent(2 * claims.level - 1)
    head: tuple[str, ...] = ("pairs", "difference", f"{level} interval", f"{inner} interval", "margin")
    if is_rho:
        head = ("trials", "seeds", "rank correlation", f"{level} interval", "least that counts")
    blocks = tuple(tuple(_build_line(task, j) for j in task.judgements) for task in finding.shown if task.judgements)
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
    return (
        task.task,
        j.name,
        *middle,
        limit,
        NOTHING if j.unjudged else j.word + " (shown only)" * (not j.decides),
        task.word,
    )


def _write_claim_caption(claims: Claims, finding: ClaimFinding, is_rho: bool) -> str:
    claim, level = finding.claim, format_percent(claims.level)
    deciding = [judgement for task in finding.tasks for judgement in task.judgements if judgement.decides]
    n = max((judgement.n_family for judgement in deciding), default=0)
    measured = (
        f"Spearman's rank correlation of the objective after embedder training and {claims.column} over trials, with its"
        f" {level} interval over seeds (jackknife)"
        if is_rho
        else f"Mean paired difference in {claims.column} over pairs of equal seed, in the task's unit: the first cell minus"
        f" the second ({_describe_better_side(finding)}), with Student-t intervals over pairs; helps and hurts depend on the"
        " wider interval, no meaningful difference on the narrower one"
    )
    return (
        f"Verdict: {finding.verdict}. Source of the claim: {claim.source} (origin: {claim.origin}). Judged on:"
        f" {claim.rows}. A task supports it if {claim.supports}; a task contradicts it if {claim.contradicts}."
        f" {_describe_rule(finding)} {measured}. Words are corrected for all contrasts that decide this claim and can be"
        f" judged ({n}); those that are only shown are a family of their own; intervals are uncorrected."
    )


def _describe_better_side(finding: ClaimFinding) -> str:
    """Returns on which side of zero the first cell is better, in words; it depends on the mode of the task."""
    sides: dict[Mode, str] = {"min": "below", "max": "above"}
    measured = [task for task in finding.shown if task.metric != UNKNOWN_METRIC]
    if not measured:
        return UNKNOWN_METRIC
    tasks = {mode: [task.task for task in measured if task.mode == mode] for mode in sides}
    known = [(sides[mode], names) for mode, names in tasks.items() if names]
    if len(known) == 1:
        return f"{known[0][0]} zero: the first is better"
    texts = [f"{side} zero in {', '.join(names)}" for side, names in known]
    return f"the first is better {' and '.join(texts)}"


def _describe_rule(finding: ClaimFinding) -> str:
    n = sum(task.says != "cannot be judged" for task in finding.tasks)
    return describe_rule(finding.claim.least_share, n, of_some=finding.claim.of_some)


def _list_notes(finding: ClaimFinding) -> Iterator[str]:
    for task in finding.shown:
        if task.setting:
            yield f"{task.task}: judged at {task.setting}{_count_other_settings(task.n_other_settings)}."
        is_said = task.unjudged is not None and task.unjudged.reason == "no-margin"
        if task.margin and task.judgements and not is_said:
            yield f"{task.task}: {_describe_margin(task.margin, task.metric)}."
        power = describe_power(task.power, task.margin)
        if power:
            yield f"{task.task}: {power}."
        if task not in finding.tasks:
            yield f"{task.task} is shown and does not count: the claim is about {finding.claim.dims}D tasks."
        if task.left_out:
            yield f"{task.task}: {task.left_out}."
        if task.unjudged:
            yield f"{task.task} cannot be judged: {task.unjudged.text}."
        if task.add:
            yield f"{task.task}, to decide it, add: {task.add}."
        for judgement in task.judgements:
            if judgement.gaps:
                yield f"{task.task}, {judgement.name}: seeds without a pair: {judgement.gaps}."
            if judgement.unplanned:
                seeds = ", ".join(map(str, judgement.unplanned))
                yield f"{task.task}, {judgement.name}: seeds that only some of its cells were planned with do not count: {seeds}."
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
