"""What follows a launch: the tables of the sweep, and the figures that suit it."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orca_sweep.errors import OrcaSweepError, first_line

if TYPE_CHECKING:
    from orca_sweep.results import Results


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a sweep folder holds after a launch."""

    results: "Results"
    pictures: tuple[Path, ...]
    """The figures as PNG."""
    refusals: tuple["Refusal", ...]
    """Figures that suit the sweep and could not be drawn."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A figure that could not be drawn."""

    figure: str
    reason: str

    def __str__(self) -> str:
        return f"no figure: {self.figure}: {self.reason}"


def finish_sweep(folder: Path) -> Finished:
    """Makes tables and figures from the records of a sweep, however it ended.

    Raises:
        InputError: if something in the folder is not the sweep's, or damaged.
        StorageError: if a table cannot be written.
    """
    from orca_sweep.results import collect

    results = collect([folder], folder / "tables")
    pictures, refusals = draw_figures(results, folder / "figures")
    return Finished(results=results, pictures=tuple(pictures), refusals=tuple(refusals))


def draw_figures(results: "Results", out: Path) -> tuple[list[Path], list[Refusal]]:
    """Draws the figures that suit a sweep, and returns their pictures and why others could not be drawn.

    The numbers of a sweep do not depend on a figure, so no reason is an error.
    """
    from orca_sweep.analysis.catalogue import choose_figures, write_analysis

    pictures: list[Path] = []
    refusals: list[Refusal] = []
    without_notes = replace(results, notes=())  # the summary prints them
    for name in choose_figures(results):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about letters that no installed font has, for example
                paths = write_analysis(out, name, without_notes)
        except Exception as error:
            reason = str(error) if isinstance(error, OrcaSweepError) else first_line(error)
            refusals.append(Refusal(figure=name, reason=reason))
        else:
            pictures += [path for path in paths if path.suffix == ".png"]
    return pictures, refusals
