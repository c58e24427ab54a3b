"""Which cells of a task may be compared by their means: those in which the run seed draws the same things.

Cells that differ in ``seed_varies`` do the same work with less or more of its randomness fixed. They differ in spread on
purpose, which ``seed_noise`` shows; a difference of their means only reflects the single draw that was fixed.

Combined tables may also have one piece of work in several cells: a tuned cell that chose the settings of an untuned one,
for example. A difference between such cells is zero by construction, and each difference to a third one is there twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from orca_sweep.analysis.placebos import note_idle_placebos
from orca_sweep.analysis.tables import is_level
from orca_sweep.config.labels import write_level
from orca_sweep.results import SEED_VARIES, Results

if TYPE_CHECKING:
    import pandas as pd

PATH = SEED_VARIES
DEFAULT = "all"
"""The level of rows that have none."""
AA_ENDING = "-aa"
"""What the id of an A/A cell has more than that of its cell."""
MOST_PAIRS = 3
"""Equal cells that a note names."""


def fill_default(level: str) -> str:
    """Returns what the run seed varies at a level; rows without the field vary all."""
    return DEFAULT if level == "null" else level


def compared(results: Results, base: Sequence[str] = (), without: Sequence[str] = ()) -> Results:
    """Returns the tables with only the cells whose seed varies the same as in the base cell of their task.

    The base cell is the first of its task that has the named levels. ``notes`` says what is left out, and which placebos
    cannot act.

    Args:
        results: the tables.
        base: levels of the base cell, each 'factor=level'.
        without: levels that the base cell does not have, each 'factor=level'.
    """
    results = note_idle_placebos(results)
    if PATH not in results.trials or not len(results.trials):
        return results
    trials = results.trials
    varies = trials[PATH].map(write_level).map(fill_default)
    is_candidate = _match_base(results, varies, base, without)
    if not is_candidate.any():  # no row has the named levels; the code that reads names reports that
        return results
    first = varies[is_candidate].groupby(trials.loc[is_candidate, "task"], sort=False).first()
    is_kept = varies == trials["task"].map(first).fillna(first.iloc[0])
    if is_kept.all():
        return results
    return replace(results, trials=trials[is_kept], notes=(*results.notes, _describe_rest(trials, varies, is_kept)))


def compared_once(results: Results, base: Sequence[str] = (), without: Sequence[str] = ()) -> Results:
    """Returns what ``compared`` does, with cells that are the same work as one cell: each difference is judged once."""
    return merge_equal_cells(compared(results, base, without))


def merge_equal_cells(results: Results) -> Results:
    """Returns the tables with cells that share trials as one cell, the first of them; ``notes`` says which they are.

    The trials of a cell differ in their seed alone, so two cells with a trial in common are equal; only cells whose seeds vary
    other things (``seed_varies``) may have the trial of seed 0 in common, and stay apart. The first cell gets the
    seeds of the rest and of their A/A repeats, but not their candidates of tuning.
    """
    trials = results.trials
    firsts = _find_equal_cells(trials)
    if not firsts:
        return results
    is_candidate = trials["role"] == "search"
    is_merged = trials["cell_id"].isin(firsts)
    renamed = firsts | {f"{cell_id}{AA_ENDING}": f"{first}{AA_ENDING}" for cell_id, first in firsts.items()}
    cell_ids = trials["cell_id"].map(lambda cell_id: renamed.get(cell_id, cell_id))
    moved = trials.assign(cell_id=cell_ids)[~(is_merged & is_candidate)]
    once = moved[~moved.duplicated(["cell_id", "role", "trial_id"])]
    return replace(results, trials=once, notes=(*results.notes, _describe_equal(trials, firsts)))


def _find_equal_cells(trials: "pd.DataFrame") -> dict[str, str]:
    """Returns the first cell of the table that each later cell shares a replicate with, by the later cell."""
    runs = trials.loc[trials["role"] == "replicate", ["trial_id", "cell_id"]]
    varies = trials[PATH].map(write_level).map(fill_default) if PATH in trials else ""
    runs = runs.assign(varies=varies)
    ranks = {cell_id: i for i, cell_id in enumerate(dict.fromkeys(runs["cell_id"]))}
    shared = runs[runs.duplicated(["trial_id", "varies"], keep=False)]
    firsts: dict[str, str] = {}

    def find_first(cell_id: str) -> str:
        while cell_id in firsts:
            cell_id = firsts[cell_id]
        return cell_id

    for _, same in shared.groupby(["trial_id", "varies"], sort=False)["cell_id"]:
        # Cells that were found equal by another trial are one already.
        first, *later = sorted({find_first(cell_id) for cell_id in same}, key=ranks.__getitem__)
        firsts |= dict.fromkeys(later, first)
    return {cell_id: find_first(cell_id) for cell_id in firsts}


def _describe_equal(trials: "pd.DataFrame", firsts: Mapping[str, str]) -> str:
    """Returns 'Cells with the same trials are one cell in comparisons: b of tuned is a of plain.'."""
    spaces = dict(zip(trials["cell_id"], trials["space"], strict=True)) if "space" in trials else {}
    names = {
        cell_id: f"{cell_id} of {spaces[cell_id]}" if cell_id in spaces else cell_id for cell_id in trials["cell_id"]
    }
    pairs = [f"{names[cell_id]} is {names[first]}" for cell_id, first in firsts.items()]
    more = f"; and {len(pairs) - MOST_PAIRS} more" if len(pairs) > MOST_PAIRS else ""
    return f"Cells with the same trials are one cell in comparisons: {'; '.join(pairs[:MOST_PAIRS])}{more}."


def _match_base(
    results: Results, varies: "pd.Series[str]", base: Sequence[str], without: Sequence[str]
) -> "pd.Series[bool]":
    """Returns which rows can belong to the base cell."""
    import pandas as pd

    trials = results.trials
    matches = pd.Series(True, index=trials.index)
    for items, is_wanted in ((base, True), (without, False)):
        for path, _, level in (item.partition("=") for item in items):
            if path in trials and (is_wanted or path == PATH):
                texts = varies if path == PATH else results.label_column(path)
                matches &= texts.map(lambda text, level=level: is_level(text, level)) == is_wanted
    return matches


def _describe_rest(trials: "pd.DataFrame", varies: "pd.Series[str]", is_kept: "pd.Series[bool]") -> str:
    n = trials.loc[~is_kept, "cell_id"].nunique()
    rest, base = (", ".join(dict.fromkeys(varies[rows])) for rows in (~is_kept, is_kept))
    subject = f"{n} cells are left out: they have" if n > 1 else "1 cell is left out: it has"
    return (
        f"{subject} {PATH} {rest} and the base cell has {base}, so the means are not comparable. seed_noise compares the"
        " spreads."
    )
