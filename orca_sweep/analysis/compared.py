"""Which cells may be compared by their means: those whose run seed draws the same, per task.

Cells that differ in ``seed_varies`` are the same work with less or more of its randomness held. They differ in spread on
purpose, which is what ``seed_noise`` shows; a difference of their means tells of the one draw that was held.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from orca_sweep.analysis.tables import is_level
from orca_sweep.config.labels import write_level
from orca_sweep.results import SEED_VARIES, Results

if TYPE_CHECKING:
    import pandas as pd

PATH = SEED_VARIES
DEFAULT = "all"
"""What rows mean that do not say."""


def meaning(level: str) -> str:
    """Returns what the run seed varies at a level; tables of before there was a choice do not say."""
    return DEFAULT if level == "null" else level


def compared(results: Results, base: Sequence[str] = (), without: Sequence[str] = ()) -> Results:
    """Returns the tables with those cells alone whose seed varies what that of the base of their task does.

    What was left out is said in ``notes``. The base's is the first of the task that has the named levels.

    Args:
        results: the tables.
        base: levels of the base cell, each 'factor=level'.
        without: levels that it does not have, each 'factor=level'.
    """
    if PATH not in results.trials or not len(results.trials):
        return results
    trials = results.trials
    varies = trials[PATH].map(write_level).map(meaning)
    could_be = _having(results, varies, base, without)
    if not could_be.any():  # what was named is in no table, which is said where names are read
        return results
    first = varies[could_be].groupby(trials.loc[could_be, "task"], sort=False).first()
    kept = varies == trials["task"].map(first).fillna(first.iloc[0])
    if kept.all():
        return results
    return replace(results, trials=trials[kept], notes=(*results.notes, _note(trials, varies, kept)))


def _having(
    results: Results, varies: "pd.Series[str]", base: Sequence[str], without: Sequence[str]
) -> "pd.Series[bool]":
    """Which rows could be of the base."""
    import pandas as pd

    trials = results.trials
    found = pd.Series(True, index=trials.index)
    for items, is_wanted in ((base, True), (without, False)):
        for path, _, level in (item.partition("=") for item in items):
            if path in trials and (is_wanted or path == PATH):
                texts = varies if path == PATH else results.label_column(path)
                found &= texts.map(lambda text, level=level: is_level(text, level)) == is_wanted
    return found


def _note(trials: "pd.DataFrame", varies: "pd.Series[str]", kept: "pd.Series[bool]") -> str:
    n = trials.loc[~kept, "cell_id"].nunique()
    others, own = (", ".join(dict.fromkeys(varies[which])) for which in (~kept, kept))
    left = f"{n} cells are" if n > 1 else "1 cell is"
    return (
        f"{left} left out: the run seed draws something else there ({PATH} {others}) than in the base cell ({own}), so means are"
        " not to be compared. seed_noise compares the spreads."
    )
