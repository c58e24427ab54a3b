"""What a sweep cost: hours and GPU-hours per cell, by stage, with reused, failed and searched work apart.

Seconds are those the rows tell: `wall_time_s` and the stages' own, of the last attempt where a trial was resumed. GPU-
hours are hours times the GPUs that a trial held (`gpu_s`; of rows that do not tell, those on a GPU count with
--gpus-per-trial, 1 by default); CPU-hours are hours times torch threads. A stage that several trials need is computed by
one of them and reused by the others: its seconds stand in the cell that computed it, and what the others would have paid
stands under reused. So compare cells by what their trials would take alone: spent plus reused.

Writes cost.csv (one line per cell), cost_total.csv, .md, .tex (booktabs), and a plot of stages per cell.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orca_sweep.analysis.figures import COLOURS
from orca_sweep.analysis.tables import (
    by_task,
    describe_completeness,
    describe_shared,
    find_varying,
    levels_of,
    read_cells,
    require_columns,
    shorten_text,
    shorten_texts,
    wrap_title,
)
from orca_sweep.analysis.writing import Output, Record, Table, format_csv, format_number
from orca_sweep.errors import InputError
from orca_sweep.results import Cell, Results

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
NEEDED = (*STAGES, "wall_time_s", "reused", "reused_s", "resumed_from_epoch", "device", "n_threads", "host")
SUMS = ("other", "spent", "reused", "alone", "GPU-hours")
UNITS = {"s": "seconds", "min": "minutes", "h": "hours"}
KINDS = ("ok", "failed", "search")
MAX_PANELS, MAX_ROWS = 8, 40


@dataclass(frozen=True)
class Spent:
    """What some trials took."""

    n: int
    n_untimed: int
    """Trials without a time: not run yet, or lost."""
    n_resumed: int
    """Trials of which the last attempt alone is known."""
    stages: Mapping[str, float]
    """Seconds by stage."""
    wall_s: float
    gpu_s: float
    cpu_s: float
    reused_s: float
    """What the stages taken from the store had cost when they were computed."""
    n_reused: int
    """Trials that took any."""

    @property
    def other_s(self) -> float:
        """Seconds that no stage has: building the model, checkpoints, records."""
        return max(0.0, self.wall_s - sum(self.stages.values()))


@dataclass(frozen=True)
class CellCost:
    """One cell, or its A/A cell."""

    cell: Cell
    ok: Spent
    failed: Spent
    """Replicates that are not ok, those without a record among them."""
    search: Spent
    """Candidates of tuning, whatever became of them."""

    @property
    def all_s(self) -> float:
        """Seconds of all its trials."""
        return self.ok.wall_s + self.failed.wall_s + self.search.wall_s


@dataclass(frozen=True)
class Cost:
    """All cells and all trials."""

    cells: tuple[CellCost, ...]
    ok: Spent
    failed: Spent
    search: Spent
    devices: Mapping[str, int]
    """Trials by device and threads, such as 'cpu, 2 threads'."""
    n_hosts: int
    gpus_per_trial: float
    n_assumed: int
    """Trials on a GPU whose rows do not tell how many they held: these count with ``gpus_per_trial``."""


def compute(results: Results, gpus_per_trial: float = 1.0) -> Cost:
    """Returns what each cell and the whole took.

    Raises:
        InputError: if there are no trials, a column is missing, or a trial's share of GPUs is no positive number.
    """
    if not 0 < gpus_per_trial < math.inf:
        raise InputError(f"--gpus-per-trial {gpus_per_trial:g}: a share is a positive number, such as 1 or 0.5.")
    require_columns(results, NEEDED)
    trials = results.trials
    shares = _compute_shares(trials, gpus_per_trial)
    kinds = (trials["status"] == "ok").map({True: "ok", False: "failed"}).mask(trials["role"] == "search", "search")
    by_cell = shares.groupby([trials["cell_id"], kinds]).sum().to_dict("index")
    whole = shares.groupby(kinds).sum().to_dict("index")
    cells = tuple(
        CellCost(cell, *(_make_spent(by_cell.get((cell.cell_id, kind))) for kind in KINDS))
        for cell in read_cells(results)
    )
    timed = trials[trials["wall_time_s"].notna()]
    devices = Counter(_name_device(row) for row in timed[["device", "n_threads"]].itertuples(index=False))
    ok, failed, search = (_make_spent(whole.get(kind)) for kind in KINDS)
    n_hosts, n_assumed = int(timed["host"].nunique()), int(shares["n_assumed"].sum())
    return Cost(cells, ok, failed, search, devices, n_hosts, gpus_per_trial, n_assumed)


def _compute_shares(trials: "pd.DataFrame", gpus_per_trial: float) -> "pd.DataFrame":
    """What each trial adds to the numbers of a Spent."""
    seconds = trials["wall_time_s"].astype(float)
    on_gpu = ~trials["device"].fillna("cpu").astype(str).str.startswith("cpu")
    recorded = trials["gpu_s"].astype(float) if "gpu_s" in trials else seconds * math.nan
    return trials[[*STAGES, "reused_s"]].astype(float).assign(
        n=1,
        n_untimed=seconds.isna(),
        n_resumed=trials["resumed_from_epoch"].fillna(0) > 0,
        wall_s=seconds,
        gpu_s=recorded.fillna(seconds.where(on_gpu, 0.0) * gpus_per_trial),
        n_assumed=on_gpu & recorded.isna(),
        cpu_s=seconds * trials["n_threads"].astype(float),
        n_reused=trials["reused"].fillna("") != "",
    )  # fmt: skip


def _make_spent(sums: Mapping[Any, float] | None) -> Spent:
    amounts = sums or {}
    n, n_untimed, n_resumed, n_reused = (
        int(amounts.get(name, 0)) for name in ("n", "n_untimed", "n_resumed", "n_reused")
    )
    wall_s, gpu_s, cpu_s, reused_s = (
        float(amounts.get(name, 0.0)) for name in ("wall_s", "gpu_s", "cpu_s", "reused_s")
    )
    stages = {name: float(amounts.get(name, 0.0)) for name in STAGES}
    return Spent(n, n_untimed, n_resumed, stages, wall_s, gpu_s, cpu_s, reused_s, n_reused)


def _name_device(row: Any) -> str:
    threads = "" if math.isnan(float(row.n_threads)) else f", {int(row.n_threads)} thread{'s' * (row.n_threads != 1)}"
    return f"{row.device}{threads}"


# Numbers ------------------------------------------------------------------------------------------


def numbers(cost: Cost) -> str:
    """Returns the costs as CSV: one line per cell, seconds summed over its trials."""
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
        **_list_apart("failed", cell_cost.failed),
        **_list_apart("search", cell_cost.search),
    }


def _list_apart(kind: str, spent: Spent) -> Record:
    return {
        f"{kind}_n": spent.n,
        f"{kind}_n_untimed": spent.n_untimed,
        f"{kind}_wall_time_s": spent.wall_s,
        f"{kind}_gpu_hours": spent.gpu_s / 3600,
        f"{kind}_cpu_hours": spent.cpu_s / 3600,
    }


def total_numbers(cost: Cost) -> str:
    """Returns the sums over all trials as CSV: ok, failed, search, all."""
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
    """Returns a table of all trials, then one per task, as people read them."""
    tasks: dict[str, list[CellCost]] = {}
    for cell_cost in cost.cells:
        tasks.setdefault(cell_cost.cell.task, []).append(cell_cost)
    return (_total_table(cost), *(_build_table(task, costs, i) for i, (task, costs) in enumerate(tasks.items(), 1)))


def _total_table(cost: Cost) -> Table:
    names = {"ok": "ok", "failed": "not ok", "search": "candidates of tuning", "all": "all"}
    rows = [
        (names[kind], str(sum(part.n for part in spent)), *(_format_hours(sum(getattr(part, name) for part in spent)) for name in
         ("wall_s", "gpu_s", "cpu_s", "reused_s")))
        for kind, spent in _split_kinds(cost)
    ]  # fmt: skip
    ran = "; ".join(f"{n} trials on {device}" for device, n in cost.devices.items()) or "no trial has a time yet"
    gpus = ""
    if cost.n_assumed:
        gpus = f" {cost.n_assumed} trials do not tell how many GPUs they held; they count with {cost.gpus_per_trial:g}."
    hosts = f"{cost.n_hosts} host{'s' * (cost.n_hosts != 1)}"
    caption = (
        f"Hours summed over trials: {ran}; {hosts}.{gpus} CPU-hours are hours times torch threads. Reused: what stages taken"
        " from the store had cost when they were computed; it is not among the hours."
    )
    head = ("trials", "n", "hours", "GPU-hours", "CPU-hours", "reused, hours")
    notes = tuple(_describe_gaps((cost.ok, cost.failed, cost.search)))
    return Table(
        name=f"{NAME}-total",
        title="Cost",
        caption=caption,
        head=head,
        align="lrrrrr",
        blocks=(tuple(rows[:-1]), (rows[-1],)),
        notes=notes,
    )


def _format_hours(seconds: float) -> str:
    return f"{seconds / 3600:.3g}"


def _describe_gaps(spent: Sequence[Spent]) -> Iterable[str]:
    n_untimed, n_resumed = sum(part.n_untimed for part in spent), sum(part.n_resumed for part in spent)
    if n_untimed:
        yield f"Trials without a time: {n_untimed}, unfinished, or lost with their worker. What they took is in no number."
    if n_resumed:
        yield f"Trials that were resumed: {n_resumed}. Only their last attempt is counted."


def _build_table(task: str, costs: Sequence[CellCost], i: int) -> Table:
    cells = [cell_cost.cell for cell_cost in costs]
    paths = find_varying(cells)
    has_aa = any(cell.role == "aa" for cell in cells)
    scale, unit = _choose_unit(max(cell_cost.all_s for cell_cost in costs))
    places = 1 if unit == "s" else 2
    rows = []
    for cell_cost in costs:
        levels = [cell_cost.cell.labels[path] for path in paths]
        levels += [{"aa": "A/A"}.get(cell_cost.cell.role, "cell")] if has_aa else []
        ok = cell_cost.ok
        seconds = (*ok.stages.values(), ok.other_s, ok.wall_s, ok.reused_s, ok.wall_s + ok.reused_s)
        apart = (_apart_text(spent, scale, places) for spent in (cell_cost.failed, cell_cost.search))
        rows.append(
            (*levels, str(ok.n), *(format_number(s / scale, places) for s in seconds), _format_hours(ok.gpu_s), *apart)
        )
    caption = (
        f"{UNITS[unit].capitalize()} summed over the cell's ok trials, by stage; alone is what was spent plus what was reused:"
        " what its trials would take if each did all of its work. Trials that are not ok, and candidates of tuning, stand"
        f" apart with their number. {describe_completeness(cells)}{describe_shared(cells, paths)}"
    )
    head = (*paths, *(["cell"] if has_aa else []), "ok", *STAGES.values(), *SUMS)
    align = f"{'l' * (len(paths) + has_aa)}{'r' * 14}"
    return Table(
        name=f"{NAME}-{i}",
        title=f"{task}: cost",
        caption=caption,
        head=(*head, "not ok", "searched"),
        align=align,
        blocks=(tuple(rows),),
    )


def _apart_text(spent: Spent, scale: float, places: int) -> str:
    return f"{format_number(spent.wall_s / scale, places)} ({spent.n})" if spent.n else "0"


def _choose_unit(most_s: float) -> tuple[float, str]:
    if most_s < 600:
        return 1.0, "s"
    return (60.0, "min") if most_s < 36_000 else (3600.0, "h")


# Figure -------------------------------------------------------------------------------------------


def plot(cost: Cost) -> Any:
    """Returns a matplotlib figure: a panel per task, a bar per cell, made of its stages."""
    from matplotlib.figure import Figure

    costs = {cell_cost.cell.cell_id: cell_cost for cell_cost in cost.cells}
    tasks = by_task(cell_cost.cell for cell_cost in cost.cells)
    drawn = list(tasks.items())[:MAX_PANELS]
    looks = _choose_looks(cost.cells)
    sizes = [min(len(cells), MAX_ROWS) + 0.6 for _, cells in drawn]
    made = Figure(figsize=(9.5, 1.4 + sum(0.9 + 0.3 * size for size in sizes)), layout="constrained")
    axes = made.subplots(len(drawn), 1, squeeze=False, height_ratios=sizes)
    for axis, (task, cells) in zip(axes.flat, drawn, strict=True):
        _draw_panel(axis, task, cells, costs, looks)
    handles, labels = axes[0][0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    more = f"; {len(tasks) - len(drawn)} more tasks are in the table only" if len(tasks) > len(drawn) else ""
    made.suptitle(
        "time summed over each cell's trials (n ok trials at its right); dashed: what stages reused from other trials had"
        f"\ncost, which this cell did not spend{more}",
        fontsize=9,
    )
    return made


def _choose_looks(costs: Iterable[CellCost]) -> dict[str, dict[str, Any]]:
    """How the parts of a bar look; those that no cell has are left out."""
    looks: dict[str, dict[str, Any]] = {name: {"color": COLOURS[i]} for i, name in enumerate(STAGES.values())}
    looks["other"] = {"color": COLOURS[7]}
    looks["not ok"] = {"facecolor": "white", "edgecolor": "#444444", "hatch": "////"}
    looks["candidates of tuning"] = {"facecolor": "white", "edgecolor": "#444444", "hatch": "...."}
    looks["reused"] = {"facecolor": "none", "edgecolor": "#444444", "linestyle": "--"}
    parts = [_split_bar(cell_cost) for cell_cost in costs]
    return {name: look for name, look in looks.items() if any(part[name] > 0 for part in parts)}


def _draw_panel(
    axis: Any, task: str, cells: Sequence[Cell], costs: Mapping[str, CellCost], looks: Mapping[str, Mapping[str, Any]]
) -> None:
    drawn_cells = cells[:MAX_ROWS]
    paths = find_varying(cells)
    scale, unit = _choose_unit(max(costs[cell.cell_id].all_s for cell in cells))
    left = [0.0] * len(drawn_cells)
    for name, look in looks.items():
        widths = [_split_bar(costs[cell.cell_id])[name] / scale for cell in drawn_cells]
        axis.barh(range(len(drawn_cells)), widths, left=left, height=0.66, label=name, **look)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axis.set_xlim(left=0)
    for y, cell in enumerate(drawn_cells):
        axis.text(left[y], y, f" n = {costs[cell.cell_id].ok.n}", fontsize=7, va="center")
    names = [f"{'A/A of ' if cell.role == 'aa' else ''}{levels_of(cell, paths)}" for cell in drawn_cells]
    axis.set_yticks(range(len(drawn_cells)), shorten_texts(names), fontsize=8)
    axis.set_ylim(len(drawn_cells) - 0.5, -0.5)
    axis.set_title(f"{wrap_title(task)}: {shorten_text(' · '.join(paths), 90) or 'all trials'}", fontsize=9, loc="left")
    axis.set_xlabel(UNITS[unit], fontsize=8)
    axis.tick_params(axis="x", labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _split_bar(cell_cost: CellCost) -> dict[str, float]:
    """Seconds by what the bar is made of, from left to right."""
    stages = {text: cell_cost.ok.stages[name] for name, text in STAGES.items()}
    apart = {"not ok": cell_cost.failed.wall_s, "candidates of tuning": cell_cost.search.wall_s}
    return {**stages, "other": cell_cost.ok.other_s, **apart, "reused": cell_cost.ok.reused_s}


def make_output(results: Results, **asked: Any) -> Output:
    """Returns the analysis as it is written; ``asked`` are options of ``compute``."""
    cost = compute(results, **asked)
    return Output(
        numbers=numbers(cost), more_numbers={"total": total_numbers(cost)}, tables=build_tables(cost), figure=plot(cost)
    )
