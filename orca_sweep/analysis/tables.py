"""What the tables share: arms and their base, and texts that figures have room for."""

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orca_sweep.analysis.writing import join_lines
from orca_sweep.config.labels import shorten_labels
from orca_sweep.errors import InputError
from orca_sweep.results import TRIAL_MEASURES, Results, TaskMetric, read_task_metrics, scored
from orca_sweep.stats.modes import Mode, describe_mode

if TYPE_CHECKING:
    import pandas as pd

SEED_VARIES = "seed_varies"
"""What the run seed draws: cells that differ in it differ in spread on purpose."""


# Arms ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arm:
    """One cell of a task, or its A/A arm, and what its trials count with. Candidates of tuning are no part of it."""

    cell_id: str
    role: str
    """replicate, or aa."""
    task: str
    metric: str
    """The unit of the values; empty as long as no trial is ok."""
    levels: Mapping[str, str]
    """As text, of the factors but the task, and of what else tells cells of equal levels apart."""
    values: Mapping[int, float]
    """By seed; NaN where a planned trial has no result."""
    statuses: Mapping[int, str]
    mode: Mode = "min"
    """Which way round the metric is compared."""
    unit: str = ""

    @property
    def name(self) -> str:
        """'proxy none, finetune.freeze body'; the A/A arm is marked."""
        named = self.said(tuple(self.levels))
        return named if self.role == "replicate" else f"{named} (A/A arm)"

    def said(self, paths: Sequence[str]) -> str:
        """Returns its levels of some factors: 'proxy none, finetune.freeze body'."""
        return ", ".join(f"{path} {self.levels[path]}" for path in paths) or "all trials"

    @property
    def found(self) -> list[float]:
        """The values that there are."""
        return [value for value in self.values.values() if math.isfinite(value)]


def arms(results: Results, metric: str | None = None) -> tuple[Arm, ...]:
    """Returns every cell and A/A arm, in the order of the table.

    Raises:
        InputError: if there are no trials, a column is missing, a cell has several trials of one seed, or the trials of a
            task differ in what they measure.
    """
    require_columns(results, ("task", "metric", *results.factors))
    trials = scored(results, metric)
    problems = list(_find_doubled(trials[trials["role"] != "search"]))
    if problems:
        raise InputError(problems)
    paths = _told_apart(trials.drop_duplicates("cell_id"), results)
    needed = ["cell_id", "role", "task", "metric", "seed", "status", "value"]
    labels = {path: results.label_column(path) for path in paths}
    cells: dict[str, list[dict[Any, Any]]] = {}
    for row in trials[needed].assign(**labels).to_dict("records"):
        cells.setdefault(str(row["cell_id"]), []).append(row)
    metrics = read_task_metrics(results.trials)
    return tuple(_arm(cell_id, rows, paths, metrics) for cell_id, rows in cells.items())


def _told_apart(cells: "pd.DataFrame", results: Results) -> tuple[str, ...]:
    """The factors, and what else tells cells of equal levels apart where sweeps were collected together."""
    factors = [path for path in results.factors if path != "task"]
    others = [path for path in _list_settings(cells) if path not in {"task", "seed", *factors, *results.tuned}]
    levels = results.labels.loc[cells.index, factors]
    keys = levels.assign(task=cells["task"], is_aa=cells["role"] == "aa")
    alike = keys.duplicated(keep=False)
    # Never hidden, be it a factor or not: means of cells that differ in it are not to be compared.
    more = dict.fromkeys(path for path in _find_differing(cells, others) if path == SEED_VARIES)
    for _, same in cells[alike].groupby([keys.loc[alike, str(name)] for name in keys], sort=False, dropna=False):
        more |= dict.fromkeys(_find_differing(same, others))
    return (*factors, *more)


def _list_settings(trials: "pd.DataFrame") -> list[str]:
    measured = {column.name for column in TRIAL_MEASURES} | {"value", "counts"}
    return [str(column) for column in trials if column not in measured]


def _find_differing(rows: "pd.DataFrame", columns: Iterable[str]) -> list[str]:
    return [column for column in columns if rows[column].nunique(dropna=False) > 1]


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


def _find_doubled(trials: "pd.DataFrame") -> Iterator[str]:
    twice = trials[trials.duplicated(["cell_id", "seed"], keep=False)]
    for (cell_id, seed), same in twice.groupby(["cell_id", "seed"], sort=False):
        differ = ", ".join(_find_differing(same, _list_settings(same))) or "nothing that was set"
        yield (
            f"cell {cell_id} of {same['task'].iloc[0]}: {len(same)} trials at seed {seed}, which differ in {differ}."
            " A cell has one trial per seed. Collect the sweeps that they come from into tables of their own."
        )


def _arm(
    cell_id: str, whole: Sequence[Mapping[str, Any]], paths: Sequence[str], metrics: Mapping[str, TaskMetric]
) -> Arm:
    rows = [row for row in whole if row["role"] != "search"]
    first = (rows or whole)[0]
    units = [str(row["metric"]) for row in rows if row["status"] == "ok" and isinstance(row["metric"], str)]
    return Arm(
        cell_id,
        str(first["role"]) if rows else "replicate",
        str(first["task"]),
        units[0] if units else "",
        {path: str(first[path]) for path in paths},
        {int(row["seed"]): float(row["value"]) for row in rows},
        {int(row["seed"]): str(row["status"]) for row in rows},
        metrics[str(first["task"])].mode,
        metrics[str(first["task"])].unit,
    )


def metric_of(found: Sequence[Arm]) -> TaskMetric:
    """Returns what the arms of a task are compared on; it is called 'metric' as long as no trial is ok."""
    name = next((arm.metric for arm in found if arm.metric), "metric")
    return TaskMetric(name=name, mode=found[0].mode, unit=found[0].unit)


def describe_metric(metric: str, mode: Mode) -> str:
    """Returns 'error; lower is better'."""
    return f"{metric}; {describe_mode(mode)}"


def better_side(mode: Mode) -> str:
    """Returns on which side of zero a difference is an improvement."""
    return "left" if mode == "min" else "right"


def by_task(found: Iterable[Arm]) -> dict[str, list[Arm]]:
    """Returns the arms of each task, in their order."""
    tasks: dict[str, list[Arm]] = {}
    for arm in found:
        tasks.setdefault(arm.task, []).append(arm)
    return tasks


def replicated(found: Iterable[Arm]) -> list[Arm]:
    """Returns the cells without the A/A arms."""
    return [arm for arm in found if arm.role == "replicate"]


def aa_arms(found: Sequence[Arm]) -> list[tuple[Arm, Arm]]:
    """Returns each A/A arm with the cell that it repeats; one whose cell is not in the tables is left out."""
    cells = {arm.cell_id: arm for arm in replicated(found)}
    pairs = [(arm, cells.get(arm.cell_id.removesuffix("-aa"))) for arm in found if arm.role == "aa"]
    return [(arm, reference) for arm, reference in pairs if reference]


def find_varying(found: Sequence[Arm]) -> tuple[str, ...]:
    """Returns the factors that have several levels among the arms; all of them if none has."""
    paths = tuple(found[0].levels) if found else ()
    return tuple(path for path in paths if len({arm.levels[path] for arm in found}) > 1) or paths


def levels_of(arm: Arm, paths: Sequence[str]) -> str:
    """Returns 'body · 20': what a figure's axis has room for."""
    return " · ".join(arm.levels[path] for path in paths) or "all trials"


def describe_shared(found: Sequence[Arm], shown: Sequence[str]) -> str:
    """Returns a sentence on the factors that are not shown, since all arms have the same level of them."""
    held = [path for path in found[0].levels if path not in shown]
    return f" All of them have {found[0].said(held)}." if held else ""


def describe_completeness(found: Iterable[Arm]) -> str:
    """Returns a sentence on how many planned trials are ok, and what became of the others."""
    counts = Counter(status for arm in found for status in arm.statuses.values())
    n_worst = sum(
        status != "ok" and not math.isnan(arm.values[s]) for arm in found for s, status in arm.statuses.items()
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
    option: str, items: Sequence[str], found: Sequence[Arm], more: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Returns the (factor, level) of each 'factor=level', a level as the table has it.

    Raises:
        InputError: with every factor and level that the arms do not have.
    """
    factors, named, problems = [*found[0].levels, *more], [], []
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


def _list_known(found: Sequence[Arm], path: str) -> list[str]:
    if path == "task":
        return [arm.task for arm in found]
    if path == "seed":
        return [str(seed) for seed in sorted({seed for arm in found for seed in arm.values})]
    return [arm.levels[path] for arm in found if path in arm.levels]


def is_level(level: str, wanted: str) -> bool:
    """Returns whether a level is the one that is named; numbers may be written in another way."""
    try:
        return level == wanted or float(level) == float(wanted)
    except ValueError:
        return False


def base_arm(found: Sequence[Arm], named: Mapping[str, str]) -> Arm:
    """Returns the cell of a task that the others are compared to: its first, but for the levels that are named.

    Where no cell is that, since combinations that are the same work are one cell, the only one with the named levels.

    Raises:
        InputError: if no cell has the named levels, or several and none of them has the first cell's other levels.
    """
    cells = replicated(found)
    if not cells:
        raise InputError(f"{found[0].task}: no cell but the A/A arm is in these tables. Collect the whole sweep.")
    having = [arm for arm in cells if all(arm.levels[path] == level for path, level in named.items())]
    wanted = {**cells[0].levels, **named}
    exact = [arm for arm in having if arm.levels == wanted] or having
    if len(exact) == 1 or (exact and not named):
        return exact[0]
    said = ", ".join(f"{path}={level}" for path, level in named.items())
    if not exact:
        have = "; ".join(arm.name for arm in cells)
        raise InputError(f"--base {said}: {cells[0].task} has no such cell. Name the levels of one of: {have}.")
    several = "; ".join(f"{arm.name} (cell {arm.cell_id})" for arm in exact)
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
