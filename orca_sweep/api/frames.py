"""Frames with the columns that a person wants, from the tables of a sweep and the numbers of an analysis."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

from orca_sweep.config import knobs
from orca_sweep.results.columns import METRIC_COLUMNS, SEALED_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

    from orca_sweep.results import Results

LEVELS = "<levels>"
"""Stands for the columns of the cell's levels."""
LEVEL_TEXTS = ("levels", "base_levels", "level", "base_level", "seeds_without_pair")
"""Columns that hold labels of levels, or lists of seeds, under other names than those of factors."""
FRAME_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "table_effects": (
        "task", LEVELS, "base", "n_pairs", "difference", "low", "high", "p_t_holm", "verdict", "margin", "margin_from",
        "seeds_without_pair",
    ),
    "factor_effects": (
        "task", "effect", "levels", "base_levels", "n_seeds", "estimate", "low", "high", "p_t_holm", "verdict",
        "not_judged_because", "margin", "margin_from", "aliased_with", "left_out",
    ),
    "claims": (
        "claim", "origin", "sentence", "verdict", "task", "is_counted", "task_says", "not_judged_because", "task_needs",
        "setting", "contrast", "word", "n", "estimate", "low", "high", "margin", "detectable", "contrast_in_words",
    ),
}  # fmt: skip
"""By analysis, the columns of its numbers that its frame has; empty for all."""


def choose_columns(results: "Results") -> "pd.DataFrame":
    """Returns a row per trial with its levels, seed, status and metrics; see `orca_sweep.api.sweeps.Sweep.results`."""
    trials = results.trials
    frame = _select_levels(results).assign(**{path: trials[path] for path in results.tuned if path in trials})
    frame["seed"] = trials["seed"]
    if trials["role"].nunique() > 1:
        frame["role"] = trials["role"]
    frame["status"] = trials["status"]
    hidden = SEALED_COLUMNS if results.n_sealed else ()
    shown = [name for name in METRIC_COLUMNS if name in trials and name not in hidden]
    # Test metrics exist once they are revealed.
    frame = frame.assign(**{name: trials[name] for name in shown if name[0] == "v" or trials[name].notna().any()})
    if (trials["status"] != "ok").any() and "error" in trials:
        frame["error"] = trials["error"]
    return frame.set_axis(trials["trial_id"], axis="index")


def add_levels(results: "Results") -> "pd.DataFrame":
    """Returns the rows of all epochs with the levels and the seed of their trial in front.

    A trial that is in two cells has the levels of the first.
    """
    levels = _select_levels(results).assign(seed=results.trials["seed"])
    by_trial = levels.set_axis(results.trials["trial_id"], axis="index")
    by_trial = by_trial[~by_trial.index.duplicated()]
    known = results.epochs.join(by_trial, on="trial_id")  # no factor has the name of a column of epochs
    front = ["trial_id", *by_trial]
    return known[[*front, *(name for name in known if name not in front)]]


def _select_levels(results: "Results") -> "pd.DataFrame":
    """Returns the levels of the factors that vary, a row per trial; of all factors if none varies.

    Levels that are all numbers, or all true or false, are values, so that a comparison with a number means what it says.
    Others are text, as the space writes them.
    """
    import pandas as pd

    labels, trials = results.labels, results.trials
    varied = [path for path in labels if labels[path].nunique() > 1] or list(labels)
    are_values = {path: path in trials and pd.api.types.is_numeric_dtype(trials[path]) for path in varied}
    return pd.DataFrame({path: (trials if are_values[path] else labels)[path] for path in varied}, index=labels.index)


def read_numbers(text: str, columns: tuple[str, ...] = ()) -> "pd.DataFrame":
    """Returns the numbers of an analysis as a frame; levels stay the text that the space writes.

    Args:
        text: the CSV.
        columns: those to keep, and their order; empty for all. ``LEVELS`` stands for the columns of levels.
    """
    import pandas as pd

    fields = knobs()
    # 'null', 'None', and 'NA' may be levels.
    frame = pd.read_csv(
        io.StringIO(text), dtype=dict.fromkeys((*fields, *LEVEL_TEXTS), str), keep_default_na=False, na_values=[""]
    )
    if not columns:
        return frame
    levels = [name for name in frame if name in fields and name != "task"]
    wanted = [name for column in columns for name in (levels if column == LEVELS else [column])]
    return frame[[name for name in wanted if name in frame]]
