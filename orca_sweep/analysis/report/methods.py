"""The methods paragraph, written from what the tables say and nothing else.

A sentence that the tables have nothing for is left out; one that differs between tasks says so.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from orca_sweep.analysis.report.wording import by_text, count_things, format_span, join_words, shorten_list
from orca_sweep.analysis.table_effects import Effects
from orca_sweep.analysis.tables import by_task, describe_completeness, replicated
from orca_sweep.analysis.writing import format_p, format_percent
from orca_sweep.config.labels import write_level
from orca_sweep.results import Cell, Results
from orca_sweep.stats.modes import describe_mode

if TYPE_CHECKING:
    import pandas as pd

FINETUNING = {
    "finetune.epochs": "epochs",
    "finetune.optimizer": "optimizer",
    "finetune.lr": "peak learning rate",
    "finetune.weight_decay": "weight decay",
    "finetune.betas": "betas",
    "finetune.dropout": "dropout of the body",
    "finetune.batch_size": "batch size",
    "finetune.accumulation": "batches per step",
    "finetune.warmup_epochs": "warm-up epochs",
    "finetune.decay_epochs": "epoch at which the linear decay reaches zero",
    "finetune.freeze": "frozen",
    "finetune.lora_rank": "rank of low-rank adapters",
    "predictor.dense": "predictor of dense tasks",
}
EMBEDDER = {
    "proxy": "proxy",
    "embedder.objective": "objective",
    "embedder.epochs": "epochs",
    "embedder.init": "initialisation",
    "embedder.channel_copy": "patch weights copied to other channels",
    "embedder.optimizer": "optimizer",
    "embedder.lr": "learning rate",
    "embedder.proxy_samples": "proxy samples",
}
BODY = {"body.name": "body", "body.pretrain_fraction": "share of its pre-training corpus seen"}
CONTENT_OF = {"task": "content.task", "proxy": "content.proxy", "body.name": "content.body"}
DIGITS = 12
OFF = {
    "finetune.accumulation": "1",
    "finetune.betas": "0.9, 0.999",
    "predictor.dense": "released",
    "embedder.channel_copy": "cycled",
}
"""Levels at which a setting is off, or as released, as null is for every setting; if it is so in all cells, the text
leaves it out."""


def describe_methods(
    results: Results, cells: Sequence[Cell], effects: Effects | None, level: float, column: str
) -> tuple[str, ...]:
    """Returns the paragraphs: design, training, data, how epochs were chosen, statistics, tuning."""
    said = _Said(results, cells)
    parts = (
        _describe_design(results, cells),
        _describe_training(said),
        _describe_data(said),
        _describe_choice(results, cells, column),
        _describe_statistics(effects, level),
        _describe_tuning(results, said),
    )
    return tuple(" ".join(sentences) for part in parts if (sentences := [text for text in part if text]))


# Design -------------------------------------------------------------------------------------------


def _describe_design(results: Results, every: Sequence[Cell]) -> Iterable[str]:
    cells = replicated(every)
    tasks = by_task(cells)
    counts = {len(found) for found in tasks.values()}
    each = f" ({format_span(counts)} each)" if len(tasks) > 1 else ""
    n_cells = count_things(len(cells), "cell")
    yield f"We compared {n_cells}{each} on {join_words(tasks)}; a cell is one combination of what was varied."
    levels = _varied_levels(cells)
    varied = "; ".join(f"{path} ({shorten_list(values)})" for path, values in levels.items())
    yield f"What was varied: {varied}." if varied else "Nothing was varied within a task."
    whole = math.prod(len(values) for values in levels.values())
    if len(levels) > 1 and len(tasks) == 1:
        yield (
            f"These are all {whole} combinations of the levels."
            if whole == len(cells)
            else f"These are {len(cells)} of the {whole} combinations of the levels; those that are the same work are one cell."
        )
    seeds = {tuple(sorted(cell.statuses)) for cell in cells}
    yield f"Each cell was run with {_describe_seeds(seeds)}; seeds are replicates within a task, not further tasks."
    if len(seeds) == 1 and len(cells) > 1 and len(next(iter(seeds))) > 1:
        yield "All cells share their seeds, and with them their random streams, so differences are paired by seed."
    again = [cell for cell in every if cell.role == "aa"]
    if again:
        own = _describe_seeds({tuple(sorted(cell.statuses)) for cell in again})
        yield f"{count_things(len(again), 'A/A cell')} repeated a cell with {own} of its own."
    yield describe_completeness(every)
    yield from results.notes


def _varied_levels(cells: Sequence[Cell]) -> dict[str, list[str]]:
    """The levels of each field that has several."""
    found: dict[str, dict[str, None]] = {}
    for cell in cells:
        for path, value in cell.labels.items():
            found.setdefault(path, {})[value] = None
    return {path: list(values) for path, values in found.items() if len(values) > 1}


def _describe_seeds(sets: Iterable[tuple[int, ...]]) -> str:
    known = sorted(sets)
    if len(known) == 1 and known[0]:
        seeds = known[0]
        is_run = len(seeds) > 2 and seeds == tuple(range(seeds[0], seeds[-1] + 1))
        return f"{count_things(len(seeds), 'seed')} ({f'{seeds[0]} to {seeds[-1]}' if is_run else shorten_list(map(str, seeds))})"
    return f"{format_span({len(seeds) for seeds in known})} seeds" if known else "no seed"


# Training and data --------------------------------------------------------------------------------


class _Said:
    """What the trials were configured with, in words: one value, or one for each task."""

    def __init__(self, results: Results, cells: Sequence[Cell]) -> None:
        trials = results.trials
        self.trials = trials.assign(**results.labels)[trials["role"] != "search"]
        self.tuned = results.tuned
        self.varied = set(_varied_levels(replicated(cells)))

    def setting(self, path: str, rows: "pd.DataFrame") -> str:
        """Returns the value of a config field; empty where there is no such column."""
        if path in self.tuned:
            return "tuned within each cell"
        if path not in rows or not len(rows):
            return ""
        values = _distinct_values(rows, path)
        if len(values) == 1:
            return values[0]
        if path in self.varied:
            return f"varied ({shorten_list(values)})"
        by_task = {str(task): _distinct_values(of, path) for task, of in rows.groupby("task", sort=False)}
        if all(len(of) == 1 for of in by_task.values()):
            return ", ".join(f"{of[0]} for {task}" for task, of in by_task.items())
        return f"{shorten_list(values)}, set together with other fields"

    def settings(self, names: Mapping[str, str], rows: "pd.DataFrame") -> str:
        """Returns 'epochs 20, optimizer adamw'; settings that are off everywhere are left out."""
        found = {path: self.setting(path, rows) for path in names}
        return "; ".join(
            f"{names[path]} {text}" for path, text in found.items() if text not in ("", "null", OFF.get(path))
        )

    def among(self, column: str, rows: "pd.DataFrame") -> list[str]:
        """Returns the values of a measured column as text, without what there is not."""
        return [text for text in _distinct_values(rows, column) if text not in ("null", "")] if column in rows else []


def _distinct_values(rows: "pd.DataFrame", column: str) -> list[str]:
    return [write_level(value) for value in rows[column].drop_duplicates()]


def _describe_training(said: _Said) -> Iterable[str]:
    rows = said.trials
    body = said.settings(BODY, rows)
    yield f"{body[:1].upper()}{body[1:]}." if body else ""
    trained = rows[_is_trained(rows)]
    if len(trained):
        naive = len(rows) - len(trained)
        rest = f" ({count_things(naive, 'planned trial')} did without)" if naive else ""
        yield f"Embedder training{rest}: {said.settings(EMBEDDER, trained)}; one optimizer step per epoch."
    elif "embedder.epochs" in rows:
        yield "No trial trained its embedder."
    yield f"Fine-tuning: {said.settings(FINETUNING, rows)}."


def _is_trained(rows: "pd.DataFrame") -> "pd.Series[bool]":
    """Which trials train their embedder, as far as the columns tell."""
    import pandas as pd

    if "embedder.epochs" not in rows:
        return pd.Series(False, index=rows.index)
    return pd.to_numeric(rows["embedder.epochs"], errors="coerce").fillna(0) > 0


def _describe_data(said: _Said) -> Iterable[str]:
    sizes = {str(task): _describe_sizes(said, rows) for task, rows in said.trials.groupby("task", sort=False)}
    known = {task: text for task, text in sizes.items() if text}
    yield f"Data: {by_text(known)}; the three do not overlap." if known else ""
    seeds = said.among("data.split_seed", said.trials)
    drawn = said.among("seed_varies", said.trials)
    if set(drawn) - {"all"}:
        yield f"The run seed drew what seed_varies says ({shorten_list(drawn)}); all is every draw of the run, but not the split."
    elif seeds:
        yield f"The split was fixed by data.split_seed {shorten_list(seeds)}, which is not the run seed."
    named = {column: _describe_contents(said, column, content) for column, content in CONTENT_OF.items()}
    own = "; ".join(
        f"{noun} {text}" for noun, text in zip(("task", "proxy", "body"), named.values(), strict=True) if text
    )
    yield f"Own files, by the first {DIGITS} digits of the SHA-256 of their content: {own}." if own else ""
    code = [text[:DIGITS] for text in said.among("content.code", said.trials)]
    yield f"Own code that the space imports: SHA-256 {shorten_list(code)}." if code else ""
    used = {task: said.among("data_sha256", rows) for task, rows in said.trials.groupby("task", sort=False)}
    several = [str(task) for task, hashes in used.items() if len(hashes) > 1]
    yield f"Not all trials of {join_words(several)} had the same data: their data_sha256 differ." if several else ""


def _describe_contents(said: _Said, column: str, content: str) -> str:
    """'mine.npz 0f3a..., other.npz 77b2...': what each name of a column stands for, where the files are the user's own."""
    if content not in said.trials or column not in said.trials:
        return ""
    digests = {str(name): said.among(content, rows) for name, rows in said.trials.groupby(column, sort=False)}
    return ", ".join(
        f"{name} {shorten_list([text[:DIGITS] for text in texts])}" for name, texts in digests.items() if texts
    )


def _describe_sizes(said: _Said, rows: "pd.DataFrame") -> str:
    sizes = [shorten_list(said.among(f"n_{part}", rows)) for part in ("train", "val", "test")]
    return "{} training, {} validation and {} test samples".format(*sizes) if all(sizes) else ""


# Choice, statistics, tuning -----------------------------------------------------------------------


def _describe_choice(results: Results, cells: Sequence[Cell], column: str) -> Iterable[str]:
    metrics = {cell.task: f"{cell.metric}, {describe_mode(cell.mode)}" for cell in cells if cell.metric}
    named = by_text(metrics) or "not known before a trial is ok"
    yield f"Metric: {named}. It is computed over the whole split at once."
    epochs = {
        "best": "the epoch with the best validation metric (the first of equals)",
        "last": "the last epoch",
    }
    split, _, epoch = column.partition("_metric_")
    if epoch in epochs:
        where = {"val": "validation", "test": "test"}.get(split, split)
        yield f"The number compared is {column}: the metric on {where} data at {epochs[epoch]}."
    if split == "test":
        yield "Test data were scored once, at the end of a trial, and chose nothing within it."
    elif results.n_sealed:
        yield f"The test metrics of {count_things(results.n_sealed, 'ok trial')} are sealed and no part of this report."
    if split == "val" and epoch == "best":
        yield "Validation data chose the epoch, so these numbers are better than those of data that chose nothing."


def _describe_statistics(effects: Effects | None, level: float) -> Iterable[str]:
    yield f"Intervals of a cell's mean are {format_percent(level)} Student-t intervals over its ok seeds."
    if effects is None:
        return
    tasks = [task for task in effects.tasks if task.rows]
    yield (
        "Cells are compared to the base cell of their task by the mean paired difference over shared seeds, with its"
        f" {format_percent(effects.level)} Student-t interval. Base: {by_text({t.task: t.base.name for t in tasks})}."
    )
    pairs = sorted({row.contrast.interval.n for task in tasks for row in task.rows})
    yield (
        f"Paired t tests and verdicts are corrected by Holm's procedure over the comparisons of a task that can be made"
        f" ({format_span({task.rows[0].verdict.n_contrasts for task in tasks})});"
        f" exact sign-flip tests, which assume symmetry alone, can reach {_describe_smallest(effects, pairs)}."
    )
    yield (
        "A cell helps or hurts if, after that correction, its interval would lie beyond the margin, makes no meaningful"
        f" difference if the {format_percent(2 * effects.level - 1)} interval would lie within it, and is undecided otherwise."
        f" Margin: {by_text({t.task: f'{t.margin.value:.3g}, {t.margin.source}' for t in tasks})}."
    )
    yield (
        "Cells with a seed that gives no pair were judged from the pairs left."
        if effects.complete_pairs_only
        else "Cells with a seed that gives no pair were not judged."
    )


def _describe_smallest(effects: Effects, pairs: Sequence[int]) -> str:
    rows = [row for task in effects.tasks for row in task.rows if row.contrast.interval.n]
    if not rows:
        return "no p as there are no pairs yet"
    least = min(row.contrast.smallest_p for row in rows)
    return f"a p of {format_p(least)} at the least with {format_span({n for n in pairs if n})} pairs"


def _describe_tuning(results: Results, said: _Said) -> Iterable[str]:
    trials = results.trials
    if results.tuned:
        # A candidate has a trial for each seed of the search.
        searched = trials[trials["role"] == "search"].drop_duplicates(["cell_id", *results.tuned])
        per_cell = searched.groupby("cell_id").size()
        n = format_span({int(count) for count in per_cell}) if len(per_cell) else "no"
        yield (
            f"{join_words(results.tuned)} {'was' if len(results.tuned) == 1 else 'were'} tuned within each cell on validation"
            f" data, over {n} candidates a cell with seeds that no replicate has."
        )
        return
    rate = said.setting("finetune.lr", said.trials)
    shared = f"; the learning rate of fine-tuning is {rate}" if rate else ""
    yield f"No field was tuned within the cells{shared}."
