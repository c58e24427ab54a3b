"""Labels of the levels in a table of trials."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orca_sweep.config import fields_of_level
from orca_sweep.config.labels import unite_labels, write_level, write_stored
from orca_sweep.config.naming import DECLARED_FACTORS

if TYPE_CHECKING:
    import pandas as pd


def read_labels(trials: "pd.DataFrame", factors: Sequence[str]) -> "pd.DataFrame":
    """Returns the label of every factor for each trial: the level as its space writes it.

    If sweeps that were collected together write a level in several ways, all trials get the first one. A trial whose space
    does not vary a factor gets the value that it runs with.
    """
    import pandas as pd

    written = _read_column(trials)
    made = {path: _label_column(trials, path, written) for path in factors}
    return pd.DataFrame(made, index=trials.index, dtype=object)


def _read_column(trials: "pd.DataFrame") -> list[Mapping[str, str]] | None:
    """Returns the labels that each trial's space wrote; None if the table has no such column."""
    if "levels" not in trials:
        return None
    known: dict[Any, Mapping[str, str]] = {}
    for text in trials["levels"].unique():
        known[text] = _read_json(text)
    return [known[text] for text in trials["levels"]]


def _read_json(text: object) -> Mapping[str, str]:
    try:
        value = json.loads(text) if isinstance(text, str) else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _label_column(trials: "pd.DataFrame", path: str, written: Sequence[Mapping[str, str]] | None) -> list[str]:
    values = trials[path].tolist() if path in trials else [None] * len(trials)
    if written is None or path in DECLARED_FACTORS:  # the column holds readable names
        return [write_level(value) for value in values]
    declared, marks = _split_marks(trials, path)
    trials = trials.assign(**{path: declared}) if any(marks) else trials
    paths = [name for name in fields_of_level(path) if name in trials]
    stored = [
        dict(zip(paths, row, strict=True)) for row in zip(*(trials[name].tolist() for name in paths), strict=True)
    ]
    labels = [
        labels[path] if path in labels else write_stored(path, row.get)
        for labels, row in zip(written, stored or [{}] * len(trials), strict=True)
    ]
    spaces = trials["space"].astype(str) if "space" in trials else [""] * len(trials)
    keys = [tuple(map(write_level, row.values())) for row in stored] or [()] * len(trials)
    are_numbers = path in trials and trials[path].dtype.kind in "iuf"
    shown = unite_labels(zip(labels, spaces, keys, strict=True), are_numbers)
    return [shown[label] + mark for label, mark in zip(labels, marks, strict=True)]


def _split_marks(trials: "pd.DataFrame", path: str) -> tuple[list[Any], list[str]]:
    """Returns the plain value of a column for each trial, and the mark behind it if the name has several contents."""
    names = trials[path].tolist() if path in trials else [None] * len(trials)
    if f"{path}_declared" not in trials:
        return names, [""] * len(trials)
    plain = [old if isinstance(old, str) else name for name, old in zip(names, trials[f"{path}_declared"], strict=True)]
    marks = [name.removeprefix(old) if isinstance(name, str) else "" for name, old in zip(names, plain, strict=True)]
    return plain, marks
