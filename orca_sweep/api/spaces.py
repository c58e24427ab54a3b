"""A space from a Python mapping or a YAML file, and its plan."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orca_sweep.api.paths import read_path, real_path, store_root, sweep_folder
from orca_sweep.api.planning import make_plan
from orca_sweep.api.plans import Plan
from orca_sweep.errors import refuse_argument
from orca_sweep.space.bundled import find_space
from orca_sweep.space.documents import Document, read_document
from orca_sweep.space.mappings import make_document

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True, repr=False)
class Space:
    """What an ablation varies, as a person writes it; ``plan`` reads and expands it."""

    source: Path | Document
    """The YAML file, or the content of a mapping."""

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Space":
        """Returns the space in a mapping with the keys of a space YAML.

        It means exactly what the same YAML means: equal settings give equal ids. Values are plain Python values; tuples
        and ranges count as lists, and NumPy's whole numbers and paths are accepted too. Without the key ``name``, the space
        is called 'space'. Relative paths start in the working folder.

        Raises:
            InputError: for each value that a space cannot hold. ``plan`` reports the other mistakes.
        """
        return cls(source=make_document(content))

    @classmethod
    def from_yaml(cls, space: PathLike) -> "Space":
        """Returns the space in a YAML file, or the bundled space of this name.

        Raises:
            InputError: if there is neither; the message names the nearest. ``plan`` reports mistakes in the file.
        """
        path = find_space(read_path(space, "space"))
        if not os.path.exists(path):
            read_document(path)  # raises, with the nearest file
        return cls(source=path)

    def __repr__(self) -> str:
        if isinstance(self.source, Document):
            return f"Space.from_dict({self.source.content!r})"
        return f"Space.from_yaml({str(self.source)!r})"

    def plan(
        self,
        *,
        max_trials: int | None = None,
        rehash: bool = False,
        data: PathLike = "data",
        store: PathLike | None = None,
        out: PathLike | None = None,
        smoke: bool = False,
    ) -> Plan:
        """Returns what the space would run: cells, trials, cost, and warnings. Runs nothing.

        Args:
            max_trials: the largest number of trials that the space may have; None for `orca_sweep.space.MAX_TRIALS`.
            rehash: whether to read your own files again even if they look as they did when they were last hashed.
            data: folder with the files of tasks that need any.
            store: store of stage artifacts and earlier rows, any fsspec path; by default ``store`` in the sweep folder.
            out: sweep folder; by default ``results/<name>``. The cost leaves out trials that it already has.
            smoke: plan the space's smoke form, which its key ``smoke`` describes; its name then ends in '-smoke'.

        Raises:
            InputError: with every mistake in the space; each names its line, or in a mapping its dotted key.
        """
        check_max_trials(max_trials)
        root, whole_store = real_path(data, "data"), store_root(store) if store else None
        sweep_folder(out, "checked")  # before the plan, which may take long
        record = make_plan(self.source, max_trials, rehash=rehash, is_smoke=smoke)
        return Plan(record=record, folder=sweep_folder(out, record.space.name), store=whole_store, data=root)


def check_max_trials(max_trials: int | None) -> None:
    """Refuses what is no largest number of trials.

    Raises:
        InputError: for anything but None and whole numbers of at least 1.
    """
    if max_trials is not None and (not isinstance(max_trials, int) or max_trials < 1):
        raise refuse_argument("max_trials", max_trials, "this is a whole number of at least 1.")
