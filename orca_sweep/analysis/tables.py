"""What the tables share: cells, their base cell, and texts short enough for a figure."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from orca_sweep.analysis.writing import join_lines
from orca_sweep.config.labels import shorten_labels
from orca_sweep.errors import InputError
from orca_sweep.results import Cell, CellTrial, Results, TaskMetric, find_repeated_seeds, summarise_cells
from orca_sweep.stats import Bounds
from orca_sweep.stats.modes import Mode, describe_mode

UNKNOWN_METRIC = "metric not known yet"
"""Stands for the name of a metric while no trial of its task is ok."""

# Cells --------------------------------------------------------------------------------------------


def read_cells(
    results: Results, metric: str | None = None, level: float = 0.95, measures: Iterable[str] = ()
) -> tuple[Cell, ...]:
    """Returns every cell, A/A cells included, in the order of the table; arguments as of `results.summarise_cells`.

    Raises:
        InputError: if there are no trials, a column is missing, a cell has several trials with the same seed, or the trials
            of a task measure different things.
    """
    require_columns(results, ("task", "metric", *results.factors))
    cells = summarise_cells(results, metric, level, measures)
    problems = list(find_repeated_seeds(results))
    if problems:
        raise InputError(problems)
    return cells


def require_columns(results: Results, columns: Iterable[str]) -> None:
    """Refuses a table that has no trials or lacks a column.

    Raises:
        InputError: naming what is missing.
    """
    missing = [column for column in columns if column not in results.trials]
    if missing:
        raise InputError(
            f"trials.parquet: no column {', '.join(missing)}. This version did not collect these tables. Make them again"
            " with 'orca-sweep collect'."
        )
    if not len(results.trials):
        raise InputError("trials.parquet: no trials, so there is nothing to show. Launch a sweep and collect it first.")


def metric_of(cells: Sequence[Cell]) -> TaskMetric:
    """Returns the metric of the cells of a task; without a name while no trial is ok, and then its mode means nothing."""
    name = next((cell.metric for cell in cells if cell.metric), UNKNOWN_METRIC)
    return TaskMetric(name=name, mode=cells[0].mode, unit=cells[0].unit, bounds=cells[0].bounds)


def describe_metric(metric: str, mode: Mode) -> str:
    """Returns 'error; lower is better'."""
    return f"{metric}; {describe_direction(metric, mode)}"


def describe_direction(metric: str, mode: Mode) -> str:
    """Returns 'lower is better', or that the direction is not known either while the metric is not."""
    return (
        "whether lower or higher is better is not known, as no trial is ok"
        if metric == UNKNOWN_METRIC
        else describe_mode(mode)
    )


def describe_scales(bounds_by_task: Mapping[str, Bounds]) -> str:
    """Returns a sentence on the scale of the intervals of means of bounded metrics; empty if none is bounded."""
    tasks: dict[Bounds, list[str]] = {}
    for task, bounds in bounds_by_task.items():
        tasks.setdefault(bounds, []).append(shorten_text(task))
    scales = [
        f"on the {bounds.scale} scale, so they stay {bounds}" + f" ({', '.join(names)})" * (len(tasks) > 1)
        for bounds, names in tasks.items()
        if bounds.scale != "plain"
    ]
    return f"Intervals of means are computed {' and '.join(scales)}." if scales else ""


def better_side(mode: Mode) -> str:
    """Returns the side of zero on which a difference is an improvement."""
    return "left" if mode == "min" else "right"


def by_task(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Returns the cells of each task, in their order."""
    tasks: dict[str, list[Cell]] = {}
    for cell in cells:
        tasks.setdefault(cell.task, []).append(cell)
    return tasks


def replicated(cells: Iterable[Cell]) -> list[Cell]:
    """Returns the cells without the A/A cells."""
    return [cell for cell in cells if cell.role == "replicate"]


def keep_comparable(tasks: Mapping[str, list[Cell]]) -> Mapping[str, list[Cell]]:
    """Returns the tasks that have more than A/A cells; all tasks if none has, so that whoever needs one is refused."""
    return {task: cells for task, cells in tasks.items() if replicated(cells)} or tasks


def pair_aa_cells(cells: Sequence[Cell]) -> list[tuple[Cell, Cell]]:
    """Returns each A/A cell with the cell that it repeats, except those whose cell is not in the tables."""
    by_id = {cell.cell_id: cell for cell in replicated(cells)}
    pairs = [(cell, by_id.get(cell.cell_id.removesuffix("-aa"))) for cell in cells if cell.role == "aa"]
    return [(cell, reference) for cell, reference in pairs if reference]


def find_varying(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Returns the factors that have several levels among the cells; all factors if none has."""
    paths = tuple(cells[0].labels) if cells else ()
    return tuple(path for path in paths if len({cell.labels[path] for cell in cells}) > 1) or paths


def levels_of(cell: Cell, paths: Sequence[str]) -> str:
    """Returns 'body · 20', short enough for the axis of a figure."""
    return " · ".join(cell.labels[path] for path in paths) or "all trials"


def name_cells(cells: Sequence[Cell], paths: Sequence[str], most: int = 36) -> list[str]:
    """Returns 'body · 20' for each cell, for labels side by side in a figure; files are without their folders."""
    short = {path: shorten_labels((cell.labels[path] for cell in cells), most) for path in paths}
    return [" · ".join(short[path][cell.labels[path]] for path in paths) or "all trials" for cell in cells]


def name_tasks(tasks: Iterable[str]) -> dict[str, str]:
    """Returns what a figure calls each task: a file without its folders, and a long declaration without its middle."""
    return shorten_labels(tasks, 60)


def describe_shared(cells: Sequence[Cell], shown: Sequence[str]) -> str:
    """Returns a sentence on the factors that are not shown because all cells have the same level."""
    held = [path for path in cells[0].labels if path not in shown]
    return f" All cells have {cells[0].describe(held)}." if held else ""


def describe_completeness(cells: Iterable[Cell]) -> str:
    """Returns a sentence on how many planned trials are ok, and on the status of the rest; a trial of two cells counts once."""
    planned = list_different_trials(cells)
    counts = Counter(trial.status for trial in planned)
    n_worst = sum(trial.status != "ok" and trial.counts for trial in planned)
    text = count_ok(counts["ok"], counts.total())
    text += f"; the rest: {describe_not_ok(counts)}" if describe_lacking(counts) else ""
    text += f"; the space scores {n_worst} of these as the worst trial of the task" if n_worst else ""
    return f"{text}."


def list_different_trials(cells: Iterable[Cell]) -> list[CellTrial]:
    """Returns the trials of the cells, each once: equal work of several cells, such as a tuned and an untuned one, is one."""
    trials: dict[tuple[str, ...], CellTrial] = {}
    for cell in cells:
        for trial in cell.trials:
            key = (trial.trial_id,) if trial.trial_id else (cell.task, cell.cell_id, str(trial.seed))
            trials.setdefault(key, trial)
    return list(trials.values())


def count_ok(n_ok: int, n_planned: int) -> str:
    """Returns '3 of 5 planned trials are ok', or '1 of 1 planned trial is ok'."""
    return f"{n_ok:,} of {n_planned:,} planned {'trial is' if n_planned == 1 else 'trials are'} ok"


def describe_not_ok(statuses: Mapping[str, int]) -> str:
    """Returns how many trials have each status but ok, and what lost means if any is lost."""
    return describe_lacking(statuses) + (" (lost: its worker died too often)" if statuses.get("lost") else "")


def describe_lacking(statuses: Mapping[str, int]) -> str:
    """Returns '2 failed, 1 lost'; empty if all trials are ok."""
    return ", ".join(f"{n} {status}" for status, n in statuses.items() if status != "ok" and n)


# Base ---------------------------------------------------------------------------------------------


def named_levels(
    option: str, items: Sequence[str], cells: Sequence[Cell], more: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Returns the (factor, level) of each 'factor=level', with the level as the table writes it.

    Raises:
        InputError: with every factor and level that the cells do not have.
    """
    factors, named, problems = [*cells[0].labels, *more], [], []
    for item in items:
        path, _, wanted = item.partition("=")
        known = dict.fromkeys(_list_known(cells, path))
        level = next((level for level in known if is_level(level, wanted)), None)
        if path not in factors:
            problems.append(
                f"{option} {item!r}: {path!r} is not a factor of these tables. Factors: {', '.join(factors)}."
            )
        elif level is None:
            problems.append(f"{option} {item!r}: no cell has that level of {path}. Levels: {', '.join(known)}.")
        else:
            named.append((path, level))
    if problems:
        raise InputError(problems)
    return named


def _list_known(cells: Sequence[Cell], path: str) -> list[str]:
    if path == "task":
        return [cell.task for cell in cells]
    if path == "seed":
        return [str(seed) for seed in sorted({seed for cell in cells for seed in cell.values})]
    return [cell.labels[path] for cell in cells if path in cell.labels]


def is_level(level: str, wanted: str) -> bool:
    """Whether a level equals the wanted text; numbers may be written differently."""
    try:
        return level == wanted or float(level) == float(wanted)
    except ValueError:
        return False


def find_base_cell(cells: Sequence[Cell], named: Mapping[str, str]) -> Cell:
    """Returns the cell that the other cells of a task are compared to: the first, with the named levels in its place.

    Combinations that are the same work are one cell, so no cell may have exactly these levels. Then it is the only cell
    with the named levels.

    Raises:
        InputError: if no cell has the named levels, or if several have them and none has the other levels of the first.
    """
    candidates = replicated(cells)
    if not candidates:
        raise InputError(f"{cells[0].task}: these tables have only the A/A cell. Collect the whole sweep.")
    having = [cell for cell in candidates if all(cell.labels[path] == level for path, level in named.items())]
    wanted = {**candidates[0].labels, **named}
    exact = [cell for cell in having if cell.labels == wanted] or having
    if len(exact) == 1 or (exact and not named):
        return exact[0]
    text, task = ", ".join(f"{path}={level}" for path, level in named.items()), candidates[0].task
    if not exact:
        names = "; ".join(cell.name for cell in candidates)
        raise InputError(f"--base {text}: no cell of {task} has these levels. Name the levels of one of: {names}.")
    several = "; ".join(f"{cell.name} (cell {cell.cell_id})" for cell in exact)
    raise InputError(f"--base {text}: {len(exact)} cells of {task} have these levels. Name more levels of: {several}.")


def numbers_by_task(option: str, items: Sequence[str], tasks: Iterable[str]) -> dict[str, float]:
    """Returns the number of each task that gets one, from '0.01' (all tasks) and 'task=0.01'.

    Raises:
        InputError: with each item that is not a number of 0 or more, or whose task is not in the tables.
    """
    known, problems = list(tasks), []
    given: dict[str, float] = {}
    for item in items:
        task, _, text = item.rpartition("=")
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            problems.append(f"{option} {item!r}: {text!r} is not a number of 0 or more. Write 0.01, or TASK=0.01.")
        elif task and task not in known:
            problems.append(f"{option} {item!r}: no task {task!r} in these tables. Tasks: {', '.join(known)}.")
        else:
            given |= {task: number} if task else dict.fromkeys([name for name in known if name not in given], number)
    if problems:
        raise InputError(problems)
    return given


# Words --------------------------------------------------------------------------------------------


def shorten_text(text: str, most: int = 44) -> str:
    """Returns a text for a figure as one line, without its middle if it is long."""
    half, text = (most - 1) // 2, join_lines(text)
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"
