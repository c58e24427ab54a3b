"""What a sweep cost: hours and GPU-hours per cell and stage, with reused, failed, and tuning work separate.

Seconds come from the rows: `wall_time_s` and the time of each stage, of the last attempt where a trial was resumed.
GPU-hours are hours times the GPUs that a trial held (`gpu_s`; rows on a GPU without this value count with
--gpus-per-trial, 1 by default). CPU-hours are hours times torch threads. When several trials need a stage, one of them
computes it and the rest reuse it: the seconds count in the cell that computed it, and `reused` counts what the rest saved.
So compare cells by what their trials would take alone: spent plus reused. A trial of two cells, as combined tables may
have, spent its time in the first of them; the totals count it once.

Writes cost.csv (one line per cell), cost_total.csv, .md, .tex (booktabs), and a plot of stages per cell.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orca_sweep.analysis.figure_style import COLOURS, DARK, PAGE, FigureStyle
from orca_sweep.analysis.sheet import RowGroup, Slot, open_sheet
from orca_sweep.analysis.tables import (
    describe_completeness,
    describe_shared,
    find_varying,
    name_cells,
    name_tasks,
    read_cells,
    require_columns,
)
from orca_sweep.analysis.writing import Output, Record, Table, count_things, format_csv, format_hours
from orca_sweep.errors import InputError
from orca_sweep.results import Cell, Results
from orca_sweep.stats.digits import format_number

if TYPE_CHECKING:
    import pandas as pd

NAME = "cost"
STAGES = {
    "data_s": "loading",
    "body_s": "body",
    "proxy_s": "proxy features",
    "embedder_s": "embedder training",
    "finetune_s": "fine-tuning",
    "test_s": "test",
}
REQUIRED = (*STAGES, "wall_time_s", "reused", "reused_s", "resumed_from_epoch", "device", "n_threads", "host")
SUMS = ("other", "spent", "reused", "alone", "GPU-hours")
UNITS = {"s": "seconds", "min": "minutes", "h": "hours"}
KINDS = ("ok", "failed", "search")
MAX_PANELS, MAX_ROWS = 8, 40
FILLS = (
    (COLOURS[7], ""), (COLOURS[0], "////"), (COLOURS[4], "...."), (COLOURS[2], "\\\\\\\\"), (COLOURS[5], ""),
    (COLOURS[3], "xxxx"), (DARK, ""),
)  # fmt: skip
"""Colours and hatches of stages, then of the rest: neighbours differ in lightness, and hatches distinguish them in grey."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """The time that a group of trials took."""

    n: int
    n_untimed: int
    """Trials without a time: not run yet, or lost."""
    n_resumed: int
    """Trials whose time covers only the last attempt."""
    stages: Mapping[str, float]
    """Seconds by stage."""
    wall_s: float
    gpu_s: float
    cpu_s: float
    reused_s: float
    """The cost of the stages taken from the store, when they were computed."""
    n_reused: int
    """Trials that took a stage from the store."""

    @property
    def other_s(self) -> float:
        """Seconds outside the stages: building the model, checkpoints, records."""
        return max(0.0, self.wall_s - sum(self.stages.values()))


@dataclass(frozen=True, kw_only=True)
class CellCost:
    """The cost of one cell or A/A cell."""

    cell: Cell
    ok: Spent
    failed: Spent
    """Replicates that are not ok, including those without a record."""
    search: Spent
    """Tuning candidates of any status."""

    @property
    def all_s(self) -> float:
        """Seconds of all trials of the cell."""
        return self.ok.wall_s + self.failed.wall_s + self.search.wall_s


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of all cells and of all trials."""

    cells: tuple[CellCost, ...]
    ok: Spent
    failed: Spent
    search: Spent
    devices: Mapping[str, int]
    """Number of trials by device and threads, for example 'cpu, 2 threads'."""
    n_hosts: int
    gpus_per_trial: float
    n_unnamed: int
    """Trials with a time but without a device; hours include them, CPU-hours and GPU-hours do not."""
    n_assumed: int
    """Trials on a GPU whose rows do not say how many they held; they count with ``gpus_per_trial``."""


def compute(results: Results, gpus_per_trial: float = 1.0) -> Cost:
    """Returns the cost of each cell and of the whole sweep.

    Raises:
        InputError: if there are no trials, a column is missing, or ``gpus_per_trial`` is not a positive number.
    """
    if not 0 < gpus_per_trial < math.inf:
        raise InputError(
            f"--gpus-per-trial {gpus_per_trial:g}: the number must be positive. Use 1, or 0.5 for half a GPU."
        )
    require_columns(results, REQUIRED)
    trials = results.trials
    is_counted = _find_counted(trials)
    shares = _compute_shares(trials, ~is_counted | _find_taken(trials), gpus_per_trial)
    kinds = (trials["status"] == "ok").map({True: "ok", False: "failed"}).mask(trials["role"] == "search", "search")
    by_cell = shares.groupby([trials["cell_id"], kinds]).sum().to_dict("index")
    whole = shares[is_counted].groupby(kinds).sum().to_dict("index")
    cells = tuple(
        CellCost(cell=cell, **{kind: _make_spent(by_cell.get((cell.cell_id, kind))) for kind in KINDS})
        for cell in read_cells(results)
    )
    timed = trials[is_counted & trials["wall_time_s"].notna()]
    devices = Counter(_name_device(row) for row in timed[["device", "n_threads"]].itertuples(index=False))
    return Cost(
        cells=cells,
        **{kind: _make_spent(whole.get(kind)) for kind in KINDS},
        devices=devices,
        n_hosts=int(timed["host"].nunique()),
        gpus_per_trial=gpus_per_trial,
        n_unnamed=int(shares.loc[is_counted, "n_unnamed"].sum()),
        n_assumed=int(shares.loc[is_counted, "n_assumed"].sum()),
    )


def _find_taken(trials: "pd.DataFrame") -> "pd.Series[bool]":
    """Returns which rows are of trials that another space ran."""
    return trials["taken_from"].fillna("") != "" if "taken_from" in trials else trials["trial_id"].isna()


def _find_counted(trials: "pd.DataFrame") -> "pd.Series[bool]":
    """Returns one row of each trial: the first, but preferably one of the space that ran it, and a replicate."""
    order = trials.assign(is_taken=_find_taken(trials), is_candidate=trials["role"] == "search")
    order = order.sort_values(["is_taken", "is_candidate"], kind="stable")
    return ~order.duplicated("trial_id").loc[trials.index]


def _compute_shares(trials: "pd.DataFrame", is_taken: "pd.Series[bool]", gpus_per_trial: float) -> "pd.DataFrame":
    """Returns what each row adds to the fields of its `Spent`; a trial that ran for another cell is reused as a whole."""
    whole = trials["wall_time_s"].astype(float)
    seconds = whole.mask(is_taken, 0.0)
    is_named = trials["device"].notna() & (trials["device"] != "")
    on_gpu = is_named & ~trials["device"].astype(str).str.startswith("cpu")
    recorded = trials["gpu_s"].astype(float).mask(is_taken, 0.0) if "gpu_s" in trials else seconds * math.nan
    assumed = (seconds.where(on_gpu, 0.0) * gpus_per_trial).where(is_named)
    return trials[list(STAGES)].astype(float).mask(is_taken, 0.0).assign(
        n=1,
        reused_s=trials["reused_s"].astype(float) + whole.where(is_taken, 0.0),
        n_untimed=seconds.isna(),
        n_resumed=trials["resumed_from_epoch"].fillna(0) > 0,
        wall_s=seconds,
        gpu_s=recorded.fillna(assumed),
        n_assumed=on_gpu & recorded.isna() & seconds.notna(),
        n_unnamed=~is_named & seconds.notna(),
        cpu_s=(seconds * trials["n_threads"].astype(float)).where(is_named),
        n_reused=is_taken | (trials["reused"].fillna("") != ""),
    )  # fmt: skip


def _make_spent(sums: Mapping[Any, float] | None) -> Spent:
    amounts = sums or {}
    return Spent(
        n=int(amounts.get("n", 0)),
        n_untimed=int(amounts.get("n_untimed", 0)),
        n_resumed=int(amounts.get("n_resumed", 0)),
        stages={name: float(amounts.get(name, 0.0)) for name in STAGES},
        wall_s=float(amounts.get("wall_s", 0.0)),
        gpu_s=float(amounts.get("gpu_s", 0.0)),
        cpu_s=float(amounts.get("cpu_s", 0.0)),
        reused_s=float(amounts.get("reused_s", 0.0)),
        n_reused=int(amounts.get("n_reused", 0)),
    )


def _name_device(row: Any) -> str:
    device = row.device if isinstance(row.device, str) and row.device else "a device that the tables do not name"
    return device if math.isnan(float(row.n_threads)) else f"{device}, {count_things(int(row.n_threads), 'thread')}"


# Numbers ------------------------------------------------------------------------------------------


def numbers(cost: Cost) -> str:
    """Returns the costs as CSV, one line per cell, with seconds summed over its trials."""
    return format_csv([_make_record(cell_cost) for cell_cost in cost.cells])


def _make_record(cell_cost: CellCost) -> Record:
    ok = cell_cost.ok
    return {
        "task": cell_cost.cell.task,
        "cell_id": cell_cost.cell.cell_id,
        "role": cell_cost.cell.role,
        **cell_cost.cell.labels,
        "n_ok": ok.n,
        **ok.stages,
        "other_s": ok.other_s,
        "wall_time_s": ok.wall_s,
        "gpu_hours": ok.gpu_s / 3600,
        "cpu_hours": ok.cpu_s / 3600,
        "reused_s": ok.reused_s,
        "n_reused": ok.n_reused,
        "alone_s": ok.wall_s + ok.reused_s,
        "n_resumed": ok.n_resumed,
        **_sum_kind("failed", cell_cost.failed),
        **_sum_kind("search", cell_cost.search),
    }


def _sum_kind(kind: str, spent: Spent) -> Record:
    return {
        f"{kind}_n": spent.n,
        f"{kind}_n_untimed": spent.n_untimed,
        f"{kind}_wall_time_s": spent.wall_s,
        f"{kind}_gpu_hours": spent.gpu_s / 3600,
        f"{kind}_cpu_hours": spent.cpu_s / 3600,
    }


def total_numbers(cost: Cost) -> str:
    """Returns the sums over all trials as CSV, in the lines ok, failed, search, all."""
    return format_csv(
        [
            {
                "trials": kind,
                "n": sum(part.n for part in spent),
                "n_untimed": sum(part.n_untimed for part in spent),
                "hours": sum(part.wall_s for part in spent) / 3600,
                "gpu_hours": sum(part.gpu_s for part in spent) / 3600,
                "cpu_hours": sum(part.cpu_s for part in spent) / 3600,
                "reused_hours": sum(part.reused_s for part in spent) / 3600,
            }
            for kind, spent in _split_kinds(cost)
        ]
    )


def _split_kinds(cost: Cost) -> Iterable[tuple[str, tuple[Spent, ...]]]:
    parts = dict(zip(KINDS, (cost.ok, cost.failed, cost.search), strict=True))
    return (*((kind, (spent,)) for kind, spent in parts.items()), ("all", tuple(parts.values())))


def build_tables(cost: Cost) -> tuple[Table, ...]:
    """Returns a table of all trials, then a table per task."""
    tasks = _group_by_task(cost)
    return (
        _build_total_table(cost),
        *(_build_table(task, costs, i) for i, (task, costs) in enumerate(tasks.items(), 1)),
    )


def _group_by_task(cost: Cost) -> dict[str, list[CellCost]]:
    tasks: dict[str, list[CellCost]] = {}
    for cell_cost in cost.cells:
        tasks.setdefault(cell_cost.cell.task, []).append(cell_cost)
    return tasks


def _build_total_table(cost: Cost) -> Table:
    names = {"ok": "ok", "failed": "not ok", "search": "tuning candidates", "all": "all"}
    rows = [
        (names[kind], str(sum(part.n for part in spent)), *(format_hours(sum(getattr(part, name) for part in spent)) for name in
         ("wall_s", "gpu_s", "cpu_s", "reused_s")))
        for kind, spent in _split_kinds(cost)
    ]  # fmt: skip
    ran = (
        "; ".join(f"{count_things(n, 'trial')} on {device}" for device, n in cost.devices.items())
        or "no trial has a time yet"
    )
    gpus = ""
    if cost.n_assumed:
        gpus = f" Trials that do not say how many GPUs they held: {cost.n_assumed}; each counts with {cost.gpus_per_trial:g}."
    hosts = count_things(cost.n_hosts, "host")
    caption = (
        f"Hours summed over trials: {ran}; {hosts}.{gpus} CPU-hours are hours times torch threads. Reused: the cost of"
        " the stages taken from the store when they were computed; the hours do not include it."
    )
    head = ("trials", "n", "hours", "GPU-hours", "CPU-hours", "reused, hours")
    notes = tuple(_list_gaps(cost))
    return Table(
        name=f"{NAME}-total",
        title="Cost",
        caption=caption,
        head=head,
        align="lrrrrr",
        blocks=(tuple(rows[:-1]), (rows[-1],)),
        notes=notes,
    )


def _list_gaps(cost: Cost) -> Iterable[str]:
    parts = (cost.ok, cost.failed, cost.search)
    n_untimed, n_resumed = sum(part.n_untimed for part in parts), sum(part.n_resumed for part in parts)
    if cost.n_unnamed:
        yield f"Trials whose device is not recorded: {cost.n_unnamed}. CPU-hours and GPU-hours do not include them."
    if n_untimed:
        yield f"Trials without a time: {n_untimed}, unfinished, or lost with their worker. No number includes their time."
    if n_resumed:
        yield f"Trials that were resumed: {n_resumed}. Only their last attempt counts."


def _build_table(task: str, costs: Sequence[CellCost], i: int) -> Table:
    cells = [cell_cost.cell for cell_cost in costs]
    paths = find_varying(cells)
    has_aa = any(cell.role == "aa" for cell in cells)
    scale, unit = _choose_unit(max(cell_cost.all_s for cell_cost in costs))
    rows = []
    for cell_cost in costs:
        levels = [cell_cost.cell.labels[path] for path in paths]
        levels += [{"aa": "A/A"}.get(cell_cost.cell.role, "cell")] if has_aa else []
        rows.append((*levels, *_format_cost(cell_cost, scale, decimals=1 if unit == "s" else 2)))
    head = (*paths, *(["cell"] if has_aa else []), "ok", *STAGES.values(), *SUMS, "not ok", "searched")
    n_levels = len(paths) + has_aa
    return Table(
        name=f"{NAME}-{i}",
        title=f"{task}: cost",
        caption=_write_caption(cells, paths, unit),
        head=head,
        align="l" * n_levels + "r" * (len(head) - n_levels),
        blocks=(tuple(rows),),
    )


def _format_cost(cell_cost: CellCost, scale: float, decimals: int) -> list[str]:
    ok = cell_cost.ok
    times = (*ok.stages.values(), ok.other_s, ok.wall_s, ok.reused_s, ok.wall_s + ok.reused_s)
    separate = (_format_spent(spent, scale, decimals) for spent in (cell_cost.failed, cell_cost.search))
    return [str(ok.n), *(format_number(s / scale, decimals) for s in times), format_hours(ok.gpu_s), *separate]


def _write_caption(cells: Sequence[Cell], paths: Sequence[str], unit: str) -> str:
    return (
        f"{UNITS[unit].capitalize()} summed over the ok trials of each cell, by stage; alone is spent plus reused: the time"
        " if each trial did all of its work. The last two columns give the time of trials that are not ok and of tuning"
        f" candidates, with their number in parentheses. {describe_completeness(cells)}{describe_shared(cells, paths)}"
    )


def _format_spent(spent: Spent, scale: float, decimals: int) -> str:
    return f"{format_number(spent.wall_s / scale, decimals)} ({spent.n})" if spent.n else "0"


def _choose_unit(most_s: float) -> tuple[float, str]:
    if most_s < 600:
        return 1.0, "s"
    return (60.0, "min") if most_s < 36_000 else (3600.0, "h")


# Figure -------------------------------------------------------------------------------------------


def plot(cost: Cost, style: FigureStyle = PAGE) -> Any:
    """Returns a matplotlib figure with a panel per task and a bar per cell, divided into stages."""
    drawn = list(_group_by_task(cost).items())[:MAX_PANELS]
    looks, names = _choose_looks(cost.cells), name_tasks(task for task, _ in drawn)
    with open_sheet(style, write_caption(cost)) as sheet:
        slots = [sheet.add_band()[0] for _ in drawn]
        for slot, (task, costs) in zip(slots, drawn, strict=True):
            _draw_panel(slot, names[task], costs, looks)
        sheet.add_legend(slots[0].axis.get_legend_handles_labels()[0])
    return sheet.figure


def write_caption(cost: Cost) -> str:
    """Returns what the figure shows, and what it leaves to the table."""
    n_hidden = len(_group_by_task(cost)) - MAX_PANELS
    more = f" {n_hidden} more tasks are only in the table." if n_hidden > 0 else ""
    return (
        "Time summed over the trials of each cell; n: its ok trials. Dashed: the cost of stages reused from other trials, which"
        f" the cell did not spend.{more} {describe_completeness(of_cell.cell for of_cell in cost.cells)}"
    )


def _choose_looks(costs: Iterable[CellCost]) -> dict[str, dict[str, Any]]:
    """Returns how the parts of a bar look, without the parts that no cell has."""
    looks: dict[str, dict[str, Any]] = {
        name: {"facecolor": colour, "edgecolor": "white", "linewidth": 0.4, "hatch": hatch}
        for name, (colour, hatch) in zip((*STAGES.values(), "other"), FILLS, strict=True)
    }
    looks["not ok"] = {"facecolor": "white", "edgecolor": DARK, "hatch": "//////", "linewidth": 0.6}
    looks["tuning candidates"] = {"facecolor": "white", "edgecolor": DARK, "hatch": "....", "linewidth": 0.6}
    looks["reused"] = {"facecolor": "none", "edgecolor": DARK, "linestyle": "--", "linewidth": 0.8}
    parts = [_split_bar(cell_cost) for cell_cost in costs]
    return {name: look for name, look in looks.items() if any(part[name] > 0 for part in parts)}


def _draw_panel(slot: Slot, name: str, costs: Sequence[CellCost], looks: Mapping[str, Mapping[str, Any]]) -> None:
    drawn = costs[:MAX_ROWS]
    paths = find_varying([cell_cost.cell for cell_cost in costs])
    more = f" (the first {len(drawn)} of {len(costs)} cells)" if len(costs) > len(drawn) else ""
    axis = slot.show(f"{name}: {' · '.join(paths) or 'all trials'}{more}")
    labels = name_cells([cell_cost.cell for cell_cost in drawn], paths)
    groups = [
        RowGroup(label=f"A/A of {label}" if cell_cost.cell.role == "aa" else label, notes=(f"n = {cell_cost.ok.n}",))
        for label, cell_cost in zip(labels, drawn, strict=True)
    ]
    positions = slot.place_rows(groups)
    scale, unit = _choose_unit(max(cell_cost.all_s for cell_cost in costs))
    left = [0.0] * len(drawn)
    for part, look in looks.items():
        widths = [_split_bar(cell_cost)[part] / scale for cell_cost in drawn]
        axis.barh(positions, widths, left=left, height=slot.style.font_size, label=part, **look)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axis.set_xlim(left=0)
    slot.label_x(UNITS[unit])


def _split_bar(cell_cost: CellCost) -> dict[str, float]:
    """Returns the seconds of each part of a bar, from left to right."""
    stages = {text: cell_cost.ok.stages[name] for name, text in STAGES.items()}
    separate = {"not ok": cell_cost.failed.wall_s, "tuning candidates": cell_cost.search.wall_s}
    return {**stages, "other": cell_cost.ok.other_s, **separate, "reused": cell_cost.ok.reused_s}


def make_output(results: Results, style: FigureStyle = PAGE, **asked: Any) -> Output:
    """Returns what to write of the analysis; ``asked`` are the options of ``compute``."""
    cost = compute(results, **asked)
    return Output(
        numbers=numbers(cost),
        more_numbers={"total": total_numbers(cost)},
        tables=build_tables(cost),
        figure=plot(cost, style),
        caption=write_caption(cost),
    )
