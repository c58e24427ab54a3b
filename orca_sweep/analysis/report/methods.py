"""The methods paragraphs, written only from what the tables record.

A sentence without data in the tables is left out; a sentence on what differs between tasks names the tasks.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from orca_sweep.analysis.report.wording import by_text, format_span, join_words, shorten_list
from orca_sweep.analysis.table_effects import Effects, TaskEffects
from orca_sweep.analysis.tables import by_task, describe_completeness, replicated
from orca_sweep.analysis.writing import count_things, format_p, format_percent
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
    "finetune.dropout": "body dropout",
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
BODY = {"body.name": "body", "body.pretrain_fraction": "share of the pre-training corpus seen"}
CONTENT_OF = {"task": "content.task", "proxy": "content.proxy", "body.name": "content.body"}
DIGITS = 12
OFF = {
    "finetune.accumulation": "1",
    "finetune.betas": "0.9, 0.999",
    "predictor.dense": "released",
    "embedder.channel_copy": "cycled",
}
"""Levels at which a setting is off, or as released; null is one for every setting. The text leaves out a setting that has
such a level in all cells."""


def describe_methods(
    results: Results, cells: Sequence[Cell], effects: Effects | None, *, level: float, column: str
) -> tuple[str, ...]:
    """Returns the paragraphs: design, training, data, metric and choice of epochs, statistics, tuning."""
    settings = _Settings(results, cells)
    parts = (
        _describe_design(results, cells),
        _describe_training(settings),
        _describe_data(settings),
        _describe_choice(results, cells, column),
        _describe_statistics(effects, level),
        _describe_tuning(results, settings),
    )
    return tuple(" ".join(sentences) for part in parts if (sentences := [text for text in part if text]))


# Design -------------------------------------------------------------------------------------------


def _describe_design(results: Results, every: Sequence[Cell]) -> Iterable[str]:
    cells = replicated(every)
    yield from _describe_cells(cells)
    seeds = {tuple(sorted(cell.statuses)) for cell in cells}
    subject = "Each cell" if len(cells) > 1 else "The cell"
    yield f"{subject} was run with {_describe_seeds(seeds)}; seeds are replicates within a task, not additional tasks."
    if len(seeds) == 1 and len(cells) > 1 and len(next(iter(seeds))) > 1:
        yield "All cells share their seeds and thus their random streams, so differences are paired by seed."
    repeats = [cell for cell in every if cell.role == "aa"]
    if repeats:
        other_seeds = _describe_seeds({tuple(sorted(cell.statuses)) for cell in repeats})
        repeated = "a cell" if len(repeats) == 1 else "cells"
        yield f"{count_things(len(repeats), 'A/A cell')} repeated {repeated} with different seeds: {other_seeds}."
    yield describe_completeness(every)
    yield from results.notes


def _describe_cells(cells: Sequence[Cell]) -> Iterable[str]:
    tasks = by_task(cells)
    per_task = f" ({format_span({len(of_task) for of_task in tasks.values()})} per task)" if len(tasks) > 1 else ""
    verb = "compared" if len(cells) > 1 else "ran"
    yield f"We {verb} {count_things(len(cells), 'cell')}{per_task} on {join_words(tasks)}; a cell is one combination of settings."
    levels = _varied_levels(cells)
    varied = join_words(f"{path} ({shorten_list(values)})" for path, values in levels.items())
    yield f"We varied {varied if levels else 'nothing'}{'' if levels else ' within a task'}."
    n_combinations = math.prod(len(values) for values in levels.values())
    if len(levels) > 1 and len(tasks) == 1:
        yield (
            f"These are all {n_combinations} combinations of the levels."
            if n_combinations == len(cells)
            else f"These are {len(cells)} of the {n_combinations} combinations of the levels; combinations that amount to the"
            " same work are one cell."
        )


def _varied_levels(cells: Sequence[Cell]) -> dict[str, list[str]]:
    """Returns the levels of each field that has several."""
    levels: dict[str, dict[str, None]] = {}
    for cell in cells:
        for path, value in cell.labels.items():
            levels.setdefault(path, {})[value] = None
    return {path: list(values) for path, values in levels.items() if len(values) > 1}


def _describe_seeds(sets: Iterable[tuple[int, ...]]) -> str:
    known = sorted(sets)
    if len(known) == 1 and known[0]:
        seeds = known[0]
        is_range = len(seeds) > 2 and seeds == tuple(range(seeds[0], seeds[-1] + 1))
        names = f"{seeds[0]} to {seeds[-1]}" if is_range else shorten_list(map(str, seeds))
        return f"{count_things(len(seeds), 'seed')} ({names})"
    return f"{format_span({len(seeds) for seeds in known})} seeds" if known else "no seeds"


# Training and data --------------------------------------------------------------------------------


class _Settings:
    """The settings of the trials in words: one value, or one per task."""

    def __init__(self, results: Results, cells: Sequence[Cell]) -> None:
        trials = results.trials
        self.trials = trials.assign(**results.labels)[trials["role"] != "search"]
        self.tuned = results.tuned
        self.varied = set(_varied_levels(replicated(cells)))

    def describe_field(self, path: str, rows: "pd.DataFrame") -> str:
        """Returns the value or values of a config field; empty if the tables do not have its column."""
        if path in self.tuned:
            return "tuned within each cell"
        if path not in rows or not len(rows):
            return ""
        values = _distinct_values(rows, path)
        if len(values) == 1:
            return values[0]
        if path in self.varied:
            return f"varied ({shorten_list(values)})"
        by_task = {str(task): _distinct_values(part, path) for task, part in rows.groupby("task", sort=False)}
        if all(len(of_task) == 1 for of_task in by_task.values()):
            return ", ".join(f"{of_task[0]} for {task}" for task, of_task in by_task.items())
        return f"{shorten_list(values)} (depends on other settings)"

    def describe_fields(self, names: Mapping[str, str], rows: "pd.DataFrame") -> str:
        """Returns 'epochs 20; optimizer adamw', without settings that are off in all rows."""
        texts = {path: self.describe_field(path, rows) for path in names}
        return "; ".join(
            f"{names[path]} {text}" for path, text in texts.items() if text not in ("", "null", OFF.get(path))
        )

    def list_measured(self, column: str, rows: "pd.DataFrame") -> list[str]:
        """Returns the distinct values of a measured column as text, without missing ones."""
        return [text for text in _distinct_values(rows, column) if text not in ("null", "")] if column in rows else []


def _distinct_values(rows: "pd.DataFrame", column: str) -> list[str]:
    return [write_level(value) for value in rows[column].drop_duplicates()]


def _describe_training(settings: _Settings) -> Iterable[str]:
    rows = settings.trials
    body = settings.describe_fields(BODY, rows)
    yield f"Model: {body}." if body else ""
    trained = rows[_is_trained(rows)]
    if len(trained):
        naive = len(rows) - len(trained)
        but = f" (in all but {count_things(naive, 'planned trial')})" if naive else ""
        yield f"Embedder training{but}: {settings.describe_fields(EMBEDDER, trained)}; one optimizer step per epoch."
    elif "embedder.epochs" in rows:
        yield "No trial trained its embedder."
    finetuning = settings.describe_fields(FINETUNING, rows)
    yield f"Fine-tuning: {finetuning}." if finetuning else ""


def _is_trained(rows: "pd.DataFrame") -> "pd.Series[bool]":
    """Returns which trials train their embedder; none if the column is missing."""
    import pandas as pd

    if "embedder.epochs" not in rows:
        return pd.Series(False, index=rows.index)
    return pd.to_numeric(rows["embedder.epochs"], errors="coerce").fillna(0) > 0


def _describe_data(settings: _Settings) -> Iterable[str]:
    trials = settings.trials
    sizes = {str(task): _describe_sizes(settings, rows) for task, rows in trials.groupby("task", sort=False)}
    known = {task: text for task, text in sizes.items() if text}
    yield f"Data: {by_text(known)}; the three splits do not overlap." if known else ""
    seeds = settings.list_measured("data.split_seed", trials)
    drawn = settings.list_measured("seed_varies", trials)
    if set(drawn) - {"all"}:
        yield (
            f"The run seed controlled the draws that seed_varies names ({shorten_list(drawn)}); all stands for every draw of"
            " a run except the split."
        )
    elif seeds:
        yield f"The split was fixed by data.split_seed {shorten_list(seeds)}, independently of the run seed."
    named = {column: _describe_contents(settings, column, content) for column, content in CONTENT_OF.items()}
    own = "; ".join(
        f"{noun} {text}" for noun, text in zip(("task", "proxy", "body"), named.values(), strict=True) if text
    )
    yield f"Our own files, by the first {DIGITS} digits of the SHA-256 of their content: {own}." if own else ""
    code = [text[:DIGITS] for text in settings.list_measured("content.code", trials)]
    yield f"Our own code, by the first {DIGITS} digits of its SHA-256: {shorten_list(code)}." if code else ""
    used = {task: settings.list_measured("data_sha256", rows) for task, rows in trials.groupby("task", sort=False)}
    several = [str(task) for task, hashes in used.items() if len(hashes) > 1]
    yield f"Not all trials of {join_words(several)} used the same data: their data_sha256 differ." if several else ""


def _describe_contents(settings: _Settings, column: str, content: str) -> str:
    """Returns 'mine.npz 0f3a..., other.npz 77b2...': the content behind each name of a column, for the user's own files."""
    if content not in settings.trials or column not in settings.trials:
        return ""
    rows_by_name = settings.trials.groupby(column, sort=False)
    digests = {str(name): settings.list_measured(content, rows) for name, rows in rows_by_name}
    return ", ".join(
        f"{name} {shorten_list([text[:DIGITS] for text in texts])}" for name, texts in digests.items() if texts
    )


def _describe_sizes(settings: _Settings, rows: "pd.DataFrame") -> str:
    sizes = [shorten_list(settings.list_measured(f"n_{part}", rows)) for part in ("train", "val", "test")]
    return "{} training, {} validation and {} test samples".format(*sizes) if all(sizes) else ""


# Metric, statistics, tuning -----------------------------------------------------------------------


def _describe_choice(results: Results, cells: Sequence[Cell], column: str) -> Iterable[str]:
    metrics = {cell.task: f"{cell.metric}, {describe_mode(cell.mode)}" for cell in cells if cell.metric}
    yield f"Metric: {by_text(metrics) or 'not known until a trial is ok'}. It is computed over a whole split at once."
    epochs = {
        "best": "the epoch with the best validation metric (the first of them in a tie)",
        "last": "the last epoch",
    }
    split, _, epoch = column.partition("_metric_")
    if epoch in epochs:
        data = {"val": "validation", "test": "test"}.get(split, split)
        yield f"We compared {column}, the metric on {data} data at {epochs[epoch]}."
    if split == "test":
        yield "Test data were scored once, at the end of each trial, and selected nothing within a trial."
    elif results.n_sealed:
        yield f"The test metrics of {count_things(results.n_sealed, 'ok trial')} are sealed and not part of this report."
    if split == "val" and epoch == "best":
        yield "The same validation data selected the epoch, so these numbers are optimistic."


def _describe_statistics(effects: Effects | None, level: float) -> Iterable[str]:
    yield f"The interval of a cell's mean is the {format_percent(level)} Student-t interval over its ok seeds."
    if effects is None:
        return
    tasks = [task for task in effects.tasks if task.rows]
    yield (
        "Each cell is compared with the base cell of its task by the mean paired difference over shared seeds, with its"
        f" {format_percent(effects.level)} Student-t interval. Base cell: {by_text({t.task: t.base.name for t in tasks})}."
    )
    yield (
        "Paired t tests and verdicts are corrected with Holm's procedure over the comparisons of a task that can be made"
        f" ({format_span({task.rows[0].verdict.n_contrasts for task in tasks})}). {_describe_sign_flips(tasks)}"
    )
    yield (
        "With this correction, a cell helps or hurts if its interval lies beyond the margin, makes no meaningful difference"
        f" if its {format_percent(2 * effects.level - 1)} interval lies within the margin, and is undecided otherwise."
        f" Margin: {by_text({t.task: f'{t.margin.value:.3g}, {t.margin.source}' for t in tasks})}."
    )
    yield (
        "Cells with seeds that give no pair were judged from their remaining pairs."
        if effects.complete_pairs_only
        else "Cells with seeds that give no pair were not judged."
    )


def _describe_sign_flips(tasks: Sequence[TaskEffects]) -> str:
    contrasts = [row.contrast for task in tasks for row in task.rows if row.contrast.interval.n]
    if not contrasts:
        return "No seed has given a pair yet."
    least = format_p(min(contrast.smallest_p for contrast in contrasts))
    pairs = {contrast.interval.n for contrast in contrasts}
    noun = "pair" if pairs == {1} else "pairs"
    return (
        f"The exact sign-flip test, which assumes only symmetry, can give a p of {least} at the lowest with"
        f" {format_span(pairs)} {noun}."
    )


def _describe_tuning(results: Results, settings: _Settings) -> Iterable[str]:
    trials = results.trials
    if results.tuned:
        # A candidate has a trial for each seed of the search.
        searched = trials[trials["role"] == "search"].drop_duplicates(["cell_id", *results.tuned])
        counts = {int(count) for count in searched.groupby("cell_id").size()}
        n = f"{format_span(counts)} candidate{'s' * (counts != {1})}" if counts else "no candidates yet"
        yield (
            f"{join_words(results.tuned)} {'was' if len(results.tuned) == 1 else 'were'} tuned within each cell on validation"
            f" data, over {n} per cell, with seeds that no replicate uses."
        )
        return
    rate = settings.describe_field("finetune.lr", settings.trials)
    shared = f"; the learning rate of fine-tuning is {rate}" if rate not in ("", "null") else ""
    yield f"No field was tuned within the cells{shared}."
