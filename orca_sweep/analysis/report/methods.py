"""The methods paragraphs, written only from what the tables record.

A sentence without data in the tables is left out, or says that the tables lack it; a sentence on what differs between tasks
names the tasks.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orca_sweep.analysis.margins import Margin
from orca_sweep.analysis.report.settings import (
    Settings,
    describe_rules,
    describe_training,
    describe_tuning,
    name_field,
    varied_levels,
)
from orca_sweep.analysis.report.wording import (
    by_text,
    count_span,
    count_statuses,
    format_span,
    join_names,
    join_words,
    shorten_list,
)
from orca_sweep.analysis.table_effects import Effects, TaskEffects
from orca_sweep.analysis.tables import by_task, describe_scales, list_different_trials, replicated
from orca_sweep.analysis.writing import count_things, format_p, format_percent
from orca_sweep.results import Cell, Results
from orca_sweep.stats import LEAST_PAIRS
from orca_sweep.stats.modes import describe_mode

if TYPE_CHECKING:
    import pandas as pd

CONTENT_OF = {"task": "content.task", "proxy": "content.proxy", "body.name": "content.body"}
DIGITS = 12


def describe_methods(
    results: Results,
    cells: Sequence[Cell],
    effects: Effects | None,
    *,
    level: float,
    column: str,
    has_factors: bool = False,
) -> tuple[str, ...]:
    """Returns the paragraphs: design, training, tuning, data, metric and choice of epochs, statistics."""
    settings = Settings(results, replicated(cells))
    parts = (
        _describe_design(results, cells),
        describe_training(settings),
        (*describe_tuning(settings), *describe_rules(results)),
        _describe_data(settings),
        _describe_choice(results, cells, column),
        (*_describe_statistics(effects, cells, level), _describe_factor_effects() if has_factors else ""),
    )
    return tuple(" ".join(sentences) for part in parts if (sentences := [text for text in part if text]))


# Design -------------------------------------------------------------------------------------------


def _describe_design(results: Results, every: Sequence[Cell]) -> Iterable[str]:
    cells = replicated(every)
    if len(results.spaces) > 1:
        yield f"The trials come from {len(results.spaces)} sweeps: {join_names(results.spaces)}."
    yield from _describe_cells(cells, results)
    seeds = {tuple(sorted(cell.statuses)) for cell in cells if cell.trials}
    if seeds:
        yield f"{'Each' if len(cells) > 1 else 'The'} cell was planned with {_describe_seeds(seeds)}."
    if len(seeds) == 1 and len(cells) > 1 and len(next(iter(seeds))) > 1:
        yield (
            "All cells share these seeds, and with them their random draws, so differences are paired by seed. Seeds are"
            " replicates within a task, not further tasks."
        )
    repeats = [cell for cell in every if cell.role == "aa"]
    if repeats:
        other_seeds = _describe_seeds({tuple(sorted(cell.statuses)) for cell in repeats})
        repeated = "one cell was repeated" if len(repeats) == 1 else f"{len(repeats)} cells were repeated"
        yield f"To measure noise, {repeated} with {other_seeds} (A/A)."
    yield from _describe_fates(every)
    yield results.smoke_warning  # the text may be copied without the head of the page
    yield from results.notes


def _describe_cells(cells: Sequence[Cell], results: Results) -> Iterable[str]:
    tasks = by_task(cells)
    named = (
        count_things(len(tasks), "task") + f" ({join_names(tasks)})"
        if len(tasks) > 1
        else f"the task {join_names(tasks)}"
    )
    per_task = f", {format_span({len(of_task) for of_task in tasks.values()})} on each" if len(tasks) > 1 else ""
    if not cells:
        yield "The tables have only A/A cells: the cells that they repeat are not in them, so nothing can be compared."
        return
    verb = "compared" if len(cells) > 1 else "ran"
    yield f"We {verb} {count_things(len(cells), 'cell')} on {named}{per_task}; a cell is one combination of settings."
    levels = varied_levels(cells)
    if not levels:
        yield "Nothing was varied within a task." if len(cells) > 1 else ""
        return
    varied = join_words(f"the {name_field(path)} ({shorten_list(values)})" for path, values in levels.items())
    yield f"We varied {varied}."
    entries = [rules["design"] for rules in results.rules.values() if "design" in rules]
    design = entries[0] if len(results.rules) == len(entries) == 1 else {}
    n_combinations = math.prod(len(values) for values in levels.values())
    if design.get("name", "cross") != "cross":
        yield _describe_named_design(design)
    elif len(levels) > 1 and len(tasks) == 1:
        yield (
            f"These are all {n_combinations} combinations of the levels."
            if n_combinations == len(cells)
            else f"These are {len(cells)} of the {n_combinations} combinations of the levels, where combinations that amount"
            " to the same work count as one cell."
        )


DESIGNS = {
    "zip": "We ran the listed combinations of levels (zip).",
    "one_at_a_time": "We changed one factor at a time, from the cell in which all factors have their first level.",
    "drop_one": "We switched off one factor at a time, from the cell in which all factors are on.",
    "add_one": "We switched on one factor at a time, from the cell in which all factors are off.",
}
"""What each design but the cross ran, in words."""
ROMAN = {3: "III", 4: "IV", 5: "V", 6: "VI", 7: "VII"}
SHARES = {2: "half", 4: "quarter", 8: "eighth"}


def _describe_named_design(design: Mapping[str, Any]) -> str:
    name = str(design["name"])
    if name != "fraction":
        return DESIGNS.get(name, f"The combinations are those of the design {name}.")
    n_run, n_whole, resolution = int(design["n_run"]), int(design["n_whole"]), design.get("resolution")
    if resolution is None:
        return f"These are all {n_whole} combinations of the levels."
    share = SHARES.get(n_whole // n_run)
    fraction = f"a regular {share} fraction" if share else "a regular fraction"
    return (
        f"We ran {n_run} of the {n_whole} combinations of the levels, {fraction} of resolution"
        f" {ROMAN.get(resolution, resolution)}."
    )


def _describe_seeds(sets: Iterable[tuple[int, ...]]) -> str:
    known = sorted(sets)
    if len(known) == 1 and known[0]:
        seeds = known[0]
        is_range = len(seeds) > 2 and seeds == tuple(range(seeds[0], seeds[-1] + 1))
        names = f"{seeds[0]} to {seeds[-1]}" if is_range else shorten_list(map(str, seeds))
        return f"{count_things(len(seeds), 'seed')} ({names})"
    return count_span({len(seeds) for seeds in known}, "seed")


def _describe_fates(cells: Sequence[Cell]) -> Iterable[str]:
    """Yields sentences on the trials that did not end well, and on what the means do with them."""
    trials = list_different_trials(cells)
    statuses = Counter(trial.status for trial in trials)
    n_lacking, n_worst = len(trials) - statuses["ok"], sum(trial.counts and trial.status != "ok" for trial in trials)
    if not trials:
        yield "No replicate has been planned yet."
    elif not n_lacking:
        yield f"All {len(trials):,} trials ended well." if len(trials) > 1 else "The trial ended well."
    else:
        yield f"Of {count_things(len(trials), 'planned trial')}, {statuses['ok']:,} ended well; {count_statuses(statuses)}."
        if n_worst == n_lacking:
            yield f"Means count {'it' if n_worst == 1 else 'each of these'} as the worst trial of the task."
        elif n_worst:
            yield f"Of the rest, {n_worst:,} {'count' if n_worst > 1 else 'counts'} as the worst trial of the task."
        if n_lacking > n_worst:
            yield "Means leave out trials that did not end well." if not n_worst else "Means leave out the others."


# Data ---------------------------------------------------------------------------------------------


def _describe_data(settings: Settings) -> Iterable[str]:
    trials = settings.trials
    sizes = {str(task): _describe_sizes(settings, rows) for task, rows in trials.groupby("task", sort=False)}
    known = {task: text for task, text in sizes.items() if text}
    yield f"The data were split into {by_text(known)}, without overlap." if known else ""
    yield from _describe_split(settings, trials)
    named = {column: _describe_contents(settings, column, content) for column, content in CONTENT_OF.items()}
    own = join_words(
        f"{noun} {text}" for noun, text in zip(("task", "proxy", "body"), named.values(), strict=True) if text
    )
    if any(named.values()):
        yield f"Our own files are identified by the first {DIGITS} digits of the SHA-256 of their content: {own}."
    code = [text[:DIGITS] for text in settings.list_measured("content.code", trials)]
    yield (
        f"Our own code is identified by the first {DIGITS} digits of its SHA-256: {shorten_list(code)}." if code else ""
    )
    used = {task: settings.list_measured("data_sha256", rows) for task, rows in trials.groupby("task", sort=False)}
    several = [str(task) for task, hashes in used.items() if len(hashes) > 1]
    yield f"Not all trials on {join_names(several)} used the same data: their hashes differ." if several else ""


def _describe_split(settings: Settings, trials: "pd.DataFrame") -> Iterable[str]:
    seeds = settings.list_measured("data.split_seed", trials)
    drawn = settings.list_measured("seed_varies", trials)
    if set(drawn) - {"all"}:
        yield (
            f"The run seed controlled these draws: {shorten_list(drawn)}; all stands for every draw of a run except the"
            " split of the data."
        )
    elif len(seeds) == 1:
        yield f"The split is the same in all trials (split seed {seeds[0]}), whatever the run seed."
    elif seeds:
        yield f"There are {len(seeds)} splits (split seeds {shorten_list(seeds)}), each the same for all run seeds."


def _describe_contents(settings: Settings, column: str, content: str) -> str:
    """Returns 'mine.npz (0f3a...)': the content behind each name of a column, for the user's own files."""
    if content not in settings.trials or column not in settings.trials:
        return ""
    rows_by_name = settings.trials.groupby(column, sort=False)
    digests = {str(name): settings.list_measured(content, rows) for name, rows in rows_by_name}
    return (
        join_words(
            f"{join_names([name])} ({shorten_list([text[:DIGITS] for text in texts])})"
            for name, texts in digests.items()
            if texts
        )
        if any(digests.values())
        else ""
    )


def _describe_sizes(settings: Settings, rows: "pd.DataFrame") -> str:
    """Returns '100 training, 300 validation, and 600 test samples'; empty unless all sizes are known."""
    sizes = {part: settings.list_measured(f"n_{part}", rows) for part in ("train", "val", "test")}
    names = {"train": "training", "val": "validation", "test": "test"}
    if not all(sizes.values()):
        return ""
    parts = [f"{' or '.join(of_part)} {names[part]}" for part, of_part in sizes.items()]
    return f"{join_words(parts)} samples"


# Metric and statistics ----------------------------------------------------------------------------


def _describe_choice(results: Results, cells: Sequence[Cell], column: str) -> Iterable[str]:
    metrics = {cell.task: f"{cell.metric} ({describe_mode(cell.mode)})" for cell in cells if cell.metric}
    if metrics:
        yield f"The metric is the {by_text(metrics)}, computed over all predictions of a split at once."
    else:
        yield "The metric is not known yet, because no trial has ended well."
    epochs = {
        "best": "the epoch with the best validation metric (the first of them in a tie)",
        "last": "the last epoch",
    }
    split, _, epoch = column.partition("_metric_")
    if epoch in epochs:
        data = {"val": "validation", "test": "test"}.get(split, split)
        yield f"Cells are compared by the metric on {data} data at {epochs[epoch]}."
    else:
        yield f"Cells are compared by the column {column} of the tables."
    if split == "test":
        yield "Test data were scored once, at the end of each trial, and selected nothing within a trial."
    elif results.n_sealed:
        yield f"The test metrics of {count_things(results.n_sealed, 'trial')} are sealed and not used here."
    if split == "val" and epoch == "best":
        yield "The same validation data selected the epoch, so these numbers are optimistic."


def _describe_statistics(effects: Effects | None, cells: Sequence[Cell], level: float) -> Iterable[str]:
    yield f"The mean of a cell has a {format_percent(level)} Student-t interval over its seeds."
    yield describe_scales({cell.task: cell.bounds for cell in cells})
    tasks = [task for task in effects.tasks if task.rows] if effects else []
    if effects is None or not tasks:
        return
    bases = by_text({task.task: _name_levels(task.base) for task in tasks})
    yield (
        f"We compare each cell with the base cell{' of its task' * (len(tasks) > 1)} ({bases}) by the mean paired difference"
        f" over shared seeds, with its {format_percent(effects.level)} Student-t interval."
    )
    yield _describe_family(tasks)
    yield from _describe_margins(effects, tasks)
    if any(row.unpaired for task in tasks for row in task.rows):
        yield (
            "Cells with seeds that give no pair were judged from their remaining pairs."
            if effects.complete_pairs_only
            else "Cells with seeds that give no pair were not judged."
        )


def _describe_factor_effects() -> str:
    return (
        "Effects of factors are judged in the same way from one contrast of cell means per seed, without a pooled variance;"
        " Holm's procedure is applied over the main effects and, separately, over the interactions."
    )


def _name_levels(cell: Cell) -> str:
    """Returns 'proxy: none, frozen parts: body'."""
    named = (f"{name_field(path)}: {join_names([level])}" for path, level in cell.labels.items())
    return ", ".join(named) or "all trials"


def _describe_family(tasks: Sequence[TaskEffects]) -> str:
    n_judged = {task.rows[0].verdict.n_contrasts for task in tasks}
    if n_judged == {0}:
        few = [row.contrast.interval.n for task in tasks for row in task.rows if row.verdict.reason == "too-few-pairs"]
        if not any(few):
            return "No comparison can be judged yet."
        return f"No comparison can be judged with {count_things(max(few), 'pair')}: at least {LEAST_PAIRS} are needed."
    n, of = count_span(n_judged, "comparison"), " of a task" * (len(tasks) > 1)
    corrected = f"The paired t tests are corrected with Holm's procedure for the {n}{of} that can be made. "
    alone = "With a single comparison, the paired t test needs no correction. "
    pairs = {row.contrast.interval.n for task in tasks for row in task.rows if row.contrast.interval.n}
    least = format_p(min(row.contrast.smallest_p for task in tasks for row in task.rows if row.contrast.interval.n))
    return (
        f"{alone if n_judged == {1} else corrected}The exact sign-flip test, which assumes only symmetry, cannot reach a p"
        f" below {least} with {count_span(pairs, 'pair')}."
    )


def _describe_margins(effects: Effects, tasks: Sequence[TaskEffects]) -> Iterable[str]:
    inner = format_percent(2 * effects.level - 1)
    has_margin = any(task.margin.kind != "none" for task in tasks)
    tests = f"(two one-sided tests, {inner} interval)"
    same = f", makes no meaningful difference if the difference is shown to lie within it {tests},"
    yield (
        f"A cell helps or hurts if its corrected test places the difference beyond {'the margin' if has_margin else 'zero'}"
        f"{same if has_margin else ''}{',' * (not has_margin)} and is undecided otherwise."
    )
    if all(task.margin.kind == "none" for task in tasks):
        yield f"There is no margin, {by_text({task.task: task.margin.source for task in tasks})}."
        return
    yield f"The margin is {by_text({task.task: _describe_margin(task.margin) for task in tasks})}."


def _describe_margin(margin: Margin) -> str:
    return f"{margin.number}, {margin.source}"
