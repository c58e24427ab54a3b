"""What the tables share: cells and their base, and texts that figures have room for."""

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from orca_sweep.analysis.writing import join_lines
from orca_sweep.config.labels import shorten_labels
from orca_sweep.errors import InputError
from orca_sweep.results import Cell, Results, TaskMetric, find_repeated_seeds, summarise_cells
from orca_sweep.stats.modes import Mode, describe_mode

# Cells --------------------------------------------------------------------------------------------


def read_cells(
    results: Results, metric: str | None = None, level: float = 0.95, measures: Iterable[str] = ()
) -> tuple[Cell, ...]:
    """Returns every cell, A/A repeats too, in the order of the table; arguments as of `results.summarise_cells`.

    Raises:
        InputError: if there are no trials, a column is missing, a cell has several trials of one seed, or the trials of a
            task differ in what they measure.
    """
    require_columns(results, ("task", "metric", *results.factors))
    cells = summarise_cells(results, metric, level, measures)
    problems = list(find_repeated_seeds(results))
    if problems:
        raise InputError(problems)
    return cells


def require_columns(results: Results, columns: Iterable[str]) -> None:
    """Refuses a table without trials, or without some of the columns.

    Raises:
        InputError: naming what is missing.
    """
    missing = [column for column in columns if column not in results.trials]
    if missing:
        raise InputError(
            f"trials.parquet: no column {', '.join(missing)}. These tables are not what this version collects. Make them"
            " anew with 'orca-sweep collect'."
        )
    if not len(results.trials):
        raise InputError("trials.parquet: no trials, so there is nothing to show. Launch a sweep and collect it first.")


def metric_of(found: Sequence[Cell]) -> TaskMetric:
    """Returns what the cells of a task are compared on; it is called 'metric' as long as no trial is ok."""
    name = next((cell.metric for cell in found if cell.metric), "metric")
    return TaskMetric(name=name, mode=found[0].mode, unit=found[0].unit)


def describe_metric(metric: str, mode: Mode) -> str:
    """Returns 'error; lower is better'."""
    return f"{metric}; {describe_mode(mode)}"


def better_side(mode: Mode) -> str:
    """Returns on which side of zero a difference is an improvement."""
    return "left" if mode == "min" else "right"


def by_task(found: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Returns the cells of each task, in their order."""
    tasks: dict[str, list[Cell]] = {}
    for cell in found:
        tasks.setdefault(cell.task, []).append(cell)
    return tasks


def replicated(found: Iterable[Cell]) -> list[Cell]:
    """Returns the cells without the A/A cells."""
    return [cell for cell in found if cell.role == "replicate"]


def pair_aa_cells(found: Sequence[Cell]) -> list[tuple[Cell, Cell]]:
    """Returns each A/A cell with the cell that it repeats; one whose cell is not in the tables is left out."""
    cells = {cell.cell_id: cell for cell in replicated(found)}
    pairs = [(cell, cells.get(cell.cell_id.removesuffix("-aa"))) for cell in found if cell.role == "aa"]
    return [(cell, reference) for cell, reference in pairs if reference]


def find_varying(found: Sequence[Cell]) -> tuple[str, ...]:
    """Returns the factors that have several levels among the cells; all of them if none has."""
    paths = tuple(found[0].labels) if found else ()
    return tuple(path for path in paths if len({cell.labels[path] for cell in found}) > 1) or paths


def levels_of(cell: Cell, paths: Sequence[str]) -> str:
    """Returns 'body · 20': what a figure's axis has room for."""
    return " · ".join(cell.labels[path] for path in paths) or "all trials"


def describe_shared(found: Sequence[Cell], shown: Sequence[str]) -> str:
    """Returns a sentence on the factors that are not shown, since all cells have the same level of them."""
    held = [path for path in found[0].labels if path not in shown]
    return f" All of them have {found[0].describe(held)}." if held else ""


def describe_completeness(found: Iterable[Cell]) -> str:
    """Returns a sentence on how many planned trials are ok, and what became of the others."""
    counts = Counter(status for cell in found for status in cell.statuses.values())
    n_worst = sum(
        status != "ok" and not math.isnan(cell.values[s]) for cell in found for s, status in cell.statuses.items()
    )
    text = f"{counts['ok']} of {counts.total()} planned trials are ok"
    text += f"; the others: {describe_not_ok(counts)}" if describe_lacking(counts) else ""
    text += f"; {n_worst} of these count as the worst trial of the task, as the space asks" if n_worst else ""
    return f"{text}."


def describe_not_ok(statuses: Mapping[str, int]) -> str:
    """Returns what is lacking, and what lost means."""
    return describe_lacking(statuses) + (" (lost: its worker died too often)" if statuses.get("lost") else "")


def describe_lacking(statuses: Mapping[str, int]) -> str:
    """Returns '2 failed, 1 lost'; empty if all trials are ok."""
    return ", ".join(f"{n} {status}" for status, n in statuses.items() if status != "ok" and n)


# Base ---------------------------------------------------------------------------------------------


def named_levels(
    option: str, items: Sequence[str], found: Sequence[Cell], more: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Returns the (factor, level) of each 'factor=level', a level as the table has it.

    Raises:
        InputError: with every factor and level that the cells do not have.
    """
    factors, named, problems = [*found[0].labels, *more], [], []
    for item in items:
        path, _, wanted = item.partition("=")
        known = dict.fromkeys(_list_known(found, path))
        level = next((level for level in known if is_level(level, wanted)), None)
        if path not in factors:
            problems.append(f"{option} {item!r}: {path!r} is no factor of these tables. Factors: {', '.join(factors)}.")
        elif level is None:
            problems.append(f"{option} {item!r}: no cell has that level of {path}. Levels: {', '.join(known)}.")
        else:
            named.append((path, level))
    if problems:
        raise InputError(problems)
    return named


def _list_known(found: Sequence[Cell], path: str) -> list[str]:
    if path == "task":
        return [cell.task for cell in found]
    if path == "seed":
        return [str(seed) for seed in sorted({seed for cell in found for seed in cell.values})]
    return [cell.labels[path] for cell in found if path in cell.labels]


def is_level(level: str, wanted: str) -> bool:
    """Returns whether a level is the one that is named; numbers may be written in another way."""
    try:
        return level == wanted or float(level) == float(wanted)
    except ValueError:
        return False


def find_base_cell(found: Sequence[Cell], named: Mapping[str, str]) -> Cell:
    """Returns the cell of a task that the others are compared to: its first, but for the levels that are named.

    Where no cell is that, since combinations that are the same work are one cell, the only one with the named levels.

    Raises:
        InputError: if no cell has the named levels, or several and none of them has the first cell's other levels.
    """
    cells = replicated(found)
    if not cells:
        raise InputError(f"{found[0].task}: no cell but the A/A cell is in these tables. Collect the whole sweep.")
    having = [cell for cell in cells if all(cell.labels[path] == level for path, level in named.items())]
    wanted = {**cells[0].labels, **named}
    exact = [cell for cell in having if cell.labels == wanted] or having
    if len(exact) == 1 or (exact and not named):
        return exact[0]
    said = ", ".join(f"{path}={level}" for path, level in named.items())
    if not exact:
        have = "; ".join(cell.name for cell in cells)
        raise InputError(f"--base {said}: {cells[0].task} has no such cell. Name the levels of one of: {have}.")
    several = "; ".join(f"{cell.name} (cell {cell.cell_id})" for cell in exact)
    raise InputError(
        f"--base {said}: {len(exact)} cells of {cells[0].task} have these levels. Name more of: {several}."
    )


def numbers_by_task(option: str, items: Sequence[str], tasks: Iterable[str]) -> dict[str, float]:
    """Returns a number for each task that has one, from '0.01' (all tasks) and 'task=0.01'.

    Raises:
        InputError: with each that is no number, 0 or more, or of no task in the tables.
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
            problems.append(f"{option} {item!r}: {text!r} is no number, 0 or more. Write 0.01, or TASK=0.01.")
        elif task and task not in known:
            problems.append(f"{option} {item!r}: no task {task!r} in these tables. Tasks: {', '.join(known)}.")
        else:
            given |= {task: number} if task else dict.fromkeys([name for name in known if name not in given], number)
    if problems:
        raise InputError(problems)
    return given


# Words --------------------------------------------------------------------------------------------


def shorten_text(text: str, most: int = 44) -> str:
    """Returns a text for a figure as one line, its middle left out if it is long; of several, see ``shorts``."""
    half, text = (most - 1) // 2, join_lines(text)
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def wrap_title(text: str, most: int = 60) -> str:
    """Returns a text for the title of a figure, whole, on as many lines as it takes."""
    return textwrap.fill(join_lines(text), most)


def shorten_texts(texts: Iterable[str], most: int = 44) -> list[str]:
    """Returns texts that stand side by side in a figure, each on one line; different ones stay different."""
    whole = list(texts)
    made = shorten_labels(whole, most)
    return [made[text] for text in whole]
