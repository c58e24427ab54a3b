"""The folder of a sweep or suite in Python: status, results, verdicts, figures, report. Works while it runs, and when it died."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orca_sweep.api.html import write_html
from orca_sweep.api.launching import LOOPBACK, read_resumed, run_plan
from orca_sweep.api.paths import read_path, real_path
from orca_sweep.api.progress import Progress
from orca_sweep.api.suite_launching import read_resumed_suite, run_suite
from orca_sweep.errors import InputError
from orca_sweep.space.suites import holds_sweep

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from orca_sweep.analysis.writing import Output
    from orca_sweep.results import Results, Reveal, SweepStatus

Levels = Mapping[str, Any] | Sequence[str] | str | None
"""Levels of a cell: ``{"proxy": "none"}``, or 'proxy=none', or several of these."""
Margin = float | Mapping[str, float] | Sequence[str] | str | None
"""The smallest difference that matters: a number for all tasks, or ``{"digits": 0.01}``."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Sweep:
    """A sweep, or a suite of several, in its folder. Everything is read when it is asked for, so it shows the newest state."""

    folder: Path

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> "Sweep":
        """Returns the sweep or the suite in a folder, whether it runs, has ended, or has died.

        Raises:
            InputError: if the folder holds no sweep. For a folder of tables, use ``orca_sweep.read_results``.
        """
        path = real_path(folder, "folder")
        if not holds_sweep(path):
            remedy = "Name a folder that 'orca-sweep launch' wrote"
            tables = " (read_results reads a folder of tables)" if os.path.lexists(path / "trials.parquet") else ""
            raise InputError(f"{folder}: no sweep here (no sweep.json). {remedy}{tables}.")
        return cls(folder=path)

    def __repr__(self) -> str:
        return f"Sweep.open({str(self.folder)!r}): {self.status()!r}"

    def _repr_html_(self) -> str:
        status = self.status()
        return write_html(f"Sweep {status.name}", [], [*status.write_lines(), str(self.folder)])

    def status(self) -> "SweepStatus":
        """Returns how far the sweep is: trials by status, rate, time to go, hours, and each failure.

        Raises:
            InputError: if the folder's plan is damaged.
        """
        from orca_sweep.results import sweep_status

        return sweep_status(self.folder)

    def read(self) -> "Results":
        """Returns all tables of the sweep, as `orca_sweep.read_results` does; writes nothing."""
        from orca_sweep.results import read_results

        return read_results(self.folder)

    # Frames ---------------------------------------------------------------------------------------

    def results(self, *, all_columns: bool = False) -> "pd.DataFrame":
        """Returns a row per planned trial, under its ``trial_id``.

        The columns are the factors that vary (numbers as numbers, other levels as the space writes them); tuned fields;
        ``seed``; ``role`` where it varies; ``status``; the metrics that are not sealed; and ``error`` if a trial is not ok.

        Args:
            all_columns: return every column of trials.parquet instead ('orca-sweep list columns' explains them).
        """
        from orca_sweep.api.frames import choose_columns

        results = self.read()
        return results.trials if all_columns else choose_columns(results)

    def epochs(self) -> "pd.DataFrame":
        """Returns a row per trial, stage, and epoch: the factors that vary, ``seed``, and what the epoch measured."""
        from orca_sweep.api.frames import add_levels

        return add_levels(self.read())

    def verdicts(
        self,
        base: Levels = None,
        margin: Margin = None,
        *,
        metric: str | None = None,
        level: float | None = None,
        complete_pairs: bool = False,
    ) -> "pd.DataFrame":
        """Returns a row per contrast: each cell against the base cell of its task, in pairs of equal seed.

        The columns are the levels of the cell; ``base``; ``n_pairs``; ``difference`` with its interval ``low`` to ``high``;
        ``p_t_holm``, the p of the paired t test after Holm's correction; the word ``verdict`` (helps, hurts, no meaningful
        difference, undecided); and the ``margin`` with its source. ``analyse("table_effects")`` has more columns.

        Args:
            base: levels of the base cell; by default the first cell.
            margin: the smallest difference that matters; by default the space's, or the noise of its A/A repeats.
            metric: column to compare; by default the metric of the space, on validation while test metrics are sealed.
            level: confidence level of the intervals; by default 0.95.
            complete_pairs: judge cells that lack pairs from the pairs they have.

        Raises:
            InputError: for names that the sweep does not have, or if no task has two cells.
        """
        asked = {"base": base, "margin": margin, "metric": metric, "level": level, "complete_pairs": complete_pairs}
        return self._make_frame("table_effects", asked)

    def effects(
        self,
        without: Levels = None,
        *,
        base: Levels = None,
        margin: Margin = None,
        metric: str | None = None,
        level: float | None = None,
    ) -> "pd.DataFrame":
        """Returns a row per contrast of an effect: each factor, and each pair of factors that may act together.

        Args:
            without: levels to leave out, such as ``{"proxy": "none"}``, so that the rest is balanced.
            base: levels that the others are compared to; give the same as to ``verdicts``, so that the words agree.
            margin: the smallest difference that matters; the same holds for it.
            metric: column to analyse; by default the metric of the space.
            level: confidence level of the intervals.

        Raises:
            InputError: with every hole of a design that is not balanced.
        """
        asked = {"without": without, "base": base, "margin": margin, "metric": metric, "level": level}
        return self._make_frame("factor_effects", asked)

    def claims(
        self,
        base: Levels = None,
        margin: Margin = None,
        *,
        metric: str | None = None,
        level: float | None = None,
        complete_pairs: bool = False,
    ) -> "pd.DataFrame":
        """Returns a row per contrast on which a claim of the study is judged, and one for each claim without any.

        Args:
            base: levels of the setting to judge at.
            margin: the smallest difference that matters.
            metric: column to compare; by default the metric of the space.
            level: confidence level of the intervals; by default 0.95.
            complete_pairs: judge cells that lack pairs from the pairs they have.

        Raises:
            InputError: for names that the sweep does not have.
        """
        asked = {"base": base, "margin": margin, "metric": metric, "level": level, "complete_pairs": complete_pairs}
        return self._make_frame("claims", asked)

    def _make_frame(self, name: str, asked: Mapping[str, Any]) -> "pd.DataFrame":
        from orca_sweep.api.frames import FRAME_COLUMNS, read_numbers

        return read_numbers(self.analyse(name, **asked).numbers, FRAME_COLUMNS[name])

    # Analyses -------------------------------------------------------------------------------------

    def analyse(self, name: str, **options: Any) -> "Output":
        """Returns everything that an analysis writes: numbers as CSV, tables, and its figure; writes nothing.

        Args:
            name: the analysis, or a part of its name that no other has ('orca-sweep list analyses').
            options: its options, as ``orca-sweep analyse NAME --help`` lists them.

        Raises:
            InputError: for an unknown name or option, with the nearest, or if the tables cannot answer the question.
        """
        from orca_sweep.api.analysing import analyse_results

        return analyse_results(self.read(), name, options)

    def write_analysis(self, name: str, out: str | os.PathLike[str] | None = None, **options: Any) -> list[Path]:
        """Writes the files of an analysis, as ``orca-sweep analyse`` does, and returns their paths.

        They are its numbers as CSV, its tables as Markdown and LaTeX, and its figure as PNG, SVG, and PDF with embedded fonts.

        Args:
            name: as of ``analyse``.
            out: the folder; by default ``figures`` in the sweep folder.
            options: as of ``analyse``, such as ``width="column"``.

        Raises:
            InputError: as ``analyse``; also if files of another origin are in the way.
            StorageError: if the system refuses to write.
        """
        from orca_sweep.analysis.writing import write_output
        from orca_sweep.api.analysing import find_analysis
        from orca_sweep.api.reporting import explain_refusals

        output, target = self.analyse(name, **options), self.folder / "figures" if out is None else Path(out)
        with explain_refusals(target):
            return write_output(target, find_analysis(name).name, output)

    def figure(self, name: str, **options: Any) -> "Figure":
        """Returns the figure of an analysis, a matplotlib Figure that no pyplot knows; a notebook shows it.

        Args:
            name: the analysis, or a part of its name that no other has: 'proxies' for 'figure2_proxies'.
            options: its options, as of ``analyse``.

        Raises:
            InputError: as ``analyse``; also if the analysis has no figure.
        """
        from orca_sweep.api.analysing import take_figure

        return take_figure(name, self.analyse(name, **options))

    def report(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        base: Levels = None,
        margin: Margin = None,
        metric: str | None = None,
        complete_pairs: bool = False,
        figures: Sequence[str] | str | None = None,
    ) -> Path:
        """Writes one HTML page about the sweep and returns its path.

        Args:
            path: the file; by default ``report.html`` in the sweep folder.
            base: levels of the base cell.
            margin: the smallest difference that matters.
            metric: column to compare; by default the metric of the space.
            complete_pairs: judge cells that lack pairs from the pairs they have.
            figures: names of the figures to draw; by default those that suit the sweep.

        Raises:
            InputError: for names that the sweep does not have, or if something else is at the path.
            StorageError: if the system refuses to write.
        """
        from orca_sweep.api.analysing import find_analysis, list_items
        from orca_sweep.api.reporting import ReportOptions, write_report

        asked = ReportOptions(
            base=list_items(base),
            margin=list_items(margin),
            metric=metric,
            complete_pairs=complete_pairs,
            figures=None if figures is None else [find_analysis(name).name for name in list_items(figures)],
        )
        return write_report(self.folder, None if path is None else read_path(path), asked).path

    def reveal(self) -> "Reveal":
        """Shows the sealed test metrics of the trials that have ended, logs that, and makes tables and figures again.

        Do it when all choices are made: test metrics no longer judge what is tried after a look at them, and the tables say
        so (``n_reveals_before``).

        Returns:
            The ids of the trials that this look shows first, empty if there is nothing new, and what is damaged.

        Raises:
            InputError: if every record with test metrics is damaged.
            StorageError: if the system refuses to write.
        """
        from orca_sweep.api.finishing import reveal_sweep

        return reveal_sweep(self.folder)[0]

    # Running --------------------------------------------------------------------------------------

    def resume(
        self, *, address: str | None = None, dashboard_host: str = LOOPBACK, progress: Progress = True
    ) -> "Sweep":
        """Runs the missing and failed trials with the plan, data, and store of the last launch, and returns the sweep.

        Arguments and errors are those of ``Plan.launch``.
        """
        suite = read_resumed_suite(self.folder, address, dashboard_host)
        if suite is not None:
            run_suite(suite, progress)
            return self
        resumed = read_resumed(self.folder, address, dashboard_host)
        run_plan(resumed.plan, resumed.destination, progress)
        return self
