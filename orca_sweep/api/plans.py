"""A plan as a person looks at it in Python, and its launch."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from orca_sweep import space as spaces
from orca_sweep.api.describing import describe_plan
from orca_sweep.api.html import write_html
from orca_sweep.api.launching import LOOPBACK, Destination, run_plan
from orca_sweep.api.paths import real_path, store_root
from orca_sweep.api.planning import collect_notes, collect_terms, make_forecast
from orca_sweep.api.progress import Progress
from orca_sweep.api.stores import open_store
from orca_sweep.api.sweeps import Sweep
from orca_sweep.errors import Problem
from orca_sweep.space.statements import Statement
from orca_sweep.visible import LINES, escape_controls

if TYPE_CHECKING:
    import pandas as pd

    from orca_sweep.planning.forecast import Forecast
    from orca_sweep.planning.terms import Term

MOST_CELLS_SHOWN = 20
PROBE = ("probe() measures a few epochs", "probe() measures it")
"""How to learn the cost, if all of it or a part is unknown."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Plan:
    """The expansion of a space: what it would run. A plan exists only of a space without mistakes."""

    record: spaces.Plan
    """The cells and trials themselves, with every config."""
    folder: Path
    """Of the sweep; it need not exist."""
    store: str | None
    """The store that the user names; None for ``store`` in the sweep folder."""
    data: Path
    """The folder with the files of tasks."""

    @property
    def name(self) -> str:
        """The name of the space."""
        return self.record.space.name

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Always empty: mistakes are raised before there is a plan."""
        return ()

    @cached_property
    def cells(self) -> "pd.DataFrame":
        """A row per cell: its ``cell_id``, the level of each factor as the space writes it, and ``n_trials``.

        Trials that tuning plans later are not counted. The last row is the A/A cell, if the space has one.
        """
        import pandas as pd

        counts = self.trials["cell_id"].value_counts()
        ids = dict.fromkeys([*self.record.by_cell_id, *self.trials["cell_id"]])
        rows = [
            {"cell_id": cell_id, **self._levels_of(cell_id), "n_trials": int(counts.get(cell_id, 0))} for cell_id in ids
        ]
        return pd.DataFrame(rows, columns=["cell_id", *self.record.space.factors, "n_trials"])

    @cached_property
    def trials(self) -> "pd.DataFrame":
        """A row per trial: ``trial_id``, ``cell_id``, ``role``, ``seed``, and the level of each factor as the space writes it.

        The candidates of a tuning have a column for each tuned field, too.
        """
        import pandas as pd

        tuned = tuple(self.record.space.tune)
        rows = []
        for trial in self.record.trials:
            row = {"trial_id": trial.trial_id, "cell_id": trial.cell_id, "role": trial.role, "seed": trial.seed}
            flat = trial.config.flat() if tuned else {}
            rows.append({**row, **self._levels_of(trial.cell_id), **{field: flat[field] for field in tuned}})
        return pd.DataFrame(rows, columns=["trial_id", "cell_id", "role", "seed", *self.record.space.factors, *tuned])

    def _levels_of(self, cell_id: str) -> dict[str, str]:
        return dict(self.record.labels.get(cell_id.removesuffix("-aa"), {}))

    @cached_property
    def cost(self) -> "Forecast":
        """What the trials that are left cost, and what the seeds can show; read from earlier rows in the store."""
        return make_forecast(self.record, self.folder, open_store(self.store_root))

    @cached_property
    def terms(self) -> tuple["Term", ...]:
        """What holds for the sweep, such as resources, order, budget, and what was chosen by default."""
        return tuple(collect_terms(self.record, self.cost))

    @property
    def store_root(self) -> str:
        """Where stage artifacts and earlier rows are."""
        return store_root(self.store or str(self.folder / "store"))

    @cached_property
    def notes(self) -> tuple[Statement, ...]:
        """The warnings, with the tasks that each is about."""
        return tuple(collect_notes(self.record, self.data, self.folder))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before launching, a sentence each: what is missing here, moves together, or has changed."""
        return tuple(note.write(self.record.task_names) for note in self.notes)

    def probe(self, say: Callable[[str], None] = print) -> None:
        """Runs a few epochs, on this machine, of each kind of trial whose cost no earlier row shows; then reads the cost again.

        Args:
            say: receives a line for each kind.

        Raises:
            InputError: if data, packages, or a GPU are missing, or a probe fails.
        """
        from orca_sweep.planning.probe import probe

        probe(self.record, open_store(self.store_root), self.data, say)
        self.__dict__.pop("cost", None)
        self.__dict__.pop("terms", None)

    def __repr__(self) -> str:
        size, *lines = self._describe()
        cells = self.cells.head(MOST_CELLS_SHOWN).to_string(index=False)
        return escape_controls("\n".join([f"Plan {self.name}: {size}", cells, *self._count_more(), *lines]), LINES)

    def _repr_html_(self) -> str:
        size, *lines = self._describe()
        rows = [list(map(str, row)) for row in self.cells.head(MOST_CELLS_SHOWN).itertuples(index=False)]
        return write_html(
            f"Plan {self.name}: {size}", [(list(self.cells.columns), rows)], [*self._count_more(), *lines]
        )

    def _describe(self) -> Iterator[str]:
        return describe_plan(self.record, self.cost, terms=self.terms, notes=self.warnings, ways=PROBE)

    def _count_more(self) -> Iterator[str]:
        n_more = len(self.cells) - MOST_CELLS_SHOWN
        if n_more > 0:
            yield f"... and {n_more} more cells (all in .cells)"

    def launch(
        self,
        *,
        out: str | os.PathLike[str] | None = None,
        data: str | os.PathLike[str] | None = None,
        store: str | os.PathLike[str] | None = None,
        address: str | None = None,
        dashboard_host: str = LOOPBACK,
        progress: Progress = True,
    ) -> Sweep:
        """Runs the trials that the sweep folder lacks, in this process, and returns the sweep with its tables and figures.

        A Ray that already runs in this process is used as it is, and runs on afterwards; otherwise a local Ray is started
        and ended. It works inside a running event loop, as in a notebook, and in any thread; one launch at a time.

        Args:
            out: sweep folder; by default that of the plan.
            data: folder with the files of tasks that need any; by default that of the plan.
            store: store of stage artifacts; by default that of the plan, or ``store`` in the sweep folder.
            address: Ray cluster to join; by default ``RAY_ADDRESS``, or a local Ray.
            dashboard_host: where the local Ray's dashboard listens, or 'none'; 127.0.0.1: this machine only.
            progress: True prints lines, False prints nothing, and a function receives ``(event, facts)`` of each event: see
                `orca_sweep.api.progress.Watch`. If it fails, the launch goes on without it and raises its error at the end.

        Raises:
            InputError: with every reason against the launch; nothing has run then.
            RayLostError: if Ray does not start, or ends. Ended trials are kept; launch again to continue.
            StorageError: if the system refuses to write a record.
            KeyboardInterrupt: on Ctrl-C, after running trials have been stopped and tables made; launch again to continue.
        """
        folder = real_path(out, "out") if out is not None else self.folder
        destination = Destination(
            folder=folder,
            store=store_root(store or self.store or str(folder / "store")),
            data_root=real_path(data, "data") if data is not None else self.data,
            address=address,
            dashboard_host=dashboard_host,
        )
        run_plan(self.record, destination, progress)
        return Sweep.open(folder)
