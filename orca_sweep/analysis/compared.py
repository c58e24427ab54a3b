"""Which cells of a task may be compared by their means: those in which the run seed draws the same things.

Cells that differ in ``seed_varies`` do the same work with less or more of its randomness fixed. They differ in spread on
purpose, which ``seed_noise`` shows; a difference of their means only reflects the single draw that was fixed.
"""

from collections.abc import Sequence
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
