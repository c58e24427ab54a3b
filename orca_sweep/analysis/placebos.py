"""Placebos that cannot act: permuted labels where the labels of the proxy do not reach the training of the embedder.

Such a cell trains as the real proxy does. Every analysis that shows it says so, and no claim counts it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orca_sweep.analysis.cells import ACT, OBJECTIVE, PROXY, SHUFFLED, TaskCells, read_label_action
from orca_sweep.config.acting import LABELS_CAN_ACT
from orca_sweep.results import Results

if TYPE_CHECKING:
    import pandas as pd

NOT_COUNTED = "permuted labels count for nothing where labels cannot act"


def find_idle_placebos(results: Results) -> dict[str, bool | None]:
    """Returns the cells whose proxy has permuted labels that cannot act (False), or of which nobody knows (None)."""
    placebos = _select_placebos(results.trials)["cell_id"].unique()
    action = read_label_action(results) if len(placebos) else {}
    return {cell_id: action[cell_id] for cell_id in map(str, placebos) if not action[cell_id]}


def _select_placebos(trials: "pd.DataFrame") -> "pd.DataFrame":
    """Returns the replicates whose proxy has permuted labels."""
    if PROXY not in trials:
        return trials.iloc[:0]
    return trials[trials[PROXY].astype(str).str.startswith(SHUFFLED) & (trials["role"] != "search")]


def describe_idle_placebos(results: Results) -> tuple[str, ...]:
    """Returns a sentence on the placebos that cannot act, and one on those of which nobody knows."""
    idle = find_idle_placebos(results)
    if not idle:
        return ()
    rows = _select_placebos(results.trials).drop_duplicates("cell_id").set_index("cell_id")
    names = results.label_column(PROXY)[results.trials["cell_id"].isin(idle)]
    labels = dict(zip(results.trials.loc[names.index, "cell_id"], names, strict=True))
    sentences = []
    for act, write in ((False, _write_idle), (None, _write_unknown)):
        cells = [cell_id for cell_id, known in idle.items() if known is act]
        if cells:
            sentences.append(write(_describe_cells(cells, labels, rows)))
    return tuple(sentences)


def _describe_cells(cells: Sequence[str], labels: Mapping[str, str], rows: "pd.DataFrame") -> str:
    """Returns 'proxy shuffled:mnist5k (2 cells; digits; embedder.objective otdd-exact)'."""
    proxies = ", ".join(dict.fromkeys(str(labels[cell]) for cell in cells))
    tasks = ", ".join(_list_values(rows, "task", cells))
    objectives = ", ".join(_list_values(rows, OBJECTIVE, cells))
    details = [f"{len(cells)} cells" if len(cells) > 1 else "1 cell", tasks]
    details += [f"{OBJECTIVE} {objectives}"] if objectives else []
    return f"proxy {proxies} ({'; '.join(details)})"


def _list_values(rows: "pd.DataFrame", column: str, cells: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(rows.loc[list(cells), column].dropna().astype(str))) if column in rows else []


def _write_idle(cells: str) -> str:
    return (
        f"Permuted labels cannot act in {cells}: the labels do not reach the gradient of embedder training, but for rounding"
        " and what a short annealing leaves, so these cells train as with the real labels and test nothing about labels."
        f" {LABELS_CAN_ACT}."
    )


def _write_unknown(cells: str) -> str:
    return (
        f"Nobody knows whether permuted labels can act in {cells}: the rows have no {ACT}. Do not read these cells as a"
        " placebo."
    )


def note_idle_placebos(results: Results) -> Results:
    """Returns the results with a note on each kind of placebo that cannot act."""
    notes = [note for note in describe_idle_placebos(results) if note not in results.notes]
    return replace(results, notes=(*results.notes, *notes)) if notes else results


def leave_out_idle_placebos(
    tasks: Sequence[TaskCells], idle: Mapping[str, bool | None]
) -> tuple[tuple[TaskCells, ...], dict[str, str]]:
    """Returns the tasks without the cells of placebos that cannot act, and for each task what is left out and why."""
    kept, reasons = [], {}
    for task in tasks:
        out = [cell for cell in task.cells if cell.cell.cell_id in idle]
        if out:
            task = replace(task, cells=tuple(cell for cell in task.cells if cell.cell.cell_id not in idle))
            reasons[task.task] = _explain_omission(out, idle)
        kept.append(task)
    return tuple(kept), reasons


def _explain_omission(cells: Sequence[Any], idle: Mapping[str, bool | None]) -> str:
    names = ", ".join(dict.fromkeys(cell.level_of(PROXY) for cell in cells))
    remedy = LABELS_CAN_ACT[0].lower() + LABELS_CAN_ACT[1:]
    if all(idle[cell.cell.cell_id] is None for cell in cells):
        return f"proxy {names} does not count, since the rows do not say whether permuted labels can act there ({ACT})"
    return f"proxy {names} does not count, since {NOT_COUNTED}: {remedy}"
