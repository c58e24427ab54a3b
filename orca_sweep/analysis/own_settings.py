"""The cells that this project's own claims compare: normalised against raw inputs, and proxies whose labels cannot act."""

from collections.abc import Collection, Iterable, Iterator
from itertools import combinations

from orca_sweep.analysis.cells import (
    EPOCHS,
    LABEL_GRADIENT,
    NORMALISE,
    PLACEBO,
    PROXY,
    RAW,
    UNKNOWN,
    ConfiguredCell,
    TaskCells,
    training_fields,
)
from orca_sweep.analysis.claim_records import Pair, Setting, first_cell
from orca_sweep.analysis.study_settings import lacks_training, pair_amounts

# Normalising --------------------------------------------------------------------------------------


def cross_normalising(task: TaskCells, start: Collection[ConfiguredCell]) -> Iterator[Setting]:
    """Yields settings with embedder training against none, on normalised inputs and on raw ones.

    The rule reads the contrasts on normalised inputs. Those on raw inputs, and by how much the two differ, are shown.
    """
    for cell, naive, amounts in pair_amounts(task, filter_normalised(start)):
        raw_naive = first_cell(task.find_alike(naive, {NORMALISE}), lambda cell: cell.normalisation == RAW)
        if raw_naive:
            pairs = [pair for amount in amounts for pair in _cross_amount(task, amount, naive, raw_naive)]
            if pairs:
                yield Setting(anchor=cell, free=training_fields(cell) | {NORMALISE}, pairs=tuple(pairs))


def filter_normalised(cells: Iterable[ConfiguredCell]) -> list[ConfiguredCell]:
    """Returns the cells whose inputs are normalised in a way that the table names, and have a scale."""
    return [cell for cell in cells if cell.normalisation not in (RAW, UNKNOWN) and not cell.has_codes]


def _cross_amount(
    task: TaskCells, trained: ConfiguredCell, naive: ConfiguredCell, raw_naive: ConfiguredCell
) -> Iterator[Pair]:
    """Yields the contrasts of one amount of embedder training; nothing if its cell on raw inputs is missing."""
    raw = first_cell(task.find_alike(trained, {NORMALISE}), lambda cell: cell.normalisation == RAW)
    if raw is None:
        return
    amount = trained.describe_levels(EPOCHS)
    name = f"{amount} against naive"
    normalised = Pair(kind="normalised", name=f"{name}, {NORMALISE} {trained.normalisation}", a=trained, b=naive)
    on_raw = Pair(kind="raw", name=f"{name}, {NORMALISE} {RAW}", a=raw, b=raw_naive, decides=False)
    yield normalised
    yield on_raw
    yield Pair(
        kind="interaction",
        name=f"{name}, {RAW} minus {trained.normalisation}",
        a=raw,
        b=raw_naive,
        less=normalised,
        decides=False,
    )


def exclude_codes(task: TaskCells) -> str:
    """Returns why normalising cannot act in a task; empty if it can."""
    if any(cell.has_codes for cell in task.cells):
        return f"its inputs are one-hot: they have no scale, so that {NORMALISE} cannot act"
    return ""


def lacks_normalising(task: TaskCells) -> str:
    """Returns what a task lacks for the crossing of normalised inputs with embedder training."""
    ways = dict.fromkeys(cell.normalisation for cell in task.cells)
    if set(ways) <= {UNKNOWN}:
        return f"its rows do not say how inputs are normalised ({NORMALISE})"
    if RAW not in ways:
        return f"no cell with raw inputs ({NORMALISE} {RAW}; only {', '.join(ways)})"
    if set(ways) <= {RAW, UNKNOWN}:
        return f"no cell with normalised inputs ({NORMALISE} channel, pointwise or sample; only {', '.join(ways)})"
    if next(pair_amounts(task, task.cells), None) is None:
        return lacks_training(task)
    return "no four cells, all else equal: normalised and raw inputs, each with embedder training and without"


# Labels -------------------------------------------------------------------------------------------


def compare_without_labels(task: TaskCells, start: Collection[ConfiguredCell]) -> Iterator[Setting]:
    """Yields settings that compare real proxies with each other, and noise with a real one, where labels cannot act.

    The same contrasts where labels can act are shown, if the table has them.
    """
    for cell in start:
        if cell.trains_on_data and cell.labels_act is False:
            pairs = list(_pair_proxies(task, cell, decides=True))
            with_labels = first_cell(task.find_alike(cell, {LABEL_GRADIENT}), lambda cell: cell.labels_act is True)
            shown = list(_pair_proxies(task, with_labels, decides=False)) if with_labels else []
            if pairs:
                free = frozenset({PROXY, LABEL_GRADIENT})
                yield Setting(anchor=cell, free=free, pairs=(*pairs, *shown))


def _pair_proxies(task: TaskCells, cell: ConfiguredCell, *, decides: bool) -> Iterator[Pair]:
    """Yields a pair for each two real proxies, and noise against the first; permuted labels test nothing here."""
    alike = [
        other for other in task.find_alike(cell, {PROXY}) if other.is_trained and other.labels_act == cell.labels_act
    ]
    reals = [cell, *(other for other in alike if other.trains_on_data and other is not cell)]
    noise = [other for other in alike if other.settings[PROXY] == PLACEBO]
    suffix = "" if decides else ", labels act"
    for first, second in (*combinations(reals, 2), *((cell, other) for other in noise)):
        name = f"{second.describe_levels(PROXY)} against {first.level_of(PROXY)}{suffix}"
        yield Pair(kind="without labels" if decides else "with labels", name=name, a=second, b=first, decides=decides)


def lacks_idle_labels(task: TaskCells) -> str:
    """Returns what a task lacks for a comparison of proxies whose labels cannot act."""
    trained = [cell for cell in task.cells if cell.is_trained]
    if not any(cell.trains_on_data for cell in trained):
        return lacks_training(task)
    if all(cell.labels_act is None for cell in trained):
        return "its rows do not say whether the labels of the proxy act (proxy_labels_act)"
    idle = [cell for cell in trained if cell.labels_act is False]
    if not idle:
        return f"the labels of the proxy act in all its cells; they do not with {LABEL_GRADIENT} false, or with mmd"
    names = ", ".join(dict.fromkeys(cell.level_of(PROXY) for cell in idle))
    return f"no two cells that differ only in the proxy where labels cannot act ({names})"
